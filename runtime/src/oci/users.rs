//! User and group names, looked up in a container's root file system from the host.
//!
//! The root file system is hostile: its files are opened beneath it, so that no link leads out, and read up to a limit.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Largest part of a database that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// A user, as a command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User ID.
    pub uid: u32,
    /// Group ID, if the text names a group, or names the user by a name.
    pub gid: Option<u32>,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A database cannot be read.
    #[error("cannot read /{file} of the container: {cause}; give numbers instead of names")]
    Read {
        /// The database.
        file: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The database does not have a name.
    #[error("/{file} of the container has no {name:?}")]
    Unknown {
        /// The name.
        name: String,
        /// The database.
        file: &'static str,
    },
}

/// The IDs of `USER[:GROUP]`, each a number or a name.
///
/// # Errors
/// [`UserError`].
pub fn resolve(rootfs: &Path, text: &str) -> Result<Ids, UserError> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let mut ids = match user.parse() {
        Ok(uid) => Ids { uid, gid: None },
        Err(_) => {
            // name:password:UID:GID:…
            let [uid, gid] = look_up(rootfs, "etc/passwd", user)?;
            let uid = uid.ok_or_else(|| unknown(user, "etc/passwd"))?;
            Ids { uid, gid }
        }
    };
    if let Some(group) = group {
        let gid = match group.parse() {
            Ok(gid) => Some(gid),
            // name:password:GID:…
            Err(_) => look_up(rootfs, "etc/group", group)?[0],
        };
        ids.gid = Some(gid.ok_or_else(|| unknown(group, "etc/group"))?);
    }
    Ok(ids)
}

fn unknown(name: &str, file: &'static str) -> UserError {
    UserError::Unknown { name: name.to_owned(), file }
}

/// The third and the fourth field of the entry with this name; a field that is not a number is `None`.
fn look_up(rootfs: &Path, file: &'static str, name: &str) -> Result<[Option<u32>; 2], UserError> {
    let database = open_beneath(rootfs, file).map_err(|cause| UserError::Read { file, cause })?;
    find(database, name).ok_or_else(|| unknown(name, file))
}

fn find(database: impl Read, name: &str) -> Option<[Option<u32>; 2]> {
    // The file may be in any encoding, because a field with a full name may be.
    let lines = BufReader::new(database.take(LIMIT)).split(b'\n').map_while(Result::ok);
    let mut entries = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.next() == Some(name.as_bytes())).then(|| {
            let mut number = |skip| std::str::from_utf8(fields.nth(skip)?).ok()?.parse().ok();
            [number(1), number(0)]
        })
    });
    entries.next().filter(|_| !name.is_empty())
}

/// Opens a file of the image, which must be a regular file: opening a device could have an effect on the host's
/// hardware.
fn open_beneath(rootfs: &Path, file: &str) -> io::Result<File> {
    let root = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = File::from(openat2(root, file, how)?);
    if !found.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

#[cfg(test)]
#[path = "users_test.rs"]
mod tests;
