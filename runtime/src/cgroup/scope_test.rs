use super::*;
use proptest::prelude::*;

fn scope(path: &str) -> Result<Scope, ScopeError> {
    Scope::parse(Path::new(path), "c1")
}

#[test]
fn names_are_runcs() {
    for (path, slice, unit) in [
        ("", "system.slice", "stockade-c1.scope"),
        ("machine.slice:libpod:abc", "machine.slice", "libpod-abc.scope"),
        (":docker:abc", "system.slice", "docker-abc.scope"),
        ("user.slice::abc", "user.slice", "abc.scope"),
        ("-.slice:cri:x", "-.slice", "cri-x.scope"),
    ] {
        let expected = Scope { slice: slice.to_owned(), unit: unit.to_owned() };
        assert_eq!(scope(path).unwrap(), expected, "{path}");
    }
}

#[test]
fn other_paths_are_refused_by_name() {
    for path in [
        "/system.slice/x",
        "system.slice:docker",
        "a:b:c:d",
        "system:docker:x",
        "a--b.slice:p:x",
        "-a.slice:p:x",
        ".slice:p:x",
        "a.slice:p:",
        "a.slice:p:x/y",
        "../a.slice:p:x",
    ] {
        let error = scope(path).unwrap_err().to_string();
        assert!(error.starts_with("linux.cgroupsPath: ") && error.contains("SLICE:PREFIX:NAME"), "{error}");
    }
}

#[test]
fn every_dash_in_a_slice_is_a_level() {
    let path = |text| scope(text).unwrap().path();
    assert_eq!(path("-.slice:p:x"), Path::new("p-x.scope"));
    assert_eq!(path("a.slice:p:x"), Path::new("a.slice/p-x.scope"));
    assert_eq!(path("a-b-c.slice:p:x"), Path::new("a.slice/a-b.slice/a-b-c.slice/p-x.scope"));
}

#[test]
fn limits_become_properties() {
    assert_eq!(limit("memory.max", "4096"), Some(property("MemoryMax", Value::Number(4096))));
    assert_eq!(limit("memory.max", "max"), Some(property("MemoryMax", Value::Number(u64::MAX))));
    assert_eq!(limit("cpuset.cpus", "0-2,9"), Some(property("AllowedCPUs", Value::Bytes(vec![0b111, 0b10]))));
    assert_eq!(limit("io.weight", "default 100"), Some(property("IOWeight", Value::Number(100))));
    assert_eq!(limit("cpuset.cpus", "3-1"), None);
    assert_eq!(limit("cpuset.cpus", "0-99999999999"), None);
    assert_eq!(limit("io.max", "x"), None);
}

proptest! {
    #[test]
    fn no_path_leads_out_of_the_cgroup_root(text in ".*") {
        if let Ok(scope) = Scope::parse(Path::new(&text), "c1") {
            let all_normal =
                scope.path().components().all(|part| matches!(part, std::path::Component::Normal(_)));
            prop_assert!(all_normal);
        }
    }
}
