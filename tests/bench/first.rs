//! The program that benchmarks run in a container: it prints the TSC of its first instructions and ends.
//!
//! No Rust runtime runs before `main`, only the static libc's start-up of some ten thousand instructions.
#![no_main]

use std::arch::x86_64::_rdtsc;
use std::io::Write;

#[unsafe(no_mangle)]
extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    // SAFETY: every x86_64 has RDTSC.
    let tsc = unsafe { _rdtsc() };
    // The exit status cannot tell the reader more than the missing line does.
    let _ = writeln!(std::io::stdout(), "TSC={tsc}");
    0
}
