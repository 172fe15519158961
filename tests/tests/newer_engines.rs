//! What podman 5, Docker 26 and containerd 1.7 do and Debian 12's do not. `tests/run` runs this file with Debian 13's
//! programs, and with it those tests of other files that `tests/newer-engines` names.

use std::fs::{self, File};
use std::os::fd::AsFd;

use serde_json::{Value, json};
use stockade_tests::cli::{Outcome, built, pass};
use stockade_tests::engine::{Docker, Node, Podman};
use stockade_tests::host;
use stockade_tests::kubernetes::{Cri, Pod, container_config};

/// A descriptor by its number: podman puts the null device where its own are below that.
#[test]
fn podman_passes_single_descriptors() {
    let podman = Podman::new();
    fs::write(podman.path().join("given"), "given\n").expect("file");
    let given = File::open(podman.path().join("given")).expect("open");
    let null = File::open("/dev/null").expect("open");
    let mut command =
        podman.container_command(&["--rm", "--preserve-fd", "5"], &["sh", "-c", "cat <&5; echo $?"]);
    pass(&mut command, [null.as_fd(), null.as_fd(), given.as_fd()]);
    let outcome = Outcome::of(&mut command, b"").success();
    assert_eq!(outcome.stdout, "given\n0\n", "{outcome:#?}");
    podman.assert_clean();
}

/// Since Docker 23 a runtime is a shim with options, and since 25 `docker info` shows what a runtime says of itself.
#[test]
fn docker_takes_the_runtime_from_a_shims_options_and_asks_for_its_features() {
    let shim = json!({
        "runtimeType": "io.containerd.runc.v2",
        "options": { "BinaryName": built("release/stockade") },
    });
    let docker = Docker::with_runtimes(&json!({ "shim": shim }));
    let info = docker.run(&["info", "--format", "{{json .Runtimes}}"]).success().stdout;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let features = &info["stockade"]["status"]["org.opencontainers.runtime-spec.features"];
    let features: Value = serde_json::from_str(features.as_str().expect("features")).expect("JSON");
    assert_eq!(features["annotations"]["io.stockade.version"], env!("CARGO_PKG_VERSION"), "{info:#}");

    let outcome = docker.container(&["--rm", "--runtime", "shim"], &["sh", "-c", "uname -r; exit 7"]);
    assert_eq!(outcome.status, 7, "{outcome:#?}");
    assert!(outcome.stdout.ends_with("-stockade\n"), "{outcome:#?}");
    docker.assert_clean();
}

/// `hostUsers: false`, which containerd has since 1.7.
#[test]
fn a_pods_user_namespace_maps_its_files() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    let users = json!({
        "mode": "POD",
        "uids": [{ "host_id": 200_000, "container_id": 0, "length": 65_536 }],
        "gids": [{ "host_id": 300_000, "container_id": 0, "length": 65_536 }],
    });
    let pod = Pod::run(&cri, &node, "users", |config| {
        config["linux"]["security_context"]["namespace_options"]["userns_options"] = users.clone();
    });
    let mut config = container_config("shell", &["sh", "-c", "touch /made; exec sleep 1000000"]);
    config["linux"]["security_context"]["namespace_options"]["userns_options"] = users;
    let shell = pod.start(&config);
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
    let map =
        pod.exec(&shell, &["sh", "-c", "tr -s ' ' < /proc/self/uid_map; id -u; stat -c %u:%g /bin /made"]);
    assert_eq!(map, " 0 200000 65536\n0\n0:0\n0:0\n");
    pod.remove();
    node.assert_clean();
}
