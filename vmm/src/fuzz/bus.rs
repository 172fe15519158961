//! Everything that a vCPU's exits reach: the serial line, ports that nobody has, devices, empty slots.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vm_superio::Serial;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{input::Input, recorder};
use crate::{
    bus::{Bus, Outcome},
    console::{self, Irq, Output},
    memory::MMIO_START,
    virtio::{mmio::register, slots},
};

/// The VMM's main thread, which carries out what a vCPU waits for.
struct MainThread {
    buses: SyncSender<Arc<Bus>>,
    done: Receiver<()>,
}

thread_local! {
    static MAIN: MainThread = MainThread::start();
}

impl MainThread {
    fn start() -> Self {
        let (buses, to_serve) = sync_channel::<Arc<Bus>>(0);
        let (is_done, done) = sync_channel(0);
        thread::spawn(move || {
            for bus in to_serve {
                // SAFETY: the event is open as long as the bus.
                let event = unsafe { BorrowedFd::borrow_raw(bus.activation_event().as_raw_fd()) };
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
                epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
                // libFuzzer's alarm may interrupt it.
                while epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE).is_err() {}
                bus.start_and_stop_devices();
                drop(bus);
                if is_done.send(()).is_err() {
                    return;
                }
            }
        });
        Self { buses, done }
    }

    /// Serves the bus while `vcpu` has its turn.
    fn serve(&self, bus: &Arc<Bus>, vcpu: impl FnOnce()) {
        self.buses.send(Arc::clone(bus)).unwrap();
        vcpu();
        // It may have handed over nothing.
        bus.activation_event().write(1).unwrap();
        self.done.recv().unwrap();
        let _ = bus.activation_event().read();
    }
}

/// Exits of any kind, and devices that come and go meanwhile.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let output = Output::default();
    let event = || EventFd::new(EFD_NONBLOCK).unwrap();
    let device = || recorder::transport(&memory);
    let bus = Arc::new(Bus::new(Serial::new(Irq(event()), output.clone()), vec![device()], 2).unwrap());
    while !input.is_empty() {
        let step = input.u8();
        let port = match step & 0x10 {
            0 => console::PORT + u16::from(step & 0xf),
            _ => input.u16(),
        };
        let address = MMIO_START.0 + u64::from(step & 3) * slots::SIZE + u64::from(port) % slots::SIZE;
        let mut data = [0xa5; 8];
        let length = usize::from(input.u8() % 9);
        match step >> 5 {
            0 | 1 => {
                if bus.write_port(port, input.bytes(length)) == Outcome::Reset {
                    return;
                }
            }
            2 => bus.read_port(port, &mut data[..length]),
            3 => write_mmio(&bus, address, input.bytes(length)),
            4 => bus.read_mmio(address, &mut data[..length]),
            5 => write_mmio(&bus, input.u64(), input.bytes(length)),
            6 => bus.start_and_stop_devices(),
            _ => match bus.empty_slot() {
                Some(slot) if step & 4 == 0 => bus.fill(slot, device()),
                _ => _ = bus.empty(usize::from(step & 3)),
            },
        }
        assert!(data[length..].iter().all(|byte| *byte == 0xa5));
    }
    bus.start_and_stop_devices();
    // It ends on somebody's terminal.
    let excerpt = output.last_lines(100);
    assert!(excerpt.len() <= 100 && excerpt.bytes().all(|byte| matches!(byte, b'\n' | b'\t' | b' '..=b'~')));
}

/// A vCPU waits for the main thread where it writes to a register of status, and only there.
fn write_mmio(bus: &Arc<Bus>, address: u64, data: &[u8]) {
    match slots::at(address) {
        Some((_, register::STATUS)) => MAIN.with(|main| main.serve(bus, || bus.write_mmio(address, data))),
        _ => bus.write_mmio(address, data),
    }
}
