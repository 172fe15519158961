//! A netlink request as bytes: netlink(7) and rtnetlink(7). The agent sends few kinds, so it needs no library for them.

/// Alignment of headers and attributes.
const ALIGNMENT: usize = 4;

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;

/// A request that grows by its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// `RTM_*` with `NLM_F_*` besides those of any request, and the fixed part of its body.
    pub fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        let mut message = Self(bytes);
        message.pad();
        message
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.raw(value));
    }

    /// Appends an attribute that holds attributes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.raw(&[0; 2]);
        self.raw(&kind.to_ne_bytes());
        fill(self);
        self.close(start);
    }

    /// Appends something that begins with its length in two bytes, which `fill` leaves zero.
    pub fn sized(&mut self, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        fill(self);
        self.close(start);
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn close(&mut self, start: usize) {
        // No attribute of the agent's is anywhere near 64 KiB: routes have few hops, and names are short.
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// The bytes, with the length of the whole.
    pub fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}
