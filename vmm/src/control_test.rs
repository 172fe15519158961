use std::{
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    sync::Arc,
    thread,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use stockade_protocol::{
    frame,
    vmm::{Request, Response, Stage, Status},
};
use vmm_sys_util::eventfd::EventFd;

use super::{Ending, Services, serve};
use crate::{
    bus::Bus,
    console::{Irq, Output, SerialLine},
    devices::fs::shares::Shares,
    figures::FigureSource,
    memory,
    status::StatusSocket,
    vcpu::End,
};

/// The main loop on a thread, and the runtime's ends.
struct Runtime {
    status: OwnedFd,
    socket: Arc<StatusSocket>,
    ending: Arc<Ending>,
    connection: UnixStream,
    main: thread::JoinHandle<Option<End>>,
}

impl Runtime {
    fn new() -> Self {
        let (status, vmm_status) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("control")).unwrap();
        let connection = UnixStream::connect(folder.path().join("control")).unwrap();
        let socket = Arc::new(StatusSocket::new(vmm_status));
        let ending = Arc::new(Ending::new().unwrap());
        let mut console = Output::default();
        console.write_all(b"hello").unwrap();
        let serial = SerialLine::new(Irq(EventFd::new(0).unwrap()), console.clone());
        let services = Services {
            bus: Arc::new(Bus::new(serial, Vec::new()).unwrap()),
            shares: Shares::new(),
            console,
            figures: FigureSource {
                entry_tsc: 1,
                run_tsc: 2,
                tsc_offset: 3,
                memory: memory::reserve(32).unwrap(),
            },
        };
        let main = thread::spawn({
            let (socket, ending) = (Arc::clone(&socket), Arc::clone(&ending));
            move || serve(&socket, &listener, &ending, &services).unwrap()
        });
        Self { status, socket, ending, connection, main }
    }

    fn ask(&mut self, request: &Request) -> Response {
        frame::write(&mut self.connection, request).unwrap();
        frame::read(&mut self.connection, frame::HOST_LIMIT).unwrap().unwrap()
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
    let Response::Figures(figures) = runtime.ask(&Request::Figures) else { panic!("no figures") };
    assert_eq!((figures.entry_tsc, figures.run_tsc, figures.tsc_offset), (1, 2, 3));
    assert!(figures.overhead_kib > 0);
    let Response::Error(error) = runtime.ask(&Request::AddShare { name: "../etc".into() }) else {
        panic!("a share outside the folder of shares")
    };
    assert!(error.contains("one path component"), "{error}");
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
