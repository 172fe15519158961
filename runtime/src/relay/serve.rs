//! The relay's loop: it copies stdio in both directions, passes signals to the guest, and ends when the process ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::{SignalFd, siginfo};
use stockade_protocol::agent::{NOTIFY_LIMIT, ProcessCommand, ProcessEvent, Stream};
use stockade_protocol::frame::{self, FrameBuffer};

use super::console_log;
use super::copy::{Copy, Waits};
use super::held_streams::{self, Adopted};
use super::messages::Message;
use super::notify::Notifier;
use super::preserve_fds::StreamEnds;
use super::service::Running;
use crate::sys::terminal::Window;

/// Exit status when the VM is gone: as after SIGKILL.
const KILLED: u8 = 128 + libc::SIGKILL as u8;

/// Largest number of bytes of commands that wait for a guest that does not read them; further signals are lost.
const MAX_COMMANDS: usize = 16 << 10;

/// Longest event of the agent, in bytes: a datagram for the service manager, with its framing.
const MAX_EVENT: usize = NOTIFY_LIMIT + 16;

/// The events to watch for on the lease: only POLLHUP, which poll(2) always reports. Status packets are for the
/// creator, which shares the socket.
const CLOSED: PollFlags = PollFlags::empty();

/// What the relay holds besides its stdio.
#[derive(Debug)]
pub(crate) struct Ends {
    /// All signals that are sent to the relay.
    pub signals: SignalFd,
    /// The socket to the command that has made the relay.
    pub creator: OwnedFd,
    /// The socket to the VMM, which lives while this is open. Without it, only the end of the connections tells of the
    /// VM's end.
    pub lease: Option<OwnedFd>,
    /// The file for the VMM's last message, if there is a lease.
    pub console_log: Option<File>,
    /// The terminal on the host, where the process has one.
    pub window: Option<Window>,
    /// Whether the terminal was made for an engine: when the engine closes it, the process's terminal is hung up.
    pub hangs_up: bool,
    /// The streams that are relayed besides stdio.
    pub streams: Vec<StreamEnds>,
    /// Passes on the container's notifications.
    pub notifier: Option<Notifier>,
    /// The services that the relay offers.
    pub services: Vec<Box<dyn Running>>,
    /// Descriptors that watch directories of the host, whose changes are reported to the agent.
    pub watches: Vec<OwnedFd>,
    /// The streams that other relays leave to this one.
    pub adopted: Option<Adopted>,
    /// The socket of the relay to which this one leaves streams that outlive its process.
    pub heir: Option<OwnedFd>,
}

/// Serves until the process has ended and its output is delivered; returns the exit status.
pub(crate) fn serve(ends: Ends) -> i32 {
    let status = match connections(&ends) {
        Ok(Some(connections)) => match Relay::new(ends, connections, [0, 1, 2].map(stdio)) {
            Ok(mut relay) => relay.run().unwrap_or(KILLED),
            Err(_) => KILLED,
        },
        // There is nobody left to tell.
        Ok(None) | Err(_) => KILLED,
    };
    status.into()
}

/// Waits for the connections to the agent; `None` when the creator or the VM is gone before they come.
fn connections(ends: &Ends) -> io::Result<Option<Vec<OwnedFd>>> {
    loop {
        let mut fds = vec![
            PollFd::new(ends.creator.as_fd(), PollFlags::POLLIN),
            PollFd::new(ends.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(ends.lease.as_ref().map(|lease| PollFd::new(lease.as_fd(), CLOSED)));
        wait(&mut fds)?;
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd: &PollFd<'_>| fd.any().unwrap_or(false));
        let (creator, lease) = (is_ready(0), is_ready(2));
        if creator {
            return Ok(match Message::receive(ends.creator.as_fd())? {
                Some((Message::Connections, connections)) => Some(connections),
                _ => None,
            });
        }
        if lease {
            return Ok(None);
        }
        while ends.signals.read_signal()?.is_some() {}
    }
}

fn wait(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    loop {
        match poll(fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop).map_err(Into::into),
        }
    }
}

pub(crate) struct Relay {
    signals: SignalFd,
    /// The socket to the creator; `None` once the creator has committed.
    creator: Option<OwnedFd>,
    lease: Option<OwnedFd>,
    console_log: Option<File>,
    process: Option<UnixStream>,
    events: FrameBuffer,
    commands: Vec<u8>,
    inputs: Vec<Copy>,
    outputs: Vec<Copy>,
    /// The stream of each output, with the index of the input that belongs to it if the stream is a socket.
    streams: Vec<(Stream, Option<usize>)>,
    /// Indices of outputs that other processes still use.
    held: Vec<usize>,
    adopted: Option<Adopted>,
    heir: Option<OwnedFd>,
    /// The terminal whose size is sent to the guest, if there is one.
    window: Option<Window>,
    notifier: Option<Notifier>,
    services: Vec<Box<dyn Running>>,
    /// Kept open because they cause SIGIO when a directory changes.
    _watches: Vec<OwnedFd>,
    ended: Option<u8>,
}

/// What a descriptor in the poll set stands for.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Creator,
    Lease,
    Process,
    Input(usize),
    Output(usize),
    Left,
    Adopted(usize),
    Service { service: usize, index: usize },
}

impl Relay {
    pub(crate) fn new(
        ends: Ends,
        connections: Vec<OwnedFd>,
        [stdin, stdout, stderr]: [OwnedFd; 3],
    ) -> io::Result<Self> {
        let mut connections = connections.into_iter().map(UnixStream::from);
        let mut next = || -> io::Result<UnixStream> {
            let connection = connections.next().ok_or(io::ErrorKind::InvalidData)?;
            connection.set_nonblocking(true)?;
            Ok(connection)
        };
        let process = next()?;
        let (input, mut outputs, mut streams) = if ends.window.is_some() {
            let stream = next()?;
            let output = Copy::new(stream.try_clone()?, stdout, false)?;
            // A person's terminal does not end when its input ends; there may be no input at all.
            (Copy::new(stdin, stream, ends.hangs_up)?, vec![output], vec![(Stream::Terminal, None)])
        } else {
            let input = Copy::new(stdin, next()?, true)?;
            let outputs = vec![Copy::new(next()?, stdout, false)?, Copy::new(next()?, stderr, false)?];
            (input, outputs, vec![(Stream::Stdout, None), (Stream::Stderr, None)])
        };
        let mut inputs = vec![input];
        for StreamEnds { index, source, sink, is_socket } in ends.streams {
            let stream = next()?;
            if let Some(sink) = sink {
                outputs.push(Copy::new(stream.try_clone()?, sink, is_socket)?);
                streams.push((Stream::Extra(index), source.is_some().then_some(inputs.len())));
            }
            if let Some(source) = source {
                inputs.push(Copy::new(source, stream, true)?);
            }
        }
        let mut relay = Self {
            signals: ends.signals,
            creator: Some(ends.creator),
            lease: ends.lease,
            console_log: ends.console_log,
            process: Some(process),
            events: FrameBuffer::new(MAX_EVENT),
            commands: Vec::new(),
            inputs,
            outputs,
            streams,
            held: Vec::new(),
            adopted: ends.adopted,
            heir: ends.heir,
            window: ends.window,
            notifier: ends.notifier,
            services: ends.services,
            _watches: ends.watches,
            ended: None,
        };
        relay.resize();
        // The agent knows the container now.
        relay.services.iter_mut().for_each(|service| service.start());
        Ok(relay)
    }

    pub(crate) fn run(&mut self) -> io::Result<u8> {
        loop {
            if let Some(status) = self.ended
                && self.outputs.iter().all(Copy::is_done)
            {
                self.leave_streams();
                return Ok(status);
            }
            for source in self.poll()? {
                match source {
                    Source::Signals => self.read_signals()?,
                    Source::Creator if self.is_orphaned() => {
                        self.window.iter().for_each(Window::restore);
                        return Ok(KILLED);
                    }
                    Source::Creator => {}
                    Source::Lease => self.lose_vm(),
                    Source::Process => self.talk_to_agent(),
                    Source::Input(index) => self.inputs[index].advance(),
                    Source::Output(index) => self.outputs[index].advance(),
                    Source::Left => self.adopted.iter_mut().for_each(Adopted::receive),
                    Source::Adopted(index) => {
                        self.adopted.iter_mut().for_each(|adopted| adopted.copies[index].advance());
                    }
                    Source::Service { service, index } => self.services[service].advance(index),
                }
            }
        }
    }

    /// Waits until something can be done, and returns what.
    fn poll(&self) -> io::Result<Vec<Source>> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut sources = vec![Source::Signals];
        let mut add = |fd, flags, source| {
            fds.push(PollFd::new(fd, flags));
            sources.push(source);
        };
        if let Some(creator) = &self.creator {
            add(creator.as_fd(), PollFlags::POLLIN, Source::Creator);
        }
        if let Some(lease) = &self.lease {
            add(lease.as_fd(), CLOSED, Source::Lease);
        }
        if let Some(process) = &self.process {
            let output = if self.commands.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            add(process.as_fd(), PollFlags::POLLIN | output, Source::Process);
        }
        let outputs = self.outputs.iter().enumerate().map(|(index, copy)| (copy, Source::Output(index)));
        let inputs = self.inputs.iter().enumerate().map(|(index, copy)| (copy, Source::Input(index)));
        let adopted = self.adopted.iter().flat_map(|adopted| adopted.copies.iter().enumerate());
        let adopted = adopted.map(|(index, copy)| (copy, Source::Adopted(index)));
        // Last, because it changes the places of the others.
        let left = self.adopted.as_ref().map(AsFd::as_fd);
        for (copy, source) in outputs.chain(inputs).chain(adopted) {
            match copy.waits() {
                Some(Waits::Readable(fd)) => add(fd, PollFlags::POLLIN, source),
                Some(Waits::Writable(fd)) => add(fd, PollFlags::POLLOUT, source),
                None => {}
            }
        }
        if let Some(left) = left {
            add(left, PollFlags::POLLIN, Source::Left);
        }
        for (service, running) in self.services.iter().enumerate() {
            for (index, fd) in running.polled().into_iter().enumerate() {
                add(fd, PollFlags::POLLIN, Source::Service { service, index });
            }
        }
        wait(&mut fds)?;
        Ok(fds
            .iter()
            .zip(sources)
            .filter(|(fd, _)| fd.any().unwrap_or(true))
            .map(|(_, source)| source)
            .collect())
    }

    fn read_signals(&mut self) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            match info.ssi_signo as i32 {
                libc::SIGCHLD if info.ssi_code > libc::SI_USER => reap(),
                libc::SIGIO if info.ssi_code > libc::SI_USER => self.command(ProcessCommand::Changed),
                libc::SIGWINCH if self.window.is_some() => self.resize(),
                signal if is_for_the_process(&info) => self.command(ProcessCommand::Signal(signal)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends the size of the host's terminal to the guest's.
    fn resize(&mut self) {
        if let Some(size) = self.window.as_ref().and_then(Window::size) {
            self.command(ProcessCommand::Resize(size));
        }
    }

    fn command(&mut self, command: ProcessCommand) {
        queue(&mut self.commands, &command);
    }

    /// Reads the creator's message; true if the creator has died without a commit.
    fn is_orphaned(&mut self) -> bool {
        let Some(creator) = &self.creator else { return false };
        let has_committed = matches!(Message::receive(creator.as_fd()), Ok(Some((Message::Commit, _))));
        if has_committed {
            self.creator = None;
        }
        !has_committed
    }

    /// Handles the VMM's end. What it has delivered is still on the streams, which then end.
    fn lose_vm(&mut self) {
        self.keep_console_log();
        self.lease = None;
        self.process = None;
        self.ended.get_or_insert(KILLED);
        self.held.clear();
        self.outputs.iter_mut().for_each(|output| output.pause_after(None));
    }

    /// Handles an output that other processes have open: it is copied up to the last byte of this process, and then
    /// left to the heir.
    fn hold(&mut self, stream: Stream, sent: u64) {
        let output = self.streams.iter().position(|(output, _)| *output == stream);
        if let Some(output) = output.filter(|_| stream != Stream::Terminal) {
            self.outputs[output].pause_after(Some(sent));
            if !self.held.contains(&output) {
                self.held.push(output);
            }
        }
    }

    /// Leaves the streams that go on after this relay's end to its heir.
    fn leave_streams(&mut self) {
        let Some(heir) = self.heir.take() else { return };
        let mut outputs: Vec<_> = self.outputs.drain(..).map(Some).collect();
        let mut inputs: Vec<_> = self.inputs.drain(..).map(Some).collect();
        for index in self.held.drain(..) {
            let input = self.streams[index].1.and_then(|input| inputs[input].take());
            let copies = outputs[index].take().into_iter().chain(input);
            copies.for_each(|copy| held_streams::leave(&heir, copy));
        }
        let adopted = self.adopted.take().map(|adopted| adopted.copies).unwrap_or_default();
        adopted.into_iter().for_each(|copy| held_streams::leave(&heir, copy));
    }

    fn keep_console_log(&mut self) {
        if let (Some(lease), Some(file)) = (&self.lease, self.console_log.take()) {
            console_log::keep(lease.as_fd(), file);
        }
    }

    fn talk_to_agent(&mut self) {
        if let Err(_gone) = self.exchange() {
            self.keep_console_log();
            self.process = None;
            self.ended.get_or_insert(KILLED);
        }
    }

    /// Writes waiting commands and reads events of the agent; an error ends the connection.
    fn exchange(&mut self) -> io::Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        while !self.commands.is_empty() {
            match process.write(&self.commands) {
                Ok(length) => drop(self.commands.drain(..length)),
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break,
                Err(cause) => return Err(cause),
            }
        }
        let mut bytes = [0; 1024];
        match process.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.events.extend(&bytes[..length]),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            Err(cause) => return Err(cause),
        }
        let mut held = Vec::new();
        while let Some(event) = self.events.next().map_err(io::Error::other)? {
            match event {
                ProcessEvent::Ended(status) => {
                    self.ended = Some(status.code());
                    self.process = None;
                }
                ProcessEvent::Held { stream, sent } => held.push((stream, sent)),
                ProcessEvent::Notify(datagram) => {
                    self.notifier.iter().for_each(|notifier| notifier.pass_on(&datagram));
                }
            }
        }
        held.into_iter().for_each(|(stream, sent)| self.hold(stream, sent));
        Ok(())
    }
}

/// Adds a command to those that wait, if there is room.
fn queue(commands: &mut Vec<u8>, command: &ProcessCommand) {
    if let Ok(frame) = frame::encode(command)
        && commands.len() + frame.len() <= MAX_COMMANDS
    {
        commands.extend_from_slice(&frame);
    }
}

/// A descriptor of stdio as an owned one: the copy that uses it closes it at its end.
fn stdio(number: i32) -> OwnedFd {
    // SAFETY: descriptors 0 to 2 are the relay's own, and each is taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Whether a signal is for the process: one that a process has sent. Signals of the kernel (SIGPIPE for a closed
/// stdout, SIGHUP from the terminal) are for the relay itself.
fn is_for_the_process(info: &siginfo) -> bool {
    info.ssi_code <= libc::SI_USER
}

/// Reaps children that have ended: engines' helpers that entered this PID namespace and were orphaned.
fn reap() {
    // SAFETY: a null pointer for the status is allowed. nix's waitpid fails for who ended by a real-time signal.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

#[cfg(test)]
#[path = "serve_test.rs"]
mod tests;
