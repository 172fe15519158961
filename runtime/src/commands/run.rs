//! `stockade run`: create, start, wait, delete.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::create::CreateOptions;
use crate::life_cycle::{self, Created};
use crate::oci::container_id::ContainerId;
use crate::options::Globals;
use crate::state::ContainerError;
use crate::state::Root;
use crate::sys::process::Child;
use crate::sys::terminal::RawMode;
use crate::sys::tsc;
use crate::vm;

/// Create a container, start it, and wait for its end.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stockade run --bundle bundle mine\n  stockade run --detach --keep -b bundle mine"
)]
pub struct Run {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    options: CreateOptions,
    /// Return once the container runs
    #[arg(short, long)]
    detach: bool,
    /// Leave the container's state when it has ended
    #[arg(long)]
    keep: bool,
}

impl Run {
    /// Runs the container; the exit status is the container's, 128+n after signal n.
    ///
    /// # Errors
    /// What failed before the container's program ran; nothing is left of the container then.
    pub fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let id: ContainerId = self.id.parse()?;
        let root = Root::new(globals.root.as_deref());
        let mut created = life_cycle::create(&self.options.request(globals, &id, self.detach))?;
        let raw = RawMode::for_process(created.terminal, self.detach)?;
        if let Err(error) = life_cycle::start(&created.directory, &created.record, &mut created.vm) {
            created.relay.process.kill();
            if let Some(vmm) = created.vm.release() {
                vmm.kill();
            }
            life_cycle::force_remove(created.directory, &id)?;
            return Err(error);
        }
        if self.detach {
            created.relay.commit_started().context("cannot leave the container running")?;
        }
        created.directory.finish();
        if self.detach {
            return Ok(ExitCode::SUCCESS);
        }
        tracing::debug!(tsc = tsc::now(), "the container runs");
        let (vmm, status) = wait(created, raw)?;
        tracing::debug!(tsc = tsc::now(), status, "the container has ended");
        // With the container gone, nobody needs the VM, and removing waits for what has not been reaped.
        if let Some(vmm) = vmm {
            vmm.kill();
        }
        if !self.keep {
            match life_cycle::remove(&root, &id, true) {
                // Somebody else has deleted it in the meantime.
                Err(error) if matches!(error.downcast_ref(), Some(ContainerError::DoesNotExist(_))) => {}
                result => result?,
            }
        }
        Ok(ExitCode::from(status))
    }
}

/// Waits until the container has ended, and gives the terminal back; returns its VMM and its status.
fn wait(created: Created, raw: Option<RawMode>) -> anyhow::Result<(Option<Child>, u8)> {
    let Created { mut directory, mut vm, relay, .. } = created;
    let signals = vm.take_interrupts().context("no signals to wait for")?;
    directory.unlock().context("cannot unlock the container's state")?;
    // The relay alone decides now how long the VM lives.
    let vmm = vm.release();
    let status = life_cycle::attend(&signals, &relay.process)?;
    drop(raw);
    let console_log = directory.console_log().unwrap_or_default();
    if !console_log.is_empty() {
        tracing::error!("the VM has ended{}", vm::shown(&String::from_utf8_lossy(&console_log)));
    }
    Ok((vmm, status))
}
