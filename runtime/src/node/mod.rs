//! The node's settings, for the guest's kernel: a host applies them to all of its containers, so a guest has to apply
//! them to its own. docs/settings.md lists them, and those that cannot be taken over.
//!
//! They are read from the host and never from a guest, and only root of the host can have set them.

mod handlers;
pub mod selinux;
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

/// The directory of the host's settings.
const SYSCTL: &str = "/proc/sys";

/// The longest value that is taken over, in bytes.
const MAX_VALUE: usize = 512;

/// The first character of a pattern that hands core dumps to a program.
const PIPE: char = '|';

/// What this node gives its containers.
#[derive(Debug, Default)]
pub struct Node {
    /// The settings that the guest is told.
    pub settings: Settings,
    /// Trees that the guest finds in its share, by their names.
    pub trees: Vec<(String, OwnedFd)>,
    /// One sentence for each thing that cannot be taken over.
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

    /// Takes over every pattern: the guest's kernel runs no program for it, and makes a file of that name with the rights
    /// of the crashed process, below that process's root.
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

/// The settings that differ from a guest's own.
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
    /// Opens the directory at this path. `net` is that of the calling thread's network namespace.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn open(path: &Path) -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).map(Self)
    }

    /// The value in the file of this name, with single spaces between columns; `None` if there is no value, or none
    /// that can be sent to a guest.
    pub fn read(&self, name: &str) -> Option<String> {
        let file = openat(self.0.as_fd(), name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = [0; MAX_VALUE];
        let length = File::from(file).read(&mut bytes).ok().filter(|length| *length < MAX_VALUE)?;
        let text = std::str::from_utf8(&bytes[..length]).ok()?.trim_end_matches('\n');
        (!text.contains('\n')).then(|| text.replace('\t', " "))
    }
}

#[cfg(test)]
#[path = "node_test.rs"]
mod tests;
