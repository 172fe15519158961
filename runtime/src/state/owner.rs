//! Whose the directories of containers must be.

use std::io;

/// Checks that nobody else can put a directory of his own in the place of a container's: a record names programs, which
/// are executed, and processes, which are killed. Root and the sticky bit are trusted.
///
/// # Errors
/// `PermissionDenied`.
pub(super) fn check_root(owner: u32, mode: u32) -> io::Result<()> {
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(foreign("everybody may write to the state root (--root)".to_owned()));
    }
    match owner {
        0 => Ok(()),
        owner => check_owner(owner, "the state root (--root)"),
    }
}

/// Checks that this is the owner of what is this user's.
///
/// # Errors
/// `PermissionDenied`.
pub(super) fn check_owner(owner: u32, what: &str) -> io::Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    if owner == own {
        Ok(())
    } else {
        Err(foreign(format!("{what} belongs to user {owner}, and not to {own}")))
    }
}

fn foreign(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{problem}, so nothing in it is believed"))
}
