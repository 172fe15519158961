use std::os::fd::AsFd;

use super::*;

#[test]
fn a_listener_that_accepts_nobody_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let opened = File::open(directory.path()).unwrap();
    let listener = listen(opened.as_fd(), "socket").unwrap();
    // SAFETY: listen takes two integers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let _in_the_queue = connect(opened.as_fd(), "socket").unwrap();
    let error = connect(opened.as_fd(), "socket").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let _accepted = listener.accept().unwrap();
    connect(opened.as_fd(), "socket").unwrap();
    assert_eq!(connect(opened.as_fd(), "none").unwrap_err().kind(), io::ErrorKind::NotFound);
}
