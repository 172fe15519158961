//! Slots of the platform bus, in sysfs: binding the driver to a device that the VMM has put into a slot, and finding
//! the result.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use stockade_sys::mount_api::{self, attr};

use crate::error::{Context, Result};

/// The driver of all slots.
const DRIVER: &str = "bus/platform/drivers/virtio-mmio";

/// A sysfs that is not mounted, because nothing else in the agent needs it.
#[derive(Debug)]
pub struct Slots(OwnedFd);

impl Slots {
    /// Opens sysfs.
    pub fn open() -> Result<Self> {
        mount_api::new_file_system("sysfs", "sysfs", "", attr::NOSUID | attr::NODEV | attr::NOEXEC)
            // There is one sysfs for the whole guest, and a container's mount of it is usually read-only.
            .and_then(|sysfs| mount_api::make_writable(&sysfs).map(|()| Self(sysfs)))
            .or_internal(|| "open sysfs".to_owned())
    }

    /// Binds the driver; when this returns, the device exists.
    pub fn bind(&self, slot: u8) -> Result<()> {
        match self.tell_driver("bind", slot) {
            // The driver is bound already.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            told => told.or_internal(|| format!("bind the driver of {}", name(slot))),
        }
    }

    /// Unbinds the driver.
    pub fn unbind(&self, slot: u8) -> Result<()> {
        match self.tell_driver("unbind", slot) {
            // The driver is not bound.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            told => told.or_internal(|| format!("unbind the driver of {}", name(slot))),
        }
    }

    /// The directory of the device of this class (`net`, `block`) that is in a slot, if there is one.
    pub fn device(&self, slot: u8, class: &str) -> io::Result<Option<PathBuf>> {
        match child(&self.path("bus/platform/devices").join(name(slot)), "virtio")? {
            Some(virtio) => child(&virtio.join(class), ""),
            None => Ok(None),
        }
    }

    fn tell_driver(&self, file: &str, slot: u8) -> io::Result<()> {
        fs::write(self.path(DRIVER).join(file), name(slot))
    }

    fn path(&self, relative: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{relative}", self.0.as_raw_fd()))
    }
}

/// The name of a slot on its bus.
pub fn name(slot: u8) -> String {
    format!("virtio-mmio.{slot}")
}

/// The first entry of a directory whose name begins with `prefix`.
fn child(directory: &Path, prefix: &str) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(directory) {
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
