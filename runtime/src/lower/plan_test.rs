use std::fs;

use serde_json::json;

use super::super::tests::lowered_with;
use super::super::{Allowed, Lowered};
use super::*;

fn late(slots: Slots) -> Late<'static> {
    Late {
        terminal: None,
        streams: Vec::new(),
        env: &[],
        seccomp: Vec::new(),
        start_hooks: Vec::new(),
        slots,
    }
}

#[test]
fn disks_have_the_slots_that_they_were_given() {
    let directory = tempfile::tempdir().unwrap();
    let images = ["a", "b"].map(|name| directory.path().join(name));
    images.iter().for_each(|image| fs::write(image, [0; 4096]).unwrap());
    let Lowered { plan, disks, .. } = lowered_with(Allowed::default(), |config| {
        let mount = |image| json!({ "destination": "/x", "type": "ext4", "source": image });
        config["mounts"] = images.iter().map(mount).collect();
    })
    .unwrap();
    let slots = Slots::fill(disks, |(number, _)| Ok::<_, ()>([9, 4][number])).unwrap();
    let slot = |mount: &Mount| match mount.source {
        MountSource::Disk { slot, .. } => slot,
        _ => panic!("{mount:?}"),
    };
    assert_eq!(plan.container(late(slots)).mounts.iter().map(slot).collect::<Vec<_>>(), [9, 4]);
}

#[test]
fn nodes_and_rules_of_disks_name_the_disks_slot() {
    let slots = Slots(vec![7, 3]);
    let node = NodeOfDisk { path: "/dev/xvda".to_owned(), mode: 0o660, uid: 1, gid: 6 };
    let device = PlannedDevice::Disk(DiskNumber(1), node).with(&slots);
    assert_eq!((device.kind, device.major, device.minor, device.gid), (DeviceKind::Disk, 3, 0, 6));
    let access = Access { allow: true, read: true, write: false, mknod: true };
    let rule = PlannedRule::Disk(DiskNumber(0), access).with(&slots);
    assert_eq!((rule.kind, rule.major, rule.minor), (Some(DeviceKind::Disk), Some(7), Some(0)));
    assert!(rule.allow && rule.read && !rule.write && rule.mknod);
}

#[test]
fn what_the_caller_adds_comes_behind_config_jsons_environment() {
    let plan =
        lowered_with(Allowed::default(), |config| config["process"]["env"] = json!(["A=1"])).unwrap().plan;
    let env = ["LISTEN_FDS=1".to_owned()];
    let streams = vec![StreamKind::Socket];
    let container = plan.container(Late { streams: streams.clone(), env: &env, ..late(Slots::default()) });
    assert_eq!(container.process.env, ["A=1", "LISTEN_FDS=1"]);
    assert_eq!((container.process.streams, container.process.terminal), (streams, None));
}
