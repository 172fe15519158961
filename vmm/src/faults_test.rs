use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    sys::{
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use stockade_protocol::vmm::{STATUS_LIMIT, Status};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap};

use super::{LIMIT, Prepared, Report, report};
use crate::{
    memory::{self, Size},
    status::StatusSocket,
};

fn sockets() -> (StatusSocket, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (StatusSocket::new(ours), theirs)
}

/// A guest of 64 MiB, which may have 256 MiB more and has none of it yet.
fn memory() -> GuestMemoryMmap {
    memory::reserve(Size { memory_mib: 64, most_mib: 320 }).unwrap()
}

fn reason(packet: &[u8]) -> String {
    match postcard::from_bytes(packet).unwrap() {
        Status::Failed { reason, console, .. } if console.is_empty() => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_is_filled_in() {
    let (status, _peer) = sockets();
    let words = Report::new(&status, "at 0x0000000000000000, or so").unwrap();
    let mut buffer = [0xff; LIMIT];
    for (address, expected) in [
        (0, "at 0x0000000000000000, or so"),
        (0x0123_4567_89ab_cdef, "at 0x0123456789abcdef, or so"),
        (u64::MAX, "at 0xffffffffffffffff, or so"),
    ] {
        assert_eq!(reason(words.about(address, &mut buffer)), expected);
    }
    assert!(Report::new(&status, "no place").is_none());
    assert!(Report::new(&status, &"0x0000000000000000".repeat(20)).is_none());
}

#[test]
fn guest_memory_is_told_from_the_vmms() {
    let (status, _peer) = sockets();
    let memory = memory();
    let prepared = Prepared::new(&status, &memory).unwrap();
    let upper = memory.get_host_address(GuestAddress(4 << 30)).unwrap() as u64;
    let mut buffer = [0; LIMIT];
    let mut say = |signal, address| {
        let (report, address) = prepared.find(signal, address);
        reason(report.about(address, &mut buffer))
    };
    assert_eq!(
        say(libc::SIGSEGV, upper + 0x1234),
        "the guest led a device to memory that it does not have, at 0x0000000100001234"
    );
    assert!(
        say(libc::SIGBUS, upper).starts_with("the host has lost memory of the guest, at 0x0000000100000000")
    );
    assert_eq!(
        say(libc::SIGSEGV, 8),
        "the VMM has a fault: it used memory that is not there, at 0x0000000000000008"
    );
}

#[test]
fn a_process_that_touches_what_is_not_there_says_so() {
    let (status, peer) = sockets();
    let memory = memory();
    let missing = memory.get_host_address(GuestAddress(4 << 30)).unwrap();
    // SAFETY: the child does not return from here.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let prepared = report(&status, &memory).is_ok();
            // SAFETY: that it is not is what is tried; the handler ends the process.
            unsafe {
                if prepared {
                    missing.add(77).write_volatile(1);
                }
                libc::_exit(2)
            }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 1));
            let mut packet = [0; STATUS_LIMIT];
            let length = recv(peer.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).unwrap();
            assert_eq!(
                reason(&packet[..length]),
                "the guest led a device to memory that it does not have, at 0x000000010000004d"
            );
        }
    }
}
