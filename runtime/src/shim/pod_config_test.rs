use std::path::Path;

use super::super::sandbox_messages::{PodMetadata, PodNamespaces, PodResources, PodSecurity};
use super::*;

fn config(edit: impl FnOnce(&mut PodConfig, &mut LinuxPod, &mut PodNamespaces)) -> PodConfig {
    let metadata = PodMetadata { name: "web".into(), uid: "u1".into(), namespace: "default".into() };
    let mut config = PodConfig {
        metadata: Some(metadata),
        hostname: "web-0".into(),
        log_directory: "/var/log/pods/web".into(),
        ..PodConfig::default()
    };
    let mut linux = LinuxPod { cgroup_parent: "/kubepods/pod1".into(), ..LinuxPod::default() };
    let mut namespaces = PodNamespaces { pid: NamespaceMode::Container.into(), ..PodNamespaces::default() };
    edit(&mut config, &mut linux, &mut namespaces);
    linux.security = Some(PodSecurity { namespaces: Some(namespaces), selinux: None });
    config.linux = Some(linux);
    config
}

fn specify(config: &PodConfig) -> Value {
    specification("pod", config, Path::new("/run/netns/cni-1"), "rootfs/root", "/pause")
}

/// The types of the namespaces that the sandbox has.
fn kinds(spec: &Value) -> Vec<&str> {
    let list = spec["linux"]["namespaces"].as_array().expect("namespaces");
    list.iter().map(|entry| entry["type"].as_str().expect("a type")).collect()
}

#[test]
fn the_bytes_of_the_cri_are_understood() {
    // Fields by their numbers in the CRI's api.proto: metadata 1, hostname 2, log_directory 3, dns_config 4, annotations 7,
    // linux 8; the port mapping, 5, and the label, 6, are not looked at.
    let bytes = b"\x0a\x0e\x0a\x01p\x12\x02u1\x1a\x03ns1\x20\x02\x12\x01h\x1a\x02/l\x22\x09\x0a\x01a\x12\x01b\x1a\x01c\
        \x2a\x02\x10\x50\x32\x06\x0a\x01k\x12\x01v\x3a\x06\x0a\x01x\x12\x01y\
        \x42\x2a\x0a\x02/c\x12\x14\x0a\x12\x08\x02\x10\x01\x18\x02\x2a\x0a\x12\x08\x08\xc0\x9a\x0c\x18\x80\x80\x04\
        \x1a\x06\x0a\x01s\x12\x011\x2a\x06\x10\x90\x4e\x20\x80\x08";
    let any = Any { type_url: "runtime.v1.PodSandboxConfig".into(), value: bytes.to_vec() };
    let config = parse(Some(&any)).expect("a configuration");
    let metadata = config.metadata.clone().expect("metadata");
    assert_eq!((&*metadata.name, &*metadata.uid, &*metadata.namespace), ("p", "u1", "ns1"));
    assert_eq!((&*config.hostname, &*config.log_directory), ("h", "/l"));
    let dns = config.dns.clone().expect("DNS");
    assert_eq!((&*dns.servers[0], &*dns.searches[0], &*dns.options[0]), ("a", "b", "c"));
    assert_eq!(config.annotations["x"], "y");
    let linux = config.linux.clone().expect("linux");
    assert_eq!((&*linux.cgroup_parent, &*linux.sysctls["s"]), ("/c", "1"));
    let resources = linux.resources.expect("resources");
    assert_eq!((resources.cpu_quota, resources.memory_limit_in_bytes), (10_000, 1024));
    let modes = linux.security.expect("security").namespaces.expect("namespaces");
    assert_eq!(modes.network(), NamespaceMode::Node);
    assert_eq!((modes.pid(), modes.ipc()), (NamespaceMode::Container, NamespaceMode::Node));
    let users = modes.user.expect("a user namespace");
    assert_eq!(users.uids, [IdMapping { host: 200_000, container: 0, length: 65_536 }]);
    assert_eq!(users.mode(), NamespaceMode::Pod);
}

#[test]
fn other_options_are_refused_by_name() {
    assert!(parse(None).expect("none") == PodConfig::default());
    for (type_url, value) in [("x/example.Options", &b""[..]), ("runtime.v1.PodSandboxConfig", b"\xff")] {
        let any = Any { type_url: type_url.into(), value: value.to_vec() };
        let error = parse(Some(&any)).expect_err("malformed").to_string();
        assert!(error.contains("PodSandboxConfig") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn the_sandbox_has_what_a_pause_container_has() {
    let spec = specify(&config(|_, linux, _| {
        linux.resources = Some(PodResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
        });
        linux.sysctls.insert("kernel.shmmax".into(), "1".into());
    }));
    assert_eq!(kinds(&spec), ["mount", "pid", "ipc", "uts", "network"]);
    assert_eq!(spec["linux"]["namespaces"][4]["path"], "/run/netns/cni-1");
    assert_eq!(spec["linux"]["cgroupsPath"], "/kubepods/pod1/pod");
    assert_eq!(spec["hostname"], "web-0");
    assert_eq!(spec["root"], json!({ "path": "rootfs/root", "readonly": true }));
    let annotations = &spec["annotations"];
    for (name, value) in [
        ("container-type", "sandbox"),
        ("sandbox-id", "pod"),
        ("sandbox-name", "web"),
        ("sandbox-namespace", "default"),
        ("sandbox-uid", "u1"),
        ("sandbox-log-directory", "/var/log/pods/web"),
        ("sandbox-memory", "67108864"),
        ("sandbox-cpu-quota", "50000"),
    ] {
        assert_eq!(annotations[format!("io.kubernetes.cri.{name}")], value, "{name}");
    }
    let sysctls = &spec["linux"]["sysctl"];
    assert_eq!(
        (&sysctls["kernel.shmmax"], &sysctls["net.ipv4.ip_unprivileged_port_start"]),
        (&json!("1"), &json!("0"))
    );
}

#[test]
fn an_author_of_a_pod_chooses_only_stockades_annotations() {
    let spec = specify(&config(|config, _, _| {
        for (name, value) in [
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-id", "other"),
            ("io.kubernetes.cri.sandbox-memory", "1"),
            ("io.kubernetes.cri-o.ContainerType", "container"),
            ("io.kubernetes.cri-o.SandboxID", "other"),
            ("io.stockade.scratch", "/data:1G"),
        ] {
            config.annotations.insert(name.into(), value.into());
        }
    }));
    let annotations = &spec["annotations"];
    assert_eq!(annotations["io.kubernetes.cri.container-type"], "sandbox");
    assert_eq!(annotations["io.kubernetes.cri.sandbox-id"], "pod");
    assert_eq!(annotations["io.stockade.scratch"], "/data:1G");
    for name in ["cri.sandbox-memory", "cri-o.ContainerType", "cri-o.SandboxID"] {
        assert!(annotations[format!("io.kubernetes.{name}")].is_null(), "{name}");
    }
}

#[test]
fn namespaces_of_the_node_are_left_out_for_the_runtime_to_refuse() {
    let spec = specify(&config(|_, _, modes| {
        (modes.network, modes.pid, modes.ipc) =
            (NamespaceMode::Node.into(), NamespaceMode::Node.into(), NamespaceMode::Node.into());
    }));
    assert_eq!(kinds(&spec), ["mount"]);
    assert_eq!(spec["linux"]["sysctl"], json!({}));
    assert!(spec["hostname"].is_null());
}

#[test]
fn a_user_namespace_has_the_pods_mappings() {
    let mapping = IdMapping { host: 200_000, container: 0, length: 65_536 };
    let spec = specify(&config(|_, _, modes| {
        modes.user =
            Some(PodUsers { mode: NamespaceMode::Pod.into(), uids: vec![mapping], gids: vec![mapping] });
    }));
    assert!(kinds(&spec).contains(&"user"));
    let expected = json!([{ "containerID": 0, "hostID": 200_000, "size": 65_536 }]);
    assert_eq!((&spec["linux"]["uidMappings"], &spec["linux"]["gidMappings"]), (&expected, &expected));
    assert!(spec["linux"]["sysctl"]["net.ipv4.ping_group_range"].is_null());
}

#[test]
fn cgroups_follow_their_parents_driver() {
    for (parent, expected) in [
        ("/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice:cri-containerd:pod"),
        ("/kubepods/pod1/", "/kubepods/pod1/pod"),
        ("", "/k8s.io/pod"),
    ] {
        assert_eq!(cgroups_path(parent, "pod"), expected);
    }
}
