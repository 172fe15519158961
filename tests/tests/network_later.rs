//! Interfaces that come, change and go while the container runs.

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host;
use stockade_tests::netns::{Netns, connect};

#[test]
fn interfaces_come_change_and_go_while_the_container_runs() {
    let stockade = Stockade::new();
    let (pod, outside) = (Netns::new("pod"), Netns::new("outside"));
    connect(&pod, &outside, 0);
    let before = host::Snapshot::take();
    let picture = pod.picture();
    let bundle = Bundle::script("sleep 10000").edit(|config| pod.join_as_administrator(config));
    stockade.create(&bundle, "later");
    stockade.run(&["start", "later"]).success();
    // Waits in the guest until a condition holds there; the command has a limit of its own.
    let until = |condition: &str| {
        let script = format!("until {condition}; do busybox true; done");
        stockade.run(&["exec", "later", "/bin/busybox", "sh", "-c", &script]).success();
    };

    connect(&pod, &outside, 1);
    until("busybox ping -c 1 -W 1 10.99.1.1 > /dev/null 2>&1");
    pod.ip("route add 192.0.2.0/24 via 10.99.1.1");
    until("busybox ip route | grep -q '192.0.2.0/24 via 10.99.1.1'");
    pod.ip("link del net1");
    until("! busybox ip link show net1 > /dev/null 2>&1");
    // Its slot is free again: more come than there are slots, one by one.
    for n in 2..12 {
        connect(&pod, &outside, n);
        until(&format!("busybox ip addr | grep -q 10.99.{n}.2"));
        pod.ip(&format!("link del net{n}"));
        until(&format!("! busybox ip link show net{n} > /dev/null 2>&1"));
    }
    until("busybox ping -c 1 -W 1 10.99.0.1 > /dev/null 2>&1");

    stockade.run(&["kill", "later", "KILL"]).success();
    stockade.run(&["delete", "--force", "later"]).success();
    assert_eq!(pod.picture(), picture);
    before.assert_same_now();
}
