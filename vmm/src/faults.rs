//! Reports for accesses to memory that does not exist: such an access ends the VMM, and the report says why.
//!
//! A guest can give a device an address that is reserved for guest memory but not plugged yet ([`crate::memory`]), or whose
//! memory the host has lost. The kernel would kill the VMM for that without a reason. So reports are prepared in advance,
//! and a signal's handler, which may do very little, only fills in the address and sends one.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, RawFd},
    ptr,
    sync::OnceLock,
};

use vm_memory::{Address, GuestMemory, GuestMemoryMmap, GuestMemoryRegion};

use crate::status::StatusSocket;

/// The placeholder for the address in a report.
const PLACE: &str = "0x0000000000000000";

/// Room for a report on the handler's stack, in bytes.
const LIMIT: usize = 256;

/// What the handler needs; it is set once.
static PREPARED: OnceLock<Prepared> = OnceLock::new();

/// A range of guest RAM.
#[derive(Debug)]
struct Range {
    host: u64,
    length: u64,
    guest: u64,
}

#[derive(Debug)]
struct Prepared {
    status: RawFd,
    ram: Vec<Range>,
    /// The report about guest memory that the guest does not have.
    missing: Report,
    /// The report about guest memory that the host has lost.
    lost: Report,
    /// The report about memory of the VMM itself.
    fault: Report,
}

/// A report and the place of the address in it.
#[derive(Debug)]
struct Report {
    packet: Vec<u8>,
    place: usize,
}

impl Report {
    /// Prepares a report; `reason` contains a [`PLACE`].
    fn new(status: &StatusSocket, reason: &str) -> Option<Self> {
        let packet = status.final_report(reason).filter(|packet| packet.len() <= LIMIT)?;
        let place = packet.windows(PLACE.len()).position(|bytes| bytes == PLACE.as_bytes())?;
        Some(Self { packet, place })
    }

    /// Writes the report with this address into the buffer. It calls nothing that a signal's handler must not call.
    fn about<'a>(&self, address: u64, buffer: &'a mut [u8; LIMIT]) -> &'a [u8] {
        for (to, from) in buffer.iter_mut().zip(&self.packet) {
            *to = *from;
        }
        // After "0x", the highest digit first.
        let digits = buffer.iter_mut().skip(self.place + 2).take(PLACE.len() - 2);
        for (digit, shift) in digits.zip((0..u64::BITS).step_by(4).rev()) {
            *digit = match (address >> shift) as u8 & 0xf {
                value @ ..=9 => b'0' + value,
                value => b'a' - 10 + value,
            };
        }
        buffer.get(..self.packet.len()).unwrap_or_default()
    }
}

impl Prepared {
    fn new(status: &StatusSocket, memory: &GuestMemoryMmap) -> Option<Self> {
        let range = |region: &vm_memory::GuestRegionMmap| Range {
            host: region.as_ptr() as u64,
            length: region.len(),
            guest: region.start_addr().raw_value(),
        };
        Some(Self {
            status: status.as_fd().as_raw_fd(),
            ram: memory.iter().map(range).collect(),
            missing: Report::new(
                status,
                &format!("the guest led a device to memory that it does not have, at {PLACE}"),
            )?,
            lost: Report::new(
                status,
                &format!(
                    "the host has lost memory of the guest, at {PLACE} (was its kernel's file changed?)"
                ),
            )?,
            fault: Report::new(
                status,
                &format!("the VMM has a fault: it used memory that is not there, at {PLACE}"),
            )?,
        })
    }

    /// The report about an address of this process, and the address to name in it.
    fn find(&self, signal: libc::c_int, address: u64) -> (&Report, u64) {
        let within = |range: &&Range| address.wrapping_sub(range.host) < range.length;
        match self.ram.iter().find(within) {
            Some(range) => {
                let report = if signal == libc::SIGBUS { &self.lost } else { &self.missing };
                (report, range.guest + (address - range.host))
            }
            None => (&self.fault, address),
        }
    }
}

/// From now on, an access to memory that does not exist ends the process with a report on the status socket, which must
/// stay open as long as the process lives. Must be called before there is a second thread.
///
/// # Errors
/// sigaction(2)'s.
pub fn report(status: &StatusSocket, memory: &GuestMemoryMmap) -> io::Result<()> {
    let prepared = Prepared::new(status, memory).ok_or(io::ErrorKind::InvalidData)?;
    let _ = PREPARED.set(prepared);
    // SAFETY: all zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // The standard library gives threads a second stack for signals, which is used because the first may be the missing
    // memory.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action.sa_sigaction = on_fault as *const () as usize;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the handler calls only what it may, and the old action is not asked for.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Says what has happened and ends the process.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    if let Some(prepared) = PREPARED.get() {
        // SAFETY: the kernel passes a siginfo_t, and to these signals belongs an address.
        let address = unsafe { (*info).si_addr() } as u64;
        let (report, address) = prepared.find(signal, address);
        let mut buffer = [0; LIMIT];
        let packet = report.about(address, &mut buffer);
        // SAFETY: the packet is as long as is said. write(2) and not send(2), which not every thread may call; SIGPIPE is
        // ignored. Who does not listen any more does not need it.
        unsafe { libc::write(prepared.status, packet.as_ptr().cast(), packet.len()) };
    }
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(1) }
}

#[cfg(test)]
#[path = "faults_test.rs"]
mod tests;
