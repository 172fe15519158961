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
    let mut disks = Disks::default();
    let mut warnings = Vec::new();
    let (devices, rules) =
        disks.take_devices(vec![device(8, 0)], vec![rule(None, None)], &mut warnings).unwrap();
    assert_eq!(devices, [PlannedDevice::Node(device(8, 0))]);
    assert_eq!(rules, [PlannedRule::Numbers(rule(None, None))]);
    assert!(disks.list.is_empty());
    assert!(warnings[0].starts_with("linux.devices[0]: /dev/xvda "), "{warnings:?}");
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
