//! Adding the runtime to engines' configurations, and removing it again.
//!
//! ```text
//!   before ── install ──→ after        the record keeps both
//!   after  ── uninstall ─→ before      byte by byte
//!   after, changed since ── uninstall ─→ without what was set, or with it as it was before
//! ```
//!
//! All changes are computed before the first is made, so if one file is not understood, nothing is changed.

mod document;
mod engines;
mod record;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

pub use engines::{Engine, Engines, Runtime, SettingsError};
use record::Record;

use crate::sys::replacement::Replacement;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file cannot be read or written.
    #[error("cannot {what} {path}: {cause}")]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// An engine's file is not understood.
    #[error("{path}: {problem}; nothing was changed")]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: SettingsError,
    },
    /// What `uninstall` needs is damaged.
    #[error("{path} is damaged: {cause}; correct the engine's file by hand and remove this one")]
    Record {
        /// The record.
        path: PathBuf,
        /// The cause.
        cause: serde_json::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |cause| InstallError::File { what, path: path.to_owned(), cause }
}

/// A change to an engine's file.
#[derive(Debug)]
pub struct Change {
    path: PathBuf,
    now: Option<String>,
    then: Option<String>,
    record_path: PathBuf,
    /// The record to write; `None` removes the record.
    record: Option<Record>,
    /// Directories to remove if they are empty.
    directories: Vec<PathBuf>,
}

/// The change that makes `runtime` the runtime `stockade` of an engine whose files are below `prefix`.
///
/// # Errors
/// [`InstallError`].
pub fn install(engine: Engine, prefix: &Path, runtime: Runtime<'_>) -> Result<Change, InstallError> {
    let path = below(prefix, engine.path());
    let understood = |problem: SettingsError| InstallError::NotUnderstood { path: path.clone(), problem };
    let now = read(&path)?;
    let record_path = record::path(prefix, engine);
    let former = Record::read(&record_path)?;
    let before = match &former {
        Some(record) => {
            record.take_back(engine.format(), now.as_deref()).map_err(|e| understood(e.into()))?
        }
        None => now.clone(),
    };
    let is_untouched = former.as_ref().is_some_and(|record| now.as_ref() == Some(&record.after));
    let base = if is_untouched { &before } else { &now }.clone().unwrap_or_default();
    let settings =
        engine.settings(runtime, before.as_deref().unwrap_or_default(), prefix).map_err(understood)?;
    let after = engine.format().set(&base, &settings).map_err(|e| understood(e.into()))?;
    let directories = match former {
        Some(record) => record.directories,
        None => missing_directories(&path),
    };
    let places = settings.into_iter().map(|setting| setting.keys).collect();
    let record = Record { before, after: after.clone(), places, directories };
    Ok(Change { path, now, then: Some(after), record_path, record: Some(record), directories: Vec::new() })
}

/// The change that undoes `install`; `None` if nothing was installed.
///
/// # Errors
/// [`InstallError`].
pub fn uninstall(engine: Engine, prefix: &Path) -> Result<Option<Change>, InstallError> {
    let record_path = record::path(prefix, engine);
    let Some(record) = Record::read(&record_path)? else { return Ok(None) };
    let path = below(prefix, engine.path());
    let now = read(&path)?;
    let then = record
        .take_back(engine.format(), now.as_deref())
        .map_err(|e| InstallError::NotUnderstood { path: path.clone(), problem: e.into() })?;
    let directories = record.directories;
    Ok(Some(Change { path, now, then, record_path, record: None, directories }))
}

impl Change {
    /// The change as a unified diff, or one line that says that there is none.
    pub fn describe(&self) -> String {
        if self.now == self.then {
            return format!("{}: nothing to change\n", self.path.display());
        }
        let name = |text: &Option<String>| match text {
            Some(_) => self.path.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (now, then) = (text(&self.now), text(&self.then));
        let diff = similar::TextDiff::from_lines(&now, &then);
        diff.unified_diff().header(&name(&self.now), &name(&self.then)).to_string()
    }

    /// Makes the change. If it is interrupted, `uninstall` can still undo it.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn make(self) -> Result<(), InstallError> {
        if let Some(record) = &self.record
            && self.now != self.then
        {
            make_directories(&self.record_path)?;
            record.write(&self.record_path)?;
        }
        match &self.then {
            _ if self.now == self.then => {}
            Some(text) => {
                make_directories(&self.path)?;
                write(&self.path, text, 0o644).map_err(failed("write", &self.path))?;
            }
            None => fs::remove_file(&self.path).map_err(failed("remove", &self.path))?,
        }
        if self.record.is_none() {
            fs::remove_file(&self.record_path).map_err(failed("remove", &self.record_path))?;
            let records = self.record_path.ancestors().skip(1).take(2);
            for directory in self.directories.iter().map(PathBuf::as_path).chain(records) {
                // Somebody else's files may be in it by now.
                let _ = fs::remove_dir(directory);
            }
        }
        Ok(())
    }
}

fn below(prefix: &Path, path: &str) -> PathBuf {
    prefix.join(path.trim_start_matches('/'))
}

fn read(path: &Path) -> Result<Option<String>, InstallError> {
    match fs::read_to_string(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(failed("read", path)),
    }
}

/// The missing directories above a file, the innermost first.
fn missing_directories(path: &Path) -> Vec<PathBuf> {
    path.ancestors().skip(1).take_while(|directory| !directory.exists()).map(Path::to_owned).collect()
}

fn make_directories(path: &Path) -> Result<(), InstallError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("make", directory))
}

/// Replaces a file, which keeps its owner and mode, or makes it. If the path is a link, the file that the link leads to
/// is replaced.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut new = Replacement::begin(&path, mode)?;
    if let Ok(metadata) = fs::metadata(&path) {
        fchown(&new.file, Some(metadata.uid()), Some(metadata.gid()))?;
        new.file.set_permissions(fs::Permissions::from_mode(metadata.mode()))?;
    }
    new.file.write_all(text.as_bytes())?;
    new.file.sync_all()?;
    new.put()
}

#[cfg(test)]
#[path = "install_test.rs"]
mod tests;
