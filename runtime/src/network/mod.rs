//! The network of a VM: each interface of the pod's network namespace is a NIC of the guest.
//!
//! ```text
//!  pod's network namespace                              guest
//!   eth0 ──ingress──→ redirect ──→ stkd2 (tap) ──→ VMM ──→ eth0   the same name, MAC, MTU, addresses, routes,
//!   eth0 ←── redirect ←──ingress── stkd2       ←── VMM ←── eth0   permanent neighbours
//! ```
//!
//! [`inventory`](mod@inventory) sees what there is, [`tap`] and [`redirect`] connect it, [`steps`] tells the agent what has changed
//! since it was last told. The record holds what is connected before it is, so that removing the container finds it.

mod connection;
mod events;
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

/// Why a network is not connected.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The network namespace is not usable.
    #[error("linux.namespaces: cannot enter the network namespace {path}: {cause}")]
    Namespace {
        /// As given.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// No netlink socket.
    #[error("cannot open a netlink socket in the network namespace: {0}")]
    Netlink(io::Error),
    /// It does not tell what is in it.
    #[error("cannot list the {what} of the network namespace: {cause}")]
    Inventory {
        /// What was asked for.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// There is more than a VM can have.
    #[error("the network namespace has {found} interfaces, but a VM can have at most {most}")]
    TooManyInterfaces {
        /// As many as there are.
        found: usize,
        /// As many as there may be.
        most: usize,
    },
    /// No tap.
    #[error("cannot connect the interface {interface} to the VM: tap {name}: {cause}{remedy}")]
    Tap {
        /// Whose.
        interface: String,
        /// The tap's name.
        name: String,
        /// Why.
        cause: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// No redirect.
    #[error("cannot connect the interface {interface} to the VM: {}", redirect_failed(cause))]
    Redirect {
        /// Whose.
        interface: String,
        /// Why.
        cause: io::Error,
    },
    /// No user-mode networking.
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
