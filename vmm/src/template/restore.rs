//! Beginning as a template's guest was.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    time::SystemTime,
};

use stockade_protocol::{frame, renewal::Renewal, vmm::Config};

use super::{Files, Fresh, Invalid, format, ram};
use crate::{
    console,
    devices::mem::OtherSize,
    machine::{self, Machine},
    memory,
    ram::Ram,
    vcpu::{self, Vcpu},
    virtio::mmio,
};

/// A template cannot be used here.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Refusal {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("it was made for another machine, or on another one")]
    Other,
    #[error(transparent)]
    Memory(#[from] memory::Error),
    #[error(transparent)]
    Size(#[from] OtherSize),
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// No fault of the template: a VM that boots has no RAM either.
    #[error(transparent)]
    NoRam(machine::Error),
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
}

/// A machine that is as a template was, but for its devices.
#[derive(Debug)]
pub struct Restored {
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// How its serial line was.
    pub serial: console::State,
    /// How its devices were.
    pub devices: Vec<mmio::State>,
    /// RAM in which nothing was.
    pub fresh: Fresh,
}

/// Makes a new machine with its RAM one that is as the template was.
///
/// # Errors
/// [`Refusal`]; the machine is of no use then, but after [`Refusal::NoRam`].
pub fn restore(
    machine: &Machine,
    ram: impl FnOnce() -> Result<Ram, machine::Error>,
    config: &Config,
    files: &Files,
) -> Result<(Ram, Restored), Refusal> {
    let state = format::read(&files.state)?;
    if !state.is_of(config, machine.fingerprint(config.vcpus)?) {
        return Err(Refusal::Other);
    }
    let size = state.size();
    let ram = ram().map_err(Refusal::NoRam)?;
    let fresh = ram::map(&ram.memory, size, &files.ram, &state.ram)?;
    // One by one they would be two exits each: the guest reads them before it writes.
    let hot = ram::hot(&config.hot, &state.ram, size);
    hot.iter().for_each(|range| memory::make_own(&ram.memory, range.start, range.length));
    match (&ram.growth, state.memory_device) {
        (Some(growth), Some(device)) => growth.device().restore(device)?,
        (None, None) => {}
        _ => return Err(OtherSize.into()),
    }
    machine.set_up()?;
    machine.restore_chips(&state.chips)?;
    let mut vcpus = Vec::with_capacity(state.vcpus.len());
    for (id, state) in (0..).zip(&state.vcpus) {
        let vcpu = machine.cpu(id, config.vcpus)?;
        vcpu.restore(state)?;
        vcpus.push(vcpu);
    }
    if let Some(vcpu) = vcpus.first() {
        vcpu.map(hot.iter().map(|range| (range.start, range.length)));
    }
    machine.restore_clock(&state.clock)?;
    vcpus.iter().for_each(Vcpu::was_paused);
    Ok((ram, Restored { vcpus, serial: state.serial, devices: state.devices, fresh }))
}

/// What the agent of a clone waits for, as the end of a connection.
///
/// # Errors
/// No descriptors or random numbers.
pub fn renewal() -> io::Result<UnixStream> {
    let mut entropy = [[0; 32]; 2];
    for half in &mut entropy {
        // SAFETY: the buffer is valid for its length.
        let got = unsafe { libc::getrandom(half.as_mut_ptr().cast(), half.len(), 0) };
        if got != half.len() as isize {
            return Err(io::Error::last_os_error());
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (mut host, guest) = UnixStream::pair()?;
    // It fits into the socket's buffer, and is read from there when the guest runs.
    host.write_all(&frame::encode(&Renewal::new(entropy, now)).map_err(io::Error::other)?)?;
    Ok(guest)
}
