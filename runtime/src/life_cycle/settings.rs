//! The node's settings on their way to a guest.

use std::os::fd::AsFd;

use stockade_protocol::settings::Settings;

use crate::state::Directory;
use crate::vm::Wait;
use crate::vm::agent::{ClientError, Connection, call};

/// Gives them to the guest, where there are any. What its kernel does not take is named in the log; an agent of an older release
/// takes none.
///
/// # Errors
/// The agent does not answer.
pub(super) fn hand_over(
    directory: &Directory,
    settings: Settings,
    wait: &mut impl Wait,
) -> Result<(), ClientError> {
    if settings == Settings::default() {
        return Ok(());
    }
    let refused = Connection::open_newest(directory.as_fd(), wait)
        .and_then(|mut control| control.call(call::TakeSettings(settings), wait));
    match refused {
        Ok(refused) => refused.iter().for_each(|refused| tracing::warn!("{refused}")),
        Err(error @ (ClientError::Version(_) | ClientError::Agent(_))) => {
            tracing::warn!("the guest has its own settings instead of the node's: {error}");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
