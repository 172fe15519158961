use std::{
    fs,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use vm_memory::{ByteValued, VolatileSlice};

use super::Error;
use crate::files::{
    FileServer, Limits, MAX_MESSAGE, ThreadState,
    abi::{EntryOut, InHeader, OpenIn, ROOT_NODE, ReadIn, opcode},
    fixture::{Guest, open_path, parse},
};

#[test]
fn a_name_is_one_path_component() {
    let guest = Guest::new();
    for name in ["", ".", "..", "a/b", "/a", "a/", "../a", "a\0b", &"x".repeat(256)] {
        assert!(matches!(guest.server.add_share(name), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(guest.server.remove_share(name), Err(Error::NotFound(_))), "{name:?}");
        let trees = vec![(name.to_owned(), open_path("/"))];
        assert!(matches!(guest.server.add_trees("s", trees), Err(Error::Name(_))), "{name:?}");
    }
    guest.check_descriptors();
}

#[test]
fn shares_have_names_of_their_own() {
    let guest = Guest::new();
    assert!(matches!(guest.server.add_share("s"), Err(Error::Exists(_))));
    assert!(matches!(guest.server.remove_share("x"), Err(Error::NotFound(_))));
    assert!(matches!(guest.server.add_trees("x", vec![]), Err(Error::NotFound(_))));
}

#[test]
fn a_tree_keeps_its_name() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"").unwrap();
    fs::create_dir(guest.outside("other")).unwrap();
    let other = open_path(guest.outside("other"));
    guest.server.add_trees("s", vec![("t".into(), other)]).unwrap();
    guest.node("f");
    guest.check_descriptors();
}

#[test]
fn a_removed_share_holds_nothing() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let root = guest.node("");
    let node = guest.node("f");
    let fh = guest.open(node, libc::O_RDWR).unwrap().fh;
    guest.open_directory(root).unwrap();
    guest.server.remove_share("s").unwrap();
    assert!(guest.server.uses().is_empty());
    guest.check_descriptors();
    assert_eq!(guest.read(node, fh, 0, 1), Err(libc::EBADF));
    assert_eq!(guest.look_up(root, "f").err(), Some(libc::ESTALE));
    assert_eq!(guest.look_up(ROOT_NODE, "s").err(), Some(libc::ENOENT));
    // One of the same name is another.
    guest.server.add_share("s").unwrap();
    guest.server.add_trees("s", vec![("t".into(), open_path(guest.host("")))]).unwrap();
    assert_eq!(guest.look_up(root, "f").err(), Some(libc::ESTALE));
    assert_ne!(guest.node(""), root);
    guest.check_descriptors();
}

#[test]
fn a_share_at_its_end_leaves_others_theirs() {
    let mut guest = Guest::with(Limits { descriptors_per_share: 12, ..Limits::default() });
    for number in 0..20 {
        fs::write(guest.host(&format!("f{number}")), b"").unwrap();
    }
    let root = guest.node("");
    let found: Vec<_> = (0..20).map(|number| guest.look_up(root, &format!("f{number}"))).collect();
    assert!(found[..11].iter().all(|found| found.is_ok()));
    assert!(found[11..].iter().all(|found| found.as_ref().err() == Some(&libc::ENFILE)));
    let known = found[0].unwrap().nodeid;
    assert_eq!(guest.open(known, 0).err(), Some(libc::ENFILE));
    assert_eq!(guest.open_directory(root), Err(libc::ENFILE));
    assert_eq!(guest.create(opcode::CREATE, root, "new", (2, 0o644, 0)).err(), Some(libc::ENFILE));
    assert!(!guest.host("new").exists());
    guest.check_descriptors();

    guest.server.add_share("other").unwrap();
    guest.server.add_trees("other", vec![("t".into(), open_path(guest.host("")))]).unwrap();
    let share = guest.look_up(ROOT_NODE, "other").unwrap().nodeid;
    let other = guest.look_up(share, "t").unwrap().nodeid;
    let node = guest.look_up(other, "f1").unwrap().nodeid;
    guest.open(node, 0).unwrap();
    guest.check_descriptors();
}

#[test]
fn handles_have_a_limit() {
    let mut guest = Guest::with(Limits { handles_per_share: 3, ..Limits::default() });
    fs::write(guest.host("f"), b"").unwrap();
    let node = guest.node("f");
    let root = guest.node("");
    for _ in 0..3 {
        guest.open(node, 0).unwrap();
    }
    assert_eq!(guest.open(node, 0).err(), Some(libc::ENFILE));
    assert_eq!(guest.open_directory(root), Err(libc::ENFILE));
    assert_eq!(guest.create(opcode::CREATE, root, "new", (2, 0o644, 0)).err(), Some(libc::ENFILE));
    assert_eq!(guest.create(opcode::TMPFILE, root, "new", (2, 0o644, 0)).err(), Some(libc::ENFILE));
    assert!(!guest.host("new").exists());
}

/// One request by a thread that is not the test's; its reply's body.
fn ask(
    server: &FileServer,
    thread: &mut ThreadState,
    memory: &mut [u8],
    (opcode, nodeid, arguments): (u32, u64, &[u8]),
) -> Result<Vec<u8>, i32> {
    let len = 40 + arguments.len();
    let header = InHeader { len: len as u32, opcode, nodeid, ..InHeader::default() };
    memory[..40].copy_from_slice(header.as_slice());
    memory[40..len].copy_from_slice(arguments);
    let length = server.handle(thread, VolatileSlice::from(&mut *memory), len, MAX_MESSAGE).unwrap();
    match i32::from_le_bytes(memory[4..8].try_into().unwrap()) {
        0 => Ok(memory[16..length].to_vec()),
        error => Err(-error),
    }
}

#[test]
fn shares_come_and_go_while_others_work() {
    let guest = Guest::new();
    for number in 0..20 {
        fs::write(guest.host(&format!("f{number}")), [number as u8; 100]).unwrap();
    }
    let stop = AtomicBool::new(false);
    let server: &FileServer = &guest.server;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut thread = ThreadState::new().unwrap();
                let mut memory = vec![0; MAX_MESSAGE];
                while !stop.load(Relaxed) {
                    let mut at = Ok(ROOT_NODE);
                    for name in [&b"s\0"[..], b"t\0"] {
                        at = at
                            .and_then(|at| ask(server, &mut thread, &mut memory, (opcode::LOOKUP, at, name)))
                            .map(|reply| parse::<EntryOut>(&reply).nodeid);
                    }
                    let Ok(root) = at else { continue };
                    for number in 0..20u8 {
                        let name = format!("f{number}\0");
                        let found =
                            ask(server, &mut thread, &mut memory, (opcode::LOOKUP, root, name.as_bytes()));
                        let Ok(found) = found else { break };
                        let node = parse::<EntryOut>(&found).nodeid;
                        let wanted = OpenIn::default();
                        let open = (opcode::OPEN, node, wanted.as_slice());
                        let Ok(open) = ask(server, &mut thread, &mut memory, open) else { continue };
                        let wanted = ReadIn { fh: parse(&open), size: 200, ..ReadIn::default() };
                        // If it can be read, then as what it is, whatever has become of the share.
                        let read = (opcode::READ, node, wanted.as_slice());
                        if let Ok(data) = ask(server, &mut thread, &mut memory, read) {
                            assert_eq!(data, [number; 100]);
                        }
                    }
                }
            });
        }
        for _ in 0..200 {
            server.remove_share("s").unwrap();
            server.add_share("s").unwrap();
            server.add_trees("s", vec![("t".into(), open_path(guest.host("")))]).unwrap();
            thread::yield_now();
        }
        stop.store(true, Relaxed);
    });
    server.remove_share("s").unwrap();
    guest.check_descriptors();
}

#[test]
fn a_request_in_progress_keeps_only_its_own() {
    let mut guest = Guest::new();
    for number in 0..10 {
        fs::write(guest.host(&format!("f{number}")), b"hello").unwrap();
        guest.node(&format!("f{number}"));
    }
    let node = guest.node("f1");
    let fh = guest.open(node, libc::O_RDONLY).unwrap().fh;
    // As a thread has it that waits for the host.
    let share = guest.server.share(node).unwrap();
    let handle = share.handles.file(fh).unwrap();
    guest.server.remove_share("s").unwrap();
    // The handle's and its node's.
    assert_eq!(guest.open_descriptors(), 2);
    assert_eq!(share.descriptors(), 2);
    // Nothing more is found meanwhile.
    let root = open_path(guest.host(""));
    assert!(share.add_tree("t".into(), root).is_err());
    drop(handle);
    assert_eq!(guest.open_descriptors(), 0);
    assert_eq!(share.descriptors(), 0);
}

#[test]
fn the_buffer_may_change_while_it_is_looked_at() {
    let mut guest = Guest::new();
    fs::write(guest.outside("secret"), b"secret").unwrap();
    fs::write(guest.host("f"), b"hello").unwrap();
    let stop = AtomicBool::new(false);
    // The memory of a slot, which its other side writes to as it likes.
    let slot =
        fs::File::options().read(true).write(true).create(true).truncate(true).open(guest.outside("slot"));
    let slot = slot.unwrap();
    slot.set_len(MAX_MESSAGE as u64).unwrap();
    let memory = vm_memory::MmapRegion::<()>::from_file(
        vm_memory::FileOffset::new(slot.try_clone().unwrap(), 0),
        MAX_MESSAGE,
    )
    .unwrap();
    let buffer = vm_memory::VolatileMemory::as_volatile_slice(&memory);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                for name in [&b"f\0\0\0\0\0\0\0\0\0"[..], b"../secret\0", b"xxxxxxxxxx"] {
                    slot.write_at(name, 40).unwrap();
                    slot.write_at(&[name.len() as u8, 0xff, 0xff], 0).unwrap();
                }
            }
        });
        let mut thread = ThreadState::new().unwrap();
        let root = guest.node("");
        for _ in 0..20_000 {
            let header = InHeader { len: 50, opcode: opcode::LOOKUP, nodeid: root, ..InHeader::default() };
            slot.write_at(header.as_slice(), 0).unwrap();
            if let Ok(length) = guest.server.handle(&mut thread, buffer, 50, 4096)
                && length == 16 + size_of::<EntryOut>()
            {
                let mut reply = [0; size_of::<EntryOut>()];
                slot.read_exact_at(&mut reply, 16).unwrap();
                // Whatever has been overwritten since: no other size was found.
                assert_ne!(parse::<EntryOut>(&reply).attr.size, 6);
            }
        }
        stop.store(true, Relaxed);
    });
}
