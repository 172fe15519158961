//! A connection to a port of the pod: the agent's answer, then bytes both ways.

use std::io::Read;

use super::peer;
use crate::relay::{port_forward, proxy};
use crate::sys::deadline::Deadline;

/// What the client sends, and what the agent answers and sends.
pub fn run(input: &[u8]) {
    let (from_client, from_guest) = peer::halves(input);
    let (client, mut clients_end) = peer::saying(from_client);
    let (guest, mut guests_end) = peer::saying(from_guest);
    let Ok(Some(guest)) = port_forward::greet(guest, 80, Deadline::within(peer::TIMEOUT)) else { return };
    proxy::proxy(client, guest).unwrap();

    let mut to_client = Vec::new();
    clients_end.set_nonblocking(false).unwrap();
    clients_end.read_to_end(&mut to_client).unwrap();
    assert!(from_guest.ends_with(&to_client), "the client gets what the guest has not sent");
    let mut to_guest = Vec::new();
    guests_end.set_nonblocking(false).unwrap();
    guests_end.read_to_end(&mut to_guest).unwrap();
    assert!(to_guest.ends_with(from_client), "what the client has sent is lost");
}
