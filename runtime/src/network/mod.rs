//! The network of a VM: each interface of the pod's network namespace is a NIC of the guest.
//!
//! ```text
//!  pod's network namespace                              guest
//!   eth0 ──ingress──→ redirect ──→ stkd2 (tap) ──→ VMM ──→ eth0   the same name, MAC, MTU, addresses, routes,
//!   eth0 ←── redirect ←──ingress── stkd2       ←── VMM ←── eth0   permanent neighbours
//! ```
//!
//! [`inventory`](mod@inventory) reads the namespace, [`tap`] and [`redirect`] connect the interfaces, [`steps`]
//! computes what the agent has to change. The record names an interface before it is connected, so that removing the
//! container finds it.

mod connection;
mod events;
mod host_only;
mod inventory;
mod namespace;
mod netlink;
pub mod own_root;
mod packet_filters;
mod redirect;
mod routes;
mod steps;
mod sysctls;
mod tap;
pub mod user_mode;

use std::io;
use std::path::PathBuf;

pub use connection::{Connected, Look, Network, Pending, disconnect};
pub use events::Events;
pub use inventory::{MAX_INTERFACES, Picture};
pub use namespace::{Namespace, NetworkNamespace};

/// Why a network cannot be connected.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The network namespace is not usable.
    #[error("linux.namespaces: cannot enter the network namespace {path}: {cause}")]
    Namespace {
        /// The path from config.json.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// A netlink socket cannot be opened.
    #[error("cannot open a netlink socket in the network namespace: {0}")]
    Netlink(io::Error),
    /// The namespace cannot be read.
    #[error("cannot list the {what} of the network namespace: {cause}")]
    Inventory {
        /// What was to be listed.
        what: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// There are more interfaces than a VM can have.
    #[error("the network namespace has {found} interfaces, but a VM can have at most {most}")]
    TooManyInterfaces {
        /// The number of interfaces.
        found: usize,
        /// The largest number that a VM can have.
        most: usize,
    },
    /// A tap cannot be made.
    #[error("cannot connect the interface {interface} to the VM: tap {name}: {cause}{remedy}")]
    Tap {
        /// Name of the interface that it is for.
        interface: String,
        /// The tap's name.
        name: String,
        /// The cause.
        cause: io::Error,
        /// What the user can do.
        remedy: &'static str,
    },
    /// A redirect cannot be made.
    #[error("cannot connect the interface {interface} to the VM: {}", redirect_failed(cause))]
    Redirect {
        /// Name of the interface.
        interface: String,
        /// The cause.
        cause: io::Error,
    },
    /// User-mode networking cannot be started.
    #[error("annotations[\"io.stockade.network\"]: cannot start pasta for user-mode networking: {0}")]
    UserMode(String),
}

fn redirect_failed(cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(libc::ENODEV) => "it has disappeared meanwhile".to_owned(),
        Some(libc::ENOENT | libc::EOPNOTSUPP) => format!(
            "redirect its packets: {cause}; the host's kernel needs sch_ingress, cls_matchall and act_mirred (load them \
             with modprobe)"
        ),
        _ => format!("redirect its packets: {cause}"),
    }
}
