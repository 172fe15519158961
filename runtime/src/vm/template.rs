//! Templates of booted VMs: whose they are, which one a VM can begin as, and who makes them.
//!
//! They are a cache: whatever is wrong with one, the VM boots, and the log says so. A VM gets descriptors that can only be read, and
//! maps them copy-on-write. Nothing of a container is in them: they are taken before there is one.
//!
//! | module | is |
//! |---|---|
//! | [`store`] | the directory that has them |
//! | [`build`](mod@build) | making one |
//! | [`background`] | having one made by a process that nobody waits for |
//! | [`hot`] | the pages to which every start writes |
//! | [`group`] | the cgroup of those who make them, which has their memory |

mod background;
mod build;
mod group;
pub mod hot;
mod huge;
mod store;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use stockade_protocol::vmm::Config;

use super::Launch;
use super::sizing::{self, Demand, VmSize};
use crate::config;

pub use background::{begin, builder};
pub use build::{Built, build};
pub use group::Group;
pub use store::{Entry, Failure, Store, StoreError};

/// The files of a template, open.
#[derive(Debug)]
pub struct Files {
    /// All but RAM.
    pub state: File,
    /// RAM.
    pub ram: File,
    /// Where they are, if others may find them there.
    pub directory: Option<PathBuf>,
    /// The pages of RAM to which every start writes, if that is known.
    pub hot: Vec<hot::Stretch>,
}

/// What a template must be of to be of use for a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    mib: u32,
    vcpus: u8,
    /// Everything, to be compared.
    about: String,
}

impl Key {
    /// Of a VM of this configuration, made of these files.
    pub fn new(config: &Config, identity: &str) -> Self {
        let Config { memory_mib, vcpus, kernel_parameters, most_memory_mib, .. } = config;
        let about = format!(
            "stockade {}\nmemory {memory_mib} MiB, up to {most_memory_mib} MiB\nCPUs up to {vcpus}\nkernel parameters \
             {kernel_parameters}\n{identity}",
            env!("CARGO_PKG_VERSION")
        );
        Self { mib: *memory_mib, vcpus: *vcpus, about }
    }

    /// The name of its directory. That two have one name is no harm: what they are of is compared.
    pub fn name(&self) -> String {
        // FNV-1a.
        let sum = self.about.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{}m-{}c-{sum:016x}", self.mib, self.vcpus)
    }
}

/// Tells files from others, and from what they were before: an installation replaces them.
///
/// # Errors
/// fstat(2)'s.
pub fn identity(files: [&File; 3]) -> io::Result<String> {
    let mut identity = String::new();
    for (what, file) in ["VMM", "kernel", "initramfs"].into_iter().zip(files) {
        let meta = file.metadata()?;
        // Writing to a string does not fail.
        let _ = writeln!(
            identity,
            "{what} {}:{} {} {}.{:09} {}.{:09}",
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        );
    }
    Ok(identity)
}

/// Most that templates take of the host's memory unless the administrator says otherwise, in bytes, and as a part of it.
const MAX_BYTES: u64 = 1 << 30;
const PART: u64 = 8;

/// Most that templates take of the host's memory, in bytes.
pub fn most_bytes(config: &config::Config) -> u64 {
    let part = || sizing::host_ram().map_or(MAX_BYTES, |ram| MAX_BYTES.min(ram / PART));
    config.template_memory_mib.map_or_else(part, |mib| u64::from(mib) << 20)
}

/// A template that is to be made, because a VM has booted that could have begun as it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The guest's RAM, in MiB.
    pub mib: u32,
    /// The CPUs that it can have.
    pub vcpus: u8,
    /// Its name, by which its maker knows whether it would make the same.
    pub name: String,
}

/// How a VM is to begin.
#[derive(Debug)]
pub struct Choice {
    /// With a template, where there is one.
    pub launch: Launch,
    /// With what the template has.
    pub size: VmSize,
    /// The template that is to be made if the VM boots after all.
    pub wanted: Option<Wanted>,
}

/// The launch from a template, where there is one that a VM of this size can begin as. It is of the very size, or larger
/// where nobody could use the difference.
pub fn choose(launch: Launch, size: VmSize, demand: Demand) -> Choice {
    let booted = |launch, wanted| Choice { launch, size, wanted };
    if !launch.uses_templates() {
        return booted(launch, None);
    }
    let store = match Store::of_host() {
        Ok(store) => store,
        Err(StoreError::NotRoot) => return booted(launch, None),
        Err(error) => {
            tracing::warn!("the VM boots without a template: {error}");
            return booted(launch, None);
        }
    };
    let is_limited = size.is_limited(demand);
    let class = size.mib.checked_next_power_of_two().filter(|class| *class > size.mib && is_limited);
    let exact = store.find(&launch.template_key());
    let found = exact.map(|files| (size.mib, files)).or_else(|| {
        let class = class?;
        Some((class, store.find(&launch.key_of_class(class))?))
    });
    let wanted = class_to_make(size, is_limited)
        .filter(|mib| launch.makes_templates(*mib))
        .map(|mib| Wanted { mib, vcpus: size.most_vcpus, name: launch.key_of_class(mib).name() });
    match found {
        Some((mib, files)) => {
            tracing::debug!(class_mib = mib, "the VM begins as a template");
            store.touch(&files);
            let class_mib = if mib > size.mib { mib } else { 0 };
            Choice {
                launch: launch.of_class(mib).beginning_as(files),
                size: VmSize { class_mib, ..size },
                wanted,
            }
        }
        None => booted(launch, wanted),
    }
}

/// The class that a start may have made: there are few. Those of sizes that a pod's author can choose at will are powers of two,
/// and all others are the configuration's.
fn class_to_make(size: VmSize, is_limited: bool) -> Option<u32> {
    let class = if is_limited { size.mib.checked_next_power_of_two()? } else { size.mib };
    let is_default = size.fixed_mib.is_none() && size.mib == size.default_mib;
    ((is_limited || is_default) && class <= sizing::most_mib()).then_some(class)
}

/// Why a template is of no use.
#[derive(Clone, Copy, Debug)]
pub enum Useless<'a> {
    /// A VMM has refused it, for this reason, and its VM boots.
    Refused(&'a str),
    /// A VM that began as it did not become ready.
    NotReady,
}

/// Removes a template that has turned out to be of no use.
pub fn discard(directory: &Path, why: Useless<'_>) {
    let reason = match why {
        Useless::Refused(reason) => reason,
        Useless::NotReady => "a VM that began as it did not become ready",
    };
    let made = fs::symlink_metadata(directory.join(store::ABOUT)).and_then(|meta| meta.modified());
    // The next would be no better: without this, every other start would fail, or every one have another made.
    let is_new = made.is_ok_and(|made: SystemTime| made.elapsed().is_ok_and(|age| age < store::RETRY_AFTER));
    let waits = is_new || matches!(why, Useless::NotReady);
    let until = if waits {
        format!(
            "; VMs boot instead, and for {} no start has another made",
            humantime::format_duration(store::RETRY_AFTER)
        )
    } else {
        String::new()
    };
    tracing::warn!("the template {} is of no use and is removed: {reason}{until}", directory.display());
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", directory.display());
    }
    if waits
        && let (Ok(store), Some(name)) =
            (Store::of_host(), directory.file_name().and_then(|name| name.to_str()))
    {
        store.note_failure(name, &format!("it was of no use: {reason}"));
    }
}

#[cfg(test)]
#[path = "template_test.rs"]
mod tests;
