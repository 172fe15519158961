use super::*;
use proptest::prelude::*;

#[test]
fn versions_are_1_x() {
    for version in ["1.0.2-dev", "1.0.0", "1.3.0", "1.99.0", "1.2.0+dev"] {
        assert_eq!(check_version(version), Ok(()), "{version}");
    }
    for version in ["", "2.0.0", "1", "1.", "1.0", "0.9.0", "one.two", "1.x.0", "11.0.0"] {
        assert_eq!(check_version(version).unwrap_err().path, "ociVersion", "{version}");
    }
}

#[test]
fn errors_name_the_json_path() {
    let error =
        parse::<Spec>(br#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":"root"}}}"#).unwrap_err();
    assert!(error.starts_with("process.user.uid: "), "{error}");
    let error = parse::<Spec>(br#"{"linux":{"resources":{"memory":{"limit":"1G"}}}}"#).unwrap_err();
    assert!(error.starts_with("linux.resources.memory.limit: "), "{error}");
    let error = parse::<Spec>(br#"{"mounts":[{"destination":"/a"},{"type":1}]}"#).unwrap_err();
    assert!(error.starts_with("mounts[1]"), "{error}");
}

#[test]
fn broken_json_says_where() {
    let error = parse::<Spec>(b"{\n  \"ociVersion\": ").unwrap_err();
    assert!(error.contains("line 2"), "{error}");
    let error = parse::<Spec>(b"{").unwrap_err();
    assert!(error.starts_with("EOF"), "{error}");
    assert!(parse::<Spec>(b"").is_err());
}

#[test]
fn files_that_are_missing_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = Bundle::load(&directory.path().join("none"), None).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
    let error = Bundle::load(directory.path(), None).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    fs::write(directory.path().join(CONFIG), r#"{"ociVersion":"1.0.0","root":{"path":"rootfs"}}"#).unwrap();
    let error = Bundle::load(directory.path(), None).unwrap_err().to_string();
    assert!(error.contains("root.path") && error.contains("rootfs"), "{error}");
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let key = prop_oneof![
        Just("ociVersion"),
        Just("process"),
        Just("user"),
        Just("uid"),
        Just("args"),
        Just("cwd"),
        Just("linux"),
        Just("resources"),
        Just("memory"),
        Just("limit"),
        Just("mounts"),
        Just("destination"),
        Just("options"),
        Just("namespaces"),
        Just("type"),
        Just("root"),
        Just("path"),
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((key.clone(), inner), 0..8).prop_map(|pairs| {
                pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_a_spec_or_one_line(value in json()) {
        if let Err(error) = parse::<Spec>(value.to_string().as_bytes()) {
            prop_assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn any_bytes_are_a_spec_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse::<Spec>(&bytes);
    }
}

#[test]
fn what_the_specification_and_runc_know_and_the_crate_does_not_is_understood() {
    let mut warnings = Vec::new();
    let text = br#"{ "cwd": "/", "user": {},
        "capabilities": { "bounding": ["CAP_KILL", "CAP_FLY"], "ambient": ["CAP_FLY"] },
        "scheduler": { "policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"] },
        "execCPUAffinity": { "initial": "", "final": "0" } }"#;
    let process = parse_process(text, &mut warnings).unwrap();
    assert_eq!(warnings, ["process.capabilities: ignored unknown capabilities: CAP_FLY"]);
    let bounding = process.capabilities().as_ref().unwrap().bounding().clone().unwrap();
    assert_eq!(bounding.len(), 1);
    assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 2);
    // What is wrong besides is found where it is.
    let text = br#"{ "capabilities": { "bounding": ["CAP_FLY"] }, "cwd": 5, "user": {} }"#;
    assert!(parse_process(text, &mut warnings).unwrap_err().contains("cwd"));
}

#[test]
fn the_hardware_of_a_vm_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("rootfs")).unwrap();
    let load = |hw_config: &str| {
        let text = format!(
            r#"{{"ociVersion":"1.3.0","root":{{"path":"rootfs"}},"vm":{{"kernel":{{"path":""}},"hwConfig":{hw_config}}}}}"#
        );
        fs::write(directory.path().join(CONFIG), text).unwrap();
        Bundle::load(directory.path(), None)
    };
    let hw_config = load(r#"{"vcpus":1,"memory":1048576}"#).unwrap().hw_config.unwrap();
    assert_eq!((hw_config.vcpus, hw_config.memory), (Some(1), Some(1 << 20)));
    let error = load(r#"{"vcpus":"many"}"#).unwrap_err().to_string();
    assert!(error.contains("vm.hwConfig.vcpus: "), "{error}");
}
