use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn the_hosts_namespaces_are_recognised() {
    let peers = Peers::default();
    let own = Path::new("/proc/self/ns/ipc");
    assert_eq!(peers.named(Type::Ipc, own, "p").unwrap(), Named::Host);
    let missing = peers.named(Type::Ipc, Path::new("/nowhere"), "linux.namespaces[0].path").unwrap_err();
    assert!(missing.to_string().starts_with("linux.namespaces[0].path"), "{missing}");
    for (kind, _) in KINDS.into_iter().filter(|(kind, _)| *kind != Type::Ipc) {
        let other = peers.named(kind, own, "linux.namespaces[0].path").unwrap_err().to_string();
        assert!(other.contains(&format!("not a {} namespace", name_of(kind))), "{other}");
    }
}

#[test]
fn a_namespace_is_known_by_its_inode() {
    let own = fs::metadata("/proc/self/ns/uts").unwrap().ino();
    let known = HashMap::from([(("uts".to_owned(), own), "infra".to_owned())]);
    let peers = Peers { known, ..Peers::default() };
    let path = PathBuf::from(format!("/proc/{}/ns/uts", std::process::id()));
    assert_eq!(peers.named(Type::Uts, &path, "p").unwrap(), Named::Of("infra".to_owned()));
}

/// A bundle's config.json with these annotations and paths of namespaces.
fn spec(annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> Spec {
    let annotations: HashMap<_, _> = annotations.iter().copied().collect();
    let namespaces: Vec<_> =
        paths.iter().map(|(kind, path)| serde_json::json!({ "type": kind, "path": path })).collect();
    serde_json::from_value(serde_json::json!({
        "ociVersion": "1.0.2", "annotations": annotations, "linux": { "namespaces": namespaces },
    }))
    .unwrap()
}

const MEMBER: [(&str, &str); 2] =
    [("io.kubernetes.cri-o.ContainerType", "container"), ("io.kubernetes.cri-o.SandboxID", "pod")];

/// A root with a sandbox `pod` whose relay is this process, and a member `member` of it.
struct Fixture {
    directory: tempfile::TempDir,
    root: Root,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(Some(directory.path()));
        let fixture = Self { directory, root };
        fixture.write("pod", None, std::process::id() as i32, &[]);
        fixture.write("member", Some("pod"), std::process::id() as i32, &[]);
        fixture
    }

    fn write(&self, id: &str, sandbox: Option<&str>, relay: i32, namespaces: &[KnownNamespace]) {
        let record = Record {
            relay: crate::sys::process::ProcessRef::of(relay),
            sandbox: sandbox.map(str::to_owned),
            namespaces: namespaces.to_vec(),
            ..crate::state::fixture(id)
        };
        let path = self.directory.path().join(id);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("state.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    }

    fn find(&self, annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> Result<Option<String>, String> {
        let peers =
            Peers::find(&self.root, &spec(annotations, paths)).map_err(|error| format!("{error:#}"))?;
        Ok(peers.sandbox.map(|id| id.to_string()))
    }
}

fn own(kind: &str) -> KnownNamespace {
    KnownNamespace {
        kind: kind.to_owned(),
        inode: inode(&of_process(std::process::id() as i32, kind)).unwrap(),
        path: None,
    }
}

#[test]
fn annotations_name_a_sandbox_and_no_member() {
    let fixture = Fixture::new();
    assert_eq!(fixture.find(&MEMBER, &[]), Ok(Some("pod".to_owned())));
    let of_member = [MEMBER[0], (MEMBER[1].0, "member")];
    let error = fixture.find(&of_member, &[]).unwrap_err();
    assert!(error.contains("\"member\" is not a sandbox"), "{error}");
    // Another root's containers are others.
    let error = Fixture::new().find(&[MEMBER[0], (MEMBER[1].0, "elsewhere")], &[]).unwrap_err();
    assert!(error.contains("\"elsewhere\" does not exist"), "{error}");
}

#[test]
fn the_network_namespace_confirms_what_annotations_say() {
    let fixture = Fixture::new();
    let network = [("network", "/proc/self/ns/net")];
    let error = fixture.find(&MEMBER, &network).unwrap_err();
    assert!(error.contains("is not the network namespace of sandbox \"pod\""), "{error}");
    fixture.write("pod", None, std::process::id() as i32, &[own("net")]);
    assert_eq!(fixture.find(&MEMBER, &network), Ok(Some("pod".to_owned())));
    // Whose it is, by the path alone.
    assert_eq!(fixture.find(&[], &network), Ok(Some("pod".to_owned())));
    fixture.write("other", None, std::process::id() as i32, &[own("uts")]);
    let error = fixture.find(&MEMBER, &[network[0], ("uts", "/proc/self/ns/uts")]).unwrap_err();
    assert!(error.contains("\"other\", which is in another VM"), "{error}");
}

#[test]
fn a_sandbox_joins_nobody() {
    let fixture = Fixture::new();
    fixture.write("pod", None, std::process::id() as i32, &[own("net")]);
    let sandbox = [("io.kubernetes.cri.container-type", "sandbox"), ("io.kubernetes.cri.sandbox-id", "pod")];
    assert_eq!(fixture.find(&sandbox, &[]), Ok(None));
    let error = fixture.find(&sandbox, &[("network", "/proc/self/ns/net")]).unwrap_err();
    assert!(error.contains("belongs to container \"pod\""), "{error}");
}

#[test]
fn namespaces_that_are_gone_are_nobodys() {
    let fixture = Fixture::new();
    let by_path = |fixture: &Fixture| fixture.find(&[], &[("ipc", "/proc/self/ns/ipc")]).unwrap();
    let me = std::process::id() as i32;
    fixture.write("pod", None, me, &[own("ipc")]);
    assert_eq!(by_path(&fixture), Some("pod".to_owned()));
    // The number is this process's; the namespace that had it was that of a relay which has ended …
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    let ended_pid = ended.id() as i32;
    fixture.write("pod", None, ended_pid, &[own("ipc")]);
    ended.wait().unwrap();
    assert_eq!(by_path(&fixture), None);
    // … or was pinned at a path where there is nothing or another one now.
    for path in ["/run/ipcns/gone", "/proc/self/ns/uts"] {
        let pinned = KnownNamespace { path: Some(path.into()), ..own("ipc") };
        fixture.write("pod", None, me, &[pinned]);
        assert_eq!(by_path(&fixture), None, "{path}");
    }
    let pinned = KnownNamespace { path: Some("/proc/self/ns/ipc".into()), ..own("ipc") };
    fixture.write("pod", None, me, &[pinned]);
    assert_eq!(by_path(&fixture), Some("pod".to_owned()));
}
