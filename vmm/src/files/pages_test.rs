use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
    thread,
    time::Duration,
};

use super::FileSystem;
use crate::files::{
    Limits,
    abi::{OPEN_DIRECT_IO, OPEN_KEEP_CACHE, OPEN_NOFLUSH},
    fixture::Guest,
};

/// Seconds after which a state counts here: times have fractions, and steps of some milliseconds.
const SETTLED_AFTER: i64 = 1;

/// A guest with a file whose state counts, and the file's node; `None` where the host's file system is none on a disk.
fn guest_with_old_file() -> Option<(Guest, u64)> {
    let mut guest = Guest::with(Limits { settled_after: SETTLED_AFTER, ..Limits::default() });
    fs::write(guest.host("f"), b"hello").unwrap();
    let file = File::open(guest.host("f")).unwrap();
    if FileSystem::of(file.as_fd()).unwrap() != FileSystem::Disk {
        return None;
    }
    grow_old(&guest.host("f"));
    let node = guest.node("f");
    Some((guest, node))
}

/// Waits until the last change of a file lies far enough back: nothing else makes a ctime old.
fn grow_old(path: &Path) {
    let changed = fs::metadata(path).unwrap().ctime();
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    while now() - changed <= SETTLED_AFTER {
        thread::sleep(Duration::from_millis(50));
    }
}

impl Guest {
    /// Whether an open keeps the pages; the file is read then, if asked for.
    fn keeps(&mut self, node: u64, reads: bool) -> bool {
        let open = self.open(node, libc::O_RDONLY).unwrap();
        if reads {
            self.read(node, open.fh, 0, 9).unwrap();
        }
        open.open_flags & OPEN_KEEP_CACHE != 0
    }
}

#[test]
fn pages_are_kept_while_the_file_is_what_it_was() {
    let Some((mut guest, node)) = guest_with_old_file() else { return };
    assert!(!guest.keeps(node, false), "never read");
    assert!(!guest.keeps(node, true), "an open without a read shows nothing");
    assert!(guest.keeps(node, false));
    assert!(guest.keeps(node, true));
    // The same length, and the same time of the last modification.
    let modified = fs::metadata(guest.host("f")).unwrap().modified().unwrap();
    let file = OpenOptions::new().write(true).open(guest.host("f")).unwrap();
    file.write_all_at(b"HELLO", 0).unwrap();
    file.set_modified(modified).unwrap();
    assert!(!guest.keeps(node, true));
    // It may change once more in the same moment.
    assert!(!guest.keeps(node, true));
    grow_old(&guest.host("f"));
    assert!(!guest.keeps(node, true), "what was read before it was old does not count");
    assert!(guest.keeps(node, true));
    // Another file in its place is another node, and the old one is as it was, but for its number of links.
    fs::write(guest.host("g"), b"other").unwrap();
    File::open(guest.host("g")).unwrap().set_modified(modified).unwrap_or_default();
    fs::rename(guest.host("g"), guest.host("f")).unwrap();
    let other = guest.node("f");
    assert_ne!(other, node);
    assert!(!guest.keeps(other, true));
}

#[test]
fn another_open_and_a_late_read_do_not_bring_old_pages_back() {
    let Some((mut guest, node)) = guest_with_old_file() else { return };
    let early = guest.open(node, libc::O_RDONLY).unwrap().fh;
    assert!(!guest.keeps(node, true));
    fs::write(guest.host("f"), b"HELLO").unwrap();
    grow_old(&guest.host("f"));
    assert!(!guest.keeps(node, true));
    // The first handle's read records what its open has found, which is gone.
    guest.read(node, early, 0, 9).unwrap();
    assert!(!guest.keeps(node, true));
    assert!(guest.keeps(node, true));
    // A guest that forgets the file, or begins anew, has no pages of it.
    guest.server.reset();
    let node = guest.node("f");
    assert!(!guest.keeps(node, true));
    guest.check_descriptors();
}

#[test]
fn a_close_is_silent_where_the_host_could_not_fail_at_it() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    if !FileSystem::of(File::open(guest.host("f")).unwrap().as_fd()).unwrap().closes_silently() {
        return;
    }
    let node = guest.node("f");
    let open = guest.open(node, libc::O_RDWR).unwrap();
    assert_eq!(open.open_flags & (OPEN_NOFLUSH | OPEN_DIRECT_IO), OPEN_NOFLUSH);
}

#[test]
fn what_changes_by_itself_is_not_on_a_disk() {
    for (path, kind) in [("/proc/self/status", FileSystem::Pseudo), ("/sys/kernel", FileSystem::Pseudo)] {
        assert_eq!(FileSystem::of(File::open(path).unwrap().as_fd()).unwrap(), kind, "{path}");
    }
}
