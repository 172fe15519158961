//! Sending a guest what the host gives it in addition to config.json.

use std::os::fd::AsFd;

use anyhow::Context;
use stockade_protocol::agent::ProcessId;
use stockade_protocol::settings::Settings;

use crate::lower::security_labels::{HostLabel, Labels};
use crate::oci::bundle::CONFIG;
use crate::relay::Relay;
use crate::state::Directory;
use crate::sys::selinux;
use crate::vm::Wait;
use crate::vm::agent::{ClientError, Connection, call};

/// Sends the settings to the guest, if there are any: on this connection of the newest version, or on a new one, which
/// an agent of an older release refuses. What the guest's kernel does not take is named in the log.
///
/// # Errors
/// The agent does not answer.
pub(super) fn hand_over(
    directory: &Directory,
    control: Option<&mut Connection>,
    settings: Settings,
    wait: &mut impl Wait,
) -> Result<(), ClientError> {
    if settings == Settings::default() {
        return Ok(());
    }
    let call = call::TakeSettings(settings);
    let taken = match control {
        Some(control) => control.call(call, wait),
        None => Connection::open_newest(directory.as_fd(), wait).and_then(|mut own| own.call(call, wait)),
    };
    match taken {
        Ok(refused) => refused.iter().for_each(|refused| tracing::warn!("{refused}")),
        Err(error @ (ClientError::Version(_) | ClientError::Agent(_))) => {
            tracing::warn!("the guest keeps its own settings instead of the node's: {error}");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Checks that a relay has got its label, on a host with SELinux.
///
/// # Errors
/// It has not, and the label is required.
pub(super) fn check_label(relay: &Relay, label: Option<&HostLabel>) -> anyhow::Result<()> {
    let Some(host) = label.filter(|host| selinux::is_enabled() && !relay.has_label(&host.label)) else {
        return Ok(());
    };
    let warning = host.refused().context(CONFIG)?;
    tracing::warn!("{warning}");
    Ok(())
}

/// Tells the agent what security modules apply to a process. It has to be made over the connection that is returned, if
/// there is one: what confines it belongs to that connection, so that no other command can take it away.
///
/// # Errors
/// The agent does not answer, or it cannot do what is required.
pub(super) fn confine(
    directory: &Directory,
    process: &ProcessId,
    labels: Option<&Labels>,
    wait: &mut impl Wait,
) -> anyhow::Result<Option<Connection>> {
    let Some(labels) = labels else { return Ok(None) };
    let confine = call::Confine(process.clone(), labels.confinement.clone());
    let confined = Connection::open_newest(directory.as_fd(), wait)
        .and_then(|mut control| control.call(confine, wait).map(|()| control));
    match confined {
        Err(error @ (ClientError::Version(_) | ClientError::Agent(_))) => {
            // Not among the macro's arguments, which are not evaluated where nobody reads warnings.
            let warning = labels.refused(&error.to_string()).context(CONFIG)?;
            tracing::warn!("{warning}");
            Ok(None)
        }
        confined => Ok(Some(confined?)),
    }
}
