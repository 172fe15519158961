//! `localhost` in the host's network namespace of a pod, which the CRI's port forwarding dials.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};
use serde_json::json;
use stockade_tests::cli::Stockade;
use stockade_tests::host;
use stockade_tests::shell::Shell;

/// A network namespace as CNI plug-ins leave it: pinned, with a loopback interface that is up.
struct Namespace(&'static str);

impl Namespace {
    fn new(name: &'static str) -> Self {
        let namespace = Self(name);
        run(&["ip", "netns", "add", name]);
        run(&["ip", "-n", name, "link", "set", "lo", "up"]);
        namespace
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    /// Connects to an address in it.
    fn dial(&self, address: &str) -> std::io::Result<TcpStream> {
        let namespace = File::open(self.path()).expect("namespace");
        let address: SocketAddr = address.parse().expect("address");
        let dial = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
            TcpStream::connect(address)
        };
        thread::spawn(dial).join().expect("thread")
    }

    /// Gets the page of an HTTP server at an address in it.
    fn get_page(&self, address: &str) {
        let mut stream = self.dial(address).expect("connect");
        stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").expect("request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answer");
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("end of the header") + 4;
        assert_eq!(answer.len() - end, LENGTH);
        assert!(answer[end..].chunks(LINE.len()).all(|line| LINE.starts_with(line)), "content");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&["ip", "netns", "delete", self.0]);
    }
}

/// The page: so many bytes of this line.
const LENGTH: usize = 3_000_000;
const LINE: &[u8] = b"stockade\n";

fn run(command: &[&str]) {
    let status = Command::new(command[0]).args(&command[1..]).status().expect(command[0]);
    assert!(status.success(), "{command:?}: {status}");
}

fn pod<'a>(stockade: &'a Stockade, namespace: &Namespace) -> Shell<'a> {
    Shell::start(stockade, "pod", |config| {
        config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
        for entry in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            if entry["type"] == "network" {
                entry["path"] = namespace.path().into();
            }
        }
    })
}

#[test]
fn localhost_in_the_pods_namespace_is_the_guests() {
    let stockade = Stockade::new();
    let namespace = Namespace::new("forward");
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
            scope.spawn(|| namespace.get_page("127.0.0.1:8080"));
        }
    });
    // The guest is asked for either family, and whoever listens there answers.
    namespace.get_page("[::1]:8080");
    namespace.get_page("127.0.0.1:8081");

    // Where nobody listens in the guest, the connection ends.
    let mut stream = namespace.dial("127.0.0.1:9").expect("the relay accepts");
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("bytes from nobody"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    // Only loopback addresses are the pod's.
    assert!(namespace.dial("192.0.2.1:8080").is_err());

    pod.end();
    let refused = namespace.dial("127.0.0.1:8080").expect_err("nobody is left");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    before.assert_same_now();
}
