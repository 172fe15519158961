//! The network of a pod, as its namespace has it, seen and used in the guest.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host;
use stockade_tests::netns::{Netns, serve_name, veth};

/// Longest that one exchange of packets may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A pod's namespace, connected to another one as by a CNI plugin.
struct Pod {
    netns: Netns,
    peer: Netns,
}

impl Pod {
    fn new() -> Self {
        let pod = Self { netns: Netns::new("pod"), peer: Netns::new("peer") };
        veth(&pod.netns, "eth0", &pod.peer, "veth0");
        for words in [
            "link set eth0 address 02:aa:00:00:00:02 mtu 1400",
            "addr add 10.88.0.2/24 brd + dev eth0",
            "addr add fd00:88::2/64 dev eth0 nodad",
            "link set eth0 up",
        ] {
            pod.netns.ip(words);
        }
        for words in [
            "link set veth0 address 02:aa:00:00:00:01 mtu 1400",
            "addr add 10.88.0.1/24 dev veth0",
            "addr add fd00:88::1/64 dev veth0 nodad",
            "link set veth0 up",
        ] {
            pod.peer.ip(words);
        }
        for words in [
            "route add default via 10.88.0.1",
            "route add 192.0.2.0/24 via 10.88.0.1 metric 50 mtu 1300",
            "route add 198.51.100.7 dev eth0 scope link",
            "route add default via fd00:88::1",
            "neigh add 10.88.0.77 lladdr 02:aa:00:00:00:77 dev eth0 nud permanent",
        ] {
            pod.netns.ip(words);
        }
        pod
    }

    /// A bundle that runs a shell script in this network.
    fn bundle(&self, script: &str) -> Bundle {
        Bundle::script(script).edit(|config| self.netns.join_as_administrator(config))
    }

    /// A container in this network that waits, created and started.
    fn start(&self, stockade: &Stockade, id: &str) -> (Bundle, i32) {
        let bundle = self.bundle("sleep 10000");
        let relay = stockade.create(&bundle, id);
        stockade.run(&["start", id]).success();
        (bundle, relay)
    }
}

/// What a shell script prints in a container.
#[track_caller]
fn exec(stockade: &Stockade, id: &str, script: &str) -> String {
    stockade.run(&["exec", id, "/bin/busybox", "sh", "-c", script]).success().stdout
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn the_guest_has_the_interface_of_the_namespace() {
    let stockade = Stockade::new();
    let pod = Pod::new();
    let before = host::Snapshot::take();
    let picture = pod.netns.picture();
    let bundle = pod
        .bundle(
            "alias ip='busybox ip'; ip addr; ip route; ip -6 route; ip neigh; \
             cat /proc/sys/net/ipv4/conf/eth0/arp_announce",
        )
        .edit(|config| config["linux"]["sysctl"] = json!({ "net.ipv4.conf.eth0.arp_announce": "2" }));
    let outcome = stockade.run_bundle(&bundle, "seen").success();
    assert_eq!(outcome.stderr, "");
    let out = &outcome.stdout;
    assert_has(
        out,
        &[
            " lo: <LOOPBACK,UP,LOWER_UP>",
            " eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400",
            "link/ether 02:aa:00:00:00:02",
            "inet 10.88.0.2/24 brd 10.88.0.255 scope global eth0",
            "inet6 fd00:88::2/64 scope global",
            // The host's own link-local address, and no other.
            "inet6 fe80::aa:ff:fe00:2/64 scope link",
            "default via 10.88.0.1 dev eth0",
            "10.88.0.0/24 dev eth0 scope link  src 10.88.0.2",
            "192.0.2.0/24 via 10.88.0.1 dev eth0  metric 50",
            "198.51.100.7 dev eth0 scope link",
            "default via fd00:88::1 dev eth0",
            "fd00:88::/64 dev eth0",
            "10.88.0.77 dev eth0 lladdr 02:aa:00:00:00:77",
        ],
    );
    assert_eq!(out.lines().filter(|line| line.contains("inet6 fe80::")).count(), 1, "{out}");
    assert_eq!(out.lines().last(), Some("2"), "{out}");
    assert_eq!(pod.netns.picture(), picture, "nothing is left in the namespace");
    before.assert_same_now();
}

/// Answers whoever connects with what it has sent.
fn echo(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("accept");
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    stream.write_all(&bytes).expect("write");
}

#[test]
fn packets_go_both_ways_and_arrive_as_they_were_sent() {
    let stockade = Stockade::new();
    let pod = Pod::new();
    let before = host::Snapshot::take();
    let picture = pod.netns.picture();
    let (_bundle, _) = pod.start(&stockade, "used");

    exec(&stockade, "used", "busybox ping -c 1 -W 60 10.88.0.1 && busybox ping -6 -c 1 -W 60 fd00:88::1");
    pod.peer.run("busybox ping -c 1 -W 60 10.88.0.2");
    pod.peer.run("busybox ping -6 -c 1 -W 60 fd00:88::2");

    // Large segments, out and back: what the peer has got is what it returns.
    for address in ["10.88.0.1", "fd00:88::1"] {
        let listener = pod.peer.within(move || TcpListener::bind((address, 5000)).expect("listen"));
        let listener = listener.join().expect("listener");
        let echo = std::thread::spawn(move || echo(&listener));
        let script = format!(
            "cd /dev/shm && dd if=/dev/urandom of=sent bs=1M count=10 2>/dev/null && \
             busybox nc {address} 5000 < sent > got && busybox cmp sent got && busybox stat -c %s got"
        );
        assert_eq!(exec(&stockade, "used", &script).trim(), "10485760");
        echo.join().expect("echo");
    }

    // A server in the guest, from outside.
    let server = "busybox nc -ll -p 6000 -e /bin/cat > /dev/null 2>&1 & \
                  until grep -q :1770 /proc/net/tcp6 /proc/net/tcp; do :; done";
    exec(&stockade, "used", server);
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let client = pod.peer.within(move || {
        let mut stream = TcpStream::connect(("10.88.0.2", 6000)).expect("connect");
        stream.set_read_timeout(Some(LIMIT)).expect("timeout");
        let mut writer = stream.try_clone().expect("clone");
        let outgoing = sent.clone();
        let writer = std::thread::spawn(move || {
            writer.write_all(&outgoing).expect("write");
            writer.shutdown(std::net::Shutdown::Write).expect("shutdown");
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("read");
        writer.join().expect("writer");
        assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
    });
    client.join().expect("client");

    // Datagrams: the guest asks for a name.
    let socket = pod.peer.within(|| UdpSocket::bind("10.88.0.1:53").expect("bind")).join().expect("socket");
    let names = std::thread::spawn(move || serve_name(&socket));
    let found = exec(&stockade, "used", "busybox nslookup -type=a some.name 10.88.0.1");
    assert!(found.contains("192.0.2.77"), "{found}");
    names.join().expect("name server");

    stockade.run(&["kill", "used", "KILL"]).success();
    stockade.run(&["delete", "--force", "used"]).success();
    assert_eq!(pod.netns.picture(), picture, "nothing is left in the namespace");
    before.assert_same_now();
}

#[test]
fn a_vmm_that_is_killed_leaves_nothing() {
    let stockade = Stockade::new();
    let pod = Pod::new();
    let before = host::Snapshot::take();
    let picture = pod.netns.picture();
    let (_bundle, relay) = pod.start(&stockade, "killed");
    assert_has(&pod.netns.picture(), &["stkd", "ingress", "mirred"]);
    let vmm = stockade.vmm_pid(relay);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(vmm), nix::sys::signal::Signal::SIGKILL).expect("kill");
    host::wait_for_end(vmm);
    stockade.run(&["delete", "--force", "killed"]).success();
    assert_eq!(pod.netns.picture(), picture);
    // The same namespace serves another one.
    let bundle = pod.bundle("busybox ping -c 1 -W 60 10.88.0.1");
    stockade.run_bundle(&bundle, "killed").success();
    assert_eq!(pod.netns.picture(), picture);
    before.assert_same_now();
}

#[test]
fn what_is_configured_before_start_is_in_the_guest() {
    let stockade = Stockade::new();
    let pod = Pod::new();
    let before = host::Snapshot::take();
    let bundle = pod.bundle("sleep 10000");
    stockade.create(&bundle, "between");
    // A second interface; a rename, another address and MTU of the first.
    veth(&pod.netns, "net1", &pod.peer, "veth1");
    for words in [
        "link set eth0 down",
        "link set eth0 name front mtu 1300",
        "addr del 10.88.0.2/24 dev front",
        "addr add 10.88.0.9/24 dev front",
        "link set front up",
        "addr add 10.99.0.2/24 dev net1",
        "link set net1 up",
        "route add default via 10.99.0.1",
    ] {
        pod.netns.ip(words);
    }
    for words in ["addr add 10.99.0.1/24 dev veth1", "link set veth1 up"] {
        pod.peer.ip(words);
    }
    stockade.run(&["start", "between"]).success();
    let seen = exec(&stockade, "between", "busybox ip addr; busybox ip route");
    assert_has(
        &seen,
        &[
            " front: <",
            "mtu 1300",
            "inet 10.88.0.9/24",
            " net1: <",
            "inet 10.99.0.2/24",
            "default via 10.99.0.1 dev net1",
        ],
    );
    assert!(!seen.contains("10.88.0.2/") && !seen.contains("default via 10.88"), "{seen}");
    exec(&stockade, "between", "busybox ping -c 1 -W 60 10.99.0.1 && busybox ping -c 1 -W 60 10.88.0.1");
    stockade.run(&["kill", "between", "KILL"]).success();
    stockade.run(&["delete", "--force", "between"]).success();
    before.assert_same_now();
}
