//! Network namespaces with names, as CNI plugins make them, and the other ends of their links.

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::cli::text;

/// A named network namespace, removed with the value.
pub struct Netns {
    name: String,
}

impl Netns {
    /// A new one, with its loopback interface up.
    pub fn new(name: &str) -> Self {
        run("ip", &["netns", "add", name]);
        let namespace = Self { name: name.to_owned() };
        namespace.ip("link set lo up");
        namespace
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` in it; the words are separated by spaces.
    pub fn ip(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        run("ip", &[&["-n", &self.name], &words[..]].concat())
    }

    /// Runs a command in it.
    pub fn run(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        run("ip", &[&["netns", "exec", &self.name], &words[..]].concat())
    }

    /// Calls `work` in a thread that is in it. Sockets that it makes stay there.
    pub fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = File::open(self.path()).expect("network namespace");
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        })
    }

    /// Puts the container of this configuration into it.
    pub fn join(&self, config: &mut Value) {
        join(config, &self.path());
    }

    /// The same, and lets the container's root administer it.
    pub fn join_as_administrator(&self, config: &mut Value) {
        self.join(config);
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut().expect("capabilities");
            set.extend(["CAP_NET_RAW", "CAP_NET_ADMIN"].map(Value::from));
        }
    }

    /// Its interfaces, their qdiscs and filters: what a runtime may leave behind.
    pub fn picture(&self) -> String {
        let links = self.ip("-o link");
        let mut picture = String::new();
        for line in links.lines() {
            // "2: eth0@if3: <FLAGS> …"
            let name = line.split([':', '@']).nth(1).unwrap_or_default().trim();
            picture += &format!("{name}: {}", self.run(&format!("tc qdisc show dev {name}")));
            picture += &self.run(&format!("tc filter show dev {name} ingress"));
        }
        picture
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Puts the container of a configuration into the network namespace at this path.
pub fn join(config: &mut Value, path: &Path) {
    for entry in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
        if entry["type"] == "network" {
            entry["path"] = text(path).into();
        }
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A veth pair: `name` in `inside`, `peer` in `outside`, both down and without addresses.
pub fn veth(inside: &Netns, name: &str, outside: &Netns, peer: &str) {
    let Netns { name: inside } = inside;
    let Netns { name: outside } = outside;
    let words = ["link", "add", "name", name, "netns", inside, "type", "veth", "peer", "name", peer];
    run("ip", &[&words[..], &["netns", outside]].concat());
}

/// Gives two ends of a link addresses in a network of three numbers, the first .2 and the second .1, and sets them up.
pub fn give_addresses(network: &str, ends: [(&Netns, &str); 2]) {
    for ((netns, name), last) in ends.into_iter().zip([2, 1]) {
        netns.ip(&format!("addr add {network}.{last}/24 dev {name}"));
        netns.ip(&format!("link set {name} up"));
    }
}

/// An interface `netN` of the pod, with 10.99.N.2, and its other end, with 10.99.N.1.
pub fn connect(pod: &Netns, outside: &Netns, n: u8) {
    let (inner, outer) = (format!("net{n}"), format!("out{n}"));
    veth(pod, &inner, outside, &outer);
    give_addresses(&format!("10.99.{n}"), [(pod, &inner), (outside, &outer)]);
}

/// Longest that a question may take to come.
const LIMIT: Duration = Duration::from_secs(120);

/// Answers one question of DNS with 192.0.2.77.
pub fn serve_name(socket: &UdpSocket) {
    socket.set_read_timeout(Some(LIMIT)).expect("timeout");
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).expect("a question");
    let mut answer = buffer[..length].to_vec();
    // A response without error, with one answer: the question's name, an address, for a minute.
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = 1;
    answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    socket.send_to(&answer, from).expect("answer");
}
