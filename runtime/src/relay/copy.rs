//! One direction of stdio: bytes from one descriptor to another, never blocking, at most one buffer in between.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::{SFlag, fstat};

/// Bytes in flight in one direction: what bounds a writer whose reader is slow.
const BUFFER: usize = 64 << 10;

/// What a pipe accepts without blocking once poll(2) has reported it writable.
const ATOMIC: usize = 4096;

/// One end of a copy.
#[derive(Debug)]
struct End {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Used with MSG_DONTWAIT.
    Socket,
    /// Open with O_NONBLOCK.
    NonBlocking,
    /// Neither: written in pieces that do not block after poll(2).
    Blocking,
}

impl End {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let mode = SFlag::from_bits_truncate(fstat(&fd)?.st_mode & SFlag::S_IFMT.bits());
        // SAFETY: F_GETFL takes no argument and touches no memory.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        let kind = if mode == SFlag::S_IFSOCK {
            Kind::Socket
        } else if flags >= 0 && flags & libc::O_NONBLOCK != 0 {
            Kind::NonBlocking
        } else {
            Kind::Blocking
        };
        Ok(Self { fd, kind })
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (fd, to, length) = (self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: both calls write at most `length` bytes to `buffer`, which has them.
        let result = unsafe {
            match self.kind {
                Kind::Socket => libc::recv(fd, to, length, libc::MSG_DONTWAIT),
                _ => libc::read(fd, to, length),
            }
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = if self.kind == Kind::Blocking { &bytes[..bytes.len().min(ATOMIC)] } else { bytes };
        let (fd, from, length) = (self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
        // SAFETY: both calls read at most `length` bytes from `bytes`, which has them.
        let result = unsafe {
            match self.kind {
                Kind::Socket => libc::send(fd, from, length, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
                _ => libc::write(fd, from, length),
            }
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

/// A copy in progress.
///
/// ```text
/// reading ⇄ writing ─→ done     source ended and everything written, or the sink is gone
/// ```
#[derive(Debug)]
pub struct Copy {
    source: Option<End>,
    sink: Option<End>,
    buffer: Box<[u8]>,
    /// What of the buffer waits to be written.
    start: usize,
    end: usize,
    shut_down_sink: bool,
}

/// What a copy waits for.
#[derive(Clone, Copy, Debug)]
pub enum Waits<'a> {
    /// That this becomes readable.
    Readable(BorrowedFd<'a>),
    /// That this becomes writable.
    Writable(BorrowedFd<'a>),
}

impl Copy {
    /// Copies from `source` to `sink`, which is closed at the end, or, where it is a socket that something else still
    /// uses, shut down for writing.
    ///
    /// # Errors
    /// fstat(2)'s.
    pub fn new(source: OwnedFd, sink: OwnedFd, shut_down_sink: bool) -> io::Result<Self> {
        Ok(Self {
            source: Some(End::new(source)?),
            sink: Some(End::new(sink)?),
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            shut_down_sink,
        })
    }

    /// What it waits for; `None` when it is done.
    pub fn waits(&self) -> Option<Waits<'_>> {
        let sink = self.sink.as_ref()?;
        if self.start < self.end {
            return Some(Waits::Writable(sink.fd.as_fd()));
        }
        self.source.as_ref().map(|source| Waits::Readable(source.fd.as_fd()))
    }

    /// Nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.waits().is_none()
    }

    /// Goes on, now that what it waits for has happened.
    pub fn advance(&mut self) {
        if self.start == self.end {
            self.read();
            // Whether this sink takes anything is known only after poll(2).
            if self.source.is_some() && self.sink.as_ref().is_some_and(|sink| sink.kind == Kind::Blocking) {
                return;
            }
        }
        while self.start < self.end && self.write() {}
        if self.source.is_none() && self.start == self.end {
            self.finish();
        }
    }

    fn read(&mut self) {
        let Some(source) = &self.source else { return };
        match source.read(&mut self.buffer) {
            Ok(0) => self.source = None,
            Ok(length) => (self.start, self.end) = (0, length),
            Err(cause) if is_transient(&cause) => {}
            // EIO is how a terminal says that its other side has closed; every error ends the stream.
            Err(_) => self.source = None,
        }
    }

    /// Whether more can be written at once.
    fn write(&mut self) -> bool {
        let Some(sink) = &self.sink else { return false };
        match sink.write(&self.buffer[self.start..self.end]) {
            Ok(length) => {
                self.start += length;
                sink.kind != Kind::Blocking
            }
            Err(cause) if is_transient(&cause) => false,
            Err(_) => {
                // Nobody reads any more: dropping the source tells the writer, who gets EPIPE or SIGPIPE.
                self.start = self.end;
                self.source = None;
                false
            }
        }
    }

    fn finish(&mut self) {
        let Some(sink) = self.sink.take() else { return };
        if self.shut_down_sink {
            // A peer that has gone already has seen the end.
            let _ = shutdown(sink.fd.as_raw_fd(), Shutdown::Write);
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
