//! The node's settings, for the guest's kernel: what a host gives all of its containers, a guest gives its own. docs/settings.md
//! says which, and what cannot cross.
//!
//! They are read from the host and never from a guest, and only root of the host can have set them.

mod handlers;
mod table;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use stockade_protocol::settings::Settings;

use crate::sys::user_namespace;
use table::{KERNEL, Kind};

/// Where the host has its settings.
const SYSCTL: &str = "/proc/sys";

/// The longest value that is taken over, in bytes.
const LONGEST: usize = 512;

/// What begins a pattern that hands core dumps to a program.
const PIPE: char = '|';

/// What this node gives its containers.
#[derive(Debug, Default)]
pub struct Node {
    /// What the guest is told.
    pub settings: Settings,
    /// Trees that it finds in its share, by their names.
    pub trees: Vec<(String, OwnedFd)>,
    /// What cannot cross: one sentence each.
    pub warnings: Vec<String>,
}

impl Node {
    /// Reads the settings. `share` is the directory of the VM's share that gets the trees; `wants_core_dumps` says that the container
    /// has room for core dumps.
    pub fn read(share: &str, wants_core_dumps: bool) -> Self {
        let mut node = Self::default();
        if let Ok(directory) = Directory::open(Path::new(SYSCTL)) {
            node.settings.sysctls = kernel(&directory, user_namespace::is_inner());
            node.take_core_pattern(&directory, wants_core_dumps);
        }
        handlers::read(share, &mut node);
        node
    }

    /// Wherever it leads, the guest's kernel runs no program for it, and a file of that name is made with the rights of the
    /// process that has crashed, below that process's root.
    fn take_core_pattern(&mut self, directory: &Directory, wants_core_dumps: bool) {
        let Some(pattern) = directory.read("kernel/core_pattern") else { return };
        if wants_core_dumps && pattern.starts_with(PIPE) {
            self.warnings.push(format!(
                "core dumps are not kept: the node's kernel.core_pattern {pattern:?} hands them to a program of the host, which \
                 cannot read a guest's processes; give it the path of a file"
            ));
        }
        if pattern != table::CORE_PATTERN {
            self.settings.sysctls.push(("kernel/core_pattern".to_owned(), pattern));
        }
    }
}

/// What differs from what a guest's kernel has by itself.
fn kernel(directory: &Directory, is_inner: bool) -> Vec<(String, String)> {
    let number = |text: &str| text.parse::<i64>().ok();
    let wanted = KERNEL.iter().filter_map(|(name, kind)| {
        // A user namespace has limits of its own.
        if is_inner && name.starts_with("user/") {
            return None;
        }
        let found = directory.read(name);
        let value = match kind {
            Kind::Follows => found?,
            Kind::Differs(guest) => found.filter(|value| value != guest)?,
            Kind::Raises(guest) => found.filter(|value| number(value) > Some(*guest))?,
            Kind::Always(without) => found.unwrap_or_else(|| (*without).to_owned()),
        };
        Some(((*name).to_owned(), value))
    });
    wanted.collect()
}

/// A directory of the host's settings.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// The one at this path. Of `net`, it is the calling thread's network namespace that is seen.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn open(path: &Path) -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).map(Self)
    }

    /// The value of a file of this name, its columns separated by single spaces; `None` where there is none, or none that could
    /// be written to a guest.
    pub fn read(&self, name: &str) -> Option<String> {
        let file = openat(self.0.as_fd(), name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = [0; LONGEST];
        let length = File::from(file).read(&mut bytes).ok().filter(|length| *length < LONGEST)?;
        let text = std::str::from_utf8(&bytes[..length]).ok()?.trim_end_matches('\n');
        (!text.contains('\n')).then(|| text.replace('\t', " "))
    }
}

#[cfg(test)]
#[path = "node_test.rs"]
mod tests;
