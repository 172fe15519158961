//! `process.env`, and HOME if that is missing or empty: programs expect it, and callers leave it to the runtime.

use std::{
    ffi::{CString, OsString},
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::OpenOptionsExt,
    },
};

use stockade_protocol::{agent::NOTIFY_SOCKET, container::Process};

use super::shared_files;
use crate::error::Result;

/// The container's user database, and the largest part of it that is read, in bytes.
const PASSWD: &str = "/etc/passwd";
const PASSWD_LIMIT: u64 = 1 << 20;

/// The environment of the program; with `notify` it names the container's sd_notify(3) socket.
pub fn prepare(process: &Process, notify: bool) -> Result<Vec<CString>> {
    let mut env = super::c_strings("process.env", &process.env)?;
    if notify {
        env.retain(|entry| !entry.as_bytes().starts_with(b"NOTIFY_SOCKET="));
        env.extend(CString::new(format!("NOTIFY_SOCKET={NOTIFY_SOCKET}")));
    }
    if value(&process.env, "HOME").is_none_or(str::is_empty) {
        let home = passwd().ok().and_then(|file| home(file.take(PASSWD_LIMIT), process.user.uid));
        let home = [b"HOME=".as_slice(), home.as_ref().map_or(b"/", |home| home.as_bytes())].concat();
        env.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
        // A home directory with a NUL byte is not valid.
        env.extend(CString::new(home));
    }
    Ok(env)
}

/// Opens the user database as it is on the host now; if an image has a FIFO there, it is not waited for.
fn passwd() -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(PASSWD)?;
    shared_files::look_again(&file);
    Ok(file)
}

/// The value of `name` in `env`; the last entry counts.
pub fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// The home directory of `uid` in a passwd(5) file, whose text may be in any encoding.
fn home(passwd: impl Read, uid: u32) -> Option<OsString> {
    BufReader::new(passwd).split(b'\n').map_while(Result::ok).find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let is_user = std::str::from_utf8(fields.nth(2)?).ok()?.parse() == Ok(uid);
        fields.nth(2).filter(|home| is_user && !home.is_empty()).map(|home| OsString::from_vec(home.to_vec()))
    })
}

#[cfg(test)]
#[path = "environment_test.rs"]
mod tests;
