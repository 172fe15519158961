//! NICs by their slots, in sysfs: binding their driver, and the interfaces that it makes.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

use stockade_protocol::network::{LOOPBACK, NicSlot};

use super::unexpected;
use crate::{
    error::{Context, Result},
    mount_api::{self, attr},
};

/// The driver of all slots.
const DRIVER: &str = "bus/platform/drivers/virtio-mmio";

/// The NICs of a change.
#[derive(Debug)]
pub struct Nics<'a> {
    slots: &'a [NicSlot],
    /// Mounted nowhere: nothing else in the agent needs it.
    sysfs: OwnedFd,
}

impl<'a> Nics<'a> {
    /// Looks for NICs in these slots.
    pub fn open(slots: &'a [NicSlot]) -> Result<Self> {
        let sysfs =
            mount_api::new_file_system("sysfs", "sysfs", "", attr::NOSUID | attr::NODEV | attr::NOEXEC)
                // A container's is usually read-only, and there is one sysfs for all.
                .and_then(|sysfs| mount_api::make_writable(&sysfs).map(|()| sysfs))
                .or_internal(|| "open sysfs".to_owned())?;
        Ok(Self { slots, sysfs })
    }

    /// Binds the driver; when this returns, there is an interface.
    pub fn bind(&self, interface: u32) -> Result<()> {
        let device = self.device(interface)?;
        match self.tell_driver("bind", &device) {
            // It is bound.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            told => told.or_internal(|| format!("bind the driver of {device}"))?,
        }
        self.index(interface).map(drop)
    }

    /// Has the driver let go.
    pub fn unbind(&self, interface: u32) -> Result<()> {
        let device = self.device(interface)?;
        match self.tell_driver("unbind", &device) {
            // It is not bound.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            told => told.or_internal(|| format!("unbind the driver of {device}")),
        }
    }

    /// The number that the guest's kernel has given an interface.
    pub fn index(&self, interface: u32) -> Result<u32> {
        if interface == LOOPBACK {
            return Ok(LOOPBACK);
        }
        let device = self.device(interface)?;
        let folder = self.path(&format!("bus/platform/devices/{device}"));
        let read = || -> io::Result<Option<u32>> {
            let Some(virtio) = child(&folder, "virtio")? else { return Ok(None) };
            let Some(netdev) = child(&virtio.join("net"), "")? else { return Ok(None) };
            Ok(fs::read_to_string(netdev.join("ifindex"))?.trim_end().parse().ok())
        };
        read()
            .or_internal(|| format!("look for the interface of {device}"))?
            .ok_or_else(|| unexpected(format!("the NIC {device} has no interface; is it in its slot?")))
    }

    fn device(&self, interface: u32) -> Result<String> {
        let nic = self.slots.iter().find(|nic| nic.interface == interface);
        let nic = nic.ok_or_else(|| unexpected(format!("no slot is given for the interface {interface}")))?;
        Ok(format!("virtio-mmio.{}", nic.slot))
    }

    fn tell_driver(&self, file: &str, device: &str) -> io::Result<()> {
        fs::write(self.path(DRIVER).join(file), device)
    }

    fn path(&self, relative: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{relative}", self.sysfs.as_raw_fd()))
    }
}

/// The first entry of a folder whose name begins so.
fn child(folder: &PathBuf, prefix: &str) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
