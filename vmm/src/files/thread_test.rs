use std::{fs, os::unix::fs::MetadataExt};

use super::ThreadState;
use crate::files::{fixture::Guest, sys::Errno};

#[test]
fn ids_change_when_they_are_others() {
    // Its thread is like a server's.
    let mut guest = Guest::new();
    for (uid, gid) in [(5, 6), (0, 6), (0, 0), (7, 0)] {
        guest.thread.become_caller(uid, gid).unwrap();
        let path = guest.outside(&format!("{uid}-{gid}"));
        fs::write(&path, b"").unwrap();
        let stat = fs::metadata(path).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (uid, gid));
    }
    let invalid = Err(Errno::new(libc::EINVAL));
    assert_eq!(guest.thread.become_caller(u32::MAX, 1), invalid);
    assert_eq!(guest.thread.become_caller(1, u32::MAX), invalid);
    guest.thread.become_caller(0, 0).unwrap();
}

#[test]
fn the_umask_and_the_directory_are_the_threads_own() {
    let guest = Guest::new();
    let elsewhere = std::env::current_dir().unwrap();
    let path = guest.outside("f");
    std::thread::spawn(move || {
        let mut thread = ThreadState::new().unwrap();
        thread.set_umask(0o7777);
        thread.enter(std::os::fd::AsFd::as_fd(&crate::files::fixture::open_path("/"))).unwrap();
        assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/"));
        fs::write(path, b"").unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(std::env::current_dir().unwrap(), elsewhere);
    fs::write(guest.outside("g"), b"").unwrap();
    assert_eq!(fs::metadata(guest.outside("f")).unwrap().mode() & 0o777, 0);
    assert_ne!(fs::metadata(guest.outside("g")).unwrap().mode() & 0o777, 0);
}
