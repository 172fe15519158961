//! Connections that a relay proxies between the host and the guest, each by a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::copy::{Copy, Waits};

/// Stack of a thread, in bytes; buffers are not on it.
pub const STACK: usize = 64 << 10;

/// Longest answer of the agent to a greeting, in bytes: a welcome, or the reason for a refusal.
pub const REPLY_LIMIT: usize = 8 << 10;

/// Permits that limit how many connections are open at a time.
#[derive(Clone, Debug)]
pub struct Semaphore(Arc<Free>);

#[derive(Debug)]
struct Free {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Semaphore {
    /// A semaphore with `count` permits.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Free { count: Mutex::new(count), changed: Condvar::new() }))
    }

    /// Takes a permit if one is free.
    pub fn take(&self) -> Option<Permit> {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.checked_sub(1)?;
        Some(Permit(Arc::clone(&self.0)))
    }

    /// Waits until a permit is free, and takes it.
    pub fn wait(&self) -> Permit {
        let count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.0.changed.wait_while(count, |count| *count == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(Arc::clone(&self.0))
    }
}

/// A permit of a [`Semaphore`], which is free again when this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Free>);

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}

/// Starts a thread that does something for a connection and drops it at the end. If no thread can be started, the
/// connection is dropped at once, and its peer sees the end.
pub fn spawn(name: &str, permit: Permit, body: impl FnOnce() + Send + 'static) {
    let body = move || {
        let _permit = permit;
        body();
    };
    let _ = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body);
}

/// Copies between two connected sockets, both ways, until each direction has ended or one of the two is closed.
///
/// # Errors
/// fstat(2)'s and poll(2)'s.
pub fn proxy(one: impl Into<OwnedFd>, other: impl Into<OwnedFd>) -> io::Result<()> {
    let (one, other) = (one.into(), other.into());
    let mut copies =
        vec![Copy::new(one.try_clone()?, other.try_clone()?, true)?, Copy::new(other, one, true)?];
    while !copies.is_empty() {
        let events = wait(&copies)?;
        copies = copies.into_iter().zip(events).filter_map(|(copy, event)| go_on(copy, event)).collect();
    }
    Ok(())
}

/// An event of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    None,
    /// What the copy waits for has happened.
    Ready,
    /// The reader has gone: nobody will read what the copy writes.
    Unread,
}

fn go_on(mut copy: Copy, event: Event) -> Option<Copy> {
    match event {
        Event::None => {}
        Event::Ready => copy.advance(),
        Event::Unread => return None,
    }
    (!copy.is_done()).then_some(copy)
}

/// Waits for an event of these copies, none of which is done.
fn wait(copies: &[Copy]) -> io::Result<Vec<Event>> {
    let mut fds = Vec::new();
    for copy in copies {
        let waits = match copy.waits() {
            Some(Waits::Readable(fd)) => Some((fd, PollFlags::POLLIN)),
            Some(Waits::Writable(fd)) => Some((fd, PollFlags::POLLOUT)),
            None => None,
        };
        // poll(2) always reports the end of the sink, which matters also while a copy waits for its source.
        let both = waits.zip(copy.sink());
        fds.extend(
            both.map(|((fd, flags), sink)| [PollFd::new(fd, flags), PollFd::new(sink, PollFlags::empty())]),
        );
    }
    loop {
        match poll(fds.as_flattened_mut(), PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let has_event = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    Ok(fds
        .iter()
        .map(|[waits, sink]| match (has_event(sink), has_event(waits)) {
            (true, _) => Event::Unread,
            (false, true) => Event::Ready,
            (false, false) => Event::None,
        })
        .collect())
}

#[cfg(test)]
#[path = "proxy_test.rs"]
mod tests;
