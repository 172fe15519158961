//! Passing datagrams from a container's sd_notify(3) socket to the host.

use std::{os::fd::AsRawFd, rc::Rc};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use stockade_protocol::agent::{NOTIFY_LIMIT, ProcessEvent, ProcessId};

use super::{Server, Target};

/// Largest number of datagrams that are read before others have their turn.
const TURN: usize = 32;

impl Server {
    /// Passes on the datagrams that have come. Descriptors that come with them are closed, because they mean nothing on
    /// the host.
    pub(super) fn pass_notifications_on(&mut self, id: &Rc<ProcessId>) {
        let Some(process) = self.processes.get(id) else { return };
        let Some(socket) = &process.notify else { return };
        let connection = process.connection.and_then(|token| self.connections.get_mut(&token));
        let Some(connection) = connection else { return };
        // One byte more than may be passed on, to know the ones that are too long.
        let mut datagram = [0; NOTIFY_LIMIT + 1];
        for _ in 0..TURN {
            match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
                // If the host does not read them, they are dropped, so that they take no memory.
                Ok(length) if length <= NOTIFY_LIMIT && !connection.is_congested() => {
                    // A connection that cannot be written to reports its end to the loop.
                    let _ = connection.send(&ProcessEvent::Notify(datagram[..length].to_vec()));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
        self.again.push(Target::Notify(id.clone()));
    }
}
