//! A guest that is nothing but hostile: a kernel of its own that drives the VMM's devices as no driver does, and speaks the
//! agent's protocol as far as an attack needs it. It boots in milliseconds where Linux takes seconds, and nothing stands
//! between it and the registers.
//!
//! The test that starts it hands it a script as its initramfs ([`script`]): what it answers to the host, and where it breaks
//! the rules. A container whose ID is the name of a group of [`cases`] runs that group at its start: the cases' outcomes
//! are the container's output, and its exit status tells whether all have passed.
//!
//! | module | is |
//! |---|---|
//! | [`entry`] | from the PVH entry to Rust, and the handlers of interrupts and faults |
//! | [`cpu`] | ports, MSRs, waiting |
//! | [`console`] | the serial line |
//! | [`boot`] | what the VMM has handed over |
//! | [`heap`] | the allocator |
//! | [`virtio`] | registers and rings, without any rules |
//! | [`vsock`] | packets and connections |
//! | [`agent`] | what is said on them |
//! | [`fuse`] | requests to the file server |
//! | [`cases`] | the attacks |

#![no_std]
#![no_main]

extern crate alloc;
// Profiles that unwind want a panic handler that can. What they make of this is a program of Linux that does nothing.
#[cfg(not(panic = "abort"))]
extern crate std;

mod agent;
mod boot;
mod cases;
mod console;
mod cpu;
mod entry;
mod fuse;
mod heap;
mod script;
mod virtio;
mod vsock;

/// Called by [`entry`] in 64-bit mode with interrupts off.
fn run(start_info: u64) -> ! {
    let boot = boot::Boot::read(start_info);
    heap::start(boot.free);
    entry::install_handlers();
    cpu::start_timer();
    let script = script::Script::parse(boot.module);
    cases::before_the_agent(boot.command_line, &script);
    agent::Agent::new(script).run()
}

#[cfg(panic = "abort")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::say!("hostile guest: {info}");
    cpu::reset()
}

// SAFETY: there is no other function of this name, and the C library calls it so.
#[cfg(not(panic = "abort"))]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    1
}
