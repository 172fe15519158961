//! One deadline for a whole exchange, however its bytes arrive.
//!
//! A time limit for each read does not limit an answer: a guest that sends a byte a second would hold a command for days.
//! So a deadline is made once, for an exchange or for a whole command, and every wait takes at most the time that is left.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

/// A moment by which something has to be done.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// A deadline after this time from now.
    pub fn within(length: Duration) -> Self {
        Self { at: Instant::now() + length, length }
    }

    /// The earlier of the two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    /// The time from its making to its moment.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// The time that is left; zero once the moment has come.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Waits until one of these descriptors is ready; false if none is ready in time.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn wait(&self, fds: &mut [PollFd<'_>]) -> io::Result<bool> {
        loop {
            let left = self.left();
            if left.is_zero() {
                return Ok(false);
            }
            // Rounded up: a wait that ends too early would only begin again.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A connection on which everything has to be done by the deadline: what is not done then fails with `TimedOut`.
    pub fn on(
        self,
        stream: &UnixStream,
    ) -> Bounded<'_, impl FnMut(BorrowedFd<'_>, PollFlags) -> io::Result<()>> {
        Bounded {
            stream,
            ready: move |fd: BorrowedFd<'_>, flags| match self.wait(&mut [PollFd::new(fd, flags)])? {
                true => Ok(()),
                false => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }
}

/// A connection that is read and written only when `ready` has returned, which fails if it takes too long.
#[derive(Debug)]
pub struct Bounded<'a, R> {
    /// The connection.
    pub stream: &'a UnixStream,
    /// A function that waits until the connection is ready.
    pub ready: R,
}

impl<R: FnMut(BorrowedFd<'_>, PollFlags) -> io::Result<()>> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            (self.ready)(self.stream.as_fd(), PollFlags::POLLIN)?;
            if let Some(length) = receive(self.stream, buffer)? {
                return Ok(length);
            }
        }
    }
}

impl<R: FnMut(BorrowedFd<'_>, PollFlags) -> io::Result<()>> Write for Bounded<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            (self.ready)(self.stream.as_fd(), PollFlags::POLLOUT)?;
            if let Some(length) = transmit(self.stream, bytes)? {
                return Ok(length);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// recv(2) that does not wait, on a blocking socket; `None` if there are no bytes.
///
/// # Errors
/// recv(2)'s.
pub fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    not_yet(recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT))
}

/// send(2), likewise; `None` if there is no room.
///
/// # Errors
/// send(2)'s.
pub fn transmit(stream: &UnixStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    not_yet(send(stream.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL))
}

fn not_yet(result: nix::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[path = "deadline_test.rs"]
pub mod tests;
