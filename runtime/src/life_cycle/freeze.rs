//! Freezing a container's processes, and letting them go on.

use stockade_protocol::agent::ErrorKind;

use super::{Handle, explain, no_longer_runs};
use crate::state::ContainerError;
use crate::vm::agent::{ClientError, call};

/// Freezes the processes of a container whose directory is locked; when this returns, they are frozen.
///
/// # Errors
/// [`ContainerError`], or why the processes cannot be frozen; they then go on.
pub fn pause(handle: &Handle) -> anyhow::Result<()> {
    handle.relay()?;
    handle.ask(call::Pause(handle.id.to_string())).map_err(|error| match error {
        ClientError::Agent(error) if error.kind == ErrorKind::WrongState => {
            ContainerError::CannotPause(handle.status().name()).into()
        }
        error => explain(error),
    })?;
    handle.directory.change(|record| record.paused = true)
}

/// Lets the processes of a container whose directory is locked go on.
///
/// # Errors
/// [`ContainerError::NotPaused`], also of a container that has stopped, or why they cannot go on.
pub fn resume(handle: &Handle) -> anyhow::Result<()> {
    handle.relay().map_err(|_| ContainerError::NotPaused)?;
    handle.ask(call::Resume(handle.id.to_string())).map_err(|error| match error {
        error if no_longer_runs(&error) => anyhow::Error::from(ContainerError::NotPaused),
        ClientError::Agent(error) if error.kind == ErrorKind::WrongState => ContainerError::NotPaused.into(),
        error => anyhow::Error::from(error),
    })?;
    handle.directory.change(|record| record.paused = false)
}
