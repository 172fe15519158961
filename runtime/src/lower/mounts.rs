//! `mounts` and `linux.rootfsPropagation`: fstab-style options to mount(2)'s flags.

use std::fs;

use oci_spec::runtime::{Linux, Mount as Spec};
use stockade_protocol::container::{Mount, MountSource};

use super::{Tree, absolute, share_path};
use crate::bundle::{Bundle, SpecError};

const PROPAGATIONS: [(&str, u64); 8] = [
    ("private", libc::MS_PRIVATE),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("shared", libc::MS_SHARED),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("slave", libc::MS_SLAVE),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("unbindable", libc::MS_UNBINDABLE),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
];

/// Options that set or clear one flag. `defaults` and the like change nothing.
const FLAGS: [(&str, Change); 34] = [
    ("defaults", Change::Set(0)),
    ("ro", Change::Set(libc::MS_RDONLY)),
    ("rw", Change::Clear(libc::MS_RDONLY)),
    ("nosuid", Change::Set(libc::MS_NOSUID)),
    ("suid", Change::Clear(libc::MS_NOSUID)),
    ("nodev", Change::Set(libc::MS_NODEV)),
    ("dev", Change::Clear(libc::MS_NODEV)),
    ("noexec", Change::Set(libc::MS_NOEXEC)),
    ("exec", Change::Clear(libc::MS_NOEXEC)),
    ("sync", Change::Set(libc::MS_SYNCHRONOUS)),
    ("async", Change::Clear(libc::MS_SYNCHRONOUS)),
    ("dirsync", Change::Set(libc::MS_DIRSYNC)),
    ("mand", Change::Set(libc::MS_MANDLOCK)),
    ("nomand", Change::Clear(libc::MS_MANDLOCK)),
    ("noatime", Change::Set(libc::MS_NOATIME)),
    ("atime", Change::Clear(libc::MS_NOATIME)),
    ("nodiratime", Change::Set(libc::MS_NODIRATIME)),
    ("diratime", Change::Clear(libc::MS_NODIRATIME)),
    ("relatime", Change::Set(libc::MS_RELATIME)),
    ("norelatime", Change::Clear(libc::MS_RELATIME)),
    ("strictatime", Change::Set(libc::MS_STRICTATIME)),
    ("nostrictatime", Change::Clear(libc::MS_STRICTATIME)),
    ("lazytime", Change::Set(libc::MS_LAZYTIME)),
    ("nolazytime", Change::Clear(libc::MS_LAZYTIME)),
    ("silent", Change::Set(libc::MS_SILENT)),
    ("loud", Change::Clear(libc::MS_SILENT)),
    ("iversion", Change::Set(libc::MS_I_VERSION)),
    ("noiversion", Change::Clear(libc::MS_I_VERSION)),
    ("acl", Change::Set(libc::MS_POSIXACL)),
    ("noacl", Change::Clear(libc::MS_POSIXACL)),
    ("nosymfollow", Change::Set(libc::MS_NOSYMFOLLOW)),
    ("symfollow", Change::Clear(libc::MS_NOSYMFOLLOW)),
    ("bind", Change::Set(libc::MS_BIND)),
    ("rbind", Change::Set(libc::MS_BIND | libc::MS_REC)),
];

/// Read-only, everything mounted below included.
const RECURSIVE_READONLY: &str = "rro";

/// What the image has at the destination is copied into the tmpfs, or not.
const COPY_UP: &str = "tmpcopyup";
const NO_COPY_UP: &str = "notmpcopyup";

/// Options of OCI runtimes that no part of stockade applies yet.
const UNAPPLIED: [&str; 9] = [
    "copy-symlink",
    "idmap",
    "ridmap",
    "rnosuid",
    "rnodev",
    "rnoexec",
    "rnoatime",
    "rnosymfollow",
    "src-nofollow",
];

#[derive(Clone, Copy)]
enum Change {
    Set(u64),
    Clear(u64),
}

/// The options that are more than a file system's own, sorted.
pub fn options() -> Vec<&'static str> {
    let flags = FLAGS.iter().map(|(name, _)| *name);
    let propagations = PROPAGATIONS.iter().map(|(name, _)| *name);
    let others = [RECURSIVE_READONLY, COPY_UP, NO_COPY_UP];
    let mut names: Vec<_> = flags.chain(propagations).chain(others).collect();
    names.sort_unstable();
    names
}

/// What the options of one mount mean.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    flags: u64,
    propagation: Vec<u64>,
    data: Vec<String>,
    recursive_readonly: bool,
    copy_up: bool,
    unapplied: Vec<String>,
}

impl Options {
    fn parse<'a>(options: impl IntoIterator<Item = &'a String>) -> Self {
        let mut parsed = Self::default();
        for option in options {
            let option = option.as_str();
            if let Some((_, change)) = FLAGS.iter().find(|(name, _)| *name == option) {
                match change {
                    Change::Set(flag) => parsed.flags |= flag,
                    Change::Clear(flag) => parsed.flags &= !flag,
                }
            } else if let Some((_, propagation)) = PROPAGATIONS.iter().find(|(name, _)| *name == option) {
                parsed.propagation.push(*propagation);
            } else if option == RECURSIVE_READONLY {
                parsed.recursive_readonly = true;
                parsed.flags |= libc::MS_RDONLY;
            } else if let COPY_UP | NO_COPY_UP = option {
                parsed.copy_up = option == COPY_UP;
            } else if UNAPPLIED.contains(&option)
                || option.starts_with("idmap=")
                || option.starts_with("ridmap=")
            {
                parsed.unapplied.push(option.to_owned());
            } else if !option.is_empty() {
                parsed.data.push(option.to_owned());
            }
        }
        parsed
    }
}

/// The mounts for the agent, and the host's trees that they need.
///
/// # Errors
/// A [`SpecError`] that names the mount.
pub fn lower(
    bundle: &Bundle,
    folder: &str,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Mount>, Vec<Tree>), SpecError> {
    let mut mounts = Vec::new();
    let mut trees = Vec::new();
    for (index, spec) in bundle.spec.mounts().as_deref().unwrap_or_default().iter().enumerate() {
        let property = format!("mounts[{index}]");
        let options = Options::parse(spec.options().iter().flatten());
        let is_bind = options.flags & libc::MS_BIND != 0 || spec.typ().as_deref() == Some("bind");
        let mapped = spec.uid_mappings().is_some() || spec.gid_mappings().is_some();
        if mapped || !options.unapplied.is_empty() {
            let mut names = options.unapplied.clone();
            names.extend(mapped.then(|| "uidMappings and gidMappings".to_owned()));
            warnings.push(format!("{property}: not applied yet: {}", names.join(", ")));
        }
        let copy_up = options.copy_up && !is_bind && spec.typ().as_deref() == Some("tmpfs");
        if options.copy_up && !copy_up {
            warnings.push(format!("{property}: tmpcopyup is for a tmpfs only"));
        }
        let source = if is_bind {
            let tree = tree(bundle, spec, &options, &property, trees.len())?;
            if !options.data.is_empty() {
                warnings.push(format!("{property}: a bind mount takes no {}", options.data.join(", ")));
            }
            let share = share_path(folder, &tree.name);
            trees.push(tree);
            MountSource::Share(share)
        } else {
            file_system(spec, &property)?
        };
        mounts.push(Mount {
            destination: absolute(spec.destination(), &format!("{property}.destination"))?,
            flags: options.flags & !if is_bind { 0 } else { libc::MS_REC },
            propagation: options.propagation,
            data: if is_bind { String::new() } else { options.data.join(",") },
            source,
            copy_up,
        });
    }
    Ok((mounts, trees))
}

fn tree(
    bundle: &Bundle,
    spec: &Spec,
    options: &Options,
    property: &str,
    number: usize,
) -> Result<Tree, SpecError> {
    let property = format!("{property}.source");
    let source = spec
        .source()
        .as_ref()
        .filter(|source| !source.as_os_str().is_empty())
        .ok_or_else(|| SpecError::new(&property, "is missing, and a bind mount needs one"))?;
    let source = bundle.path.join(source);
    if let Err(cause) = fs::metadata(&source) {
        return Err(SpecError::new(property, format!("{}: {cause}", source.display())));
    }
    Ok(Tree {
        source,
        name: format!("m{number}"),
        property,
        recursive: options.flags & libc::MS_REC != 0 || options.flags & libc::MS_BIND == 0,
        readonly: options.flags & libc::MS_RDONLY != 0,
    })
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
/// Another word than a propagation.
pub fn rootfs_propagation(linux: Option<&Linux>) -> Result<u64, SpecError> {
    let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    match PROPAGATIONS.iter().find(|(name, _)| *name == word) {
        Some((_, flags)) => Ok(*flags),
        None if word.is_empty() => Ok(0),
        None => Err(SpecError::new(
            "linux.rootfsPropagation",
            format!("{word:?} is none of shared, slave, private, unbindable"),
        )),
    }
}

#[cfg(test)]
#[path = "mounts_test.rs"]
mod tests;
