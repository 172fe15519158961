use super::*;
use std::thread;

const SHORT: Duration = Duration::from_millis(200);

/// Sends a byte every few milliseconds until nobody takes them any more.
pub fn drip(mut to: UnixStream, bytes: Vec<u8>) {
    thread::spawn(move || {
        for byte in bytes {
            if to.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
}

fn timed_out<T: std::fmt::Debug>(began: Instant, result: io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let took = began.elapsed();
    assert!(took >= SHORT && took < SHORT * 20, "{took:?}");
}

#[test]
fn an_answer_that_drips_is_over_in_time() {
    let (host, guest) = UnixStream::pair().unwrap();
    drip(guest, vec![0; 10_000]);
    let began = Instant::now();
    timed_out(began, Deadline::within(SHORT).on(&host).read_exact(&mut [0; 10_000]));
}

#[test]
fn a_request_that_is_drained_by_drops_is_over_in_time() {
    let (host, mut guest) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        while guest.read(&mut [0; 16]).is_ok_and(|length| length > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let began = Instant::now();
    timed_out(began, Deadline::within(SHORT).on(&host).write_all(&vec![0; 16 << 20]));
}

#[test]
fn silence_is_over_in_time_and_what_comes_in_time_is_taken() {
    let (host, mut guest) = UnixStream::pair().unwrap();
    timed_out(Instant::now(), Deadline::within(SHORT).on(&host).read(&mut [0; 1]));
    guest.write_all(b"answer").unwrap();
    let mut answer = [0; 6];
    Deadline::within(Duration::from_secs(60)).on(&host).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    drop(guest);
    assert_eq!(Deadline::within(Duration::from_secs(60)).on(&host).read(&mut answer).unwrap(), 0);
}

#[test]
fn of_two_the_earlier_counts() {
    let (near, far) = (Deadline::within(SHORT), Deadline::within(SHORT * 100));
    assert_eq!(near.or(far).length(), SHORT);
    assert_eq!(far.or(near).length(), SHORT);
    assert!(Deadline::within(Duration::ZERO).left().is_zero());
}
