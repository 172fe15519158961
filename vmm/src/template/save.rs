//! Saving a guest: everything comes to rest, and is written down.

use std::{io, time::Duration};

use stockade_protocol::vmm::Config;

use super::{Files, State, format, ram, state};
use crate::{adjustable::Parts, bus::Bus, machine, vcpu};

/// How long a guest whose agent is ready is left alone before it is saved: its kernel ends what it does in the background, and
/// reports the pages that it does not need.
pub const SETTLE: Duration = Duration::from_secs(4);

/// A guest cannot be saved.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Error {
    #[error("template: the guest's CPUs do not come to rest")]
    Cpus,
    #[error("template: the device in slot {0} does not come to rest")]
    Device(usize),
    #[error("template: {0}")]
    Kvm(#[from] machine::Error),
    #[error("template: {0}")]
    Vcpu(#[from] vcpu::Error),
    #[error("template: its files cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// What is saved.
#[derive(Clone, Copy)]
pub struct Saving<'a> {
    /// With what the VMM was started.
    pub config: &'a Config,
    /// The machine.
    pub machine: &'a Parts,
    /// Its devices.
    pub bus: &'a Bus,
}

/// Saves the guest, which does not go on afterwards.
///
/// # Errors
/// [`enum@Error`]; the files are of no use then.
pub fn save(saving: Saving<'_>, files: &Files) -> Result<(), Error> {
    let Saving { config, machine: Parts { machine, ram, cpus }, bus } = saving;
    let cpus = cpus.pause(|| bus.start_and_stop_devices()).ok_or(Error::Cpus)?;
    let clock = machine.save_clock()?;
    let (serial, devices) = bus.save().map_err(Error::Device)?;
    let msrs = machine.msrs()?;
    // Before the CPUs' own registers, which are written back one by one.
    let chips = machine.save_chips()?;
    let vcpus = cpus.iter().map(|vcpu| vcpu.save(&msrs)).collect::<Result<_, _>>()?;
    let mut saved = State {
        config: state::parameters(config),
        host: machine.fingerprint(config.vcpus)?,
        ram: Vec::new(),
        chips,
        clock,
        vcpus,
        serial,
        devices,
        memory_device: ram.growth.as_ref().map(|growth| growth.device().state()),
    };
    saved.ram = ram::write(&ram.memory, saved.size(), &files.ram)?;
    Ok(format::write(&files.state, &saved)?)
}
