//! `stockade run`: create, start, wait, delete.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;

use super::create::CreateOptions;
use crate::cli::Globals;
use crate::container_id::ContainerId;
use crate::error::ContainerError;
use crate::life_cycle::{self, Created};
use crate::state::Root;
use crate::sys::process::{Child, Pidfd};
use crate::terminal::RawMode;
use crate::tsc;

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
    /// Runs it; the exit status is the container's, 128+n after signal n.
    ///
    /// # Errors
    /// What failed before the container's program ran; nothing is left of the container then.
    pub fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let id: ContainerId = self.id.parse()?;
        let root = Root::new(globals.root.as_deref());
        let mut created = life_cycle::create(&self.options.request(globals, &id, self.detach))?;
        if let Err(error) = life_cycle::start(&created.folder, &created.record, &mut created.vm) {
            created.relay.process.kill();
            if let Some(vmm) = created.vm.release() {
                vmm.kill();
            }
            life_cycle::force_remove(created.folder, &id)?;
            return Err(error);
        }
        if self.detach {
            created.relay.commit().context("cannot let the container live on")?;
            return Ok(ExitCode::SUCCESS);
        }
        tracing::debug!(tsc = tsc::now(), "the container runs");
        let (vmm, status) = wait(created)?;
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

/// Passes signals on until the container has ended; returns its VMM and its status.
fn wait(created: Created) -> anyhow::Result<(Option<Child>, u8)> {
    let Created { mut folder, mut vm, relay, terminal, .. } = created;
    let signals = vm.take_interrupts().context("no signals to wait for")?;
    folder.unlock().context("cannot unlock the container's state")?;
    // The relay alone decides now how long the VM lives.
    let vmm = vm.release();
    let _raw = terminal.then(RawMode::of_stdin).transpose().context("cannot set the terminal to raw mode")?;
    loop {
        let mut fds =
            [signals.as_fd(), relay.process.pidfd.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        let [_, ended] = fds.map(|fd| fd.any().unwrap_or(false));
        pass_on(&signals, &relay.process.pidfd)?;
        if ended {
            return Ok((vmm, status(&relay.process)?));
        }
    }
}

fn pass_on(signals: &SignalFd, relay: &Pidfd) -> io::Result<()> {
    while let Some(info) = signals.read_signal()? {
        let signal = info.ssi_signo as i32;
        if signal != libc::SIGCHLD && signal != libc::SIGPIPE {
            // It fails only where the relay has just ended.
            let _ = relay.signal(signal);
        }
    }
    Ok(())
}

fn status(relay: &Child) -> anyhow::Result<u8> {
    match relay.reap().context("cannot wait for the container")? {
        WaitStatus::Exited(_, status) => Ok(status as u8),
        WaitStatus::Signaled(_, signal, _) => Ok(128u8.wrapping_add(signal as u8)),
        other => anyhow::bail!("the container's stand-in ended with {other:?}"),
    }
}
