use std::{
    io::{ErrorKind as IoErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
};

use stockade_protocol::agent::{Hello, HelloReply, Purpose, Request, Response};
use tempfile::TempDir;

use super::{
    super::tests::{FakeInit, Guest, is_closed, receive},
    *,
};
use crate::{sockets::tests::mount, stdio::ProcessPipes};

/// A container with the socket 3.
struct Fixture {
    guest: Guest,
    init: FakeInit,
    _pipes: ProcessPipes,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let mut guest = Guest::new();
        let (init, pipes) = guest.add_created("c");
        let directory = tempfile::tempdir().unwrap();
        let mut sockets = Sockets::make_below(directory.path(), "c", &[mount(3, 0o600)]).unwrap();
        guest.server.watch_sockets(&Rc::new(init.id.clone()), &mut sockets).unwrap();
        guest.server.containers.get_mut("c").unwrap().sockets = sockets;
        Self { guest, init, _pipes: pipes, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("c/3")
    }

    /// A connection of the host that waits for a client.
    fn host(&mut self) -> UnixStream {
        let mut host = self.guest.connect();
        self.guest.tell(&mut host, &Hello::new(Purpose::Socket("c".to_owned(), 3)));
        host
    }

    fn client(&mut self) -> UnixStream {
        let client = UnixStream::connect(self.path()).unwrap();
        client.set_nonblocking(true).unwrap();
        self.guest.settle();
        client
    }

    /// What one has sent comes to the other.
    #[track_caller]
    fn passes(&mut self, mut from: &UnixStream, mut to: &UnixStream) {
        from.write_all(b"hello").unwrap();
        self.guest.settle();
        let mut bytes = [0; 8];
        assert_eq!(to.read(&mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"hello");
    }
}

#[track_caller]
fn waits(host: &mut UnixStream) {
    assert_eq!(host.read(&mut [0]).unwrap_err().kind(), IoErrorKind::WouldBlock);
}

#[test]
fn clients_and_the_host_meet_whoever_comes_first() {
    let mut fixture = Fixture::new();
    let mut first_host = fixture.host();
    waits(&mut first_host);
    let clients = [fixture.client(), fixture.client()];
    assert_eq!(receive::<HelloReply>(&mut first_host), HelloReply::Welcome);
    let mut second_host = fixture.host();
    assert_eq!(receive::<HelloReply>(&mut second_host), HelloReply::Welcome);
    for (host, client) in [first_host, second_host].iter().zip(&clients) {
        fixture.passes(host, client);
        fixture.passes(client, host);
    }
    assert_eq!((fixture.guest.server.forwards.len(), fixture.guest.server.connections.len()), (2, 0));
}

#[test]
fn each_direction_ends_by_itself() {
    let mut fixture = Fixture::new();
    let (mut host, mut client) = (fixture.host(), fixture.client());
    assert_eq!(receive::<HelloReply>(&mut host), HelloReply::Welcome);
    client.shutdown(Shutdown::Write).unwrap();
    fixture.guest.settle();
    assert!(is_closed(&mut host));
    fixture.passes(&host, &client);
    host.shutdown(Shutdown::Write).unwrap();
    fixture.guest.settle();
    assert!(is_closed(&mut client));
    assert!(fixture.guest.server.forwards.is_empty());
}

#[test]
fn the_end_of_one_is_the_end_of_the_other() {
    let mut fixture = Fixture::new();
    let (mut host, client) = (fixture.host(), fixture.client());
    drop(client);
    fixture.guest.settle();
    assert_eq!(receive::<HelloReply>(&mut host), HelloReply::Welcome);
    assert!(is_closed(&mut host));
    assert_eq!(host.write(b"x").unwrap_err().kind(), IoErrorKind::BrokenPipe);

    let (host, mut client) = (fixture.host(), fixture.client());
    drop(host);
    fixture.guest.settle();
    assert!(is_closed(&mut client));
    assert_eq!(client.write(b"x").unwrap_err().kind(), IoErrorKind::BrokenPipe);
    assert!(fixture.guest.server.forwards.is_empty());
}

#[test]
fn a_host_that_has_gone_or_comes_again_costs_no_client() {
    let mut fixture = Fixture::new();
    drop(fixture.host());
    fixture.guest.settle();
    let client = fixture.client();
    let mut host = fixture.host();
    assert_eq!(receive::<HelloReply>(&mut host), HelloReply::Welcome);
    fixture.passes(&client, &host);

    let (mut older, mut newer) = (fixture.host(), fixture.host());
    assert!(is_closed(&mut older));
    let client = fixture.client();
    assert_eq!(receive::<HelloReply>(&mut newer), HelloReply::Welcome);
    fixture.passes(&client, &newer);
}

#[test]
fn what_is_not_there_is_refused() {
    let mut fixture = Fixture::new();
    for (id, number) in [("c", 4), ("d", 3)] {
        let refusal = fixture.guest.greet(Purpose::Socket(id.to_owned(), number)).unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::NotFound, "{}", refusal.message);
    }
}

#[test]
fn nothing_is_left_of_a_deleted_container() {
    let mut fixture = Fixture::new();
    let (mut host, mut client) = (fixture.host(), fixture.client());
    assert_eq!(receive::<HelloReply>(&mut host), HelloReply::Welcome);
    let mut waiting = fixture.host();
    let mut control = fixture.guest.greet(Purpose::Control).unwrap();
    // No process, and a directory that is not there, stand for a container whose processes are gone.
    fixture.guest.server.processes.clear();
    fixture.init.cgroup.close().unwrap();
    fixture.guest.tell(&mut control, &Request::Delete { container: "c".to_owned() });
    assert_eq!(receive::<Response>(&mut control), Response::Deleted);
    assert!([&mut host, &mut client, &mut waiting].into_iter().all(is_closed));
    assert!(!fixture.directory.path().join("c").exists());
    let server = &fixture.guest.server;
    assert_eq!((server.forwards.len(), server.connections.len()), (0, 1));
}
