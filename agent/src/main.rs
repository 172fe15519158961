//! PID 1 of a stockade guest: builds containers, carries their stdio, reaps processes.
//!
//! One thread and one epoll loop: the agent waits for descriptors only, a thread for each stream would cost memory in
//! every guest, and a single-threaded process may run ordinary code between clone and execve.

#![cfg_attr(not(test), no_main)]

use std::{arch::x86_64::_rdtsc, convert::Infallible, os::fd::OwnedFd};

use nix::sys::reboot::{RebootMode, reboot};

mod atomic_volumes;
mod boot;
mod cgroup;
mod cgroup_devices;
mod connection;
mod container;
mod disks;
mod error;
mod init;
mod memory;
mod network;
mod poller;
mod process;
mod procfs;
mod pump;
mod reaper;
mod renewal;
mod resolver;
mod selinux;
mod server;
mod signal;
mod slots;
mod sockets;
mod stdio;
mod vsock;

use error::Result;

/// Not Rust's own `main`: what the standard library does before that (signal stacks, polling fds 0–2) has no
/// use in PID 1, and this is paid at every boot.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    // SAFETY: RDTSC is in every x86-64 processor, and the guest kernel leaves it to user space.
    let entry_tsc = unsafe { _rdtsc() };
    std::panic::set_hook(Box::new(|panic| give_up(&panic.to_string())));
    signal::ignore_broken_pipes();
    let Err(error) = run(entry_tsc);
    give_up(&error.message);
}

fn run(entry_tsc: u64) -> Result<Infallible> {
    let listener = vsock::listen()?;
    if renewal::is_template() {
        return run_clone(listener, entry_tsc);
    }
    vsock::report_ready(entry_tsc)?;
    // The host prepares the first container meanwhile.
    boot::prepare()?;
    boot::mount_shares()?;
    server::Server::new(listener)?.run()
}

/// Runs the agent of a template's guest, which is saved when it is ready. Everything after the wait happens in each
/// clone.
fn run_clone(listener: OwnedFd, entry_tsc: u64) -> Result<Infallible> {
    boot::prepare()?;
    cgroup_devices::prepare()?;
    let server = server::Server::new(listener)?;
    let renewal = renewal::Waiting::prepare()?;
    vsock::report_ready(entry_tsc)?;
    renewal.wait()?;
    // SAFETY: as above.
    vsock::report_ready(unsafe { _rdtsc() })?;
    boot::mount_shares()?;
    server.run()
}

/// Ends the guest, which cannot go on without its PID 1; the host shows the console's last lines.
fn give_up(reason: &str) -> ! {
    eprintln!("stockade-agent: {reason}");
    if !init::is_container_process() {
        let _ = reboot(RebootMode::RB_AUTOBOOT);
    }
    std::process::exit(1)
}
