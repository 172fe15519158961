use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
    thread,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{Bus, Outcome};
use crate::{
    console::{Irq, Output, SerialLine},
    devices::rng::Rng,
    memory::MMIO_START,
    virtio::{
        mmio::{MmioTransport, register, status},
        slots,
    },
};

fn bus(output: &Output) -> Bus {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let event = || EventFd::new(0).unwrap();
    let transport = MmioTransport::new(Box::new(Rng::default()), memory, event(), Box::new(|| ())).unwrap();
    Bus::new(SerialLine::new(Irq(event()), output.clone()), vec![transport]).unwrap()
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
    for address in [0, MMIO_START.0 - 4, MMIO_START.0 + slots::SIZE, u64::MAX] {
        data = [0; 4];
        bus.read_mmio(address, &mut data);
        assert_eq!(data, [0xff; 4], "{address:#x}");
        bus.write_mmio(address, &data);
    }
}

#[test]
fn a_write_to_a_status_register_waits_for_the_main_thread() {
    let bus = Arc::new(bus(&Output::default()));
    let vcpu = thread::spawn({
        let bus = Arc::clone(&bus);
        move || bus.write_mmio(MMIO_START.0 + register::STATUS, &status::ACKNOWLEDGE.to_le_bytes())
    });
    // SAFETY: the bus outlives the call.
    let event = unsafe { BorrowedFd::borrow_raw(bus.handover_event().as_raw_fd()) };
    poll(&mut [PollFd::new(event, PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    bus.start_and_stop_devices();
    vcpu.join().unwrap();
    let mut data = [0; 4];
    bus.read_mmio(MMIO_START.0 + register::STATUS, &mut data);
    assert_eq!(u32::from_le_bytes(data), status::ACKNOWLEDGE);
}
