//! What each engine is told, and in which of its files.

use clap::Args;
use serde_json::{Value, json};

use super::document::{Format, Keys, Problem, Setting};

/// An engine that can be told of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file of stockade's own beside containers.conf. It does not touch `runtime_supports_json` and the like: a list
    /// there replaces podman's, and other runtimes would be missing from it.
    Podman,
    /// daemon.json, which is a single file.
    Docker,
    /// config.toml itself: what an imported file says of the CRI plugin replaces all that config.toml says of it.
    Containerd,
    /// A file of stockade's own beside crio.conf.
    Crio,
}

/// The engines that a command is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Engines {
    /// podman: /etc/containers/containers.conf.d/stockade.conf
    #[arg(long)]
    podman: bool,
    /// Docker: /etc/docker/daemon.json
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
    /// Those that were named.
    pub fn named(&self) -> Vec<Engine> {
        let all = [
            (self.podman, Engine::Podman),
            (self.docker, Engine::Docker),
            (self.containerd, Engine::Containerd),
            (self.crio, Engine::Crio),
        ];
        all.into_iter().filter_map(|(named, engine)| named.then_some(engine)).collect()
    }
}

/// The CRI plugin in a configuration of version 2, and since containerd 2.0 in one of version 3.
const CRI_2: &str = "io.containerd.grpc.v1.cri";
const CRI_3: &str = "io.containerd.cri.v1.runtime";

/// The pod's annotations that containerd is to pass on; CRI-O passes all.
const ANNOTATIONS: &str = "io.stockade.*";

impl Engine {
    /// Its name, as the option that names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
        }
    }

    /// The file that is changed.
    pub fn path(self) -> &'static str {
        match self {
            Self::Podman => "/etc/containers/containers.conf.d/stockade.conf",
            Self::Docker => "/etc/docker/daemon.json",
            Self::Containerd => "/etc/containerd/config.toml",
            Self::Crio => "/etc/crio/crio.conf.d/stockade.conf",
        }
    }

    /// Its format.
    pub fn format(self) -> Format {
        match self {
            Self::Docker => Format::Json,
            Self::Podman | Self::Containerd | Self::Crio => Format::Toml,
        }
    }

    /// What is set in a file of this text, so that the runtime `stockade` is `binary`.
    ///
    /// # Errors
    /// The text is malformed, or of a version that is not known.
    pub fn settings(self, binary: &str, text: &str) -> Result<Vec<Setting>, SettingsError> {
        Ok(match self {
            Self::Podman => vec![setting(&["engine", "runtimes", "stockade"], json!([binary]))],
            Self::Docker => vec![setting(&["runtimes", "stockade", "path"], json!(binary))],
            Self::Containerd => containerd(binary, text)?,
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

/// Why an engine cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Its file is not understood.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// containerd's configuration is of another version.
    #[error("is of version {0}, not 2 or 3; `containerd config migrate` converts it")]
    Version(Value),
}

fn containerd(binary: &str, text: &str) -> Result<Vec<Setting>, SettingsError> {
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
        // What containerd takes a file for that does not say.
        None => return Err(SettingsError::Version(json!(1))),
    };
    if format.get(text, &["imports"])?.is_some_and(|imports| imports != json!([])) {
        tracing::warn!(
            "{} imports other files: one that has the section plugins.{plugin:?} hides the one in this file",
            Engine::Containerd.path()
        );
    }
    let runtimes = ["plugins", plugin, "containerd", "runtimes"];
    let at = |tail: &[&str], value| setting(&[&runtimes[..], tail].concat(), value);
    if format.get(text, &runtimes)?.is_none() {
        // The table replaces containerd's own, in which only runc is, its default.
        settings.push(at(&["runc", "runtime_type"], json!("io.containerd.runc.v2")));
    }
    settings.push(at(&["stockade", "runtime_type"], json!("io.containerd.runc.v2")));
    // A privileged container has all devices of its VM; the host's have no meaning there.
    settings.push(at(&["stockade", "privileged_without_host_devices"], json!(true)));
    settings.push(at(&["stockade", "pod_annotations"], json!([ANNOTATIONS])));
    settings.push(at(&["stockade", "options", "BinaryName"], json!(binary)));
    Ok(settings)
}

fn setting(keys: &[&str], value: Value) -> Setting {
    let keys: Keys = keys.iter().map(ToString::to_string).collect();
    Setting { keys, value }
}
