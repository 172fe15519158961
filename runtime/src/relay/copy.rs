//! One direction of stdio: bytes from one descriptor to another, never blocking, at most one buffer in between.
//!
//! Between a pipe and a connection to the VM the kernel moves the bytes itself (splice), which saves two copies of
//! every byte.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::SFlag;

/// Largest number of bytes in flight in one direction: a writer whose reader is slow has to wait then.
const BUFFER: usize = 64 << 10;

/// Largest number of bytes of one splice; a pipe takes less.
const SPLICE: usize = 1 << 20;

/// Number of bytes that a pipe accepts without blocking once poll(2) has reported it writable.
const ATOMIC: usize = 4096;

/// One end of a copy.
#[derive(Debug)]
struct End {
    fd: OwnedFd,
    kind: Kind,
    is_pipe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A socket, used with MSG_DONTWAIT.
    Socket,
    /// A file that is open with O_NONBLOCK.
    NonBlocking,
    /// A file that may block: it is written in pieces that do not block after poll(2).
    Blocking,
}

impl End {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let mode = SFlag::from_bits_truncate(status(&fd)?.st_mode & SFlag::S_IFMT.bits());
        let kind = if mode == SFlag::S_IFSOCK {
            Kind::Socket
        } else if fcntl_flags(&fd).is_some_and(|flags| flags & libc::O_NONBLOCK != 0) {
            Kind::NonBlocking
        } else {
            Kind::Blocking
        };
        Ok(Self { fd, kind, is_pipe: mode == SFlag::S_IFIFO })
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
    means: Means,
    shut_down_sink: bool,
    /// Bytes that the sink has taken.
    passed: u64,
    /// The copy pauses after this number of bytes.
    pause: Option<u64>,
}

/// The rest of a paused copy, for another process.
#[derive(Debug)]
pub struct Rest {
    /// Where to go on reading.
    pub source: OwnedFd,
    /// Where to write to.
    pub sink: OwnedFd,
    /// As in [`Copy::new`].
    pub shut_down_sink: bool,
}

#[derive(Debug)]
enum Means {
    /// By the kernel. It does not say which of the two sides it would have to wait for: after one, the other is tried.
    Splice { awaits_sink: bool },
    /// By a buffer, whose bytes from `start` to `end` still have to be written.
    Buffer { bytes: Box<[u8]>, start: usize, end: usize },
}

impl Means {
    fn buffer() -> Self {
        Self::Buffer { bytes: vec![0; BUFFER].into(), start: 0, end: 0 }
    }

    /// The best way for these two ends.
    fn between(source: &End, sink: &End) -> Self {
        // splice(2) blocks on a blocking socket, and sockets of others must stay blocking.
        let is_connection = |end: &End| {
            end.kind == Kind::Socket
                && fcntl_flags(&end.fd).is_some_and(|flags| flags & libc::O_NONBLOCK != 0)
        };
        if (source.is_pipe && is_connection(sink)) || (is_connection(source) && sink.is_pipe) {
            Self::Splice { awaits_sink: false }
        } else {
            Self::buffer()
        }
    }
}

/// The condition that a copy waits for.
#[derive(Clone, Copy, Debug)]
pub enum Waits<'a> {
    /// This descriptor becomes readable.
    Readable(BorrowedFd<'a>),
    /// This descriptor becomes writable.
    Writable(BorrowedFd<'a>),
}

impl Copy {
    /// Copies from `source` to `sink`, which is closed at the end, or shut down for writing if it is a socket that
    /// something else still uses.
    ///
    /// # Errors
    /// fstat(2)'s.
    pub fn new(
        source: impl Into<OwnedFd>,
        sink: impl Into<OwnedFd>,
        shut_down_sink: bool,
    ) -> io::Result<Self> {
        let (source, sink) = (End::new(source.into())?, End::new(sink.into())?);
        let means = Means::between(&source, &sink);
        Ok(Self { source: Some(source), sink: Some(sink), means, shut_down_sink, passed: 0, pause: None })
    }

    /// What the copy waits for; `None` when it is done or has paused.
    pub fn waits(&self) -> Option<Waits<'_>> {
        let sink = self.sink.as_ref()?;
        let has_paused = self.pause.is_some_and(|after| self.passed >= after);
        let writes = match &self.means {
            Means::Splice { .. } if has_paused => return None,
            Means::Splice { awaits_sink } => *awaits_sink,
            Means::Buffer { start, end, .. } if start == end && has_paused => return None,
            Means::Buffer { start, end, .. } => start < end,
        };
        if writes {
            return Some(Waits::Writable(sink.fd.as_fd()));
        }
        self.source.as_ref().map(|source| Waits::Readable(source.fd.as_fd()))
    }

    /// Makes the copy pause when this number of bytes has passed, which may already be the case; what it has read by
    /// then is still written. `None` makes it go on.
    pub fn pause_after(&mut self, bytes: Option<u64>) {
        self.pause = bytes;
    }

    /// The rest of the copy; `None` when it is done.
    pub fn into_rest(self) -> Option<Rest> {
        let (source, sink) = self.source.zip(self.sink)?;
        Some(Rest { source: source.fd, sink: sink.fd, shut_down_sink: self.shut_down_sink })
    }

    /// The descriptor that it writes to; `None` when it is done.
    pub fn sink(&self) -> Option<BorrowedFd<'_>> {
        self.sink.as_ref().map(|sink| sink.fd.as_fd())
    }

    /// Whether it writes to the file of this descriptor.
    pub fn writes_to(&self, file: &OwnedFd) -> bool {
        let id = |stat: libc::stat| (stat.st_dev, stat.st_ino);
        let sink = self.sink.as_ref().and_then(|sink| status(&sink.fd).ok());
        sink.map(id).is_some_and(|sink| status(file).is_ok_and(|file| id(file) == sink))
    }

    /// Whether nothing is left to do, at least for this process.
    pub fn is_done(&self) -> bool {
        self.waits().is_none()
    }

    /// Goes on after the condition that it waits for has come true.
    pub fn advance(&mut self) {
        let is_over = match &self.means {
            Means::Splice { .. } => self.splice(),
            Means::Buffer { .. } => self.copy(),
        };
        if is_over {
            self.source = None;
            self.finish();
        }
    }

    /// Moves bytes by splice(2); true at the end of either side.
    fn splice(&mut self) -> bool {
        let (Some(source), Some(sink)) = (&self.source, &self.sink) else { return true };
        let Means::Splice { awaits_sink } = &mut self.means else { return false };
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(&source.fd, None, &sink.fd, None, SPLICE, flags) {
            Ok(0) => return true,
            Ok(count) => {
                *awaits_sink = false;
                self.passed += count as u64;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => *awaits_sink = !*awaits_sink,
            Err(Errno::EINVAL) => self.means = Means::buffer(),
            // Nobody reads any more: dropping the source tells the writer, who gets EPIPE or SIGPIPE.
            Err(_) => return true,
        }
        false
    }

    /// Copies bytes through the buffer; true at the end of either side.
    fn copy(&mut self) -> bool {
        let (Some(source), Some(sink)) = (&self.source, &self.sink) else { return true };
        let Means::Buffer { bytes, start, end } = &mut self.means else { return false };
        if start == end {
            match source.read(bytes) {
                Ok(0) => return true,
                Ok(length) => (*start, *end) = (0, length),
                Err(cause) if is_transient(&cause) => return false,
                // EIO is how a terminal says that its other side has closed; every error ends the stream.
                Err(_) => return true,
            }
            // Whether this sink takes anything is known only after poll(2).
            if sink.kind == Kind::Blocking {
                return false;
            }
        }
        while start < end {
            match sink.write(&bytes[*start..*end]) {
                Ok(length) => {
                    *start += length;
                    self.passed += length as u64;
                }
                Err(cause) if is_transient(&cause) => return false,
                // As above: nobody reads any more.
                Err(_) => return true,
            }
            if sink.kind == Kind::Blocking {
                return false;
            }
        }
        false
    }

    fn finish(&mut self) {
        let Some(sink) = self.sink.take() else { return };
        if self.shut_down_sink {
            // A peer that has gone already has seen the end.
            let _ = shutdown(sink.fd.as_raw_fd(), Shutdown::Write);
        }
    }
}

/// The C library's fstat(2) is newfstatat(2), whose path a relay's filter could not check.
fn status(fd: &OwnedFd) -> io::Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills in one structure, for which all zeros is a value.
    unsafe {
        if libc::syscall(libc::SYS_fstat, fd.as_raw_fd(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.assume_init())
    }
}

fn fcntl_flags(fd: &OwnedFd) -> Option<i32> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    (flags >= 0).then_some(flags)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
