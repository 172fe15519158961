//! Saving a guest: everything comes to rest, and is written down.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use stockade_protocol::vmm::Config;

use super::{Files, State, format, ram, state};
use crate::{adjustable::Parts, bus::Bus, devices::balloon::Reports, machine, status::StatusSocket, vcpu};

/// How long a guest must not have reported pages to be at rest. Linux reports some of those that it does not need every two
/// seconds.
const QUIET: Duration = Duration::from_secs(3);

/// How long is waited for that: a guest of 2 GiB takes half as long.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Leaves a guest whose agent is ready alone until its kernel has ended what it does in the background. What it has not reported
/// by then, every clone would report as soon as it begins, for its clock has gone on.
///
/// Returns whether the runtime still waits for the template.
pub fn settle(status: &StatusSocket, reports: &Reports) -> bool {
    let begin = Instant::now();
    loop {
        let before = reports.count();
        thread::sleep(QUIET);
        if !status.is_settling() {
            return false;
        }
        if reports.count() == before || begin.elapsed() > SETTLE_TIMEOUT {
            return true;
        }
    }
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
