use super::*;
use proptest::prelude::*;

#[test]
fn paths_follow_runcs_rule() {
    let resolve = |path: &str| resolve(Path::new(path), "/user.slice/shell", "stockade-x").unwrap();
    assert_eq!(resolve("/pods/a"), Path::new("/sys/fs/cgroup/pods/a"));
    assert_eq!(resolve("pods/a"), Path::new("/sys/fs/cgroup/user.slice/pods/a"));
    assert_eq!(resolve(""), Path::new("/sys/fs/cgroup/user.slice/stockade-x"));
}

#[test]
fn the_root_and_ways_out_are_refused() {
    for path in ["/", "/..", "a/../../b", "/."] {
        assert!(resolve(Path::new(path), "/", "x").is_err(), "{path}");
    }
}

proptest! {
    #[test]
    fn every_path_stays_below_the_root(path in "[a/.]{0,20}", own in "/[a/]{0,10}") {
        if let Ok(path) = resolve(Path::new(&path), &own, "x") {
            prop_assert!(path.starts_with(ROOT) && path != Path::new(ROOT));
            let mut components = path.components();
            prop_assert!(components.all(|c| matches!(c, Component::Normal(_) | Component::RootDir)));
        }
    }
}

#[test]
fn a_line_of_a_device_is_taken_back_by_its_former_one() {
    let io_max = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max\n";
    assert_eq!(former("io.max", io_max, "8:16 wbps=5"), "8:16 rbps=2 wbps=max riops=max wiops=max");
    assert_eq!(former("io.max", io_max, "8:1 wbps=5"), "8:1 rbps=max wbps=max riops=max wiops=max");
    assert_eq!(former("io.max", "", "8:1 wbps=5"), "8:1 rbps=max wbps=max riops=max wiops=max");
    assert_eq!(former("io.weight", "default 100\n8:0 50\n", "7"), "default 100");
    assert_eq!(former("io.weight", "default 100\n8:0 50\n", "8:0 7"), "8:0 50");
    assert_eq!(former("io.weight", "default 100\n", "8:0 7"), "8:0 default");
    assert_eq!(former("cpuset.cpus", "\n", "0"), "");
}
