//! What a container gets from its caller besides config.json: descriptors, the service manager's socket, the size of the
//! terminal.

use oci_spec::runtime::Spec;

use super::Request;
use crate::lower::Lowered;
use crate::relay::NotifySocket;
use crate::relay::preserve_fds::Preserved;
use crate::sys::terminal;

/// What the relay passes on.
#[derive(Debug)]
pub(super) struct Passed {
    /// Descriptors from 3 on.
    pub preserved: Preserved,
    /// Its service manager's `NOTIFY_SOCKET`.
    pub notify: Option<NotifySocket>,
}

impl Passed {
    /// Takes it from this process, and writes into `lowered` what the guest has to know of it.
    ///
    /// # Errors
    /// When a descriptor cannot be passed on.
    pub fn take(request: &Request<'_>, spec: &Spec, lowered: &mut Lowered) -> anyhow::Result<Self> {
        let preserved = Preserved::take_with_activation(request.preserve_fds)?;
        let notify = NotifySocket::of_caller(spec);
        let container = &mut lowered.container;
        container.process.streams = preserved.kinds();
        container.process.env.extend_from_slice(&preserved.env);
        container.notify = notify.is_some();
        if let Some(size) = &mut container.process.terminal {
            *size = terminal::initial_size(*size, request.console_socket);
        }
        Ok(Self { preserved, notify })
    }
}
