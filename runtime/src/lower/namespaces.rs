//! `linux.namespaces`: which of the container's namespaces are its own.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType as Type};
use stockade_protocol::container::{Namespace, Namespaces};

use super::user_namespace::{self, UserNamespace};
use crate::network::NetworkNamespace;
use crate::oci::bundle::SpecError;
use crate::state::sandbox::{Named, Peers};

/// The types of namespaces that a container can have of its own.
pub const APPLIED: [Type; 8] =
    [Type::Cgroup, Type::Ipc, Type::Mount, Type::Network, Type::Pid, Type::Time, Type::User, Type::Uts];

/// Why the host's network is refused, and what to use instead.
const HOSTS_NETWORK: &str = "a VM cannot use the host's network: ask for a network namespace (podman: --network bridge, pasta, \
     slirp4netns or none instead of host, with -p for ports; Docker: --network bridge with -p, or none; Kubernetes: no \
     hostNetwork, with hostPort or a Service; a bundle: an entry of type `network`, with the annotation io.stockade.network=user \
     for a way out)";

/// Where a container's namespaces come from.
#[derive(Debug)]
pub struct Placed {
    /// The namespaces in the guest.
    pub guest: Namespaces,
    /// The relay's network namespace.
    pub network: NetworkNamespace,
    /// The user namespace, which the guest and the relay both have.
    pub user: Option<UserNamespace>,
}

/// The guest's namespaces and the relay's.
///
/// # Errors
/// What cannot work: the host's namespaces, or those of a process that is no container.
pub fn lower(linux: Option<&Linux>, peers: &Peers) -> Result<Placed, SpecError> {
    let mut lowered = Namespaces::default();
    let mut network = None;
    let mut user = None;
    let mut seen = Vec::new();
    let entries = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for (index, entry) in entries.iter().enumerate() {
        let property = format!("linux.namespaces[{index}]");
        if seen.contains(&entry.typ()) {
            return Err(SpecError::new(property, format!("there are two entries of type {}", entry.typ())));
        }
        seen.push(entry.typ());
        let path = entry.path().clone().filter(|path| !path.as_os_str().is_empty());
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(SpecError::new(format!("{property}.path"), "is not an absolute path"));
        }
        let namespace = match &path {
            Some(path) => named(entry.typ(), path, peers, &format!("{property}.path"))?,
            None => Namespace::New,
        };
        match entry.typ() {
            Type::Pid => lowered.pid = namespace,
            Type::Mount => lowered.mount = namespace,
            Type::Uts => lowered.uts = namespace,
            Type::Ipc => lowered.ipc = namespace,
            Type::Cgroup => lowered.cgroup = namespace,
            Type::Network => network = Some(path.map_or(NetworkNamespace::New, NetworkNamespace::Path)),
            Type::User => {
                lowered.user = namespace;
                user = Some((path, property));
            }
            Type::Time => lowered.time = namespace,
        }
    }
    if lowered.mount != Namespace::New {
        return Err(SpecError::new("linux.namespaces", "an entry of type `mount` is needed"));
    }
    let network = network.ok_or_else(|| {
        SpecError::new("linux.namespaces", format!("there is no `network` entry, but {HOSTS_NETWORK}"))
    })?;
    let user =
        user_namespace::lower(linux, user.as_ref().map(|(path, property)| (path.as_deref(), &**property)))?;
    Ok(Placed { guest: lowered, network, user })
}

/// The guest's namespace for a namespace that is given by its path.
fn named(kind: Type, path: &Path, peers: &Peers, property: &str) -> Result<Namespace, SpecError> {
    let refuse = |problem: String| Err(SpecError::new(property, problem));
    if kind == Type::Mount {
        return refuse("a mount namespace of another container cannot be joined".to_owned());
    }
    match (peers.named(kind, path, property)?, kind) {
        // The guest has one network: its sandbox's.
        (Named::Of(_), Type::Network) => Ok(Namespace::Guest),
        (Named::Of(container), _) => Ok(Namespace::Container(container)),
        (Named::Host, Type::Network) => refuse(HOSTS_NETWORK.to_owned()),
        (Named::Host, _) => refuse(format!("a VM cannot share the host's {kind} namespace")),
        (Named::Unknown, Type::Pid | Type::Time) => {
            let path = path.display();
            refuse(format!("{path} is not the {kind} namespace of a container that stockade runs"))
        }
        // A namespace that was made for this container: it stands for the guest's.
        (Named::Unknown, _) => Ok(Namespace::New),
    }
}
