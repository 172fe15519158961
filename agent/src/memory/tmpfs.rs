//! Tmpfs without a size in config.json: each may have half of the memory (mm/shmem.c), which may grow.

use std::os::fd::OwnedFd;

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::{
        stat::{Mode, fstat},
        statfs::{TMPFS_MAGIC, fstatfs},
    },
    unistd::Pid,
};
use stockade_protocol::container::{Mount, MountSource};
use stockade_sys::mount_api;

use super::values::Memory;

/// Options of tmpfs(5) that set its size.
const SIZES: [&str; 2] = ["size=", "nr_blocks="];
const INODES: &str = "nr_inodes=";

/// The tmpfs without a size of one container.
#[derive(Debug, Default)]
pub struct Tmpfs(Vec<Growing>);

#[derive(Debug)]
struct Growing {
    /// The path of its mount, from the container's root.
    path: String,
    /// Whether the number of its inodes is not set, either.
    inodes: bool,
    /// Its device and its size in pages when it was last seen. If they differ, the workload has mounted or changed it.
    seen: Option<(u64, u64)>,
}

impl Tmpfs {
    /// The tmpfs without a size among a container's mounts.
    pub fn of(mounts: &[Mount]) -> Self {
        let says = |data: &str, options: &[&str]| {
            data.split(',').any(|given| options.iter().any(|option| given.starts_with(option)))
        };
        let growing = mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::FileSystem { fstype, .. } if fstype == "tmpfs" && !says(&mount.data, &SIZES) => {
                Some(Growing {
                    path: mount.destination.trim_start_matches('/').to_owned(),
                    inodes: !says(&mount.data, &[INODES]),
                    seen: None,
                })
            }
            _ => None,
        });
        Self(growing.collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives each half of the memory, if it is as it was last seen. Paths are from the root of the process `init`.
    pub fn resize(&mut self, init: Pid, memory: Memory) {
        let half = memory.pages / 2;
        for tmpfs in &mut self.0 {
            // A workload may have unmounted it, and it keeps its size if it holds more than the new size.
            let Some((mount, device, size)) = find(init, &tmpfs.path) else { continue };
            if tmpfs.seen.is_some_and(|seen| seen != (device, size)) || size == half {
                tmpfs.seen.get_or_insert((device, size));
                continue;
            }
            let size_kib = format!("{}k", half * 4);
            let inodes = half.to_string();
            let mut options = vec![("size", size_kib.as_str())];
            options.extend(tmpfs.inodes.then_some(("nr_inodes", inodes.as_str())));
            let size = if mount_api::reconfigure(&mount, &options).is_ok() { half } else { size };
            tmpfs.seen = Some((device, size));
        }
    }
}

/// The tmpfs at this path, with its device and its size in pages; `None` if there is none.
fn find(init: Pid, path: &str) -> Option<(OwnedFd, u64, u64)> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = open(format!("/proc/{init}/root").as_str(), flags | OFlag::O_DIRECTORY, Mode::empty()).ok()?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_DIRECTORY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mount = openat2(&root, path, how).ok()?;
    let found = fstatfs(&mount).ok().filter(|found| found.filesystem_type() == TMPFS_MAGIC)?;
    let device = fstat(&mount).ok()?.st_dev;
    Some((mount, device, found.blocks()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_size_grows() {
        let mount = |destination: &str, fstype: &str, data: &str| Mount {
            destination: destination.to_owned(),
            source: MountSource::FileSystem { fstype: fstype.to_owned(), source: fstype.to_owned() },
            flags: 0,
            propagation: Vec::new(),
            data: data.to_owned(),
            copy_up: false,
        };
        let mounts = [
            mount("/tmp", "tmpfs", "mode=1777"),
            mount("/run", "tmpfs", "mode=755,nr_inodes=10"),
            mount("/dev", "tmpfs", "mode=755,size=65536k"),
            mount("/a", "tmpfs", "nr_blocks=7"),
            mount("/proc", "proc", ""),
        ];
        let growing: Vec<_> = Tmpfs::of(&mounts).0.into_iter().map(|one| (one.path, one.inodes)).collect();
        assert_eq!(growing, [("tmp".to_owned(), true), ("run".to_owned(), false)]);
    }
}
