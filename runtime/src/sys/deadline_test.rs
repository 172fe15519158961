use std::io::Write;
use std::thread;
use std::time::Duration;

use super::*;

#[test]
fn one_that_drips_is_read_no_longer_than_that() {
    let (ours, mut drips) = UnixStream::pair().unwrap();
    let began = Instant::now();
    let dripping = thread::spawn(move || while drips.write(&[0]).is_ok() {});
    let mut stream = ReadUntil::new(&ours, began + Duration::from_millis(50));
    let end = loop {
        if let Err(cause) = stream.read(&mut [0]) {
            break cause;
        }
    };
    assert_eq!(end.kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(20));
    drop(ours);
    dripping.join().unwrap();
}

#[test]
fn silence_ends_too() {
    let (ours, _silent) = UnixStream::pair().unwrap();
    let end = ReadUntil::new(&ours, Instant::now() + Duration::from_millis(10)).read(&mut [0]);
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
