//! The file server's process: all that the guest reads and writes of the host's files goes through it, and nothing else.
//!
//! The VMM forks it before there is a guest. It has the few capabilities that a file server for all users of a guest
//! needs, and nothing of the machine: no KVM, no guest memory, no device. It gets requests through the channel
//! ([`crate::devices::fs::channel`]), from a VMM that its guest may have taken over, and trees from the runtime
//! ([`requests`]). It ends with the VMM; when it ends first, the VMM says why and ends too.
//!
//! | thread | is reached by | may |
//! |---|---|---|
//! | main | the runtime | take trees, start a thread that removes a share |
//! | worker | the VMM | what a file server does, start workers |

mod requests;
mod workers;

pub use workers::{WorkerError, Workers};

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    panic,
    sync::Arc,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::Signal,
        socket::{Backlog, listen},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{ForkResult, Pid, dup2_stderr, fork, getpid, getppid, setgroups},
};
use stockade_sys::{
    capabilities::{self, Capability},
    descriptors,
    pidfd::Pidfd,
};

use crate::{
    devices::fs::channel::{ChannelError, ServerEnd},
    files::{FileServer, Limits},
    isolation::{self, Procfs, failed, step},
    seccomp::{self, Thread},
};

/// Name of the process.
pub const NAME: &str = "stockade-files";

/// The capabilities for serving files to all users of a guest. CAP_SYS_ADMIN is not among them, because only the
/// runtime mounts; nor is CAP_DAC_READ_SEARCH, with which files outside of the trees could be opened by their handles.
const CAPABILITIES: u64 = Capability::Chown.bit()
    | Capability::DacOverride.bit()
    | Capability::Fowner.bit()
    | Capability::Fsetid.bit()
    | Capability::Mknod.bit()
    | Capability::Setfcap.bit()
    | Capability::Setgid.bit()
    | Capability::Setuid.bit();

/// Threads take on the uid of a request's caller to create files as its own; these bits keep their capabilities
/// meanwhile (capabilities(7), "securebits"). The guest's kernel checks the caller's rights.
const SECURE_BITS: libc::c_ulong = SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED;
const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
const SECBIT_NO_SETUID_FIXUP_LOCKED: libc::c_ulong = 1 << 3;

/// The kernel's default for fs.nr_open.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// How many connections may wait for the main thread to accept them.
const BACKLOG: i32 = 128;

/// Longest final message, in bytes.
const LAST_WORDS: usize = 1 << 10;

/// Allocations of so many bytes have pages of their own: each of a thread's two buffers.
const LARGE: libc::c_int = 64 << 10;

/// The parts of the file server.
#[derive(Debug)]
pub struct Parts {
    /// Its end of the channel.
    pub channel: ServerEnd,
    /// The listener whose connections carry trees.
    pub listener: UnixListener,
    /// The procfs for its own `self/fd`.
    pub procfs: Procfs,
    /// The lock that reserves the VMM's user as long as one of the two processes has it.
    pub user_lock: Option<OwnedFd>,
}

/// The VMM's side of the running process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: Pidfd,
    /// Reads what the process writes to its standard error.
    words: File,
    /// Its /proc/PID/smaps_rollup.
    memory: File,
}

impl Process {
    /// Forks the file server. Must be called before the VMM has a second thread.
    ///
    /// # Errors
    /// [`isolation::Error`].
    pub fn start(parts: Parts) -> Result<(Self, Option<OwnedFd>), isolation::Error> {
        let (words, stderr) = io::pipe().map_err(step("pipe"))?;
        let parent = getpid();
        // SAFETY: there is one thread, so the child may do whatever this process may.
        match unsafe { fork() }.map_err(failed("fork"))? {
            ForkResult::Child => {
                let failure = match run(parts, stderr.into(), parent) {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                };
                eprintln!("{failure}");
                exit()
            }
            ForkResult::Parent { child } => {
                let pidfd = Pidfd::open(child.as_raw()).map_err(failed("pidfd_open"))?;
                let memory = parts.procfs.open(&format!("{child}/smaps_rollup"))?;
                let words = File::from(OwnedFd::from(words));
                Ok((Self { pid: child, pidfd, words, memory }, parts.user_lock))
            }
        }
    }

    /// Why the process has ended; must be called when it has ended.
    pub fn final_output(&self) -> String {
        let how = match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                format!("was killed by signal {} ({signal})", signal as i32)
            }
            Ok(WaitStatus::Exited(_, status)) => format!("exited with status {status}"),
            _ => "ended".to_owned(),
        };
        let mut words = Vec::new();
        // All threads of the process are gone, so reading ends.
        let _ = (&self.words).take(LAST_WORDS as u64).read_to_end(&mut words);
        let printable = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { ' ' };
        let words: String = words.iter().map(printable).collect();
        let colon = if words.trim().is_empty() { "" } else { ": " };
        format!("the file server {how}{colon}{}", words.trim())
    }

    /// Its process ID.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its /proc/PID/smaps_rollup.
    pub fn memory(&self) -> &File {
        &self.memory
    }
}

impl AsFd for Process {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Runs in the child: it confines itself and serves. Returns only with an error.
fn run(parts: Parts, stderr: OwnedFd, parent: Pid) -> Result<std::convert::Infallible, isolation::Error> {
    let Parts { channel, listener, procfs, user_lock } = parts;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("PR_SET_PDEATHSIG"))?;
    if getppid() != parent {
        exit();
    }
    rename();
    // This removes the VMM's handler, which reports on a socket that this process does not have.
    drop(panic::take_hook());
    dup2_stderr(&stderr).map_err(failed("dup2"))?;
    // It is closed with all other descriptors.
    let _ = stderr.into_raw_fd();
    let kept = channel.descriptors().into_iter().chain([listener.as_raw_fd(), procfs.number()]);
    let kept: Vec<RawFd> = kept.chain(user_lock.as_ref().map(AsRawFd::as_raw_fd)).collect();
    // SAFETY: what is closed is the VMM's; nothing of it is used, or dropped, in this process.
    unsafe { descriptors::close_all_but(3, &kept) }.map_err(failed("close_range"))?;
    // The runtime finds out this process's PID by the credentials of its peer.
    listen(&listener, Backlog::new(BACKLOG).map_err(failed("listen"))?).map_err(failed("listen"))?;
    let own_descriptors = procfs.into_descriptors()?;
    let descriptors = isolation::limit_descriptors(MAX_DESCRIPTORS)?;
    // In a user namespace whose owner may not do this, it is neither allowed nor needed.
    let _ = setgroups(&[]);
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS) })
        .map_err(failed("PR_SET_SECUREBITS"))?;
    capabilities::keep(CAPABILITIES).map_err(failed("capset"))?;
    isolation::make_unreachable()?;

    // SAFETY: only sets a parameter of the allocator, and there is one thread. What a thread has for requests comes from pages of
    // its own then, and takes memory as far as it is written to.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    let server = Arc::new(FileServer::new(own_descriptors, Limits::of(descriptors)));
    let confine = || seccomp::restrict(Thread::FileWorker).map_err(io::Error::other);
    Workers::start(Arc::clone(&server), channel, confine, give_up).map_err(step("a thread"))?;
    seccomp::restrict(Thread::Files).map_err(|error| step("seccomp")(io::Error::other(error)))?;
    requests::serve(&listener, &server).map_err(failed("epoll"))?;
    exit()
}

fn give_up(error: &WorkerError) {
    // The VMM has ended, and this process will end soon.
    if !matches!(error, WorkerError::Channel(ChannelError::Gone)) {
        eprintln!("{error}");
    }
    exit()
}

/// Ends the process without running exit handlers that belong to the VMM.
fn exit() -> ! {
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(1) }
}

/// Gives the process a name of its own in `ps`.
fn rename() {
    // This never fails for this name.
    let _ = std::ffi::CString::new(NAME).map(|name| prctl::set_name(&name));
}

#[cfg(test)]
#[path = "file_server_test.rs"]
mod tests;
