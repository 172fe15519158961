//! Starting a created container.

use std::os::fd::AsFd;
use std::time::Duration;

use stockade_protocol::agent::{ErrorKind, ProcessId, Purpose};

use super::{network, network_watch};
use crate::oci::hooks;
use crate::state::{ContainerError, Directory, Record};
use crate::sys::deadline::Deadline;
use crate::vm::Wait;
use crate::vm::agent::{AnswerDeadline, ClientError, Connection, call};
use crate::vm::template;

/// How long the agent may take beyond the time that `startContainer` hooks have.
const MARGIN: Duration = Duration::from_secs(10);

/// How long a container may take to end whose `poststart` hooks have failed.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Lets the container's init execute its program, and runs the `poststart` hooks. If one fails, the container is killed. If its VM has
/// booted for want of a template, that is made in the background.
///
/// # Errors
/// [`ContainerError`] in another state than "created", why the program cannot be executed, or a hook's failure.
pub fn start(directory: &Directory, record: &Record, wait: &mut impl Wait) -> anyhow::Result<()> {
    let Some(relay) = record.relay.filter(|relay| relay.is_alive()) else {
        return Err(ContainerError::HasStopped.into());
    };
    let has_network = network::refresh(directory, record, wait)?;
    let query = if has_network { network::offer_resolver(directory, relay) } else { None };
    let hooks_within = record.hooks.start_within();
    // This is recorded before, so that a command that dies here does not leave a running container that seems to wait
    // for its start.
    directory.change(|record| record.started = true)?;
    let started = if hooks_within.is_zero() {
        execute(directory, record, wait)
    } else {
        let deadline = Deadline::within(hooks_within + MARGIN);
        execute(
            directory,
            record,
            &mut AnswerDeadline::new(directory.as_fd(), deadline).while_lives(relay.open()),
        )
    };
    if let Err(ClientError::Agent(_)) = started {
        directory.change(|now| now.started = record.started)?;
    }
    match started {
        Err(ClientError::Agent(error)) if error.kind == ErrorKind::WrongState => {
            return Err(match (record.paused, record.started) {
                (true, _) => ContainerError::StartPaused,
                (false, true) => ContainerError::AlreadyRunning,
                // Its init was killed, but that was not noticed yet.
                (false, false) => ContainerError::HasStopped,
            }
            .into());
        }
        Err(ClientError::Agent(error)) => return Err(error.into()),
        // The container and its VM were killed meanwhile.
        Err(error) if !relay.is_alive() => {
            return Err(anyhow::Error::from(error).context(ContainerError::HasStopped));
        }
        result => result?,
    }
    if has_network && let Err(error) = network_watch::begin(directory, record, query) {
        tracing::warn!("{error:#}");
    }
    let state = record.state_json("running", Some(relay.pid));
    hooks::run(&record.hooks.poststart, &state, &record.bundle, None).inspect_err(|_| {
        if let Some(relay) = relay.open() {
            // It fails only where the relay has just ended, and with it the container.
            let _ = relay.signal(libc::SIGKILL);
            relay.wait_end(ENDS_WITHIN);
        }
    })?;
    if let Some(wanted) = &record.template {
        template::begin(wanted);
    }
    Ok(())
}

fn execute(directory: &Directory, record: &Record, wait: &mut impl Wait) -> Result<(), ClientError> {
    let init = ProcessId { container: record.id.clone(), exec: None };
    Connection::open(directory.as_fd(), Purpose::Control, wait)
        .and_then(|mut control| control.call(call::Start(init), wait))
}
