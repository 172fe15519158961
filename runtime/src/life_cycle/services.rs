//! The services that a container's relay offers: one line each.

use crate::metrics::Metrics;
use crate::relay::host_sockets::HostSockets;
use crate::relay::port_forward::PortForward;
use crate::relay::service::{Prepare, Served, Service};

const SERVICES: [Prepare; 3] = [PortForward::prepare, Metrics::prepare, HostSockets::prepare];

/// Prepares the services of this container.
///
/// # Errors
/// Why a service that it must have cannot be prepared.
pub(super) fn prepare<'a>(served: &Served<'a>) -> anyhow::Result<Vec<Box<dyn Service + 'a>>> {
    SERVICES.into_iter().filter_map(|prepare| prepare(served).transpose()).collect()
}
