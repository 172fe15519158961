use super::*;

fn completed(spec: &Value) -> Vec<Value> {
    let mut spec = spec.clone();
    add_files(&mut spec, Path::new("/pod")).expect("a specification");
    spec["mounts"].as_array().expect("mounts").clone()
}

#[test]
fn a_container_gets_the_files_that_it_does_not_bring() {
    let mounts = completed(&json!({
        "mounts": [
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/dev/shm/", "type": "tmpfs", "source": "shm" },
            { "destination": "/etc/hosts", "type": "bind", "source": "/var/lib/kubelet/hosts" },
        ],
    }));
    let found: Vec<_> =
        mounts.iter().map(|mount| (mount["destination"].as_str(), mount["source"].as_str())).collect();
    assert_eq!(
        found,
        [
            (Some("/dev"), Some("tmpfs")),
            (Some("/etc/hosts"), Some("/var/lib/kubelet/hosts")),
            (Some("/etc/hostname"), Some("/pod/hostname")),
            (Some("/etc/resolv.conf"), Some("/pod/resolv.conf")),
            (Some("/dev/shm"), Some("/pod/shm")),
        ]
    );
    assert_eq!(mounts[2]["options"], json!(["rbind", "rprivate", "rw"]));
}

#[test]
fn files_are_read_only_and_mapped_where_the_root_is() {
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65_536 }]);
    let mounts = completed(&json!({
        "root": { "path": "rootfs", "readonly": true },
        "linux": { "uidMappings": map, "gidMappings": map },
    }));
    let by = |name: &str| mounts.iter().find(|mount| mount["destination"] == name).expect(name);
    assert_eq!(by("/etc/resolv.conf")["options"][2], "ro");
    assert_eq!(by("/etc/hosts")["uidMappings"], map);
    assert_eq!(by("/dev/shm")["options"][2], "rw");
    assert!(by("/dev/shm")["uidMappings"].is_null());
}

#[test]
fn what_is_no_specification_is_refused() {
    for spec in [json!([]), json!({ "mounts": 3 })] {
        assert!(add_files(&mut spec.clone(), Path::new("/pod")).is_err(), "{spec}");
    }
}

#[test]
fn resolv_conf_is_as_containerd_writes_it() {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let dns = Dns {
        servers: list(&["192.0.2.53", "192.0.2.54"]),
        searches: list(&["cluster.local", "local"]),
        options: list(&["ndots:5"]),
    };
    assert_eq!(
        resolver(&dns),
        "search cluster.local local\nnameserver 192.0.2.53\nnameserver 192.0.2.54\noptions ndots:5\n"
    );
    assert_eq!(resolver(&Dns::default()), "");
}
