use stockade_protocol::container::MountSource;

use super::*;

fn tmpfs(destination: &str) -> PlannedMount {
    let source = MountSource::FileSystem { fstype: "tmpfs".to_owned(), source: "tmpfs".to_owned() };
    PlannedMount {
        destination: destination.to_owned(),
        source: source.into(),
        flags: 0,
        propagation: Vec::new(),
        data: String::new(),
        copy_up: false,
    }
}

/// The destinations of all mounts and the sizes of the disks, or the error.
fn lowered(asked: Option<&str>, role: &Role, scratch: &Scratch) -> Result<(Vec<String>, Vec<u64>), String> {
    let annotations = asked.map(|text| (SCRATCH.to_owned(), text.to_owned())).into_iter().collect();
    let mut mounts = ["/proc", "/var", "/var/lib/docker/certs"].map(tmpfs).to_vec();
    let (mut disks, mut warnings) = (Disks::default(), Vec::new());
    lower(&annotations, role, scratch, &mut mounts, &mut disks, &mut warnings)
        .map_err(|error| error.to_string())?;
    let sizes = disks.list.iter().map(|disk| disk.file.metadata().unwrap().len()).collect();
    Ok((mounts.into_iter().map(|mount| mount.destination).collect(), sizes))
}

#[test]
fn disks_come_over_what_is_there_and_below_what_is_in_them() {
    let (mounts, sizes) =
        lowered(Some("/var/lib/docker:1g,/:64m"), &Role::Alone, &Scratch::default()).unwrap();
    assert_eq!(mounts, ["/", "/proc", "/var", "/var/lib/docker", "/var/lib/docker/certs"]);
    assert_eq!(sizes, [1 << 30, 64 << 20]);
}

#[test]
fn the_default_is_for_those_who_ask_for_nothing() {
    let scratch = Scratch { default: Some("/tmp:32m".to_owned()), ..Scratch::default() };
    assert_eq!(lowered(None, &Role::Alone, &scratch).unwrap().1, [32 << 20]);
    assert!(lowered(Some(""), &Role::Member("pod".to_owned()), &scratch).unwrap().1.is_empty());
    assert!(lowered(None, &Role::Sandbox, &scratch).unwrap().1.is_empty());
    assert!(lowered(None, &Role::Alone, &Scratch::default()).unwrap().1.is_empty());
}

#[test]
fn what_cannot_be_is_named() {
    let refused = |text: &str, scratch: &Scratch| lowered(Some(text), &Role::Alone, scratch).unwrap_err();
    let scratch = Scratch { max_mib: 1024, ..Scratch::default() };
    for (text, words) in [
        ("/tmp", "PATH:SIZE"),
        ("/tmp:1m", "/tmp: the size must be between 16.0M and 8.0T"),
        (
            "/tmp:600m,/:600m",
            "1.2G are more than scratch.max_mib of /etc/stockade/config.toml allows a container, 1.0G",
        ),
        ("/tmp:32m,/tmp/:32m", "/tmp/ is there twice"),
    ] {
        let error = refused(text, &scratch);
        assert!(error.contains(SCRATCH) && error.contains(words), "{error}");
    }
    let nowhere = Scratch { directory: "/nowhere".into(), ..Scratch::default() };
    assert!(refused("/tmp:32m", &nowhere).contains("in /nowhere (scratch.directory"));
}
