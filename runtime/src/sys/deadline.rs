//! One end for a whole exchange, however its bytes arrive.
//!
//! A limit for each read is none for an answer: a guest that sends a byte a second would hold a command for days. So a
//! deadline is made once, for an exchange or for a whole command, and every wait goes by what is left of it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

/// A moment by which something has to be over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// The moment that is this far away.
    pub fn within(length: Duration) -> Self {
        Self { at: Instant::now() + length, length }
    }

    /// The earlier of the two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    /// How far away it was when it was made.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// How far away it is; zero once it has come.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Waits until one of these is ready; false if none is in time.
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

    /// A connection on which everything has to be over by then: what is not ends with `TimedOut`.
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

/// A connection that is read and written only once `ready` says that it is ready, which fails when that takes too long.
#[derive(Debug)]
pub struct Bounded<'a, R> {
    /// The connection.
    pub stream: &'a UnixStream,
    /// Waits for it.
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

/// recv(2) that does not wait, on a socket that might; `None` where nothing is there.
///
/// # Errors
/// recv(2)'s.
pub fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    not_yet(recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT))
}

/// send(2) likewise; `None` where there is no room.
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
