//! The host's pid and ipc namespaces, which a pod asks for by leaving the entries of `linux.namespaces` out.
//!
//! A container outside of a pod then shares the guest's namespaces, which replace the host's. A pod that asks for them
//! wants to see the *host's* processes, which are outside of the VM.

use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

use crate::oci::bundle::SpecError;
use crate::state::role::Role;

/// The options of callers that ask for these namespaces.
const ASKED: [(Type, &str, &str); 2] = [
    (Type::Pid, "pid", "Kubernetes: no hostPID; podman: no --pid=host"),
    (Type::Ipc, "ipc", "Kubernetes: no hostIPC; podman: no --ipc=host"),
];

/// Refuses them for the containers of pods.
///
/// # Errors
/// The first of these namespaces that the pod asks for.
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
