//! The containers' cgroups (v2). The guest's cgroups hold the exact limits; the host's only limit the VM.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

use nix::{errno::Errno, unistd::Pid};
use stockade_protocol::container::{self, DeviceRule};

use crate::{
    cgroup_devices,
    error::{Context, ErrorKind, Result, errno_of, error},
    signal,
};

/// Where the agent mounts cgroup2.
pub const ROOT: &str = "/run/cgroup";

/// Largest part of a cgroup's file that is read, in bytes.
const FILE_LIMIT: u64 = 16 << 10;

/// Enables every controller of the kernel for the containers.
pub fn enable_controllers() -> Result<()> {
    delegate(Path::new(ROOT)).or_internal(|| "enable the cgroup controllers".to_owned())
}

/// Lets the children of `directory` use all controllers that it has itself.
fn delegate(directory: &Path) -> io::Result<()> {
    let controllers = fs::read_to_string(directory.join("cgroup.controllers"))?;
    let wanted: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    write_file(&directory.join("cgroup.subtree_control"), &wanted.join(" "))
}

/// Writes to a file in one write(2), as the kernel demands, and never creates it: an unknown file is an error.
fn write_file(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// One container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup; its limits are in force before its first process.
    pub fn create(spec: &container::Cgroup) -> Result<Self> {
        let directory = directory(&spec.path)?;
        let cgroup = Self { directory };
        let made = cgroup.make_directories().and_then(|()| cgroup.configure(spec));
        if let Err(error) = made {
            cgroup.remove();
            return Err(error);
        }
        Ok(cgroup)
    }

    /// A cgroup that has been [created](Self::create).
    pub fn find(spec: &container::Cgroup) -> Result<Self> {
        Ok(Self { directory: directory(&spec.path)? })
    }

    /// The guest's own cgroup, in which the agent is.
    pub fn root() -> Self {
        Self { directory: PathBuf::from(ROOT) }
    }

    /// The cgroup with this directory.
    #[cfg(test)]
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn make_directories(&self) -> Result<()> {
        let below_root = self.directory.strip_prefix(ROOT).unwrap_or(&self.directory);
        let mut directory = PathBuf::from(ROOT);
        for (depth, name) in below_root.components().enumerate() {
            if depth > 0 {
                delegate(&directory)
                    .or_spec(|| format!("enable the controllers of cgroup {}", directory.display()))?;
            }
            directory.push(name);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).or_spec(|| format!("create cgroup {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn configure(&self, spec: &container::Cgroup) -> Result<()> {
        spec.values.iter().try_for_each(|(file, value)| self.write(file, value))
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        if file.contains('/') || file.starts_with('.') {
            return Err(error(ErrorKind::Spec, format!("{file:?} is not the name of a cgroup file")));
        }
        write_file(&self.directory.join(file), value)
            .or_spec(|| format!("linux.resources: write {value:?} to cgroup file {file}"))
    }

    /// Gives the cgroup to a user, who may then move processes in it and make cgroups below it, but not change its
    /// limits.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        /// The files that the owner of a delegated cgroup may write (/sys/kernel/cgroup/delegate).
        const FILES: [&str; 6] = [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
            "memory.oom.group",
            "memory.reclaim",
        ];
        FILES.iter().try_for_each(|file| {
            match std::os::unix::fs::chown(self.directory.join(file), Some(uid), None) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                given => {
                    given.or_internal(|| format!("give cgroup {} to user {uid}", self.directory.display()))
                }
            }
        })
    }

    /// Writes files in order; if one write fails, the files before it get their former values back.
    pub fn update(&self, values: &[(String, String)]) -> Result<()> {
        let mut former: Vec<(&str, Option<String>)> = Vec::new();
        for (file, value) in values {
            let before = self.read(file);
            if let Err(error) = self.write(file, value) {
                for (file, value) in former.iter().rev() {
                    // The former values can be written again, unless something has changed meanwhile.
                    let _ = value.as_ref().map(|value| self.write(file, value));
                }
                return Err(error);
            }
            former.push((file, before));
        }
        Ok(())
    }

    /// The content of a file, up to [`FILE_LIMIT`] bytes; `None` if the file does not exist or is empty.
    pub fn read(&self, file: &str) -> Option<String> {
        let mut text = Vec::new();
        File::open(self.directory.join(file)).ok()?.take(FILE_LIMIT).read_to_end(&mut text).ok()?;
        if text.len() as u64 == FILE_LIMIT {
            // Part of a line would be another number.
            text.truncate(text.iter().rposition(|byte| *byte == b'\n')? + 1);
        }
        String::from_utf8(text).ok().filter(|text| !text.is_empty())
    }

    /// Names of its files that begin with `prefix`.
    pub fn files(&self, prefix: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }

    /// Puts the device rules in force; the container's own nodes are made before that.
    pub fn restrict_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        if rules.is_empty() { Ok(()) } else { cgroup_devices::attach(&self.open()?, rules) }
    }

    /// Opens its directory, for clone3(2) to put a process there.
    pub fn open(&self) -> Result<File> {
        open_directory(&self.directory).or_internal(|| format!("open cgroup {}", self.directory.display()))
    }

    /// As [`open`](Self::open) for a cgroup below it that its processes have made.
    pub fn below(&self, path: &str) -> Result<File> {
        let directory = self.directory.join(relative(path)?);
        open_directory(&directory).or_spec(|| format!("open the container's cgroup {path:?}"))
    }

    /// Opens the cgroup for another process of the container: this one, or that of its `init` if processes of the
    /// container have enabled controllers for children, as systemd does. A cgroup that has done so takes no processes
    /// any more.
    pub fn open_beside(&self, init: Pid) -> Result<File> {
        if self.read("cgroup.subtree_control").is_none() {
            return self.open();
        }
        let line = fs::read_to_string(format!("/proc/{init}/cgroup"))
            .or_internal(|| format!("read the cgroup of process {init}"))?;
        match self.own_part(&line) {
            Some(path) => self.below(path),
            None => self.open(),
        }
    }

    /// The part below this cgroup of a path in /proc/PID/cgroup; `None` if the path is not below this cgroup.
    fn own_part<'a>(&self, line: &'a str) -> Option<&'a str> {
        let own = self.directory.strip_prefix(ROOT).ok()?.to_str()?;
        let path = line.trim_end().strip_prefix("0::/")?.strip_prefix(own)?;
        path.strip_prefix('/')
    }

    /// Opens its `cgroup.events`, which reports EPOLLPRI when the last process ends, and when all are frozen or thawed.
    pub fn events(&self) -> Result<File> {
        self.open_file("cgroup.events")
    }

    /// Opens its `memory.events`, which reports EPOLLPRI when a limit was reached.
    pub fn memory_events(&self) -> Result<File> {
        self.open_file("memory.events")
    }

    fn open_file(&self, name: &str) -> Result<File> {
        let path = self.directory.join(name);
        File::open(&path).or_internal(|| format!("open {}", path.display()))
    }

    /// Number of its processes that the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let text = self.read("memory.events").unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }

    /// Makes the kernel freeze or thaw it; its `cgroup.events` tells when that is done.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        write_file(&self.directory.join("cgroup.freeze"), value)
            .or_internal(|| format!("write {value} to cgroup.freeze"))
    }

    /// Whether all of its processes are frozen.
    pub fn is_frozen(&self) -> bool {
        self.read("cgroup.events").is_some_and(|text| text.lines().any(|line| line == "frozen 1"))
    }

    /// Kills every process in it, those of its own children included.
    pub fn kill(&self) -> Result<()> {
        match write_file(&self.directory.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.or_internal(|| format!("kill cgroup {}", self.directory.display())),
        }
    }

    /// The processes in it and in those below it, by their PIDs in the guest's root PID namespace.
    pub fn processes(&self) -> Result<BTreeSet<i32>> {
        let mut processes = BTreeSet::new();
        collect_processes(&self.directory, &mut processes)
            .or_internal(|| format!("list the processes of cgroup {}", self.directory.display()))?;
        Ok(processes)
    }

    /// Sends `signal` to every process in it; returns the number of processes.
    pub fn signal(&self, signal: i32) -> Result<usize> {
        let mut count = 0;
        for pid in self.processes()? {
            match signal::send(Pid::from_raw(pid), signal) {
                Ok(()) => count += 1,
                // The process has ended since the list was read.
                Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).or_spec(|| format!("send signal {signal} to process {pid}")),
            }
        }
        Ok(count)
    }

    /// Removes the cgroup if no process is left in it, and then those parents that nobody else uses; true if the cgroup
    /// is gone.
    pub fn remove(&self) -> bool {
        if remove_tree(&self.directory).is_err_and(|error| errno_of(&error) != Errno::ENOENT) {
            return false;
        }
        let unused = |parent: &&Path| *parent != Path::new(ROOT) && fs::remove_dir(parent).is_ok();
        self.directory.ancestors().skip(1).take_while(unused).for_each(drop);
        true
    }
}

fn open_directory(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory)
}

/// The directory for a path that the host has given.
fn directory(path: &str) -> Result<PathBuf> {
    Ok(Path::new(ROOT).join(relative(path)?))
}

/// Checks a path that the host has given: it must lead down only.
fn relative(path: &str) -> Result<&Path> {
    let mut components = Path::new(path).components().peekable();
    let names_a_directory =
        components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)));
    if !names_a_directory {
        return Err(error(ErrorKind::Spec, format!("{path:?} is not a path below the cgroup root")));
    }
    Ok(Path::new(path))
}

fn subdirectories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

fn collect_processes(directory: &Path, into: &mut BTreeSet<i32>) -> io::Result<()> {
    let processes = fs::read_to_string(directory.join("cgroup.procs"))?;
    into.extend(processes.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    subdirectories(directory)?.iter().try_for_each(|child| collect_processes(child, into))
}

/// Removes a cgroup with the cgroups that its processes have made below it.
fn remove_tree(directory: &Path) -> io::Result<()> {
    if fs::remove_dir(directory).is_ok() {
        return Ok(());
    }
    subdirectories(directory)?.iter().try_for_each(|child| remove_tree(child))?;
    fs::remove_dir(directory)
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod tests;
