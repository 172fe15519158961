use super::*;

#[test]
fn containers_of_a_pod_share_a_shim() {
    let pod = br#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}, "linux": {"cgroupsPath": "/kubepods/x"}}"#;
    assert_eq!(Place::parse(pod, "one"), Ok(Place { group: "pod".to_owned(), is_systemds: false }));
    let alone = br#"{"linux": {"cgroupsPath": "kubepods.slice:cri-containerd:one"}}"#;
    assert_eq!(Place::parse(alone, "one"), Ok(Place { group: "one".to_owned(), is_systemds: true }));
    assert!(Place::parse(b"{\"annotations\": 3}", "one").expect_err("no object").contains("annotations"));
}

#[test]
fn the_socket_is_where_containerds_shims_have_theirs() {
    // `printf /run/containerd/containerd.sock/k8s.io/pod | sha256sum`
    assert_eq!(
        socket("/run/containerd/containerd.sock", "k8s.io", "pod"),
        Path::new(DIRECTORY).join("b9cab8e84f817f3c3bb561c7ea8dcbfba051d5d8f56ec2c3f204bc387d13f7d0")
    );
    assert_ne!(socket("/a", "default", "pod"), socket("/a", "k8s.io", "pod"));
}

#[test]
fn an_address_leads_to_shims_sockets_only() {
    let bundle = tempfile::tempdir().expect("directory");
    assert_eq!(read(bundle.path()), None);
    let path = socket("/a", "default", "one");
    write(bundle.path(), &of(&path)).expect("write");
    assert_eq!(read(bundle.path()), Some(path));
    write(bundle.path(), "unix:///etc/passwd").expect("write");
    assert_eq!(read(bundle.path()), None);
}
