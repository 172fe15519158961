//! `linux.timeOffsets`.

use oci_spec::runtime::Linux;
use stockade_protocol::container::{Namespace, TimeOffset};

use crate::oci::bundle::SpecError;

/// The clocks of a time namespace, by the names that config.json has for them.
const CLOCKS: [(&str, i32); 2] = [("monotonic", libc::CLOCK_MONOTONIC), ("boottime", libc::CLOCK_BOOTTIME)];

const NANOSECONDS: u32 = 1_000_000_000;

/// The offsets for a container that has this time namespace.
///
/// # Errors
/// Offsets without a new time namespace, of other clocks, or out of the kernel's range.
pub fn lower(linux: Option<&Linux>, namespace: &Namespace) -> Result<Vec<TimeOffset>, SpecError> {
    let offsets = linux.and_then(|linux| linux.time_offsets().as_ref()).filter(|offsets| !offsets.is_empty());
    let Some(offsets) = offsets else { return Ok(Vec::new()) };
    if *namespace != Namespace::New {
        let problem = "needs an entry of type `time` without a path in linux.namespaces";
        return Err(SpecError::new("linux.timeOffsets", problem));
    }
    let mut lowered = Vec::new();
    for (name, offset) in offsets {
        let property = format!("linux.timeOffsets.{name}");
        let Some((_, clock)) = CLOCKS.iter().find(|(known, _)| known == name) else {
            return Err(SpecError::new(property, "is not one of monotonic, boottime"));
        };
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= NANOSECONDS {
            let problem = format!("{nanoseconds} is a second or more");
            return Err(SpecError::new(format!("{property}.nanosecs"), problem));
        }
        lowered.push(TimeOffset { clock: *clock, seconds: offset.secs().unwrap_or(0), nanoseconds });
    }
    lowered.sort_unstable_by_key(|offset| offset.clock);
    Ok(lowered)
}
