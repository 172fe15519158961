//! Capabilities, which are each thread's own (capabilities(7)).

use std::io;

/// By their numbers in linux/capability.h.
#[allow(missing_docs)] // The names are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    Chown = 0,
    DacOverride = 1,
    Fowner = 3,
    Fsetid = 4,
    Setgid = 6,
    Setuid = 7,
    Mknod = 27,
    Setfcap = 31,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes sure that no program can give the thread any again.
///
/// # Errors
/// CAP_SETPCAP is missing.
pub fn clear_bounding_set() -> io::Result<()> {
    for capability in 0..=u64::BITS {
        // SAFETY: no pointers are passed.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            // The first that this kernel does not know.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Gives up all but these; a thread that lacks some of them does without.
///
/// # Errors
/// Those of capget(2) and capset(2).
pub fn keep(capabilities: &[Capability]) -> io::Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 has two data structures, and they outlive the call.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let wanted = capabilities.iter().fold(0, |set, capability| set | 1 << *capability as u32);
    let kept = data[0].permitted & wanted;
    // All that are ever kept are in the first word. What is not permitted cannot be ambient either.
    data = [Data { effective: kept, permitted: kept, inheritable: 0 }, Data::default()];
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
