//! The KVM virtual machine: memory slots, interrupt controllers, and the wiring of devices.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_MAX_CPUID_ENTRIES, kvm_clock_data, kvm_irqchip, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vm_memory::{Address, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap};
use vmm_sys_util::{errno, eventfd::EventFd};

use crate::{
    boot::Entry,
    closer::Closer,
    console::{self, Irq, Output, SerialLine},
    memory,
    status::StatusSocket,
    template::Checksum,
    vcpu::{self, Vcpu},
    virtio::{
        device::VirtioDevice,
        failures::Failures,
        interrupt::{Line, USED_BUFFER},
        mmio::{MmioTransport, register},
        slots::{self, Slot},
    },
};
use stockade_protocol::vmm::Stage;

/// Address of three pages that KVM needs on Intel without "unrestricted guest"; nothing else is there.
const TASK_STATE: usize = 0xfffb_d000;

/// The interrupt controllers besides the local ones.
pub const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// The only version of the KVM API.
const API_VERSION: i32 = 12;

/// Why the virtual machine cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor is something else, or KVM is unusable.
    #[error("/dev/kvm: not a KVM device of API version {API_VERSION}")]
    NotKvm,
    /// KVM refuses.
    #[error("KVM: {what}: {source}; see `stockade check`")]
    Kvm {
        /// The request.
        what: &'static str,
        /// The cause.
        source: errno::Error,
    },
    /// RAM cannot be reserved.
    #[error(transparent)]
    Reserve(#[from] memory::Error),
    /// A range is not in guest memory.
    #[error("guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    /// The host has no descriptors or memory left.
    #[error("eventfd: {0}")]
    EventFd(#[from] io::Error),
    /// The state of the serial line is not valid.
    #[error("a template's state of the serial line is not valid")]
    Serial,
    /// There are more devices than slots.
    #[error("more than {0} devices")]
    TooManyDevices(usize),
    /// A vCPU cannot be made.
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
}

fn refused(what: &'static str) -> impl FnOnce(errno::Error) -> Error {
    move |source| Error::Kvm { what, source }
}

/// Connects a transport to the machine around it.
pub trait Wiring: Send + Sync {
    /// The interrupt line of this slot.
    fn line(&self, slot: Slot) -> Line;

    /// Lets the guest notify the transport at this slot.
    ///
    /// # Errors
    /// [`Error::Kvm`]; nothing is connected then.
    fn connect(&self, slot: Slot, transport: &MmioTransport) -> Result<(), Error>;

    /// Undoes [`Self::connect`].
    fn disconnect(&self, slot: Slot, transport: &MmioTransport);
}

/// One virtual machine.
#[derive(Debug)]
pub struct Machine {
    kvm: Kvm,
    vm: Arc<VmFd>,
    /// The number of KVM's next region of RAM.
    next_region: AtomicU32,
    /// Signalled when the guest acknowledges interrupts, and never read.
    acknowledged: EventFd,
    /// Where the host has no io_uring, the end of the process takes longer.
    _closer: Option<Closer>,
}

impl Machine {
    /// KVM_CREATE_VM on an open /dev/kvm.
    ///
    /// # Errors
    /// [`Error::NotKvm`], [`Error::Kvm`].
    pub fn create(kvm: OwnedFd) -> Result<Self, Error> {
        // SAFETY: the descriptor is owned and handed on; whether it is KVM's is checked next.
        let kvm =
            unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(kvm)) };
        if kvm.get_api_version() != API_VERSION {
            return Err(Error::NotKvm);
        }
        Self::of(kvm)
    }

    fn of(kvm: Kvm) -> Result<Self, Error> {
        let vm = loop {
            match kvm.create_vm() {
                // A signal has come while the kernel sets up its memory notifier.
                Err(e) if e.errno() == libc::EINTR => {}
                created => break created.map_err(refused("KVM_CREATE_VM"))?,
            }
        };
        let acknowledged = EventFd::new(libc::EFD_NONBLOCK)?;
        let closer = Closer::of(&vm).ok();
        Ok(Self { kvm, vm: Arc::new(vm), next_region: AtomicU32::new(0), acknowledged, _closer: closer })
    }

    /// Replaces this machine by a new one of the same KVM.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn renew(self) -> Result<Self, Error> {
        let Self { kvm, vm, .. } = self;
        drop(vm);
        Self::of(kvm)
    }

    /// Gives the machine part of its RAM; the range lies in one region of `memory`, which lasts as long as the process.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Kvm`].
    pub fn add_ram(&self, memory: &GuestMemoryMmap, start: GuestAddress, length: u64) -> Result<(), Error> {
        let at = memory.get_slice(start, length as usize)?.ptr_guard_mut().as_ptr();
        let region = kvm_userspace_memory_region {
            slot: self.next_region.fetch_add(1, Ordering::Relaxed),
            guest_phys_addr: start.raw_value(),
            memory_size: length,
            userspace_addr: at as u64,
            flags: 0,
        };
        // SAFETY: the range is mapped, and guest memory is never unmapped.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(refused("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Gives the machine its interrupt controllers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_up(&self) -> Result<(), Error> {
        self.vm.set_tss_address(TASK_STATE).map_err(refused("KVM_SET_TSS_ADDR"))?;
        self.vm.create_irq_chip().map_err(refused("KVM_CREATE_IRQCHIP"))
    }

    /// The serial line, wired to its interrupt; `state` is that of a template.
    ///
    /// # Errors
    /// [`Error::EventFd`], [`Error::Kvm`], [`Error::Serial`].
    pub fn serial_line(&self, output: Output, state: Option<console::State>) -> Result<SerialLine, Error> {
        let irq = Irq(self.irq(console::IRQ)?);
        match state {
            None => Ok(SerialLine::new(irq, output)),
            Some(state) => state.restore(irq, output).map_err(|_| Error::Serial),
        }
    }

    /// The devices behind their transports, in the first slots, wired to their interrupts and notifications.
    ///
    /// # Errors
    /// [`Error::TooManyDevices`], [`Error::EventFd`], [`Error::Kvm`].
    pub fn attach(
        &self,
        devices: Vec<Box<dyn VirtioDevice>>,
        memory: &GuestMemoryMmap,
        status: &Arc<StatusSocket>,
        failures: &Failures,
    ) -> Result<Vec<MmioTransport>, Error> {
        if devices.len() > slots::all().count() {
            return Err(Error::TooManyDevices(slots::all().count()));
        }
        devices
            .into_iter()
            .zip(slots::all())
            .map(|(device, slot)| self.attach_one(device, slot, memory, status, failures))
            .collect()
    }

    fn attach_one(
        &self,
        device: Box<dyn VirtioDevice>,
        slot: Slot,
        memory: &GuestMemoryMmap,
        status: &Arc<StatusSocket>,
        failures: &Failures,
    ) -> Result<MmioTransport, Error> {
        let status = Arc::clone(status);
        let on_driver_ok = Box::new(move || status.reached(Stage::DriverReady));
        let line = self.line(slot);
        let transport = MmioTransport::new(device, memory.clone(), line, on_driver_ok, failures)?;
        self.connect(slot, &transport)?;
        Ok(transport)
    }

    /// The boot CPU, at `entry`, of a machine that may have up to `listed` vCPUs.
    ///
    /// # Errors
    /// [`Error::Kvm`], [`Error::Vcpu`].
    pub fn boot_cpu(&self, entry: Entry, listed: u8) -> Result<Vcpu, Error> {
        let vcpu = self.cpu(0, listed)?;
        vcpu.enter_at(entry)?;
        Ok(vcpu)
    }

    /// The vCPU of this number, which waits for the guest's kernel to start it. KVM gives a later vCPU the TSC of those
    /// before.
    ///
    /// # Errors
    /// [`Error::Kvm`], [`Error::Vcpu`].
    pub fn cpu(&self, id: u8, listed: u8) -> Result<Vcpu, Error> {
        let supported = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Vcpu::new(&self.vm, &supported, id, listed)?)
    }

    /// A number for the properties of the host's KVM on which a template depends, for a machine that may have up to
    /// `listed` CPUs. If a property differs, so does the number.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn fingerprint(&self, listed: u8) -> Result<u64, Error> {
        let supported = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
        let mut sum = Checksum::default();
        // This is the first CPU's CPUID: some values depend on the host's CPU that is asked.
        for leaf in vcpu::cpuid::of_cpu(&supported, 0, listed).as_slice() {
            [leaf.function, leaf.index, leaf.flags, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
                .iter()
                .for_each(|word| sum.add(&word.to_le_bytes()));
        }
        self.msrs()?.iter().for_each(|index| sum.add(&index.to_le_bytes()));
        Ok(sum.value())
    }

    /// The model-specific registers that KVM can save.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn msrs(&self) -> Result<Vec<u32>, Error> {
        let list = self.kvm.get_msr_index_list().map_err(refused("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(list.as_slice().to_vec())
    }

    /// The state of the interrupt controllers; no vCPU may run.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn save_chips(&self) -> Result<Vec<kvm_irqchip>, Error> {
        let save = |chip_id| {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            self.vm.get_irqchip(&mut chip).map_err(refused("KVM_GET_IRQCHIP"))?;
            Ok(chip)
        };
        CHIPS.into_iter().map(save).collect()
    }

    /// Restores the interrupt controllers from a template.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn restore_chips(&self, chips: &[kvm_irqchip]) -> Result<(), Error> {
        chips.iter().try_for_each(|chip| self.vm.set_irqchip(chip).map_err(refused("KVM_SET_IRQCHIP")))
    }

    /// The state of the guest's clock; no vCPU may run.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn save_clock(&self) -> Result<kvm_clock_data, Error> {
        self.vm.get_clock().map_err(refused("KVM_GET_CLOCK"))
    }

    /// Restores the clock, advanced by the time that has passed since, if the host could tell the time then.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn restore_clock(&self, clock: &kvm_clock_data) -> Result<(), Error> {
        let flags = clock.flags & KVM_CLOCK_REALTIME;
        self.vm.set_clock(&kvm_clock_data { flags, ..*clock }).map_err(refused("KVM_SET_CLOCK"))
    }

    fn irq(&self, line: u8) -> Result<EventFd, Error> {
        let event = EventFd::new(libc::EFD_NONBLOCK)?;
        self.vm.register_irqfd(&event, line.into()).map_err(refused("KVM_IRQFD"))?;
        Ok(event)
    }
}

impl Wiring for Machine {
    fn line(&self, slot: Slot) -> Line {
        Line::Kvm { vm: Arc::clone(&self.vm), number: slot.irq.into(), pulse: Mutex::default() }
    }

    fn connect(&self, slot: Slot, transport: &MmioTransport) -> Result<(), Error> {
        let connect = || {
            self.vm
                .register_ioevent(&self.acknowledged, &acknowledgement(slot), USED_BUFFER)
                .map_err(refused("KVM_IOEVENTFD"))?;
            for (event, queue) in transport.queue_events().iter().zip(0u32..) {
                self.vm
                    .register_ioevent(event, &notification(slot), queue)
                    .map_err(refused("KVM_IOEVENTFD"))?;
            }
            Ok(())
        };
        connect().inspect_err(|_| self.disconnect(slot, transport))
    }

    fn disconnect(&self, slot: Slot, transport: &MmioTransport) {
        // The only possible error is that it was never connected.
        let _ = self.vm.unregister_ioevent(&self.acknowledged, &acknowledgement(slot), USED_BUFFER);
        for (event, queue) in transport.queue_events().iter().zip(0u32..) {
            let _ = self.vm.unregister_ioevent(event, &notification(slot), queue);
        }
    }
}

/// The address to which the guest's driver writes the index of a queue.
fn notification(slot: Slot) -> IoEventAddress {
    IoEventAddress::Mmio(slot.address.raw_value() + register::QUEUE_NOTIFY)
}

/// The address to which the guest's driver writes which interrupts it has handled. That it has handled used buffers is of
/// no use to the device, so KVM takes it, which costs no exit to this process; the bit of the status then stays set.
fn acknowledgement(slot: Slot) -> IoEventAddress {
    IoEventAddress::Mmio(slot.address.raw_value() + register::INTERRUPT_ACK)
}
