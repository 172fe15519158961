//! Several containers in one VM: by annotations as Kubernetes' callers give them, and by namespace paths as podman does.
//! And none where the author of a pod only says so.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host;
use stockade_tests::netns::Netns;

/// A pause container, created and started; its relay's PID.
fn sandbox(stockade: &Stockade, bundle: &Bundle, id: &str) -> i32 {
    let relay = stockade.create(bundle, id);
    stockade.run(&["start", id]).success();
    relay
}

fn join(config: &mut Value, sandbox: i32, kinds: &[&str]) {
    for entry in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
        let kind = entry["type"].as_str().expect("type").to_owned();
        let name = if kind == "network" { "net" } else { &kind };
        if kinds.contains(&kind.as_str()) {
            entry["path"] = format!("/proc/{sandbox}/ns/{name}").into();
        }
    }
    config.as_object_mut().expect("object").remove("hostname");
}

#[test]
fn members_share_the_sandboxes_vm_and_what_they_ask_for() {
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let pause = Bundle::busybox(&["/bin/sleep", "1000"]).edit(|config| config["hostname"] = "pod".into());
    let relay = sandbox(&stockade, &pause, "pod");
    let vmms = host::pids_named("stockade-vmm").len();

    let by_path = Bundle::script("hostname; ps; cat /proc/sys/kernel/random/boot_id; exit 7")
        .edit(|config| join(config, relay, &["network", "ipc", "uts", "pid"]));
    let outcome = stockade.run_bundle(&by_path, "first");
    assert_eq!((outcome.status, outcome.stderr.as_str()), (7, ""), "{outcome:#?}");
    assert_eq!(outcome.stdout.lines().next(), Some("pod"), "one uts namespace");
    assert!(outcome.stdout.contains("sleep 1000"), "one pid namespace: {outcome:#?}");
    let boot = outcome.stdout.lines().last().expect("boot ID").to_owned();

    // Its init has ended, and the stream goes on for who is left of it in the pod's PID namespace.
    let script = "(until [ -e /tmp/go ]; do sleep 0.1; done; echo late) & echo now; exit 4";
    let holder = Bundle::script(script).edit(|config| join(config, relay, &["network", "ipc", "uts", "pid"]));
    let mut create = stockade.command(&["create", "--bundle", text(holder.path()), "holder"]);
    let mut create = create.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("create");
    assert!(create.wait().expect("create").success());
    let pid = stockade.state("holder")["pid"].as_i64().expect("PID") as i32;
    stockade.run(&["start", "holder"]).success();
    host::wait_for_end(pid);
    fs::write(holder.rootfs().join("tmp/go"), "").expect("write");
    let mut output = String::new();
    create.stdout.take().expect("piped").read_to_string(&mut output).expect("read");
    assert_eq!(output, "now\nlate\n");
    stockade.run(&["delete", "holder"]).success();

    let annotated = Bundle::script("hostname; cat /proc/sys/kernel/random/boot_id").edit(|config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "pod",
        });
        config["hostname"] = "own".into();
    });
    let outcome = stockade.run_bundle(&annotated, "second").success();
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), ["own", &boot], "{outcome:#?}");

    let annotated = annotated.edit(|config| config["process"]["args"] = json!(["/bin/sleep", "1000"]));
    stockade.create(&annotated, "second");
    stockade.run(&["start", "second"]).success();
    assert_eq!(stockade.status("second"), "running");
    assert_eq!(host::pids_named("stockade-vmm").len(), vmms, "no VM of its own");
    stockade.run(&["kill", "second", "KILL"]).success();
    stockade.run(&["delete", "--force", "second"]).success();
    assert_eq!(stockade.status("pod"), "running", "members come and go");
    stockade.run(&["delete", "--force", "pod"]).success();
    before.assert_same_now();
}

#[test]
fn members_end_with_their_sandbox() {
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let pause = Bundle::busybox(&["/bin/sleep", "1000"]);
    let relay = sandbox(&stockade, &pause, "pod");
    let member = Bundle::busybox(&["/bin/sleep", "1000"]).edit(|config| join(config, relay, &["network"]));
    stockade.create(&member, "member");
    stockade.run(&["start", "member"]).success();
    stockade.run(&["delete", "--force", "pod"]).success();
    assert_eq!(stockade.status("member"), "stopped");
    stockade.run(&["delete", "member"]).success();
    before.assert_same_now();
}

#[test]
fn a_sandbox_that_is_not_there_or_not_stockades_is_named() {
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let member = Bundle::busybox(&["/bin/true"]).edit(|config| {
        config["annotations"] = json!({
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.SandboxID": "gone",
        });
    });
    stockade.run_bundle(&member, "m").failure(1, &["\"gone\"", "does not exist", "annotations"]);
    let foreign = Bundle::busybox(&["/bin/true"]).edit(|config| join(config, 1, &["pid"]));
    stockade.run_bundle(&foreign, "m").failure(1, &["linux.namespaces[0].path", "host's pid namespace"]);
    // A path of another type than the entry says, of every type, and what is no namespace at all.
    for (kind, path) in [
        ("pid", "/proc/self/ns/ipc"),
        ("network", "/proc/self/ns/uts"),
        ("ipc", "/proc/self/ns/net"),
        ("uts", "/proc/self/ns/cgroup"),
        ("cgroup", "/proc/self/ns/user"),
        ("user", "/proc/self/ns/mnt"),
        ("time", "/proc/self/ns/pid"),
        ("uts", "/dev/null"),
        ("network", "/etc"),
    ] {
        let wrong = Bundle::busybox(&["/bin/true"]).edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|entry| entry["type"] != kind);
            namespaces.insert(0, json!({ "type": kind, "path": path }));
        });
        let words = ["linux.namespaces[0].path", path, "namespace"];
        stockade.run_bundle(&wrong, "m").failure(1, &words);
    }
    before.assert_same_now();
}

/// CRI-O gives every annotation of a pod's author to the runtime, those of another engine and its own included.
#[test]
fn a_pods_author_does_not_get_into_another_pods_vm() {
    let (stockade, elsewhere) = (Stockade::new(), Stockade::new());
    let pod = |id: &str, netns: &Netns, role: &str, forged: &Value| {
        Bundle::busybox(&["/bin/sleep", "1000"]).edit(|config| {
            for entry in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
                if entry["type"] == "network" {
                    entry["path"] = text(&netns.path()).into();
                }
            }
            config["annotations"] = json!({
                "io.kubernetes.cri-o.ContainerType": role, "io.kubernetes.cri-o.SandboxID": id,
            });
            for (key, value) in forged.as_object().expect("object") {
                config["annotations"][key] = value.clone();
            }
        })
    };
    let (victims, attackers) = (Netns::new("victim"), Netns::new("attacker"));
    let before = host::Snapshot::take();
    let victim = pod("victim", &victims, "sandbox", &json!({}));
    sandbox(&stockade, &victim, "victim");
    let member = pod("victim", &victims, "container", &json!({}));
    sandbox(&stockade, &member, "victims-member");
    assert_eq!(host::pids_named("stockade-vmm").len(), 1);

    // The keys of other engines are not looked at: the attacker's containers are where CRI-O says.
    let others = json!({
        "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "victim",
        "io.kubernetes.docker.type": "container", "io.kubernetes.sandbox.id": "victim",
    });
    let attacks = ["sandbox", "container"].map(|role| pod("attacker", &attackers, role, &others));
    sandbox(&stockade, &attacks[0], "attacker");
    sandbox(&stockade, &attacks[1], "attackers-member");
    assert_eq!(host::pids_named("stockade-vmm").len(), 2, "a VM for each");
    let boot =
        |id: &str| stockade.run(&["exec", id, "cat", "/proc/sys/kernel/random/boot_id"]).success().stdout;
    assert_eq!(boot("attackers-member"), boot("attacker"));
    assert_eq!(boot("victims-member"), boot("victim"));
    assert_ne!(boot("attacker"), boot("victim"));
    stockade.run(&["delete", "--force", "attackers-member"]).success();

    // CRI-O's own keys, overwritten: the network namespace, which CRI-O chooses, is not the victim's.
    let own = json!({
        "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "victim",
    });
    let forged = pod("attacker", &attackers, "sandbox", &own);
    stockade.run_bundle(&forged, "forged").failure(1, &["linux.namespaces", "\"attacker\"", "\"victim\""]);
    stockade.run(&["delete", "--force", "attacker"]).success();
    stockade.run_bundle(&forged, "forged").failure(1, &["linux.namespaces", "\"victim\""]);
    // A member is not a sandbox.
    let own = json!({ "io.kubernetes.cri-o.SandboxID": "victims-member" });
    let forged = pod("victim", &victims, "container", &own);
    stockade.run_bundle(&forged, "forged").failure(1, &["\"victims-member\" is not a sandbox"]);
    // A sandbox joins nobody, whatever it names.
    let forged = pod("forged", &victims, "sandbox", &json!({}));
    stockade.run_bundle(&forged, "forged").failure(1, &["linux.namespaces", "\"victim"]);
    // Another root's sandbox is not found.
    elsewhere.run_bundle(&member, "forged").failure(1, &["\"victim\"", "does not exist"]);
    for id in ["victims-member", "victim"] {
        stockade.run(&["delete", "--force", id]).success();
    }
    before.assert_same_now();
}

#[test]
fn a_sandbox_that_was_killed_is_not_joined() {
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let pause = Bundle::busybox(&["/bin/sleep", "1000"]);
    let relay = sandbox(&stockade, &pause, "pod");
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(relay, libc::SIGKILL) }, 0);
    host::wait_for_end(relay);
    let member = Bundle::busybox(&["/bin/true"]).edit(|config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "pod",
        });
        join(config, relay, &["network", "ipc", "uts"]);
    });
    stockade.run_bundle(&member, "late").failure(1, &["sandbox \"pod\" is not running"]);
    stockade.run(&["delete", "--force", "pod"]).success();
    before.assert_same_now();
}

/// Between its record, which names the sandbox, and its way to the sandbox's VM.
#[test]
fn a_create_of_a_member_that_is_killed_early_leaves_nothing_after_delete() {
    let stockade = Stockade::new();
    let pause = Bundle::busybox(&["/bin/sleep", "1000"]);
    let member = Bundle::busybox(&["/bin/true"]).edit(|config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "pod",
        });
    });
    sandbox(&stockade, &pause, "pod");
    let before = host::Snapshot::take();
    for (call, n) in [("rename", 1), ("mkdir", 1), ("mkdir", 2), ("mkdir", 3), ("symlink", 1), ("symlink", 2)]
    {
        let create = stockade.command(&["create", "--bundle", text(member.path()), "torn"]);
        let status = Command::new("strace")
            .args(["-o", "/dev/null", "-e", &format!("inject={call}:signal=KILL:when={n}")])
            .arg(create.get_program())
            .args(create.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // strace ends as what it has traced.
        let signal = status.expect("strace").signal();
        assert_eq!(signal, Some(libc::SIGKILL), "{call} {n} was not reached");
        let outcome = stockade.run(&["delete", "--force", "torn"]);
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "after {call} {n}: {outcome:#?}");
        before.assert_same_now();
    }
    assert_eq!(stockade.status("pod"), "running");
    stockade.run(&["delete", "--force", "pod"]).success();
}
