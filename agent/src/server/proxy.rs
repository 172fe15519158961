//! A connection of the host that is joined to one in the guest: bytes go in both directions, which end separately.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, Shutdown, send, shutdown},
};

use crate::pump::{Progress, Pump};

/// The directions whose source is not at its end, each with its sink.
#[derive(Debug)]
pub(super) struct Proxy(Vec<(Pump, Rc<OwnedFd>)>);

impl Proxy {
    /// A proxy between two non-blocking sockets.
    pub fn between(host: &Rc<OwnedFd>, guest: &Rc<OwnedFd>) -> Self {
        let pump = |source: &Rc<OwnedFd>, sink: &Rc<OwnedFd>| {
            (Pump::copy(Rc::clone(source), Rc::clone(sink)), Rc::clone(sink))
        };
        Self(vec![pump(host, guest), pump(guest, host)])
    }

    /// Moves what can be moved now.
    pub fn run(&mut self) -> Progress {
        let mut progress = Progress::Blocked;
        let mut going_on = Vec::new();
        for (mut pump, sink) in self.0.drain(..) {
            match pump.run() {
                Progress::Blocked => going_on.push((pump, sink)),
                Progress::Yielded => {
                    progress = Progress::Yielded;
                    going_on.push((pump, sink));
                }
                Progress::Finished => {
                    // A peer that has gone already has seen the end.
                    let _ = shutdown(sink.as_raw_fd(), Shutdown::Write);
                }
                // Neither side will send more bytes.
                Progress::Broken => return Progress::Broken,
            }
        }
        self.0 = going_on;
        match &self.0[..] {
            [] => Progress::Finished,
            // The peer has closed both directions, but this direction may never have bytes to show that.
            [(_, sink)] if is_gone(sink) => Progress::Broken,
            _ => progress,
        }
    }
}

/// Whether a socket takes no more bytes, whatever they are.
fn is_gone(sink: &OwnedFd) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(sink.as_raw_fd(), &[], flags).is_err_and(|errno| errno != Errno::EAGAIN)
}
