use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use virtio_queue::Queue;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{Bus, NotRemovable, Outcome};
use crate::{
    console::{Irq, Output, SerialLine},
    devices::rng::Rng,
    memory::MMIO_START,
    virtio::{
        device::{ActivateError, Activation, VirtioDevice},
        failures::Failures,
        interrupt::Line,
        mmio::{MmioTransport, register, status},
        slots,
    },
};

fn transport() -> MmioTransport {
    transport_of(Box::new(Rng::default()))
}

fn transport_of(device: Box<dyn VirtioDevice>) -> MmioTransport {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let irq = EventFd::new(0).unwrap();
    let failures = Failures::new().unwrap();
    MmioTransport::new(device, memory, Line::Event(irq), Box::new(|| ()), &failures).unwrap()
}

/// A bus with one device and one empty slot.
fn bus(output: &Output) -> Bus {
    let irq = EventFd::new(0).unwrap();
    Bus::new(SerialLine::new(Irq(irq), output.clone()), vec![transport()], 1).unwrap()
}

fn read(bus: &Bus, slot: u64, register: u64) -> u32 {
    let mut data = [0; 4];
    bus.read_mmio(MMIO_START.0 + slot * slots::SIZE + register, &mut data);
    u32::from_le_bytes(data)
}

/// Writes a status register as a vCPU does, with the main thread's help.
fn write_status(bus: &Arc<Bus>, slot: u64, value: u32) {
    let vcpu = thread::spawn({
        let bus = Arc::clone(bus);
        move || bus.write_mmio(MMIO_START.0 + slot * slots::SIZE + register::STATUS, &value.to_le_bytes())
    });
    wait_for_write(bus);
    bus.start_and_stop_devices();
    vcpu.join().unwrap();
}

fn wait_for_write(bus: &Bus) {
    // SAFETY: the bus outlives the call.
    let event = unsafe { BorrowedFd::borrow_raw(bus.activation_event().as_raw_fd()) };
    poll(&mut [PollFd::new(event, PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}

#[test]
fn what_is_written_to_the_serial_line_is_kept() {
    let output = Output::default();
    let bus = bus(&output);
    assert_eq!(bus.write_port(0x3f8, b"hi"), Outcome::Continue);
    assert_eq!(output.bytes(), b"hi");
    // The transmitter is empty.
    let mut line_status = [0];
    bus.read_port(0x3fd, &mut line_status);
    assert_eq!(line_status[0] & 0x60, 0x60);
}

#[test]
fn only_the_keyboard_controller_s_reset_resets() {
    let bus = bus(&Output::default());
    assert_eq!(bus.write_port(0x64, &[0xd1]), Outcome::Continue);
    assert_eq!(bus.write_port(0x60, &[0xfe]), Outcome::Continue);
    assert_eq!(bus.write_port(0x64, &[0xfe]), Outcome::Reset);
}

#[test]
fn nobody_s_addresses_read_as_ones() {
    let bus = bus(&Output::default());
    let mut data = [0; 4];
    bus.read_port(0xcf8, &mut data);
    assert_eq!(data, [0xff; 4]);
    for address in [0, MMIO_START.0 - 4, MMIO_START.0 + 2 * slots::SIZE, u64::MAX] {
        data = [0; 4];
        bus.read_mmio(address, &mut data);
        assert_eq!(data, [0xff; 4], "{address:#x}");
        bus.write_mmio(address, &data);
    }
}

#[test]
fn a_write_to_a_status_register_waits_for_the_main_thread() {
    let bus = Arc::new(bus(&Output::default()));
    write_status(&bus, 0, status::ACKNOWLEDGE);
    assert_eq!(read(&bus, 0, register::STATUS), status::ACKNOWLEDGE);
}

#[test]
fn an_empty_slot_is_a_device_of_no_kind_that_takes_nothing() {
    let bus = bus(&Output::default());
    let write = |register| bus.write_mmio(MMIO_START.0 + slots::SIZE + register, &u32::MAX.to_le_bytes());
    for register in (0..slots::SIZE).step_by(4) {
        // Also the status register: nobody would answer.
        write(register);
        let expected = match register {
            register::MAGIC => u32::from_le_bytes(*b"virt"),
            register::VERSION => 2,
            _ => 0,
        };
        assert_eq!(read(&bus, 1, register), expected, "{register:#x}");
    }
}

#[test]
fn a_slot_is_filled_used_and_emptied() {
    let bus = Arc::new(bus(&Output::default()));
    assert_eq!(bus.empty_slot(), Some(1));
    assert_eq!(bus.empty(1).err(), Some(NotRemovable::Empty));
    bus.fill(1, transport());
    assert_eq!(bus.empty_slot(), None);
    assert_eq!(read(&bus, 1, register::DEVICE_ID), 4);
    for value in [status::ACKNOWLEDGE, status::ACKNOWLEDGE | status::DRIVER] {
        write_status(&bus, 1, value);
    }
    assert_eq!(bus.empty(1).err(), Some(NotRemovable::Bound));
    // As Linux leaves a device whose driver it has unbound.
    for value in [0, status::ACKNOWLEDGE] {
        write_status(&bus, 1, value);
    }
    assert!(bus.empty(1).is_ok());
    assert_eq!(read(&bus, 1, register::DEVICE_ID), 0);
    assert_eq!(bus.empty_slot(), Some(1));
}

#[test]
fn a_device_that_leaves_while_its_status_is_written_leaves_its_vcpu_alone() {
    let bus = Arc::new(bus(&Output::default()));
    bus.fill(1, transport());
    let vcpu = thread::spawn({
        let bus = Arc::clone(&bus);
        move || bus.write_mmio(MMIO_START.0 + slots::SIZE + register::STATUS, &1u32.to_le_bytes())
    });
    wait_for_write(&bus);
    drop(bus.empty(1).unwrap());
    bus.start_and_stop_devices();
    vcpu.join().unwrap();
    assert_eq!(read(&bus, 1, register::STATUS), 0);
}

/// A device during whose reset another vCPU resets the device of slot `other`.
struct Relayed {
    bus: Arc<OnceLock<Weak<Bus>>>,
    other: u64,
    resets: Arc<AtomicUsize>,
}

impl VirtioDevice for Relayed {
    fn device_type(&self) -> u32 {
        4
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _activation: Activation) -> Result<(), ActivateError> {
        Ok(())
    }

    fn stop(&mut self) -> Option<Vec<Queue>> {
        // A guest would never end it.
        if self.resets.fetch_add(1, Relaxed) < 8 {
            let bus = self.bus.get().unwrap().upgrade().unwrap();
            let address = MMIO_START.0 + self.other * slots::SIZE + register::STATUS;
            let vcpu = Arc::clone(&bus);
            thread::spawn(move || vcpu.write_mmio(address, &[0; 4]));
            wait_for_write(&bus);
        }
        None
    }
}

#[test]
fn vcpus_that_always_have_a_write_waiting_do_not_keep_the_main_thread() {
    let (place, resets) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let relayed = |other| {
        transport_of(Box::new(Relayed { bus: Arc::clone(&place), other, resets: Arc::clone(&resets) }))
    };
    let serial = SerialLine::new(Irq(EventFd::new(0).unwrap()), Output::default());
    let bus = Arc::new(Bus::new(serial, vec![relayed(1), relayed(0)], 0).unwrap());
    place.set(Arc::downgrade(&bus)).unwrap();
    write_status(&bus, 0, 0);
    for turn in 1..=8 {
        assert_eq!(resets.load(Relaxed), turn);
        wait_for_write(&bus);
        bus.start_and_stop_devices();
    }
}
