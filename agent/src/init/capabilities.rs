//! `process.capabilities`, before and after the user is set: the bounding set needs privileges to shrink, and
//! the change of user clears the others.
//!
//! Without no_new_privs only CAP_SYS_ADMIN may load a seccomp filter. So that this can be the last step before execve,
//! the capability stays permitted until then, whatever the process is to have: execve makes the permitted set anew,
//! from the bounding, inheritable and ambient ones.

use nix::{errno::Errno, unistd::Uid};
use stockade_protocol::container::Capabilities;

use crate::error::{Context, Result};

/// `_LINUX_CAPABILITY_VERSION_3` of capset(2).
const VERSION: u32 = 0x2008_0522;

/// Bits in a capability set.
const BITS: u32 = 64;

/// CAP_SYS_ADMIN as a bit.
const SYS_ADMIN: u64 = 1 << 21;

/// Capabilities that wait for the user.
pub struct Limited {
    sets: Option<Capabilities>,
    extra: u64,
}

/// Drops from the bounding set what is not in it, and keeps the rest over the change of user. `loads_filter` is whether
/// [`be_allowed_to_load_a_filter`] will be called.
pub fn limit(capabilities: Option<Capabilities>, loads_filter: bool) -> Result<Limited> {
    if let Some(sets) = capabilities {
        drop_bounding(sets.bounding).or_spec(|| "limit the bounding capabilities".to_owned())?;
    }
    if capabilities.is_some() || loads_filter {
        keep_over_setuid(true)?;
    }
    Ok(Limited { sets: capabilities, extra: if loads_filter { SYS_ADMIN } else { 0 } })
}

impl Limited {
    /// Sets what remains.
    pub fn apply(self) -> Result<()> {
        keep_over_setuid(false)?;
        let sets = match self.sets {
            Some(sets) => sets,
            // What execve gives root it has already, and others it leaves nothing.
            None if self.extra == 0 || Uid::effective().is_root() => return Ok(()),
            None => Capabilities::default(),
        };
        set(&Capabilities { permitted: sets.permitted | self.extra, ..sets })
            .or_spec(|| "set the capabilities".to_owned())?;
        raise_ambient(sets.ambient).or_spec(|| "raise the ambient capabilities".to_owned())
    }
}

/// Puts CAP_SYS_ADMIN into effect for what little is done before execve.
pub fn be_allowed_to_load_a_filter() -> Result<()> {
    get()
        .and_then(|sets| set(&Capabilities { effective: sets.effective | SYS_ADMIN, ..sets }))
        .or_internal(|| "be allowed to load linux.seccomp".to_owned())
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

/// The three sets that capget(2) tells.
fn get() -> Result<Capabilities, Errno> {
    let header = Header { version: VERSION, pid: 0 };
    let mut data = [const { Data { effective: 0, permitted: 0, inheritable: 0 } }; 2];
    // SAFETY: version 3 has two structures of data, which the kernel writes; of the header it only reads a known version.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let both = |half: fn(&Data) -> u32| u64::from(half(&data[0])) | u64::from(half(&data[1])) << 32;
    Ok(Capabilities {
        effective: both(|data| data.effective),
        permitted: both(|data| data.permitted),
        inheritable: both(|data| data.inheritable),
        ..Capabilities::default()
    })
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
