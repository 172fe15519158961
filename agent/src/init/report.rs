//! The channel between a new process and the agent: it reports that its mounts are made (with its terminal and its notification socket),
//! or what failed; it waits for one byte, the start; execve closes the channel, so its end says that the program runs.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair},
};
use serde::{Deserialize, Serialize};
use stockade_protocol::frame;
use stockade_sys::fd_passing;

use super::Setup;
use crate::error::{AgentError, Context, ErrorKind, Result, error};

/// Longest report, in bytes.
const REPORT_LIMIT: usize = 64 << 10;

/// A report of a new process.
#[derive(Debug)]
pub enum Report {
    /// There is no new report.
    None,
    /// The process has made its mounts.
    Built(Setup),
    /// A step failed, and the process ends.
    Failed(AgentError),
    /// The process has executed its program, or was killed.
    Closed,
}

/// The agent's end and the process's.
pub fn channel() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .or_internal(|| "make a socket pair".to_owned())
}

/// A process's report of its setup; its descriptors come with it, in this order.
#[derive(Serialize, Deserialize)]
struct Built {
    warnings: Vec<String>,
    terminal: bool,
    notify: bool,
}

/// Largest number of descriptors that come with a report.
const MAX_DESCRIPTORS: usize = 2;

/// Reports to the agent what was made, or what failed.
pub fn send(channel: &OwnedFd, outcome: Result<Setup>) -> Result<()> {
    let (message, descriptors) = match outcome {
        Ok(Setup { warnings, terminal, notify, shared_files: _ }) => {
            let built = Built { warnings, terminal: terminal.is_some(), notify: notify.is_some() };
            (Ok(built), [terminal, notify].into_iter().flatten().collect())
        }
        Err(failure) => (Err(failure), Vec::new()),
    };
    let frame = frame::encode(&message)
        .map_err(|cause| error(ErrorKind::Internal, format!("report to the agent: {cause}")))?;
    let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    fd_passing::send(channel, &frame, &descriptors).or_internal(|| "report to the agent".to_owned())
}

/// Reads what a process has reported, without waiting.
pub fn hear(channel: &OwnedFd) -> Report {
    let mut packet = vec![0; REPORT_LIMIT];
    let mut descriptors = Vec::new();
    let length = match fd_passing::try_receive(channel, &mut packet, MAX_DESCRIPTORS, &mut descriptors) {
        Ok(None) => return Report::None,
        Ok(Some(length)) if length > 0 => length,
        Ok(_) | Err(_) => return Report::Closed,
    };
    match frame::read::<Result<Built>>(&mut &packet[..length], REPORT_LIMIT) {
        Ok(Some(Ok(Built { warnings, terminal, notify }))) => {
            let mut descriptors = descriptors.into_iter();
            let mut next = |there: bool| if there { descriptors.next() } else { None };
            Report::Built(Setup {
                warnings,
                terminal: next(terminal),
                notify: next(notify),
                ..Setup::default()
            })
        }
        Ok(Some(Err(failure))) => Report::Failed(failure),
        Ok(None) | Err(_) => {
            Report::Failed(error(ErrorKind::Internal, "the process sent an unreadable report"))
        }
    }
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
