//! Capabilities and the other privileges of the calling thread (capabilities(7)). Each thread has its own.

use nix::errno::Errno;

use crate::done;

/// The capabilities that stockade uses, by their numbers in linux/capability.h.
#[allow(missing_docs)] // The names are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    Chown = 0,
    DacOverride = 1,
    Fowner = 3,
    Fsetid = 4,
    Setgid = 6,
    Setuid = 7,
    NetAdmin = 12,
    SysAdmin = 21,
    Mknod = 27,
    Setfcap = 31,
}

impl Capability {
    /// The set of this capability alone: bit n is capability n.
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// Capabilities that a kernel may have.
const NUMBERS: std::ops::Range<u32> = 0..u64::BITS;

/// `_LINUX_CAPABILITY_VERSION_3`, which takes two 32-bit halves of the three sets.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::pid_t,
}

/// `struct __user_cap_data_struct`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Three sets of the calling thread, bit n for capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What it may do now.
    pub effective: u64,
    /// What it can make effective.
    pub permitted: u64,
    /// What it can pass on to programs that it executes.
    pub inheritable: u64,
}

impl Sets {
    /// Reads the sets of the calling thread.
    ///
    /// # Errors
    /// Those of capget(2).
    pub fn get() -> Result<Self, Errno> {
        let header = Header { version: VERSION, pid: 0 };
        let mut data = [Data::default(); 2];
        // SAFETY: version 3 has two structures of data, which the kernel writes; of the header it only reads a known version.
        done(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
        let both = |half: fn(&Data) -> u32| u64::from(half(&data[0])) | u64::from(half(&data[1])) << 32;
        Ok(Self {
            effective: both(|data| data.effective),
            permitted: both(|data| data.permitted),
            inheritable: both(|data| data.inheritable),
        })
    }

    /// Gives the calling thread these sets.
    ///
    /// # Errors
    /// Those of capset(2): EPERM for what is not permitted.
    pub fn set(&self) -> Result<(), Errno> {
        let header = Header { version: VERSION, pid: 0 };
        let half = |shift: u32| Data {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        };
        let data = [half(0), half(32)];
        // SAFETY: version 3 has two structures of data; the kernel only reads them and, the version being known, the header.
        done(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
    }
}

/// Reduces the calling thread's effective and permitted sets to these capabilities, as far as it has them. The
/// inheritable set becomes empty, and so does the ambient set.
///
/// # Errors
/// Those of capget(2) and capset(2).
pub fn keep(capabilities: u64) -> Result<(), Errno> {
    let kept = Sets::get()?.permitted & capabilities;
    Sets { effective: kept, permitted: kept, inheritable: 0 }.set()
}

/// Removes all other capabilities from the bounding set: no program that the thread executes can gain them again.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn bound(keep: u64) -> Result<(), Errno> {
    for capability in NUMBERS.filter(|capability| keep & 1 << capability == 0) {
        match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
            // The first capability that this kernel does not know.
            Err(Errno::EINVAL) => break,
            dropped => dropped?,
        }
    }
    Ok(())
}

/// Empties the ambient set.
///
/// # Errors
/// Those of prctl(2).
pub fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)
}

/// Adds these to the ambient set.
///
/// # Errors
/// EPERM for what is not both permitted and inheritable.
pub fn raise_ambient(capabilities: u64) -> Result<(), Errno> {
    NUMBERS.filter(|capability| capabilities & 1 << capability != 0).try_for_each(|capability| {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability.into())
    })
}

/// Whether the permitted set outlives a change of all user IDs from 0 to others (PR_SET_KEEPCAPS).
///
/// # Errors
/// Those of prctl(2).
pub fn keep_over_setuid(keep: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0)
}

/// Sets no_new_privs: nothing that the thread executes brings it privileges.
///
/// # Errors
/// Those of prctl(2).
pub fn forbid_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> Result<(), Errno> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options above take numbers only.
    Errno::result(unsafe { libc::prctl(option, first, second, none, none) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_keeps_what_it_has_of_what_it_wants() {
        thread::spawn(|| {
            let before = Sets::get().unwrap().permitted;
            let wanted = Capability::Chown.bit() | Capability::Mknod.bit();
            keep(wanted).unwrap();
            let sets = Sets::get().unwrap();
            assert_eq!((sets.permitted, sets.effective), (before & wanted, before & wanted));
            keep(0).unwrap();
            assert_eq!(Sets::get().unwrap(), Sets::default());
        })
        .join()
        .unwrap();
    }
}
