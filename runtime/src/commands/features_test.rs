use oci_spec::runtime::Features;

use super::*;

#[test]
fn they_are_what_the_specification_describes() {
    let features: Features = serde_json::from_value(features()).unwrap();
    assert_eq!(features.oci_version_max(), SPEC_VERSION);
    let linux = features.linux().as_ref().unwrap();
    assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
    assert_eq!(linux.cgroup().as_ref().unwrap().v1(), &Some(false));
}

#[test]
fn lists_are_sorted_and_without_repetition() {
    let features = features();
    let linux = &features["linux"];
    let seccomp =
        ["actions", "operators", "archs", "knownFlags", "supportedFlags"].map(|list| &linux["seccomp"][list]);
    for list in [&features["mountOptions"], &linux["namespaces"]].into_iter().chain(seccomp) {
        let names: Vec<&str> = list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
    assert!(features["mountOptions"].as_array().unwrap().iter().any(|option| option == "rro"));
}
