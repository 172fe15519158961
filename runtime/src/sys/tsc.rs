//! The time-stamp counter: the clock that host, VMM and guest share, with which start-up is measured.

/// The counter's value now.
pub fn now() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and Linux leaves it enabled.
    unsafe { core::arch::x86_64::_rdtsc() }
}
