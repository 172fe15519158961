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

#[test]
fn a_socket_that_would_be_mounted_is_found_on_the_host() {
    let config = |mounts: &str| -> Spec {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"env":["NOTIFY_SOCKET=/run/notify/notify.sock"]}},
                "mounts":[{mounts}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    let directory =
        r#"{"destination":"/run/notify","type":"bind","source":"/host/notify","options":["bind"]}"#;
    assert_eq!(mounted(&config(directory)), Some("/host/notify/notify.sock".into()));
    let tmpfs = r#"{"destination":"/run","type":"tmpfs","source":"tmpfs"}"#;
    assert_eq!(mounted(&config(tmpfs)), None);
    assert_eq!(mounted(&config("")), None);
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
