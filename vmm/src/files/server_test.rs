use std::fs;

use vm_memory::ByteValued;

use super::least_room;
use crate::files::{
    MAX_MESSAGE,
    abi::{CreateIn, InHeader, InitCompatIn, InitIn, InitOut, MAJOR, MkdirIn, ROOT_NODE, feature, opcode},
    fixture::{Guest, parse},
};

fn header(len: usize, opcode: u32) -> InHeader {
    InHeader { len: len as u32, opcode, unique: 7, nodeid: ROOT_NODE, ..InHeader::default() }
}

#[test]
fn a_request_has_a_whole_header_that_says_its_length() {
    let mut guest = Guest::new();
    let bytes = [header(40, opcode::STATFS).as_slice(), &[0; 8]].concat();
    for length in 0..40 {
        assert!(guest.send_bytes(&bytes[..length]).is_err());
    }
    assert!(guest.send_bytes(&bytes[..40]).is_ok());
    assert!(guest.send_bytes(&bytes[..48]).is_err());
    for len in [0, 39, 41, u32::MAX] {
        let bytes = InHeader { len, ..header(40, opcode::STATFS) };
        assert!(guest.send_bytes(bytes.as_slice()).is_err());
    }
    // As long as a message may be, but longer than any of its kind.
    let mut bytes = vec![b'x'; MAX_MESSAGE];
    bytes[..40].copy_from_slice(header(MAX_MESSAGE, opcode::LOOKUP).as_slice());
    assert!(guest.send_bytes(&bytes).is_err());
}

/// ioctl(2) with FS_IOC_ENABLE_VERITY and a signature of nearly 1 MiB, which any process may ask for: a request that is malformed would
/// fail the device, and all files of all containers with it.
#[test]
fn the_longest_ioctl_is_refused_and_not_malformed() {
    const IOCTL: u32 = 39;
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"").unwrap();
    let node = guest.node("f");
    assert_eq!(guest.ask(IOCTL, node, &[&[0; 32], &vec![0; 1 << 20]]), Err(libc::ENOSYS));
}

#[test]
fn arguments_are_whole() {
    let mut guest = Guest::new();
    let root = guest.node("");
    fs::write(guest.host("f"), b"hello").unwrap();
    // Every operation with every length of nothing but ones, which no string ends.
    for operation in (1..64).filter(|operation| *operation != opcode::DESTROY) {
        for length in 0..100 {
            let _ = guest.send(operation, root, &[&vec![1; length]]);
        }
    }
    assert_eq!(fs::read_dir(guest.host("")).unwrap().count(), 1);
    guest.check_descriptors();
}

#[test]
fn nothing_is_done_whose_reply_has_no_room() {
    let mut guest = Guest::new();
    let root = guest.node("");
    let create = CreateIn { flags: 2, mode: 0o644, ..CreateIn::default() };
    let mkdir = MkdirIn { mode: 0o755, umask: 0 };
    for (operation, argument) in [(opcode::CREATE, create.as_slice()), (opcode::MKDIR, mkdir.as_slice())] {
        for room in [0, 15, 16, 16 + least_room(operation) - 1] {
            guest.room = room;
            assert!(guest.send(operation, root, &[argument, b"x\0"]).is_err());
            assert!(!guest.host("x").exists());
        }
        guest.room = MAX_MESSAGE + 1;
        assert!(guest.send(operation, root, &[argument, b"x\0"]).is_err());
    }
    guest.room = 16 + least_room(opcode::MKDIR);
    guest.ask(opcode::MKDIR, root, &[mkdir.as_slice(), b"x\0"]).unwrap();
    guest.check_descriptors();
}

#[test]
fn what_does_not_exist_is_said_so() {
    let mut guest = Guest::new();
    // ACCESS, INTERRUPT, BMAP, IOCTL, POLL, NOTIFY_REPLY, SETUPMAPPING, REMOVEMAPPING, and numbers of nothing.
    for operation in [0, 7, 19, 34, 36, 37, 39, 40, 41, 48, 49, 53, 4096, u32::MAX] {
        assert_eq!(guest.ask(operation, ROOT_NODE, &[&[0; 64]]), Err(libc::ENOSYS));
    }
}

#[test]
fn versions_are_agreed_on() {
    let mut guest = Guest::new();
    let out = guest.init(u64::MAX);
    assert_eq!((out.major, out.minor, out.max_write, out.max_pages), (7, 39, 1 << 20, 256));
    let flags = u64::from(out.flags) | u64::from(out.flags2) << 32;
    for needed in [feature::POSIX_ACL, feature::SUBMOUNTS, feature::DONT_MASK, feature::HANDLE_KILLPRIV_V2] {
        assert_ne!(flags & needed, 0);
    }
    // Writeback cache, splice, DAX, passthrough and id-mapped mounts are not asked for.
    for other in [1 << 16, 1 << 7, 1 << 33, 1 << 37, 1 << 40] {
        assert_eq!(flags & other, 0);
    }
    assert_eq!(guest.init(0).flags, 0);
    // The second word counts only where the first says so.
    assert_eq!(guest.init(feature::DIRECT_IO_ALLOW_MMAP).flags2, 0);

    let ask = |guest: &mut Guest, major, minor| {
        let wanted = InitIn { major, minor, ..InitIn::default() };
        guest.ask(opcode::INIT, 0, &[wanted.as_slice()]).map(|reply| parse::<InitOut>(&reply))
    };
    let newer = ask(&mut guest, 8, 0).unwrap();
    assert_eq!((newer.major, newer.max_write), (MAJOR, 0));
    assert_eq!(ask(&mut guest, 6, 99).err(), Some(libc::EPROTO));
    assert_eq!(ask(&mut guest, 7, 20).err(), Some(libc::EPROTO));
    let old = InitCompatIn { major: 7, minor: 35, max_readahead: 4096, flags: u32::MAX };
    let out: InitOut = parse(&guest.ask(opcode::INIT, 0, &[old.as_slice()]).unwrap());
    assert_eq!((out.flags2, out.max_readahead), (0, 4096));
}

#[test]
fn a_guest_that_unmounts_or_is_reset_knows_nothing() {
    let mut guest = Guest::new();
    for number in 0..10 {
        fs::write(guest.host(&format!("f{number}")), b"hello").unwrap();
    }
    for by_guest in [true, false] {
        let root = guest.node("");
        let node = guest.node("f1");
        let fh = guest.open(node, libc::O_RDWR).unwrap().fh;
        for number in 0..10 {
            guest.node(&format!("f{number}"));
        }
        guest.open_directory(root).unwrap();
        if by_guest {
            guest.ask(opcode::DESTROY, 0, &[]).unwrap();
        } else {
            guest.server.reset();
        }
        assert_eq!(guest.read(node, fh, 0, 1), Err(libc::EBADF));
        assert_eq!(guest.look_up(node, "x").err(), Some(libc::ESTALE));
        let (_, of) = &guest.server.uses()[0];
        assert_eq!((of.nodes, of.handles, of.descriptors), (1, 0, 1));
        guest.check_descriptors();
        assert_ne!(guest.node("f1"), node);
    }
}
