//! Giving the VM a container's disks.

use std::os::fd::OwnedFd;

use anyhow::Context;
use stockade_protocol::vmm;

use crate::lower::disks::Disk;
use crate::lower::plan::Slots;
use crate::vm::{Control, call};

/// Adds the disks. Each slot is written into the record as soon as it is known.
///
/// # Errors
/// The VMM's error, mostly that it has no slot left.
pub(super) fn add(
    disks: Vec<Disk>,
    vmm: &mut Control,
    mut remember: impl FnMut(u8) -> anyhow::Result<()>,
) -> anyhow::Result<Slots> {
    Slots::fill(disks, |(number, Disk { property, file, readonly })| {
        let disk = vmm::Disk { readonly, serial: format!("disk{number}") };
        let slot = vmm
            .call_with(call::AddDisk(disk), &[OwnedFd::from(file)])
            .with_context(|| format!("{property}: cannot give the VM a disk"))?;
        remember(slot)?;
        Ok(slot)
    })
}
