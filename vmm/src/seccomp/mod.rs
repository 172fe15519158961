//! The system calls that each thread may make, and their arguments.
//!
//! | thread | is reached by | may |
//! |---|---|---|
//! | vCPU | the guest's every exit | run the guest, signal eventfds |
//! | devices: rng, balloon, mem | the guest's queues | what these devices do |
//! | fs, vsock, net, blk | the guest's queues | what the device does |
//! | main | the runtime | start and stop the other threads, whose filters add to its own; wire devices up |
//! | saver | the runtime, before there is a container | the same, and read the whole machine and write it down |
//! | files | the runtime | take trees, which come as descriptors |
//! | file worker | the guest's file requests | what a file server does; start others of its kind |
//!
//! The last two are another process ([`crate::file_server`]), and the only ones that open files. No thread maps code, makes a
//! socket, makes a process or signals another process. Anything that is not listed kills the process: either it is taken over, or
//! the list is wrong and a test must find out.

mod calls;

use nix::errno::Errno;
use stockade_sys::seccomp::Program;

/// Why a thread cannot be restricted.
#[derive(Debug, thiserror::Error)]
#[error("seccomp: {0}")]
pub struct Error(#[from] Errno);

/// The thread that a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The main thread.
    Main,
    /// The main thread of a VMM whose guest becomes a template.
    Saver,
    /// A virtual CPU.
    Vcpu,
    /// The entropy, balloon and memory devices.
    Devices,
    /// The file system device.
    Fs,
    /// The vsock device.
    Vsock,
    /// A network device.
    Net,
    /// A block device.
    Blk,
    /// The file server's main thread.
    Files,
    /// A thread of the file server that answers the guest.
    FileWorker,
}

/// Restricts the calling thread, which has no new privileges, and those that it starts, for good.
///
/// # Errors
/// The kernel has no seccomp filters.
pub fn restrict(thread: Thread) -> Result<(), Error> {
    crate::threads::count_thread();
    program(thread).install()?;
    #[cfg(feature = "takeover")]
    stockade_takeover::attempt_everything(&format!("vmm {thread:?}"));
    Ok(())
}

fn program(thread: Thread) -> &'static Program {
    static MAIN: Program = Program::new(calls::of(Thread::Main));
    static SAVER: Program = Program::new(calls::of(Thread::Saver));
    static VCPU: Program = Program::new(calls::of(Thread::Vcpu));
    static DEVICES: Program = Program::new(calls::of(Thread::Devices));
    static FS: Program = Program::new(calls::of(Thread::Fs));
    static VSOCK: Program = Program::new(calls::of(Thread::Vsock));
    static NET: Program = Program::new(calls::of(Thread::Net));
    static BLK: Program = Program::new(calls::of(Thread::Blk));
    static FILES: Program = Program::new(calls::of(Thread::Files));
    static FILE_WORKER: Program = Program::new(calls::of(Thread::FileWorker));
    match thread {
        Thread::Main => &MAIN,
        Thread::Saver => &SAVER,
        Thread::Vcpu => &VCPU,
        Thread::Devices => &DEVICES,
        Thread::Fs => &FS,
        Thread::Vsock => &VSOCK,
        Thread::Net => &NET,
        Thread::Blk => &BLK,
        Thread::Files => &FILES,
        Thread::FileWorker => &FILE_WORKER,
    }
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;
