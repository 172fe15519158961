//! User-mode networking: the annotations `io.stockade.network` and `io.stockade.network.publish`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host;
use stockade_tests::netns::{Netns, serve_name};

/// Without which the annotations have no effect.
const ALLOWED: &str = "allowed_annotations = [\"io.stockade.network\", \"io.stockade.network.publish\"]\n";

const LIMIT: Duration = Duration::from_secs(120);

/// The host's own network: one interface with a default route, to a namespace that stands for the rest of the world.
fn world() -> Netns {
    let world = Netns::new("world");
    world.ip("link add world0 type veth peer name uplink");
    world.ip("link set uplink netns 1");
    world.ip("addr add 10.77.0.1/24 dev world0");
    world.ip("link set world0 up");
    for words in ["addr add 10.77.0.2/24 dev uplink", "link set uplink up", "route add default via 10.77.0.1"]
    {
        assert!(Command::new("ip").args(words.split(' ')).status().expect("ip").success(), "ip {words}");
    }
    world
}

fn annotated(script: &str, annotations: serde_json::Value) -> Bundle {
    Bundle::script(script).edit(|config| config["annotations"] = annotations)
}

#[test]
fn the_container_reaches_the_world_and_is_reached_at_published_ports() {
    let world = world();
    let stockade = Stockade::with_config(ALLOWED);
    let before = host::Snapshot::take();
    let bundle = annotated(
        "sleep 10000",
        json!({ "io.stockade.network": "user", "io.stockade.network.publish": "8080:80/tcp" }),
    );
    stockade.create(&bundle, "user");
    stockade.run(&["start", "user"]).success();
    let exec =
        |script: &str| stockade.run(&["exec", "user", "/bin/busybox", "sh", "-c", script]).success().stdout;
    assert!(exec("busybox ip route").contains("default via 10.77.0.1"));

    // One way over TCP: Debian 12's pasta repeats answers on kernels as new as the lab's, in any namespace.
    let listener =
        world.within(|| TcpListener::bind("10.77.0.1:5000").expect("listen")).join().expect("listener");
    exec("echo -n packets | busybox nc 10.77.0.1 5000 > /dev/null 2>&1 &");
    let (mut stream, _) = listener.accept().expect("accept");
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    let mut got = [0; 7];
    stream.read_exact(&mut got).expect("read");
    assert_eq!(&got, b"packets");

    // Both ways over UDP.
    let socket = world.within(|| UdpSocket::bind("10.77.0.1:53").expect("bind")).join().expect("socket");
    let names = std::thread::spawn(move || serve_name(&socket));
    let found = exec("busybox nslookup -type=a some.name 10.77.0.1");
    assert!(found.contains("192.0.2.77"), "{found}");
    names.join().expect("name server");

    exec(
        "busybox nc -l -p 80 > /dev/shm/got 2> /dev/null & \
         until grep -q :0050 /proc/net/tcp6 /proc/net/tcp; do :; done",
    );
    let client = world.within(|| {
        let mut stream = TcpStream::connect("10.77.0.2:8080").expect("connect");
        stream.write_all(b"from outside").expect("write");
        stream
    });
    let _stream = client.join().expect("client");
    exec("until grep -q 'from outside' /dev/shm/got; do :; done");

    stockade.run(&["kill", "user", "KILL"]).success();
    stockade.run(&["delete", "--force", "user"]).success();
    before.assert_same_now();
}

#[test]
fn what_cannot_be_is_said_and_leaves_nothing() {
    let stockade = Stockade::with_config(ALLOWED);
    let before = host::Snapshot::take();
    let cases = [
        (json!({ "io.stockade.network": "bridge" }), "\"bridge\""),
        (json!({ "io.stockade.network.publish": "80" }), "io.stockade.network"),
        (json!({ "io.stockade.network": "user", "io.stockade.network.publish": "x" }), "\"x\""),
    ];
    for (annotations, word) in cases {
        let bundle = annotated("true", annotations);
        stockade.run_bundle(&bundle, "refused").failure(1, &["config.json", "annotations", word]);
    }
    // A host without a network of its own: pasta says so.
    let bundle = annotated("true", json!({ "io.stockade.network": "user" }));
    stockade.run_bundle(&bundle, "alone").failure(1, &["io.stockade.network", "pasta"]);
    before.assert_same_now();
}

#[test]
fn what_the_administrator_does_not_allow_has_no_effect_and_is_named() {
    let annotations = json!({
        "io.stockade.network": "user", "io.stockade.network.publish": "8080:80/tcp", "io.stockade.other": "1",
    });
    let bundle = annotated("busybox ip -o link | grep -v lo: | busybox wc -l", annotations);
    let path = bundle.path().to_str().expect("path");
    let log = bundle.path().join("log");
    let arguments = ["--log", log.to_str().expect("path"), "run", "--bundle", path, "c"];
    assert_eq!(Stockade::with_config("").run(&arguments).success().stdout, "0\n");
    let log = std::fs::read_to_string(&log).expect("log");
    for name in ["io.stockade.network", "io.stockade.network.publish", "io.stockade.other"] {
        assert!(log.contains(&format!("annotations[\\\"{name}\\\"] has no effect")), "no {name} in {log}");
    }
    // One of the two is not both.
    let stockade = Stockade::with_config("allowed_annotations = [\"io.stockade.network.publish\"]\n");
    stockade.run_bundle(&bundle, "c").failure(1, &["io.stockade.network.publish", "io.stockade.network is"]);
}
