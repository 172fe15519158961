//! Starting a created container.

use std::os::fd::AsFd;

use stockade_protocol::agent::{ErrorKind, ProcessId, Purpose};

use super::{Status, status};
use crate::agent::{ClientError, Connection};
use crate::error::ContainerError;
use crate::machine::Wait;
use crate::state::{Folder, Record};

/// Lets the container's init execute its program.
///
/// # Errors
/// [`ContainerError`] in another state than "created", or why the program cannot be executed.
pub fn start(folder: &Folder, record: &Record, wait: &mut impl Wait) -> anyhow::Result<()> {
    if !record.relay.is_some_and(|relay| relay.is_alive()) {
        return Err(ContainerError::HasStopped.into());
    }
    let init = ProcessId { container: record.id.clone(), exec: None };
    let started = Connection::open(folder.as_fd(), Purpose::Control, wait)
        .and_then(|mut control| control.start(&init, wait));
    match started {
        Err(ClientError::Agent(error)) if error.kind == ErrorKind::WrongState => {
            Err(match status(folder, record) {
                Status::Stopped => ContainerError::HasStopped,
                Status::Paused => ContainerError::StartPaused,
                _ => ContainerError::AlreadyRunning,
            }
            .into())
        }
        Err(ClientError::Agent(error)) => Err(error.into()),
        result => Ok(result?),
    }
}
