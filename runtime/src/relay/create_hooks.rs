//! Where a relay stops for the hooks of `create`, before the trees are cloned.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::launch::{ENTERED, MESSAGE, RelayError, system};
use stockade_sys::fd_passing;

use crate::oci::hooks::{self, Hook};
use crate::sys::descriptors;

/// Hooks of `create`: the host's are run by the creator, between [`super::Relay::entered`] and [`super::Relay::go_on`],
/// then these by the relay.
#[derive(Debug)]
pub struct CreateHooks<'a> {
    /// `createContainer`.
    pub hooks: &'a [Hook],
    /// The container's state as JSON.
    pub state: String,
    /// The bundle's folder.
    pub bundle: &'a Path,
}

impl CreateHooks<'_> {
    /// The relay's side: what its hooks mount below the rootfs becomes part of the trees.
    pub(super) fn run(&self, socket: BorrowedFd<'_>) -> Result<(), RelayError> {
        fd_passing::send(socket, &[ENTERED], &[]).map_err(system("socket"))?;
        match descriptors::receive(socket, &mut [0; MESSAGE]).map_err(system("socket"))? {
            (0, _) => Err(RelayError::Failed("the creator has ended".to_owned())),
            _ => hooks::run(self.hooks, &self.state, self.bundle, Some(socket))
                .map_err(|error| RelayError::Failed(error.to_string())),
        }
    }
}
