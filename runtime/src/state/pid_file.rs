//! `--pid-file`: what tells a caller that its process is there, and so is written last.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

use crate::sys::replacement::Replacement;

/// Writes it; callers read the file as soon as it is there, so it appears whole.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, pid: i32) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut new = Replacement::begin(path, 0o644)?;
        write!(new.file, "{pid}")?;
        new.put()
    };
    write().with_context(|| format!("--pid-file: cannot write {}", path.display()))
}
