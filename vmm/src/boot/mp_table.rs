//! The MP table (Intel MultiProcessor Specification 1.4, §4): CPUs, the I/O APIC and the interrupt lines in use.
//!
//! This is the smallest table that brings up the I/O APIC and further CPUs without ACPI. A line without an entry costs
//! the guest nothing, so only those in use are listed.

use vm_memory::{Bytes, GuestMemoryMmap};

use super::{MP_CONFIGURATION, MP_POINTER, START_INFO};
use crate::memory;

const SPECIFICATION: u8 = 4;
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
const APIC_VERSION: u8 = 0x14;
const CPU_ENABLED: u8 = 1;
const CPU_BOOTS: u8 = 2;
/// Family 6, any model: kernels ask CPUID.
const CPU_SIGNATURE: u32 = 0x600;
/// APIC and FPU.
const CPU_FEATURES: u32 = 0x201;
const ISA_BUS: u8 = 0;
const ALL_LOCAL_APICS: u8 = 0xff;

const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC_ENTRY: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;

/// Why the table cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are too many CPUs for the table.
    #[error("{0} CPUs are too many")]
    TooManyCpus(u8),
    /// There is no guest memory at its address.
    #[error(transparent)]
    Memory(#[from] memory::Error),
}

/// The CPUs to list, with APIC IDs from 0 up, and the interrupt lines to route.
#[derive(Clone, Copy, Debug)]
pub struct Cpus<'a> {
    /// Largest number of CPUs that the machine may have.
    pub listed: u8,
    /// I/O APIC pins in use; ISA interrupt n is pin n.
    pub lines: &'a [u8],
}

/// Writes the floating pointer and the configuration table.
///
/// # Errors
/// Any [`Error`].
pub fn write(memory: &GuestMemoryMmap, cpus: Cpus<'_>) -> Result<(), Error> {
    // The I/O APIC has the ID after the last CPU's, and 255 addresses all.
    if cpus.listed == ALL_LOCAL_APICS {
        return Err(Error::TooManyCpus(cpus.listed));
    }
    let table = configuration(cpus);
    if MP_CONFIGURATION.0 + table.len() as u64 > START_INFO.0 {
        return Err(Error::TooManyCpus(cpus.listed));
    }
    let into_error = |e| Error::Memory(memory::Error::Access(e));
    memory.write_slice(&table, MP_CONFIGURATION).map_err(into_error)?;
    memory.write_slice(&floating_pointer(), MP_POINTER).map_err(into_error)
}

fn floating_pointer() -> [u8; 16] {
    let mut pointer = [0; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    // Below 1 MiB: it fits.
    pointer[4..8].copy_from_slice(&(MP_CONFIGURATION.0 as u32).to_le_bytes());
    pointer[8] = 1; // length in units of 16 bytes
    pointer[9] = SPECIFICATION;
    pointer[10] = checksum(&pointer);
    pointer
}

fn configuration(cpus: Cpus<'_>) -> Vec<u8> {
    let io_apic = cpus.listed;
    let mut table = header();
    let mut entries = 0u16;
    let mut entry = |bytes: &[u8]| {
        table.extend_from_slice(bytes);
        entries += 1;
    };
    for cpu in 0..cpus.listed {
        let mut processor = [0; 20];
        processor[0] = PROCESSOR;
        processor[1] = cpu;
        processor[2] = APIC_VERSION;
        processor[3] = CPU_ENABLED | if cpu == 0 { CPU_BOOTS } else { 0 };
        processor[4..8].copy_from_slice(&CPU_SIGNATURE.to_le_bytes());
        processor[8..12].copy_from_slice(&CPU_FEATURES.to_le_bytes());
        entry(&processor);
    }
    entry(&[BUS, ISA_BUS, b'I', b'S', b'A', b' ', b' ', b' ']);
    let [a, b, c, d] = IO_APIC.to_le_bytes();
    entry(&[IO_APIC_ENTRY, io_apic, APIC_VERSION, 1, a, b, c, d]);
    for line in cpus.lines {
        entry(&[IO_INTERRUPT, VECTORED, 0, 0, ISA_BUS, *line, io_apic, *line]);
    }
    entry(&[LOCAL_INTERRUPT, EXTERNAL, 0, 0, ISA_BUS, 0, 0, 0]);
    entry(&[LOCAL_INTERRUPT, NMI, 0, 0, ISA_BUS, 0, ALL_LOCAL_APICS, 1]);
    // At most 254 CPUs: the length fits.
    let length = (table.len() as u16).to_le_bytes();
    table[4..6].copy_from_slice(&length);
    table[34..36].copy_from_slice(&entries.to_le_bytes());
    table[7] = checksum(&table);
    table
}

/// Length, checksum and number of entries are filled in later.
fn header() -> Vec<u8> {
    let mut header = Vec::with_capacity(256);
    header.extend_from_slice(b"PCMP");
    header.extend_from_slice(&[0, 0, SPECIFICATION, 0]);
    header.extend_from_slice(b"STOCKADE");
    header.extend_from_slice(b"MICROVM     ");
    header.extend_from_slice(&[0; 8]); // no OEM table; number of entries
    header.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    header.extend_from_slice(&[0; 4]); // no extended table
    header
}

/// The byte that makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
#[path = "mp_table_test.rs"]
mod tests;
