//! Processes: clone3(2), pidfds, and references that survive the reuse of a PID.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use serde::{Deserialize, Serialize};
use stockade_sys::clone::{Fork, Forked};
pub use stockade_sys::pidfd::Pidfd;

/// Exit status of a cloned child whose closure panicked.
const PANICKED: i32 = 101;

/// Bytes of a page of x86-64.
const PAGE: u64 = 4096;

/// A process that is named by PID and start time, so that a reused PID is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process ID in the runtime's pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
}

impl ProcessRef {
    /// The process that has this PID now; `None` if there is none.
    pub fn of(pid: i32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self { pid, start_time: stat.start_time })
    }

    /// A pidfd, unless the process has ended (zombies included).
    pub fn open(&self) -> Option<Pidfd> {
        self.find().filter(|_| self.is_alive())
    }

    /// A pidfd, also of a zombie.
    pub fn find(&self) -> Option<Pidfd> {
        let pidfd = Pidfd::open(self.pid).ok()?;
        // This is read after pidfd_open(2): if it matches, the pidfd is of the right process.
        (Stat::read(self.pid)?.start_time == self.start_time).then_some(pidfd)
    }

    /// Whether the process lives.
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.ended())
    }
}

/// Resources that a process has used since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Time since it began.
    pub age: Duration,
    /// CPU time.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// The part of the resident memory that is neither file pages nor shared memory, in bytes.
    pub anonymous: u64,
    /// Bytes read from and written to block devices; 0 if the kernel does not count them.
    pub io: [u64; 2],
}

impl ProcessRef {
    /// What the process has used; `None` if it has ended.
    pub fn usage(&self) -> Option<ProcessUsage> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.pid));
        let uptime: f64 =
            fs::read_to_string("/proc/uptime").ok()?.split_ascii_whitespace().next()?.parse().ok()?;
        let io = read("io").unwrap_or_default();
        let count = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let statm = read("statm").ok()?;
        let mut pages = statm.split_ascii_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
        let (resident, shared) = (pages.next()?, pages.next()?);
        // This is read last: if it matches, the other values are of the same process.
        let stat = Stat::read(self.pid).filter(|stat| stat.start_time == self.start_time && !stat.ended())?;
        let age = Duration::try_from_secs_f64(uptime).ok()?.saturating_sub(ticks(self.start_time));
        Some(ProcessUsage {
            age,
            cpu: ticks(stat.cpu_time),
            memory: resident * PAGE,
            anonymous: resident.saturating_sub(shared) * PAGE,
            io: ["read_bytes:", "write_bytes:"].map(|name| count(name).unwrap_or(0)),
        })
    }
}

impl ProcessUsage {
    /// The sum with the usage of a process that was forked from this one: file pages, which both have in memory, are
    /// counted once.
    #[must_use]
    pub fn with(self, forked: Self) -> Self {
        Self {
            age: self.age,
            cpu: self.cpu.saturating_add(forked.cpu),
            memory: self.memory.saturating_add(forked.anonymous),
            anonymous: self.anonymous.saturating_add(forked.anonymous),
            io: [0, 1].map(|index| self.io[index].saturating_add(forked.io[index])),
        }
    }
}

/// A number of /proc's clock ticks as a time.
fn ticks(count: u64) -> Duration {
    /// USER_HZ of x86-64.
    const PER_S: u64 = 100;
    Duration::from_millis(count.saturating_mul(1000 / PER_S))
}

/// `PF_EXITING` of the flags in /proc/PID/stat: it has closed its files, or is about to, and is no zombie yet.
const EXITING: u64 = 0x4;

/// The fields of /proc/PID/stat that are used; times are in clock ticks.
struct Stat {
    state: u8,
    flags: u64,
    cpu_time: u64,
    start_time: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command name may hold anything, also spaces and parentheses: fields count from the last `)`.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        // Field 3 (state) is taken; flags are field 9, user and system time 14 and 15, and start time is field 22.
        let flags = fields.nth(5)?.parse().ok()?;
        let user: u64 = fields.nth(4)?.parse().ok()?;
        let system = fields.next()?.parse().ok()?;
        let start_time = fields.nth(6)?.parse().ok()?;
        Some(Self { state, flags, cpu_time: user.saturating_add(system), start_time })
    }

    fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') || self.flags & EXITING != 0
    }
}

/// A child made by [`clone`].
#[derive(Debug)]
pub struct Child {
    /// Its PID.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: Pidfd,
}

/// How long the process's thread that has waited longest has stood in a processor's queue in all; zero for a process that has ended,
/// and where the kernel does not count it (`CONFIG_SCHED_INFO`).
pub fn waited_for_processor(process: &Pidfd) -> Duration {
    // proc(5): a pidfd's file has a line `Pid:`.
    let about =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_fd().as_raw_fd())).unwrap_or_default();
    let pid = about.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap_or("-1").trim();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waited = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    });
    waited.max().map_or(Duration::ZERO, Duration::from_nanos)
}

impl Child {
    /// The reference to the child for the record.
    pub fn reference(&self) -> Option<ProcessRef> {
        ProcessRef::of(self.pid)
    }

    /// Waits for the child's end and reaps it.
    ///
    /// # Errors
    /// When it has been reaped already.
    pub fn reap(&self) -> io::Result<WaitStatus> {
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Err(nix::errno::Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Whether it has been killed by a system call that its seccomp filter does not allow. The child still has to be
    /// reaped.
    pub fn broke_its_filter(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::PIDFd(self.pidfd.as_fd()), flags);
        matches!(status, Ok(WaitStatus::Signaled(_, Signal::SIGSYS, _)))
    }

    /// Kills and reaps the child.
    pub fn kill(&self) {
        // Both calls fail only if the child is gone already, which is fine.
        let _ = self.pidfd.signal(libc::SIGKILL);
        let _ = self.reap();
    }
}

/// Runs `body` in a child process with these `CLONE_NEW*` flags, in `cgroup` if given; the child exits with the status that
/// `body` returns.
///
/// # Errors
/// Those of clone3(2).
///
/// # Safety
/// This process has one thread: the child may then do what any program may. What `body` has borrowed and closes, or takes over, is
/// the child's own copy.
pub unsafe fn clone(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> i32,
) -> Result<Child, Errno> {
    // SAFETY: the caller's promise; the child does not unwind.
    match unsafe { Fork { namespaces, cgroup, is_sibling: false }.fork() }? {
        Forked::Parent(pid, pidfd) => Ok(Child { pid, pidfd }),
        Forked::Child => {
            // Nothing of the parent's stack may be unwound in the child: it would undo the parent's work.
            let _exit = ExitOnUnwind;
            let status = body();
            exit(status)
        }
    }
}

/// The same for a child whose `body` executes a program, or returns because it cannot. This process stands still until then, and the
/// child uses its memory.
///
/// # Errors
/// Those of clone3(2).
///
/// # Safety
/// This process has one thread. `body` leaves memory as this process may find it.
pub unsafe fn execute(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> i32,
) -> Result<Child, Errno> {
    let body = || {
        let _exit = ExitOnUnwind;
        exit(body())
    };
    // SAFETY: the caller's promise.
    let (pid, pidfd) = unsafe { Fork { namespaces, cgroup, is_sibling: false }.execute(body) }?;
    Ok(Child { pid, pidfd })
}

/// Runs `body` in a child process that has only the calling thread; the child exits with the status that `body` returns. The result
/// is its PID.
///
/// # Errors
/// Those of fork(2).
///
/// # Safety
/// `body` takes no lock that another thread may hold now, but the C library's, which are the child's own. What it closes is neither
/// used nor dropped in the child any more.
pub unsafe fn fork(body: impl FnOnce() -> i32) -> io::Result<i32> {
    // The C library's own call, and not clone3(2): it makes the heap usable in the child whatever other threads were doing.
    // SAFETY: the caller's promise; the child does not unwind.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _exit = ExitOnUnwind;
            let status = body();
            exit(status)
        }
        pid => Ok(pid),
    }
}

/// Ends a cloned child at once, without running exit handlers that belong to its parent.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(status) }
}

struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        exit(PANICKED);
    }
}

/// The runtime's program, where it is not this process's own.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// From here on, [`program`] is this one.
pub fn set_program(path: PathBuf) {
    // The first one stays.
    let _ = PROGRAM.set(path);
}

/// The path of `stockade`, beside which its other files are.
///
/// # Errors
/// When this process's own program cannot be found out.
pub fn program() -> io::Result<PathBuf> {
    PROGRAM.get().map_or_else(std::env::current_exe, |path| Ok(path.clone()))
}

/// Makes all threads take memory from one heap. Otherwise the C library makes a heap for each thread, and reads a
/// sysctl when it gives memory of such a heap back, which a process that may open no file cannot do.
pub fn one_arena() {
    // SAFETY: mallopt takes integers, and this process has one thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Makes `ps` show `arguments` as this process's command line and `name` as its name.
///
/// # Errors
/// If the kernel refuses (without CAP_SYS_RESOURCE); the process then keeps its command line.
pub fn set_command_line(name: &str, arguments: &[String]) -> io::Result<()> {
    let mut comm = [0u8; 16];
    let length = name.len().min(comm.len() - 1);
    comm[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: the kernel reads at most 16 bytes, which `comm` has, with a zero at the end.
    if unsafe { libc::prctl(libc::PR_SET_NAME, comm.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut joined: Vec<u8> = Vec::new();
    for argument in arguments {
        joined.extend_from_slice(argument.as_bytes());
        joined.push(0);
    }
    let joined: &'static [u8] = joined.leak();
    let start = joined.as_ptr() as u64;
    // SAFETY: the range is memory that is leaked above and so stays mapped for the life of the process.
    let set = |field: libc::c_int, address: u64| match unsafe {
        libc::prctl(libc::PR_SET_MM, field, address, 0, 0)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let (from, to) =
        ((libc::PR_SET_MM_ARG_START, start), (libc::PR_SET_MM_ARG_END, start + joined.len() as u64));
    // Start may never exceed end. The heap lies below the stack that holds a program's own arguments; those that a parent has set
    // may lie below or above.
    let (first, second) = if set(from.0, from.1).is_ok() { (from, to) } else { (to, from) };
    set(first.0, first.1)?;
    set(second.0, second.1)?;
    Ok(())
}

#[cfg(test)]
#[path = "process_test.rs"]
mod tests;
