//! A guest that drives the VMM's devices as no driver does. The attacks themselves are in `tests/hostile/guest/cases`; each of
//! them ends with the proof that the device works once it has been reset. Here is what the host must be able to do meanwhile
//! and afterwards.

use std::fs::{self, File};

use serde_json::{Value, json};
use stockade_tests::bundle;
use stockade_tests::cli::text;
use stockade_tests::host;
use stockade_tests::hostile::oracle::{self, Oracle, within};
use stockade_tests::hostile::script::Script;
use stockade_tests::hostile::{self, Hostile, assert_all_passed};
use stockade_tests::netns::{Netns, connect};

const MIB: u64 = 1 << 20;

/// Runs a group of attacks in a VM of its own.
fn attack(group: &str, least: usize, edit: impl FnOnce(&mut Value)) {
    let hostile = Hostile::new(&Script::honest());
    let mut oracle = Oracle::new();
    let bundle = hostile::bundle().edit(edit);
    // Otherwise the relay makes it, as runc does, where the disk is mounted.
    fs::create_dir(bundle.rootfs().join("data")).expect("a mount point");
    oracle.guard(&bundle.rootfs());
    let outcome = hostile.stockade.run_bundle(&bundle, group);
    assert_all_passed(&outcome, least);
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    oracle.assert_nothing_left();
}

/// The same in a VM that has a disk and a network device too.
fn attack_with_all_devices(group: &str, least: usize) {
    let image = bundle::directory();
    let path = image.path().join("image");
    File::create(&path).and_then(|file| file.set_len(MIB)).expect("image");
    let (pod, outside) = (Netns::new("pod"), Netns::new("outside"));
    connect(&pod, &outside, 1);
    let picture = pod.picture();
    attack(group, least, |config| {
        pod.join(config);
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/data", "type": "ext4", "source": text(&path), "options": ["rw"]
        }));
    });
    assert_eq!(pod.picture(), picture);
    assert_eq!(path.metadata().expect("image").len(), MIB, "the disk has grown");
}

#[test]
fn registers() {
    attack_with_all_devices("registers", 80);
}

#[test]
fn layouts_of_queues() {
    attack_with_all_devices("queues", 150);
}

#[test]
fn rings() {
    attack_with_all_devices("rings", 270);
}

#[test]
fn ports_msrs_and_holes() {
    attack("cpu", 9, |_| {});
}

#[test]
fn memory_and_balloon() {
    attack("memory", 25, |_| {});
}

#[test]
fn requests_to_a_disk() {
    attack_with_all_devices("disk", 20);
}

#[test]
fn packets_to_a_network() {
    attack_with_all_devices("nic", 15);
}

#[test]
fn packets_to_the_host() {
    attack("packets", 25, |_| {});
}

/// Memory that the guest could have plugged and has not, given to devices: either the VMM lives, or it says what has ended it.
#[test]
fn memory_that_is_not_there() {
    let hostile = Hostile::new(&Script::honest());
    let oracle = Oracle::new();
    let outcome = hostile.stockade.run_bundle(&hostile::bundle(), "unplugged");
    if outcome.status == 0 {
        assert_all_passed(&outcome, 20);
    } else {
        assert_says_why(&outcome.stderr);
        eprintln!("the VMM has ended, and says: {}", outcome.stderr);
    }
    oracle.assert_nothing_left();
}

/// What a command says of a VMM that has ended must not be that nobody knows.
#[track_caller]
fn assert_says_why(stderr: &str) {
    assert!(stderr.contains("the VM"), "{stderr}");
    assert!(!stderr.contains("without a message"), "{stderr}");
}

/// A vsock device that its guest has broken: nobody hears of the guest any more.
#[test]
fn a_guest_that_breaks_its_way_to_the_host() {
    let hostile = Hostile::new(&Script::honest());
    let oracle = Oracle::new();
    let stockade = &hostile.stockade;
    let bundle = hostile::bundle();
    stockade.create(&bundle, "vsock-broken");
    // Its container ends with the connection that stands for it, or nobody hears that it has not.
    within(stockade, &["start", "vsock-broken"], oracle::LIMIT);
    oracle.assert_commands_end(stockade, "vsock-broken");
    oracle.assert_nothing_left();
}

/// How a machine ends that its guest ends at once.
#[test]
fn guests_that_end_their_machine_are_told_of() {
    for (word, reason) in [("crash", "triple fault"), ("reset", "the guest reset its machine")] {
        let hostile = Hostile::with(&Script::honest(), &format!("hostile={word}"));
        let oracle = Oracle::new();
        let outcome = hostile.stockade.run_bundle(&hostile::bundle(), "ends");
        outcome.failure(1, &["the VM failed", reason]);
        oracle.assert_nothing_left();
    }
}

/// A guest whose CPU stands still, or that only ever writes to its console: `create` ends, and can be interrupted.
#[test]
fn guests_whose_agent_never_comes() {
    for word in ["halt", "babble"] {
        let hostile = Hostile::with(&Script::honest(), &format!("hostile={word}"));
        let oracle = Oracle::new();
        let stockade = &hostile.stockade;
        let bundle = hostile::bundle();
        let mut create = stockade.command(&["create", "--bundle", text(bundle.path()), "mute"]);
        let mut create = hostile::logged(&mut create, &bundle.path().join("log"));
        while host::pids_named("stockade-vmm").is_empty() {
            assert!(create.try_wait().expect("wait").is_none(), "create has ended");
            std::thread::yield_now();
        }
        within(stockade, &["list"], oracle::LIMIT).success();
        // SAFETY: kill takes two integers.
        assert_eq!(unsafe { libc::kill(create.id() as i32, libc::SIGTERM) }, 0);
        host::wait_for_end(create.id() as i32);
        assert!(!create.wait().expect("wait").success());
        oracle.assert_commands_end(stockade, "mute");
        oracle.assert_nothing_left();
    }
}
