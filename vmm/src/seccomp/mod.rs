//! What system calls each thread may still make, and with which arguments.
//!
//! | thread | is reached by | may |
//! |---|---|---|
//! | vCPU | the guest's every exit | run the guest, signal eventfds |
//! | rng, balloon, mem, fs, vsock, net, blk | the guest's queues | what the device does |
//! | main | the runtime | start and stop the other threads, whose filters add to its own; wire devices up |
//! | files | the runtime | take trees, which come as descriptors |
//! | file worker | the guest's file requests | what a file server does; start others of its kind |
//!
//! The last two are another process ([`crate::file_server`]), and the only ones that open files. No thread maps code, makes a
//! socket, makes a process or signals another process. Anything that is not listed kills the process: either it is taken over, or
//! the list is wrong and a test must find out.

mod calls;
mod program;

use std::io;

use program::{Instruction, Rule};

/// What happens to a call that is not listed.
#[cfg(not(feature = "takeover"))]
pub const MISMATCH: u32 = libc::SECCOMP_RET_KILL_PROCESS;
/// What happens to a call that is not listed, in a build that tries all of them.
#[cfg(feature = "takeover")]
pub const MISMATCH: u32 = stockade_takeover::MISMATCH;

/// A thread cannot be restricted.
#[derive(Debug, thiserror::Error)]
#[error("seccomp: {0}")]
pub struct Error(#[from] io::Error);

/// Whose filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The main thread.
    Main,
    /// A virtual CPU.
    Vcpu,
    /// The entropy device.
    Rng,
    /// The balloon device.
    Balloon,
    /// The memory device.
    Mem,
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
    /// A thread of the file server's that answers the guest.
    FileWorker,
}

/// Restricts the calling thread, which has no new privileges, and those that it starts, for good.
///
/// # Errors
/// The kernel has no seccomp filters.
pub fn restrict(thread: Thread) -> Result<(), Error> {
    crate::stats::count_thread();
    install(&program::build(&rules(thread), MISMATCH))?;
    #[cfg(feature = "takeover")]
    stockade_takeover::attempt_everything(&format!("vmm {thread:?}"));
    Ok(())
}

/// The thread's rules, sorted by the number of the call.
fn rules(thread: Thread) -> Vec<Rule> {
    let mut rules: Vec<Rule> = calls::of(thread)
        .iter()
        .flat_map(|list| list.iter())
        // System call numbers are small.
        .map(|(call, check)| Rule { call: *call as u32, check: *check })
        .collect();
    // A thread's own numbers come before those that it shares with others.
    rules.sort_by_key(|rule| rule.call);
    rules.dedup_by_key(|rule| rule.call);
    rules
}

fn install(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel only reads it.
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call and has the length that is passed with it.
    let installed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if installed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;
