//! Giving the VM a container's disks.

use std::os::fd::OwnedFd;

use anyhow::Context;
use stockade_protocol::container::{Container, DeviceKind, MountSource};
use stockade_protocol::vmm;

use crate::lower::disks::Disk;
use crate::machine::{Control, call};

/// Adds them, and gives the container their slots for their numbers. Each slot is remembered as soon as there is one.
///
/// # Errors
/// The VMM's, mostly that it has no slot left.
pub(super) fn add(
    disks: Vec<Disk>,
    container: &mut Container,
    vmm: &mut Control,
    mut remember: impl FnMut(u8) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut slots = Vec::new();
    for (number, Disk { property, file, readonly }) in disks.into_iter().enumerate() {
        let disk = vmm::Disk { readonly, serial: format!("disk{number}") };
        let slot = vmm
            .call_with(call::AddDisk(disk), &[OwnedFd::from(file)])
            .with_context(|| format!("{property}: cannot give the VM a disk"))?;
        remember(slot)?;
        slots.push(slot);
    }
    let slot = |number: u32| usize::try_from(number).ok().and_then(|number| slots.get(number).copied());
    for device in container.devices.iter_mut().filter(|device| device.kind == DeviceKind::Disk) {
        device.major = slot(device.major).map_or(device.major, u32::from);
    }
    for rule in container.cgroup.devices.iter_mut().filter(|rule| rule.kind == Some(DeviceKind::Disk)) {
        rule.major = rule.major.and_then(slot).map(u32::from);
    }
    for mount in &mut container.mounts {
        if let MountSource::Disk { slot: number, .. } = &mut mount.source {
            *number = slot((*number).into()).unwrap_or(*number);
        }
    }
    Ok(())
}
