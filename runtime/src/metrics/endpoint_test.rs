use std::net::Shutdown;

use proptest::prelude::*;

use super::*;

fn ask(request: &[u8]) -> Option<String> {
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(request).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let answered = answer(&server, || "metrics\n".to_owned());
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    answered.ok().map(|()| text)
}

#[test]
fn metrics_are_there_for_who_asks_as_http_has_it() {
    for request in [
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "GET /metrics?name[]=x HTTP/1.1\n\n",
    ] {
        let answer = ask(request.as_bytes()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\nContent-Type: application/openmetrics-text;"), "{head}");
        assert!(head.contains("\r\nContent-Length: 8\r\n"));
        assert_eq!(body, "metrics\n");
    }
    assert!(ask(b"GET / HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.0 404 "));
    assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.0 405 "));
}

#[test]
fn what_is_no_request_or_never_ends_is_not_answered() {
    assert_eq!(ask(b""), None);
    assert_eq!(ask(b"GET /metrics HTTP/1.1\r\n"), None);
    assert_eq!(ask(&[b'x'; MAX_REQUEST + 1]), None);
}

/// One is served at a time, and who comes meanwhile has not come in vain.
#[test]
fn a_client_that_says_nothing_keeps_only_the_others_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let proc = OwnProc::enter(std::fs::File::open("/proc").unwrap().into()).unwrap();
    let subject = Subject { id: "s".into(), created: std::time::SystemTime::UNIX_EPOCH };
    let mut endpoint =
        Endpoint::new(Metrics { subject, listener, agent: null(), vmm: null() }, proc).unwrap();
    let wait = |endpoint: &Endpoint| {
        let mut fds = [nix::poll::PollFd::new(endpoint.polled()[0], nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut fds, 10_000u16).unwrap(), 1);
    };
    let silent = UnixStream::connect(&path).unwrap();
    wait(&endpoint);
    endpoint.advance(0);
    let mut other = UnixStream::connect(&path).unwrap();
    other.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    // Not before the first has left.
    endpoint.advance(0);
    drop(silent);
    wait(&endpoint);
    endpoint.advance(0);
    let mut text = String::new();
    other.read_to_string(&mut text).unwrap();
    assert!(text.contains("stockade_sandbox_up{sandbox=\"s\"} 0.0\n"), "{text}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(request in prop::collection::vec(any::<u8>(), 0..200)) {
        ask(&request);
    }
}
