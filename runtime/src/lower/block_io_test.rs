use super::*;
use serde_json::{Value, json};
use std::fs;

/// On a host with the disk 8:0 and its partition 8:1.
fn lowered(json: Value) -> Result<(Limits, Vec<String>), SpecError> {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("8:0")).unwrap();
    fs::create_dir(host.path().join("8:1")).unwrap();
    fs::write(host.path().join("8:1/partition"), "1\n").unwrap();
    let (mut limits, mut warnings) = (Limits::default(), Vec::new());
    let given = serde_json::from_value(json).unwrap();
    lower_with(&given, &mut limits, &mut warnings, host.path())?;
    Ok((limits, warnings))
}

#[test]
fn weights_hold_on_both_sides() {
    for (weight, expected) in [(10, "1"), (500, "4950"), (1000, "10000")] {
        let (limits, warnings) = lowered(json!({ "weight": weight })).unwrap();
        assert_eq!(limits.guest, [("io.weight".to_owned(), expected.to_owned())]);
        assert_eq!(limits.host.values, [("io.weight", expected.to_owned())]);
        assert_eq!(warnings, [] as [&str; 0]);
    }
}

#[test]
fn what_is_of_a_device_holds_on_the_host() {
    let (limits, warnings) = lowered(json!({
        "weightDevice": [{ "major": 8, "minor": 0, "weight": 1000 }],
        "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1048576 }],
        "throttleWriteBpsDevice": [{ "major": 8, "minor": 0, "rate": 0 }],
        "throttleReadIOPSDevice": [{ "major": 8, "minor": 0, "rate": 7 }],
        "throttleWriteIOPSDevice": [{ "major": 8, "minor": 0, "rate": 9 }],
    }))
    .unwrap();
    let host: Vec<_> = limits.host.values.iter().map(|(file, value)| (*file, value.as_str())).collect();
    let expected = [
        ("io.weight", "8:0 10000"),
        ("io.max", "8:0 rbps=1048576"),
        ("io.max", "8:0 wbps=max"),
        ("io.max", "8:0 riops=7"),
        ("io.max", "8:0 wiops=9"),
    ];
    assert_eq!(host, expected);
    assert_eq!(limits.guest, []);
    assert_eq!(warnings, [] as [&str; 0]);
}

#[test]
fn mistakes_are_named() {
    let throttle =
        |minor: i64| json!({ "throttleReadBpsDevice": [{ "major": 8, "minor": minor, "rate": 1 }] });
    for (json, path) in [
        (json!({ "weight": 5 }), "weight"),
        (json!({ "weightDevice": [{ "major": 8, "minor": 0, "weight": 1001 }] }), "weightDevice[0].weight"),
        (json!({ "weightDevice": [{ "major": 8, "minor": 9 }] }), "weightDevice[0]"),
        (throttle(9), "throttleReadBpsDevice[0]"),
        (throttle(1), "throttleReadBpsDevice[0]"),
        (throttle(-1), "throttleReadBpsDevice[0]"),
    ] {
        let error = lowered(json.clone()).unwrap_err();
        assert_eq!(error.path, format!("linux.resources.blockIO.{path}"), "{json}");
    }
}

#[test]
fn leaf_weights_have_no_place() {
    for json in [
        json!({ "leafWeight": 10 }),
        json!({ "weightDevice": [{ "major": 8, "minor": 0, "leafWeight": 10 }] }),
    ] {
        let (_, warnings) = lowered(json).unwrap();
        assert!(warnings[0].contains("leafWeight"), "{warnings:?}");
    }
}
