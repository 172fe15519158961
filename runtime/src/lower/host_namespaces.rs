//! The host's pid and ipc namespaces, which a pod asks for by leaving the entries of `linux.namespaces` out.
//!
//! A container outside of a pod shares the guest's then, of which it sees as much as it could see of a host. A pod that
//! asks for them is there for what the *host* runs, which is on the other side of the VM.

use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

use crate::oci::bundle::SpecError;
use crate::state::role::Role;

/// What callers let people ask for it with.
const ASKED: [(Type, &str, &str); 2] = [
    (Type::Pid, "pid", "Kubernetes: no hostPID; podman: no --pid=host"),
    (Type::Ipc, "ipc", "Kubernetes: no hostIPC; podman: no --ipc=host"),
];

/// Refuses them for the containers of pods.
///
/// # Errors
/// The first that is asked for.
pub fn refuse(spec: &Spec) -> Result<(), SpecError> {
    if Role::of(spec.annotations().as_ref())? == Role::Alone {
        return Ok(());
    }
    let entries = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    match ASKED.iter().find(|(kind, ..)| !entries.iter().any(|entry| entry.typ() == *kind)) {
        None => Ok(()),
        Some((_, kind, remedy)) => Err(SpecError::new(
            "linux.namespaces",
            format!(
                "there is no `{kind}` entry, but a pod in a VM cannot share the host's {kind} namespace: ask for \
                 one of the pod's own ({remedy})"
            ),
        )),
    }
}
