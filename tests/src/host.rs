//! A picture of the host: what there is of everything that a runtime could leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Longest that an awaited event may take before its test fails, in milliseconds.
const LIMIT_MS: u16 = 60_000;

/// Tells which users VMMs have.
const LOCKS: &str = "/run/stockade-vmm-users";

/// What the host has at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// User processes, by PID: name.
    pub processes: BTreeMap<i32, String>,
    /// Mount points of the test's mount namespace.
    pub mounts: BTreeSet<String>,
    /// Named UNIX sockets.
    pub sockets: BTreeSet<String>,
    /// Cgroups.
    pub cgroups: BTreeSet<String>,
    /// Files of the directories where a runtime may keep something.
    pub files: BTreeSet<String>,
    /// Network interfaces.
    pub interfaces: BTreeSet<String>,
}

impl Snapshot {
    /// The host as it is now.
    pub fn take() -> Self {
        let mut cgroups = BTreeSet::new();
        walk(Path::new("/sys/fs/cgroup"), &mut |path, is_directory| {
            if is_directory {
                cgroups.insert(path.display().to_string());
            }
        });
        let mut files = BTreeSet::new();
        let checkout =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a directory of it");
        for directory in ["/run", "/tmp", "/var/tmp", "/dev/shm", "/etc/stockade", "/var/lib/stockade"] {
            walk(Path::new(directory), &mut |path, _| {
                // Bundles are the caller's: what containers write there stays. The file of locks is the host's, and empty. The
                // checkout may lie in one of these, and is anybody's who works in it.
                let is_others = path.starts_with(crate::bundle::DIRECTORY) || path.starts_with(checkout);
                if !is_others && path != Path::new(LOCKS) {
                    files.insert(path.display().to_string());
                }
            });
        }
        Self {
            processes: processes(),
            mounts: fields("/proc/self/mountinfo", 4),
            sockets: fields("/proc/net/unix", 7),
            cgroups,
            files,
            interfaces: fs::read_dir("/sys/class/net")
                .map(|entries| {
                    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
                })
                .unwrap_or_default(),
        }
    }

    /// Fails the test if the host now has anything more or less than it had.
    #[track_caller]
    pub fn assert_same_now(&self) {
        let now = Self::take();
        let mut report = String::new();
        let mut compare = |what: &str, before: BTreeSet<String>, after: BTreeSet<String>| {
            for more in after.difference(&before) {
                report += &format!("\n  left behind: {what} {more}");
            }
            for less in before.difference(&after) {
                report += &format!("\n  missing: {what} {less}");
            }
        };
        let names = |processes: &BTreeMap<i32, String>| {
            processes.iter().map(|(pid, name)| format!("{pid} {name}")).collect::<BTreeSet<_>>()
        };
        compare("process", names(&self.processes), names(&now.processes));
        compare("mount", self.mounts.clone(), now.mounts);
        compare("socket", self.sockets.clone(), now.sockets);
        compare("cgroup", self.cgroups.clone(), now.cgroups);
        compare("file", self.files.clone(), now.files);
        compare("interface", self.interfaces.clone(), now.interfaces);
        assert!(report.is_empty(), "the host is not as it was:{report}");
    }
}

/// PIDs of the processes with this name that have not ended.
pub fn pids_named(name: &str) -> Vec<i32> {
    let named = processes().into_iter().filter(|(_, found)| found == name).map(|(pid, _)| pid);
    named.filter(|pid| !has_ended(*pid)).collect()
}

/// The cgroup (v2) of a process, below the root.
pub fn cgroup_of(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// A field of `/proc/PID/status`.
pub fn status_field(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("process is alive");
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("/proc/{pid}/status has no {field}"))
        .trim()
        .to_owned()
}

/// Whether a process has ended, reaped or not.
pub fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// Waits until a process, which need not be a child, has ended (a zombie has).
#[track_caller]
pub fn wait_for_end(pid: i32) {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if raw < 0 {
        return;
    }
    // SAFETY: `raw` is a descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one valid pollfd.
    let ready = unsafe { libc::poll(&mut poll, 1, i32::from(LIMIT_MS)) };
    assert_eq!(ready, 1, "process {pid} has not ended within a minute");
}

/// Waits until there is a file at `path`, whose directory exists.
pub fn wait_for_file(path: &Path) {
    let inotify = Inotify::init(InitFlags::empty()).expect("inotify");
    let directory = path.parent().expect("an absolute path");
    inotify.add_watch(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO).expect("watch");
    let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
    while !path.exists() {
        let ready = poll(&mut fds, LIMIT_MS).expect("poll");
        assert_eq!(ready, 1, "no {} within a minute", path.display());
        inotify.read_events().expect("event");
    }
}

/// Waits until there is a file at `path`, whose directory exists, and it holds `text`.
pub fn wait_for_text(path: &Path, text: &str) {
    wait_for_file(path);
    let inotify = Inotify::init(InitFlags::empty()).expect("inotify");
    inotify.add_watch(path, AddWatchFlags::IN_MODIFY).expect("watch");
    let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
    loop {
        let content = fs::read_to_string(path).unwrap_or_default();
        if content.contains(text) {
            return;
        }
        let ready = poll(&mut fds, LIMIT_MS).expect("poll");
        assert_eq!(ready, 1, "no {text:?} within a minute in {}:\n{content}", path.display());
        inotify.read_events().expect("event");
    }
}

fn processes() -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        // Kernel threads come and go; they have no executable.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let flags: u64 = tail.split_whitespace().nth(6).and_then(|field| field.parse().ok()).unwrap_or(0);
        const PF_KTHREAD: u64 = 0x0020_0000;
        if flags & PF_KTHREAD == 0 {
            found.insert(pid, head.split_once('(').map_or("", |(_, name)| name).to_owned());
        }
    }
    found
}

fn fields(file: &str, index: usize) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().nth(index)).map(str::to_owned).collect()
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path, bool)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        visit(&entry.path(), is_directory);
        if is_directory {
            walk(&entry.path(), visit);
        }
    }
}
