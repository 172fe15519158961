//! The memory device (virtio 1.3 §5.15): RAM that the guest onlines after it has booted.
//!
//! A kernel that boots pays for every page it has: 16 KiB of page descriptors for each MiB. So every guest boots with the same small
//! RAM, and the rest lies in a region that its driver plugs block by block once it is told to:
//!
//! ```text
//!  booted ──▶ agent connects ──▶ grow(): requested size rises ──▶ PLUG, PLUG, … ──▶ all plugged: grown
//!                                                                                        │
//!        UNPLUG, … as far as the guest can ◀── falls ◀── resize(): requested size ◀──────┤
//!                                     PLUG, … ◀── rises ◀──┘                  ...        ┘
//! ```
//!
//! The usable part of the region is backed lazily like all RAM: a guest that uses blocks which it has not plugged gets no
//! more than it once could have plugged.

use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::DescriptorChain;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap};

use crate::{
    memory::HUGE_PAGE_SIZE,
    seccomp::Thread,
    virtio::{
        device::read_space,
        interrupt::Interrupt,
        worker::{ChainDevice, Failure, Handler, WorkerDevice},
    },
};

/// The unit of plugging, in bytes: the host can take back whole blocks.
const BLOCK_SIZE: u64 = HUGE_PAGE_SIZE;

/// Bytes of a request.
const REQUEST_SIZE: usize = 24;

/// Request types.
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

/// Response types.
const ACK: u16 = 0;
const NACK: u16 = 1;
const ERROR: u16 = 3;

/// States in the response to [`STATE`].
const PLUGGED: u16 = 0;
const UNPLUGGED: u16 = 1;
const MIXED: u16 = 2;

/// The state of the device in a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The region, in guest physical addresses.
    region: Range<u64>,
    /// How much of the region, from its start, may be plugged, in bytes.
    usable: u64,
    /// What the guest should have plugged, in bytes.
    requested: u64,
    /// What the guest has plugged, in bytes.
    plugged: u64,
    /// Whether each block is plugged.
    blocks: Vec<bool>,
}

impl State {
    /// The blocks from `address`, if they are in the usable part of the region.
    fn range(&self, address: u64, count: u16) -> Option<Range<usize>> {
        let offset = address.checked_sub(self.region.start).filter(|offset| offset % BLOCK_SIZE == 0)?;
        let first = usize::try_from(offset / BLOCK_SIZE).ok()?;
        let end = first.checked_add(count.into())?;
        (count > 0 && end as u64 <= self.usable / BLOCK_SIZE).then_some(first..end)
    }
}

struct Shared {
    state: State,
    /// Bytes that the guest is to plug once it has booted.
    size: u64,
    interrupt: Option<Arc<Interrupt>>,
    on_reached: Option<OnReached>,
}

/// Called when the guest has as much memory as it was asked to have.
pub type OnReached = Box<dyn FnOnce() + Send>;

/// The guest has no driver for the device.
#[derive(Debug, thiserror::Error)]
#[error("the guest's kernel has no driver for its memory device (CONFIG_VIRTIO_MEM)")]
pub struct NoDriver;

/// What a template has plugged is not what the guest is to have.
#[derive(Debug, thiserror::Error)]
#[error("its memory device has another size")]
pub struct OtherSize;

/// The memory by which a guest can grow; clones share it.
#[derive(Clone)]
pub struct Growth(Arc<Mutex<Shared>>);

impl Growth {
    /// A region of which nothing is plugged; once the guest has booted, it is to plug `size` bytes among the first
    /// `usable`.
    pub fn new(region: Range<u64>, usable: u64, size: u64) -> Self {
        let blocks = vec![false; ((region.end - region.start) / BLOCK_SIZE) as usize];
        let state = State { region, usable, requested: 0, plugged: 0, blocks };
        Self(Arc::new(Mutex::new(Shared {
            state,
            size: size / BLOCK_SIZE * BLOCK_SIZE,
            interrupt: None,
            on_reached: None,
        })))
    }

    /// Lets the guest plug all that it is to have, and calls `on_grown` with the last block: its driver has added all
    /// others and is about to add that one. If there is nothing to plug, or the guest has no driver, `on_grown` is
    /// called at once.
    pub fn grow(&self, on_grown: OnReached) {
        let mut shared = self.lock();
        match &shared.interrupt {
            Some(interrupt) if shared.size > shared.state.plugged => {
                let interrupt = Arc::clone(interrupt);
                shared.state.requested = shared.size;
                shared.on_reached = Some(on_grown);
                interrupt.configuration_changed();
            }
            _ => {
                drop(shared);
                on_grown();
            }
        }
    }

    /// Asks the guest to have `size` bytes plugged, in the first `usable` bytes of the region, and calls `on_reached` when it
    /// has. The guest may never give back that much. A former request is dropped.
    ///
    /// # Errors
    /// [`NoDriver`].
    pub fn resize(&self, usable: u64, size: u64, on_reached: OnReached) -> Result<(), NoDriver> {
        let mut shared = self.lock();
        let interrupt = shared.interrupt.clone().ok_or(NoDriver)?;
        shared.state.usable = shared.state.usable.max(usable);
        shared.state.requested = (size / BLOCK_SIZE * BLOCK_SIZE).min(shared.state.usable);
        shared.on_reached = None;
        interrupt.configuration_changed();
        if shared.state.plugged == shared.state.requested {
            drop(shared);
            on_reached();
        } else {
            shared.on_reached = Some(on_reached);
        }
        Ok(())
    }

    /// Connects the guest's driver, which is told of changes by this interrupt.
    pub(crate) fn connect(&self, interrupt: Arc<Interrupt>) {
        self.lock().interrupt = Some(interrupt);
    }

    /// Number of bytes that are plugged.
    pub fn plugged(&self) -> u64 {
        self.lock().state.plugged
    }

    /// The state for a template.
    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Takes over the state of a template, whose guest has plugged all that it is to have.
    ///
    /// # Errors
    /// The guest is to have another size.
    pub fn restore(&self, state: State) -> Result<(), OtherSize> {
        let mut shared = self.lock();
        let plugged = state.blocks.iter().filter(|plugged| **plugged).count() as u64 * BLOCK_SIZE;
        let fits = state.region == shared.state.region
            && state.usable == shared.state.usable
            && state.blocks.len() == shared.state.blocks.len()
            && state.blocks.iter().skip((state.usable / BLOCK_SIZE) as usize).all(|plugged| !plugged)
            && [state.requested, state.plugged, plugged] == [shared.size; 3];
        if !fits {
            return Err(OtherSize);
        }
        shared.state = state;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Growth").field(&self.lock().state.region).finish()
    }
}

/// A memory device.
pub type Mem = WorkerDevice<Pluggable>;

impl Mem {
    /// A device for this memory.
    pub fn new(growth: Growth) -> Self {
        Self::over(Pluggable(growth))
    }
}

/// The parts that only the memory device has.
#[derive(Debug)]
pub struct Pluggable(Growth);

impl ChainDevice for Pluggable {
    const NAME: &'static str = "mem";
    const DEVICE_TYPE: u32 = 24;
    const QUEUE_SIZES: &'static [u16] = &[16];
    const FILTER: Thread = Thread::Devices;

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let shared = self.0.lock();
        let State { region, usable, requested, plugged, .. } = &shared.state;
        let size = region.end - region.start;
        // Block size, node, region, how much of it is usable, plugged and requested.
        let config: Vec<u8> = [BLOCK_SIZE, 0, region.start, size, *usable, *plugged, *requested]
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        read_space(&config, offset, data);
    }

    fn handler(&self) -> impl Handler {
        self.0.clone()
    }

    fn started(&self, interrupt: Arc<Interrupt>) {
        self.0.connect(interrupt);
    }

    /// What is plugged stays plugged (§5.15.5.1): the guest may live in it.
    fn stopping(&self) {
        self.0.lock().interrupt = None;
    }
}

impl Handler for Growth {
    fn handle(
        &mut self,
        _queue: usize,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<u32, Failure> {
        let mut request = [0; REQUEST_SIZE];
        let mut reader = chain.clone().reader(memory)?;
        io::Read::read_exact(&mut reader, &mut request)
            .map_err(|_| Failure::Malformed("too short for a request"))?;
        let (kind, state) = self.carry_out(memory, &request);
        let mut response = [0; 10];
        response[..2].copy_from_slice(&kind.to_le_bytes());
        response[8..].copy_from_slice(&state.to_le_bytes());
        let mut writer = chain.writer(memory)?;
        io::Write::write_all(&mut writer, &response)
            .map_err(|_| Failure::Malformed("no room for the response"))?;
        Ok(response.len() as u32)
    }
}

impl Growth {
    /// Carries out a request; returns the type of the response, and the state if the request asks for it.
    fn carry_out(&self, memory: &GuestMemoryMmap, request: &[u8; REQUEST_SIZE]) -> (u16, u16) {
        let kind = u16::from_le_bytes([request[0], request[1]]);
        let address = u64::from_le_bytes(std::array::from_fn(|index| request[8 + index]));
        let count = u16::from_le_bytes([request[16], request[17]]);
        let mut shared = self.lock();
        let answer = carry_out(&mut shared.state, memory, kind, address, count);
        if shared.state.plugged == shared.state.requested
            && let Some(on_reached) = shared.on_reached.take()
        {
            drop(shared);
            on_reached();
        }
        answer
    }
}

fn carry_out(state: &mut State, memory: &GuestMemoryMmap, kind: u16, address: u64, count: u16) -> (u16, u16) {
    if kind == UNPLUG_ALL {
        let usable = 0..(state.usable / BLOCK_SIZE) as usize;
        return (unplug(memory, state, usable), 0);
    }
    let Some(range) = state.range(address, count) else { return (ERROR, 0) };
    let blocks = &state.blocks[range.clone()];
    let (all, none) = (blocks.iter().all(|plugged| *plugged), !blocks.contains(&true));
    match kind {
        PLUG if none => {
            let plugged = state.plugged + u64::from(count) * BLOCK_SIZE;
            if plugged > state.requested {
                return (NACK, 0);
            }
            state.blocks[range].fill(true);
            state.plugged = plugged;
            (ACK, 0)
        }
        UNPLUG if all => (unplug(memory, state, range), 0),
        STATE if all => (ACK, PLUGGED),
        STATE if none => (ACK, UNPLUGGED),
        STATE => (ACK, MIXED),
        _ => (ERROR, 0),
    }
}

/// Gives blocks back to the host.
fn unplug(memory: &GuestMemoryMmap, state: &mut State, range: Range<usize>) -> u16 {
    if range.is_empty() {
        return ACK;
    }
    let start = GuestAddress(state.region.start + range.start as u64 * BLOCK_SIZE);
    let size = range.len() * BLOCK_SIZE as usize;
    let Ok(slice) = memory.get_slice(start, size) else { return ERROR };
    // SAFETY: the range is the guest's own memory, which holds no references; it reads as zero afterwards.
    unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), size, libc::MADV_DONTNEED) };
    let blocks = &mut state.blocks[range];
    state.plugged -= blocks.iter().filter(|plugged| **plugged).count() as u64 * BLOCK_SIZE;
    blocks.fill(false);
    ACK
}

#[cfg(test)]
#[path = "mem_test.rs"]
mod tests;
