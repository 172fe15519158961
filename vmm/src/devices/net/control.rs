//! The control queue (§5.1.6.5): how many pairs of queues the driver uses. A device with several pairs has it.

use std::io::{self, Read, Write};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use super::{
    ring::{Ring, RingError},
    tap::Tap,
};

/// Lets the interface use the first `pairs` of its queues.
///
/// # Errors
/// Those of [`Tap::attach`].
pub fn attach(taps: &[Tap], pairs: usize) -> io::Result<()> {
    taps.iter().enumerate().try_for_each(|(index, tap)| tap.attach(index < pairs))
}

/// Answers the next command, if there is one.
///
/// # Errors
/// The driver has broken the rules.
pub fn answer(
    memory: &vm_memory::GuestMemoryMmap,
    ring: &mut Ring<'_>,
    taps: &[Tap],
) -> Result<bool, RingError> {
    let Some(chain) = ring.next()? else { return Ok(false) };
    let head = chain.head_index();
    // Class, command, and the number of pairs, which is all that any known command has.
    let mut command = [0; 4];
    let read = chain.clone().reader(memory)?.read(&mut command).unwrap_or(0);
    let known = [VIRTIO_NET_CTRL_MQ as u8, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET as u8];
    let pairs = usize::from(u16::from_le_bytes([command[2], command[3]]));
    let done = read == command.len()
        && command[..2] == known
        && (1..=taps.len()).contains(&pairs)
        && attach(taps, pairs).is_ok();
    let answer = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
    // A driver that leaves no room for the answer gets none.
    let written = chain.writer(memory)?.write(&[answer as u8]).unwrap_or(0);
    ring.give_back([(head, written)])?;
    Ok(true)
}
