use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;

/// Counts how often each of its queues is notified.
struct Counter {
    events: Vec<EventFd>,
    notified: Sender<usize>,
}

impl Job for Counter {
    fn events(&self) -> &[EventFd] {
        &self.events
    }

    fn notified(&mut self, index: usize) {
        self.events[index].read().unwrap();
        self.notified.send(index).unwrap();
    }

    fn fail(&mut self, cause: &dyn Display) {
        panic!("{cause}");
    }

    fn into_queues(self: Box<Self>) -> Vec<Queue> {
        Vec::new()
    }
}

/// A device with this many queues: its events, as its transport has them, and what comes of them.
fn counter(queues: usize) -> (Box<dyn Job>, Vec<EventFd>, Receiver<usize>) {
    let events: Vec<EventFd> = (0..queues).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
    let copies = events.iter().map(|event| event.try_clone().unwrap()).collect();
    let (notified, seen) = channel();
    (Box::new(Counter { events, notified }), copies, seen)
}

fn next(seen: &Receiver<usize>) -> usize {
    seen.recv_timeout(Duration::from_secs(20)).unwrap()
}

fn runs(thread: &SharedThread) -> bool {
    lock(&thread.running).is_some()
}

#[test]
fn devices_share_a_thread_as_long_as_one_of_them_is_active() {
    let thread = SharedThread::new("test", seccomp::Thread::Devices);
    assert!(!runs(&thread));
    let (first, first_events, first_seen) = counter(2);
    let (second, second_events, second_seen) = counter(1);
    let first = thread.add(first).unwrap();
    let second = thread.clone().add(second).unwrap();
    for index in [1, 0, 1] {
        first_events[index].write(1).unwrap();
        assert_eq!(next(&first_seen), index);
        second_events[0].write(1).unwrap();
        assert_eq!(next(&second_seen), 0);
    }
    assert!(thread.remove(first).is_some() && runs(&thread));
    // Whoever still has its events cannot make the thread work for it, nor for what comes to its place.
    first_events[0].write(1).unwrap();
    let (third, third_events, third_seen) = counter(1);
    let third = thread.add(third).unwrap();
    second_events[0].write(1).unwrap();
    third_events[0].write(1).unwrap();
    assert_eq!((next(&second_seen), next(&third_seen)), (0, 0));
    assert!(third_seen.try_recv().is_err() && first_seen.try_recv().is_err());
    assert!(thread.remove(second).is_some() && thread.remove(third).is_some());
    assert!(!runs(&thread), "the thread has ended with the last of them");
}
