//! NICs by their slots: binding their driver, and the interfaces that it makes.

use std::{fs, io};

use stockade_protocol::network::{LOOPBACK, NicSlot};

use super::unexpected;
use crate::{
    error::{Context, Result},
    slots::{self, Slots},
};

/// The NICs of a change.
#[derive(Debug)]
pub struct Nics<'a> {
    nics: &'a [NicSlot],
    slots: Slots,
}

impl<'a> Nics<'a> {
    /// Looks for NICs in these slots.
    pub fn open(nics: &'a [NicSlot]) -> Result<Self> {
        Ok(Self { nics, slots: Slots::open()? })
    }

    /// Binds the driver; when this returns, the interface exists.
    pub fn bind(&self, interface: u32) -> Result<()> {
        self.slots.bind(self.slot(interface)?)?;
        self.index(interface).map(drop)
    }

    /// Unbinds the driver.
    pub fn unbind(&self, interface: u32) -> Result<()> {
        self.slots.unbind(self.slot(interface)?)
    }

    /// The number that the guest's kernel has given an interface.
    pub fn index(&self, interface: u32) -> Result<u32> {
        if interface == LOOPBACK {
            return Ok(LOOPBACK);
        }
        let slot = self.slot(interface)?;
        let read = || -> io::Result<Option<u32>> {
            let Some(netdev) = self.slots.device(slot, "net")? else { return Ok(None) };
            Ok(fs::read_to_string(netdev.join("ifindex"))?.trim_end().parse().ok())
        };
        let name = || slots::name(slot);
        read()
            .or_internal(|| format!("look for the interface of {}", name()))?
            .ok_or_else(|| unexpected(format!("the NIC {} has no interface; is it in its slot?", name())))
    }

    fn slot(&self, interface: u32) -> Result<u8> {
        let nic = self.nics.iter().find(|nic| nic.interface == interface);
        nic.map(|nic| nic.slot)
            .ok_or_else(|| unexpected(format!("no slot is given for the interface {interface}")))
    }
}
