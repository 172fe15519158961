//! The header of a virtio-vsock packet (virtio 1.3 §5.10.6) and the numbers in it.
//!
//! The virtio-vsock crate is not used for this: its packet is at most two descriptors, and a driver may lay one over
//! as many as it likes (§2.7.4.1). Linux does with MSG_ZEROCOPY, and newer ones with every long packet. The tests
//! compare this encoding with the crate's.

/// Bytes of a header.
pub const HEADER_SIZE: usize = 44;

/// Context ID of the host.
pub const HOST_CID: u64 = 2;

/// The only type of socket that is offered: stream.
pub const TYPE_STREAM: u16 = 1;

/// What a packet is for (`op`).
pub mod op {
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// Accepts a connection.
    pub const RESPONSE: u16 = 2;
    /// Refuses or ends a connection, or acknowledges its end.
    pub const RST: u16 = 3;
    /// The sender will receive or send no more, as the flags say.
    pub const SHUTDOWN: u16 = 4;
    /// Carries bytes of the stream.
    pub const RW: u16 = 5;
    /// Carries only `buf_alloc` and `fwd_cnt`, as every packet does.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for a credit update.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`].
pub mod shutdown {
    /// The sender of the packet receives no more.
    pub const RCV: u32 = 1;
    /// The sender of the packet sends no more.
    pub const SEND: u32 = 2;
    /// The sender of the packet neither sends nor receives.
    pub const BOTH: u32 = RCV | SEND;
}

/// A packet's header, by the names of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Context ID of the sender.
    pub src_cid: u64,
    /// Context ID of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes of data after the header.
    pub len: u32,
    /// Type of socket.
    pub socket_type: u16,
    /// The operation: one of [`op`], or any number from a hostile guest.
    pub op: u16,
    /// Flags, whose meaning depends on `op`.
    pub flags: u32,
    /// Size of the sender's receive buffer, in bytes.
    pub buf_alloc: u32,
    /// Bytes that have left that buffer since the connection began, wrapping.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads the little-endian encoding.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut rest = &bytes[..];
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            socket_type: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// The little-endian encoding.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut rest = &mut bytes[..];
        put(&mut rest, self.src_cid.to_le_bytes());
        put(&mut rest, self.dst_cid.to_le_bytes());
        put(&mut rest, self.src_port.to_le_bytes());
        put(&mut rest, self.dst_port.to_le_bytes());
        put(&mut rest, self.len.to_le_bytes());
        put(&mut rest, self.socket_type.to_le_bytes());
        put(&mut rest, self.op.to_le_bytes());
        put(&mut rest, self.flags.to_le_bytes());
        put(&mut rest, self.buf_alloc.to_le_bytes());
        put(&mut rest, self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The RST that answers this packet if it belongs to no connection.
    pub fn refusal(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            socket_type: self.socket_type,
            op: op::RST,
            ..Self::default()
        }
    }
}

/// Takes the next field. The fields together are as long as the header, so there always is one.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, tail)) => {
            *rest = tail;
            *field
        }
        None => [0; N],
    }
}

fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    if let Some((target, tail)) = std::mem::take(rest).split_first_chunk_mut() {
        *target = field;
        *rest = tail;
    }
}

#[cfg(test)]
#[path = "packet_test.rs"]
mod tests;
