//! Moves bytes from one descriptor to another until the source is at its end or the sink is gone.
//!
//! Between a pipe and a socket the kernel moves the bytes itself (splice); a terminal needs a buffer.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{SpliceFFlags, splice},
    unistd::{read, write},
};

/// Largest number of bytes that one call of [`Pump::run`] moves before others have their turn.
const TURN: usize = 1 << 20;

/// Largest number of bytes of one system call.
const CHUNK: usize = 64 << 10;

/// Why [`Pump::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing can be moved until one side reports an event.
    Blocked,
    /// There may be more bytes, but it is the others' turn.
    Yielded,
    /// The source is at its end, and all its bytes have been written.
    Finished,
    /// The sink takes no more, or the source failed.
    Broken,
}

/// One direction of one stream. Both descriptors are non-blocking.
#[derive(Debug)]
pub struct Pump {
    source: Rc<OwnedFd>,
    means: Means,
    /// Bytes after which the pump is finished, wherever the source's end is.
    remaining: Option<usize>,
    /// Whether it is finished when the source is empty.
    ends_when_empty: bool,
    /// Bytes that the sink has taken.
    moved: u64,
    settling: Settling,
}

/// The progress of a pump with the bytes that its source held when its process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    /// The process has not ended.
    No,
    /// This number of bytes still has to be read; with 0, the source's end still has to be looked for.
    Left(usize),
    /// The sink has all these bytes, but the source is not at its end: another process has it open.
    Done,
}

#[derive(Debug)]
enum Means {
    Splice(Rc<OwnedFd>),
    Copy { sink: Rc<OwnedFd>, buffer: Box<[u8]>, filled: std::ops::Range<usize> },
    Discard(Box<[u8]>),
}

impl Pump {
    /// A pump between a pipe and any other descriptor.
    pub fn splice(source: Rc<OwnedFd>, sink: Rc<OwnedFd>) -> Self {
        Self::new(source, Means::Splice(sink))
    }

    /// A pump between any two descriptors.
    pub fn copy(source: Rc<OwnedFd>, sink: Rc<OwnedFd>) -> Self {
        let buffer = vec![0; CHUNK].into_boxed_slice();
        Self::new(source, Means::Copy { sink, buffer, filled: 0..0 })
    }

    /// A pump that discards bytes, so that the writer does not block.
    pub fn discard(source: Rc<OwnedFd>) -> Self {
        Self::new(source, Means::Discard(vec![0; CHUNK].into_boxed_slice()))
    }

    fn new(source: Rc<OwnedFd>, means: Means) -> Self {
        Self { source, means, remaining: None, ends_when_empty: false, moved: 0, settling: Settling::No }
    }

    /// Makes the pump [settle](Self::is_settled) after the bytes that the source, a pipe or socket, holds now, and then
    /// go on for other processes that have it open.
    pub fn settle_after_content(&mut self) {
        self.settling = Settling::Left(readable_bytes(&self.source));
    }

    /// Whether all bytes of the process have been moved, and others have the source open.
    pub fn is_settled(&self) -> bool {
        self.settling == Settling::Done
    }

    /// Number of bytes that the sink has taken.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Makes the pump finish as soon as the source is empty, and after `most` bytes at the latest. This does not work
    /// for a splice, which does not distinguish an empty source from a full sink.
    pub fn end_when_empty(&mut self, most: usize) {
        self.remaining = Some(most);
        self.ends_when_empty = true;
    }

    /// Moves what can be moved now.
    pub fn run(&mut self) -> Progress {
        let mut turn = TURN;
        while turn > 0 {
            let most = CHUNK.min(self.remaining.unwrap_or(CHUNK));
            if most == 0 && !self.holds_bytes() {
                return Progress::Finished;
            }
            match self.step(most) {
                Ok(Step::Read(0)) => return Progress::Finished,
                Ok(Step::Read(count)) => {
                    turn = turn.saturating_sub(count);
                    self.remaining = self.remaining.map(|remaining| remaining - count);
                    self.settling = match self.settling {
                        // Bytes after the process's last byte come from other processes.
                        Settling::Left(0) => Settling::Done,
                        Settling::Left(left) => Settling::Left(left.saturating_sub(count)),
                        other => other,
                    };
                }
                Ok(Step::Wrote) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.settling == Settling::Left(0) && !self.holds_bytes() => {
                    self.settling = Settling::Done;
                    return Progress::Blocked;
                }
                Err(Errno::EAGAIN) if self.ends_when_empty && !self.holds_bytes() => {
                    return Progress::Finished;
                }
                Err(Errno::EAGAIN) => return Progress::Blocked,
                // Reading a terminal's master fails with EIO when nobody has the other side open any more.
                Err(Errno::EIO) if matches!(self.means, Means::Copy { .. }) => return Progress::Finished,
                Err(_) => return Progress::Broken,
            }
        }
        Progress::Yielded
    }

    fn holds_bytes(&self) -> bool {
        matches!(&self.means, Means::Copy { filled, .. } if filled.start < filled.end)
    }

    fn step(&mut self, most: usize) -> Result<Step, Errno> {
        match &mut self.means {
            Means::Splice(sink) => {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
                let count = splice(self.source.as_fd(), None, sink.as_fd(), None, most, flags)?;
                self.moved += count as u64;
                Ok(Step::Read(count))
            }
            Means::Copy { sink, buffer, filled } if filled.start < filled.end => {
                let count = write(sink.as_fd(), &buffer[filled.clone()])?;
                filled.start += count;
                self.moved += count as u64;
                Ok(Step::Wrote)
            }
            Means::Copy { buffer, filled, .. } => {
                let count = read(self.source.as_fd(), &mut buffer[..most])?;
                *filled = 0..count;
                Ok(Step::Read(count))
            }
            Means::Discard(buffer) => read(self.source.as_fd(), &mut buffer[..most]).map(Step::Read),
        }
    }
}

enum Step {
    Read(usize),
    Wrote,
}

nix::ioctl_read_bad!(fionread, libc::FIONREAD, libc::c_int);

/// Bytes that can be read from a pipe or socket without blocking.
fn readable_bytes(source: &OwnedFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores one int, which `count` is.
    let result = unsafe { fionread(source.as_raw_fd(), &raw mut count) };
    if result.is_ok() { count.max(0) as usize } else { 0 }
}

#[cfg(test)]
#[path = "pump_test.rs"]
mod tests;
