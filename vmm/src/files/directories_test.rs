use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt};

use vm_memory::ByteValued;

use crate::files::{
    Limits,
    abi::{Dirent, EntryOut, ForgetIn, ROOT_NODE, ReadIn, ReleaseIn, opcode},
    fixture::{Guest, open_path, parse},
};

struct Listed {
    name: String,
    dirent: Dirent,
    entry: Option<EntryOut>,
}

fn parse_listing(operation: u32, reply: &[u8]) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut rest = reply;
    while !rest.is_empty() {
        let mut at = 0;
        let entry = (operation == opcode::READDIRPLUS).then(|| {
            at = size_of::<EntryOut>();
            parse::<EntryOut>(rest)
        });
        let dirent: Dirent = parse(&rest[at..]);
        at += size_of::<Dirent>();
        let name = &rest[at..at + dirent.namelen as usize];
        listed.push(Listed { name: String::from_utf8(name.to_vec()).unwrap(), dirent, entry });
        rest = &rest[(at + name.len()).next_multiple_of(8)..];
    }
    listed
}

fn list_from(
    guest: &mut Guest,
    operation: u32,
    node: u64,
    (fh, offset, size): (u64, u64, u32),
) -> Result<Vec<Listed>, i32> {
    let wanted = ReadIn { fh, offset, size, ..ReadIn::default() };
    Ok(parse_listing(operation, &guest.ask(operation, node, &[wanted.as_slice()])?))
}

/// All of a directory, in replies of this size.
fn list(guest: &mut Guest, operation: u32, node: u64, size: u32) -> Vec<Listed> {
    let fh = guest.open_directory(node).unwrap();
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let offset = all.last().map_or(0, |listed| listed.dirent.off);
        let more = list_from(guest, operation, node, (fh, offset, size)).unwrap();
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    guest.ask(opcode::RELEASEDIR, node, &[ReleaseIn { fh, ..ReleaseIn::default() }.as_slice()]).unwrap();
    all
}

fn names(listed: &[Listed]) -> Vec<&str> {
    let mut names: Vec<_> = listed.iter().map(|listed| listed.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_name_is_listed_once_however_small_the_replies() {
    let mut guest = Guest::new();
    let mut expected = vec![".".to_owned(), "..".to_owned()];
    for length in 1..=255 {
        let name = "x".repeat(length);
        fs::write(guest.host(&name), b"").unwrap();
        expected.push(name);
    }
    let root = guest.node("");
    for operation in [opcode::READDIR, opcode::READDIRPLUS] {
        for size in [432, 1000, 4096, 65536, 1 << 20] {
            let listed = list(&mut guest, operation, root, size);
            assert_eq!(names(&listed), expected);
        }
    }
    guest.check_descriptors();
}

#[test]
fn entries_have_what_a_look_up_finds() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    let root = guest.node("");
    let nodes = guest.server.uses()[0].1.nodes;
    for listed in list(&mut guest, opcode::READDIRPLUS, root, 4096) {
        let entry = listed.entry.unwrap();
        match listed.name.as_str() {
            // Nothing is above a tree's root.
            "." | ".." => {
                assert_eq!((entry.nodeid, entry.attr.mode), (0, 0));
                assert_eq!(listed.dirent.ino, fs::metadata(guest.host("")).unwrap().ino());
            }
            name => {
                assert_eq!(entry.attr.ino, fs::metadata(guest.host(name)).unwrap().ino());
                assert_eq!(listed.dirent.ino, entry.attr.ino);
                assert_eq!(listed.dirent.kind, entry.attr.mode >> 12);
                let found = guest.look_up(root, name).unwrap();
                assert_eq!(found.nodeid, entry.nodeid);
                let forget = ForgetIn { nlookup: 2 };
                guest.send(opcode::FORGET, entry.nodeid, &[forget.as_slice()]).unwrap();
            }
        }
    }
    assert_eq!(guest.server.uses()[0].1.nodes, nodes);
    let directory = guest.node("d");
    let listed = list(&mut guest, opcode::READDIR, directory, 4096);
    let above = listed.iter().find(|listed| listed.name == "..").unwrap();
    assert_eq!(above.dirent.ino, fs::metadata(guest.host("")).unwrap().ino());
    guest.check_descriptors();
}

#[test]
fn a_listing_goes_on_where_the_guest_says() {
    let mut guest = Guest::new();
    for number in 0..100 {
        fs::write(guest.host(&format!("f{number}")), b"").unwrap();
    }
    let root = guest.node("");
    let all = list(&mut guest, opcode::READDIR, root, 1 << 16);
    let next: BTreeMap<u64, &str> =
        all.windows(2).map(|two| (two[0].dirent.off, two[1].name.as_str())).collect();
    let fh = guest.open_directory(root).unwrap();
    for place in [7, 50, 3, 3, 99, 0, 98] {
        let offset = all[place].dirent.off;
        let listed = list_from(&mut guest, opcode::READDIR, root, (fh, offset, 300)).unwrap();
        assert_eq!(listed[0].name, next[&offset]);
    }
    for offset in [1 << 63, u64::MAX] {
        let listed = list_from(&mut guest, opcode::READDIR, root, (fh, offset, 300));
        assert_eq!(listed.err(), Some(libc::EINVAL));
    }
    // Room for no name at all is an error, and the next listing is whole.
    assert_eq!(list_from(&mut guest, opcode::READDIR, root, (fh, 0, 16)).err(), Some(libc::EINVAL));
    let listed = list_from(&mut guest, opcode::READDIR, root, (fh, 0, 1 << 16)).unwrap();
    assert_eq!(listed.len(), 102);
}

#[test]
fn virtual_directories_are_listed() {
    let mut guest = Guest::new();
    fs::write(guest.outside("hosts"), b"").unwrap();
    let hosts = open_path(guest.outside("hosts"));
    let again = open_path(guest.outside("hosts"));
    guest.server.add_trees("s", vec![("hosts".into(), hosts), ("t".into(), again)]).unwrap();
    for name in ["a", "b", "c"] {
        guest.server.add_share(name).unwrap();
    }
    guest.server.remove_share("b").unwrap();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    for operation in [opcode::READDIR, opcode::READDIRPLUS] {
        for size in [200, 4096] {
            let listed = list(&mut guest, operation, ROOT_NODE, size);
            assert_eq!(names(&listed), [".", "..", "a", "c", "s"]);
            assert!(listed.iter().all(|listed| listed.dirent.kind == 4));
            let listed = list(&mut guest, operation, share, size);
            assert_eq!(names(&listed), [".", "..", "hosts", "t"]);
            let inode = |name| listed.iter().find(|listed| listed.name == name).unwrap().dirent.ino;
            assert_eq!((inode("."), inode("..")), (share, ROOT_NODE));
            assert_eq!(inode("hosts"), fs::metadata(guest.outside("hosts")).unwrap().ino());
            let of_file = listed.iter().find(|listed| listed.name == "hosts").unwrap();
            assert_eq!(of_file.dirent.kind, 8);
        }
    }
    for offset in [5, 1 << 33, i64::MAX as u64] {
        for node in [ROOT_NODE, share] {
            list_from(&mut guest, opcode::READDIR, node, (0, offset, 4096)).unwrap();
        }
    }
    guest.check_descriptors();
}

#[test]
fn names_are_still_listed_when_descriptors_run_out() {
    let mut guest = Guest::with(Limits { descriptors_per_share: 20, ..Limits::default() });
    for number in 0..100 {
        fs::write(guest.host(&format!("f{number}")), b"").unwrap();
    }
    let root = guest.node("");
    let listed = list(&mut guest, opcode::READDIRPLUS, root, 1 << 16);
    assert_eq!(listed.len(), 102);
    let known = listed.iter().filter(|listed| listed.entry.unwrap().nodeid != 0).count();
    assert!((5..20).contains(&known), "{known}");
    // There are some left for what the guest asks for.
    assert!(guest.look_up(root, "f99").is_ok() && guest.look_up(root, "f98").is_ok());
    guest.check_descriptors();
}
