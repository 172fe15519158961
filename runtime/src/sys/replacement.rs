//! Replacing a file as a whole: a reader sees either the old content or the new.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How often a file that is in the way is removed.
const MAX_ATTEMPTS: usize = 8;

/// A file's new content, beside the file as `.NAME.new` until it is put in place; removed if it never is.
#[derive(Debug)]
pub struct Replacement {
    /// The file to write the new content to.
    pub file: File,
    /// Its path until it is put in place.
    new: Option<PathBuf>,
    path: PathBuf,
}

impl Replacement {
    /// Begins to replace `path`, whether or not it exists, with this mode minus the umask. A file that is in the way is
    /// removed: a link or a FIFO that somebody has put there is neither followed nor waited for.
    ///
    /// # Errors
    /// open(2)'s or unlink(2)'s; `AlreadyExists` if somebody puts a file there again and again.
    pub fn begin(path: &Path, mode: u32) -> io::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(".new");
        let new = path.with_file_name(name);
        let mut attempts = 0;
        let file = loop {
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&new) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                    match fs::remove_file(&new) {
                        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                        _ => {}
                    }
                }
                file => break file?,
            }
        };
        Ok(Self { file, new: Some(new), path: path.to_owned() })
    }

    /// Puts the new content in place.
    ///
    /// # Errors
    /// rename(2)'s.
    pub fn put(mut self) -> io::Result<()> {
        match self.new.take() {
            Some(new) => fs::rename(&new, &self.path).inspect_err(|_| self.new = Some(new)),
            None => Ok(()),
        }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            // There is nobody to tell, and the next replacement removes the file.
            let _ = fs::remove_file(new);
        }
    }
}

#[cfg(test)]
#[path = "replacement_test.rs"]
mod tests;
