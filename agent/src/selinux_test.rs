use super::*;

fn mount_of(fstype: &str, data: &str) -> Mount {
    Mount {
        destination: "/m".to_owned(),
        source: MountSource::FileSystem { fstype: fstype.to_owned(), source: "s".to_owned() },
        flags: 0,
        propagation: Vec::new(),
        data: data.to_owned(),
        copy_up: false,
    }
}

#[test]
fn file_systems_of_a_container_get_its_label() {
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let with = format!("context=\"{label}\"");
    for (fstype, before, after) in [
        ("tmpfs", "size=64k", format!("size=64k,{with}")),
        ("devpts", "", with.clone()),
        ("mqueue", "", with.clone()),
        ("tmpfs", "context=other,size=1k", "context=other,size=1k".to_owned()),
        ("tmpfs", "size=1k,context=other", "size=1k,context=other".to_owned()),
        ("tmpfs", "rootcontext=other", format!("rootcontext=other,{with}")),
        ("proc", "", String::new()),
        ("sysfs", "", String::new()),
        ("cgroup2", "", String::new()),
    ] {
        let mut mounts = [mount_of(fstype, before)];
        label_mounts(&mut mounts, label);
        assert_eq!(mounts[0].data, after, "{fstype}");
    }
    let scratch = Mount { source: MountSource::Scratch { slot: 1 }, ..mount_of("", "") };
    let shared = Mount { source: MountSource::Share("s".to_owned()), ..mount_of("", "") };
    let mut mounts = [scratch, shared];
    label_mounts(&mut mounts, label);
    assert_eq!(mounts.map(|mount| mount.data), [with.clone(), String::new()]);
    for (data, others) in [
        (format!("size=64k,{with}"), "size=64k"),
        (format!("{with},mode=1777"), "mode=1777"),
        (format!("a,{with},b"), "a,b"),
        (with.clone(), ""),
    ] {
        assert_eq!(take_option(&data), (others.to_owned(), Some(label)));
    }
    assert_eq!(take_option("size=1k"), ("size=1k".to_owned(), None));
}
