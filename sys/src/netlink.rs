//! Netlink messages as bytes: netlink(7) and rtnetlink(7).

/// Alignment of headers and attributes.
const ALIGNMENT: usize = 4;

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;

/// A request that grows by its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// `RTM_*` with `NLM_F_*` besides `NLM_F_REQUEST`, and the fixed part of its body.
    pub fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        let mut message = Self(bytes);
        message.pad();
        message
    }

    /// Sets more flags, `NLM_F_*`.
    pub fn add_flags(&mut self, flags: i32) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flags as u16;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.raw(value));
    }

    /// Appends an attribute that is a string.
    pub fn string(&mut self, kind: u16, text: &str) {
        self.nested(kind, |message| {
            message.raw(text.as_bytes());
            message.raw(&[0]);
        });
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
        // No attribute that stockade makes comes near 64 KiB: routes have few hops, and names are short.
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// The bytes, with this sequence number and the length of the whole.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_and_lengths_are_without_padding() {
        let mut message = Message::new(16, libc::NLM_F_ACK, &[1; 5]);
        message.nested(2, |message| message.string(3, "lo"));
        let bytes = message.finish(7);
        assert_eq!(bytes[..4], 36u32.to_ne_bytes());
        assert_eq!(bytes[6..8], 5u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 7u32.to_ne_bytes());
        assert_eq!(bytes[HEADER..HEADER + 8], [1, 1, 1, 1, 1, 0, 0, 0]);
        assert_eq!(bytes[HEADER + 8..], [12, 0, 2, 0, 7, 0, 3, 0, b'l', b'o', 0, 0]);
    }
}
