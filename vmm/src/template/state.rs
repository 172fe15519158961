//! What a state file says.

use kvm_bindings::{kvm_clock_data, kvm_irqchip};
use serde::{Deserialize, Serialize};
use stockade_protocol::vmm::{Config, MAX_VCPUS, Template};

use super::ram;
use crate::{
    console,
    devices::mem,
    machine::CHIPS,
    memory::Size,
    vcpu,
    virtio::{mmio, slots},
};

/// All of a machine but its RAM.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// With what its VMM was started.
    pub(super) config: Config,
    /// What its host's KVM gave it ([`crate::machine::Machine::fingerprint`]).
    pub(super) host: u64,
    /// Which pages of RAM hold something.
    pub(super) ram: Vec<ram::Range>,
    pub(super) chips: Vec<kvm_irqchip>,
    pub(super) clock: kvm_clock_data,
    pub(super) vcpus: Vec<vcpu::State>,
    pub(super) serial: console::State,
    pub(super) devices: Vec<mmio::State>,
    pub(super) memory_device: Option<mem::State>,
}

impl State {
    /// Whether a machine can be so at all.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let limits = [
            (self.vcpus.is_empty() || self.vcpus.len() > self.config.vcpus.into(), "its number of CPUs"),
            (self.config.vcpus > MAX_VCPUS, "the most CPUs that it may have"),
            (!self.vcpus.iter().all(vcpu::State::is_plausible), "the registers of a CPU"),
            (!self.chips.iter().map(|chip| chip.chip_id).eq(CHIPS), "its interrupt controllers"),
            (self.devices.len() > slots::all().count(), "its number of devices"),
            (!ram::are_plausible(&self.ram, self.size()), "its RAM"),
        ];
        match limits.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, what)) => Err(what),
            None => Ok(()),
        }
    }

    /// How much RAM its guest has.
    pub(super) fn size(&self) -> Size {
        Size { memory_mib: self.config.memory_mib, most_mib: self.config.most_memory_mib }
    }

    /// Whether a machine of this configuration on this host would have become such a one.
    pub(super) fn is_of(&self, config: &Config, host: u64) -> bool {
        self.config == parameters(config) && self.host == host
    }
}

/// What a template depends on, of a configuration.
pub(super) fn parameters(config: &Config) -> Config {
    Config { user: None, template: Template::None, hot: Vec::new(), ..config.clone() }
}

/// A machine of 64 MiB and one CPU, of which nothing is set.
#[cfg(test)]
pub fn fixture() -> State {
    let config = Config {
        memory_mib: 64,
        vcpus: 2,
        cid: 3,
        kernel_parameters: "quiet".into(),
        most_memory_mib: 64,
        user: Some(7),
        template: Template::Save,
        hot: Vec::new(),
    };
    let serial = vm_superio::Serial::new(
        console::Irq(vmm_sys_util::eventfd::EventFd::new(0).unwrap()),
        console::Output::default(),
    );
    State {
        config: parameters(&config),
        host: 42,
        ram: vec![ram::Range { start: 0, length: 4096 }, ram::Range { start: 0x10_0000, length: 0x2000 }],
        chips: CHIPS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() }).to_vec(),
        clock: kvm_clock_data::default(),
        vcpus: vec![vcpu::State::default()],
        serial: console::State::of(&serial),
        devices: vec![mmio::State::default()],
        memory_device: None,
    }
}
