//! `process.env`, and HOME where it is not in there: programs expect it, and callers leave it to the runtime.

use std::{
    ffi::CString,
    fs::File,
    io::{BufRead, BufReader, Read},
};

use stockade_protocol::{agent::NOTIFY_SOCKET, container::Process};

use crate::error::Result;

/// The container's user database; that much of it is read, in bytes.
const PASSWD: &str = "/etc/passwd";
const PASSWD_LIMIT: u64 = 1 << 20;

/// The environment of the program; with `notify` it names the container's sd_notify(3) socket.
pub fn prepare(process: &Process, notify: bool) -> Result<Vec<CString>> {
    let mut env = super::c_strings("process.env", &process.env)?;
    if notify {
        env.retain(|entry| !entry.as_bytes().starts_with(b"NOTIFY_SOCKET="));
        env.extend(CString::new(format!("NOTIFY_SOCKET={NOTIFY_SOCKET}")));
    }
    if value(&process.env, "HOME").is_none() {
        let home = File::open(PASSWD).ok().and_then(|file| home(file.take(PASSWD_LIMIT), process.user.uid));
        // A home is one field of one line: it has no NUL that the file did not have.
        env.extend(CString::new(format!("HOME={}", home.as_deref().unwrap_or("/"))));
    }
    Ok(env)
}

/// What `env` says for `name`; the last entry counts.
pub fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// The home of `uid` according to a passwd(5) file.
fn home(passwd: impl Read, uid: u32) -> Option<String> {
    BufReader::new(passwd).lines().map_while(std::io::Result::ok).find_map(|line| {
        let mut fields = line.split(':');
        let is_user = fields.nth(2)?.parse() == Ok(uid);
        fields.nth(2).filter(|home| is_user && !home.is_empty()).map(str::to_owned)
    })
}

#[cfg(test)]
#[path = "environment_test.rs"]
mod tests;
