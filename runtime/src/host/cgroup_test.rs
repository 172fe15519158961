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
