//! `mounts` and `linux.rootfsPropagation`: where each mount comes from.
//!
//! A bind mount's source and the layers of an overlay are on the host and become trees of the VM's share; the guest's
//! kernel makes all other mounts.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use oci_spec::runtime::{Linux, Mount as Spec};
use stockade_protocol::container::{IdMappings, MountSource};
use stockade_protocol::share_options::ShareOptions;

use super::disks::{self, Disks};
use super::mount_options::{Options, propagation};
use super::mounts_below::{self, Mounts, Source};
use super::plan::{PlannedMount, PlannedSource};
use super::{atomic_volume, place, share_path, user_namespace, volumes};
use crate::oci::bundle::{Bundle, SpecError};
use crate::state::sandbox::PodVolumes;
use crate::vm::{IdMap, Tree};

/// The file system whose layers are the host's.
const OVERLAY: &str = "overlay";

/// Has all volumes shared: a copy would have the label of the agent's own files, and not the shared files'.
pub fn share_instead_of_copying(mounts: &mut [PlannedMount]) {
    for mount in mounts {
        if let PlannedSource::Guest(MountSource::Copy(share)) = &mount.source {
            mount.source = MountSource::Share(share.clone()).into();
        }
    }
}

/// The mounts for the agent, and the host's trees that they need.
///
/// # Errors
/// A [`SpecError`] that names the mount.
pub fn lower(
    bundle: &Bundle,
    directory: &str,
    pod: Option<&PodVolumes>,
    container: Option<&IdMappings>,
    disks: &mut Disks,
    warnings: &mut Vec<String>,
) -> Result<(Vec<PlannedMount>, Vec<Tree>), SpecError> {
    let mut mounts = Vec::new();
    let mut trees: Vec<Tree> = Vec::new();
    let mut of_host = None;
    for (index, spec) in bundle.spec.mounts().as_deref().unwrap_or_default().iter().enumerate() {
        let property = format!("mounts[{index}]");
        let mut options = Options::parse(spec.options().iter().flatten());
        if let Some(option) = &options.refused {
            let problem =
                format!("{option:?} is not understood: use uidMappings and gidMappings of the mount");
            return Err(SpecError::new(format!("{property}.options"), problem));
        }
        let fstype = spec.typ().as_deref().unwrap_or_default();
        let is_remount = options.flags & libc::MS_REMOUNT != 0;
        let is_bind = !is_remount && (options.flags & libc::MS_BIND != 0 || fstype == "bind");
        let copy_up = options.copy_up && !is_bind && fstype == "tmpfs";
        if options.copy_up && !copy_up {
            warnings.push(format!("{property}: tmpcopyup is for a tmpfs only"));
        }
        if !is_bind && (options.copy_symlink || options.no_follow || options.destination_no_follow) {
            let words = "copy-symlink, src-nofollow and dest-nofollow";
            warnings.push(format!("{property}: {words} are for a bind mount only"));
        }
        if options.copy_symlink && (options.no_follow || options.destination_no_follow) {
            let problem = "copy-symlink cannot be combined with src-nofollow or dest-nofollow";
            return Err(SpecError::new(format!("{property}.options"), problem));
        }
        let id_map = id_map(spec, &options, container, &property)?;
        if id_map.is_some() && !is_bind {
            let problem = "only a bind mount can be ID-mapped";
            return Err(SpecError::new(format!("{property}.options"), problem));
        }
        let readonly = options.flags & libc::MS_RDONLY != 0;
        let host = spec.source().as_ref().map(|source| bundle.path.join(source));
        if is_bind && let Some(device) = host.as_deref().filter(|source| disks::is_block_device(source)) {
            let path = place(spec.destination(), &format!("{property}.destination"))?;
            if disks.add_node(device, path, readonly, &format!("{property}.source"))? {
                continue;
            }
            warnings.push(format!(
                "{property}.source: {} is a node without a device in the VM: the rules of linux.resources.devices do not let \
                 the container read it",
                device.display()
            ));
        }
        let name = format!("m{}", trees.len());
        let share = MountSource::Share(share_path(directory, &name));
        let mut share_options =
            ShareOptions { is_unfollowed: options.destination_no_follow, ..ShareOptions::default() };
        let source = if is_remount {
            MountSource::Remount.into()
        } else if is_bind {
            if !options.data.is_empty() {
                warnings.push(format!("{property}: a bind mount takes no {}", options.data.join(", ")));
            }
            match link(bundle, spec, &options) {
                Some(target) => MountSource::Link(target).into(),
                None => {
                    let mut tree = Tree { name, id_map, ..tree(bundle, spec, &options, &property)? };
                    let mounts = of_host.get_or_insert_with(Mounts::read);
                    let found = look_at(&mut tree, mounts, &options);
                    warn_of_propagation(&tree, &options, &property, warnings);
                    if found.has_more {
                        let most = mounts_below::MAX_MOUNTS;
                        warnings.push(format!(
                            "{property}: more than {most} file systems below the source: the others have the flags of \
                             this mount"
                        ));
                    }
                    options.flags = options.with_source(found.flags);
                    share_options.below = found.below;
                    match (volumes::name(&tree, pod), pod) {
                        (Some(name), Some(pod)) => {
                            let share = MountSource::Share(share_path(&pod.directory, &name));
                            if trees.iter().all(|tree| tree.name != name) {
                                let of_pod = pod.directory != directory;
                                trees.push(Tree { name, is_volume: true, of_pod, ..tree });
                            }
                            share.into()
                        }
                        _ if atomic_volume::is_atomic(&tree) => {
                            let copy = MountSource::Copy(share_path(directory, &tree.name));
                            trees.push(Tree { is_atomic_volume: true, ..tree });
                            copy.into()
                        }
                        _ => {
                            trees.push(tree);
                            share.into()
                        }
                    }
                }
            }
        } else if fstype == OVERLAY {
            trees.push(overlay(bundle, &options, name, &property));
            share.into()
        } else if !fstype.is_empty()
            && let Some(image) = spec.source().as_deref().filter(|source| disks::is_image(source))
        {
            // This is the only way in which it gets a device.
            options.data.retain(|option| option != "loop");
            let disk = disks.add(image, readonly, &format!("{property}.source"))?;
            PlannedSource::Disk(disk, fstype.to_owned())
        } else {
            file_system(spec, &property)?.into()
        };
        let is_share = matches!(source, PlannedSource::Guest(MountSource::Share(_) | MountSource::Copy(_)));
        mounts.push(PlannedMount {
            destination: place(spec.destination(), &format!("{property}.destination"))?,
            flags: options.flags & !if is_bind { 0 } else { libc::MS_REC },
            propagation: options.propagation,
            data: if is_share { share_options.encode() } else { options.data.join(",") },
            source,
            copy_up,
        });
    }
    Ok((mounts, trees))
}

/// How the IDs of a mount are mapped, if they are.
fn id_map(
    spec: &Spec,
    options: &Options,
    container: Option<&IdMappings>,
    property: &str,
) -> Result<Option<IdMap>, SpecError> {
    let own =
        user_namespace::lists(spec.uid_mappings().as_deref(), spec.gid_mappings().as_deref(), property)?;
    if own.is_none() && options.id_map.is_none() {
        return Ok(None);
    }
    let recursive = options.id_map.unwrap_or(false);
    match own.or_else(|| container.cloned()) {
        Some(mappings) => Ok(Some(IdMap { mappings, recursive })),
        None => Err(SpecError::new(
            format!("{property}.options"),
            "an ID-mapped mount needs uidMappings and gidMappings, of its own or of the container",
        )),
    }
}

/// What `copy-symlink` copies.
fn link(bundle: &Bundle, spec: &Spec, options: &Options) -> Option<String> {
    let source = spec.source().as_ref().filter(|_| options.copy_symlink)?;
    fs::read_link(bundle.path.join(source)).ok()?.to_str().map(str::to_owned)
}

fn tree(bundle: &Bundle, spec: &Spec, options: &Options, property: &str) -> Result<Tree, SpecError> {
    let property = format!("{property}.source");
    let source = spec
        .source()
        .as_ref()
        .filter(|source| !source.as_os_str().is_empty())
        .ok_or_else(|| SpecError::new(&property, "is missing; a bind mount needs one"))?;
    let source = bundle.path.join(source);
    let found = if options.no_follow { fs::symlink_metadata(&source) } else { fs::metadata(&source) };
    let found = found.map_err(|cause| SpecError::new(&property, format!("{}: {cause}", source.display())))?;
    Ok(Tree {
        is_socket: found.file_type().is_socket(),
        source,
        property,
        recursive: options.flags & libc::MS_REC != 0 || options.flags & libc::MS_BIND == 0,
        readonly: options.flags & libc::MS_RDONLY != 0,
        readonly_below: options.below(0) & libc::MS_RDONLY != 0,
        no_follow: options.no_follow,
        ..Tree::default()
    })
}

/// Looks at what the host has at the tree's source.
fn look_at(tree: &mut Tree, mounts: &Mounts, options: &Options) -> Source {
    if tree.no_follow {
        return Source::default();
    }
    let mut found = mounts.source(&tree.source, options, tree.recursive);
    tree.has_kernel_files = found.has_kernel_files;
    tree.follows = options.follows()
        && found.propagates
        && tree.source.is_dir()
        && tree.id_map.is_none()
        && !atomic_volume::is_atomic(tree);
    if tree.follows {
        // What is mounted later is part of this mount in the guest, and has its flags.
        found.below.retain(|below| below.has_terminals);
    }
    found
}

/// Warns about propagation that the VM cannot have.
fn warn_of_propagation(tree: &Tree, options: &Options, property: &str, warnings: &mut Vec<String>) {
    if options.is_followed() {
        warnings.push(format!(
            "{property}.options: shared: what the host mounts below {} is seen in the container, but what the container \
             mounts there stays in its VM",
            tree.source.display()
        ));
    }
    if tree.follows && tree.readonly && !tree.readonly_below {
        warnings.push(format!(
            "{property}.options: ro: what is mounted below {} is read-only, too, because the mount follows the host's",
            tree.source.display()
        ));
    }
    if options.follows() && tree.id_map.is_some() {
        warnings.push(format!(
            "{property}.options: the IDs of this mount are mapped, so the container does not see what the host mounts \
             there later"
        ));
    }
}

/// The tree of an overlay: its layers are on the host, so the host mounts it.
fn overlay(bundle: &Bundle, options: &Options, name: String, property: &str) -> Tree {
    Tree {
        source: bundle.rootfs.clone(),
        name,
        property: property.to_owned(),
        readonly: options.flags & libc::MS_RDONLY != 0,
        overlay: Some(options.data.join(",")),
        ..Tree::default()
    }
}

fn file_system(spec: &Spec, property: &str) -> Result<MountSource, SpecError> {
    let fstype = spec
        .typ()
        .as_deref()
        .filter(|fstype| !fstype.is_empty())
        .ok_or_else(|| SpecError::new(format!("{property}.type"), "is missing"))?;
    let source = spec.source().as_ref().and_then(|source| source.to_str()).unwrap_or(fstype);
    // Engines write `cgroup` for whichever version the host has; the guest has version 2.
    let fstype = if fstype == "cgroup" { "cgroup2" } else { fstype };
    Ok(MountSource::FileSystem { fstype: fstype.to_owned(), source: source.to_owned() })
}

/// `linux.rootfsPropagation` as flags; 0 where it is absent.
///
/// # Errors
/// A word that is not a propagation.
pub fn rootfs_propagation(linux: Option<&Linux>) -> Result<u64, SpecError> {
    let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    match propagation(word) {
        Some(flags) => Ok(flags),
        None if word.is_empty() => Ok(0),
        None => Err(SpecError::new(
            "linux.rootfsPropagation",
            format!("{word:?} is not one of shared, slave, private, unbindable"),
        )),
    }
}
