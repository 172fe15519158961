use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use vm_memory::ByteValued;

use crate::files::{
    abi::{
        CreateIn, GetAttrIn, LinkIn, OPEN_DIRECT_IO, OPEN_KILL_SUIDGID, OPEN_NOFLUSH, OpenIn, ReadIn,
        ReleaseIn, WriteIn, opcode,
    },
    fixture::{Guest, open_path},
};

const RELEASE: ReleaseIn = ReleaseIn { fh: 0, flags: 0, release_flags: 0, lock_owner: 0 };

#[test]
fn a_file_is_read_and_written() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    let open = guest.open(node, libc::O_RDWR).unwrap();
    assert_eq!(open.open_flags & !OPEN_NOFLUSH, 0);
    assert_eq!(guest.read(node, open.fh, 1, 100).unwrap(), b"ello");
    let at_5 = WriteIn { fh: open.fh, offset: 5, ..WriteIn::default() };
    assert_eq!(guest.write(node, at_5, b" world"), Ok(6));
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"hello world");
    guest.check_descriptors();
    guest.ask(opcode::RELEASE, node, &[ReleaseIn { fh: open.fh, ..RELEASE }.as_slice()]).unwrap();
    assert_eq!(guest.read(node, open.fh, 0, 1), Err(libc::EBADF));
    guest.check_descriptors();
}

#[test]
fn only_regular_files_are_opened() {
    let mut guest = Guest::new();
    mkfifo(&guest.host("fifo"), Mode::S_IRWXU).unwrap();
    symlink("/etc/passwd", guest.host("link")).unwrap();
    std::os::unix::net::UnixListener::bind(guest.host("socket")).unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    for (name, errno) in
        [("fifo", libc::ENXIO), ("link", libc::ENXIO), ("socket", libc::ENXIO), ("d", libc::EISDIR)]
    {
        let node = guest.node(name);
        for flags in [libc::O_RDONLY, libc::O_WRONLY | libc::O_NONBLOCK, libc::O_RDWR | libc::O_TRUNC] {
            assert_eq!(guest.open(node, flags).err(), Some(errno), "{name}");
        }
        if name != "d" {
            assert_eq!(guest.open_directory(node), Err(libc::ENOTDIR));
        }
    }
    guest.check_descriptors();
}

#[test]
fn flags_that_open_something_else_do_nothing() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    // With the first of these, a READ once closed the handle's descriptor and left its number in the handle.
    for flags in [
        libc::O_PATH,
        libc::O_TMPFILE,
        libc::O_CREAT | libc::O_EXCL,
        libc::O_DIRECT,
        libc::O_NOFOLLOW,
        libc::O_DIRECTORY,
        libc::O_APPEND,
        libc::O_NONBLOCK | libc::O_ASYNC,
    ] {
        let open = guest.open(node, flags).unwrap();
        for flags in [0, libc::O_PATH, libc::O_DIRECT, -1] {
            let wanted = ReadIn { fh: open.fh, size: 9, flags: flags as u32, ..ReadIn::default() };
            assert_eq!(guest.ask(opcode::READ, node, &[wanted.as_slice()]).unwrap(), b"hello");
            guest.check_descriptors();
        }
    }
    assert_eq!(guest.open(node, libc::O_ACCMODE).err(), Some(libc::EINVAL));
}

#[test]
fn a_handle_is_closed_once() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    fs::write(guest.outside("secret"), b"not in any tree").unwrap();
    let node = guest.node("f");
    let open = guest.open(node, libc::O_PATH).unwrap();
    let release = ReleaseIn { fh: open.fh, ..RELEASE };
    assert!(guest.read(node, open.fh, 0, 64).is_ok());
    guest.ask(opcode::RELEASE, node, &[release.as_slice()]).unwrap();
    // The number of the descriptor is the server's again.
    let secret = fs::File::open(guest.outside("secret")).unwrap();
    assert_eq!(guest.read(node, open.fh, 0, 64), Err(libc::EBADF));
    assert_eq!(guest.ask(opcode::RELEASE, node, &[release.as_slice()]), Err(libc::EBADF));
    drop(secret);
    guest.check_descriptors();
}

#[test]
fn opening_truncates() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    guest.open(node, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(fs::metadata(guest.host("f")).unwrap().len(), 0);
}

#[test]
fn truncating_takes_setuid_away_where_the_guest_says_so() {
    let mut guest = Guest::new();
    for (open_flags, mode) in [(OPEN_KILL_SUIDGID, 0o755), (0, 0o6755)] {
        fs::write(guest.host("f"), b"hello").unwrap();
        fs::set_permissions(guest.host("f"), fs::Permissions::from_mode(0o6755)).unwrap();
        let node = guest.node("f");
        let wanted = OpenIn { flags: (libc::O_WRONLY | libc::O_TRUNC) as u32, open_flags };
        guest.ask(opcode::OPEN, node, &[wanted.as_slice()]).unwrap();
        assert_eq!(fs::metadata(guest.host("f")).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn a_new_file_is_its_callers() {
    let mut guest = Guest::new();
    let root = guest.node("");
    guest.caller = (1000, 2000);
    let (entry, open) =
        guest.create(opcode::CREATE, root, "f", (libc::O_RDWR | libc::O_CREAT, 0o100666, 0o027)).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid, entry.attr.mode), (1000, 2000, 0o100640));
    guest.write(entry.nodeid, WriteIn { fh: open.fh, ..WriteIn::default() }, b"x").unwrap();
    assert_eq!(guest.look_up(root, "f").unwrap().nodeid, entry.nodeid);
    guest.caller = (0, 0);
    let (entry, _) = guest.create(opcode::CREATE, root, "g", (libc::O_RDWR, 0o100666, 0)).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid, entry.attr.mode), (0, 0, 0o100666));
    guest.check_descriptors();
}

#[test]
fn nobody_has_no_files() {
    let mut guest = Guest::new();
    let root = guest.node("");
    guest.caller = (u32::MAX, 0);
    assert_eq!(guest.create(opcode::CREATE, root, "f", (2, 0o644, 0)).err(), Some(libc::EINVAL));
    guest.caller = (0, u32::MAX);
    assert_eq!(guest.create(opcode::CREATE, root, "f", (2, 0o644, 0)).err(), Some(libc::EINVAL));
    assert!(!guest.host("f").exists());
}

#[test]
fn what_somebody_else_has_made_meanwhile_is_opened() {
    let mut guest = Guest::new();
    let root = guest.node("");
    fs::write(guest.host("f"), b"hello").unwrap();
    let (entry, open) = guest.create(opcode::CREATE, root, "f", (libc::O_RDWR, 0o644, 0)).unwrap();
    assert_eq!(guest.read(entry.nodeid, open.fh, 0, 9).unwrap(), b"hello");
    let exclusive = (libc::O_RDWR | libc::O_EXCL, 0o644, 0);
    assert_eq!(guest.create(opcode::CREATE, root, "f", exclusive).err(), Some(libc::EEXIST));
    guest.check_descriptors();
}

#[test]
fn creating_follows_no_link() {
    let mut guest = Guest::new();
    let root = guest.node("");
    fs::write(guest.outside("secret"), b"not in any tree").unwrap();
    symlink(guest.outside("secret"), guest.host("link")).unwrap();
    symlink(guest.outside("new"), guest.host("dangling")).unwrap();
    mkfifo(&guest.host("fifo"), Mode::S_IRWXU).unwrap();
    for name in ["link", "dangling", "fifo"] {
        for flags in [libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC, libc::O_PATH, libc::O_RDWR | libc::O_PATH] {
            assert_eq!(guest.create(opcode::CREATE, root, name, (flags, 0o644, 0)).err(), Some(libc::EEXIST));
        }
    }
    assert_eq!(fs::read(guest.outside("secret")).unwrap(), b"not in any tree");
    assert!(!guest.outside("new").exists());
    assert!(fs::symlink_metadata(guest.host("fifo")).unwrap().file_type().is_fifo());
    guest.check_descriptors();
}

#[test]
fn a_file_without_a_name_gets_one() {
    let mut guest = Guest::new();
    let root = guest.node("");
    let flags = libc::O_RDWR | libc::O_TMPFILE;
    let (entry, open) = guest.create(opcode::TMPFILE, root, "#1", (flags, 0o100600, 0)).unwrap();
    assert_eq!(entry.attr.nlink, 0);
    guest.write(entry.nodeid, WriteIn { fh: open.fh, ..WriteIn::default() }, b"hello").unwrap();
    assert_eq!(fs::read_dir(guest.host("")).unwrap().count(), 0);
    let link = LinkIn { oldnodeid: entry.nodeid };
    guest.ask(opcode::LINK, root, &[link.as_slice(), b"f\0"]).unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"hello");
    // With O_EXCL it never gets one.
    let flags = flags | libc::O_EXCL;
    let (entry, _) = guest.create(opcode::TMPFILE, root, "#2", (flags, 0o100600, 0)).unwrap();
    let link = LinkIn { oldnodeid: entry.nodeid };
    assert_eq!(guest.ask(opcode::LINK, root, &[link.as_slice(), b"g\0"]), Err(libc::ENOENT));
    guest.check_descriptors();
}

#[test]
fn files_whose_size_tells_nothing_bypass_the_page_cache() {
    let mut guest = Guest::new();
    guest.server.add_trees("s", vec![("loadavg".into(), open_path("/proc/loadavg"))]).unwrap();
    guest.server.add_trees("s", vec![("comm".into(), open_path("/proc/self/comm"))]).unwrap();
    let share = guest.look_up(1, "s").unwrap().nodeid;
    let node = guest.look_up(share, "loadavg").unwrap().nodeid;
    let open = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(open.open_flags, OPEN_DIRECT_IO | OPEN_NOFLUSH);
    assert!(guest.read(node, open.fh, 0, 4096).unwrap().len() > 10);
    let node = guest.look_up(share, "comm").unwrap().nodeid;
    assert_eq!(guest.open(node, libc::O_RDWR).unwrap().open_flags, OPEN_DIRECT_IO);
    // An empty file may be another server's, and get contents.
    fs::write(guest.host("empty"), b"").unwrap();
    let node = guest.node("empty");
    assert_eq!(guest.open(node, libc::O_RDONLY).unwrap().open_flags, OPEN_DIRECT_IO | OPEN_NOFLUSH);
    // Whether a close is silent is the file system's.
    assert_eq!(guest.open(node, libc::O_RDWR).unwrap().open_flags & !OPEN_NOFLUSH, 0);
    fs::write(guest.host("full"), b"x").unwrap();
    let node = guest.node("full");
    assert_eq!(guest.open(node, libc::O_RDONLY).unwrap().open_flags, OPEN_NOFLUSH);
}

#[test]
fn a_removed_file_stays_as_long_as_it_is_known() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    fs::remove_file(guest.host("f")).unwrap();
    let open = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(node, open.fh, 0, 9).unwrap(), b"hello");
    assert!(guest.ask(opcode::GETATTR, node, &[GetAttrIn::default().as_slice()]).is_ok());
}

#[test]
fn a_handle_is_of_one_kind() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let (root, node) = (guest.node(""), guest.node("f"));
    let directory = guest.open_directory(root).unwrap();
    let file = guest.open(node, libc::O_RDWR).unwrap().fh;
    assert_eq!(guest.read(root, directory, 0, 9), Err(libc::EBADF));
    let list = ReadIn { fh: file, size: 4096, ..ReadIn::default() };
    assert_eq!(guest.ask(opcode::READDIR, root, &[list.as_slice()]), Err(libc::EBADF));
    // Another share has other handles.
    guest.server.add_share("other").unwrap();
    let other = guest.look_up(1, "other").unwrap().nodeid;
    assert_eq!(guest.read(other, file, 0, 9), Err(libc::EBADF));
}

#[test]
fn a_name_in_create_has_an_end() {
    let mut guest = Guest::new();
    let root = guest.node("");
    let wanted = CreateIn { flags: 2, mode: 0o644, ..CreateIn::default() };
    assert!(guest.send(opcode::CREATE, root, &[wanted.as_slice(), b"f"]).is_err());
    assert!(!guest.host("f").exists());
}
