//! The host's cgroup (version 2) of a container: the VMM and the relay are in it, and engines read its statistics.
//!
//! The files are written directly: no library is worth its weight for a few writes. Where systemd is asked for them,
//! [`scope`] has the names and limits.

mod scope;
mod systemd;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use scope::{Scope, ScopeError};

pub use scope::{Placeholder, Setting};

/// Where cgroup v2 is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// Controllers that are passed on to the container's cgroup where the host has them.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// How long killed processes may take to leave.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// Why a cgroup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The host has no cgroup v2.
    #[error("{ROOT} is not a cgroup v2 file system; boot the host with systemd.unified_cgroup_hierarchy=1")]
    NotV2,
    /// The path is not usable.
    #[error("linux.cgroupsPath: {0:?} is not a path below {ROOT}")]
    Path(PathBuf),
    /// The cgroup is in use.
    #[error("cgroup {0} has processes already; is another container using linux.cgroupsPath?")]
    InUse(PathBuf),
    /// A file of the cgroup cannot be read or written.
    #[error("cgroup {path}: {cause}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// A limit cannot be set.
    #[error("linux.resources: cannot write {value:?} to {path}: {cause}")]
    Limit {
        /// The file.
        path: PathBuf,
        /// The value that was to be written.
        value: String,
        /// The cause.
        cause: io::Error,
    },
    /// The cgroup is a scope of systemd, which cannot be used.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// Processes do not leave the cgroup.
    #[error("cgroup {0} still has processes {EMPTY_WITHIN:?} after they were killed")]
    NotEmpty(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CgroupError + '_ {
    |cause| CgroupError::File { path: path.to_owned(), cause }
}

/// A container's cgroup, and which of its directories stockade makes, by itself or through systemd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// The container's directory.
    pub path: PathBuf,
    /// Directories that were not there before, outermost first.
    made: Vec<PathBuf>,
    /// The scope of systemd that it belongs to.
    scope: Option<Scope>,
}

impl Cgroup {
    /// Where a container's cgroup belongs, by runc's rule: an absolute `linux.cgroupsPath` is below the cgroup root, a
    /// relative one is below the parent of the caller's own cgroup, and `default_name` stands for an absent one.
    /// Makes nothing yet, so that the record can name the cgroup before it exists.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn plan(cgroups_path: &Path, default_name: &str) -> Result<Self, CgroupError> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(at(Path::new("/proc/self/cgroup")))?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or(CgroupError::NotV2)?;
        if !Path::new(ROOT).join("cgroup.controllers").exists() {
            return Err(CgroupError::NotV2);
        }
        let path = resolve(cgroups_path, own, default_name)?;
        if populated(&path) {
            return Err(CgroupError::InUse(path));
        }
        let mut made: Vec<PathBuf> =
            path.ancestors().take_while(|directory| !directory.exists()).map(Path::to_owned).collect();
        made.reverse();
        Ok(Self { path, made, scope: None })
    }

    /// That of this name below the root, which may be there, and which [`remove`](Self::remove) leaves.
    ///
    /// # Errors
    /// [`CgroupError::NotV2`].
    pub fn at_root(name: &str) -> Result<Self, CgroupError> {
        if !Path::new(ROOT).join("cgroup.controllers").exists() {
            return Err(CgroupError::NotV2);
        }
        Ok(Self { path: Path::new(ROOT).join(name), made: Vec::new(), scope: None })
    }

    /// Whether this process may write where the first directory is to be made.
    pub fn may_be_made(&self) -> bool {
        let there = self.path.ancestors().find(|directory| directory.exists());
        there.is_some_and(|directory| access(directory, AccessFlags::W_OK).is_ok())
    }

    /// As [`plan`](Self::plan), for a scope of systemd.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn plan_scope(cgroups_path: &Path, id: &str) -> Result<Self, CgroupError> {
        systemd::check().map_err(ScopeError::from)?;
        let scope = Scope::parse(cgroups_path, id)?;
        let path = Path::new(ROOT).join(scope.path());
        if populated(&path) {
            return Err(CgroupError::InUse(path));
        }
        Ok(Self { path, made: Vec::new(), scope: Some(scope) })
    }

    /// Makes the cgroup and writes its limits. A scope exists only as long as it has a process, and so is returned with
    /// its first process.
    ///
    /// # Errors
    /// [`CgroupError`]: a limit that cannot be written is an error, not a warning.
    pub fn make(&self, values: &[Setting]) -> Result<Option<Placeholder>, CgroupError> {
        if let Some(scope) = &self.scope {
            let (properties, files) = scope::divide(values);
            let placeholder = scope.start(&properties)?;
            self.write_all(&files)?;
            return Ok(Some(placeholder));
        }
        let root = Path::new(ROOT);
        let below = self.path.strip_prefix(root).unwrap_or(&self.path);
        let mut directory = root.to_owned();
        for component in below.components() {
            pass_on_controllers(&directory);
            directory.push(component);
            match fs::create_dir(&directory) {
                Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(&directory)(cause));
                }
                _ => {}
            }
        }
        self.set(values)?;
        Ok(None)
    }

    /// Changes limits and returns their former values. If one cannot be changed, all stay as they were.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn update(&self, values: &[Setting]) -> Result<Vec<Setting>, CgroupError> {
        let read = |(file, value): &Setting| {
            let path = self.path.join(file);
            fs::read_to_string(&path).map(|text| (*file, former(file, &text, value))).map_err(at(&path))
        };
        let former = values.iter().map(read).collect::<Result<Vec<Setting>, _>>()?;
        self.set(values).inspect_err(|_| self.restore(&former))?;
        Ok(former)
    }

    /// Undoes changes of limits.
    pub fn restore(&self, former: &[Setting]) {
        for value in former.iter().rev() {
            if let Err(error) = self.set(std::slice::from_ref(value)) {
                tracing::warn!("cannot undo a change of {}: {error}", value.0);
            }
        }
    }

    /// Limits of a scope are set through systemd, because systemd may write its own values again at any time.
    fn set(&self, values: &[Setting]) -> Result<(), CgroupError> {
        match &self.scope {
            Some(scope) => {
                let (properties, files) = scope::divide(values);
                scope.set(&properties)?;
                self.write_all(&files)
            }
            None => self.write_all(values),
        }
    }

    fn write_all(&self, values: &[Setting]) -> Result<(), CgroupError> {
        values.iter().try_for_each(|(file, value)| {
            let path = self.path.join(file);
            write(&path, value).map_err(|cause| CgroupError::Limit { path, value: value.clone(), cause })
        })
    }

    /// Opens the cgroup's directory, to clone a process into it.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn open(&self) -> Result<File, CgroupError> {
        File::open(&self.path).map_err(at(&self.path))
    }

    /// Opens its `cgroup.procs` for writing.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn open_procs(&self) -> Result<File, CgroupError> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).map_err(at(&path))
    }

    /// The PIDs of the processes in the cgroup.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let path = self.path.join("cgroup.procs");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        // Processes outside of this PID namespace are shown as 0.
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
    }

    /// Kills the processes in the cgroup and removes the directories that stockade made. Directories that are gone
    /// already are no error.
    ///
    /// # Errors
    /// [`CgroupError::NotEmpty`] or [`CgroupError::File`].
    pub fn remove(&self) -> Result<(), CgroupError> {
        let is_ours = self.made.contains(&self.path) || self.scope.is_some();
        if is_ours && self.path.exists() {
            let kill = self.path.join("cgroup.kill");
            // Kernels before 5.14 lack the file; the processes have been killed one by one before.
            let _ = write(&kill, "1");
            self.wait_until_empty()?;
        }
        if let Some(scope) = &self.scope {
            scope.stop().map_err(ScopeError::from)?;
        }
        for directory in self.made.iter().rev() {
            match fs::remove_dir(directory) {
                Ok(()) => {}
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                // Others have begun to use this outer directory: it stays.
                Err(cause) if cause.kind() == io::ErrorKind::ResourceBusy && *directory != self.path => {}
                Err(cause) => return Err(at(directory)(cause)),
            }
        }
        Ok(())
    }

    fn wait_until_empty(&self) -> Result<(), CgroupError> {
        let path = self.path.join("cgroup.events");
        let mut events = match File::open(&path) {
            Ok(events) => events,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(at(&path)(cause)),
        };
        let deadline = Instant::now() + EMPTY_WITHIN;
        loop {
            let mut text = String::new();
            match events.rewind().and_then(|()| events.read_to_string(&mut text)) {
                Ok(_) => {}
                // systemd removes the cgroup of a scope as soon as it is empty.
                Err(cause) if cause.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
                Err(cause) => return Err(at(&path)(cause)),
            }
            if !text.lines().any(|line| line == "populated 1") {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CgroupError::NotEmpty(self.path.clone()));
            }
            // The kernel raises POLLPRI when the file changes.
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(at(&path)(errno.into())),
            }
        }
    }
}

/// The smallest `memory.max` of a directory and those above it, in bytes.
pub fn nearest_memory_limit(path: &Path) -> Option<u64> {
    path.ancestors()
        .take_while(|directory| directory.starts_with(ROOT))
        .filter_map(|directory| fs::read_to_string(directory.join("memory.max")).ok()?.trim().parse().ok())
        .min()
}

/// The value that undoes a write of `value` to a file whose content was `text` before. Files of the io controller have
/// a line for every device, besides the default one, and take one at a time.
fn former(file: &str, text: &str, value: &str) -> String {
    let line_of =
        |key: &str| text.lines().find(|line| line.split(' ').next() == Some(key)).map(str::to_owned);
    let device = value.split(' ').next().filter(|word| file.starts_with("io.") && word.contains(':'));
    match device {
        None => line_of("default").unwrap_or_else(|| text.trim_end().to_owned()),
        Some(device) => line_of(device).unwrap_or_else(|| {
            let nothing = match file {
                "io.max" => "rbps=max wbps=max riops=max wiops=max",
                "io.latency" => "target=0",
                _ => "default",
            };
            format!("{device} {nothing}")
        }),
    }
}

fn resolve(cgroups_path: &Path, own: &str, default_name: &str) -> Result<PathBuf, CgroupError> {
    let given = if cgroups_path.as_os_str().is_empty() { Path::new(default_name) } else { cgroups_path };
    let parent =
        if given.is_absolute() { Path::new("/") } else { Path::new(own).parent().unwrap_or(Path::new("/")) };
    let mut path = PathBuf::from(ROOT);
    for component in parent.components().chain(given.components()) {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(CgroupError::Path(given.to_owned())),
        }
    }
    if path == Path::new(ROOT) { Err(CgroupError::Path(given.to_owned())) } else { Ok(path) }
}

fn populated(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events"))
        .is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}

/// Writes to a file that is there: in one piece, because a cgroup file takes every write(2) for a whole command.
fn write(path: &Path, value: &str) -> io::Result<()> {
    // An empty value would cause no write at all.
    let value = if value.is_empty() { "\n" } else { value };
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Enables the controllers for the directories below `directory`. Each controller is tried separately. If one cannot be
/// enabled (the directory has processes, cgroup v1 uses the controller), an error comes when a limit is written;
/// otherwise it does not matter.
fn pass_on_controllers(directory: &Path) {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let has = |list: &str, controller| list.split_ascii_whitespace().any(|name| name == controller);
    for controller in CONTROLLERS {
        if has(&available, controller) && !has(&enabled, controller) {
            let path = directory.join("cgroup.subtree_control");
            if let Err(cause) = write(&path, &format!("+{controller}")) {
                tracing::debug!("cgroup {}: cannot enable {controller}: {cause}", directory.display());
            }
        }
    }
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod tests;
