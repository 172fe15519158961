//! The virtio-mmio transport (virtio 1.3 §4.2), modern interface only.
//!
//! The guest drives it register by register from its vCPUs. Everything it can set is in [`Registers`]; a queue's layout
//! can be changed until the queue is made ready and is looked at once, at DRIVER_OK, so a device never sees it move.
//! An invalid value is ignored if the specification lets the driver see that (a feature bit that stays clear);
//! otherwise it makes the device fail: DEVICE_NEEDS_RESET, until the driver resets it.

use std::{io, sync::Arc};

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    device::{self, Activation, VirtioDevice},
    failures::Failures,
    interrupt::{Interrupt, Line},
};

/// Offsets of the registers (virtio 1.3 §4.2.2).
pub mod register {
    #![allow(missing_docs)] // The names are the specification's.
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub const QUEUE_SELECT: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESCRIPTORS_LOW: u64 = 0x080;
    pub const QUEUE_DESCRIPTORS_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHARED_MEMORY_LENGTH_LOW: u64 = 0x0b0;
    pub const SHARED_MEMORY_BASE_HIGH: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the status register (virtio 1.3 §2.1).
pub mod status {
    #![allow(missing_docs)] // The names are the specification's.
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "stkd", little-endian.
const VENDOR: u32 = 0x646b_7473;

/// VIRTIO_F_VERSION_1: not a legacy device.
pub const VERSION_1: u64 = 1 << 32;

/// VIRTIO_F_EVENT_IDX, which a device offers if it asks its queues before it interrupts.
pub const EVENT_IDX: u64 = 1 << 29;

/// Everything that the driver has set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<QueueRegisters>,
}

/// The state of a device in a template, without the state that only its kind of device has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    registers: Registers,
    /// The progress of the device in each queue; empty if it is not active.
    rings: Vec<Ring>,
    interrupt: (u32, u32),
}

/// The progress of a device in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ring {
    next_avail: u16,
    next_used: u16,
}

/// Layout of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct QueueRegisters {
    size: u16,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

/// One device as the guest sees it.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: GuestMemoryMmap,
    interrupt: Arc<Interrupt>,
    queue_events: Vec<EventFd>,
    on_driver_ok: Box<dyn Fn() + Send>,
    registers: Registers,
}

impl MmioTransport {
    /// A freshly reset device that interrupts on `line`; `on_driver_ok` is called whenever it starts to work, and
    /// `failures` keeps why it fails.
    ///
    /// # Errors
    /// No descriptors are left for the queues' events.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemoryMmap,
        line: Line,
        on_driver_ok: Box<dyn Fn() + Send>,
        failures: &Failures,
    ) -> io::Result<Self> {
        let queue_events =
            device.queue_max_sizes().iter().map(|_| EventFd::new(EFD_NONBLOCK)).collect::<Result<_, _>>()?;
        let registers = Registers::reset(device.as_ref());
        let interrupt = Interrupt::new(line).reporting(device::name(device.device_type()), failures.clone());
        Ok(Self { device, memory, interrupt: Arc::new(interrupt), queue_events, on_driver_ok, registers })
    }

    /// Events that a write of a queue's index to [`register::QUEUE_NOTIFY`] signals; they have to be registered as
    /// ioeventfds.
    pub fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    /// What the driver has set so far.
    pub fn state(&self) -> &Registers {
        &self.registers
    }

    /// True from the moment when a driver sets DRIVER until it resets the device. ACKNOWLEDGE alone does not count: a
    /// bus sets it when it notices the device, and Linux sets it again when it unbinds a driver.
    pub fn has_driver(&self) -> bool {
        self.registers.status & !status::ACKNOWLEDGE != 0
    }

    /// Handles a read of the guest at `offset` of the slot.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            self.device.read_config(offset, data);
        } else if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = self.read_register(offset).to_le_bytes();
        }
    }

    /// Handles a write of the guest at `offset` of the slot.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            self.device.write_config(offset, data);
        } else if let Ok(data) = data.try_into() {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }

    /// Stops the device for good, and returns its state; `None` if it has failed, or if its queues do not hold all of
    /// its state.
    pub fn save(&mut self) -> Option<State> {
        if self.interrupt.has_failed() {
            return None;
        }
        let rings = match self.registers.status & status::DRIVER_OK {
            0 => Vec::new(),
            _ => self.device.stop()?.iter().map(Ring::of).collect(),
        };
        Some(State { registers: self.registers.clone(), rings, interrupt: self.interrupt.saved() })
    }

    /// Takes over the state of the same kind of device from a template.
    ///
    /// # Errors
    /// What is wrong with the state, or with the host.
    pub fn restore(&mut self, state: State) -> Result<(), String> {
        let State { registers, rings, interrupt } = state;
        let is_active = registers.status & status::DRIVER_OK != 0;
        let queues = self.device.queue_max_sizes().len();
        if registers.queues.len() != queues || rings.len() != if is_active { queues } else { 0 } {
            return Err("it has another number of queues".into());
        }
        self.registers = registers;
        if is_active {
            if self.registers.status & status::FEATURES_OK == 0 || !self.features_are_acceptable() {
                return Err("its driver expects other features".into());
            }
            let mut activation = self.activation()?;
            for (queue, ring) in activation.queues.iter_mut().zip(rings) {
                queue.set_next_avail(ring.next_avail);
                queue.set_next_used(ring.next_used);
            }
            self.device.activate(activation).map_err(|error| error.reason)?;
            // The driver may have made buffers available and notified of them before the save.
            (0..queues as u32).for_each(|queue| self.notify(queue));
        }
        self.interrupt.restore(interrupt);
        Ok(())
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.registers.queue_select as usize;
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device.device_type(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.offered(), self.registers.device_features_select),
            register::QUEUE_SIZE_MAX => self.device.queue_max_sizes().get(queue).copied().unwrap_or(0).into(),
            register::QUEUE_READY => self.registers.queues.get(queue).is_some_and(|queue| queue.ready).into(),
            register::INTERRUPT_STATUS => self.interrupt.status(),
            register::STATUS if self.interrupt.has_failed() => {
                self.registers.status | status::DEVICE_NEEDS_RESET
            }
            register::STATUS => self.registers.status,
            // There is no shared memory region: each has length and base -1 (§4.2.2).
            register::SHARED_MEMORY_LENGTH_LOW..=register::SHARED_MEMORY_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.interrupt.generation(),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let registers = &mut self.registers;
        match offset {
            register::DEVICE_FEATURES_SELECT => registers.device_features_select = value,
            register::DRIVER_FEATURES_SELECT => registers.driver_features_select = value,
            register::DRIVER_FEATURES if registers.status & status::FEATURES_OK == 0 => {
                set_half(&mut registers.driver_features, registers.driver_features_select, value);
            }
            register::QUEUE_SELECT => registers.queue_select = value,
            register::QUEUE_NOTIFY => self.notify(value),
            register::INTERRUPT_ACK => self.interrupt.acknowledge(value),
            register::STATUS => self.set_status(value),
            register::QUEUE_SIZE | register::QUEUE_READY => self.configure_queue(offset, value),
            register::QUEUE_DESCRIPTORS_LOW..=register::QUEUE_DEVICE_HIGH => {
                self.configure_queue(offset, value)
            }
            _ => {}
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | VERSION_1
    }

    /// Handles a notification that did not match an ioeventfd, or that came before one was registered.
    fn notify(&self, queue: u32) {
        if let Some(event) = self.queue_events.get(queue as usize) {
            // The counter cannot be full, and if it were the notification would be pending.
            let _ = event.write(1);
        }
    }

    fn configure_queue(&mut self, offset: u64, value: u32) {
        if self.registers.status & status::DRIVER_OK != 0 {
            return;
        }
        let Some(queue) = self.registers.queues.get_mut(self.registers.queue_select as usize) else { return };
        match offset {
            register::QUEUE_READY => queue.ready = value & 1 != 0,
            _ if queue.ready => {}
            // A size beyond 16 bits is nonsense; zero is found out when the queue is checked.
            register::QUEUE_SIZE => queue.size = u16::try_from(value).unwrap_or(0),
            register::QUEUE_DESCRIPTORS_LOW => set_half(&mut queue.descriptors, 0, value),
            register::QUEUE_DESCRIPTORS_HIGH => set_half(&mut queue.descriptors, 1, value),
            register::QUEUE_DRIVER_LOW => set_half(&mut queue.driver, 0, value),
            register::QUEUE_DRIVER_HIGH => set_half(&mut queue.driver, 1, value),
            register::QUEUE_DEVICE_LOW => set_half(&mut queue.device, 0, value),
            register::QUEUE_DEVICE_HIGH => set_half(&mut queue.device, 1, value),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let added = value & !self.registers.status;
        if value & self.registers.status != self.registers.status {
            // The driver may only add bits (§2.1.1).
            self.interrupt.fail(&"the guest's driver took back a bit of its status");
            return;
        }
        self.registers.status |= added & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
        if added & status::FEATURES_OK != 0 && self.features_are_acceptable() {
            self.registers.status |= status::FEATURES_OK;
        }
        if added & status::DRIVER_OK != 0 {
            self.registers.status |= status::DRIVER_OK;
            self.start();
        }
    }

    fn features_are_acceptable(&self) -> bool {
        let accepted = self.registers.driver_features;
        accepted & !self.offered() == 0 && accepted & VERSION_1 != 0
    }

    fn start(&mut self) {
        let started = if self.registers.status & status::FEATURES_OK == 0 {
            Err("the guest's driver began without agreeing on features".to_owned())
        } else {
            self.activation()
                .and_then(|activation| self.device.activate(activation).map_err(|error| error.reason))
        };
        match started {
            Ok(()) => (self.on_driver_ok)(),
            Err(reason) => self.interrupt.fail(&reason),
        }
    }

    /// The queues and the other parts that the device gets.
    ///
    /// # Errors
    /// What is wrong with one of them, or with the host.
    fn activation(&self) -> Result<Activation, String> {
        let mut queues = Vec::with_capacity(self.registers.queues.len());
        let sizes = self.device.queue_max_sizes();
        for (index, (registers, max_size)) in self.registers.queues.iter().zip(sizes).enumerate() {
            let queue = self.queue(*registers, *max_size);
            queues.push(queue.ok_or_else(|| format!("the guest's driver has set up queue {index} wrongly"))?);
        }
        let queue_events = self.queue_events.iter().map(EventFd::try_clone).collect::<Result<_, _>>();
        Ok(Activation {
            memory: self.memory.clone(),
            features: self.registers.driver_features,
            queues,
            queue_events: queue_events.map_err(|error| format!("its events: {error}"))?,
            interrupt: Arc::clone(&self.interrupt),
        })
    }

    /// Makes a queue from its registers; `None` if they are not valid.
    fn queue(&self, registers: QueueRegisters, max_size: u16) -> Option<Queue> {
        let mut queue = Queue::new(max_size).ok()?;
        if registers.ready {
            if !(1..=max_size).contains(&registers.size) {
                return None;
            }
            queue.set_size(registers.size);
            queue.try_set_desc_table_address(GuestAddress(registers.descriptors)).ok()?;
            queue.try_set_avail_ring_address(GuestAddress(registers.driver)).ok()?;
            queue.try_set_used_ring_address(GuestAddress(registers.device)).ok()?;
            queue.set_event_idx(self.registers.driver_features & EVENT_IDX != 0);
            queue.set_ready(true);
            if !queue.is_valid(&self.memory) || queue.size() != registers.size {
                return None;
            }
        }
        Some(queue)
    }

    fn reset(&mut self) {
        self.device.reset();
        self.interrupt.reset();
        self.registers = Registers::reset(self.device.as_ref());
    }
}

/// Handles a read of the guest at `offset` of an empty slot: a device of ID 0, which drivers must ignore silently (§4.2.2.2).
pub fn read_empty(offset: u64, data: &mut [u8]) {
    data.fill(0);
    if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
        match offset {
            register::MAGIC => *data = MAGIC.to_le_bytes(),
            register::VERSION => *data = VERSION.to_le_bytes(),
            _ => {}
        }
    }
}

impl Ring {
    fn of(queue: &Queue) -> Self {
        Self { next_avail: queue.next_avail(), next_used: queue.next_used() }
    }
}

impl Registers {
    fn reset(device: &dyn VirtioDevice) -> Self {
        let queues =
            device.queue_max_sizes().iter().map(|size| QueueRegisters { size: *size, ..Default::default() });
        Self { queues: queues.collect(), ..Self::default() }
    }
}

fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | u64::from(half),
        1 => *value = *value & 0xffff_ffff | u64::from(half) << 32,
        _ => {}
    }
}

#[cfg(test)]
#[path = "mmio_test.rs"]
mod tests;
