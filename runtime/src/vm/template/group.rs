//! The cgroup of those who make templates. What they write there counts for it for as long as it and the templates are there:
//! its `memory.current` is what templates take of the host.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::cgroup::{Cgroup, CgroupError, ROOT};
use crate::vm::Placement;

/// Below the root, and so in no engine's cgroup: engines wait for who is in theirs.
const NAME: &str = "stockade-templates";

const MIB: u64 = 1 << 20;

/// The cgroup.
#[derive(Debug)]
pub struct Group(Cgroup);

impl Group {
    /// Makes it, where templates take at most this many bytes and the next guest has this much RAM.
    ///
    /// # Errors
    /// The host has no cgroup v2 with the memory controller here.
    pub fn make(mib: u32, most: u64) -> Result<Self, CgroupError> {
        let cgroup = Cgroup::at_root(NAME)?;
        // The guest writes to its kernel, its agent and its page descriptors, and all of that is there twice when it is saved.
        let building = (256 + u64::from(mib) / 32) * MIB;
        cgroup.make(&[("memory.max", most.saturating_add(building).to_string())])?;
        // One CPU at most, and only what others leave. The limit of memory is what others need to be safe, so it alone must hold.
        for setting in [("cpu.max", "100000 100000"), ("cpu.weight", "1")] {
            if let Err(error) = cgroup.update(&[(setting.0, setting.1.to_owned())]) {
                tracing::debug!("{error}");
            }
        }
        Ok(Self(cgroup))
    }

    /// Where the VMM of a builder is to be: in it, made as by [`make`](Self::make), or else where its builder is.
    pub fn place(mib: u32, most: u64) -> Placement {
        let placement = Self::make(mib, most).and_then(|group| Placement::within(&group.0));
        placement.unwrap_or_else(|error| {
            tracing::warn!("the memory of templates counts for this process's cgroup: {error:#}");
            Placement::default()
        })
    }

    /// To join it.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn procs(&self) -> Result<File, CgroupError> {
        self.0.open_procs()
    }

    /// Removes it where nobody is in it. What is still charged to it goes to the root's account.
    pub fn remove() {
        let path = Path::new(ROOT).join(NAME);
        match fs::remove_dir(&path) {
            Err(cause) if !matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy) => {
                tracing::debug!("cannot remove {}: {cause}", path.display());
            }
            _ => {}
        }
    }
}
