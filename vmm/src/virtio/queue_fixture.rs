//! The driver's side of a split virtqueue (virtio 1.3 §2.7), for unit tests of devices.

use std::{
    collections::HashMap,
    sync::atomic::{Ordering, fence},
};

use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::{
    Queue, QueueT,
    desc::{RawDescriptor, split::Descriptor},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// One buffer that the driver offers.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// The device writes to it.
    pub writable: bool,
}

/// A queue as its driver sees it.
pub struct QueueFixture {
    memory: GuestMemoryMmap,
    size: u16,
    descriptors: u64,
    avail: u64,
    used: u64,
    free: Vec<u16>,
    chains: HashMap<u16, Vec<u16>>,
    next_avail: u16,
    next_used: u16,
}

impl QueueFixture {
    /// Bytes of guest memory that a queue of 1024 takes at its base.
    pub const FOOTPRINT: u64 = 0x8000;

    /// An empty queue of `size` (at most 1024) at the page-aligned address `base`.
    pub fn new(memory: &GuestMemoryMmap, base: u64, size: u16) -> Self {
        assert!(size <= 1024);
        Self {
            memory: memory.clone(),
            size,
            descriptors: base,
            avail: base + 0x4000,
            used: base + 0x5000,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
            next_avail: 0,
            next_used: 0,
        }
    }

    /// The same queue as its device sees it.
    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(self.avail)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(self.used)).unwrap();
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        queue
    }

    /// The head that the next chain will have.
    pub fn next_head(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Makes a chain of `buffers` available and returns its head; `None` when too few descriptors are free.
    pub fn offer(&mut self, buffers: &[Buffer]) -> Option<u16> {
        assert!(!buffers.is_empty());
        if self.free.len() < buffers.len() {
            return None;
        }
        let mut indices = self.free.split_off(self.free.len() - buffers.len());
        indices.reverse();
        for (position, (buffer, index)) in buffers.iter().zip(&indices).enumerate() {
            let next = indices.get(position + 1);
            let flags = if buffer.writable { VRING_DESC_F_WRITE } else { 0 }
                | if next.is_some() { VRING_DESC_F_NEXT } else { 0 };
            self.write_descriptor(*index, *buffer, flags as u16, next.copied().unwrap_or(0));
        }
        let head = indices[0];
        self.chains.insert(head, indices);
        self.publish(head);
        Some(head)
    }

    /// The next used chain: its head and how many bytes the device says to have written. When there is none, the driver
    /// wants an interrupt for the next.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        if self.used_index() == self.next_used {
            let used_event = GuestAddress(self.avail + 4 + u64::from(self.size) * 2);
            self.memory.store(self.next_used, used_event, Ordering::Relaxed).unwrap();
            fence(Ordering::SeqCst);
            if self.used_index() == self.next_used {
                return None;
            }
        }
        let slot = self.used + 4 + u64::from(self.next_used % self.size) * 8;
        // A used element: the head as u32, then the length (§2.7.8).
        let [head, length]: [u32; 2] = self.memory.read_obj(GuestAddress(slot)).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(head).unwrap();
        self.free.extend(self.chains.remove(&head).unwrap_or_default());
        Some((head, length))
    }

    /// Passes over all used chains, whatever they are, and wants an interrupt for the next.
    pub fn pass_over_used(&mut self) {
        self.next_used = self.used_index();
        let used_event = GuestAddress(self.avail + 4 + u64::from(self.size) * 2);
        self.memory.store(self.next_used, used_event, Ordering::Relaxed).unwrap();
    }

    fn used_index(&self) -> u16 {
        self.memory.load(GuestAddress(self.used + 2), Ordering::Acquire).unwrap()
    }

    /// Writes a descriptor, whatever it may be.
    pub fn write_descriptor(&self, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let descriptor = RawDescriptor::from(Descriptor::new(buffer.address, buffer.length, flags, next));
        self.memory.write_obj(descriptor, GuestAddress(self.descriptors + u64::from(index) * 16)).unwrap();
    }

    /// Makes the chain that begins at `head` available, whatever it may be.
    pub fn publish(&mut self, head: u16) {
        let slot = self.avail + 4 + u64::from(self.next_avail % self.size) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.set_avail_index(self.next_avail.wrapping_add(1));
    }

    /// Sets the available index, whatever it may be.
    pub fn set_avail_index(&mut self, index: u16) {
        self.next_avail = index;
        self.memory.store(index, GuestAddress(self.avail + 2), Ordering::Release).unwrap();
    }
}
