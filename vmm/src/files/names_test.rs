use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
};

use vm_memory::ByteValued;

use crate::files::{
    abi::{
        BatchForgetIn, ForgetIn, ForgetOne, GetAttrIn, LinkIn, MkdirIn, MknodIn, ROOT_NODE, Rename2In,
        RenameIn, opcode,
    },
    fixture::{Guest, Reply, open_path, parse},
    share_of,
};

fn mknod(guest: &mut Guest, parent: u64, name: &str, mode: u32, rdev: u32) -> Reply {
    let wanted = MknodIn { mode, rdev, umask: 0o022, padding: 0 };
    guest.ask(opcode::MKNOD, parent, &[wanted.as_slice(), name.as_bytes(), b"\0"])
}

fn mkdir(guest: &mut Guest, parent: u64, name: &str, mode: u32, umask: u32) -> Reply {
    guest.ask(opcode::MKDIR, parent, &[MkdirIn { mode, umask }.as_slice(), name.as_bytes(), b"\0"])
}

fn rename(guest: &mut Guest, from: (u64, &str), to: (u64, &str), flags: u32) -> Reply {
    let wanted = Rename2In { newdir: to.0, flags, padding: 0 };
    let names = [from.1.as_bytes(), b"\0", to.1.as_bytes(), b"\0"].concat();
    guest.ask(opcode::RENAME2, from.0, &[wanted.as_slice(), &names])
}

fn forget(guest: &mut Guest, node: u64, nlookup: u64) {
    assert_eq!(guest.send(opcode::FORGET, node, &[ForgetIn { nlookup }.as_slice()]), Ok(0));
}

fn nodes(guest: &Guest) -> usize {
    guest.server.uses().iter().map(|(_, of)| of.nodes).sum()
}

#[test]
fn names_are_one_component() {
    let mut guest = Guest::new();
    fs::write(guest.outside("secret"), b"x").unwrap();
    let root = guest.node("");
    for name in ["", ".", "..", "a/b", "/", "../secret", "/etc/passwd", "t/"] {
        for node in [ROOT_NODE, root] {
            assert_eq!(guest.look_up(node, name).err(), Some(libc::EINVAL), "{name}");
            assert_eq!(mkdir(&mut guest, node, name, 0o755, 0), Err(libc::EINVAL));
            assert_eq!(rename(&mut guest, (node, name), (node, "x"), 0), Err(libc::EINVAL));
            assert_eq!(rename(&mut guest, (node, "x"), (node, name), 0), Err(libc::EINVAL));
        }
    }
    assert_eq!(guest.look_up(root, &"x".repeat(256)).err(), Some(libc::ENAMETOOLONG));
    assert_eq!(guest.look_up(root, "secret").err(), Some(libc::ENOENT));
    guest.check_descriptors();
}

#[test]
fn the_root_shows_shares_and_a_share_its_trees() {
    let mut guest = Guest::new();
    let share = guest.look_up(ROOT_NODE, "s").unwrap();
    assert_eq!(share_of(share.nodeid), 1);
    assert_eq!((share.attr.mode, share.attr.ino), (0o40555, share.nodeid));
    let root = guest.look_up(share.nodeid, "t").unwrap();
    assert_eq!(share_of(root.nodeid), 1);
    assert_eq!(root.attr.ino, fs::metadata(guest.host("")).unwrap().ino());
    assert_eq!(root.attr.flags, 0);
    assert_eq!(guest.look_up(ROOT_NODE, "x").err(), Some(libc::ENOENT));
    assert_eq!(guest.look_up(share.nodeid, "x").err(), Some(libc::ENOENT));
}

#[test]
fn nothing_changes_in_virtual_directories() {
    let mut guest = Guest::new();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    let root = guest.node("");
    fs::write(guest.host("f"), b"x").unwrap();
    for node in [ROOT_NODE, share] {
        assert_eq!(mknod(&mut guest, node, "x", 0o100644, 0), Err(libc::EROFS));
        assert_eq!(mkdir(&mut guest, node, "x", 0o755, 0), Err(libc::EROFS));
        assert_eq!(guest.ask(opcode::SYMLINK, node, &[b"x\0y\0"]), Err(libc::EROFS));
        assert_eq!(guest.create(opcode::CREATE, node, "x", (2, 0o644, 0)).err(), Some(libc::EROFS));
        assert_eq!(guest.create(opcode::TMPFILE, node, "x", (2, 0o644, 0)).err(), Some(libc::EROFS));
        assert_eq!(guest.ask(opcode::UNLINK, node, &[b"t\0"]), Err(libc::EROFS));
        assert_eq!(guest.ask(opcode::RMDIR, node, &[b"s\0"]), Err(libc::EROFS));
        assert_eq!(rename(&mut guest, (node, "t"), (node, "x"), 0), Err(libc::EROFS));
        assert_eq!(rename(&mut guest, (root, "f"), (node, "x"), 0), Err(libc::EROFS));
        assert_eq!(rename(&mut guest, (node, "t"), (root, "x"), 0), Err(libc::EROFS));
        let link = LinkIn { oldnodeid: root };
        assert_eq!(guest.ask(opcode::LINK, node, &[link.as_slice(), b"x\0"]), Err(libc::EROFS));
        let link = LinkIn { oldnodeid: node };
        assert_eq!(guest.ask(opcode::LINK, root, &[link.as_slice(), b"x\0"]), Err(libc::EROFS));
        assert_eq!(guest.ask(opcode::READLINK, node, &[]), Err(libc::EINVAL));
        assert_eq!(guest.open(node, 0).err(), Some(libc::EISDIR));
    }
    guest.check_descriptors();
}

#[test]
fn links_are_not_followed() {
    let mut guest = Guest::new();
    fs::write(guest.outside("secret"), b"x").unwrap();
    symlink("../secret", guest.host("link")).unwrap();
    symlink("..", guest.host("up")).unwrap();
    let root = guest.node("");
    let link = guest.look_up(root, "link").unwrap();
    assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    assert_eq!(guest.ask(opcode::READLINK, link.nodeid, &[]).unwrap(), b"../secret");
    let up = guest.look_up(root, "up").unwrap().nodeid;
    assert_eq!(guest.look_up(up, "secret").err(), Some(libc::ENOTDIR));
    assert_eq!(mkdir(&mut guest, up, "x", 0o755, 0), Err(libc::ENOTDIR));
    assert_eq!(guest.ask(opcode::READLINK, root, &[]), Err(libc::EINVAL));
    guest.room = 16 + 8;
    assert_eq!(guest.ask(opcode::READLINK, link.nodeid, &[]), Err(libc::ENAMETOOLONG));
}

#[test]
fn a_node_is_known_until_it_is_forgotten() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"x").unwrap();
    let root = guest.node("");
    let before = nodes(&guest);
    let node = guest.look_up(root, "f").unwrap().nodeid;
    assert_eq!(guest.look_up(root, "f").unwrap().nodeid, node);
    forget(&mut guest, node, 1);
    assert_eq!(nodes(&guest), before + 1);
    forget(&mut guest, node, 1);
    assert_eq!(nodes(&guest), before);
    assert_eq!(guest.ask(opcode::GETATTR, node, &[GetAttrIn::default().as_slice()]), Err(libc::ESTALE));
    // Numbers are not used again.
    assert_ne!(guest.look_up(root, "f").unwrap().nodeid, node);
    guest.check_descriptors();
}

#[test]
fn forgetting_too_much_is_harmless() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"x").unwrap();
    let root = guest.node("");
    let node = guest.look_up(root, "f").unwrap().nodeid;
    forget(&mut guest, node, u64::MAX);
    forget(&mut guest, node, 1);
    // Trees and what is virtual stay.
    for node in [root, ROOT_NODE, 0, u64::MAX, 1 << 40 | 1] {
        forget(&mut guest, node, u64::MAX);
    }
    let node = guest.look_up(root, "f").unwrap().nodeid;
    let entries = [ForgetOne { nodeid: node, nlookup: u64::MAX }, ForgetOne { nodeid: 77, nlookup: 0 }];
    let entries: Vec<u8> = entries.iter().flat_map(|entry| entry.as_slice()).copied().collect();
    let count = |count| BatchForgetIn { count, dummy: 0 };
    assert_eq!(guest.send(opcode::BATCH_FORGET, 0, &[count(2).as_slice(), &entries]), Ok(0));
    assert_eq!(nodes(&guest), 1);
    assert!(guest.send(opcode::BATCH_FORGET, 0, &[count(u32::MAX).as_slice(), &entries]).is_err());
    guest.check_descriptors();
}

#[test]
fn two_names_of_a_file_are_one_node() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"x").unwrap();
    let root = guest.node("");
    let node = guest.look_up(root, "f").unwrap().nodeid;
    let link = LinkIn { oldnodeid: node };
    let entry = guest.ask(opcode::LINK, root, &[link.as_slice(), b"g\0"]).unwrap();
    let entry: crate::files::abi::EntryOut = parse(&entry);
    assert_eq!((entry.nodeid, entry.attr.nlink), (node, 2));
    guest.check_descriptors();
}

#[test]
fn a_link_gets_a_second_name_itself() {
    let mut guest = Guest::new();
    fs::write(guest.outside("secret"), b"x").unwrap();
    symlink("../secret", guest.host("link")).unwrap();
    let root = guest.node("");
    let link = LinkIn { oldnodeid: guest.look_up(root, "link").unwrap().nodeid };
    guest.ask(opcode::LINK, root, &[link.as_slice(), b"second\0"]).unwrap();
    assert_eq!(fs::read_link(guest.host("second")).unwrap().as_os_str().as_bytes(), b"../secret");
    assert_eq!(fs::metadata(guest.outside("secret")).unwrap().nlink(), 1);
}

#[test]
fn everything_that_a_directory_can_hold_is_made() {
    let mut guest = Guest::new();
    let root = guest.node("");
    guest.caller = (5, 6);
    let check = |guest: &Guest, name: &str, mode: u32| {
        let stat = fs::symlink_metadata(guest.host(name)).unwrap();
        assert_eq!((stat.mode(), stat.uid(), stat.gid()), (mode, 5, 6), "{name}");
        stat
    };
    mknod(&mut guest, root, "file", 0o100666, 0).unwrap();
    check(&guest, "file", 0o100644);
    mknod(&mut guest, root, "fifo", 0o010666, 0).unwrap();
    assert!(check(&guest, "fifo", 0o010644).file_type().is_fifo());
    mknod(&mut guest, root, "socket", 0o140777, 0).unwrap();
    check(&guest, "socket", 0o140755);
    // Major 259, minor 0x12345.
    let device = 0x45 | 259 << 8 | 0x1_2300 << 12;
    let entry = mknod(&mut guest, root, "device", 0o060600, device).unwrap();
    assert_eq!(parse::<crate::files::abi::EntryOut>(&entry).attr.rdev, device);
    assert_eq!(check(&guest, "device", 0o060600).rdev(), libc::makedev(259, 0x1_2345));
    // A whiteout, as overlay makes it.
    mknod(&mut guest, root, "whiteout", 0o020000, 0).unwrap();
    mkdir(&mut guest, root, "directory", 0o1777, 0o027).unwrap();
    check(&guest, "directory", 0o041750);
    guest.ask(opcode::SYMLINK, root, &[b"link\0some where\0"]).unwrap();
    check(&guest, "link", 0o120777);
    assert_eq!(fs::read_link(guest.host("link")).unwrap().as_os_str().as_bytes(), b"some where");
    assert_eq!(mknod(&mut guest, root, "file", 0o100666, 0), Err(libc::EEXIST));
    assert_eq!(mknod(&mut guest, root, "x", 0o040755, 0), Err(libc::EPERM));
    guest.check_descriptors();
}

#[test]
fn a_setgid_directory_gives_its_group() {
    let mut guest = Guest::new();
    let root = guest.node("");
    guest.caller = (5, 6);
    let entry = mkdir(&mut guest, root, "d", 0o2775, 0).unwrap();
    let directory = parse::<crate::files::abi::EntryOut>(&entry).nodeid;
    // mkdir(2) does not set it.
    fs::set_permissions(guest.host("d"), fs::Permissions::from_mode(0o2775)).unwrap();
    guest.caller = (7, 8);
    mknod(&mut guest, directory, "f", 0o100644, 0).unwrap();
    mkdir(&mut guest, directory, "e", 0o755, 0).unwrap();
    let stat = |name| fs::metadata(guest.host(name)).unwrap();
    assert_eq!((stat("d/f").uid(), stat("d/f").gid()), (7, 6));
    assert_eq!((stat("d/e").gid(), stat("d/e").mode() & 0o7777), (6, 0o2755));
}

#[test]
fn names_are_moved_and_removed() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).unwrap();
    fs::write(guest.host("f"), b"f").unwrap();
    fs::write(guest.host("g"), b"g").unwrap();
    let (root, directory) = (guest.node(""), guest.node("d"));
    assert_eq!(rename(&mut guest, (root, "f"), (root, "g"), libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    rename(&mut guest, (root, "f"), (root, "g"), libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"g");
    let to = RenameIn { newdir: directory };
    guest.ask(opcode::RENAME, root, &[to.as_slice(), b"f\0h\0"]).unwrap();
    assert_eq!(fs::read(guest.host("d/h")).unwrap(), b"g");
    guest.caller = (9, 9);
    rename(&mut guest, (root, "g"), (directory, "g"), libc::RENAME_WHITEOUT).unwrap();
    let whiteout = fs::metadata(guest.host("g")).unwrap();
    assert_eq!((whiteout.file_type().is_char_device(), whiteout.rdev(), whiteout.uid()), (true, 0, 9));
    assert_eq!(rename(&mut guest, (root, "d"), (root, "x"), 8), Err(libc::EINVAL));
    assert_eq!(guest.ask(opcode::RMDIR, root, &[b"d\0"]), Err(libc::ENOTEMPTY));
    assert_eq!(guest.ask(opcode::UNLINK, root, &[b"d\0"]), Err(libc::EISDIR));
    for name in [b"g\0", b"h\0"] {
        guest.ask(opcode::UNLINK, directory, &[name]).unwrap();
    }
    guest.ask(opcode::RMDIR, root, &[b"d\0"]).unwrap();
    assert_eq!(fs::read_dir(guest.host("")).unwrap().count(), 1);
    guest.check_descriptors();
}

#[test]
fn nothing_moves_between_shares() {
    let mut guest = Guest::new();
    fs::create_dir(guest.outside("other")).unwrap();
    fs::write(guest.host("f"), b"x").unwrap();
    guest.server.add_share("other").unwrap();
    guest.server.add_trees("other", vec![("t".into(), open_path(guest.outside("other")))]).unwrap();
    let (root, node) = (guest.node(""), guest.node("f"));
    let share = guest.look_up(ROOT_NODE, "other").unwrap().nodeid;
    let other = guest.look_up(share, "t").unwrap().nodeid;
    assert_eq!(rename(&mut guest, (root, "f"), (other, "f"), 0), Err(libc::EXDEV));
    let link = LinkIn { oldnodeid: node };
    assert_eq!(guest.ask(opcode::LINK, other, &[link.as_slice(), b"f\0"]), Err(libc::EXDEV));
}

#[test]
fn single_files_are_trees_too() {
    let mut guest = Guest::new();
    fs::write(guest.outside("hosts"), b"localhost").unwrap();
    guest.server.add_trees("s", vec![("hosts".into(), open_path(guest.outside("hosts")))]).unwrap();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    let entry = guest.look_up(share, "hosts").unwrap();
    assert_eq!((entry.attr.mode & libc::S_IFMT, entry.attr.flags), (libc::S_IFREG, 0));
    let open = guest.open(entry.nodeid, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(entry.nodeid, open.fh, 0, 99).unwrap(), b"localhost");
    assert_eq!(guest.look_up(entry.nodeid, "x").err(), Some(libc::ENOTDIR));
}
