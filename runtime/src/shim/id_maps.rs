//! Root file systems whose layers belong to other users than the container's: containerd's mount options `uidmap` and `gidmap`,
//! with which it has a pod's user namespace share the layers of images.
//!
//! The layers are mounted with their IDs mapped, in a mount namespace of one thread: the overlay keeps them, and nothing of
//! them is left on the host, even if the shim is killed meanwhile. What the container writes is its own already.

use std::fs::create_dir;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use stockade_protocol::container::{IdMapping, IdMappings};
use stockade_sys::mount_api;

use crate::sys::user_namespace;

const LAYERS: &str = "lowerdir=";

/// Where the overlay is mounted in the thread's namespace, beside its layers.
const MERGED: &str = "merged";

/// Takes the mappings out of a mount's options, if there are any.
///
/// # Errors
/// The option that is not understood, or has no counterpart.
pub fn take(options: &mut Vec<String>) -> Result<Option<IdMappings>, String> {
    let mut take_one = |name: &str| {
        let index = options.iter().position(|option| option.starts_with(name))?;
        Some(options.remove(index))
    };
    let given = (take_one("uidmap="), take_one("gidmap="));
    let list = |option: &str| -> Option<Vec<IdMapping>> {
        option.split_once('=')?.1.split(',').map(mapping).collect()
    };
    match given {
        (None, None) => Ok(None),
        (Some(users), Some(groups)) => {
            Ok(Some(IdMappings { users: list(&users).ok_or(users)?, groups: list(&groups).ok_or(groups)? }))
        }
        (Some(alone), None) | (None, Some(alone)) => Err(alone),
    }
}

/// Reads `CONTAINER:HOST:SIZE`.
fn mapping(text: &str) -> Option<IdMapping> {
    let mut numbers = text.split(':').map(str::parse::<u32>);
    let (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(size)), None) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    else {
        return None;
    };
    Some(IdMapping { inside, outside, size })
}

/// A detached mount of a directory with its IDs mapped.
///
/// # Errors
/// Those of open_tree(2) and mount_setattr(2), and of making a user namespace.
pub fn directory(source: &Path, mappings: &IdMappings) -> io::Result<OwnedFd> {
    let tree = mount_api::clone_tree_at(source, true, false)?;
    mount_api::map_ids(&tree, user_namespace::create(mappings)?, false)?;
    Ok(tree)
}

/// A detached mount of an overlay with these options, the IDs of its lower layers being mapped. `place` is a directory that
/// the thread may mount on in its namespace.
///
/// # Errors
/// Those of the system calls for mounts, and of making a user namespace.
pub fn overlay(
    options: &[String],
    flags: MsFlags,
    mappings: &IdMappings,
    place: &Path,
) -> io::Result<OwnedFd> {
    let namespace = user_namespace::create(mappings)?;
    let layers = options.iter().find_map(|option| option.strip_prefix(LAYERS)).unwrap_or_default();
    let layers: Vec<&str> = layers.split(':').collect();
    let names: Vec<String> = (0..layers.len()).map(|number| number.to_string()).collect();
    let options: Vec<String> = options
        .iter()
        .map(|option| match option.starts_with(LAYERS) {
            true => format!("{LAYERS}{}", names.join(":")),
            false => option.clone(),
        })
        .collect();
    let make = || -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))?;
        // This thread has a working directory of its own since it has its own namespace.
        nix::unistd::chdir(place)?;
        for (layer, name) in layers.iter().zip(&names) {
            let tree = mount_api::clone_tree_at(Path::new(layer), false, false)?;
            mount_api::map_ids(&tree, &namespace, false)?;
            create_dir(name)?;
            mount_api::attach_at(&tree, Path::new(name))?;
        }
        create_dir(MERGED)?;
        mount(Some("overlay"), MERGED, Some("overlay"), flags, Some(options.join(",").as_str()))?;
        Ok(mount_api::clone_tree_at(Path::new(MERGED), false, false)?)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, make)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts has panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_taken_out_of_the_options() {
        let mut options =
            ["uidmap=0:1000:65536", "index=off", "gidmap=0:2000:10,10:5000:1"].map(str::to_owned).to_vec();
        let found = take(&mut options).expect("valid").expect("mappings");
        assert_eq!(options, ["index=off"]);
        let ids = |inside, outside, size| IdMapping { inside, outside, size };
        assert_eq!(found.users, [ids(0, 1000, 65536)]);
        assert_eq!(found.groups, [ids(0, 2000, 10), ids(10, 5000, 1)]);
        assert_eq!(take(&mut options), Ok(None));
        for wrong in
            [&["uidmap=0:1:2"][..], &["uidmap=0:1", "gidmap=0:1:2"], &["uidmap=0:1:2:3", "gidmap=0:1:2"]]
        {
            let mut options = wrong.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(take(&mut options), Err(wrong[0].to_owned()));
        }
    }
}
