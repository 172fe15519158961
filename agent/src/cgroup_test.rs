use super::*;

#[test]
fn paths_stay_below_the_root() {
    assert_eq!(directory("a/b").unwrap(), Path::new("/run/cgroup/a/b"));
    for path in ["", "/", "/a", "..", "a/../..", "./a/.."] {
        let error = directory(path).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Spec, "{path:?}");
    }
}

#[test]
fn files_are_named_and_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("pids.max"), "").unwrap();
    let cgroup = Cgroup::at(directory.path().to_owned());
    let spec = |file: &str| container::Cgroup {
        path: "a".into(),
        values: vec![(file.into(), "9".into())],
        devices: vec![],
    };

    cgroup.configure(&spec("pids.max")).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("pids.max")).unwrap(), "9");

    let unknown = cgroup.configure(&spec("memory.nope")).unwrap_err();
    assert_eq!(
        unknown.message,
        "linux.resources: write \"9\" to cgroup file memory.nope: no such file or directory"
    );
    for outside in ["../pids.max", ".", "/etc/x"] {
        assert!(cgroup.configure(&spec(outside)).unwrap_err().message.contains("not the name"));
    }
}

#[test]
fn removal_takes_the_cgroups_below_along() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("c");
    fs::create_dir_all(directory.join("made/by/systemd")).unwrap();
    remove_tree(&directory).unwrap();
    assert!(!directory.exists());
    assert_eq!(errno_of(&remove_tree(&directory).unwrap_err()), Errno::ENOENT);
}

#[test]
fn a_failed_update_takes_back_what_it_has_written() {
    let directory = tempfile::tempdir().unwrap();
    let cgroup = Cgroup::at(directory.path().to_owned());
    let says = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
    fs::write(directory.path().join("pids.max"), "5\n").unwrap();
    fs::write(directory.path().join("cpu.max"), "max 100000\n").unwrap();
    let values = |list: &[(&str, &str)]| -> Vec<_> {
        list.iter().map(|(file, value)| (String::from(*file), String::from(*value))).collect()
    };

    let failed = cgroup.update(&values(&[("pids.max", "7"), ("cpu.max", "5000 10000"), ("no.such", "1")]));
    assert!(failed.unwrap_err().message.contains("no.such"));
    assert_eq!((says("pids.max"), says("cpu.max")), ("5\n".into(), "max 100000\n".into()));

    fs::write(directory.path().join("io.stat"), "8:0 rbytes=1234567890\n".repeat(1000)).unwrap();
    let read = cgroup.read("io.stat").unwrap();
    assert!(read.len() < FILE_LIMIT as usize && read.lines().all(|line| line == "8:0 rbytes=1234567890"));

    cgroup.update(&values(&[("pids.max", "7")])).unwrap();
    assert_eq!(cgroup.read("pids.max").as_deref(), Some("7\n"));
}

#[test]
fn a_process_below_the_cgroup_is_told_from_one_elsewhere() {
    let cgroup = Cgroup::at(Path::new(ROOT).join("pods/c1"));
    assert_eq!(cgroup.own_part("0::/pods/c1/init.scope\n"), Some("init.scope"));
    assert_eq!(cgroup.own_part("0::/pods/c1/a/b\n"), Some("a/b"));
    for elsewhere in ["0::/pods/c1\n", "0::/pods/c10/a\n", "0::/\n", "0::/pods/c1 (deleted)\n", ""] {
        assert_eq!(cgroup.own_part(elsewhere), None, "{elsewhere}");
    }
}
