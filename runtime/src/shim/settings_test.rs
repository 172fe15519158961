use super::*;

fn settings(options: &Options, is_systemds: bool) -> Settings {
    Settings::new(options, &Place { group: "pod".to_owned(), is_systemds }, "k8s.io")
}

#[test]
fn options_come_in_three_forms() {
    let expected = Options {
        binary_name: "/opt/stockade".to_owned(),
        root: "/run/mine".to_owned(),
        systemd_cgroup: true,
        shim_cgroup: String::new(),
        without_effect: vec!["NoPivotRoot".to_owned()],
    };
    let runc = RuncOptions {
        binary_name: "/opt/stockade".to_owned(),
        root: "/run/mine".to_owned(),
        systemd_cgroup: true,
        no_pivot_root: true,
        ..RuncOptions::default()
    };
    let any = Any::new("containerd.runc.v1.Options", &runc);
    assert_eq!(Options::parse(Some(&any)).expect("runc's"), expected);

    let table =
        "BinaryName = \"/opt/stockade\"\nRoot = \"/run/mine\"\nSystemdCgroup = true\nNoPivotRoot = true\n";
    let body = GenericOptions { config_path: String::new(), config_body: table.into() };
    let any = Any::new("runtimeoptions.v1.Options", &body);
    assert_eq!(Options::parse(Some(&any)).expect("a table"), expected);

    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), table).expect("write");
    let path = GenericOptions { config_path: file.path().display().to_string(), config_body: Vec::new() };
    let any = Any::new("runtimeoptions.v1.Options", &path);
    assert_eq!(Options::parse(Some(&any)).expect("a file"), expected);

    let found = settings(&expected, false);
    assert_eq!(found.binary, Some("/opt/stockade".into()));
    assert_eq!((found.root, found.systemd_cgroup), ("/run/mine/k8s.io".into(), true));
    assert_eq!(Options::parse(None).expect("none"), Options::default());
    let found = settings(&Options::default(), true);
    assert_eq!((found.root, found.systemd_cgroup), ("/run/containerd/stockade/k8s.io".into(), true));
}

#[test]
fn what_is_wrong_is_named() {
    let body = GenericOptions { config_path: String::new(), config_body: "Root = 3".into() };
    for (any, expected) in [
        (Any::new("runtimeoptions.v1.Options", &body), "config.toml"),
        (Any { type_url: "x/other.Options".to_owned(), value: Vec::new() }, "other.Options"),
    ] {
        let error = format!("{:#}", Options::parse(Some(&any)).expect_err("malformed"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn settings_stay_in_the_bundle() {
    let bundle = tempfile::tempdir().expect("directory");
    assert_eq!(Settings::read(bundle.path()), None);
    let settings = settings(&Options::default(), false);
    settings.write(bundle.path()).expect("write");
    assert_eq!(Settings::read(bundle.path()), Some(settings));
}
