//! The bundle: a directory with a config.json (runtime-spec "Filesystem Bundle").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::specification::{self, HwConfig};

/// The configuration's name in a bundle.
pub const CONFIG: &str = "config.json";

/// Longest config.json that is read, in bytes.
const LIMIT: u64 = 8 << 20;

/// A bundle that has been read.
#[derive(Debug)]
pub struct Bundle {
    /// Its directory, absolute.
    pub path: PathBuf,
    /// Its configuration.
    pub spec: Spec,
    /// Its root file system: absolute and a directory.
    pub rootfs: PathBuf,
    /// `vm.hwConfig`, which is not in `spec`.
    pub hw_config: Option<HwConfig>,
    /// One sentence for each part of the configuration that was ignored.
    pub warnings: Vec<String>,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The directory does not exist.
    #[error("bundle {path}: {cause}")]
    Directory {
        /// The path that was given.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// config.json cannot be read.
    #[error("cannot read {path}: {cause}; `stockade spec` writes one to start from")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The file is not JSON, or does not have the specification's types.
    #[error("{path}: {problem}")]
    Json {
        /// The file.
        path: PathBuf,
        /// JSON path, place and cause.
        problem: String,
    },
    /// A property has a value that cannot be used.
    #[error("{CONFIG}: {0}")]
    Property(#[from] SpecError),
}

/// A property of config.json that cannot be used, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct SpecError {
    /// JSON path, such as `linux.resources.memory.limit`.
    pub path: String,
    /// What is wrong, what to do.
    pub problem: String,
}

impl SpecError {
    /// An error for one property.
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

impl Bundle {
    /// Reads the bundle at `path`; `config` names a file to read instead of its config.json.
    ///
    /// # Errors
    /// [`BundleError`], which names the file and the property.
    pub fn load(path: &Path, config: Option<&Path>) -> Result<Self, BundleError> {
        let directory = fs::canonicalize(path)
            .map_err(|cause| BundleError::Directory { path: path.to_owned(), cause })?;
        let file = config.map_or_else(|| directory.join(CONFIG), Path::to_owned);
        let text = read(&file).map_err(|cause| BundleError::Read { path: file.clone(), cause })?;
        let json = |problem| BundleError::Json { path: file.clone(), problem };
        let mut warnings = Vec::new();
        let spec: Spec = parse_adapted(&text, |spec| spec.get_mut("process"), &mut warnings).map_err(json)?;
        check_version(spec.version())?;
        let rootfs = rootfs(&directory, &spec)?;
        let hw_config = match spec.vm() {
            Some(_) => parse::<specification::Rest>(&text).map_err(json)?.hw_config(),
            None => None,
        };
        Ok(Self { path: directory, spec, rootfs, hw_config, warnings })
    }
}

/// Reads a file that may be no longer than a config.json.
///
/// # Errors
/// An error of the file system.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > LIMIT {
        return Err(io::Error::other(format!("it has {length} bytes; the limit is {LIMIT}")));
    }
    fs::read(path)
}

/// Parses a `process` by itself; for each part that is ignored, a warning is added to `warnings`.
///
/// # Errors
/// As [`parse`].
pub fn parse_process(text: &[u8], warnings: &mut Vec<String>) -> Result<Process, String> {
    parse_adapted(text, |process| Some(process), warnings)
}

/// As [`parse`]; if that fails, it is tried again with `process` adapted to the crate's types. The function `process`
/// finds it in the document.
fn parse_adapted<T: DeserializeOwned>(
    text: &[u8],
    process: impl FnOnce(&mut Value) -> Option<&mut Value>,
    warnings: &mut Vec<String>,
) -> Result<T, String> {
    parse(text).or_else(|problem| {
        let Ok(given) = serde_json::from_slice::<Value>(text) else { return Err(problem) };
        let mut adapted = given.clone();
        if let Some(process) = process(&mut adapted) {
            specification::adapt_process(process, warnings);
        }
        if adapted == given { Err(problem) } else { parse(adapted.to_string().as_bytes()) }
    })
}

/// Parses config.json or a part of it; an error names the JSON path. Only a text that cannot be parsed is parsed a
/// second time, with path tracking.
///
/// # Errors
/// One line.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let first = match serde_json::from_slice(text) {
        Ok(spec) => return Ok(spec),
        Err(error) => error,
    };
    let deserializer = &mut serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(deserializer) {
        // Malformed JSON has no path.
        Err(error) if !error.path().iter().all(|part| matches!(part, Segment::Unknown)) => {
            Err(format!("{}: {}", error.path(), error.inner()))
        }
        _ => Err(first.to_string()),
    }
}

/// Any 1.x is accepted: minor versions only add (runtime-spec "Specification version").
fn check_version(version: &str) -> Result<(), SpecError> {
    let mut parts = version.splitn(3, '.');
    let numbers = (parts.next(), parts.next().map(str::parse::<u32>), parts.next());
    match numbers {
        (Some("1"), Some(Ok(_)), Some(rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => Ok(()),
        _ if version.is_empty() => Err(SpecError::new("ociVersion", "is missing; it should be 1.x.y")),
        _ => Err(SpecError::new("ociVersion", format!("{version:?} is not supported; it should be 1.x.y"))),
    }
}

fn rootfs(directory: &Path, spec: &Spec) -> Result<PathBuf, SpecError> {
    let root = spec.root().as_ref().ok_or_else(|| SpecError::new("root", "is missing"))?;
    if root.path().as_os_str().is_empty() {
        return Err(SpecError::new("root.path", "is missing or empty"));
    }
    let path = directory.join(root.path());
    let problem = |cause: io::Error| SpecError::new("root.path", format!("{}: {cause}", path.display()));
    let real = fs::canonicalize(&path).map_err(problem)?;
    if !fs::metadata(&real).map_err(problem)?.is_dir() {
        return Err(SpecError::new("root.path", format!("{} is not a directory", path.display())));
    }
    if real == Path::new("/") {
        return Err(SpecError::new("root.path", "is the host's own root; give the container one of its own"));
    }
    Ok(real)
}

#[cfg(test)]
#[path = "bundle_test.rs"]
mod tests;
