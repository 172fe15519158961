use super::*;

fn device(major: u32, minor: u32) -> Device {
    Device { path: "/dev/xvda".into(), kind: DeviceKind::Block, major, minor, mode: 0o660, uid: 0, gid: 6 }
}

fn rule(kind: Option<DeviceKind>, numbers: Option<(u32, u32)>) -> DeviceRule {
    let (major, minor) = (numbers.map(|n| n.0), numbers.map(|n| n.1));
    DeviceRule { allow: true, kind, major, minor, read: true, write: true, mknod: true }
}

#[test]
fn a_device_that_no_rule_names_is_not_handed_over() {
    let mut disks = Disks::under(vec![rule(None, None)]);
    let mut warnings = Vec::new();
    let (devices, rules) = disks.take_devices(vec![device(8, 0)], &mut warnings).unwrap();
    assert_eq!(devices, [PlannedDevice::Node(device(8, 0))]);
    assert_eq!(rules, [PlannedRule::Numbers(rule(None, None))]);
    assert!(disks.list.is_empty());
    assert!(warnings[0].starts_with("linux.devices[0]: /dev/xvda "), "{warnings:?}");
}

/// What a pod's author can have mounted: a node of the host's disk that a container has made in a volume.
#[test]
fn a_node_that_is_mounted_is_a_disk_only_if_the_rules_allow_it() {
    let everything_denied = DeviceRule { allow: false, ..rule(None, None) };
    let block = Some(DeviceKind::Block);
    let of = |rules: &[DeviceRule]| {
        let all: Vec<_> = std::iter::once(&everything_denied).chain(rules).cloned().collect();
        let Access { read, write, mknod, .. } = access(&all, (8, 1));
        [read, write, mknod]
    };
    let engines = DeviceRule { read: false, write: false, ..rule(block, None) };
    assert_eq!(access(&[], (8, 1)), Access { allow: true, read: false, write: false, mknod: false });
    assert_eq!(of(&[]), [false; 3]);
    assert_eq!(of(std::slice::from_ref(&engines)), [false, false, true]);
    assert_eq!(of(&[rule(Some(DeviceKind::Char), Some((8, 1))), rule(block, Some((8, 2)))]), [false; 3]);
    assert_eq!(of(&[rule(block, Some((8, 1)))]), [true; 3]);
    assert_eq!(of(&[DeviceRule { minor: None, ..rule(block, Some((8, 1))) }]), [true; 3]);
    assert_eq!(of(&[DeviceRule { write: false, ..rule(block, Some((8, 1))) }]), [true, false, true]);
    assert_eq!(of(&[rule(None, None)]), [true; 3], "a privileged container");
    assert_eq!(of(&[rule(None, None), DeviceRule { allow: false, ..engines }]), [true, true, false]);
}

#[test]
fn a_file_that_has_taken_a_device_s_place_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let mut disks = Disks::under(vec![rule(None, None)]);
    let error = disks.add_node(&fifo, "/disk".into(), true, "mounts[0].source").unwrap_err().to_string();
    assert!(error.contains("is not a block device any more"), "{error}");
    assert!(disks.list.is_empty());
}

#[test]
fn whoever_writes_to_an_image_has_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, [0; 4096]).unwrap();
    let mut readers = Disks::default();
    assert_eq!(readers.add(&image, true, "mounts[0]").unwrap(), DiskNumber(0));
    assert_eq!(readers.add(&image, true, "mounts[1]").unwrap(), DiskNumber(1));
    let problem = Disks::default().add(&image, false, "mounts[2].source").unwrap_err().to_string();
    assert!(problem.starts_with("mounts[2].source: ") && problem.contains("another VM uses it"), "{problem}");
    drop(readers);
    let mut writer = Disks::default();
    writer.add(&image, false, "mounts[0]").unwrap();
    assert!(Disks::default().add(&image, true, "mounts[0]").is_err());
    drop(writer);
    assert!(Disks::default().add(&image, true, "mounts[0]").is_ok());
}
