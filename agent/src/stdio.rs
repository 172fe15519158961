//! A process's stdio: in the container pipes or a terminal, to the host one vsock connection per stream.
//!
//! ```text
//!  process ── pipe ──▶ agent ── vsock ──▶ host      stdout, stderr
//!  process ◀── pipe ── agent ◀── vsock ── host      stdin
//!  process ◀── pty ──▶ agent ◀── vsock ──▶ host     terminal
//! ```
//!
//! In the container they are never sockets, because open("/dev/stdout") fails on a socket.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{Shutdown, shutdown},
    unistd::{Uid, fchown, pipe2},
};
use stockade_protocol::agent::{Stream, WindowSize};

use crate::{
    error::{Context, ErrorKind, Result, error},
    pump::{Progress, Pump},
};

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

/// One stream.
#[derive(Debug)]
struct Channel {
    stream: Stream,
    /// The agent's end of the pipe or terminal, until its pumps have it.
    ours: Option<Rc<OwnedFd>>,
    /// The host's connection; kept until the process is forgotten, so that the host reads to the end.
    host: Option<Rc<OwnedFd>>,
    to_host: Option<Pump>,
    from_host: Option<Pump>,
}

impl Stdio {
    /// Three pipes, owned by `owner` so that it can open /dev/stdout.
    pub fn pipes(owner: u32) -> Result<(Self, ProcessPipes)> {
        let make = || -> Result<_, Errno> {
            let (stdin, our_stdin) = pipe2(OFlag::O_CLOEXEC)?;
            let (our_stdout, stdout) = pipe2(OFlag::O_CLOEXEC)?;
            let (our_stderr, stderr) = pipe2(OFlag::O_CLOEXEC)?;
            if owner != 0 {
                for end in [&stdin, &stdout, &stderr] {
                    fchown(end, Some(Uid::from_raw(owner)), None)?;
                }
            }
            let channels =
                [(Stream::Stdin, our_stdin), (Stream::Stdout, our_stdout), (Stream::Stderr, our_stderr)]
                    .into_iter()
                    .map(|(stream, ours)| Channel::new(stream, ours))
                    .collect::<Result<_, _>>()?;
            Ok((Self { channels }, ProcessPipes { stdin, stdout, stderr }))
        };
        make().or_internal(|| "make the pipes of the standard streams".to_owned())
    }

    /// The master of a terminal, which the process has made in its own devpts.
    pub fn terminal(master: OwnedFd) -> Result<Self> {
        let channel =
            Channel::new(Stream::Terminal, master).or_internal(|| "take the terminal over".to_owned())?;
        Ok(Self { channels: vec![channel] })
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
        match stream {
            Stream::Stdin => channel.from_host = Some(Pump::splice(host, ours)),
            Stream::Stdout | Stream::Stderr => channel.to_host = Some(Pump::splice(ours, host)),
            Stream::Terminal => {
                channel.from_host = Some(Pump::copy(host.clone(), ours.clone()));
                channel.to_host = Some(Pump::copy(ours, host));
            }
            Stream::Extra(_) => {}
        }
    }

    /// What nobody has attached by the start is empty input, and output that is read and dropped.
    /// Returns the streams that are to be watched for that.
    pub fn settle(&mut self) -> Vec<Stream> {
        let mut discarded = Vec::new();
        for channel in self.channels.iter_mut().filter(|channel| channel.host.is_none()) {
            match channel.stream {
                Stream::Stdin => channel.ours = None,
                Stream::Stdout | Stream::Stderr | Stream::Terminal | Stream::Extra(_) => {
                    channel.to_host = channel.ours.clone().map(Pump::discard);
                    discarded.push(channel.stream);
                }
            }
        }
        discarded
    }

    /// Moves what can be moved on one stream; true if there may be more at once.
    pub fn run(&mut self, stream: Stream) -> bool {
        self.channels.iter_mut().find(|channel| channel.stream == stream).is_some_and(Channel::run)
    }

    /// The process has ended: what it wrote still goes out, what it has not read is dropped.
    pub fn end(&mut self) -> Vec<Stream> {
        for channel in &mut self.channels {
            channel.from_host = None;
            match (channel.stream, &mut channel.to_host) {
                (Stream::Stdin, _) => channel.ours = None,
                // The kernel hangs a terminal up when its session's leader ends, which is an end of its own.
                (Stream::Terminal, _) => {}
                (_, Some(pump)) => pump.end_after_content(),
                (_, None) => channel.ours = None,
            }
        }
        self.channels.iter().map(|channel| channel.stream).collect()
    }

    /// All output has been written to the host, or there is nobody to write it to.
    pub fn is_drained(&self) -> bool {
        self.channels.iter().all(|channel| channel.to_host.is_none())
    }

    /// Gives up all streams.
    pub fn close(&mut self) {
        self.channels.clear();
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
    fn new(stream: Stream, ours: OwnedFd) -> Result<Self, Errno> {
        set_nonblocking(&ours)?;
        Ok(Self { stream, ours: Some(Rc::new(ours)), host: None, to_host: None, from_host: None })
    }

    fn run(&mut self) -> bool {
        let input = self.from_host.as_mut().map(Pump::run);
        if matches!(input, Some(Progress::Finished | Progress::Broken)) {
            self.from_host = None;
            if self.stream == Stream::Stdin {
                // Closing the pipe is how the process reads the end of its input.
                self.ours = None;
            }
            if input == Some(Progress::Broken) {
                self.end_host(Shutdown::Read);
            }
        }
        let output = self.to_host.as_mut().map(Pump::run);
        if matches!(output, Some(Progress::Finished | Progress::Broken)) {
            self.to_host = None;
            self.end_host(Shutdown::Write);
            if self.stream != Stream::Terminal || output == Some(Progress::Finished) {
                self.ours = None;
                self.from_host = None;
            }
        }
        [input, output].contains(&Some(Progress::Yielded))
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
