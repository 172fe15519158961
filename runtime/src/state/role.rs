//! A container's role in its pod, by the annotations of the engine that wrote config.json.
//!
//! A pod's author is hostile, and engines pass annotations of his choice on. So only the keys of one engine are looked
//! at: CRI-O's where there are any (podman's pods have them too), because CRI-O passes on every key and so those of the
//! other engines; containerd passes on none of CRI-O's, unless its administrator lists them. And because CRI-O lets the
//! author even overwrite its own keys, [`crate::state::sandbox`] believes a member only whose namespaces, which no author
//! chooses, are those of the sandbox that its annotations name.

use std::collections::HashMap;

use crate::oci::bundle::SpecError;

/// The value that marks a member.
const MEMBER: &str = "container";

/// The values that mark the sandbox of a pod.
const SANDBOX: [&str; 2] = ["sandbox", "podsandbox"];

/// Annotations of config.json.
pub type Annotations = HashMap<String, String>;

/// An engine that may have written config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// CRI-O, or podman.
    Crio,
    /// containerd's CRI plug-in.
    Containerd,
    /// Kubernetes' dockershim, and cri-dockerd.
    Dockershim,
}

/// The role of a container in its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// In no pod, as far as annotations tell.
    Alone,
    /// The sandbox of its pod, which never joins another VM.
    Sandbox,
    /// A member of the sandbox with this ID.
    Member(String),
}

impl Engine {
    /// All engines. Engines whose keys other engines can be made to write come last.
    const ALL: [Self; 3] = [Self::Crio, Self::Containerd, Self::Dockershim];

    /// The key of the role, and the one of a member's sandbox.
    const fn keys(self) -> [&'static str; 2] {
        match self {
            Self::Crio => ["io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"],
            Self::Containerd => ["io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"],
            Self::Dockershim => ["io.kubernetes.docker.type", "io.kubernetes.sandbox.id"],
        }
    }

    /// The engine whose keys count; `None` if there are no keys of any engine.
    pub fn of(annotations: Option<&Annotations>) -> Option<Self> {
        let annotations = annotations?;
        Self::ALL.into_iter().find(|engine| engine.keys().iter().any(|key| annotations.contains_key(*key)))
    }
}

impl Role {
    /// The role that the annotations give.
    ///
    /// # Errors
    /// A member without a sandbox.
    pub fn of(annotations: Option<&Annotations>) -> Result<Self, SpecError> {
        let Some((engine, annotations)) = Engine::of(annotations).zip(annotations) else {
            return Ok(Self::Alone);
        };
        let [role, sandbox] = engine.keys();
        match annotations.get(role).map(String::as_str) {
            Some(MEMBER) => match annotations.get(sandbox) {
                Some(id) => Ok(Self::Member(id.clone())),
                None => Err(SpecError::new(
                    "annotations",
                    format!("{role} is {MEMBER:?}, but {sandbox} does not say in which sandbox"),
                )),
            },
            Some(other) if SANDBOX.contains(&other) => Ok(Self::Sandbox),
            _ => Ok(Self::Alone),
        }
    }
}

#[cfg(test)]
#[path = "role_test.rs"]
mod tests;
