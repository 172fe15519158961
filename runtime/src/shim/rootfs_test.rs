use super::*;

#[test]
fn many_layers_are_named_from_their_common_directory() {
    let few = vec!["lowerdir=/s/1/fs:/s/2/fs".to_owned(), "upperdir=/s/3/fs".to_owned()];
    assert_eq!(shortened(few.clone()), (None, few.join(",")));
    let layers: Vec<String> =
        (1000..1200).map(|number| format!("/var/lib/containerd/snapshots/{number}/fs")).collect();
    let many =
        vec!["index=off".to_owned(), format!("lowerdir={}", layers.join(":")), "upperdir=/u".to_owned()];
    let (directory, data) = shortened(many);
    assert_eq!(directory, Some(PathBuf::from("/var/lib/containerd/snapshots")));
    assert!(data.starts_with("index=off,lowerdir=1000/fs:1001/fs:"), "{data}");
    assert!(data.ends_with(":1199/fs,upperdir=/u") && data.len() <= MAX_DATA, "{data}");
    // Nothing in common but the root.
    let apart = vec![format!("lowerdir=/a/{}:/b", "x".repeat(5000))];
    assert_eq!(shortened(apart).0, None);
}

#[test]
fn what_this_shim_does_not_do_is_refused_by_name() {
    let bundle = tempfile::tempdir().expect("directory");
    for option in ["loop", "X-containerd.mkfs.fs=ext4", "idmap=uids=0-0-1"] {
        let mount =
            Mount { source: "/image".to_owned(), options: vec![option.to_owned()], ..Mount::default() };
        let error = mount_all(&[mount], bundle.path()).expect_err(option).to_string();
        assert!(error.contains(option) && error.contains("/image"), "{error}");
    }
}
