//! The directory of templates: what is in it, whose it must be, and what goes when there is too much.
//!
//! ```text
//!  /run/stockade-templates         root's alone
//!  ├── lock                        held by whoever builds or removes; it names what is being built
//!  ├── 2048m-2c-0123456789abcdef   a template that is finished: moved here as a whole
//!  │   ├── about                   what it was made of
//!  │   ├── state                   written by the VMM that has made it, its frame last
//!  │   ├── ram
//!  │   └── hot                     the pages of ram to which every start writes, once that is known
//!  └── 512m-2c-….failed            why that one could not be made
//! ```
//!
//! What is being built has no name before it is finished, so that a builder which is killed leaves nothing: `.new` is there
//! for the moment between the first link and the rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::linkat;

use super::{Files, Key, hot};
use crate::sys::user_namespace;
use crate::text::table::printable;

/// One for all roots of stockade. Not below /run/stockade, where a container's directory may have any name.
const DIRECTORY: &str = "/run/stockade-templates";

const LOCK: &str = "lock";
pub(super) const NEW: &str = ".new";
pub(super) const ABOUT: &str = "about";
pub(super) const STATE: &str = "state";
pub(super) const RAM: &str = "ram";
const HOT: &str = "hot";

/// What the name of a failure's file ends with.
const FAILED: &str = ".failed";

/// How long after a failure no start has the same template made again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Longest reason of a failure that is kept, in bytes.
const MAX_REASON: usize = 600;

/// The directory of templates.
#[derive(Debug)]
pub struct Store(pub(super) PathBuf);

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

    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        let io = |cause| StoreError::Io { path: path.to_owned(), cause };
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() && is_own(&meta) => {}
            Ok(_) => return Err(StoreError::Foreign(path.to_owned())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(io(cause)),
        }
        Ok(Self(path.to_owned()))
    }

    /// Makes it where it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let lock = self.open_lock()?;
        lock.lock().map_err(|cause| self.failed(cause))?;
        Ok(Lock(lock))
    }

    /// The same, unless somebody has the lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        let lock = self.open_lock()?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Lock(lock))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(cause)) => Err(self.failed(cause)),
        }
    }

    fn open_lock(&self) -> Result<File, StoreError> {
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(self.failed(cause)),
            // Somebody may have made it meanwhile.
            _ => Self::at(&self.0)?,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW).open(self.0.join(LOCK)).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: io::Error) -> StoreError {
        StoreError::Io { path: self.0.clone(), cause }
    }

    /// Opens a file below it for reading: no link is followed, and it must be root's alone.
    fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_PATH | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(&self.0, flags, Mode::empty())?;
        // A FIFO in the place of a file is not waited for.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let file = File::from(openat2(&directory, path, how)?);
        let meta = file.metadata()?;
        if !meta.is_file() || !is_own(&meta) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a file of root's alone"));
        }
        Ok(file)
    }

    fn read(&self, path: &Path) -> io::Result<(String, SystemTime)> {
        let mut file = self.open(path)?;
        let modified = file.metadata()?.modified()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok((text, modified))
    }

    /// The template that is of this.
    pub fn find(&self, key: &Key) -> Option<Files> {
        let name = PathBuf::from(key.name());
        if self.read(&name.join(ABOUT)).ok()?.0 != key.about {
            return None;
        }
        let state = self.open(&name.join(STATE)).ok()?;
        let ram = self.open(&name.join(RAM)).ok()?;
        let hot = self.read(&name.join(HOT)).map(|(text, _)| hot::parse(&text)).unwrap_or_default();
        Some(Files { state, ram, directory: Some(self.0.join(name)), hot })
    }

    /// Keeps to which pages of the RAM of the template in this directory every start writes.
    ///
    /// # Errors
    /// Those of the file.
    pub fn keep_hot(directory: &Path, pages: &[u32]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        let mut file = options.open(directory)?;
        file.write_all(hot::text(pages).as_bytes())?;
        Ok(link(&file, &directory.join(HOT))?)
    }

    /// All that are finished, the one first whose last use was the longest ago.
    ///
    /// # Errors
    /// readdir(3)'s; where the directory is missing, there are none.
    pub fn list(&self) -> io::Result<Vec<Entry>> {
        let mut all: Vec<_> =
            self.names()?.iter().filter(|name| *name != NEW).filter_map(|name| self.entry(name)).collect();
        all.sort_by_key(|entry| entry.used);
        Ok(all)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        let path = Path::new(name);
        let (about, made) = self.read(&path.join(ABOUT)).ok()?;
        let files = [STATE, RAM].map(|file| fs::symlink_metadata(self.0.join(path).join(file)));
        let bytes = files.iter().flatten().map(|meta| meta.blocks() * 512).sum();
        let used = fs::symlink_metadata(self.0.join(path)).ok()?.modified().ok()?;
        Some(Entry { name: name.to_owned(), about, bytes, made, used })
    }

    /// Whether a VM has begun as it and lives: it has RAM mapped.
    pub fn is_in_use(&self, name: &str) -> bool {
        let Ok(ram) = self.open(&Path::new(name).join(RAM)) else { return false };
        // Who opens the file meanwhile waits, and the kernel sends this signal for it.
        let mut set = SigSet::empty();
        set.add(Signal::SIGIO);
        let _ = set.thread_block();
        // A lease for writing is given only where nobody else has the file open or mapped.
        // SAFETY: the command takes an integer, and the descriptor is open.
        let lease = unsafe { libc::fcntl(ram.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        lease == -1 && Errno::last() == Errno::EAGAIN
    }

    /// Notes that a VM begins as it.
    pub(super) fn touch(&self, files: &Files) {
        let Some(directory) = &files.directory else { return };
        let (now, same) = (TimeSpec::UTIME_NOW, TimeSpec::UTIME_OMIT);
        // Where it fails, the template only seems older than it is.
        let _ = utimensat(AT_FDCWD, directory, &same, &now, UtimensatFlags::NoFollowSymlink);
    }

    /// Removes one; VMs that have begun as it go on.
    ///
    /// # Errors
    /// Those of removing a directory.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.0.join(name)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes those whose last use was the longest ago until the others take no more than this, in bytes. None that a VM
    /// uses goes: its memory would stay.
    ///
    /// # Errors
    /// How many bytes are left where that is more; why one cannot be removed.
    pub fn shrink_to(&self, most: u64) -> Result<(), ShrinkError> {
        let all = self.list()?;
        let mut bytes: u64 = all.iter().map(|entry| entry.bytes).sum();
        for entry in all {
            if bytes <= most {
                break;
            }
            if self.is_in_use(&entry.name) {
                continue;
            }
            self.remove(&entry.name)?;
            bytes = bytes.saturating_sub(entry.bytes);
            tracing::debug!("the template {} has been removed to make room", entry.name);
        }
        if bytes > most { Err(ShrinkError::InUse(bytes)) } else { Ok(()) }
    }

    /// Removes what a builder has left that was killed, and failures that no longer count.
    ///
    /// # Errors
    /// Why something cannot be removed.
    pub fn tidy(&self, lock: &mut Lock) -> io::Result<()> {
        self.remove(NEW)?;
        if let Some(name) = lock.building()? {
            self.note_failure(&name, "its builder was killed");
            lock.is_building("")?;
        }
        for Failure { name, .. } in self.failures()?.iter().filter(|failure| !failure.counts()) {
            self.forget_failure(name)?;
        }
        Ok(())
    }

    /// The templates that could not be made.
    ///
    /// # Errors
    /// readdir(3)'s.
    pub fn failures(&self) -> io::Result<Vec<Failure>> {
        let names = self.names()?;
        let failed = names.iter().filter_map(|name| name.strip_suffix(FAILED));
        let mut all: Vec<_> = failed.filter_map(|name| self.failure(name)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Why this one could not be made.
    pub fn failure(&self, name: &str) -> Option<Failure> {
        let (reason, at) = self.read(Path::new(&format!("{name}{FAILED}"))).ok()?;
        Some(Failure { name: name.to_owned(), reason, at })
    }

    /// Keeps the reason for those who ask, and so that the next start does not try again.
    pub(super) fn note_failure(&self, name: &str, reason: &str) {
        // A character takes up to four bytes.
        let reason: String = printable(reason).chars().take(MAX_REASON / 4).collect();
        let path = self.0.join(format!("{name}{FAILED}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let written = options.open(&path).and_then(|mut file| file.write_all(reason.as_bytes()));
        if let Err(cause) = written {
            tracing::debug!("cannot write {}: {cause}", path.display());
        }
    }

    /// Lets the next start try again.
    ///
    /// # Errors
    /// unlink(2)'s.
    pub fn forget_failure(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(format!("{name}{FAILED}"))) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Gives a file without a name this one: by /proc, because AT_EMPTY_PATH takes a capability that a container's root may lack.
pub(super) fn link(file: &File, path: &Path) -> nix::Result<()> {
    let unnamed = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    linkat(AT_FDCWD, &unnamed, AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)
}

/// Whether nobody but this user can read or write it.
fn is_own(meta: &fs::Metadata) -> bool {
    meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0
}

/// There is no room.
#[derive(Debug, thiserror::Error)]
pub enum ShrinkError {
    /// All that are left are in use.
    #[error("VMs use those that there are, {} bytes", .0)]
    InUse(u64),
    /// One cannot be removed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The store's lock, while this lives.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// What is being built by whoever has written it here.
    fn building(&mut self) -> io::Result<Option<String>> {
        let mut name = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut name)?;
        Ok(Some(name).filter(|name| !name.is_empty() && !name.contains('/')))
    }

    /// Says what is being built: whoever finds this with the lock free knows that the builder was killed.
    pub(super) fn is_building(&mut self, name: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(name.as_bytes())
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
    /// When it was made.
    pub made: SystemTime,
    /// When a VM last began as it, or else when it was made.
    pub used: SystemTime,
}

/// A template that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub name: String,
    /// Why, on one line.
    pub reason: String,
    /// When.
    pub at: SystemTime,
}

impl Failure {
    /// Whether it was so short a time ago that no start tries again.
    pub fn counts(&self) -> bool {
        self.at.elapsed().is_ok_and(|age| age < RETRY_AFTER)
    }
}
