//! Finds the path for `process.args[0]`, as execvp(3) does, but before the start: callers expect the error of a missing
//! program from "create".

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    sys::stat::{SFlag, stat},
    unistd::{AccessFlags, faccessat},
};
use stockade_protocol::container::Process;

use super::environment;
use crate::error::{AgentError, ErrorKind, Result, error, reason};

/// The PATH if the environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program's path, in the container's root and for its user.
pub fn find(process: &Process) -> Result<CString> {
    let Some(name) = process.args.first() else {
        return Err(error(ErrorKind::Spec, "process.args is empty"));
    };
    let search = environment::value(&process.env, "PATH").unwrap_or(DEFAULT_PATH);
    let path = look_up(name, search)?;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| error(ErrorKind::Spec, format!("process.args: {name:?} contains a NUL byte")))
}

fn look_up(name: &str, search: &str) -> Result<PathBuf> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match check(&path) {
            Ok(()) => Ok(path),
            Err(errno @ (Errno::ENOENT | Errno::ENOTDIR)) => Err(error(
                ErrorKind::ExecutableNotFound,
                format!("exec: {name:?}: stat {name}: {}", reason(errno)),
            )),
            Err(errno) => Err(not_executable(name, errno)),
        };
    }
    let mut found = Errno::ENOENT;
    // An empty entry is the working directory.
    for directory in search.split(':').map(|directory| if directory.is_empty() { "." } else { directory }) {
        let path = Path::new(directory).join(name);
        match check(&path) {
            Ok(()) if !name.is_empty() => return Ok(path),
            Err(errno @ (Errno::EACCES | Errno::EISDIR)) => found = errno,
            _ => {}
        }
    }
    if found == Errno::EACCES {
        return Err(not_executable(name, found));
    }
    Err(error(ErrorKind::ExecutableNotFound, format!("exec: {name:?}: executable file not found in $PATH")))
}

fn not_executable(name: &str, errno: Errno) -> AgentError {
    error(ErrorKind::NotExecutable, format!("exec: {name:?}: {}", reason(errno)))
}

fn check(path: &Path) -> nix::Result<()> {
    if SFlag::from_bits_truncate(stat(path)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

#[cfg(test)]
#[path = "executable_test.rs"]
mod tests;
