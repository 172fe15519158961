use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use vm_memory::ByteValued;

use super::Listed;
use crate::files::{
    abi::{OPEN_CACHE_DIR, OPEN_KEEP_CACHE, OpenIn, OpenOut, ROOT_NODE, ReadIn, opcode},
    fixture::{Guest, open_path, parse},
    pages::{FileSystem, Pages},
    sys,
};

/// A directory that has not changed for long.
const OLD: &str = "/usr/lib";

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_listing_is_kept_for_as_long_as_names_are() {
    let listed = Listed::default();
    let start = Instant::now();
    assert!(!listed.open(start, SECOND), "never read");
    listed.begins();
    let begun = Instant::now();
    assert!(listed.open(begun, SECOND));
    // A listing that is read again while it is kept is as old as it was.
    listed.begins();
    assert!(!listed.open(begun + SECOND, SECOND));
    // It was dropped.
    assert!(!listed.open(begun, SECOND));
    listed.begins();
    assert!(listed.open(Instant::now(), SECOND));
}

impl Guest {
    fn listing_flags(&mut self, node: u64) -> (u64, u32) {
        let reply = self.ask(opcode::OPENDIR, node, &[OpenIn::default().as_slice()]).unwrap();
        let OpenOut { fh, open_flags, .. } = parse(&reply);
        (fh, open_flags)
    }

    fn list(&mut self, node: u64, fh: u64) {
        let wanted = ReadIn { fh, size: 4096, ..ReadIn::default() };
        self.ask(opcode::READDIRPLUS, node, &[wanted.as_slice()]).unwrap();
    }
}

#[test]
fn only_what_has_been_read_from_the_start_is_kept() {
    let mut guest = Guest::new();
    let tree = open_path(OLD);
    if !matches!(Pages::default().file_system(tree.as_fd()).unwrap(), FileSystem::Disk | FileSystem::Memory)
        || !super::is_settled(&sys::stat(tree.as_fd()).unwrap())
    {
        return;
    }
    guest.server.add_trees("s", vec![("old".into(), tree)]).unwrap();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    let node = guest.look_up(share, "old").unwrap().nodeid;
    let (fh, flags) = guest.listing_flags(node);
    assert_eq!(flags, OPEN_CACHE_DIR);
    assert_eq!(guest.listing_flags(node).1, OPEN_CACHE_DIR, "not read");
    guest.list(node, fh);
    assert_eq!(guest.listing_flags(node).1, OPEN_CACHE_DIR | OPEN_KEEP_CACHE);
}

#[test]
fn a_directory_that_has_just_changed_or_shows_no_changes_is_read_anew() {
    let mut guest = Guest::new();
    let node = guest.node("");
    let (fh, flags) = guest.listing_flags(node);
    guest.list(node, fh);
    assert_eq!((flags, guest.listing_flags(node).1), (0, 0));
    guest.server.add_trees("s", vec![("sys".into(), open_path("/sys/kernel"))]).unwrap();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    let node = guest.look_up(share, "sys").unwrap().nodeid;
    let (fh, flags) = guest.listing_flags(node);
    guest.list(node, fh);
    assert_eq!((flags, guest.listing_flags(node).1), (0, 0));
}
