//! What the VMM has handed over: the PVH start info (Xen's public/arch-x86/hvm/start_info.h).

use core::slice;

use crate::cpu;

pub struct Boot {
    pub command_line: &'static [u8],
    /// The initramfs.
    pub module: &'static [u8],
    /// The first address that nobody uses.
    pub free: u64,
}

impl Boot {
    pub fn read(start_info: u64) -> Self {
        let modules = cpu::read64(start_info + 16);
        let command_line = cpu::read64(start_info + 24);
        let (module, length) = (cpu::read64(modules), cpu::read64(modules + 8));
        let end = (command_line..).find(|address| cpu::read8(*address) == 0).unwrap_or(command_line);
        // SAFETY: the VMM has put them there, and nothing else does.
        let bytes = |start, length| unsafe { slice::from_raw_parts(start as *const u8, length as usize) };
        Self {
            command_line: bytes(command_line, end - command_line),
            module: bytes(module, length),
            free: (module + length).next_multiple_of(4096),
        }
    }

    /// True if the command line has this word.
    pub fn has(command_line: &[u8], word: &str) -> bool {
        command_line.split(|byte| *byte == b' ').any(|found| found == word.as_bytes())
    }
}
