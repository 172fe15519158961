//! Trees in which other file systems are mounted.

use std::{fs, os::unix::fs::MetadataExt};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
};
use vm_memory::ByteValued;

use super::{
    abi::{ATTR_SUBMOUNT, ForgetIn, ROOT_NODE, SetAttrIn, WriteIn, opcode, set},
    fixture::{Guest, open_path},
};

/// A guest of a thread that can mount what others do not see.
fn guest() -> Guest {
    let guest = Guest::new();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    guest
}

fn mount_tmpfs(guest: &Guest, name: &str) {
    fs::create_dir(guest.host(name)).unwrap();
    mount(Some("none"), &guest.host(name), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

/// Shows the tree once more, as this mount namespace has it.
fn show(guest: &mut Guest) -> u64 {
    guest.server.add_trees("s", vec![("here".into(), open_path(guest.host("")))]).unwrap();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    guest.look_up(share, "here").unwrap().nodeid
}

#[test]
fn a_mount_is_announced_and_crossed() {
    let mut guest = guest();
    for name in ["a", "b"] {
        mount_tmpfs(&guest, name);
        fs::create_dir(guest.host(name).join("d")).unwrap();
        fs::write(guest.host(name).join("f"), name).unwrap();
    }
    fs::create_dir(guest.host("plain")).unwrap();
    let root = show(&mut guest);
    assert_eq!(guest.look_up(root, "plain").unwrap().attr.flags, 0);
    let mut files = Vec::new();
    for name in ["a", "b"] {
        // However often it is looked up.
        for _ in 0..2 {
            assert_eq!(guest.look_up(root, name).unwrap().attr.flags, ATTR_SUBMOUNT);
        }
        let border = guest.look_up(root, name).unwrap().nodeid;
        assert_eq!(guest.look_up(border, "d").unwrap().attr.flags, 0);
        let file = guest.look_up(border, "f").unwrap();
        let fh = guest.open(file.nodeid, 0).unwrap().fh;
        assert_eq!(guest.read(file.nodeid, fh, 0, 9).unwrap(), name.as_bytes());
        files.push(file);
    }
    // The same number in two file systems is two files.
    assert_ne!(files[0].attr.ino, files[1].attr.ino);
    assert_ne!(files[0].nodeid, files[1].nodeid);
    assert_eq!(guest.ask(opcode::RMDIR, root, &[b"a\0"]), Err(libc::EBUSY));
    guest.check_descriptors();
}

#[test]
fn a_file_through_a_read_only_mount_is_another_node() {
    let mut guest = guest();
    mount_tmpfs(&guest, "rw");
    fs::write(guest.host("rw/f"), b"hello").unwrap();
    fs::create_dir(guest.host("ro")).unwrap();
    let none = None::<&str>;
    mount(Some(&guest.host("rw")), &guest.host("ro"), none, MsFlags::MS_BIND, none).unwrap();
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, &guest.host("ro"), none, flags, none).unwrap();
    let root = show(&mut guest);
    let [writable, read_only] = ["rw", "ro"].map(|name| {
        let border = guest.look_up(root, name).unwrap();
        (border.nodeid, guest.look_up(border.nodeid, "f").unwrap())
    });
    assert_eq!(writable.1.attr.ino, read_only.1.attr.ino);
    assert_ne!(writable.1.nodeid, read_only.1.nodeid);
    let node = read_only.1.nodeid;
    assert_eq!(guest.open(node, libc::O_RDWR).err(), Some(libc::EROFS));
    assert_eq!(guest.open(node, libc::O_RDONLY | libc::O_TRUNC).err(), Some(libc::EROFS));
    for valid in [set::MODE, set::UID, set::SIZE, set::MTIME] {
        let wanted = SetAttrIn { valid, ..SetAttrIn::default() };
        assert_eq!(guest.ask(opcode::SETATTR, node, &[wanted.as_slice()]), Err(libc::EROFS));
    }
    assert_eq!(guest.ask(opcode::REMOVEXATTR, node, &[b"user.a\0"]), Err(libc::EROFS));
    assert_eq!(guest.ask(opcode::UNLINK, read_only.0, &[b"f\0"]), Err(libc::EROFS));
    assert_eq!(guest.create(opcode::CREATE, read_only.0, "g", (2, 0o644, 0)).err(), Some(libc::EROFS));
    let fh = guest.open(writable.1.nodeid, libc::O_RDWR).unwrap().fh;
    guest.write(writable.1.nodeid, WriteIn { fh, ..WriteIn::default() }, b"y").unwrap();
    assert_eq!(fs::read(guest.host("ro/f")).unwrap(), b"yello");
    guest.check_descriptors();
}

#[test]
fn a_share_has_any_number_of_mounts() {
    let mut guest = guest();
    for number in 0..300 {
        mount_tmpfs(&guest, &number.to_string());
        fs::write(guest.host(&number.to_string()).join("f"), number.to_string()).unwrap();
    }
    let root = show(&mut guest);
    for number in 0..300 {
        let border = guest.look_up(root, &number.to_string()).unwrap().nodeid;
        let file = guest.look_up(border, "f").unwrap().nodeid;
        let fh = guest.open(file, 0).unwrap().fh;
        assert_eq!(guest.read(file, fh, 0, 9).unwrap(), number.to_string().as_bytes());
    }
    guest.check_descriptors();
}

#[test]
fn a_single_file_may_be_mounted() {
    let mut guest = guest();
    fs::write(guest.host("below"), b"below").unwrap();
    fs::write(guest.outside("above"), b"above").unwrap();
    let none = None::<&str>;
    mount(Some(&guest.outside("above")), &guest.host("below"), none, MsFlags::MS_BIND, none).unwrap();
    let root = show(&mut guest);
    let file = guest.look_up(root, "below").unwrap();
    assert_eq!((file.attr.ino, file.attr.flags), (fs::metadata(guest.outside("above")).unwrap().ino(), 0));
    let fh = guest.open(file.nodeid, 0).unwrap().fh;
    assert_eq!(guest.read(file.nodeid, fh, 0, 9).unwrap(), b"above");
}

#[test]
fn what_comes_and_goes_below_a_mounted_tree_is_neither_announced_nor_remembered() {
    let mut guest = guest();
    mount_tmpfs(&guest, "t");
    fs::create_dir(guest.host("t/d")).unwrap();
    fs::create_dir(guest.host("t/plain")).unwrap();
    guest.server.add_trees("s", vec![("here".into(), open_path(guest.host("t")))]).unwrap();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    let root = guest.look_up(share, "here").unwrap();
    assert_eq!((root.attr.flags, root.entry_valid), (0, 1));
    let before = guest.look_up(root.nodeid, "d").unwrap();
    assert_eq!(guest.look_up(root.nodeid, "plain").unwrap().entry_valid, 1);

    mount(Some("none"), &guest.host("t/d"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir(guest.host("t/d/e")).unwrap();
    let border = guest.look_up(root.nodeid, "d").unwrap();
    assert_ne!(border.nodeid, before.nodeid);
    let below = guest.look_up(border.nodeid, "e").unwrap();
    for entry in [&border, &below] {
        assert_eq!((entry.attr.flags, entry.entry_valid), (0, 0));
    }
    assert_eq!(umount(&guest.host("t/d")), Err(Errno::EBUSY), "the guest uses it");
    for (node, nlookup) in [(below.nodeid, 1), (border.nodeid, 1)] {
        assert_eq!(guest.send(opcode::FORGET, node, &[ForgetIn { nlookup }.as_slice()]), Ok(0));
    }
    umount(&guest.host("t/d")).unwrap();
    assert_eq!(guest.look_up(root.nodeid, "d").unwrap().nodeid, before.nodeid);
    guest.check_descriptors();
}
