//! The channel between a new process and the agent: it reports that its surroundings are made (with its terminal),
//! or what failed; it waits for one byte, the start; execve closes the channel, so its end says that the program runs.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, CmsgIterator, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
        recvmsg, sendmsg, socketpair,
    },
};
use stockade_protocol::frame;

use crate::error::{AgentError, Context, ErrorKind, Result, error};

/// Longest report, in bytes.
const REPORT_LIMIT: usize = 64 << 10;

/// What a new process has to say.
#[derive(Debug)]
pub enum Report {
    /// Nothing new.
    None,
    /// Its surroundings are made.
    Built {
        /// What could not be applied.
        warnings: Vec<String>,
        /// The master of its terminal.
        terminal: Option<OwnedFd>,
    },
    /// A step failed, and it ends.
    Failed(AgentError),
    /// It has executed its program, or has been killed.
    Closed,
}

/// The agent's end and the process's.
pub fn channel() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .or_internal(|| "make a socket pair".to_owned())
}

/// Tells the agent: the warnings, or what failed.
pub fn send(
    channel: &OwnedFd,
    message: &Result<Vec<String>, AgentError>,
    master: Option<OwnedFd>,
) -> Result<()> {
    let frame = frame::encode(message)
        .map_err(|cause| error(ErrorKind::Internal, format!("report to the agent: {cause}")))?;
    let descriptors: Vec<i32> = master.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[] } else { &control[..] };
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(&frame)], control, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .or_internal(|| "report to the agent".to_owned())
}

/// What a process has reported, without waiting.
pub fn hear(channel: &OwnedFd) -> Report {
    let mut packet = vec![0; REPORT_LIMIT];
    let mut control = cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (length, terminal) = match recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut control), flags) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Report::None,
        Err(_) => return Report::Closed,
        Ok(message) if message.bytes == 0 => return Report::Closed,
        Ok(message) => (message.bytes, message.cmsgs().ok().and_then(received_descriptor)),
    };
    match frame::read::<Result<Vec<String>, AgentError>>(&mut &packet[..length], REPORT_LIMIT) {
        Ok(Some(Ok(warnings))) => Report::Built { warnings, terminal },
        Ok(Some(Err(failure))) => Report::Failed(failure),
        Ok(None) | Err(_) => {
            Report::Failed(error(ErrorKind::Internal, "the process sent an unreadable report"))
        }
    }
}

fn received_descriptor(mut control: CmsgIterator<'_>) -> Option<OwnedFd> {
    control.find_map(|message| match message {
        // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows them.
        ControlMessageOwned::ScmRights(fds) => fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }),
        _ => None,
    })
}

/// Waits until the agent releases this process.
pub fn wait_for_start(channel: &OwnedFd) -> Result<()> {
    let mut byte = [0];
    loop {
        match recv(channel.as_raw_fd(), &mut byte, MsgFlags::empty()) {
            Ok(1) => return Ok(()),
            Err(Errno::EINTR) => {}
            _ => return Err(error(ErrorKind::Internal, "the container was deleted before the start")),
        }
    }
}
