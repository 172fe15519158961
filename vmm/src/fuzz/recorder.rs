//! A device that checks what the transport gives it.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::virtio::{
    device::{ActivateError, Activation, VirtioDevice, read_space},
    failures::Failures,
    interrupt::Line,
    mmio::MmioTransport,
};

/// Largest sizes of the queues.
const SIZES: [u16; 3] = [16, 256, 64];

/// Features besides the transport's.
const FEATURES: u64 = 0b1010_0101 | 1 << 29;

/// Bytes of configuration space.
const SPACE: usize = 24;

/// It, as the guest sees it.
pub fn transport(memory: &GuestMemoryMmap) -> MmioTransport {
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let failures = Failures::new().unwrap();
    MmioTransport::new(
        Box::new(Recorder::default()),
        memory.clone(),
        Line::Event(irq),
        Box::new(|| {}),
        &failures,
    )
    .unwrap()
}

/// The device; it does nothing of use.
#[derive(Default)]
pub struct Recorder {
    space: [u8; SPACE],
    active: bool,
}

impl VirtioDevice for Recorder {
    fn device_type(&self) -> u32 {
        42
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_space(&self.space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            if let Some(place) = usize::try_from(at).ok().and_then(|at| self.space.get_mut(at)) {
                *place = *byte;
            }
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        assert!(!self.active, "activated twice without a reset");
        let Activation { memory, features, queues, queue_events, .. } = activation;
        assert_eq!(features & !(FEATURES | 1 << 32), 0, "features that were not offered");
        assert_eq!((queues.len(), queue_events.len()), (SIZES.len(), SIZES.len()));
        for (mut queue, size) in queues.into_iter().zip(SIZES).filter(|(queue, _)| queue.ready()) {
            assert!(queue.is_valid(&memory) && (1..=size).contains(&queue.size()));
            use_up(&mut queue, &memory);
        }
        self.active = true;
        Ok(())
    }

    fn stop(&mut self) -> Option<Vec<Queue>> {
        self.active = false;
        None
    }
}

/// Takes what is available, as far as it makes sense.
fn use_up(queue: &mut Queue, memory: &GuestMemoryMmap) {
    let Ok(chains) = queue.iter(memory) else { return };
    let heads: Vec<_> =
        chains.take(SIZES[1].into()).map(|chain| (chain.head_index(), chain.count())).collect();
    for (head, length) in heads {
        if queue.add_used(memory, head, length as u32).is_err() {
            return;
        }
    }
}
