//! The directories of containers below `--root`, and their content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use oci_spec::runtime::Process;
use regex_lite::Regex;

use super::error::ContainerError;
use super::owner::{check_owner, check_root};
use super::record::Record;
use crate::oci::container_id::ContainerId;
use crate::relay::held_streams::SOCKET as STREAMS_SOCKET;
use crate::sys::replacement::Replacement;
use crate::sys::user_namespace;
use crate::vm::{AGENT_SOCKET, SOCKETS};

const FILE: &str = "state.json";
/// The name of a record that is being written.
const NEW_FILE: &str = ".state.json.new";

/// The socket that metrics are served on, in a sandbox's directory.
pub const METRICS_SOCKET: &str = "metrics.sock";

/// config.json's `process`, for `exec`: the bundle may change or go.
const PROCESS: &str = "process.json";

/// The last message of a VMM that has failed.
const CONSOLE_LOG: &str = "console.log";

/// The bit of a directory's mode (sticky, which has no other effect there) that says that its creator has not finished
/// yet.
const NEW: u32 = 0o1000;

/// How often a new container's directory is made again because another command has removed it as abandoned, in the
/// moment before it was locked.
const CREATION_ATTEMPTS: usize = 100;

/// Everything that a container's directory may hold.
const CONTENT: [&str; 6] = [NEW_FILE, CONSOLE_LOG, FILE, PROCESS, METRICS_SOCKET, STREAMS_SOCKET];

fn is_new(metadata: &fs::Metadata) -> bool {
    metadata.mode() & NEW != 0
}

/// The directory that holds the containers' directories.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// `--root`, or the default for this user.
    pub fn new(given: Option<&Path>) -> Self {
        // The path is made absolute, because some processes outlive the command and leave its directory. Without a
        // current directory, using the path fails later.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self(given.map_or_else(default_root, absolute))
    }

    /// Makes the directory of a new container and locks it.
    ///
    /// # Errors
    /// [`ContainerError::Exists`], or an error of the file system.
    pub fn create(&self, id: &ContainerId) -> anyhow::Result<Directory> {
        let context = || format!("cannot make the state directory {}", self.0.join(id.as_str()).display());
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.0).with_context(context)?;
        fs::metadata(&self.0)
            .and_then(|found| check_root(found.uid(), found.mode()))
            .with_context(context)?;
        let path = self.0.join(id.as_str());
        for _ in 0..CREATION_ATTEMPTS {
            match fs::DirBuilder::new().mode(NEW | 0o700).create(&path) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(ContainerError::Exists(id.to_string()).into());
                }
                result => result.with_context(context)?,
            }
            // Until it is locked, it looks like the directory of a creator that has died, and others may remove it.
            match Directory::lock(path.clone()) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                locked => {
                    if let Some(directory) = locked.with_context(context)? {
                        return Ok(directory);
                    }
                }
            }
        }
        anyhow::bail!("container {:?} was deleted while it was being created", id.as_str())
    }

    /// The directories of containers whose creators died before they had finished, locked.
    pub fn abandoned(&self) -> impl Iterator<Item = (ContainerId, Directory)> {
        let ids = self.containers().unwrap_or_default().into_iter();
        ids.filter_map(|id| {
            let path = self.0.join(id.as_str());
            // Nearly all creators have finished, which is visible without opening anything. That matters, because every
            // creation checks all directories.
            if !fs::symlink_metadata(&path).is_ok_and(|metadata| is_new(&metadata)) {
                return None;
            }
            let directory = Directory::try_lock(path).ok()??;
            directory.is_unfinished().then_some((id, directory))
        })
    }

    /// Locks the directory of an existing container; waits for a command that holds the lock.
    ///
    /// # Errors
    /// [`ContainerError::DoesNotExist`], or what the file system says.
    pub fn open(&self, id: &ContainerId) -> anyhow::Result<Directory> {
        let path = self.0.join(id.as_str());
        let directory = match Directory::lock(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            result => result.with_context(|| format!("cannot lock the state of container {id}"))?,
        };
        directory.ok_or_else(|| ContainerError::DoesNotExist(id.to_string()).into())
    }

    /// The records of all containers whose record can be read.
    pub fn records(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let read =
            |path: PathBuf| Record::parse(&fs::read(Directory::open(path).ok()?.path.join(FILE)).ok()?).ok();
        entries.filter_map(|entry| read(entry.path())).collect()
    }

    /// The IDs of all containers, sorted.
    ///
    /// # Errors
    /// An error of the file system. If the directory of the containers does not exist, the list is empty.
    pub fn containers(&self) -> anyhow::Result<Vec<ContainerId>> {
        let read = || -> io::Result<Vec<ContainerId>> {
            let names: Vec<_> =
                fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
            let mut ids: Vec<ContainerId> =
                names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
            ids.sort();
            Ok(ids)
        };
        match read() {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result.with_context(|| format!("cannot list {}", self.0.display())),
        }
    }

    /// The containers that a command is about: the one with this ID or, with `is_regex`, all whose IDs match.
    ///
    /// # Errors
    /// When `name` is neither, or the containers cannot be listed.
    pub fn named(&self, name: &str, is_regex: bool) -> anyhow::Result<Vec<ContainerId>> {
        if !is_regex {
            return Ok(vec![name.parse()?]);
        }
        let regex =
            Regex::new(name).with_context(|| format!("--regex: {name:?} is not a regular expression"))?;
        Ok(self.containers()?.into_iter().filter(|id| regex.is_match(id.as_str())).collect())
    }

    /// The directory of an existing container, without waiting for a command that holds the lock.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn peek(&self, id: &ContainerId) -> anyhow::Result<Directory> {
        let path = self.0.join(id.as_str());
        match Directory::open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Err(ContainerError::DoesNotExist(id.to_string()).into())
            }
            result => result.with_context(|| format!("cannot read the state of container {id}")),
        }
    }
}

/// The default `--root`: below /run for root; for other users, who may be root in their own user namespace, in their
/// own runtime directory.
fn default_root() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) if !nix::unistd::geteuid().is_root() || user_namespace::is_inner() => {
            Path::new(&dir).join("stockade")
        }
        _ => PathBuf::from("/run/stockade"),
    }
}

/// A container's open directory. It is locked while this exists, unless it was opened by [`Root::peek`].
#[derive(Debug)]
pub struct Directory {
    pub(super) path: PathBuf,
    file: File,
    is_ours: bool,
}

impl Directory {
    /// Opens a directory whosever it is.
    pub(super) fn open_any(path: PathBuf) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(&path)?;
        Ok(Self { path, file, is_ours: false })
    }

    /// Opens a directory that is this user's, in a root in which nobody else can put another one in its place.
    fn open(path: PathBuf) -> io::Result<Self> {
        let directory = Self::open_any(path)?;
        let file = &directory.file;
        let root = fstatat(file, "..", AtFlags::empty())?;
        check_root(root.st_uid, root.st_mode)?;
        check_owner(file.metadata()?.uid(), "it")?;
        Ok(directory)
    }

    /// Locks the directory; `None` if it was deleted while another command held the lock.
    fn lock(path: PathBuf) -> io::Result<Option<Self>> {
        let directory = Self::open(path)?;
        directory.file.lock()?;
        directory.if_still_named()
    }

    /// Locks the directory; `None` if another command holds the lock, or has deleted the directory.
    fn try_lock(path: PathBuf) -> io::Result<Option<Self>> {
        let directory = Self::open(path)?;
        if directory.file.try_lock().is_ok() { directory.if_still_named() } else { Ok(None) }
    }

    /// Checks that the locked directory is still the one at its path.
    fn if_still_named(mut self) -> io::Result<Option<Self>> {
        self.is_ours = true;
        let locked = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(named) => Ok(((named.dev(), named.ino()) == (locked.dev(), locked.ino())).then_some(self)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Whether the creator died before it had finished, given that nobody else holds the lock: there is no record, or
    /// it is not complete, or the relay has ended before its creator. A container whose record cannot be read does not
    /// count.
    fn is_unfinished(&self) -> bool {
        if !self.file.metadata().is_ok_and(|metadata| is_new(&metadata)) {
            return false;
        }
        match fs::read(self.path.join(FILE)) {
            Err(cause) => cause.kind() == io::ErrorKind::NotFound,
            Ok(text) => Record::parse(&text)
                .is_ok_and(|record| !record.complete || !record.relay.is_some_and(|relay| relay.is_alive())),
        }
    }

    /// Marks the creation as finished: from now on only its caller decides about the container.
    pub fn finish(&self) {
        // The mode of a directory that was just made can always be changed, unless the file system fails.
        let _ = self.file.set_permissions(fs::Permissions::from_mode(0o700));
    }

    /// Links the VM's sockets of a sandbox in the same root, so that commands for this container find its VM.
    ///
    /// # Errors
    /// symlink(2)'s.
    pub fn join(&self, sandbox: &ContainerId) -> io::Result<()> {
        let sandbox = Path::new("..").join(sandbox.as_str());
        let has = |name: &&str| self.path.join(&sandbox).join(name).exists();
        SOCKETS
            .into_iter()
            .filter(has)
            .try_for_each(|name| std::os::unix::fs::symlink(sandbox.join(name), self.path.join(name)))
    }

    /// Whether [`Self::join`] was called for this container.
    pub fn is_in_a_sandbox(&self) -> bool {
        self.path.join(AGENT_SOCKET).is_symlink()
    }

    /// The record of another container in the same root.
    pub fn neighbour(&self, id: &str) -> Option<Record> {
        let text = fs::read(self.path.parent()?.join(id).join(FILE)).ok()?;
        Record::parse(&text).ok()
    }

    /// The directory of another container in the same root.
    pub fn open_neighbour(&self, id: &str) -> Option<Self> {
        Self::open(self.path.parent()?.join(id)).ok()
    }

    /// Locks the directory of another container in the same root; waits for a command that holds the lock.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn lock_neighbour(&self, id: &str) -> anyhow::Result<Self> {
        self.root().open(&id.parse()?)
    }

    /// The records of all containers in the same root.
    pub fn records(&self) -> Vec<Record> {
        self.root().records()
    }

    pub(super) fn root(&self) -> Root {
        Root(self.path.parent().unwrap_or(&self.path).to_owned())
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// flock(2)'s.
    pub fn unlock(&mut self) -> io::Result<()> {
        self.is_ours = false;
        self.file.unlock()
    }

    /// Whether another command holds the lock.
    pub fn is_busy(&self) -> bool {
        if self.is_ours {
            return false;
        }
        match self.file.try_lock() {
            Ok(()) => self.file.unlock().is_err(),
            Err(_) => true,
        }
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write(&self, record: &Record) -> anyhow::Result<()> {
        let write = || -> io::Result<()> {
            let mut new = Replacement::begin(&self.path.join(FILE), 0o600)?;
            new.file.write_all(&serde_json::to_vec(record)?)?;
            new.put()
        };
        write().with_context(|| format!("cannot write {}", self.path.join(FILE).display()))
    }

    /// Changes the record; the caller holds the lock of the directory. A record that is gone stays gone.
    ///
    /// # Errors
    /// Those of [`Directory::read`] and [`Directory::write`].
    pub fn change(&self, change: impl FnOnce(&mut Record)) -> anyhow::Result<()> {
        let Some(mut record) = self.read()? else { return Ok(()) };
        change(&mut record);
        self.write(&record)
    }

    /// Reads the record; `None` if its creator died before it could write one.
    ///
    /// # Errors
    /// When it is not readable.
    pub fn read(&self) -> anyhow::Result<Option<Record>> {
        let path = self.path.join(FILE);
        match fs::read(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            result => {
                let text = result.with_context(|| format!("cannot read {}", path.display()))?;
                let record = Record::parse(&text).with_context(|| {
                    format!("{} is damaged; delete --force removes the container", path.display())
                })?;
                Ok(Some(self.follow_network(record)))
            }
        }
    }

    /// Keeps config.json's `process`.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write_process(&self, process: &Process) -> anyhow::Result<()> {
        let path = self.path.join(PROCESS);
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&serde_json::to_vec(process)?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// config.json's `process`, as it was when the container was created.
    ///
    /// # Errors
    /// When it is not readable.
    pub fn read_process(&self) -> anyhow::Result<Process> {
        let path = self.path.join(PROCESS);
        let read = || -> io::Result<Process> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        read().with_context(|| format!("cannot read {}", path.display()))
    }

    /// Makes a new, empty file for the VMM's last message.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn create_console_log(&self) -> anyhow::Result<File> {
        let path = self.path.join(CONSOLE_LOG);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))
    }

    /// The last message of the VMM; empty if it has not failed.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn console_log(&self) -> anyhow::Result<Vec<u8>> {
        let path = self.path.join(CONSOLE_LOG);
        match fs::read(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result.with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Removes the directory; nothing else of the container may be left.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn remove(self) -> anyhow::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        };
        CONTENT
            .iter()
            .chain(&SOCKETS)
            .try_for_each(|name| gone(fs::remove_file(self.path.join(name))))
            .and_then(|()| self.remove_network())
            .and_then(|()| gone(fs::remove_dir(&self.path)))
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Directory {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "directory_test.rs"]
mod tests;
