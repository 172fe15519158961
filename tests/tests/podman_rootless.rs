//! podman of a user who is not root, with slirp4netns.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use stockade_tests::engine::RootlessPodman;
use stockade_tests::host;

/// Longest that one answer may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A network in which the host's loopback interface is 10.0.2.2.
const NETWORK: &str = "slirp4netns:port_handler=slirp4netns,allow_host_loopback=true";

#[test]
fn a_container_reaches_out_and_is_reached() {
    let podman = RootlessPodman::new();
    let outcome =
        podman.run(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "id -u; uname -r; exit 3"]);
    assert_eq!(outcome.status, 3, "{outcome:#?}");
    assert!(outcome.stdout.starts_with("0\n") && outcome.stdout.ends_with("-stockade\n"), "{outcome:#?}");

    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    let answer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(LIMIT)).expect("timeout");
        let mut request = [0; 4];
        stream.read_exact(&mut request).expect("a request");
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfrom the host\n").expect("answer");
        request
    });
    let url = format!("http://10.0.2.2:{port}/");
    let fetch = ["run", "--rm", "--network", NETWORK, "busybox", "busybox", "wget", "-q", "-O", "-", &url];
    assert_eq!(podman.run(&fetch).success().stdout, "from the host\n");
    assert_eq!(&answer.join().expect("the server"), b"GET ");

    let script = "mkdir /www; echo the page > /www/index.html; exec busybox httpd -f -p 80 -h /www";
    let server = [
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        NETWORK,
        "-p",
        "8083:80",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    podman.run(&server).success();
    let wait = "until busybox wget -q -O /dev/null http://localhost/; do sleep 0.2; done";
    podman.run(&["exec", "server", "sh", "-c", wait]).success();
    let mut stream = TcpStream::connect("127.0.0.1:8083").expect("connect");
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("send the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("the page\n"), "{answer}");
    podman.run(&["rm", "--force", "--time", "0", "server"]).success();
    podman.assert_clean();
}

#[test]
fn a_pod_is_in_one_vm() {
    let podman = RootlessPodman::new();
    podman.run(&["pod", "create", "--name", "pod", "--network", NETWORK]).success();
    for name in ["one", "two"] {
        podman.run(&["run", "-d", "--pod", "pod", "--name", name, "busybox", "sleep", "1000000"]).success();
    }
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
    let addresses = podman.run(&["exec", "two", "busybox", "ip", "addr", "show", "tap0"]).success();
    assert!(addresses.stdout.contains("inet 10.0.2.100/24"), "{addresses:#?}");
    assert_eq!(podman.run(&["exec", "one", "hostname"]).success().stdout, "pod\n");
    podman.run(&["pod", "rm", "--force", "--time", "0", "pod"]).success();
    podman.assert_clean();
}
