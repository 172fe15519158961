//! From config.json to what the agent builds: one OCI aspect per file.
//!
//! To *lower* is a term of compilers: a description is translated into one that says less about what is wanted and more
//! about how it is done. config.json becomes a [`ContainerPlan`], and the plan becomes the messages and system calls
//! that make a container.
//!
//! Everything is checked here, before any resource exists, so that a mistake in config.json leaves nothing behind
//! and is named by its JSON path. What no part of stockade applies yet is listed by [`unapplied`].

mod apparmor;
mod atomic_volume;
mod block_io;
mod capabilities;
mod cgroup;
mod devices;
pub mod disks;
mod hooks;
mod host_namespaces;
mod host_only;
mod limits;
mod memory_policy;
pub mod mount_options;
mod mounts;
mod mounts_below;
mod namespaces;
mod number_list;
mod original_groups;
mod own_annotations;
mod personality;
pub mod plan;
mod pod_size;
mod process;
mod rlimits;
mod scheduling;
mod scratch;
pub mod seccomp;
#[cfg(test)]
mod seccomp_fixture;
mod seccomp_program;
pub mod security_labels;
mod sockets;
mod sysctl;
mod time_offsets;
mod unapplied;
mod unified;
mod user_namespace;
mod user_network;
pub mod vm;
mod volumes;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use stockade_protocol::container::{Namespace, Process, Rootfs};

use crate::config::Pattern;
use crate::config::scratch::Scratch;
use crate::oci::bundle::{Bundle, SpecError};
use crate::oci::container_id::ContainerId;
use crate::state::role::Role;
use crate::state::sandbox::{Peers, PodVolumes};
use crate::vm::Tree;
use disks::{Disk, Disks};
use namespaces::Placed;
use plan::{CgroupPlan, GuestPlan};
use security_labels::{Labels, Policies, Selinux};

pub use capabilities::NAMES as CAPABILITIES;
pub use cgroup::{limits, warn_of_pod};
pub use hooks::STAGES as HOOKS;
pub use limits::{HostCgroup, Limits};
pub use memory_policy::{FLAGS as MEMORY_POLICY_FLAGS, MODES as MEMORY_POLICY_MODES};
pub use mount_options::options as mount_option_names;
pub use namespaces::APPLIED as NAMESPACES;
pub use plan::ContainerPlan;
pub use user_namespace::UserNamespace;

/// A container, ready to be created.
#[derive(Debug)]
pub struct Lowered {
    /// The plan of the container.
    pub plan: ContainerPlan,
    /// The files and devices that become disks of the VM, in the order of their [`plan::DiskNumber`]s.
    pub disks: Vec<Disk>,
    /// Sockets of the host that the container may connect to, by their numbers.
    pub sockets: Vec<OwnedFd>,
}

/// What the administrator allows containers, in /etc/stockade/config.toml.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed<'a> {
    /// The annotations of stockade's own that count, of those that have to be allowed.
    pub annotations: &'a [String],
    /// The sockets of the host that containers may connect to.
    pub host_sockets: &'a [Pattern],
    /// The files and directories with compiled policies of AppArmor.
    pub apparmor_policies: &'a [PathBuf],
    /// What the VM has of SELinux.
    pub selinux: Selinux<'a>,
    /// The disks that containers have by default, and may ask for.
    pub scratch: Option<&'a Scratch>,
}

/// The rootfs's name in the container's directory of the share.
pub const ROOTFS_SHARE: &str = "rootfs";

/// Translates a bundle, whose trees are to be in this directory of the VM's share. `notify` says that the container's
/// service manager waits for notifications.
///
/// # Errors
/// A [`SpecError`] that names the property.
pub fn lower(
    bundle: &Bundle,
    id: &ContainerId,
    directory: &str,
    peers: &Peers,
    allowed: Allowed<'_>,
    notify: bool,
) -> Result<Lowered, SpecError> {
    let spec = &bundle.spec;
    let linux = spec.linux().as_ref();
    let mut warnings = bundle.warnings.clone();
    warnings.extend(unapplied::warnings(spec));
    let own_annotations =
        own_annotations::counting(spec.annotations().as_ref(), allowed.annotations, &mut warnings);
    let policies = Policies { apparmor: allowed.apparmor_policies, selinux: allowed.selinux };
    let labels = security_labels::lower(spec, policies, &mut warnings)?;
    host_only::refuse(linux)?;
    host_namespaces::refuse(spec)?;
    let Placed { guest: mut namespaces, network, user } = namespaces::lower(linux, peers)?;
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let limits = resources.map(|resources| limits(resources, &mut warnings)).transpose()?.unwrap_or_default();
    if peers.sandbox.is_some() {
        warn_of_pod(&limits.host, &mut warnings);
    }
    let readonly = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let id_mappings = user.as_ref().map(|user| user.mappings.clone());
    let hooks = hooks::lower(spec)?;
    let own = PodVolumes { directory: directory.to_owned(), ..PodVolumes::default() };
    // Hooks may make mounts below the sources, for this container alone.
    let pod = Some(peers.volumes.as_ref().unwrap_or(&own)).filter(|_| !hooks.has_create());
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let mut disks = Disks::under(devices::rules(rules)?);
    let (mut mounts, sources) =
        mounts::lower(bundle, directory, pod, id_mappings.as_ref(), &mut disks, &mut warnings)?;
    if allowed.selinux != Selinux::Absent {
        mounts::share_instead_of_copying(&mut mounts);
    }
    let by_default = Scratch::default();
    let scratch = allowed.scratch.unwrap_or(&by_default);
    let role = Role::of(spec.annotations().as_ref())?;
    scratch::lower(&own_annotations, &role, scratch, &mut mounts, &mut disks, &mut warnings)?;
    let (devices, rules) = disks.take_devices(devices::nodes(linux)?, &mut warnings)?;
    let (hostname, domainname) = names(spec)?;
    if namespaces.uts == Namespace::Guest && (hostname.is_some() || domainname.is_some()) {
        // Without a `uts` entry the names would be those of the runtime's namespace; here they are the guest's, which
        // only this container has.
        namespaces.uts = Namespace::New;
    }

    let mut process = process::lower(spec.process().as_ref(), &mut warnings)?;
    original_groups::keep(spec.annotations().as_ref(), id_mappings.is_some(), &mut process, &mut warnings);
    if let Some(mappings) = &id_mappings {
        user_namespace::check(&process, mappings)?;
    }
    let cgroup_owner = user_namespace::cgroup_owner(&process, id_mappings.as_ref(), &namespaces, &mounts);
    let time_offsets = time_offsets::lower(linux, &namespaces.time)?;
    let sysctl = sysctl::lower(linux, &namespaces)?;
    let mut trees = vec![Tree {
        source: bundle.rootfs.clone(),
        name: ROOTFS_SHARE.to_owned(),
        property: "root.path".to_owned(),
        recursive: true,
        // It is read-only from the first moment: the host makes what the agent needs in it.
        readonly,
        readonly_below: readonly,
        ..Tree::default()
    }];
    trees.extend(sources);
    let sockets = sockets::connect(&mut trees, &mut mounts, directory, allowed.host_sockets, &mut warnings);
    let written = trees.iter().filter(|tree| tree.is_volume && !tree.readonly);
    let written = written.map(|tree| tree.name.clone()).collect();
    let guest = GuestPlan {
        id: id.as_str().to_owned(),
        rootfs: Rootfs {
            share: share_path(directory, ROOTFS_SHARE),
            readonly,
            propagation: mounts::rootfs_propagation(linux)?,
        },
        mounts,
        process,
        namespaces,
        id_mappings,
        time_offsets,
        hostname,
        domainname,
        devices,
        cgroup: CgroupPlan { path: id.as_str().to_owned(), values: limits.guest, rules },
        cgroup_owner,
        sysctl,
        masked_paths: paths(linux.and_then(|l| l.masked_paths().as_ref()), "linux.maskedPaths")?,
        readonly_paths: paths(linux.and_then(|l| l.readonly_paths().as_ref()), "linux.readonlyPaths")?,
        notify,
        personality: personality::lower(linux)?,
        memory_policy: memory_policy::lower(linux)?,
    };
    let plan = ContainerPlan {
        guest,
        trees,
        volumes: pod.map(|pod| pod.directory.clone()),
        written,
        seccomp: seccomp::Profile::check(linux)?,
        hooks,
        cgroup: HostCgroup {
            path: linux.and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default(),
            ..limits.host
        },
        user_network: user_network::lower(&own_annotations, &network, peers.sandbox.is_some())?,
        network,
        user,
        demand: limits.demand,
        mount_label: labels.as_ref().and_then(|labels| labels.confinement.mount_label.clone()),
        host_label: security_labels::of_host(spec.process().as_ref(), spec.annotations().as_ref())?,
        labels,
        pod: pod_size::lower(spec.annotations().as_ref())?,
        warnings,
    };
    Ok(Lowered { plan, disks: disks.list, sockets })
}

/// Translates the process of an exec in a container with these annotations; what it asks for but does not get is added
/// to `warnings`.
///
/// # Errors
/// A [`SpecError`] that names the property.
pub fn lower_process(
    spec: &oci_spec::runtime::Process,
    annotations: &HashMap<String, String>,
    policies: Policies<'_>,
    warnings: &mut Vec<String>,
) -> Result<(Process, Option<Labels>), SpecError> {
    let labels = security_labels::lower_process(spec, Some(annotations), policies, warnings)?;
    Ok((process::lower(Some(spec), warnings)?, labels))
}

/// Path of a tree below the share's root.
pub fn share_path(directory: &str, name: &str) -> String {
    format!("{directory}/{name}")
}

fn names(spec: &Spec) -> Result<(Option<String>, Option<String>), SpecError> {
    let mut names = [None, None];
    for (slot, (value, path)) in
        names.iter_mut().zip([(spec.hostname(), "hostname"), (spec.domainname(), "domainname")])
    {
        let Some(value) = value.as_ref().filter(|value| !value.is_empty()) else { continue };
        // __NEW_UTS_LEN of sethostname(2).
        if value.len() > 64 {
            return Err(SpecError::new(path, "is longer than 64 bytes"));
        }
        *slot = Some(value.clone());
    }
    let [hostname, domainname] = names;
    Ok((hostname, domainname))
}

fn paths(paths: Option<&Vec<String>>, property: &str) -> Result<Vec<String>, SpecError> {
    let Some(paths) = paths else { return Ok(Vec::new()) };
    let mut found: Vec<String> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let path = absolute(path, &format!("{property}[{index}]"))?;
        // The same path in another notation.
        if !found.iter().any(|known| Path::new(known).components().eq(Path::new(&path).components())) {
            found.push(path);
        }
    }
    Ok(found)
}

/// An absolute path as UTF-8, in the form that the protocol has.
fn absolute(path: impl AsRef<Path>, property: &str) -> Result<String, SpecError> {
    let path = path.as_ref();
    match path.to_str() {
        Some(text) if path.is_absolute() && !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(SpecError::new(property, format!("{path:?} is not an absolute path"))),
    }
}

/// A place in the container, as an absolute path without `..`. A relative path begins at the root (config.md, "Mounts").
/// Each `..` removes the name before it, whether or not that name exists, and so never leads through a link in the image.
fn place(path: impl AsRef<Path>, property: &str) -> Result<String, SpecError> {
    if path.as_ref().as_os_str().is_empty() {
        return Err(SpecError::new(property, "is empty"));
    }
    let text = absolute(Path::new("/").join(path), property)?;
    if !text.split('/').any(|name| name == "..") {
        return Ok(text);
    }
    let mut names: Vec<&str> = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    Ok(format!("/{}", names.join("/")))
}

#[cfg(test)]
#[path = "lower_test.rs"]
mod tests;
