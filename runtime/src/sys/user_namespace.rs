//! User namespaces by descriptor: they are made for their ID mappings, which a process in the caller's namespace has to
//! write.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use stockade_protocol::container::{IdMapping, IdMappings};

use super::process::{self, Child, Pidfd};

/// Makes a user namespace with these mappings, which no process is in.
///
/// # Errors
/// clone3(2)'s, or those of writing a map.
pub fn create(mappings: &IdMappings) -> io::Result<OwnedFd> {
    with_process(
        libc::CLONE_NEWUSER,
        || Ok(()),
        |child| {
            fs::write(format!("/proc/{}/uid_map", child.pid), text(&mappings.users))?;
            fs::write(format!("/proc/{}/gid_map", child.pid), text(&mappings.groups))?;
            Ok(File::open(format!("/proc/{}/ns/user", child.pid))?.into())
        },
    )
}

/// The text of a list for `uid_map` or `gid_map`.
pub fn text(list: &[IdMapping]) -> String {
    list.iter().map(|mapping| format!("{} {} {}\n", mapping.inside, mapping.outside, mapping.size)).collect()
}

/// The `uid_map` and the `gid_map` of the namespace at `path`, with the outer IDs of the caller's namespace.
///
/// # Errors
/// open(2)'s, setns(2)'s, or those of reading a map.
pub fn maps(path: &Path) -> io::Result<[String; 2]> {
    let namespace = File::open(path)?;
    let enter = || Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWUSER)?);
    with_process(0, enter, |child| {
        let read = |map: &str| fs::read_to_string(format!("/proc/{}/{map}", child.pid));
        Ok([read("uid_map")?, read("gid_map")?])
    })
}

/// Calls `look` with a child that is cloned with these flags, runs `enter`, and then waits to be killed.
fn with_process<T>(
    flags: libc::c_int,
    enter: impl FnOnce() -> io::Result<()>,
    look: impl FnOnce(&Child) -> io::Result<T>,
) -> io::Result<T> {
    let (mut entered, mut enters) = io::pipe()?;
    let creator = Pidfd::open(std::process::id() as i32)?;
    let body = || {
        let error = enter().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        // Its creator kills it, or is gone.
        let _ = enters.write_all(&error.to_ne_bytes());
        creator.wait_end(Duration::MAX);
        0
    };
    // SAFETY: where there are other threads, in the shim, the child only makes system calls, and allocates nothing.
    let child = unsafe { process::clone(flags, None, body) }?;
    drop(enters);
    let mut error = [0; 4];
    let looked = entered.read_exact(&mut error).and_then(|()| match i32::from_ne_bytes(error) {
        0 => look(&child),
        errno => Err(io::Error::from_raw_os_error(errno)),
    });
    child.kill();
    looked
}

/// Whether this process is in another user namespace than the host's first, which maps every ID to itself.
pub fn is_inner() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}
