use std::thread;

use super::{count_thread, process_time, times};

/// PID_MAX_LIMIT of Linux.
const MAX_PIDS: i32 = 4 << 20;

#[test]
fn a_thread_is_counted_until_it_ends() {
    let name = "counted".to_owned();
    let is_there = || times().into_iter().find(|thread| thread.name == "counted");
    let thread = thread::Builder::new().name(name).spawn(move || {
        count_thread();
        // It works until that shows.
        loop {
            match is_there() {
                Some(time) if time.cpu_ms < 10 => {}
                found => break found,
            }
        }
    });
    let time = thread.unwrap().join().unwrap().unwrap();
    assert!((10..10_000).contains(&time.cpu_ms), "{time:?}");
    assert!(is_there().is_none());
}

#[test]
fn a_process_that_there_is_not_has_no_time() {
    assert!(process_time(MAX_PIDS + 1).is_none());
    assert!(process_time(std::process::id() as i32).is_some());
}
