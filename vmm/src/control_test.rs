use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering},
    },
    thread,
};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use stockade_protocol::{
    frame,
    vmm::{Disk, Hello, HelloReply, Nic, Request, Response, Stage, Status, VERSION},
};
use vmm_sys_util::eventfd::EventFd;

use super::{Ending, Services, serve};
use crate::{
    adjustable::Imagined,
    bus::Bus,
    console::{Irq, Output, SerialLine},
    hotplug::HotplugSlots,
    machine::{self, Wiring},
    memory,
    stats::StatsSource,
    status::StatusSocket,
    vcpu::End,
    virtio::{failures::Failures, interrupt::Line, mmio::MmioTransport, slots::Slot},
};

/// Counts what is connected.
struct Wires(Arc<AtomicIsize>);

impl Wiring for Wires {
    fn line(&self, _: Slot) -> Line {
        Line::Event(EventFd::new(0).unwrap())
    }

    fn connect(&self, _: Slot, _: &MmioTransport) -> Result<(), machine::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn disconnect(&self, _: Slot, _: &MmioTransport) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The main loop on a thread, and the runtime's ends.
struct Runtime {
    status: OwnedFd,
    socket: Arc<StatusSocket>,
    ending: Arc<Ending>,
    connection: UnixStream,
    greeted: bool,
    wires: Arc<AtomicIsize>,
    failures: Failures,
    main: thread::JoinHandle<Option<End>>,
}

impl Runtime {
    fn new() -> Self {
        let (status, vmm_status) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("control")).unwrap();
        let mut connection = UnixStream::connect(directory.path().join("control")).unwrap();
        frame::write(&mut connection, &Hello::new(VERSION)).unwrap();
        let socket = Arc::new(StatusSocket::new(vmm_status));
        let ending = Arc::new(Ending::new().unwrap());
        let mut console = Output::default();
        console.write_all(b"hello").unwrap();
        let serial = SerialLine::new(Irq(EventFd::new(0).unwrap()), console.clone());
        let memory = memory::reserve(memory::Size { memory_mib: 32, most_mib: 32 }).unwrap();
        let bus = Arc::new(Bus::new(serial, Vec::new(), 2).unwrap());
        let wires = Arc::new(AtomicIsize::new(0));
        let failures = Failures::new().unwrap();
        let wiring = Arc::new(Wires(Arc::clone(&wires)));
        let services = Services {
            hotplug: HotplugSlots {
                wiring,
                bus: Arc::clone(&bus),
                memory: memory.clone(),
                failures: failures.clone(),
                first: 0,
            },
            bus,
            files: None,
            failures: failures.clone(),
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
        };
        let main = thread::spawn({
            let (socket, ending) = (Arc::clone(&socket), Arc::clone(&ending));
            move || serve(&socket, &listener, &ending, &services).unwrap()
        });
        Self { status, socket, ending, connection, greeted: false, wires, failures, main }
    }

    fn ask(&mut self, request: &Request) -> Response {
        frame::write(&mut self.connection, request).unwrap();
        self.answer()
    }

    /// The next answer; the first comes after a welcome.
    fn answer(&mut self) -> Response {
        if !std::mem::replace(&mut self.greeted, true) {
            let welcome: HelloReply = frame::read(&mut self.connection, frame::HOST_LIMIT).unwrap().unwrap();
            assert_eq!(welcome, HelloReply::Welcome);
        }
        frame::read(&mut self.connection, frame::HOST_LIMIT).unwrap().unwrap()
    }

    /// Asks with descriptors at the frame's first byte.
    fn ask_with(&mut self, request: &Request, descriptors: &[RawFd]) -> Response {
        let frame = frame::encode(request).unwrap();
        let (first, rest) = frame.split_at(1);
        let rights = [ControlMessage::ScmRights(descriptors)];
        let socket = self.connection.as_raw_fd();
        sendmsg::<()>(socket, &[IoSlice::new(first)], &rights, MsgFlags::empty(), None).unwrap();
        self.connection.write_all(rest).unwrap();
        self.answer()
    }

    fn status(&self) -> Status {
        let mut packet = [0; 1024];
        let length = nix::unistd::read(&self.status, &mut packet).unwrap();
        postcard::from_bytes(&packet[..length]).unwrap()
    }
}

#[test]
fn requests_are_answered_in_order_on_one_connection() {
    let mut runtime = Runtime::new();
    assert_eq!(runtime.ask(&Request::Console), Response::Console(b"hello".to_vec()));
    let Response::Figures(stats) = runtime.ask(&Request::Figures) else { panic!("no stats") };
    assert_eq!((stats.entry_tsc, stats.run_tsc, stats.tsc_offset), (1, 2, 3));
    assert!(stats.overhead_kib > 0);
    assert_eq!(runtime.ask(&Request::Failures), Response::Failures(Vec::new()));
}

#[test]
fn why_a_device_has_failed_is_reported_and_kept() {
    let mut runtime = Runtime::new();
    runtime.failures.add("fs", &"malformed request: too short");
    let expected = Status::DeviceFailed { device: "fs".into(), cause: "malformed request: too short".into() };
    assert_eq!(runtime.status(), expected);
    let Response::Failures(failures) = runtime.ask(&Request::Failures) else { panic!("no failures") };
    assert_eq!((failures.len(), failures[0].device.as_str(), failures[0].count), (1, "fs", 1));
    let Response::Console(console) = runtime.ask(&Request::Console) else { panic!("no console") };
    let console = String::from_utf8(console).unwrap();
    assert!(
        console.ends_with("hello\nstockade-vmm: the device fs has failed: malformed request: too short\n"),
        "{console}"
    );
}

/// Reads until the last copy of the other end is closed.
fn closed_at_last(mut end: UnixStream) -> bool {
    end.read(&mut [0; 8]).unwrap() == 0
}

#[test]
fn descriptors_that_no_device_is_made_of_are_closed() {
    let mut runtime = Runtime::new();
    let requests = [
        (Request::AddNic(Nic { mac: [2; 6], mtu: 1500 }), "not an open tap"),
        (Request::AddNic(Nic { mac: [1; 6], mtu: 1500 }), "hardware address"),
        (Request::AddNic(Nic { mac: [2; 6], mtu: 67 }), "MTU of 67"),
        (Request::RemoveDevice { slot: 1 }, "the slot has no device"),
        (Request::RemoveDevice { slot: 200 }, "slot 200"),
    ];
    for (request, expected) in requests {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let response = runtime.ask_with(&request, &[theirs.as_raw_fd()]);
        drop(theirs);
        assert!(matches!(&response, Response::Error(e) if e.contains(expected)), "{request:?}: {response:?}");
        assert!(closed_at_last(ours));
    }
    let none = runtime.ask(&Request::AddNic(Nic { mac: [2; 6], mtu: 1500 }));
    assert!(matches!(&none, Response::Error(e) if e.contains("1 to 8 taps, and 0")), "{none:?}");
    assert_eq!(runtime.wires.load(Ordering::SeqCst), 0);
}

#[test]
fn devices_fill_free_slots_until_there_are_none_and_leave_them_again() {
    let mut runtime = Runtime::new();
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let add = Request::AddDisk(Disk { readonly: false, serial: "volume".into() });
    let descriptor = [file.as_raw_fd()];
    assert_eq!(runtime.ask_with(&add, &descriptor), Response::Slot(0));
    assert_eq!(runtime.ask_with(&add, &descriptor), Response::Slot(1));
    let full = runtime.ask_with(&add, &descriptor);
    assert!(matches!(&full, Response::Error(e) if e.contains("no free slot")), "{full:?}");
    assert_eq!(runtime.wires.load(Ordering::SeqCst), 2);
    assert_eq!(runtime.ask(&Request::RemoveDevice { slot: 0 }), Response::Done);
    assert_eq!(runtime.wires.load(Ordering::SeqCst), 1);
    let gone = runtime.ask(&Request::RemoveDevice { slot: 0 });
    assert!(matches!(&gone, Response::Error(e) if e.contains("the slot has no device")), "{gone:?}");
    assert_eq!(runtime.ask_with(&add, &descriptor), Response::Slot(0));
}

#[test]
fn more_descriptors_than_any_request_takes_end_the_connection() {
    let mut runtime = Runtime::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let rights = [theirs.as_raw_fd(); 9];
    let rights = [ControlMessage::ScmRights(&rights)];
    let socket = runtime.connection.as_raw_fd();
    sendmsg::<()>(socket, &[IoSlice::new(&[2, 0])], &rights, MsgFlags::empty(), None).unwrap();
    drop(theirs);
    assert_eq!(runtime.connection.read(&mut [0; 8]).unwrap(), 0);
    assert!(closed_at_last(ours));
}

#[test]
fn descriptors_of_a_second_request_inside_a_first_end_the_connection() {
    let mut runtime = Runtime::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    for _ in 0..2 {
        let rights = [theirs.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let socket = runtime.connection.as_raw_fd();
        sendmsg::<()>(socket, &[IoSlice::new(&[9])], &rights, MsgFlags::empty(), None).unwrap();
    }
    drop(theirs);
    assert_eq!(runtime.connection.read(&mut [0; 8]).unwrap(), 0);
    assert!(closed_at_last(ours));
}

#[test]
fn nonsense_ends_its_connection_and_no_more() {
    let mut runtime = Runtime::new();
    runtime.connection.write_all(&[0xff; 8]).unwrap();
    assert_eq!(runtime.connection.read(&mut [0; 8]).unwrap(), 0);
    runtime.ending.set(End::Reset);
    assert_eq!(runtime.main.join().unwrap(), Some(End::Reset));
}

#[test]
fn what_only_the_vmm_of_0_1_did_is_refused() {
    let mut runtime = Runtime::new();
    for request in [Request::AddShare { name: "c".into() }, Request::RemoveShare { name: "c".into() }] {
        let response = runtime.ask(&request);
        assert!(matches!(&response, Response::Error(e) if e.contains("file server")), "{response:?}");
    }
}

#[test]
fn the_vmm_leaves_when_nobody_holds_its_status_socket() {
    let Runtime { status, main, .. } = Runtime::new();
    drop(status);
    assert_eq!(main.join().unwrap(), None);
}

#[test]
fn the_first_end_counts() {
    let runtime = Runtime::new();
    let failed = End::Failed("first".into());
    runtime.ending.set(failed.clone());
    runtime.ending.set(End::Reset);
    assert_eq!(runtime.main.join().unwrap(), Some(failed));
}

#[test]
fn stages_are_reported_once_and_in_order() {
    let runtime = Runtime::new();
    for stage in
        [Stage::Started, Stage::DriverReady, Stage::DriverReady, Stage::Loaded, Stage::AgentConnected]
    {
        runtime.socket.reached(stage);
    }
    for stage in [Stage::Started, Stage::DriverReady, Stage::AgentConnected] {
        assert_eq!(runtime.status(), Status::Reached(stage));
    }
    runtime.socket.failed("two\nlines", "last words".into());
    let failed = Status::Failed {
        after: Stage::AgentConnected,
        reason: "two lines".into(),
        console: "last words".into(),
    };
    assert_eq!(runtime.status(), failed);
}
