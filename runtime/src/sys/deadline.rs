//! Reading from a peer that may send its bytes one by one, until a moment.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A stream that is read until then, however many reads that takes; afterwards they fail with `TimedOut`.
#[derive(Debug)]
pub struct ReadUntil<'a> {
    stream: &'a UnixStream,
    end: Instant,
}

impl<'a> ReadUntil<'a> {
    /// Of this stream until that moment.
    pub fn new(stream: &'a UnixStream, end: Instant) -> Self {
        Self { stream, end }
    }
}

impl Read for ReadUntil<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

#[cfg(test)]
#[path = "deadline_test.rs"]
mod tests;
