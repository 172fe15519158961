use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::*;
use crate::relay::proxy::{self, Semaphore};
use stockade_sys::landlock;
use stockade_sys::seccomp::verdict;

use crate::sys::{descriptors, privileges, process};

const X86_64: u32 = 0xc000_003e;
const RELAYS: [Kind; 2] = [Kind::Relay, Kind::ConnectingRelay];
const EVERY: [Kind; 3] = [Kind::Relay, Kind::ConnectingRelay, Kind::NetworkWatch];

/// What the program answers.
fn run(kind: Kind, architecture: u32, call: u32, [first, second, third]: [u64; 3]) -> u32 {
    verdict(&program(kind).instructions(), architecture, call, [first, second, third, 0, 0, 0])
}

fn allows(kind: Kind, call: libc::c_long, arguments: [u64; 3]) -> bool {
    run(kind, X86_64, call as u32, arguments) == libc::SECCOMP_RET_ALLOW
}

#[test]
fn what_is_not_listed_kills() {
    for kind in EVERY {
        let killing = (0..1000)
            .chain([0x4000_0000, u32::MAX])
            .filter(|call| run(kind, X86_64, *call, [0; 3]) == libc::SECCOMP_RET_KILL_PROCESS);
        assert!(killing.count() > 900, "{kind:?}");
        for call in [
            libc::SYS_openat2,
            libc::SYS_open_by_handle_at,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_move_mount,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_perf_event_open,
            libc::SYS_kill,
            libc::SYS_tgkill,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_mknodat,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_chmod,
            libc::SYS_chroot,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_capset,
            libc::SYS_memfd_create,
        ] {
            let answer = run(kind, X86_64, call as u32, [0; 3]);
            assert_eq!(answer, libc::SECCOMP_RET_KILL_PROCESS, "{kind:?} {call}");
        }
    }
}

#[test]
fn a_relay_touches_no_file_and_hands_nothing_on() {
    for kind in RELAYS {
        for call in [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_creat,
            libc::SYS_unlink,
            libc::SYS_rename,
            libc::SYS_statx,
            libc::SYS_sendmsg,
            libc::SYS_sendmmsg,
        ] {
            assert!(!allows(kind, call, [0; 3]), "{kind:?} {call}");
        }
    }
}

#[test]
fn a_relay_with_an_heir_hands_on_to_nobody_else() {
    for kind in [Kind::RelayWithHeir, Kind::ConnectingRelayWithHeir] {
        for number in 0..1100 {
            let heir = number == crate::relay::held_streams::HEIR as u64;
            assert_eq!(allows(kind, libc::SYS_sendmsg, [number, 1, 0]), heir, "{kind:?} {number}");
        }
        // That no other descriptor gets this number.
        for call in
            [libc::SYS_dup2, libc::SYS_dup3, libc::SYS_prlimit64, libc::SYS_setrlimit, libc::SYS_sendmmsg]
        {
            assert!(!allows(kind, call, [900, 900, 0]), "{kind:?} {call}");
        }
    }
}

#[test]
fn who_watches_a_network_has_no_other_sockets_than_it_needs() {
    let kind = Kind::NetworkWatch;
    let netlink = libc::AF_NETLINK as u64;
    assert!(allows(kind, libc::SYS_socket, [netlink, 0x80003, 0]));
    assert!(!allows(kind, libc::SYS_socket, [netlink, 0x80003, libc::NETLINK_NETFILTER as u64]));
    assert!(allows(kind, libc::SYS_socket, [libc::AF_INET as u64, 0x80001, 0]));
    assert!(!allows(kind, libc::SYS_socket, [libc::AF_INET as u64, 0x80002, 0]));
    for family in [libc::AF_INET6, libc::AF_PACKET, libc::AF_VSOCK] {
        assert!(!allows(kind, libc::SYS_socket, [family as u64, 0x80003, 0]));
    }
    assert!(allows(kind, libc::SYS_clone, [u64::from(THREAD), 0, 0]));
    assert!(!allows(kind, libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0]));
    assert!(!allows(kind, libc::SYS_ioctl, [0, libc::SIOCSIFFLAGS, 0]));
}

#[test]
fn a_relay_without_connections_has_neither_sockets_nor_threads() {
    for call in [libc::SYS_socket, libc::SYS_connect, libc::SYS_accept4] {
        assert!(!allows(Kind::Relay, call, [1, 0x80001, 0]));
        assert!(allows(Kind::ConnectingRelay, call, [1, 0x80001, 0]));
    }
    let thread = [u64::from(THREAD), 0, 0];
    assert!(!allows(Kind::Relay, libc::SYS_clone, thread));
    assert!(allows(Kind::ConnectingRelay, libc::SYS_clone, thread));
}

#[test]
fn what_is_listed_is_allowed_as_it_is_needed() {
    let kind = Kind::ConnectingRelay;
    let (read, write, execute) = (libc::PROT_READ as u64, libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        assert!(allows(kind, call, [0, 1, read | write]));
        assert!(!allows(kind, call, [0, 1, read | execute]));
    }
    for family in [libc::AF_INET, libc::AF_NETLINK, libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG] {
        assert!(!allows(kind, libc::SYS_socket, [family as u64, 0x80001, 0]), "{family}");
    }
    // Processes, and whatever has other flags than a thread.
    for flags in [0, libc::SIGCHLD as u64, u64::from(THREAD) | libc::CLONE_NEWUSER as u64] {
        assert!(!allows(kind, libc::SYS_clone, [flags, 0, 0]));
    }
    assert_eq!(
        run(kind, X86_64, libc::SYS_clone3 as u32, [0; 3]),
        libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32
    );
    // Typing at the terminal of whoever has started the relay.
    for request in [libc::TIOCSTI, libc::TIOCSCTTY, libc::TIOCLINUX] {
        assert!(!allows(kind, libc::SYS_ioctl, [0, request, 0]), "{request:#x}");
    }
    assert!(allows(kind, libc::SYS_ioctl, [0, libc::TIOCGWINSZ, 0]));
    assert!(!allows(kind, libc::SYS_fcntl, [0, libc::F_SETOWN as u64, 0]));
    assert!(!allows(kind, libc::SYS_fcntl, [0, libc::F_NOTIFY as u64, 0]));
    assert!(!allows(kind, libc::SYS_prctl, [libc::PR_SET_MM as u64, 0, 0]));
    assert!(!allows(kind, libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 0, 0]));
    assert!(!allows(kind, libc::SYS_setsockopt, [0, 1, libc::SO_ATTACH_FILTER as u64]));
    assert!(!allows(kind, libc::SYS_setsockopt, [0, libc::IPPROTO_TCP as u64, libc::SO_LINGER as u64]));
}

#[test]
fn other_architectures_have_no_calls() {
    for kind in EVERY {
        for architecture in [0x4000_0003, 0xc000_00b7] {
            let answer = run(kind, architecture, libc::SYS_read as u32, [0; 3]);
            assert_eq!(answer, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}

/// How a process ends that does this behind the filter.
fn behind(kind: Kind, body: impl FnOnce()) -> WaitStatus {
    // SAFETY: the child makes system calls, and takes no lock but its allocator's, which survives a fork.
    let child = unsafe {
        process::clone(0, None, || {
            process::one_arena();
            let confined = privileges::keep_only(0)
                .and_then(|()| landlock::restrict(&[], &[]))
                .and_then(|()| restrict(kind));
            if confined.is_err() {
                return 1;
            }
            body();
            0
        })
    };
    let child = child.unwrap();
    assert!(child.pidfd.wait_end(Duration::from_secs(60)));
    let broke_its_filter = child.broke_its_filter();
    let status = child.reap().unwrap();
    assert_eq!(broke_its_filter, matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)));
    status
}

#[test]
fn a_process_behind_it_lives_by_what_is_listed_and_dies_of_the_rest() {
    let (mut reader, mut writer) = io::pipe().unwrap();
    for kind in RELAYS {
        let status = behind(kind, || {
            let text = vec![b'x'; 300_000].len().to_string();
            let _ = writer.write_all(text.as_bytes());
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{kind:?}: {status:?}");
        let mut read = [0; 6];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"300000");
        let opens = behind(kind, || {
            if File::open("/dev/null").is_ok() {
                std::process::abort();
            }
        });
        match kind {
            // Its allocator tries, and is refused.
            Kind::ConnectingRelay => assert!(matches!(opens, WaitStatus::Exited(_, 0)), "{opens:?}"),
            _ => assert!(matches!(opens, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{kind:?}: {opens:?}"),
        }
    }
}

#[test]
fn a_relay_that_connects_has_threads_and_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let pair = UnixStream::pair().unwrap();
    let status = behind(Kind::ConnectingRelay, || {
        let other = descriptors::connect_in_time(&path).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let (mut client, one) = pair;
        let semaphore = Semaphore::new(1);
        proxy::spawn("proxies", semaphore.wait(), move || proxy::proxy(one, other).unwrap());
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        server.write_all(text.as_bytes()).unwrap();
        drop(server);
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "questionquestion");
        // It is free once the thread ends.
        drop(semaphore.wait());
        thread::sleep(Duration::from_millis(1));
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
}
