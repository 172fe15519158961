//! `--pid-file`: it tells a caller that its process exists, and so it is written last.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

use crate::sys::replacement::Replacement;

/// Writes the file; callers read it as soon as it exists, so it appears with its whole content.
///
/// # Errors
/// An error of the file system.
pub fn write(path: &Path, pid: i32) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut new = Replacement::begin(path, 0o644)?;
        write!(new.file, "{pid}")?;
        new.put()
    };
    write().with_context(|| format!("--pid-file: cannot write {}", path.display()))
}
