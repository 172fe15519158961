//! `linux.uidMappings` and `linux.gidMappings`, and the mappings of a mount.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxIdMapping as Spec};
use stockade_protocol::container::{IdMapping, IdMappings, MountSource, Namespace, Namespaces, Process};

use super::plan::{PlannedMount, PlannedSource};
use crate::oci::bundle::SpecError;
use crate::sys::user_namespace;

/// Largest number of entries in a list that the kernel accepts.
const MAX: usize = 340;

/// A list's text must have fewer bytes than this, a page.
const LIMIT: usize = 4096;

/// The user namespace of the relay, which callers find at /proc/PID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    /// Path of the namespace to enter; `None` is a new one.
    pub path: Option<PathBuf>,
    /// Its IDs, which are also those in the guest.
    pub mappings: IdMappings,
}

/// The container's mappings: config.json's, or those of the namespace that it names.
///
/// # Errors
/// Mappings that are missing, superfluous, wrong or different from the namespace's.
pub fn lower(
    linux: Option<&Linux>,
    entry: Option<(Option<&Path>, &str)>,
) -> Result<Option<UserNamespace>, SpecError> {
    let given = lists(
        linux.and_then(|linux| linux.uid_mappings().as_deref()),
        linux.and_then(|linux| linux.gid_mappings().as_deref()),
        "linux",
    )?;
    let Some((path, property)) = entry else {
        return match given {
            None => Ok(None),
            Some(_) => Err(SpecError::new(
                "linux.uidMappings",
                "there are ID mappings but no entry of type `user` in linux.namespaces",
            )),
        };
    };
    let mappings = match (path, given) {
        (None, Some(given)) => given,
        (None, None) => {
            return Err(SpecError::new("linux.uidMappings", "is missing, and a new user namespace needs it"));
        }
        (Some(path), given) => {
            let found = of_namespace(path, property)?;
            if given.is_some_and(|given| sorted(&given) != sorted(&found)) {
                let problem = format!(
                    "differs from the mappings of the user namespace {}: leave it out",
                    path.display()
                );
                return Err(SpecError::new("linux.uidMappings", problem));
            }
            found
        }
    };
    for (id, property) in [(mappings.user(0), "linux.uidMappings"), (mappings.group(0), "linux.gidMappings")]
    {
        if id.is_none() {
            let problem =
                "does not map the container's ID 0; building the container takes the rights of that ID";
            return Err(SpecError::new(property, problem));
        }
    }
    Ok(Some(UserNamespace { path: path.map(Path::to_owned), mappings }))
}

/// Checks that the IDs of the process are mapped.
///
/// # Errors
/// An ID that the namespace does not have.
pub fn check(process: &Process, mappings: &IdMappings) -> Result<(), SpecError> {
    let user = &process.user;
    let more =
        user.additional_gids.iter().map(|gid| (*gid, mappings.group(*gid), "process.user.additionalGids"));
    let mut ids = [
        (user.uid, mappings.user(user.uid), "process.user.uid"),
        (user.gid, mappings.group(user.gid), "process.user.gid"),
    ]
    .into_iter()
    .chain(more);
    match ids.find(|(_, mapped, _)| mapped.is_none()) {
        None => Ok(()),
        Some((id, _, property)) => {
            let problem = format!("{id} is not mapped by linux.uidMappings and linux.gidMappings");
            Err(SpecError::new(property, problem))
        }
    }
}

/// The user that gets the container's cgroup: the user of its process, if the container sees the cgroup as its root and
/// may write to it (runtime-spec config-linux "Cgroup ownership").
pub fn cgroup_owner(
    process: &Process,
    mappings: Option<&IdMappings>,
    namespaces: &Namespaces,
    mounts: &[PlannedMount],
) -> Option<u32> {
    let is_writable = |mount: &PlannedMount| {
        matches!(&mount.source, PlannedSource::Guest(MountSource::FileSystem { fstype, .. }) if fstype == "cgroup2")
            && mount.flags & libc::MS_RDONLY == 0
    };
    if namespaces.cgroup != Namespace::New || !mounts.iter().any(is_writable) {
        return None;
    }
    let uid = process.user.uid;
    mappings.map_or(Some(uid), |mappings| mappings.user(uid)).filter(|owner| *owner != 0)
}

/// Two lists that come together or not at all, checked.
///
/// # Errors
/// A [`SpecError`] that names the entry.
pub fn lists(
    users: Option<&[Spec]>,
    groups: Option<&[Spec]>,
    property: &str,
) -> Result<Option<IdMappings>, SpecError> {
    let list = |list: Option<&[Spec]>, name: &str| {
        list.filter(|list| !list.is_empty())
            .map(|list| mappings(list, &format!("{property}.{name}")))
            .transpose()
    };
    match (list(users, "uidMappings")?, list(groups, "gidMappings")?) {
        (None, None) => Ok(None),
        (Some(users), Some(groups)) => Ok(Some(IdMappings { users, groups })),
        (Some(_), None) => {
            Err(SpecError::new(format!("{property}.gidMappings"), "is missing beside uidMappings"))
        }
        (None, Some(_)) => {
            Err(SpecError::new(format!("{property}.uidMappings"), "is missing beside gidMappings"))
        }
    }
}

fn mappings(list: &[Spec], property: &str) -> Result<Vec<IdMapping>, SpecError> {
    if list.len() > MAX {
        return Err(SpecError::new(
            property,
            format!("has {} entries; the kernel accepts at most {MAX}", list.len()),
        ));
    }
    let mut lowered: Vec<IdMapping> = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let refuse = |problem: &str| Err(SpecError::new(format!("{property}[{index}]"), problem));
        let mapping =
            IdMapping { inside: entry.container_id(), outside: entry.host_id(), size: entry.size() };
        if mapping.size == 0 {
            return refuse("has the size 0");
        }
        // The last 32-bit number is not an ID.
        let is_valid = |first: u32| first.checked_add(mapping.size).is_some();
        if !is_valid(mapping.inside) || !is_valid(mapping.outside) {
            return refuse("goes beyond the last valid ID, 4294967294");
        }
        let overlap = |one: u32, other: u32, size: u32| one < other + size && other < one + mapping.size;
        if lowered.iter().any(|other| overlap(mapping.inside, other.inside, other.size)) {
            return refuse("overlaps an earlier entry in the container's IDs");
        }
        if lowered.iter().any(|other| overlap(mapping.outside, other.outside, other.size)) {
            return refuse("overlaps an earlier entry in the host's IDs");
        }
        lowered.push(mapping);
    }
    let length = user_namespace::text(&lowered).len();
    if length >= LIMIT {
        return Err(SpecError::new(
            property,
            format!("is too long: {length} bytes as text of /proc/PID/uid_map"),
        ));
    }
    Ok(lowered)
}

fn of_namespace(path: &Path, property: &str) -> Result<IdMappings, SpecError> {
    let unreadable = |cause: std::io::Error| {
        let problem = format!("cannot read the ID mappings of {}: {cause}", path.display());
        SpecError::new(format!("{property}.path"), problem)
    };
    let [users, groups] = user_namespace::maps(path).map_err(unreadable)?.map(|map| parse(&map));
    Ok(IdMappings { users, groups })
}

fn parse(map: &str) -> Vec<IdMapping> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse().ok());
        Some(IdMapping { inside: numbers.next()?, outside: numbers.next()?, size: numbers.next()? })
    };
    map.lines().filter_map(line).collect()
}

fn sorted(mappings: &IdMappings) -> [Vec<(u32, u32, u32)>; 2] {
    [&mappings.users, &mappings.groups].map(|list| {
        let mut list: Vec<_> = list.iter().map(|entry| (entry.inside, entry.outside, entry.size)).collect();
        list.sort_unstable();
        list
    })
}

#[cfg(test)]
#[path = "user_namespace_test.rs"]
mod tests;
