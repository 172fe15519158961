//! Streams that outlive the process that they were made for, because others in the guest have them open: a daemon that an
//! exec has left behind, for instance.
//!
//! ```text
//!  relay of an exec ──→ relay of its container        two descriptors in a datagram to its socket
//!  relay of a member ─→ relay of its sandbox
//!  shim ──────────────→ relay of a container          one descriptor: what writes to this file ends
//! ```
//!
//! A relay ends with its process, because its caller waits for that. It leaves such streams to the relay of their
//! container, which goes on copying until the streams end or it ends itself. When a container with its own PID
//! namespace ends, all processes end that could have them open. containerd's client waits for the end of the streams of an exec that it
//! has deleted, so the shim ends them then.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use stockade_sys::fd_passing;

use super::copy::{Copy, Rest};
use crate::sys::descriptors;

/// The socket in a container's directory to which such streams are sent.
pub const SOCKET: &str = "streams.sock";

/// Largest number of streams that a relay takes over, so that no guest can make it grow; more streams end with their
/// process.
const MAX: usize = 64;

/// The descriptor number of the heir's socket in a relay: the only one on which its filter allows it to send
/// descriptors.
pub const HEIR: i32 = 900;

/// Connects to the heir's socket in the open directory of a container; `None` if its relay has none, like a relay of
/// 0.1.
pub fn connect(directory: BorrowedFd<'_>) -> Option<OwnedFd> {
    let socket = descriptors::connect_datagrams(directory, SOCKET).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket.into())
}

/// Makes the socket of a new container.
///
/// # Errors
/// bind(2)'s.
pub fn listen(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let socket = descriptors::listen_for_datagrams(directory, SOCKET)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Leaves a stream to the heir. If the heir takes no more, the stream ends.
pub fn leave(heir: &OwnedFd, copy: Copy) {
    let Some(Rest { source, sink, shut_down_sink }) = copy.into_rest() else { return };
    let descriptors = [source.as_raw_fd(), sink.as_raw_fd()];
    // The heir is gone or busy; there is nobody to tell.
    let _ = fd_passing::send(heir, &[shut_down_sink.into()], &descriptors);
}

/// What a datagram with one descriptor says.
const END: u8 = 2;

/// Ends the streams to this file that others have left to the heir.
///
/// # Errors
/// sendmsg(2)'s: the heir is gone or busy.
pub fn end(heir: &OwnedFd, file: BorrowedFd<'_>) -> io::Result<()> {
    fd_passing::send(heir, &[END], &[file.as_raw_fd()])
}

/// The streams that a relay has taken over.
#[derive(Debug)]
pub struct Adopted {
    socket: UnixDatagram,
    /// The copies that go on.
    pub copies: Vec<Copy>,
}

impl Adopted {
    /// Without any stream yet.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket: socket.into(), copies: Vec::new() }
    }

    /// Takes over the streams that have been left to this relay, or ends some. The sender is the shim or a relay of the same pod,
    /// which may have been taken over by its guest: this relay only copies bytes between the descriptors that it gets, and ends only
    /// what writes to a file that the sender has open, too.
    pub fn receive(&mut self) {
        let mut byte = [0];
        let mut descriptors = Vec::new();
        while let Ok(Some(1..)) = fd_passing::try_receive(&self.socket, &mut byte, 2, &mut descriptors) {
            self.copies.retain(|copy| !copy.is_done());
            let mut sent = descriptors.drain(..);
            match (byte[0], sent.next(), sent.next(), sent.next()) {
                (END, Some(file), None, None) => self.copies.retain(|copy| !copy.writes_to(&file)),
                (0 | 1, Some(source), Some(sink), None) if self.copies.len() < MAX => {
                    self.copies.extend(Copy::new(source, sink, byte == [1]));
                }
                _ => {}
            }
        }
    }
}

impl AsFd for Adopted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write, pipe};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_stream_goes_on_with_the_heir_and_no_more_than_it_can_take() {
        let directory = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(directory.path()).unwrap();
        assert!(connect(open.as_fd()).is_none());
        let mut adopted = Adopted::new(listen(open.as_fd()).unwrap());
        let heir = connect(open.as_fd()).unwrap();
        let (mut guest, source) = UnixStream::pair().unwrap();
        source.set_nonblocking(true).unwrap();
        let (mut reader, sink) = pipe().unwrap();
        leave(&heir, Copy::new(source, sink, false).unwrap());
        // What is no stream is not copied, and keeps nothing open.
        fd_passing::send(&heir, &[0], &[heir.as_raw_fd()]).unwrap();
        fd_passing::send(&heir, &[], &[]).unwrap();
        adopted.receive();
        assert_eq!(adopted.copies.len(), 1);
        guest.write_all(b"late").unwrap();
        drop(guest);
        while !adopted.copies[0].is_done() {
            adopted.copies[0].advance();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "late");

        let (guest, source) = UnixStream::pair().unwrap();
        let (other, other_source) = UnixStream::pair().unwrap();
        let (reader, sink) = pipe().unwrap();
        leave(&heir, Copy::new(source, sink, false).unwrap());
        leave(&heir, Copy::new(other_source, pipe().unwrap().1, false).unwrap());
        end(&heir, reader.as_fd()).unwrap();
        adopted.receive();
        assert_eq!((&guest).read(&mut [0]).unwrap(), 0, "it has ended");
        assert_eq!(adopted.copies.len(), 1, "the other goes on");
        drop(other);
        adopted.copies[0].advance();

        let mut guests = Vec::new();
        for _ in 0..MAX + 5 {
            let (guest, source) = UnixStream::pair().unwrap();
            leave(&heir, Copy::new(source, pipe().unwrap().1, false).unwrap());
            adopted.receive();
            guests.push(guest);
        }
        assert_eq!(adopted.copies.len(), MAX);
        assert_eq!(guests.last_mut().unwrap().read(&mut [0]).unwrap(), 0, "it has ended");
    }
}
