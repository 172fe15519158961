//! `stockade state`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::life_cycle::{Handle, Status};
use crate::oci;
use crate::options::Globals;
use crate::state::Record;
use crate::text::json;

/// Print a container's state as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stockade state mine\n  stockade state mine | jq -r .status")]
pub struct State {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
}

/// The state that `state` and `list` print: the runtime specification's "State", and runc's additions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Json<'a> {
    oci_version: &'static str,
    pub(super) id: &'a str,
    pub(super) pid: i32,
    pub(super) status: &'static str,
    pub(super) bundle: &'a Path,
    rootfs: &'a Path,
    pub(super) created: &'a str,
    annotations: &'a HashMap<String, String>,
    pub(super) owner: String,
}

impl<'a> Json<'a> {
    pub(super) fn new(record: &'a Record, status: Status) -> Self {
        let pid = match (status, record.relay) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(relay)) => relay.pid,
        };
        let owner = if record.owner == 0 { "root".to_owned() } else { record.owner.to_string() };
        Self {
            oci_version: oci::SPEC_VERSION,
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
    /// Prints the state.
    ///
    /// # Errors
    /// When there is no such container, or its state cannot be read.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let handle = Handle::peek(globals, &self.id)?;
        let json = json::pretty(&Json::new(&handle.record, handle.status()))?;
        Ok(writeln!(io::stdout(), "{json}")?)
    }
}
