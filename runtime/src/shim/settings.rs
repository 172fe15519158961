//! What containerd's options say: as runc's shim gets them, or as a table of TOML, in which containerd's CRI plug-in passes on the
//! options of a runtime that it does not know (containerd 1.7; 1.6 only passes on the path of a file with such a table).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::address::Place;
use super::messages::{Any, GenericOptions, RuncOptions};

/// Where the records of containerd's containers are unless `Root` says otherwise: where `stockade install` puts them for
/// runc's shim, too.
const DEFAULT_ROOT: &str = "/run/containerd/stockade";

/// The runtime, which is installed beside the shim's program.
pub const RUNTIME: &str = "stockade";

/// The file in the bundle that keeps the settings for the shim's own `delete`.
const FILE: &str = "shim.json";

/// Longest file with options, in bytes.
const LIMIT: u64 = 1 << 20;

/// The options that mean something here, by their names in containerd's config.toml.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Options {
    binary_name: String,
    root: String,
    systemd_cgroup: bool,
    /// The cgroup of the shim itself.
    pub shim_cgroup: String,
    /// Names of options that are set and mean nothing here.
    #[serde(skip)]
    pub without_effect: Vec<String>,
}

/// The names of the options that mean something.
const KNOWN: [&str; 4] = ["BinaryName", "Root", "SystemdCgroup", "ShimCgroup"];

impl Options {
    /// Reads what containerd has sent.
    ///
    /// # Errors
    /// One line that says what is malformed, and where.
    pub fn parse(given: Option<&Any>) -> anyhow::Result<Self> {
        let Some(any) = given else { return Ok(Self::default()) };
        match any.type_url.rsplit('/').next().unwrap_or_default() {
            "" => Ok(Self::default()),
            "containerd.runc.v1.Options" => {
                let given = RuncOptions::decode(&*any.value).context("the runtime's options")?;
                let unused = [
                    ("NoPivotRoot", given.no_pivot_root),
                    ("NoNewKeyring", given.no_new_keyring),
                    ("IoUid", given.io_uid != 0),
                    ("IoGid", given.io_gid != 0),
                    ("CriuImagePath", !given.criu_image_path.is_empty()),
                    ("CriuWorkPath", !given.criu_work_path.is_empty()),
                ];
                let set = unused.into_iter().filter(|(_, is_set)| *is_set);
                Ok(Self {
                    without_effect: set.map(|(name, _)| name.to_owned()).collect(),
                    binary_name: given.binary_name,
                    root: given.root,
                    systemd_cgroup: given.systemd_cgroup,
                    shim_cgroup: given.shim_cgroup,
                })
            }
            "runtimeoptions.v1.Options" => {
                let given = GenericOptions::decode(&*any.value).context("the runtime's options")?;
                let (text, place) = match given.config_path.as_str() {
                    "" => (given.config_body, "the runtime's options in containerd's config.toml".to_owned()),
                    path => (read(Path::new(path))?, path.to_owned()),
                };
                let text = String::from_utf8(text).with_context(|| place.clone())?;
                let malformed = |error: toml::de::Error| anyhow::anyhow!("{place}: {}", error.message());
                let table: toml::Table = text.parse().map_err(malformed)?;
                let others = table.keys().filter(|name| !KNOWN.contains(&name.as_str()));
                let without_effect = others.cloned().collect();
                Ok(Self { without_effect, ..table.try_into().map_err(malformed)? })
            }
            other => {
                anyhow::bail!("the runtime's options are of type {other}, which this shim does not know")
            }
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || {
        let length = fs::metadata(path)?.len();
        if length > LIMIT {
            return Err(std::io::Error::other(format!("it has {length} bytes; the limit is {LIMIT}")));
        }
        fs::read(path)
    };
    read().with_context(|| format!("ConfigPath: cannot read {}", path.display()))
}

/// How the runtime does its work for one container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The runtime to execute; `None` where the shim does its work itself.
    #[serde(default)]
    pub binary: Option<PathBuf>,
    /// Its `--root`.
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    /// Whether the container stands for all of its pod: after the shim's end, containerd has nothing removed but it.
    #[serde(default)]
    pub has_members: bool,
}

impl Settings {
    /// The settings of a container in containerd's `namespace`.
    pub fn new(options: &Options, place: &Place, namespace: &str) -> Self {
        let root = if options.root.is_empty() { DEFAULT_ROOT } else { &options.root };
        Self {
            binary: match options.binary_name.as_str() {
                "" if beside().is_some() => None,
                "" => Some(RUNTIME.into()),
                name => Some(name.into()),
            },
            root: Path::new(root).join(namespace),
            systemd_cgroup: options.systemd_cgroup || place.is_systemds,
            has_members: false,
        }
    }

    /// Keeps them in the bundle.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn write(&self, bundle: &Path) -> anyhow::Result<()> {
        let path = bundle.join(FILE);
        fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Those that are kept in the bundle; `None` where Create has not come so far.
    pub fn read(bundle: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(bundle.join(FILE)).ok()?).ok()
    }
}

/// The runtime beside this program, of the same installation; `None` where there is none any more.
pub fn beside() -> Option<PathBuf> {
    // After an upgrade the link says "(deleted)" of the file, but names the directory.
    let beside = fs::read_link("/proc/self/exe").ok()?.with_file_name(RUNTIME);
    beside.is_file().then_some(beside)
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
