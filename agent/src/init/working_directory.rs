//! `process.cwd`. It is entered with the privileges of the runtime, which may reach directories that the user may
//! not; one that only the user may reach (on a file system of the user) is entered after the change to that user.

use nix::{
    errno::Errno,
    unistd::{chdir, getcwd},
};

use crate::error::{Context, ErrorKind, Result, error};

/// A working directory that may still have to be entered.
#[must_use]
pub struct WorkingDirectory<'a> {
    path: &'a str,
    entered: bool,
}

/// Enters the directory, if the runtime's privileges suffice.
pub fn enter_early(path: &str) -> Result<WorkingDirectory<'_>> {
    match chdir(path) {
        Ok(()) => Ok(WorkingDirectory { path, entered: true }),
        Err(Errno::EACCES) => Ok(WorkingDirectory { path, entered: false }),
        Err(errno) => Err(errno).or_spec(|| change(path)),
    }
}

impl WorkingDirectory<'_> {
    /// Enters the directory as the user, if it has not been entered yet, and checks that it is in the container: a path
    /// through a descriptor in /proc may lead out.
    pub fn enter(self) -> Result<()> {
        if !self.entered {
            chdir(self.path).or_spec(|| change(self.path))?;
        }
        match getcwd() {
            Ok(directory) if directory.is_absolute() => Ok(()),
            Ok(_) | Err(Errno::ENOENT) => Err(error(
                ErrorKind::Spec,
                format!("process.cwd: {:?} is outside of the container", self.path),
            )),
            // The user may not read a directory on the way, so the path is not known; that does not mean that it is
            // outside.
            Err(_) => Ok(()),
        }
    }
}

fn change(path: &str) -> String {
    format!("process.cwd: change to the working directory {path:?}")
}
