//! `linux.sysctl`: only those that belong to a namespace of the container. All others would apply to the whole guest,
//! and so to every container in it.

use oci_spec::runtime::Linux;
use stockade_protocol::container::{Namespace, Namespaces};

use crate::oci::bundle::SpecError;

const PROPERTY: &str = "linux.sysctl";

/// Sysctls of an IPC namespace, besides those that begin with [`OF_MESSAGE_QUEUES`].
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

const OF_MESSAGE_QUEUES: &str = "fs.mqueue.";
const OF_NETWORK: &str = "net.";

/// Names and values, sorted.
///
/// # Errors
/// A key that is not a name, or that belongs to no namespace of the container; the text is that of other runtimes.
pub fn lower(linux: Option<&Linux>, namespaces: &Namespaces) -> Result<Vec<(String, String)>, SpecError> {
    let Some(map) = linux.and_then(|linux| linux.sysctl().as_ref()) else { return Ok(Vec::new()) };
    let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    pairs.sort();
    for (key, _) in &pairs {
        if key.is_empty() || key.split(['.', '/']).any(|part| part.is_empty() || part == "..") {
            return Err(SpecError::new(PROPERTY, format!("{key:?} is not the name of a sysctl")));
        }
        if let Some(problem) = problem(&dotted(key), namespaces) {
            return Err(SpecError::new(PROPERTY, format!("{key:?} {problem}")));
        }
    }
    Ok(pairs)
}

/// The name with dots as separators. As in sysctl(8), the first separator in it decides whether dots or slashes are its
/// separators.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|first| name.as_bytes()[first]) {
        Some(b'/') => name.replace('/', "."),
        _ => name.to_owned(),
    }
}

fn problem(name: &str, namespaces: &Namespaces) -> Option<&'static str> {
    let has_own = |namespace: &Namespace| *namespace != Namespace::Guest;
    match name {
        // The guest's network is the container's or its pod's.
        _ if name.starts_with(OF_NETWORK) => None,
        _ if OF_IPC.contains(&name) || name.starts_with(OF_MESSAGE_QUEUES) => (!has_own(&namespaces.ipc))
            .then_some("belongs to an IPC namespace: it needs an entry of type `ipc` in linux.namespaces"),
        "kernel.domainname" => (!has_own(&namespaces.uts))
            .then_some("belongs to a UTS namespace: it needs an entry of type `uts` in linux.namespaces"),
        "kernel.hostname" => {
            Some("is not allowed as it conflicts with the property `hostname`, which sets it")
        }
        _ => Some("is not in a separate kernel namespace: it would hold for everything in the guest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(name: &str, namespaces: &Namespaces) -> Option<String> {
        let linux = serde_json::from_value(serde_json::json!({ "sysctl": { name: "1" } })).unwrap();
        lower(Some(&linux), namespaces).err().map(|error| error.to_string())
    }

    #[test]
    fn each_needs_its_namespace() {
        let own = Namespaces {
            ipc: Namespace::New,
            uts: Namespace::Container("c".to_owned()),
            ..Namespaces::default()
        };
        let guests = Namespaces::default();
        for name in
            ["kernel.msgmax", "kernel/sem", "fs.mqueue.msg_max", "fs/mqueue/queues_max", "kernel.domainname"]
        {
            assert_eq!(error_of(name, &own), None, "{name}");
            assert!(error_of(name, &guests).is_some_and(|error| error.contains("namespace")), "{name}");
        }
        for name in ["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding"] {
            assert_eq!(error_of(name, &guests), None, "{name}");
        }
        for name in [
            "kernel.hostname",
            "kernel/hostname",
            "vm.swappiness",
            "kernel.core_pattern",
            "fs.file-max",
            "net",
        ] {
            assert!(error_of(name, &own).is_some_and(|error| error.contains(name)), "{name}");
        }
        for name in ["", "net..x", "net/../kernel/hostname"] {
            assert!(error_of(name, &own).is_some_and(|error| error.contains("not the name")), "{name:?}");
        }
    }
}
