use std::io::{Read, pipe};

use super::*;

/// What the kernel closes is closed: a pipe's reader gets its end.
#[test]
fn a_file_is_closed_after_its_ring() {
    assert_eq!(size_of::<Parameters>(), 120);
    let (mut reader, writer) = pipe().expect("a pipe");
    let closer = Closer::of(&writer);
    drop(writer);
    // Where io_uring is switched off, nothing holds the file.
    if let Err(error) = &closer {
        assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::ENOMEM)), "{error}");
    }
    drop(closer);
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
}
