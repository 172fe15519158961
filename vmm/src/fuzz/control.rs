//! Requests to a VMM with an imagined machine, in pieces and with descriptors of any kind.

use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    socket::{ControlMessage, MsgFlags, sendmsg},
};
use stockade_protocol::{
    frame,
    vmm::{Hello, VERSION},
};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::input::Input;
use crate::{
    adjustable::Imagined,
    bus::Bus,
    console::{Irq, Output, SerialLine},
    control::{self, Connection, Services},
    hotplug::HotplugSlots,
    machine::{self, Wiring},
    stats::StatsSource,
    virtio::{failures::Failures, interrupt::Line, mmio::MmioTransport, slots::Slot},
};

/// Nobody is interrupted.
struct NoWires;

impl Wiring for NoWires {
    fn line(&self, _: Slot) -> Line {
        Line::Event(EventFd::new(EFD_NONBLOCK).unwrap())
    }

    fn connect(&self, _: Slot, _: &MmioTransport) -> Result<(), machine::Error> {
        Ok(())
    }

    fn disconnect(&self, _: Slot, _: &MmioTransport) {}
}

fn services() -> Services {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let console = Output::default();
    let serial = SerialLine::new(Irq(EventFd::new(EFD_NONBLOCK).unwrap()), console.clone());
    let bus = Arc::new(Bus::new(serial, Vec::new(), 2).unwrap());
    let failures = Failures::new().unwrap();
    Services {
        hotplug: HotplugSlots {
            wiring: Arc::new(NoWires),
            bus: Arc::clone(&bus),
            memory: memory.clone(),
            failures: failures.clone(),
            first: 0,
        },
        bus,
        files: None,
        failures,
        console,
        stats: StatsSource {
            entry_tsc: 1,
            run_tsc: 2,
            tsc_offset: 3,
            memory,
            smaps: File::open("/proc/self/smaps").unwrap(),
        },
        machine: Arc::new(Imagined::default()),
        fresh: None,
    }
}

/// A descriptor of a kind that fits a request, or does not.
fn descriptor(kind: u8) -> OwnedFd {
    match kind % 3 {
        0 => {
            let mut file = File::from(memfd_create("disk", MFdFlags::MFD_CLOEXEC).unwrap());
            file.write_all(&[0; 4096]).unwrap();
            file.into()
        }
        1 => File::open("/dev/null").unwrap().into(),
        _ => UnixStream::pair().unwrap().0.into(),
    }
}

/// Pieces of requests, each with up to three descriptors, mostly behind the hello of the version that is spoken.
pub fn run(input: &[u8]) {
    let greets = input.first() != Some(&0xff);
    let mut input = Input::new(input);
    let services = services();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut connection = Connection::new(ours);
    if greets {
        theirs.write_all(&frame::encode(&Hello::new(VERSION)).unwrap()).unwrap();
        control::answer(&mut connection, &services).unwrap();
    }
    while !input.is_empty() {
        let (length, count) = (usize::from(input.u8()), input.u8() & 3);
        let descriptors: Vec<_> = (0..count).map(|_| descriptor(input.u8())).collect();
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let piece = [IoSlice::new(input.bytes(length.max(1)))];
        let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
        let sent = sendmsg::<()>(theirs.as_raw_fd(), &piece, rights, MsgFlags::empty(), None);
        if sent.is_err() || sent == Ok(0) || control::answer(&mut connection, &services).is_err() {
            break;
        }
        while theirs.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
    }
}
