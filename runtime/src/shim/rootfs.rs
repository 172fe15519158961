//! A container's root file system: mounted as containerd says before the container is made, and unmounted after it is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use stockade_sys::mount_api;

use super::id_maps;
use super::messages::Mount;
use crate::lower::mount_options::Options;

/// The directory in the bundle.
pub const DIRECTORY: &str = "rootfs";

/// The options of a mount have to fit in a page, with a zero at the end.
const MAX_DATA: usize = 4095;

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// An option of containerd's own that this shim does not carry out.
    #[error(
        "rootfs: the mount of {origin} has {option:?}, which this shim does not do; use another snapshotter"
    )]
    Refused { origin: String, option: String },
    /// A list of layers that mount(2) does not take.
    #[error(
        "rootfs: the options of the {kind} of {origin} have {length} bytes, and {MAX_DATA} are possible; use fewer layers"
    )]
    TooLong { kind: String, origin: String, length: usize },
    /// A system call.
    #[error("rootfs: cannot {what} {path}: {cause}")]
    System { what: &'static str, path: PathBuf, cause: io::Error },
}

/// Mounts what containerd asks for on the bundle's `rootfs`, one upon the other; if one fails, none stays.
///
/// # Errors
/// [`RootfsError`].
pub fn mount_all(mounts: &[Mount], bundle: &Path) -> Result<(), RootfsError> {
    if mounts.is_empty() {
        return Ok(());
    }
    let target = bundle.join(DIRECTORY);
    std::fs::create_dir_all(&target).map_err(system("make", &target))?;
    mounts.iter().try_for_each(|mount| mount_one(mount, &target)).inspect_err(|_| {
        // The first failure is the one to report.
        let _ = unmount_all(bundle);
    })
}

fn mount_one(given: &Mount, target: &Path) -> Result<(), RootfsError> {
    let mut options = Options::parse(&given.options);
    let refused =
        |option: &str| RootfsError::Refused { origin: given.source.clone(), option: option.to_owned() };
    if !given.target.is_empty() {
        return Err(refused(&format!("target={}", given.target)));
    }
    if let Some(option) = &options.refused {
        return Err(refused(option));
    }
    if let Some(option) =
        options.data.iter().find(|word| *word == "loop" || word.starts_with("X-containerd."))
    {
        return Err(refused(option));
    }
    // Of these, libc's constants are the kernel's bits, and nix knows them all.
    let flags = MsFlags::from_bits_retain(options.flags);
    let failed = |errno: Errno| system("mount on", target)(errno.into());
    let mappings = id_maps::take(&mut options.data).map_err(|option| refused(&option))?;
    if let Some(mappings) = mappings {
        let tree = match given.kind.as_str() {
            "overlay" => id_maps::overlay(&options.data, flags, &mappings, target),
            _ if flags.contains(MsFlags::MS_BIND) => id_maps::directory(Path::new(&given.source), &mappings),
            kind => return Err(refused(&format!("uidmap for type {kind}"))),
        };
        let attached = tree.and_then(|tree| Ok(mount_api::attach_at(&tree, target)?));
        attached.map_err(system("mount layers with mapped IDs on", target))?;
        return adjust(target, flags, options.propagation).map_err(failed);
    }
    let (directory, data) = shortened(options.data);
    if data.len() > MAX_DATA {
        let (kind, origin) = (given.kind.clone(), given.source.clone());
        return Err(RootfsError::TooLong { kind, origin, length: data.len() });
    }
    let kind = (!given.kind.is_empty()).then_some(given.kind.as_str());
    let mount = || mount(Some(given.source.as_str()), target, kind, flags, Some(data.as_str()));
    match directory {
        None => mount().map_err(failed)?,
        Some(directory) => in_directory(&directory, mount).map_err(failed)?,
    }
    adjust(target, flags, options.propagation).map_err(failed)
}

/// Gives a bind mount its flags, and a mount its propagation.
fn adjust(target: &Path, flags: MsFlags, propagation: Vec<u64>) -> Result<(), Errno> {
    let change = |flags| mount(None::<&str>, target, None::<&str>, flags, None::<&str>);
    let others = flags & !(MsFlags::MS_BIND | MsFlags::MS_REC);
    if flags.contains(MsFlags::MS_BIND) && !others.is_empty() {
        change(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | others)?;
    }
    propagation.into_iter().try_for_each(|kind| change(MsFlags::from_bits_retain(kind)))
}

/// The options of a file system as mount(2) takes them. Where they are too long because of an overlay's layers, the layers
/// become relative to the directory that they have in common, from which they are to be mounted then.
fn shortened(data: Vec<String>) -> (Option<PathBuf>, String) {
    const LAYERS: &str = "lowerdir=";
    let joined = data.join(",");
    let Some(index) = data.iter().position(|word| word.starts_with(LAYERS)) else { return (None, joined) };
    if joined.len() <= MAX_DATA {
        return (None, joined);
    }
    let layers: Vec<&str> = data[index][LAYERS.len()..].split(':').collect();
    let first = layers.first().copied().unwrap_or_default();
    // The longest beginning of the first that ends before a slash and that all have.
    let common = first.match_indices('/').map(|(at, _)| &first[..at]).rev().find(|common| {
        !common.is_empty()
            && layers.iter().all(|layer| layer.strip_prefix(common).is_some_and(|rest| rest.starts_with('/')))
    });
    let Some(common) = common else { return (None, joined) };
    let relative: Vec<&str> = layers.iter().map(|layer| &layer[common.len() + 1..]).collect();
    let (common, relative) = (PathBuf::from(common), format!("{LAYERS}{}", relative.join(":")));
    let mut data = data;
    data[index] = relative;
    (Some(common), data.join(","))
}

/// Calls `body` in a directory that only the thread that does it is in.
fn in_directory(directory: &Path, body: impl FnOnce() -> Result<(), Errno> + Send) -> Result<(), Errno> {
    thread::scope(|scope| {
        let there = move || {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(directory)?;
            body()
        };
        match thread::Builder::new().spawn_scoped(scope, there) {
            Ok(thread) => thread.join().unwrap_or(Err(Errno::EIO)),
            Err(cause) => Err(Errno::from_raw(cause.raw_os_error().unwrap_or(libc::EAGAIN))),
        }
    })
}

/// Unmounts all that is mounted on the bundle's `rootfs`.
///
/// # Errors
/// umount2(2)'s.
pub fn unmount_all(bundle: &Path) -> Result<(), RootfsError> {
    let target = bundle.join(DIRECTORY);
    loop {
        match umount2(&target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there, or there is nothing.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(system("unmount", &target)(errno.into())),
        }
    }
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootfsError {
    move |cause| RootfsError::System { what, path: path.to_owned(), cause }
}

#[cfg(test)]
#[path = "rootfs_test.rs"]
mod tests;
