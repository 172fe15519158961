//! `process.cwd`. It is entered with the privileges of the runtime, which may reach directories that the user may
//! not; one that only the user may reach (a file system of his own) is entered once he is in place.

use nix::{
    errno::Errno,
    unistd::{chdir, getcwd},
};

use crate::error::{Context, ErrorKind, Result, error};

/// A working directory on its way.
#[must_use]
pub struct WorkingDirectory<'a> {
    path: &'a str,
    entered: bool,
}

/// Enters it, if that needs no more than the runtime's privileges.
pub fn enter_early(path: &str) -> Result<WorkingDirectory<'_>> {
    match chdir(path) {
        Ok(()) => Ok(WorkingDirectory { path, entered: true }),
        Err(Errno::EACCES) => Ok(WorkingDirectory { path, entered: false }),
        Err(errno) => Err(errno).or_spec(|| change(path)),
    }
}

impl WorkingDirectory<'_> {
    /// Enters it as the user, if it has not been entered yet, and makes sure that it is in the container: a path
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
            // A name in between that the user may not read says nothing about where the directory is.
            Err(_) => Ok(()),
        }
    }
}

fn change(path: &str) -> String {
    format!("process.cwd: change to the working directory {path:?}")
}
