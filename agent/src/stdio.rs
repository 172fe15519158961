//! A process's streams: pipes, sockets or a terminal in the container, and one vsock connection to the host for each.
//!
//! ```text
//!  process ── pipe ──▶ agent ── vsock ──▶ host         stdout, stderr
//!  process ◀── pipe ── agent ◀── vsock ── host         stdin
//!  process ◀── pty ──▶ agent ◀── vsock ──▶ host        terminal
//!  process ◀─ socket ─▶ agent ◀── vsock ──▶ host       descriptors from 3 on, which may be pipes too
//! ```
//!
//! In the container stdio is never a socket, because open("/dev/stdout") fails on a socket.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair},
        termios::{OutputFlags, SetArg, tcgetattr, tcsetattr},
    },
    unistd::{Uid, fchown, pipe2},
};
use stockade_protocol::{
    agent::Stream,
    container::{StreamKind, WindowSize},
};

use crate::{
    error::{Context, ErrorKind, Result, error},
    pump::{Progress, Pump},
};

/// Number of bytes that are read from a terminal after its process's end: more than a terminal holds.
const TERMINAL_CONTENT: usize = 64 << 10;

/// The ends of three pipes that a process gets as its fds 0–2.
#[derive(Debug)]
pub struct ProcessPipes {
    /// fd 0.
    pub stdin: OwnedFd,
    /// fd 1.
    pub stdout: OwnedFd,
    /// fd 2.
    pub stderr: OwnedFd,
}

/// The agent's side of a process's streams.
#[derive(Debug, Default)]
pub struct Stdio {
    channels: Vec<Channel>,
}

/// The kind of file that a stream is in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A pipe that the process reads.
    Input,
    /// A pipe that the process writes.
    Output,
    /// A socket: two directions, which end separately.
    Socket,
    /// A terminal: two directions, which end together.
    Terminal,
}

/// One stream.
#[derive(Debug)]
struct Channel {
    stream: Stream,
    shape: Shape,
    /// The agent's end, until its pumps take it.
    ours: Option<Rc<OwnedFd>>,
    /// The host's connection; it is kept until the process is forgotten, so that the host can read to the end.
    host: Option<Rc<OwnedFd>>,
    to_host: Option<Pump>,
    from_host: Option<Pump>,
}

impl Stdio {
    /// Makes three pipes, which belong to `owner` so that it can open /dev/stdout.
    pub fn pipes(owner: u32) -> Result<(Self, ProcessPipes)> {
        let mut stdio = Self::default();
        let mut make = || -> Result<_, Errno> {
            Ok(ProcessPipes {
                stdin: stdio.add(Stream::Stdin, Shape::Input, owner)?,
                stdout: stdio.add(Stream::Stdout, Shape::Output, owner)?,
                stderr: stdio.add(Stream::Stderr, Shape::Output, owner)?,
            })
        };
        let pipes = make().or_internal(|| "make the pipes of the standard streams".to_owned())?;
        Ok((stdio, pipes))
    }

    /// Adds the master of a terminal, which the process has made in its own devpts.
    pub fn add_terminal(&mut self, master: OwnedFd) -> Result<()> {
        let channel = Channel::new(Stream::Terminal, Shape::Terminal, master)
            .or_internal(|| "take the terminal over".to_owned())?;
        self.channels.push(channel);
        Ok(())
    }

    /// Adds the streams from descriptor 3 on; returns the process's ends.
    pub fn add_extra(&mut self, kinds: &[StreamKind], owner: u32) -> Result<Vec<Option<OwnedFd>>> {
        let shape = |kind: &StreamKind| match kind {
            StreamKind::Input => Some(Shape::Input),
            StreamKind::Output => Some(Shape::Output),
            StreamKind::Socket => Some(Shape::Socket),
            StreamKind::Null | StreamKind::Closed => None,
        };
        (0..=u16::MAX)
            .zip(kinds)
            .map(|(index, kind)| {
                shape(kind).map(|shape| self.add(Stream::Extra(index), shape, owner)).transpose()
            })
            .collect::<Result<_, _>>()
            .or_internal(|| "make the streams from descriptor 3 on".to_owned())
    }

    /// Adds a stream; returns the process's end, which `owner` may open again.
    fn add(&mut self, stream: Stream, shape: Shape, owner: u32) -> Result<OwnedFd, Errno> {
        let (ours, theirs) = match shape {
            Shape::Input => pipe2(OFlag::O_CLOEXEC).map(|(read, write)| (write, read))?,
            Shape::Output => pipe2(OFlag::O_CLOEXEC)?,
            Shape::Socket | Shape::Terminal => {
                socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?
            }
        };
        if owner != 0 {
            fchown(&theirs, Some(Uid::from_raw(owner)), None)?;
        }
        self.channels.push(Channel::new(stream, shape, ours)?);
        Ok(theirs)
    }

    /// The descriptors to watch for one stream.
    pub fn descriptors(&self, stream: Stream) -> Vec<Rc<OwnedFd>> {
        let channel = self.channels.iter().find(|channel| channel.stream == stream);
        channel.into_iter().flat_map(|channel| channel.ours.iter().chain(&channel.host).cloned()).collect()
    }

    /// Whether a stream can be connected to the host.
    pub fn can_attach(&self, stream: Stream) -> Result<()> {
        match self.channels.iter().find(|channel| channel.stream == stream) {
            Some(channel) if channel.host.is_none() => Ok(()),
            Some(_) => Err(error(ErrorKind::Exists, format!("the stream {stream:?} is attached already"))),
            None => Err(error(ErrorKind::NotFound, format!("the process has no stream {stream:?}"))),
        }
    }

    /// Connects a stream that [can be attached](Self::can_attach) to the host.
    pub fn attach(&mut self, stream: Stream, host: OwnedFd) {
        let Some(channel) = self.channels.iter_mut().find(|channel| channel.stream == stream) else { return };
        let Some(ours) = channel.ours.clone() else { return };
        let host = Rc::new(host);
        channel.host = Some(host.clone());
        match channel.shape {
            Shape::Input => channel.from_host = Some(Pump::splice(host, ours)),
            Shape::Output => channel.to_host = Some(Pump::splice(ours, host)),
            Shape::Socket | Shape::Terminal => {
                channel.from_host = Some(Pump::copy(host.clone(), ours.clone()));
                channel.to_host = Some(Pump::copy(ours, host));
            }
        }
    }

    /// Settles streams that nobody has attached by the start: their input is empty, and their output is read and
    /// dropped. Returns the streams that have to be watched for that.
    pub fn settle(&mut self) -> Vec<Stream> {
        let mut discarded = Vec::new();
        for channel in self.channels.iter_mut().filter(|channel| channel.host.is_none()) {
            match channel.shape {
                Shape::Input => channel.ours = None,
                Shape::Output | Shape::Socket | Shape::Terminal => {
                    channel.to_host = channel.ours.clone().map(Pump::discard);
                    discarded.push(channel.stream);
                }
            }
        }
        discarded
    }

    /// Moves what can be moved on one stream; true if more can be moved at once.
    pub fn run(&mut self, stream: Stream) -> bool {
        self.channels.iter_mut().find(|channel| channel.stream == stream).is_some_and(Channel::run)
    }

    /// Handles the end of the process: what it wrote still goes out, and what it has not read is dropped. Its pipes and
    /// sockets go on for others that have them open.
    pub fn end(&mut self) -> Vec<Stream> {
        for channel in &mut self.channels {
            match (channel.shape, &mut channel.to_host) {
                // The host's input is read as soon as there is some: only the process itself gets it.
                (Shape::Input, _) => (channel.ours, channel.from_host) = (None, None),
                // How much a terminal holds cannot be asked: part of it is on its way from one side to the other.
                (Shape::Terminal, Some(pump)) => {
                    channel.from_host = None;
                    pump.end_when_empty(TERMINAL_CONTENT);
                }
                (_, Some(pump)) => pump.settle_after_content(),
                (_, None) => (channel.ours, channel.from_host) = (None, None),
            }
        }
        self.channels.iter().map(|channel| channel.stream).collect()
    }

    /// Whether all output of the process has gone to the host, or the host takes no more.
    pub fn is_drained(&self) -> bool {
        self.channels.iter().all(|channel| channel.to_host.as_ref().is_none_or(Pump::is_settled))
    }

    /// Whether every stream has ended.
    pub fn is_over(&self) -> bool {
        self.channels.iter().all(|channel| channel.to_host.is_none())
    }

    /// The output streams that others have open after the process's end, with the number of bytes that have gone to the
    /// host.
    pub fn held(&self) -> Vec<(Stream, u64)> {
        let attached = self.channels.iter().filter(|channel| channel.host.is_some());
        attached.filter_map(|channel| Some((channel.stream, channel.to_host.as_ref()?.moved()))).collect()
    }

    /// Gives up all streams.
    pub fn close(&mut self) {
        self.channels.clear();
    }

    /// Makes the terminal leave newlines as they are.
    pub fn be_plain(&self) {
        let terminal = self.channels.iter().find(|channel| channel.stream == Stream::Terminal);
        if let Some(master) = terminal.and_then(|channel| channel.ours.as_ref()) {
            // A terminal that has hung up needs no settings.
            let _ = leave_newlines(master);
        }
    }

    /// Tells the terminal its size.
    pub fn resize(&self, size: WindowSize) {
        let terminal = self.channels.iter().find(|channel| channel.stream == Stream::Terminal);
        if let Some(master) = terminal.and_then(|channel| channel.ours.as_ref()) {
            // Nobody is told: a terminal that has hung up has no size.
            let _ = set_window_size(master, size);
        }
    }
}

impl Channel {
    fn new(stream: Stream, shape: Shape, ours: OwnedFd) -> Result<Self, Errno> {
        set_nonblocking(&ours)?;
        Ok(Self { stream, shape, ours: Some(Rc::new(ours)), host: None, to_host: None, from_host: None })
    }

    fn run(&mut self) -> bool {
        let input = self.from_host.as_mut().map(Pump::run);
        if let Some(end @ (Progress::Finished | Progress::Broken)) = input {
            self.from_host = None;
            self.end_input(end);
        }
        let output = self.to_host.as_mut().map(Pump::run);
        if let Some(end @ (Progress::Finished | Progress::Broken)) = output {
            self.to_host = None;
            self.end_output(end);
        }
        [input, output].contains(&Some(Progress::Yielded))
    }

    /// Ends the input: the host sends no more, or the process reads no more.
    fn end_input(&mut self, end: Progress) {
        match self.shape {
            // The process reads the end of its input when the pipe is closed.
            Shape::Input => self.ours = None,
            Shape::Socket => self.end_ours(Shutdown::Write),
            // The other side of the host's terminal is closed, so the process's terminal is hung up.
            Shape::Terminal if end == Progress::Finished => {
                self.end_host(Shutdown::Write);
                (self.ours, self.to_host) = (None, None);
            }
            Shape::Output | Shape::Terminal => {}
        }
        if end == Progress::Broken {
            self.end_host(Shutdown::Read);
        }
    }

    /// Ends the output: the process writes no more, or the host reads no more.
    fn end_output(&mut self, end: Progress) {
        self.end_host(Shutdown::Write);
        match (self.shape, end) {
            // The process may still want the input, although nobody reads its output.
            (Shape::Terminal, Progress::Broken) | (Shape::Socket, Progress::Finished) => {}
            (Shape::Socket, _) => self.end_ours(Shutdown::Read),
            _ => {
                self.ours = None;
                self.from_host = None;
            }
        }
    }

    fn end_ours(&self, how: Shutdown) {
        if let Some(ours) = &self.ours {
            // A peer that is gone already needs no end.
            let _ = shutdown(ours.as_raw_fd(), how);
        }
    }

    fn end_host(&self, how: Shutdown) {
        if let Some(host) = &self.host {
            // A connection that is gone already needs no end.
            let _ = shutdown(host.as_raw_fd(), how);
        }
    }
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

fn leave_newlines(terminal: &OwnedFd) -> Result<(), Errno> {
    let mut settings = tcgetattr(terminal)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(terminal, SetArg::TCSANOW, &settings)
}

nix::ioctl_write_ptr_bad!(tiocswinsz, libc::TIOCSWINSZ, libc::winsize);

/// Sets a terminal's size through either of its sides.
pub fn set_window_size(terminal: &OwnedFd, size: WindowSize) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which `size` is.
    unsafe { tiocswinsz(terminal.as_raw_fd(), &raw const size) }.map(drop)
}

#[cfg(test)]
#[path = "stdio_test.rs"]
mod tests;
