//! `io.stockade.scratch`: directories of the container, its root among them, on disks of the VM that last as long as
//! the container.
//!
//! A disk is a file of the host without a name, so that nothing of it is left whatever ends. Its size bounds what
//! the container can take of the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::statvfs::fstatvfs;

use super::disks::{Disk, Disks};
use super::place;
use super::plan::{PlannedMount, PlannedSource};
use crate::config::annotations::SCRATCH;
use crate::config::scratch::{Place, Scratch, parse};
use crate::oci::bundle::SpecError;
use crate::state::role::{Annotations, Role};
use crate::sys::ext4::{self, Identity};
use crate::text::bytes;

/// What the file system is mounted with: the host gets back what is deleted.
const OPTIONS: &str = "discard";

/// Adds the disks that a container asks for, or has by default, and their mounts.
///
/// # Errors
/// A value that is not understood, asks for more than it may, or names one path twice; a file that cannot be made.
pub fn lower(
    annotations: &Annotations,
    role: &Role,
    scratch: &Scratch,
    mounts: &mut Vec<PlannedMount>,
    disks: &mut Disks,
    warnings: &mut Vec<String>,
) -> Result<(), SpecError> {
    // A pod's sandbox has no processes of its own; engines give it the annotations of the pod all the same.
    if *role == Role::Sandbox {
        return Ok(());
    }
    let (property, text) = match (annotations.get(SCRATCH), &scratch.default) {
        (Some(text), _) => (format!("annotations[{SCRATCH:?}]"), text),
        (None, Some(text)) => ("/etc/stockade/config.toml: scratch.default".to_owned(), text),
        (None, None) => return Ok(()),
    };
    let refuse = |problem: String| SpecError::new(&property, problem);
    let places = parse(text).map_err(refuse)?;
    let all = places.iter().fold(0, |all: u64, place| all.saturating_add(place.size));
    if all > u64::from(scratch.max_mib) << 20 {
        return Err(refuse(format!(
            "{} are more than scratch.max_mib of /etc/stockade/config.toml allows a container, {}",
            bytes::short(all),
            bytes::short(u64::from(scratch.max_mib) << 20)
        )));
    }
    for Place { path, size } in places {
        let destination = place(&path, &property)?;
        if !(ext4::MIN..=ext4::MAX).contains(&size) {
            let [least, most] = [ext4::MIN, ext4::MAX].map(bytes::short);
            return Err(refuse(format!("{path}: the size must be between {least} and {most}")));
        }
        let is_scratch = |mount: &PlannedMount| matches!(mount.source, PlannedSource::Scratch(_));
        let is_same = |mount: &PlannedMount| {
            Path::new(&mount.destination) == Path::new(&destination) && is_scratch(mount)
        };
        if mounts.iter().any(is_same) {
            return Err(refuse(format!("{path} is there twice")));
        }
        let file = make(&scratch.directory, size).map_err(|cause| {
            refuse(format!(
                "{path}: cannot make a file of {} in {} (scratch.directory of /etc/stockade/config.toml): {cause}",
                bytes::short(size),
                scratch.directory.display()
            ))
        })?;
        warn_of_space(&file, &scratch.directory, size, &property, warnings);
        let disk = Disk { property: property.clone(), file, readonly: false };
        let mount = PlannedMount {
            source: PlannedSource::Scratch(disks.add_open(disk)?),
            flags: 0,
            propagation: Vec::new(),
            data: OPTIONS.to_owned(),
            copy_up: false,
            destination,
        };
        mounts.insert(index(mounts, &mount.destination), mount);
    }
    Ok(())
}

/// Where a mount's place in the list is: over what is mounted on its path or above it, and below what is mounted in it.
fn index(mounts: &[PlannedMount], destination: &str) -> usize {
    let last = mounts.iter().rposition(|mount| Path::new(destination).starts_with(&mount.destination));
    last.map_or(0, |last| last + 1)
}

/// A file without a name with an empty file system in it.
fn make(directory: &Path, size: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    let file = options.open(directory)?;
    let mut random = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let (uuid, seed) = (random[..16].try_into(), random[16..].try_into());
    let (Ok(uuid), Ok(seed)) = (uuid, seed) else { return Err(io::ErrorKind::Other.into()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ext4::make(&file, size, Identity { uuid, seed, time: now.as_secs() as u32 })?;
    Ok(file)
}

/// Warns where the host could not hold a full disk: the container would see errors of its disk, and not that it is full.
fn warn_of_space(file: &File, directory: &Path, size: u64, property: &str, warnings: &mut Vec<String>) {
    let Ok(found) = fstatvfs(file) else { return };
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    if free < size {
        warnings.push(format!(
            "{property}: {} has {} free, and not the {} that the disk may take; if the host's file system is full first, the \
             container gets I/O errors",
            directory.display(),
            bytes::short(free),
            bytes::short(size)
        ));
    }
}

#[cfg(test)]
#[path = "scratch_test.rs"]
mod tests;
