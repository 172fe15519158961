//! The table `[scratch]`: directories of containers that are on disks of their VMs, which last as long as the container.

use std::path::PathBuf;

use serde::Deserialize;

use crate::text::bytes;

/// The keys of [`Scratch`].
pub(super) const KEYS: [&str; 3] = ["default", "directory", "max_mib"];

/// What containers have of it, and may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Scratch {
    /// What a container gets that asks for nothing, in the annotation's form.
    pub default: Option<String>,
    /// The directory of the host whose file system holds the disks.
    pub directory: PathBuf,
    /// Most that the disks of one container have together, in MiB.
    pub max_mib: u32,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { default: None, directory: "/var/tmp".into(), max_mib: 20_480 }
    }
}

impl Scratch {
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.directory.is_absolute() {
            return Err(format!("scratch.directory: {} is not an absolute path", self.directory.display()));
        }
        self.default.as_deref().map_or(Ok(()), |text| {
            parse(text).map(drop).map_err(|problem| format!("scratch.default: {problem}"))
        })
    }
}

/// A directory on a disk of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path in the container.
    pub path: String,
    /// Size of the disk, in bytes.
    pub size: u64,
}

/// Reads `PATH:SIZE[,PATH:SIZE …]`.
///
/// # Errors
/// One line for a person.
pub fn parse(text: &str) -> Result<Vec<Place>, String> {
    let places = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(|entry| {
        let place = entry.rsplit_once(':').filter(|(path, _)| path.starts_with('/'));
        let place = place.and_then(|(path, size)| {
            let size = bytes::parse(size).and_then(|size| u64::try_from(size).ok())?;
            Some(Place { path: path.to_owned(), size })
        });
        place.ok_or_else(|| {
            format!("{entry:?} is not PATH:SIZE, an absolute path and a size such as 512m or 20g")
        })
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_paths_and_sizes() {
        let place = |path: &str, size| Place { path: path.to_owned(), size };
        assert_eq!(
            parse("/:1g, /var/lib/docker:512m,").unwrap(),
            [place("/", 1 << 30), place("/var/lib/docker", 512 << 20)]
        );
        assert_eq!(parse("/a:b:64MiB").unwrap(), [place("/a:b", 64 << 20)]);
        assert_eq!(parse("").unwrap(), []);
        for wrong in ["/", "/:", "tmp:1g", ":1g", "/:-1", "/:x", "/:1g:", "/a:99999999t"] {
            assert!(parse(wrong).unwrap_err().contains("PATH:SIZE"), "{wrong}");
        }
    }

    #[test]
    fn the_table_is_checked() {
        assert_eq!(Scratch::default().check(), Ok(()));
        let relative = Scratch { directory: "tmp".into(), ..Scratch::default() };
        assert!(relative.check().unwrap_err().contains("scratch.directory: tmp"));
        let wrong = Scratch { default: Some("/tmp".to_owned()), ..Scratch::default() };
        assert!(wrong.check().unwrap_err().contains("scratch.default: \"/tmp\""));
    }
}
