use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use proptest::prelude::*;
use stockade_protocol::agent::{AgentError, ErrorKind, Purpose};

use super::*;
use crate::sys::own_proc::OwnProc;

fn hello() -> Hello {
    Hello::new(Purpose::Socket("c1".to_owned(), 3))
}

fn refusal() -> AgentError {
    AgentError { kind: ErrorKind::NotFound, message: "no".to_owned() }
}

/// An agent and a service of the host, with what is tested between them.
struct Between {
    agent: UnixListener,
    service: Option<UnixListener>,
    thread: JoinHandle<io::Result<()>>,
    _directory: tempfile::TempDir,
}

impl Between {
    fn new(semaphore: &Semaphore) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["agent", "service"].map(|name| directory.path().join(name));
        let [agent, service] = [0, 1].map(|index| UnixListener::bind(&paths[index]).unwrap());
        let open = |path| OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).unwrap();
        let [agents, services] = [0, 1].map(|index| OwnedFd::from(open(&paths[index])));
        let semaphore = semaphore.clone();
        let proc = OwnProc::enter(File::open("/proc").unwrap().into()).unwrap();
        let thread = thread::spawn(move || {
            let agent = || proc.connect(&agents);
            let service = || proc.connect(&services).map(OwnedFd::from);
            Clients { hello: hello(), agent, service, semaphore: &semaphore }.serve()
        });
        Self { agent, service: Some(service), thread, _directory: directory }
    }

    /// The connection that waits for a client.
    fn parked(&self) -> UnixStream {
        let (mut parked, _) = self.agent.accept().unwrap();
        assert_eq!(frame::read::<Hello>(&mut parked, frame::HOST_LIMIT).unwrap(), Some(hello()));
        parked
    }

    fn client(&self) -> UnixStream {
        let mut parked = self.parked();
        frame::write(&mut parked, &HelloReply::Welcome).unwrap();
        parked
    }

    fn server(&self) -> UnixStream {
        self.service.as_ref().unwrap().accept().unwrap().0
    }

    /// Ends the VM.
    fn end(self) {
        drop(self.agent);
        let end = self.thread.join().unwrap().unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn every_client_is_connected_to_the_service() {
    let semaphore = Semaphore::new(2);
    let between = Between::new(&semaphore);
    let mut clients = [between.client(), between.client()];
    let mut servers = [0, 1].map(|_| between.server());
    for (client, text) in clients.iter_mut().zip(["first", "second"]) {
        client.write_all(text.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for server in &mut servers {
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        server.write_all(text.as_bytes()).unwrap();
        server.shutdown(Shutdown::Both).unwrap();
    }
    for (client, text) in clients.iter_mut().zip(["first", "second"]) {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, text);
    }
    between.parked();
    between.end();
}

#[test]
fn more_clients_than_there_are_places_wait() {
    let semaphore = Semaphore::new(1);
    let between = Between::new(&semaphore);
    let first = between.client();
    let _served = between.server();
    let mut second = between.client();
    second.write_all(b"x").unwrap();
    assert!(semaphore.take().is_none());
    drop(first);
    let mut server = between.server();
    assert_eq!(server.read(&mut [0; 2]).unwrap(), 1);
    drop((second, server));
    between.parked();
    between.end();
}

#[test]
fn without_a_service_the_client_sees_its_connection_end() {
    let semaphore = Semaphore::new(1);
    let mut between = Between::new(&semaphore);
    between.service = None;
    let mut client = between.client();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    // What is no welcome brings nobody to the service either, and the next client is waited for.
    frame::write(&mut between.parked(), &HelloReply::Refused(refusal())).unwrap();
    between.parked().write_all(b"\xff\xff\xff\xff").unwrap();
    assert!(semaphore.take().is_some());
    between.parked();
    between.end();
}

proptest! {
    #[test]
    fn an_agent_says_welcome_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let (ours, mut agent) = UnixStream::pair().unwrap();
        agent.write_all(&bytes).unwrap();
        agent.shutdown(Shutdown::Write).unwrap();
        let welcome = frame::encode(&HelloReply::Welcome).unwrap();
        match announce(ours, &hello()).and_then(client) {
            Ok(mut rest) => {
                prop_assert!(bytes.starts_with(&welcome));
                let mut read = Vec::new();
                rest.read_to_end(&mut read).unwrap();
                prop_assert_eq!(read, &bytes[welcome.len()..]);
            }
            Err(_) => prop_assert!(!bytes.starts_with(&welcome)),
        }
    }
}
