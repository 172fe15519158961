//! Interfaces of all kinds in one pod, and what can be wrong with them.

use std::fs;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host;
use stockade_tests::netns::{Netns, connect, give_addresses, veth};

/// An interface of this kind in the pod, and another one of the same parent outside.
fn pair(pod: &Netns, outside: &Netns, name: &str, kind: &str, network: u8) {
    let parent = format!("parent{network}");
    outside.ip(&format!("link add {parent} type dummy"));
    outside.ip(&format!("link set {parent} up"));
    let path = pod.path();
    let pod_name = path.file_name().and_then(|name| name.to_str()).expect("name");
    outside.ip(&format!("link add link {parent} name {name} netns {pod_name} type {kind}"));
    outside.ip(&format!("link add link {parent} name out{network} type {kind}"));
    let outer = format!("out{network}");
    give_addresses(&format!("10.66.{network}"), [(pod, name), (outside, &outer)]);
}

#[test]
fn every_kind_of_ethernet_is_connected_and_others_are_named() {
    let stockade = Stockade::new();
    let (pod, outside) = (Netns::new("pod"), Netns::new("outside"));
    let before = host::Snapshot::take();
    pair(&pod, &outside, "macvlan", "macvlan mode bridge", 1);
    pair(&pod, &outside, "ipvlan-2", "ipvlan mode l2", 2);
    pair(&pod, &outside, "ipvlan-3", "ipvlan mode l3", 3);
    veth(&pod, "odd.name-15char", &outside, "out4");
    pod.ip("addr add 10.66.4.2/32 peer 10.66.4.1 dev odd.name-15char");
    pod.ip("link set odd.name-15char mtu 9000 up");
    outside.ip("addr add 10.66.4.1/32 peer 10.66.4.2 dev out4");
    outside.ip("link set out4 mtu 9000 up");
    // Nothing that Ethernet frames go through, once used and once not.
    for name in ["layer3", "unused"] {
        pod.ip(&format!("tuntap add {name} mode tun"));
    }
    pod.ip("link set layer3 up");
    let picture = pod.picture();

    let script = "busybox ip addr; busybox ip route; for n in 1 2 3 4; do busybox ping -c 1 -W 60 10.66.$n.1 > /dev/null && echo reached $n; done; \
                  busybox ping -c 1 -s 8000 -W 60 10.66.4.1 | grep 8008";
    let bundle = Bundle::script(script).edit(|config| pod.join_as_administrator(config));
    let log = bundle.path().join("log");
    let outcome =
        stockade.run(&["--log", text(&log), "run", "--bundle", text(bundle.path()), "kinds"]).success();
    for n in 1..=4 {
        assert!(outcome.stdout.contains(&format!("reached {n}")), "{}", outcome.stdout);
    }
    for part in [
        "8008 bytes from 10.66.4.1",
        " odd.name-15char: <",
        "mtu 9000",
        "inet 10.66.4.2 peer 10.66.4.1/32",
        " ipvlan-3: <BROADCAST,MULTICAST,NOARP,UP",
    ] {
        assert!(outcome.stdout.contains(part), "no {part:?} in:\n{}", outcome.stdout);
    }
    let log = fs::read_to_string(log).expect("log");
    assert!(log.contains("interface layer3") && log.contains("carries no Ethernet frames"), "{log}");
    assert!(!log.contains("unused"), "{log}");
    assert_eq!(pod.picture(), picture);
    before.assert_same_now();
}

#[test]
fn what_is_wrong_with_a_network_is_said_and_nothing_is_left() {
    let stockade = Stockade::new();
    let (pod, outside) = (Netns::new("pod"), Netns::new("outside"));
    let before = host::Snapshot::take();
    // As many as there are slots, and more.
    for n in 0..12 {
        veth(&pod, &format!("eth{n}"), &outside, &format!("out{n}"));
    }
    let picture = pod.picture();
    let bundle = Bundle::script("true").edit(|config| pod.join_as_administrator(config));
    stockade.run_bundle(&bundle, "many").failure(1, &["connect the interface eth", "to the VM", "slot"]);
    assert_eq!(pod.picture(), picture);
    before.assert_same_now();

    // A tap's name that somebody has taken.
    let index = pod.run("cat /sys/class/net/eth0/ifindex");
    pod.ip(&format!("link add stkd{} type dummy", index.trim()));
    stockade.run_bundle(&bundle, "taken").failure(1, &["interface eth0", &format!("stkd{}", index.trim())]);
    pod.ip(&format!("link del stkd{}", index.trim()));
    assert_eq!(pod.picture(), picture);
    before.assert_same_now();

    // A namespace that has gone.
    let gone = Bundle::script("true").edit(|config| pod.join_as_administrator(config));
    drop(pod);
    stockade.run_bundle(&gone, "gone").failure(1, &["linux.namespaces", "/run/netns/pod"]);
    let states = fs::read_dir(stockade.root()).expect("state directory").count();
    assert_eq!(states, 0, "nothing is left of it");
}

#[test]
fn a_nic_has_queues_for_the_cpus_and_offloads() {
    let stockade = Stockade::with_config("max_vcpus = 2\n");
    let (pod, outside) = (Netns::new("pod"), Netns::new("outside"));
    connect(&pod, &outside, 0);
    let before = host::Snapshot::take();
    let picture = pod.picture();
    let script = "nproc; busybox ls /sys/class/net/net0/queues; busybox ping -c 20 -i 0.01 -W 60 10.99.0.1 | grep received; \
                  busybox chroot /host /usr/sbin/ethtool -k net0";
    let bundle = Bundle::script(script).edit(|config| {
        pod.join_as_administrator(config);
        config["linux"]["resources"]["cpu"] = json!({ "quota": 200_000, "period": 100_000 });
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/host", "source": "/", "type": "none", "options": ["bind", "ro"]
        }));
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut().expect("capabilities");
            set.push(json!("CAP_SYS_CHROOT"));
        }
    });
    let outcome = stockade.run_bundle(&bundle, "queues").success();
    assert_eq!(outcome.stdout.lines().next(), Some("2"), "CPUs");
    let out = &outcome.stdout;
    for part in [
        "rx-0",
        "rx-1",
        "tx-1",
        "20 packets received",
        "rx-checksumming: on",
        "tx-checksumming: on",
        "tcp-segmentation-offload: on",
        "tx-tcp6-segmentation: on",
    ] {
        assert!(out.contains(part), "no {part:?} in:\n{out}");
    }
    assert_eq!(pod.picture(), picture);
    before.assert_same_now();
}
