//! `localhost` in the host's network namespace of a pod, which the CRI's port forwarding dials.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use serde_json::json;
use stockade_tests::cli::Stockade;
use stockade_tests::host;
use stockade_tests::netns::Netns;
use stockade_tests::shell::Shell;

/// Connects to an address in a network namespace.
fn dial(namespace: &Netns, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("address");
    namespace.within(move || TcpStream::connect(address)).join().expect("thread")
}

/// Gets the page of an HTTP server at an address in it.
fn get_page(namespace: &Netns, address: &str) {
    let mut stream = dial(namespace, address).expect("connect");
    stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").expect("request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("end of the header") + 4;
    assert_eq!(answer.len() - end, LENGTH);
    assert!(answer[end..].chunks(LINE.len()).all(|line| LINE.starts_with(line)), "content");
}

/// The page: so many bytes of this line.
const LENGTH: usize = 3_000_000;
const LINE: &[u8] = b"stockade\n";

fn pod<'a>(stockade: &'a Stockade, namespace: &Netns) -> Shell<'a> {
    Shell::start(stockade, "pod", |config| {
        config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
        namespace.join(config);
    })
}

#[test]
fn localhost_in_the_pods_namespace_is_the_guests() {
    let stockade = Stockade::new();
    let namespace = Netns::new("forward");
    let before = host::Snapshot::take();
    let mut pod = pod(&stockade, &namespace);
    // Servers in the guest that only its own loopback interface reaches, with more than all buffers hold.
    pod.ask(&format!("mkdir /www; yes stockade | head -c {LENGTH} > /www/file"));
    for address in ["127.0.0.1:8080", "[::1]:8081"] {
        pod.ask(&format!(
            "httpd -f -h /www -p {address} & until wget -q -O /dev/null http://{address}/file; do :; done"
        ));
    }

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| get_page(&namespace, "127.0.0.1:8080"));
        }
    });
    // The guest is asked for either family, and whoever listens there answers.
    get_page(&namespace, "[::1]:8080");
    get_page(&namespace, "127.0.0.1:8081");

    // Where nobody listens in the guest, the connection ends.
    let mut stream = dial(&namespace, "127.0.0.1:9").expect("the relay accepts");
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("bytes from nobody"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    // Only loopback addresses are the pod's.
    assert!(dial(&namespace, "192.0.2.1:8080").is_err());

    pod.end();
    let refused = dial(&namespace, "127.0.0.1:8080").expect_err("nobody is left");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    before.assert_same_now();
}
