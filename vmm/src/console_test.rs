use std::io::Write;

use super::{CAPACITY, Output};

fn output(text: &str) -> Output {
    let mut output = Output::default();
    output.write_all(text.as_bytes()).unwrap();
    output
}

#[test]
fn the_newest_bytes_are_kept() {
    let mut output = output("old");
    for _ in 0..CAPACITY {
        output.write_all(b"n").unwrap();
    }
    assert_eq!(output.bytes(), vec![b'n'; CAPACITY]);
    output.write_all(&vec![b'x'; 2 * CAPACITY]).unwrap();
    assert_eq!(output.bytes(), vec![b'x'; CAPACITY]);
}

#[test]
fn an_excerpt_has_whole_lines() {
    let output = output("first line\r\nsecond\r\nthird");
    assert_eq!(output.last_lines(100), "first line\nsecond\nthird");
    assert_eq!(output.last_lines(16), "second\nthird");
    assert_eq!(output.last_lines(3), "ird");
    assert_eq!(output.last_lines(0), "");
}

#[test]
fn the_guest_cannot_talk_to_the_terminal() {
    assert_eq!(output("\x1b[2Jclean\u{e9}").last_lines(100), "?[2Jclean??");
}
