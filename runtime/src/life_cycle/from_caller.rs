//! What a container gets from its caller besides config.json: descriptors and the service manager's socket.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::relay::NotifySocket;
use crate::relay::preserve_fds::Preserved;

/// What the relay passes on to the container.
#[derive(Debug)]
pub(super) struct FromCaller {
    /// Descriptors from 3 on.
    pub preserved: Preserved,
    /// Its service manager's `NOTIFY_SOCKET`.
    pub notify: Option<NotifySocket>,
}

impl FromCaller {
    /// Takes from this process what it has inherited: `preserve_fds` descriptors, and those of socket activation.
    ///
    /// # Errors
    /// When a descriptor cannot be passed on.
    pub fn take(preserve_fds: u32, spec: &Spec, bundle: &Path) -> anyhow::Result<Self> {
        let preserved = Preserved::take_with_activation(preserve_fds)?;
        Ok(Self { preserved, notify: NotifySocket::of_caller(spec, bundle) })
    }
}
