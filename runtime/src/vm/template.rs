//! Templates of booted VMs: where they are, whose they are, and which one a VM can begin as.
//!
//! ```text
//!  /run/stockade-templates       root's alone
//!  ├── lock                      held by whoever builds or removes
//!  ├── .new                      one that is being built; of no use to anybody
//!  └── 2048m-2c-0123456789abcdef one that is finished: moved here as a whole
//!      ├── about                 what it was made of
//!      ├── state                 written by the VMM that has made it, its frame last
//!      └── ram
//! ```
//!
//! They are a cache: whatever is wrong with one, the VM boots, and the log says so. A VM gets descriptors that can only be read, and
//! maps them copy-on-write. Nothing of a container is in them: they are taken before there is one.

mod build;
mod huge;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use stockade_protocol::vmm::Config;

use super::Launch;
use super::sizing::{Demand, VmSize};
use crate::sys::user_namespace;

pub use build::{Built, build};

/// One for all roots of stockade. Not below /run/stockade, where a container's directory may have any name.
const DIRECTORY: &str = "/run/stockade-templates";

const LOCK: &str = "lock";
const NEW: &str = ".new";
const ABOUT: &str = "about";
const STATE: &str = "state";
const RAM: &str = "ram";

/// The files of a template, open.
#[derive(Debug)]
pub struct Files {
    /// All but RAM.
    pub state: File,
    /// RAM.
    pub ram: File,
    /// Where they are, if others may find them there.
    pub directory: Option<PathBuf>,
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
    fn name(&self) -> String {
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

/// The directory of templates.
#[derive(Debug)]
pub struct Store(PathBuf);

/// This user has no templates.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not the host's root.
    #[error("only the host's root has templates")]
    NotRoot,
    /// It is somebody else's, or others can write to it.
    #[error("{} is not a directory of root's alone, so nothing in it is used; remove it", .0.display())]
    Foreign(PathBuf),
    /// It cannot be used.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl Store {
    /// That of this host, which may be missing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn of_host() -> Result<Self, StoreError> {
        if !nix::unistd::geteuid().is_root() || user_namespace::is_inner() {
            return Err(StoreError::NotRoot);
        }
        Self::at(Path::new(DIRECTORY))
    }

    fn at(path: &Path) -> Result<Self, StoreError> {
        let io = |cause| StoreError::Io { path: path.to_owned(), cause };
        match fs::symlink_metadata(path) {
            Ok(meta) => {
                let is_own = meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw();
                if !is_own || meta.mode() & 0o077 != 0 {
                    return Err(StoreError::Foreign(path.to_owned()));
                }
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(io(cause)),
        }
        Ok(Self(path.to_owned()))
    }

    /// Makes it where it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lock(&self) -> Result<File, StoreError> {
        let io = |cause| StoreError::Io { path: self.0.clone(), cause };
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(io(cause)),
            // Somebody may have made it meanwhile.
            _ => Self::at(&self.0)?,
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW);
        let lock = options.open(self.0.join(LOCK)).map_err(io)?;
        lock.lock().map_err(io)?;
        Ok(lock)
    }

    /// The template that is of this.
    pub fn find(&self, key: &Key) -> Option<Files> {
        let directory = self.0.join(key.name());
        let open = |name: &str| File::open(directory.join(name));
        if fs::read_to_string(directory.join(ABOUT)).ok()? != key.about {
            return None;
        }
        let (state, ram) = (open(STATE).ok()?, open(RAM).ok()?);
        Some(Files { state, ram, directory: Some(directory) })
    }

    /// All that are finished, the oldest first.
    ///
    /// # Errors
    /// readdir(3)'s; where the directory is missing, there are none.
    pub fn list(&self) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(&self.0) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all: Vec<_> = entries.filter_map(|entry| Entry::read(entry.ok()?.path())).collect();
        all.sort_by_key(|entry| entry.made);
        Ok(all)
    }

    /// Removes one; VMs that have begun as it go on.
    ///
    /// # Errors
    /// Those of removing a directory.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.0.join(name))
    }
}

/// A template that is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it was made of.
    pub about: String,
    /// What it takes of the host's memory, in bytes.
    pub bytes: u64,
    /// When it was made, in seconds since 1970.
    pub made: i64,
}

impl Entry {
    fn read(path: PathBuf) -> Option<Self> {
        let about = fs::read_to_string(path.join(ABOUT)).ok()?;
        let name = path.file_name()?.to_str()?.to_owned();
        if name == NEW {
            return None;
        }
        let files = [STATE, RAM].map(|name| fs::symlink_metadata(path.join(name)));
        let bytes = files.iter().flatten().map(|meta| meta.blocks() * 512).sum();
        let made = fs::symlink_metadata(path.join(ABOUT)).ok()?.mtime();
        Some(Self { name, about, bytes, made })
    }
}

/// The launch from a template, where there is one that a VM of this size can begin as. It is of the very size, or larger
/// where nobody could use the difference.
pub fn choose(launch: Launch, size: VmSize, demand: Demand) -> (Launch, VmSize) {
    if !launch.uses_templates() {
        return (launch, size);
    }
    let store = match Store::of_host() {
        Ok(store) => store,
        Err(StoreError::NotRoot) => return (launch, size),
        Err(error) => {
            tracing::warn!("the VM boots without a template: {error}");
            return (launch, size);
        }
    };
    let class =
        size.mib.checked_next_power_of_two().filter(|class| *class > size.mib && size.is_limited(demand));
    let exact = store.find(&launch.template_key());
    let found = exact.map(|files| (size.mib, files)).or_else(|| {
        let class = class?;
        Some((class, store.find(&launch.key_of_class(class))?))
    });
    match found {
        Some((mib, files)) => {
            tracing::debug!(class_mib = mib, "the VM begins as a template");
            let class_mib = if mib > size.mib { mib } else { 0 };
            (launch.of_class(mib).beginning_as(files), VmSize { class_mib, ..size })
        }
        None => (launch, size),
    }
}

/// Removes a template that has turned out to be of no use.
pub fn discard(directory: &Path, reason: &str) {
    tracing::warn!("the template {} is of no use and has been removed: {reason}", directory.display());
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", directory.display());
    }
}

#[cfg(test)]
#[path = "template_test.rs"]
mod tests;
