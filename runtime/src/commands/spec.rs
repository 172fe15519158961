//! `stockade spec`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use crate::oci::bundle::CONFIG;
use crate::options::Globals;

/// The default configuration.
pub const DEFAULT: &str = include_str!("default_config.json");

/// Write a config.json to start from.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stockade spec --bundle bundle\n  stockade spec --rootless")]
pub struct Spec {
    /// Directory to write config.json to
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
}

impl Spec {
    /// Writes config.json.
    ///
    /// # Errors
    /// When there is a config.json already, or it cannot be written.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let text = if globals.is_rootless() { rootless()? } else { DEFAULT.to_owned() };
        let path = self.bundle.join(CONFIG);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The default configuration without limits and with a user namespace that maps root, and nobody else, to the caller.
fn rootless() -> anyhow::Result<String> {
    let mut config: Value = serde_json::from_str(DEFAULT)?;
    let linux = &mut config["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    let ids =
        [("uidMappings", nix::unistd::geteuid().as_raw()), ("gidMappings", nix::unistd::getegid().as_raw())];
    for (name, id) in ids {
        linux[name] = json!([{"containerID": 0, "hostID": id, "size": 1}]);
    }
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    let mounts = config["mounts"].as_array_mut().into_iter().flatten();
    for options in mounts.filter_map(|mount| mount["options"].as_array_mut()) {
        // The group of terminals, which is not mapped.
        options.retain(|option| option != "gid=5");
    }
    Ok(format!("{config:#}\n"))
}
