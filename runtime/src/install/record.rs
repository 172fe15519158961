//! What `install` has changed, for `uninstall`: `PREFIX/var/lib/stockade/install/ENGINE.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::document::{Format, Keys, Problem};
use super::engines::Engine;
use super::{InstallError, below, failed, write};

/// One engine's change.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The file's text before the change; `None` if there was no file.
    pub before: Option<String>,
    /// The file's text after the change.
    pub after: String,
    /// The places of the settings that were made.
    pub places: Vec<Keys>,
    /// Directories that were made for the file, the innermost first.
    #[serde(rename = "folders")]
    pub directories: Vec<PathBuf>,
}

/// Where an engine's record is.
pub(super) fn path(prefix: &Path, engine: Engine) -> PathBuf {
    below(prefix, "/var/lib/stockade/install").join(engine.name()).with_extension("json")
}

impl Record {
    /// Reads a record; `None` if nothing was installed.
    pub fn read(path: &Path) -> Result<Option<Self>, InstallError> {
        match fs::read(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            result => serde_json::from_slice(&result.map_err(failed("read", path))?)
                .map(Some)
                .map_err(|cause| InstallError::Record { path: path.to_owned(), cause }),
        }
    }

    /// Replaces the record.
    pub fn write(&self, path: &Path) -> Result<(), InstallError> {
        let text =
            serde_json::to_string_pretty(self).map_err(io::Error::from).map_err(failed("write", path))?;
        // It repeats the engine's file, which may be secret.
        write(path, &text, 0o600).map_err(failed("write", path))
    }

    /// The engine's file without the change; `None` for no file.
    pub fn take_back(&self, format: Format, now: Option<&str>) -> Result<Option<String>, Problem> {
        match now {
            None => Ok(None),
            Some(now) if now == self.after => Ok(self.before.clone()),
            Some(now) => format.take_back(now, &self.places, self.before.as_deref()),
        }
    }
}
