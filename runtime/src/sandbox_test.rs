use super::*;

fn annotations(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn every_callers_way_to_name_a_sandbox_is_understood() {
    for (role, sandbox) in ANNOTATIONS {
        let member = annotations(&[(role, "container"), (sandbox, "s")]);
        assert_eq!(annotated(Some(&member)).unwrap(), Some("s".to_owned()));
        let itself = annotations(&[(role, "sandbox"), (sandbox, "s")]);
        assert_eq!(annotated(Some(&itself)).unwrap(), None);
        let incomplete = annotated(Some(&annotations(&[(role, "container")]))).unwrap_err().to_string();
        assert!(incomplete.contains(sandbox), "{incomplete}");
    }
    assert_eq!(annotated(None).unwrap(), None);
}

#[test]
fn the_hosts_namespaces_are_recognised() {
    let peers = Peers::default();
    let own = Path::new("/proc/self/ns/ipc");
    assert_eq!(peers.named(Type::Ipc, own, "p").unwrap(), Named::Host);
    let missing = peers.named(Type::Ipc, Path::new("/nowhere"), "linux.namespaces[0].path").unwrap_err();
    assert!(missing.to_string().starts_with("linux.namespaces[0].path"), "{missing}");
}

#[test]
fn a_namespace_is_known_by_its_inode() {
    let own = fs::metadata("/proc/self/ns/uts").unwrap().ino();
    let known = HashMap::from([(("uts".to_owned(), own), "infra".to_owned())]);
    let peers = Peers { sandbox: None, volumes: None, known };
    let path = PathBuf::from(format!("/proc/{}/ns/uts", std::process::id()));
    assert_eq!(peers.named(Type::Uts, &path, "p").unwrap(), Named::Of("infra".to_owned()));
}
