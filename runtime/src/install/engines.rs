//! The settings that each engine needs for this runtime, and the files that they are in.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args;
use serde_json::{Value, json};

use super::below;
use super::document::{Format, Keys, Problem, Setting};

/// An engine that `install` can configure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file of stockade's own beside containers.conf.
    Podman,
    /// daemon.json, which is a single file.
    Docker,
    /// BuildKit in dockerd, which reads its environment instead: a file of stockade's own beside docker.service.
    BuildKit,
    /// config.toml itself: an imported file would replace everything that config.toml says about the CRI plugin.
    Containerd,
    /// A file of stockade's own beside crio.conf.
    Crio,
}

/// The engines that the command line names.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Engines {
    /// podman: /etc/containers/containers.conf.d/stockade.conf
    #[arg(long)]
    podman: bool,
    /// Docker: /etc/docker/daemon.json, and /etc/systemd/system/docker.service.d/stockade.conf for BuildKit
    #[arg(long)]
    docker: bool,
    /// containerd's CRI plugin: /etc/containerd/config.toml
    #[arg(long)]
    containerd: bool,
    /// CRI-O: /etc/crio/crio.conf.d/stockade.conf
    #[arg(long)]
    crio: bool,
}

impl Engines {
    /// The engines that were named.
    pub fn named(&self) -> Vec<Engine> {
        let all = [
            (self.podman, Engine::Podman),
            (self.docker, Engine::Docker),
            (self.docker, Engine::BuildKit),
            (self.containerd, Engine::Containerd),
            (self.crio, Engine::Crio),
        ];
        all.into_iter().filter_map(|(named, engine)| named.then_some(engine)).collect()
    }
}

/// The CRI plugin in a configuration of version 2, and since containerd 2.0 in one of version 3.
const CRI_2: &str = "io.containerd.grpc.v1.cri";
const CRI_3: &str = "io.containerd.cri.v1.runtime";

/// containerd's name for the shim, and the program that it looks for under that name in its PATH.
const SHIM_TYPE: &str = "io.containerd.stockade.v2";
const SHIM: &str = "containerd-shim-stockade-v2";

/// Directories of services' PATH, in which containerd finds a shim by its name.
const IN_PATH: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// The first version of Docker whose runtimes can be shims (`runtimeType`).
const DOCKER_WITH_SHIMS: u32 = 23;

/// `--root` of the containers of containerd, which adds its own namespace to it. The shim's own default is the same.
const CONTAINERDS_ROOT: &str = "/run/containerd/stockade";

/// The pod's annotations that containerd is to pass on; CRI-O passes all.
const ANNOTATIONS: &str = "io.stockade.*";

/// What is made known to an engine.
#[derive(Clone, Copy, Debug)]
pub struct Runtime<'a> {
    /// The path of the binary.
    pub binary: &'a str,
    /// Whether containerd and Docker are to use runc's shim although there is one of stockade's own.
    pub runc_shim: bool,
}

impl Runtime<'_> {
    /// The runtime type of stockade's own shim, where it is installed beside the binary: its name, or its path where no PATH
    /// leads to it.
    fn shim(self) -> Option<String> {
        let binary = Path::new(self.binary);
        let shim = binary.with_file_name(SHIM);
        // The shim executes the program of that name beside it.
        if self.runc_shim || binary.file_name() != Some("stockade".as_ref()) || !shim.is_file() {
            return None;
        }
        let is_found =
            shim.parent().is_some_and(|parent| IN_PATH.iter().any(|path| parent == Path::new(path)));
        if is_found { Some(SHIM_TYPE.to_owned()) } else { shim.to_str().map(str::to_owned) }
    }
}

impl Engine {
    /// Its name, which is also the name of its option.
    pub fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::BuildKit => "buildkit",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
        }
    }

    /// The file that is changed.
    pub fn path(self) -> &'static str {
        match self {
            Self::Podman => "/etc/containers/containers.conf.d/stockade.conf",
            Self::Docker => "/etc/docker/daemon.json",
            Self::BuildKit => "/etc/systemd/system/docker.service.d/stockade.conf",
            Self::Containerd => "/etc/containerd/config.toml",
            Self::Crio => "/etc/crio/crio.conf.d/stockade.conf",
        }
    }

    /// The format of that file.
    pub fn format(self) -> Format {
        match self {
            Self::Docker => Format::Json,
            Self::BuildKit => Format::Unit,
            Self::Podman | Self::Containerd | Self::Crio => Format::Toml,
        }
    }

    /// The settings that make `runtime` the runtime `stockade` in a file with this text. The engine's other files are
    /// below `prefix`.
    ///
    /// # Errors
    /// The text is malformed, or of a version that is not known.
    pub fn settings(
        self,
        runtime: Runtime<'_>,
        text: &str,
        prefix: &Path,
    ) -> Result<Vec<Setting>, SettingsError> {
        let binary = runtime.binary;
        Ok(match self {
            Self::Podman => {
                let without_cgroups = without_cgroups(prefix);
                // For `--cgroups=disabled`.
                let lists =
                    PODMANS_WITHOUT_CGROUPS.map(|names| setting(&names, without_cgroups.clone())).into_iter();
                [setting(&["engine", "runtimes", "stockade"], json!([binary]))]
                    .into_iter()
                    .chain(lists)
                    .collect()
            }
            Self::Docker => {
                let takes_shims =
                    || docker_version(prefix).is_some_and(|version| version >= DOCKER_WITH_SHIMS);
                let shim = runtime.shim().filter(|_| takes_shims());
                docker(binary, shim.as_deref())
            }
            Self::BuildKit => {
                vec![setting(
                    &["Service", "Environment"],
                    json!(format!("DOCKER_BUILDKIT_RUNC_COMMAND={binary}")),
                )]
            }
            Self::Containerd => containerd(runtime, text)?,
            Self::Crio => vec![
                // Without the infra container there is no sandbox.
                setting(&["crio", "runtime", "drop_infra_ctr"], json!(false)),
                setting(&["crio", "runtime", "runtimes", "stockade", "runtime_path"], json!(binary)),
                setting(&["crio", "runtime", "runtimes", "stockade", "runtime_root"], json!("/run/stockade")),
                setting(&["crio", "runtime", "runtimes", "stockade", "runtime_type"], json!("oci")),
                setting(
                    &["crio", "runtime", "runtimes", "stockade", "privileged_without_host_devices"],
                    json!(true),
                ),
            ],
        })
    }
}

/// By its shim, or else by its path. dockerd does not start where a runtime has both, or what belongs to the other.
fn docker(binary: &str, shim: Option<&str>) -> Vec<Setting> {
    let ((key, value), others) = match shim {
        Some(shim) => (("runtimeType", shim), ["path", "runtimeArgs"]),
        None => (("path", binary), ["runtimeType", "options"]),
    };
    let at = |key| ["runtimes", "stockade", key];
    let absent = others.map(|other| setting(&at(other), Value::Null));
    [setting(&at(key), json!(value))].into_iter().chain(absent).collect()
}

/// The major version of the system's dockerd. It is not asked where a directory stands for the root of the file system, because
/// its libraries are not this system's.
fn docker_version(prefix: &Path) -> Option<u32> {
    if prefix != Path::new("/") {
        return None;
    }
    let dockerd = IN_PATH.iter().map(|path| Path::new(path).join("dockerd")).find(|path| path.is_file())?;
    let output = Command::new(dockerd).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    major_version(&text)
}

/// Of `Docker version 26.1.5+dfsg1, build 411e817`.
fn major_version(text: &str) -> Option<u32> {
    text.strip_prefix("Docker version ")?.split('.').next()?.parse().ok()
}

/// Where podman has this list: the place that its manual names, and the place that its code (4.3) reads.
const PODMANS_WITHOUT_CGROUPS: [[&str; 2]; 2] =
    [["engine", "runtime_supports_nocgroups"], ["engine", "runtime_supports_nocgroup"]];

/// podman's default list.
const WITHOUT_CGROUPS: [&str; 2] = ["crun", "krun"];

/// The runtimes that podman runs without cgroups: a list in one file replaces that of the files before it, so this list
/// repeats their entries.
fn without_cgroups(prefix: &Path) -> Value {
    let mut files = vec![
        below(prefix, "/usr/share/containers/containers.conf"),
        below(prefix, "/etc/containers/containers.conf"),
    ];
    let own = below(prefix, Engine::Podman.path());
    if let Some(directory) = own.parent() {
        let beside = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut beside: Vec<_> =
            beside.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
        beside.sort();
        files.extend(beside.into_iter().take_while(|path| *path < own));
    }
    let list = |path| {
        let text = fs::read_to_string(path).ok()?;
        // A file that podman cannot read says nothing.
        let get = |names: &[&str; 2]| Engine::Podman.format().get(&text, names).ok()?;
        let list = PODMANS_WITHOUT_CGROUPS.iter().find_map(get)?;
        Some(list.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
    };
    let own = WITHOUT_CGROUPS.map(str::to_owned).to_vec();
    let mut names = files.into_iter().filter_map(list).fold(own, |before, names| {
        // `{append=true}` among the names.
        let (attributes, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains('{'));
        if attributes.iter().any(|text| text.contains("true")) { [before, names].concat() } else { names }
    });
    names.retain(|name| name != "stockade");
    names.push("stockade".to_owned());
    json!(names)
}

/// Why an engine cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Its file is not understood.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// containerd's configuration is of another version.
    #[error("has version {0}, not 2 or 3; `containerd config migrate` converts it")]
    Version(Value),
}

fn containerd(runtime: Runtime<'_>, text: &str) -> Result<Vec<Setting>, SettingsError> {
    let format = Engine::Containerd.format();
    let mut settings = Vec::new();
    let plugin = match format.get(text, &["version"])? {
        Some(version) if version == 2 => CRI_2,
        Some(version) if version == 3 => CRI_3,
        Some(version) => return Err(SettingsError::Version(version)),
        None if format.get(text, &[])? == Some(json!({})) => {
            settings.push(setting(&["version"], json!(2)));
            CRI_2
        }
        // The version of a file that does not name its version.
        None => return Err(SettingsError::Version(json!(1))),
    };
    if format.get(text, &["imports"])?.is_some_and(|imports| imports != json!([])) {
        tracing::warn!(
            "{} imports other files: if one of them has the section plugins.{plugin:?}, that section hides the one in \
             this file",
            Engine::Containerd.path()
        );
    }
    let runtimes = ["plugins", plugin, "containerd", "runtimes"];
    let at = |tail: &[&str], value| setting(&[&runtimes[..], tail].concat(), value);
    if format.get(text, &runtimes)?.is_none() {
        // The table replaces containerd's own table, which has only the default, runc.
        settings.push(at(&["runc", "runtime_type"], json!("io.containerd.runc.v2")));
    }
    let shim = runtime.shim();
    let runtime_type = shim.as_deref().unwrap_or("io.containerd.runc.v2");
    settings.push(at(&["stockade", "runtime_type"], json!(runtime_type)));
    // A privileged container has all devices of its VM; the host's have no meaning there.
    settings.push(at(&["stockade", "privileged_without_host_devices"], json!(true)));
    settings.push(at(&["stockade", "pod_annotations"], json!([ANNOTATIONS])));
    if shim.is_some() {
        // It does the work of the binary beside it, and has the same root.
        return Ok(settings);
    }
    settings.push(at(&["stockade", "options", "BinaryName"], json!(runtime.binary)));
    // Not the directory of runc's containers, because each of the two runtimes would find records that it cannot read.
    settings.push(at(&["stockade", "options", "Root"], json!(CONTAINERDS_ROOT)));
    Ok(settings)
}

fn setting(keys: &[&str], value: Value) -> Setting {
    let keys: Keys = keys.iter().map(ToString::to_string).collect();
    Setting { keys, value }
}

#[cfg(test)]
#[path = "engines_test.rs"]
mod tests;
