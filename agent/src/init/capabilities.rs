//! `process.capabilities`, before and after the user is set: the bounding set needs privileges to shrink, and
//! the change of user clears the others.

use nix::errno::Errno;
use stockade_protocol::container::Capabilities;

use crate::error::{Context, Result};

/// `_LINUX_CAPABILITY_VERSION_3` of capset(2).
const VERSION: u32 = 0x2008_0522;

/// Bits in a capability set.
const BITS: u32 = 64;

/// Capabilities that wait for the user.
pub struct Limited(Option<Capabilities>);

/// Drops from the bounding set what is not in it, and keeps the rest over the change of user.
pub fn limit(capabilities: Option<Capabilities>) -> Result<Limited> {
    if let Some(sets) = capabilities {
        drop_bounding(sets.bounding).or_spec(|| "limit the bounding capabilities".to_owned())?;
        keep_over_setuid(true)?;
    }
    Ok(Limited(capabilities))
}

impl Limited {
    /// Sets what remains.
    pub fn apply(self) -> Result<()> {
        let Some(sets) = self.0 else { return Ok(()) };
        keep_over_setuid(false)?;
        set(&sets).or_spec(|| "set the capabilities".to_owned())?;
        raise_ambient(sets.ambient).or_spec(|| "raise the ambient capabilities".to_owned())
    }
}

fn prctl(option: libc::c_int, argument: u64, second: u64) -> Result<(), Errno> {
    // SAFETY: the options used here take numbers only.
    Errno::result(unsafe { libc::prctl(option, argument, second, 0u64, 0u64) }).map(drop)
}

fn keep_over_setuid(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).or_internal(|| "keep the capabilities".to_owned())
}

fn drop_bounding(keep: u64) -> Result<(), Errno> {
    for capability in (0..BITS).filter(|capability| keep & 1 << capability == 0) {
        match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
            // Beyond the kernel's last one.
            Err(Errno::EINVAL) => break,
            done => done?,
        }
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set(sets: &Capabilities) -> Result<(), Errno> {
    let header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 has two structures of data; the kernel only reads them and, the version being known,
    // the header.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

fn raise_ambient(ambient: u64) -> Result<(), Errno> {
    (0..BITS).filter(|capability| ambient & 1 << capability != 0).try_for_each(|capability| {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into())
    })
}
