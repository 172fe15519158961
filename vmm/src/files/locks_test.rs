use std::{
    fs::{self, File},
    os::fd::AsFd,
};

use vm_memory::ByteValued;

use crate::files::{
    Limits,
    abi::{FileLock, FlushIn, LOCK_FLOCK, LockIn, LockOut, RELEASE_FLOCK_UNLOCK, ReleaseIn, feature, opcode},
    fixture::{Guest, Reply, parse},
    sys,
};

const READ: u32 = libc::F_RDLCK as u32;
const WRITE: u32 = libc::F_WRLCK as u32;
const NONE: u32 = libc::F_UNLCK as u32;
const END: u64 = i64::MAX as u64;

/// A guest whose locks the host grants, with a file `f`.
fn guest() -> (Guest, u64) {
    let mut guest = Guest::with(Limits { host_locks: true, ..Limits::default() });
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    (guest, node)
}

fn flock(guest: &mut Guest, node: u64, fh: u64, kind: u32) -> Reply {
    let lock = FileLock { kind, end: END, ..FileLock::default() };
    let wanted = LockIn { fh, lk_flags: LOCK_FLOCK, lock, ..LockIn::default() };
    guest.ask(opcode::SETLK, node, &[wanted.as_slice()])
}

fn range(owner: u64, fh: u64, kind: u32, (start, end): (u64, u64)) -> LockIn {
    let lock = FileLock { start, end, kind, pid: owner as u32 * 10 };
    LockIn { fh, owner, lock, ..LockIn::default() }
}

fn set(guest: &mut Guest, node: u64, wanted: LockIn) -> Reply {
    guest.ask(opcode::SETLK, node, &[wanted.as_slice()])
}

fn query(guest: &mut Guest, node: u64, wanted: LockIn) -> FileLock {
    parse::<LockOut>(&guest.ask(opcode::GETLK, node, &[wanted.as_slice()]).unwrap()).lock
}

#[test]
fn a_guest_keeps_its_own_locks_unless_told_otherwise() {
    let mut guest = Guest::new();
    let locks = (feature::FLOCK_LOCKS | feature::POSIX_LOCKS) as u32;
    assert_eq!(guest.init(u64::MAX).flags & locks, 0);
    fs::write(guest.host("f"), b"").unwrap();
    let node = guest.node("f");
    let fh = guest.open(node, libc::O_RDWR).unwrap().fh;
    assert_eq!(flock(&mut guest, node, fh, WRITE), Err(libc::ENOSYS));
    let wanted = range(1, fh, WRITE, (0, END));
    assert_eq!(guest.ask(opcode::GETLK, node, &[wanted.as_slice()]), Err(libc::ENOSYS));
    let (mut guest, _) = self::guest();
    assert_eq!(guest.init(u64::MAX).flags & locks, locks);
}

#[test]
fn flock_is_between_handles_and_with_the_host() {
    let (mut guest, node) = guest();
    let first = guest.open(node, libc::O_RDWR).unwrap().fh;
    let second = guest.open(node, libc::O_RDONLY).unwrap().fh;
    let host = File::open(guest.host("f")).unwrap();
    flock(&mut guest, node, first, READ).unwrap();
    flock(&mut guest, node, second, READ).unwrap();
    assert_eq!(flock(&mut guest, node, first, WRITE), Err(libc::EAGAIN));
    flock(&mut guest, node, second, NONE).unwrap();
    flock(&mut guest, node, first, WRITE).unwrap();
    assert!(sys::lock_file(host.as_fd(), libc::LOCK_SH | libc::LOCK_NB).is_err());
    let release = ReleaseIn { fh: first, release_flags: RELEASE_FLOCK_UNLOCK, ..ReleaseIn::default() };
    guest.ask(opcode::RELEASE, node, &[release.as_slice()]).unwrap();
    sys::lock_file(host.as_fd(), libc::LOCK_EX | libc::LOCK_NB).unwrap();
    // Who would wait is told, and asks again: the server does not wait.
    let lock = FileLock { kind: WRITE, end: END, ..FileLock::default() };
    let wanted = LockIn { fh: second, lk_flags: LOCK_FLOCK, lock, ..LockIn::default() };
    assert_eq!(guest.ask(opcode::SETLKW, node, &[wanted.as_slice()]), Err(libc::EAGAIN));
    assert_eq!(flock(&mut guest, node, second, 9), Err(libc::EINVAL));
    assert_eq!(flock(&mut guest, node, 999, WRITE), Err(libc::EBADF));
}

#[test]
fn ranges_are_between_processes_and_with_the_host() {
    let (mut guest, node) = guest();
    let fh = guest.open(node, libc::O_RDWR).unwrap().fh;
    set(&mut guest, node, range(1, fh, WRITE, (10, 19))).unwrap();
    set(&mut guest, node, range(2, fh, WRITE, (20, END))).unwrap();
    assert_eq!(set(&mut guest, node, range(2, fh, READ, (0, 10))), Err(libc::EAGAIN));
    set(&mut guest, node, range(2, fh, READ, (0, 9))).unwrap();

    // Who is in the way: another process, the host, or nobody.
    let found = query(&mut guest, node, range(2, fh, READ, (0, 15)));
    assert_eq!((found.start, found.end, found.kind, found.pid), (10, 19, WRITE, 10));
    let found = query(&mut guest, node, range(3, fh, WRITE, (5, 5)));
    assert_eq!((found.start, found.end, found.kind, found.pid), (0, 9, READ, 20));
    assert_eq!(query(&mut guest, node, range(1, fh, WRITE, (12, 15))).kind, NONE);

    let host = File::options().read(true).write(true).open(guest.host("f")).unwrap();
    let mut wanted = libc::flock { l_type: 1, l_whence: 0, l_start: 30, l_len: 1, l_pid: 0 };
    assert!(sys::lock_range(host.as_fd(), libc::F_OFD_SETLK, &mut wanted).is_err());
    set(&mut guest, node, range(2, fh, NONE, (30, 39))).unwrap();
    sys::lock_range(host.as_fd(), libc::F_OFD_SETLK, &mut wanted).unwrap();
    let found = query(&mut guest, node, range(1, fh, READ, (30, 30)));
    assert_eq!((found.kind, found.pid), (WRITE, 0));
    drop(host);
    guest.check_descriptors();
}

#[test]
fn a_process_that_closes_the_file_gives_its_locks_back() {
    let (mut guest, node) = guest();
    let fh = guest.open(node, libc::O_RDWR).unwrap().fh;
    let before = guest.descriptors();
    set(&mut guest, node, range(1, fh, WRITE, (0, 5))).unwrap();
    set(&mut guest, node, range(1, fh, WRITE, (7, 9))).unwrap();
    assert_eq!(guest.descriptors(), before + 1);
    assert_eq!(set(&mut guest, node, range(2, fh, WRITE, (0, END))), Err(libc::EAGAIN));
    let flush = FlushIn { fh, lock_owner: 1, ..FlushIn::default() };
    guest.ask(opcode::FLUSH, node, &[flush.as_slice()]).unwrap();
    set(&mut guest, node, range(2, fh, WRITE, (0, END))).unwrap();
    // All at once without a close.
    set(&mut guest, node, range(2, fh, NONE, (0, END))).unwrap();
    set(&mut guest, node, range(3, fh, NONE, (0, END))).unwrap();
    set(&mut guest, node, range(3, fh, WRITE, (0, END))).unwrap();
    guest.check_descriptors();
    guest.server.remove_share("s").unwrap();
    assert_eq!(guest.descriptors(), 0);
    guest.check_descriptors();
}

#[test]
fn ranges_that_are_none_are_refused() {
    let (mut guest, node) = guest();
    let fh = guest.open(node, libc::O_RDWR).unwrap().fh;
    for (start, end) in [(5, 4), (0, u64::MAX), (u64::MAX, u64::MAX), (1 << 63, END)] {
        assert_eq!(set(&mut guest, node, range(1, fh, READ, (start, end))), Err(libc::EINVAL));
    }
    assert_eq!(set(&mut guest, node, range(1, fh, 7, (0, 1))), Err(libc::EINVAL));
    set(&mut guest, node, range(1, fh, WRITE, (END - 1, END))).unwrap();
    set(&mut guest, node, range(1, fh, WRITE, (END - 1, END - 1))).unwrap();
}
