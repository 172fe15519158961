//! `stockade state`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::cli::Globals;
use crate::container_id::ContainerId;
use crate::error::ContainerError;
use crate::life_cycle::{self, Status};
use crate::state::{Record, Root};
use crate::version;

/// Print a container's state as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stockade state mine\n  stockade state mine | jq -r .status")]
pub struct State {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
}

/// What is printed: the runtime specification's "State", and runc's additions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    oci_version: &'static str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    annotations: &'a HashMap<String, String>,
    owner: String,
}

impl<'a> Json<'a> {
    fn new(record: &'a Record, status: Status) -> Self {
        let pid = match (status, record.relay) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(relay)) => relay.pid,
        };
        let owner = if record.owner == 0 { "root".to_owned() } else { record.owner.to_string() };
        Self {
            oci_version: version::SPEC,
            id: &record.id,
            pid,
            status: status.name(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner,
        }
    }
}

impl State {
    /// Prints it.
    ///
    /// # Errors
    /// [`ContainerError::DoesNotExist`].
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let id: ContainerId = self.id.parse()?;
        let folder = Root::new(globals.root.as_deref()).peek(&id)?;
        let record = folder.read()?.ok_or_else(|| ContainerError::DoesNotExist(id.to_string()))?;
        let status = life_cycle::status(&folder, &record);
        let json = serde_json::to_string_pretty(&Json::new(&record, status))?;
        Ok(writeln!(io::stdout(), "{json}")?)
    }
}
