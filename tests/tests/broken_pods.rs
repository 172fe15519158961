//! Pods whose network or sandbox is not, or no longer, what their config.json says.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, built, text};
use stockade_tests::host::Snapshot;
use stockade_tests::netns::{Netns, veth};

/// The bundle's network namespace.
fn set_netns(config: &mut Value, path: &str) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    let entry = namespaces.iter_mut().find(|entry| entry["type"] == "network").expect("network");
    entry["path"] = path.into();
}

/// A createRuntime hook that runs a shell script: it comes between the relay's start and the look at the network.
fn set_hook(config: &mut Value, script: &str) {
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": [path] });
    config["hooks"] = json!({ "createRuntime": [hook] });
}

#[test]
fn a_path_that_leads_to_no_network_namespace_is_named() {
    let stockade = Stockade::new();
    let directory = stockade_tests::bundle::directory();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("file");
    let ipc = directory.path().join("ipc");
    fs::write(&ipc, "").expect("file");
    let pin = Command::new("unshare").arg(format!("--ipc={}", ipc.display())).arg("true").status();
    assert!(pin.expect("unshare").success());
    let before = Snapshot::take();
    for (path, cause) in [
        ("/run/netns/gone", "No such file"),
        (text(&file), "it is not a net namespace"),
        (text(&ipc), "it is not a net namespace"),
    ] {
        for annotations in [json!({}), json!({ "io.kubernetes.cri-o.ContainerType": "sandbox" })] {
            let bundle = Bundle::busybox(&["true"]).edit(|config| {
                set_netns(config, path);
                config["annotations"] = annotations;
            });
            stockade.run_bundle(&bundle, "lost").failure(1, &["linux.namespaces", path, cause]);
            before.assert_same_now();
        }
    }
    nix::mount::umount(&ipc).expect("unmount");
}

#[test]
fn an_interface_that_is_renamed_during_create_has_its_new_name() {
    let stockade = Stockade::new();
    let (pod, peer) = (Netns::new("pod"), Netns::new("peer"));
    veth(&pod, "eth0", &peer, "veth0");
    pod.ip("addr add 10.88.0.2/24 dev eth0");
    pod.ip("link set eth0 up");
    peer.ip("addr add 10.88.0.1/24 dev veth0");
    peer.ip("link set veth0 up");
    let before = Snapshot::take();
    let bundle =
        Bundle::script("busybox ip -o addr; exec busybox ping -c 1 -W 60 10.88.0.1").edit(|config| {
            set_netns(config, text(&pod.path()));
            set_hook(config, "ip -n pod link set eth0 down; ip -n pod link set eth0 name front up");
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
            }
        });
    let outcome = stockade.run_bundle(&bundle, "renamed").success();
    assert!(outcome.stdout.contains(" front    inet 10.88.0.2/24"), "{outcome:#?}");
    assert!(!outcome.stdout.contains("eth0"), "{outcome:#?}");
    assert!(!pod.picture().contains("stkd"), "{}", pod.picture());
    before.assert_same_now();
}

/// A CNI plugin that fails late, or a caller that gives up: what goes takes its redirects along.
#[test]
fn what_goes_during_create_is_missed_in_one_line_or_not_at_all() {
    let stockade = Stockade::new();
    let (pod, peer) = (Netns::new("pod"), Netns::new("peer"));
    veth(&pod, "eth0", &peer, "veth0");
    let before = Snapshot::take();
    let bundle = |script: &str| {
        Bundle::script("busybox ip -o link").edit(|config| {
            set_netns(config, text(&pod.path()));
            set_hook(config, script);
        })
    };
    let outcome = stockade.run_bundle(&bundle("ip -n pod link del eth0"), "bare").success();
    assert!(outcome.stdout.contains("lo:") && !outcome.stdout.contains("eth0"), "{outcome:#?}");
    before.assert_same_now();
    let path = pod.path();
    let outcome = stockade.run_bundle(&bundle("ip netns del pod"), "netless");
    outcome.failure(1, &["network namespace", text(&path), "No such file"]);
    assert_eq!(stockade.run(&["list", "--quiet"]).success().stdout, "");
}

#[test]
fn a_member_whose_sandbox_is_deleted_meanwhile_says_so() {
    let stockade = Stockade::new();
    let before = Snapshot::take();
    let pause = Bundle::busybox(&["sleep", "1000"]);
    for deletion in ["delete --force", "kill"] {
        stockade.create(&pause, "pod");
        stockade.run(&["start", "pod"]).success();
        let member = Bundle::busybox(&["true"]).edit(|config| {
            config["annotations"] = json!({
                "io.kubernetes.cri-o.ContainerType": "container",
                "io.kubernetes.cri-o.SandboxID": "pod",
            });
            let root = stockade.root();
            let program = built("release/stockade");
            let signal = if deletion == "kill" { "KILL" } else { "" };
            set_hook(
                config,
                &format!("{} --root {} {deletion} pod {signal}", program.display(), root.display()),
            );
        });
        stockade.run_bundle(&member, "late").failure(1, &["sandbox", "\"pod\""]);
        stockade.run(&["delete", "--force", "pod"]).success();
        before.assert_same_now();
    }
}
