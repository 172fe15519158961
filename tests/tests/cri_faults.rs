//! Pods that cannot be, and pods that lose a part: the kubelet is told why, and nothing is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::mount::{MntFlags, umount2};
use serde_json::json;
use stockade_tests::engine::Node;
use stockade_tests::host;
use stockade_tests::kubernetes::{Cri, Pod, container_config};

const FOREVER: &[&str] = &["/bin/sleep", "1000000"];

#[test]
fn namespaces_of_the_host_are_refused_by_kubernetes_name_for_them() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    for (option, field) in [("pid", "hostPID"), ("ipc", "hostIPC"), ("network", "hostNetwork")] {
        let config = Pod::config(&node, field, |config| {
            config["linux"]["security_context"]["namespace_options"][option] = "NODE".into();
        });
        let message =
            cri.refusal("RunPodSandbox", json!({ "config": config, "runtime_handler": "stockade" }));
        assert!(message.contains(field) && message.contains("linux.namespaces"), "{message}");
        Pod::forget(field);
        node.assert_clean();
    }
}

#[test]
fn a_network_that_fails_leaves_nothing() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    let last = node.plugin("firewall");
    let genuine = fs::read_link(&last).expect("the plugin");
    // Plugins that answer nonsense, fail, or say that all is well and have taken the interface away.
    let broken = [
        ("cat > /dev/null; echo '{ \"cniVersion\": \"0.4.0\", \"ips\": 7'", "plugin type=\"firewall\""),
        ("cat > /dev/null; echo '{ \"code\": 11, \"msg\": \"try later\" }'; exit 1", "try later"),
    ];
    for (script, words) in broken {
        fs::remove_file(&last).expect("remove the plugin");
        // On the way back it does nothing, as the specification asks of a plugin that has not added anything.
        let script = format!("#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n{script}\n");
        fs::write(&last, script).expect("write a plugin");
        fs::set_permissions(&last, fs::Permissions::from_mode(0o755)).expect("mode");
        let config = Pod::config(&node, "broken", |_| ());
        let message =
            cri.refusal("RunPodSandbox", json!({ "config": config, "runtime_handler": "stockade" }));
        assert!(message.contains(words), "{message}");
        Pod::forget("broken");
        node.assert_clean();
    }
    fs::remove_file(&last).expect("remove the plugin");
    std::os::unix::fs::symlink(genuine, &last).expect("the plugin");
    let pod = Pod::run(&cri, &node, "mended", |_| ());
    pod.remove();
    node.assert_clean();
}

#[test]
fn a_pod_that_has_lost_its_network_namespace_is_removed() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    let pod = Pod::run(&cri, &node, "lost", |_| ());
    pod.start(&container_config("runs", FOREVER));
    let namespaces: Vec<_> =
        fs::read_dir("/run/netns").expect("directory").flatten().map(|e| e.path()).collect();
    for namespace in &namespaces {
        umount2(namespace, MntFlags::MNT_DETACH).expect("unmount the namespace");
        fs::remove_file(namespace).expect("remove its file");
    }
    assert_eq!(namespaces.len(), 1);
    pod.remove();
    node.assert_clean();
}

#[test]
fn a_sandbox_that_has_died_takes_no_members() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    for victim in ["stockade-vmm", "relay"] {
        let pod = Pod::run(&cri, &node, "dead", |_| ());
        let member = pod.start(&container_config("member", FOREVER));
        let (relay, members) = (pod.pid(), pod.container_pid(&member));
        let pid = if victim == "relay" { relay } else { host::pids_named(victim)[0] };
        // SAFETY: kill takes two integers.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
        host::wait_for_end(relay);
        if victim == "stockade-vmm" {
            host::wait_for_end(members);
            assert_eq!(pod.wait(&member)["exit_code"], 137);
        }
        let late = pod.request(&container_config("late", FOREVER));
        let message = match cri.attempt("CreateContainer", late) {
            Err(refused) => refused.message,
            // containerd has not noticed yet, and the runtime is first called now.
            Ok(created) => cri.refusal("StartContainer", json!({ "container_id": created["container_id"] })),
        };
        // The runtime's words, or containerd's, whose shim may just be leaving.
        let said = ["is not running", "does not exist", "no running task found", "ttrpc: closed"];
        let said = said.iter().any(|words| message.contains(words));
        assert!(said, "{message}");
        pod.remove();
        node.assert_clean();
    }
}
