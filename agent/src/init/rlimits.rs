//! `process.rlimits`.

use nix::{
    errno::Errno,
    sys::resource::{Resource, setrlimit},
};
use stockade_protocol::container::Rlimit;

use super::proc_files;
use crate::error::{Context, Result};

/// Hard limit of open files if the host gives none.
pub const MAX_OPEN_FILES: u64 = 1 << 20;

/// Soft limit of open files if the host gives none; more would break programs that use select(2).
const OPEN_FILES: u64 = 1024;

/// Raises the hard limits as far as [`apply`] will need; only the guest's root can do that.
pub fn raise(rlimits: &[Rlimit]) -> Result<()> {
    rlimits.iter().try_for_each(|limit| {
        let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel fills the structure, and rejects a resource that it does not know.
        let got = Errno::result(unsafe { libc::getrlimit(limit.resource, &raw mut value) });
        let raised = got.and_then(|_| {
            if value.rlim_max >= limit.hard {
                return Ok(());
            }
            value.rlim_max = limit.hard;
            // SAFETY: the kernel only reads the structure.
            Errno::result(unsafe { libc::setrlimit(limit.resource, &raw const value) }).map(drop)
        });
        raised.or_spec(|| format!("raise process.rlimits, resource {}, to {}", limit.resource, limit.hard))
    })
}

/// The sysctl with the largest number of open files that any process may have.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";

/// Raises that sysctl if a limit asks for more; must be called while the guest's /proc can be reached.
pub fn make_room(rlimits: &[Rlimit]) -> Result<()> {
    let files = rlimits.iter().find(|limit| limit.resource == libc::RLIMIT_NOFILE);
    let Some(most) = files.map(|limit| limit.hard).filter(|hard| *hard > MAX_OPEN_FILES) else {
        return Ok(());
    };
    let room = std::fs::read_to_string(NR_OPEN).or_internal(|| format!("read {NR_OPEN}"))?;
    if room.trim().parse().is_ok_and(|room: u64| room >= most) {
        return Ok(());
    }
    proc_files::write("sys/fs/nr_open", &most.to_string())
        .or_spec(|| format!("process.rlimits: RLIMIT_NOFILE: make room for {most} open files"))
}

/// Sets the limits, and resets those that only the agent has.
pub fn apply(rlimits: &[Rlimit]) -> Result<()> {
    if rlimits.iter().all(|limit| limit.resource != libc::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, MAX_OPEN_FILES)
            .or_internal(|| "limit the open files".to_owned())?;
    }
    for (index, limit) in rlimits.iter().enumerate() {
        let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: the kernel only reads the structure, and rejects a resource that it does not know.
        Errno::result(unsafe { libc::setrlimit(limit.resource, &raw const value) }).or_spec(|| {
            format!("process.rlimits[{index}]: set limit {} to {}:{}", limit.resource, limit.soft, limit.hard)
        })?;
    }
    Ok(())
}
