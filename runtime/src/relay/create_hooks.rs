//! The point at which a relay stops for the hooks of `create`, before the trees are cloned.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::error::{RelayError, system};
use super::messages::Message;
use crate::oci::hooks::{self, Hook};

/// Hooks of `create`. The creator runs the host's hooks between [`super::Relay::entered`] and [`super::Relay::go_on`],
/// and then the relay runs these.
#[derive(Debug)]
pub struct CreateHooks<'a> {
    /// `createContainer`.
    pub hooks: &'a [Hook],
    /// The container's state as JSON.
    pub state: String,
    /// The bundle's directory.
    pub bundle: &'a Path,
}

impl CreateHooks<'_> {
    /// Runs the hooks in the relay: what they mount below the rootfs becomes part of the trees.
    pub(super) fn run(&self, socket: BorrowedFd<'_>) -> Result<(), RelayError> {
        Message::Entered.send(socket).map_err(system("socket"))?;
        match Message::receive(socket).map_err(system("socket"))? {
            Some((Message::GoOn, _)) => hooks::run(self.hooks, &self.state, self.bundle, Some(socket))
                .map_err(|error| RelayError::Failed(error.to_string())),
            _ => Err(RelayError::Failed("the creator has ended".to_owned())),
        }
    }
}
