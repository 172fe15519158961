//! Why the VMM gave up.

use std::io;

use crate::{boot, control, inherited, isolation, machine, memory, seccomp, template};

/// Any error of the VMM; the text is the one line that the runtime shows.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Each wraps one module's error.
pub enum Error {
    #[error(transparent)]
    Inherited(#[from] inherited::Error),
    #[error(transparent)]
    Isolation(#[from] isolation::Error),
    #[error(transparent)]
    Machine(#[from] machine::Error),
    #[error(transparent)]
    Memory(#[from] memory::Error),
    #[error(transparent)]
    Boot(#[from] boot::Error),
    #[error("device: {0}")]
    Device(io::Error),
    #[error("cannot make the channel to the file server: {0}")]
    Channel(io::Error),
    #[error("cannot set up the handler of memory faults: {0}")]
    Faults(io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    #[error(transparent)]
    Template(#[from] template::Error),
    #[error("the template's device in slot {slot} cannot go on: {reason}")]
    Restore { slot: usize, reason: String },
    #[error(transparent)]
    Control(#[from] control::Error),
}
