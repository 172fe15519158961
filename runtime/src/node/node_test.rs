use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, value) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }
    directory
}

#[test]
fn what_differs_is_taken_over() {
    let host = directory(&[
        ("vm/max_map_count", "262144\n"),
        ("fs/aio-max-nr", "65536\n"),
        ("fs/nr_open", "1024\n"),
        ("fs/inotify/max_user_watches", "8192\n"),
        ("user/max_user_namespaces", "0\n"),
    ]);
    let host = Directory::open(host.path()).unwrap();
    let pairs = |is_inner| kernel(&host, is_inner);
    let expected = [
        ("fs/inotify/max_user_watches", "8192"),
        ("kernel/yama/ptrace_scope", "1"),
        ("user/max_user_namespaces", "0"),
        ("vm/max_map_count", "262144"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pairs(false), expected);
    assert!(pairs(true).iter().all(|(name, _)| !name.starts_with("user/")));
}

#[test]
fn a_pattern_that_runs_a_program_is_warned_about() {
    for (pattern, wants, warned) in [
        ("core", true, false),
        ("/cores/%e", true, false),
        ("|/bin/x %P", true, true),
        ("|/bin/x", false, false),
    ] {
        let host = directory(&[("kernel/core_pattern", &format!("{pattern}\n"))]);
        let mut node = Node::default();
        node.take_core_pattern(&Directory::open(host.path()).unwrap(), wants);
        assert_eq!(node.warnings.len() == 1, warned, "{pattern}");
        assert_eq!(node.settings.sysctls.is_empty(), pattern == "core", "{pattern}");
    }
}

#[test]
fn a_value_is_one_line_with_single_spaces() {
    let host = directory(&[("range", "32768\t60999\n"), ("lines", "a\nb\n"), ("long", &"x".repeat(600))]);
    let host = Directory::open(host.path()).unwrap();
    assert_eq!(host.read("range").as_deref(), Some("32768 60999"));
    assert_eq!((host.read("lines"), host.read("long"), host.read("none")), (None, None, None));
}
