//! The guest kernel's command line.

use linux_loader::cmdline::{self, Cmdline};
use vm_memory::{Address, GuestAddress};

use super::{COMMAND_LINE, MP_POINTER};
use crate::virtio::slots::{self, Slot};

/// Longest command line with its terminator, in bytes: COMMAND_LINE_SIZE of x86.
const CAPACITY: usize = 2048;

const _: () = assert!(COMMAND_LINE.0 + CAPACITY as u64 <= MP_POINTER.0);

/// The parameters of every guest.
///
/// - `quiet`: each byte of console output is an exit.
/// - `panic=-1 reboot=k`: a panic resets the machine at once, through the i8042, which ends the VMM.
/// - `noreplace-smp`: a kernel that boots on one CPU writes to most pages of its text to take out what other CPUs need, each
///   of which the host must then copy; and it puts it back for the second CPU.
/// - `percpu_alloc=page`: no huge page for the few per-CPU variables of a small machine.
/// - `initcall_blacklist=slab_late_init`: no files in sysfs for each of the kernel's own caches, which would take a
///   twentieth of the boot.
/// - `dummy.numdummies=0 ifb.numifbs=0`: no unneeded network interfaces.
/// - `8250.nr_uarts=1`: there is one serial port; probing for more is exits for nothing.
const BASE: &str = "console=ttyS0 quiet panic=-1 reboot=k 8250.nr_uarts=1 noreplace-smp random.trust_cpu=on \
                    percpu_alloc=page initcall_blacklist=slab_late_init dummy.numdummies=0 \
                    ifb.numifbs=0";

/// Messages before there are consoles are printed too; otherwise a guest that fails so early halts silently. This is
/// the last parameter, because it takes effect at once, and a log level may come before it.
const EARLY_CONSOLE: &str = "earlyprintk=ttyS0";

/// The parameter of a guest that may have several CPUs: its kernel starts only the first by itself.
const SEVERAL_CPUS: &str = "maxcpus=1";

/// Why the command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is too long, or has characters that a command line cannot have.
    #[error("{0} (at most {CAPACITY} bytes, printable ASCII)")]
    Invalid(#[from] cmdline::Error),
}

/// The command line for a machine with devices in the first `devices` slots that may have up to `cpus` CPUs, with
/// `extra` after the parameters that all guests have.
///
/// # Errors
/// [`Error::Invalid`].
pub fn build(devices: usize, cpus: u8, extra: &str) -> Result<String, Error> {
    let mut line = Cmdline::new(CAPACITY)?;
    line.insert_str(BASE)?;
    if cpus > 1 {
        line.insert_str(SEVERAL_CPUS)?;
    }
    for slot in slots::all().take(devices) {
        let Slot { address, irq, .. } = slot;
        line.add_virtio_mmio_device(slots::SIZE, GuestAddress(address.raw_value()), irq.into(), None)?;
    }
    if !extra.trim().is_empty() {
        line.insert_str(extra.trim())?;
    }
    line.insert_str(EARLY_CONSOLE)?;
    Ok(line.as_cstring()?.to_string_lossy().into_owned())
}

#[cfg(test)]
#[path = "command_line_test.rs"]
mod tests;
