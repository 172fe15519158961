use std::io::{Read, Write};
use std::time::Instant;

use super::*;

#[test]
fn one_that_drips_is_read_no_longer_than_that() {
    let (mut ours, mut drips) = UnixStream::pair().unwrap();
    let cut_off = CutOff::after(Duration::from_millis(50)).unwrap();
    cut_off.cover(&ours).unwrap();
    let began = Instant::now();
    let dripping = thread::spawn(move || while drips.write(&[0]).is_ok() {});
    let mut read = Ok(1);
    while let Ok(1..) = read {
        read = ours.read(&mut [0]);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    dripping.join().unwrap();
    let late = cut_off.cover(&ours).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn what_was_over_before_is_left_alone() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let cut_off = CutOff::after(Duration::from_secs(3600)).unwrap();
    cut_off.cover(&ours).unwrap();
    let streams = Arc::downgrade(&cut_off.streams);
    drop(cut_off);
    while streams.strong_count() > 0 {
        thread::yield_now();
    }
    theirs.write_all(b"x").unwrap();
    assert_eq!(ours.read(&mut [0; 2]).unwrap(), 1);
}
