//! Times of day as `ps` shows them.

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

/// A time (in seconds since 1970) in five characters: hour and minute if it is less than a day ago, else month and
/// day; `?` if it is not a valid time.
pub fn short(time_s: u64, now_s: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(time) = local(time_s) else { return "?".to_owned() };
    let month = usize::try_from(time.tm_mon).ok().and_then(|month| MONTHS.get(month));
    match month {
        _ if time_s.abs_diff(now_s) < DAY_S => format!("{:02}:{:02}", time.tm_hour, time.tm_min),
        Some(month) => format!("{month}{:02}", time.tm_mday),
        None => "?".to_owned(),
    }
}

fn local(time_s: u64) -> Option<libc::tm> {
    let time = libc::time_t::try_from(time_s).ok()?;
    // SAFETY: tm is plain integers and a pointer, for which zero is a value.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: localtime_r reads one and fills the other; it fails where the year does not fit.
    let filled = unsafe { libc::localtime_r(&raw const time, &raw mut local) };
    (!filled.is_null()).then_some(local)
}
