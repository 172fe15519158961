use super::*;
use crate::network::NetworkNamespace;
use crate::state::sandbox::Peers;
use std::fs;
use stockade_protocol::container::{MountSource, Namespace};

/// A bundle whose config.json is the default one with `change` made to it.
fn bundle(change: impl FnOnce(&mut serde_json::Value)) -> (tempfile::TempDir, Bundle) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("rootfs")).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_str(include_str!("../commands/default_config.json")).unwrap();
    change(&mut config);
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let bundle = Bundle::load(directory.path(), None).unwrap();
    (directory, bundle)
}

/// What becomes of it where the administrator allows this.
pub(super) fn lowered_with(
    allowed: Allowed<'_>,
    change: impl FnOnce(&mut serde_json::Value),
) -> Result<Lowered, SpecError> {
    let (_directory, bundle) = bundle(change);
    lower(&bundle, &"c1".parse().unwrap(), "c1", &Peers::default(), allowed, false)
}

pub(super) fn planned(change: impl FnOnce(&mut serde_json::Value)) -> Result<ContainerPlan, SpecError> {
    lowered_with(Allowed::default(), change).map(|lowered| lowered.plan)
}

#[test]
fn the_default_configuration_is_applied_without_a_warning() {
    let plan = planned(|_| {}).unwrap();
    assert_eq!(plan.warnings, Vec::<String>::new());
    assert_eq!(plan.guest.rootfs.share, "c1/rootfs");
    assert_eq!(plan.guest.namespaces.pid, Namespace::New);
    assert_eq!(plan.network, NetworkNamespace::New);
    assert!(plan.guest.process.terminal.is_some());
    assert_eq!(plan.trees.len(), 1);
}

#[test]
fn a_process_without_capabilities_gets_none() {
    let plan = planned(|config| {
        config["process"].as_object_mut().unwrap().remove("capabilities");
    })
    .unwrap();
    assert_eq!(plan.guest.process.capabilities, Some(Default::default()));
}

#[test]
fn bind_sources_become_trees_of_the_share() {
    let plan = planned(|config| {
        config["mounts"].as_array_mut().unwrap().push(serde_json::json!({
            "destination": "/etc/hosts", "type": "bind", "source": "/etc/hostname", "options": ["rbind", "ro"]
        }));
    })
    .unwrap();
    let tree = &plan.trees[1];
    assert_eq!((tree.name.as_str(), tree.readonly, tree.recursive), ("m0", true, true));
    let mount = plan.guest.mounts.last().unwrap();
    assert_eq!(mount.source, MountSource::Share("c1/m0".to_owned()).into());
}

#[test]
fn mistakes_are_named_by_their_path() {
    use serde_json::json;
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 16] = [
        (|c| c["process"]["args"] = json!([]), "process.args"),
        (|c| c["process"]["cwd"] = json!("relative"), "process.cwd"),
        (|c| c["process"]["user"]["uid"] = json!(4294967295u32), "process.user.uid"),
        (|c| c["process"]["oomScoreAdj"] = json!(5000), "process.oomScoreAdj"),
        (|c| c["process"]["env"] = json!(["A=\u{0}"]), "process.env[0]"),
        (|c| c["linux"]["namespaces"] = json!([{"type": "mount"}]), "linux.namespaces"),
        (
            |c| c["linux"]["namespaces"][0] = json!({"type": "ipc", "path": "/proc/1/ns/ipc"}),
            "linux.namespaces[0].path",
        ),
        (|c| c["linux"]["maskedPaths"] = json!(["proc/x"]), "linux.maskedPaths[0]"),
        (|c| c["linux"]["rootfsPropagation"] = json!("sideways"), "linux.rootfsPropagation"),
        (
            |c| c["mounts"] = json!([{"destination": "/x", "type": "bind", "source": "/no/such"}]),
            "mounts[0].source",
        ),
        (|c| c["mounts"] = json!([{"destination": "/x"}]), "mounts[0].type"),
        (|c| c["hooks"] = json!({"prestart": [{"path": "hook"}]}), "hooks.prestart[0].path"),
        (
            |c| c["hooks"] = json!({"poststop": [{"path": "/a"}, {"path": "/b", "timeout": 0}]}),
            "hooks.poststop[1].timeout",
        ),
        (
            |c| c["hooks"] = json!({"startContainer": [{"path": "/a", "env": ["A=b", "A=\u{0}"]}]}),
            "hooks.startContainer[0].env[1]",
        ),
        (|c| c["hooks"] = json!({"prestart": [{"path": "/a", "env": ["A"]}]}), "hooks.prestart[0].env[0]"),
        (|c| c["hostname"] = json!("x".repeat(65)), "hostname"),
    ];
    for (change, path) in cases {
        assert_eq!(planned(change).unwrap_err().path, path);
    }
}

#[test]
fn what_is_not_applied_is_named() {
    let plan = planned(|config| {
        config["process"]["apparmorProfile"] = "p".into();
        config["process"]["selinuxLabel"] = "l".into();
    })
    .unwrap();
    let text = plan.warnings.join("; ");
    for name in ["process.apparmorProfile", "process.selinuxLabel"] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn a_pod_that_asks_for_namespaces_of_the_host_is_refused() {
    use serde_json::json;
    let without = |kind: &'static str, annotations: serde_json::Value| {
        planned(move |config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != kind);
            config["annotations"] = annotations;
        })
    };
    let sandbox = json!({ "io.kubernetes.cri.container-type": "sandbox" });
    let crio = json!({ "io.kubernetes.cri-o.ContainerType": "sandbox" });
    for (kind, remedy) in [("pid", "hostPID"), ("ipc", "hostIPC"), ("network", "hostNetwork")] {
        for annotations in [&sandbox, &crio] {
            let error = without(kind, annotations.clone()).unwrap_err().to_string();
            assert!(error.contains("linux.namespaces") && error.contains(remedy), "{error}");
        }
    }
    assert_eq!(without("pid", json!({})).unwrap().guest.namespaces.pid, Namespace::Guest);
    assert!(without("uts", sandbox).is_ok());
}
