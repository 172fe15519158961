use proptest::prelude::*;

use super::*;

#[test]
fn the_relay_is_the_main_process() {
    assert_eq!(for_host(b"READY=1", "77").as_deref(), Some("READY=1\nMAINPID=77"));
    assert_eq!(
        for_host(b"MAINPID=1\nSTATUS=half way\nREADY=1\n", "77").as_deref(),
        Some("STATUS=half way\nREADY=1\nMAINPID=77")
    );
    assert_eq!(for_host(b"WATCHDOG=1", "77").as_deref(), Some("WATCHDOG=1"));
}

#[test]
fn what_means_nothing_on_the_host_stays_in_the_guest() {
    for datagram in ["MAINPID=1", "FDSTORE=1\nFDNAME=x", "BARRIER=1", "NOTIFYACCESS=all", "READY", "", "\n\n"]
    {
        assert_eq!(for_host(datagram.as_bytes(), "77"), None, "{datagram:?}");
    }
    assert_eq!(for_host(b"STATUS=\xff", "77"), None);
    assert_eq!(for_host(&[b"STATUS=".as_slice(), &[b'x'; NOTIFY_LIMIT]].concat(), "77"), None);
}

#[test]
fn it_reaches_the_socket_that_the_environment_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let socket = connect(path.as_os_str().as_bytes()).unwrap();
    Notifier::new(socket.into()).unwrap().pass_on(b"READY=1");
    let mut bytes = [0; 64];
    let length = manager.recv(&mut bytes).unwrap();
    let expected = format!("READY=1\nMAINPID={}", std::process::id());
    assert_eq!(str::from_utf8(&bytes[..length]), Ok(expected.as_str()));
    assert!(connect(b"/none/there").is_err());
}

/// A configuration whose environment names a socket, with these mounts.
fn config(socket: &str, mounts: &str) -> Spec {
    let text = format!(
        r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"env":["NOTIFY_SOCKET={socket}"]}},
            "mounts":[{mounts}]}}"#
    );
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_socket_that_the_caller_mounts_is_found_in_the_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let (bundle, here) = (directory.path().join("bundle"), directory.path().display());
    fs::create_dir_all(bundle.join("a")).unwrap();
    let find = |mounts: &str| mounted(&config("/run/notify/notify.sock", mounts), &bundle);
    let bind = |source: &str| {
        find(&format!(
            r#"{{"destination":"/run/notify","type":"bind","source":"{source}","options":["bind"]}}"#
        ))
    };
    assert_eq!(bind(&format!("{here}/bundle/notify")), Some("notify/notify.sock".into()));
    assert_eq!(find(r#"{"destination":"/run","type":"tmpfs","source":"tmpfs"}"#), None);
    assert_eq!(find(""), None);
    // What others than the caller fill.
    for source in ["notify", "bundle", "bundle/rootfs", "bundle/a/b", "bundle/.."] {
        assert_eq!(bind(&format!("{here}/{source}")), None, "{source}");
    }
}

#[test]
fn an_images_environment_leads_to_no_socket_of_the_hosts() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("shm");
    let mounts = format!(
        r#"{{"destination":"/dev/shm","type":"bind","source":"{}","options":["bind"]}}"#,
        source.display()
    );
    for name in
        ["/dev/shm/../../run/secret", "/dev/shm/a/b", "/dev/shm", "/dev/shm/..", "@abstract", "secret"]
    {
        assert_eq!(mounted(&config(name, &mounts), directory.path()), None, "{name}");
    }
}

#[test]
fn a_link_to_a_socket_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let _manager = UnixDatagram::bind(at("socket")).unwrap();
    fs::create_dir(at("sub")).unwrap();
    std::os::unix::fs::symlink(at("socket"), at("sub/link")).unwrap();
    std::os::unix::fs::symlink(directory.path(), at("sub/up")).unwrap();
    let connect = |path: &str| connect_beneath(directory.path(), Path::new(path));
    connect("socket").unwrap();
    for path in ["sub/link", "sub/up/socket", "sub/../../socket"] {
        connect(path).unwrap_err();
    }
}

proptest! {
    #[test]
    fn only_known_assignments_pass(datagram in "([A-Z]{1,6}|READY|STATUS|MAINPID)=.{0,6}(\n(READY|STATUS|FDSTORE)=.{0,6}){0,3}") {
        let passed = for_host(datagram.as_bytes(), "77").unwrap_or_default();
        for line in passed.lines() {
            let known = line.split_once('=').is_some_and(|(name, _)| PASSED.contains(&name));
            prop_assert!(known || line == "MAINPID=77", "{line:?}");
        }
    }

    #[test]
    fn no_bytes_panic(datagram in prop::collection::vec(any::<u8>(), 0..64)) {
        for_host(&datagram, "77");
    }
}
