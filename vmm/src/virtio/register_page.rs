//! A copy of a device's registers that the guest reads without leaving the virtual machine.
//!
//! KVM maps the page for reading at the place of the registers. A write to it is an exit, or a notification, as without it. A
//! driver reads the status of interrupts at each of them, so this saves most of what an interrupt costs.
//!
//! In this copy the status of interrupts always names used buffers: drivers look whether there are any, and so nothing is lost
//! between an acknowledgement and the next interrupt.

use std::{
    io,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

use super::slots;

/// The page. It stays mapped as long as the process lives, because KVM has it as long.
#[derive(Debug)]
pub struct RegisterPage(NonNull<AtomicU32>);

impl RegisterPage {
    /// Bytes of the page: a whole slot.
    pub const SIZE: u64 = slots::SIZE;

    /// A page of zeroes.
    ///
    /// # Errors
    /// mmap(2)'s.
    pub fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that is in use.
        let address = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE as usize, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Its address in this process.
    pub fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// The register at this offset, a multiple of 4.
    fn register(&self, offset: u64) -> &AtomicU32 {
        assert!(offset < Self::SIZE && offset.is_multiple_of(4));
        // SAFETY: it lies in the mapping, which is never unmapped, and is only accessed atomically; all bits are valid.
        unsafe { self.0.add(offset as usize / 4).as_ref() }
    }

    /// What the guest reads at this offset, a multiple of 4.
    pub fn get(&self, offset: u64) -> u32 {
        u32::from_le(self.register(offset).load(SeqCst))
    }

    /// Replaces a register.
    pub fn set(&self, offset: u64, value: u32) {
        self.register(offset).store(value.to_le(), SeqCst);
    }

    /// Sets bits of a register.
    pub fn set_bits(&self, offset: u64, bits: u32) {
        self.register(offset).fetch_or(bits.to_le(), SeqCst);
    }

    /// Clears bits of a register.
    pub fn clear_bits(&self, offset: u64, bits: u32) {
        self.register(offset).fetch_and(!bits.to_le(), SeqCst);
    }
}

// SAFETY: the memory is accessed atomically only.
unsafe impl Send for RegisterPage {}
// SAFETY: as above.
unsafe impl Sync for RegisterPage {}
