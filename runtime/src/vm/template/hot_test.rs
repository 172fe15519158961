use std::io::Write;
use std::os::fd::AsRawFd;

use super::*;

#[test]
fn what_is_written_is_read_again() {
    let text = text(&[1, 2, 4, 9, 10, 20]);
    assert_eq!(text, "1 4\n9 2\n20 1\n");
    assert_eq!(parse(&text), [(1, 4), (9, 2), (20, 1)]);
    assert_eq!(parse(""), []);
}

#[test]
fn what_is_no_list_is_no_advice() {
    for text in ["1", "1 x\n", "-1 2\n", "1 2\n99999999999 1\n", "\0"] {
        assert_eq!(parse(text), [], "{text:?}");
    }
    assert_eq!(parse(&"1 1\n".repeat(5000)).len(), MAX_STRETCHES);
}

#[test]
fn pages_that_were_written_to_are_found() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 8 * PAGE as usize]).unwrap();
    // SAFETY: a new mapping of eight pages.
    let mapped = unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            6 * PAGE as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            2 * PAGE as i64,
        );
        assert_ne!(map, libc::MAP_FAILED);
        std::slice::from_raw_parts_mut(map.cast::<u8>(), 6 * PAGE as usize)
    };
    let page = PAGE as usize;
    assert_eq!(mapped[page], 7);
    mapped[2 * page] = 1;
    mapped[5 * page + 9] = 1;
    let own = std::process::id() as i32;
    assert_eq!(written(own, &file).unwrap(), [4, 7]);
    assert!(written(own, &tempfile::tempfile().unwrap()).unwrap().is_empty(), "nothing of another file");
}
