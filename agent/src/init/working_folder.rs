//! `process.cwd`. It is entered with the privileges of the runtime, which may reach folders that the user may not; one
//! that only the user may reach (a file system of his own) is entered once he is in place.

use nix::{
    errno::Errno,
    unistd::{chdir, getcwd},
};

use crate::error::{Context, ErrorKind, Result, error};

/// A working folder on its way.
#[must_use]
pub struct WorkingFolder<'a> {
    path: &'a str,
    entered: bool,
}

/// Enters it, if that needs no more than the runtime's privileges.
pub fn enter_early(path: &str) -> Result<WorkingFolder<'_>> {
    match chdir(path) {
        Ok(()) => Ok(WorkingFolder { path, entered: true }),
        Err(Errno::EACCES) => Ok(WorkingFolder { path, entered: false }),
        Err(errno) => Err(errno).or_spec(|| change(path)),
    }
}

impl WorkingFolder<'_> {
    /// Enters it as the user, if it has not been entered yet, and makes sure that it is in the container: a path
    /// through a descriptor in /proc may lead out.
    pub fn enter(self) -> Result<()> {
        if !self.entered {
            chdir(self.path).or_spec(|| change(self.path))?;
        }
        match getcwd() {
            Ok(folder) if folder.is_absolute() => Ok(()),
            Ok(_) | Err(Errno::ENOENT) => Err(error(
                ErrorKind::Spec,
                format!("process.cwd: {:?} is outside of the container", self.path),
            )),
            // A name in between that the user may not read says nothing about where the folder is.
            Err(_) => Ok(()),
        }
    }
}

fn change(path: &str) -> String {
    format!("process.cwd: change to the working folder {path:?}")
}
