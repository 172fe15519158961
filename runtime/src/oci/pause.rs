//! A container's program that only waits: the sandboxes of pods for which no image brings one.

/// The first bytes: the headers of an x86_64 ELF executable of one segment at 0x400000, whose code follows them.
const HEADERS: [u8; 120] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0\
    \x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\
    \x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0\
    \xc0\0\0\0\0\0\0\0\xc0\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0";

/// rt_sigaction(SIGCHLD, 0x4000a0, NULL, 8), then pause() for ever: nobody has to reap what becomes the child of this PID 1.
const CODE: [u8; 34] = *b"\xb8\x0d\0\0\0\xbf\x11\0\0\0\xbe\xa0\0\x40\0\x31\xd2\x41\xba\x08\0\0\0\x0f\x05\
    \xb8\x22\0\0\0\x0f\x05\xeb\xf7";

/// Where the action for SIGCHLD is: SIG_IGN, without flags, restorer and mask.
const ACTION: usize = 0xa0;

/// The executable.
pub const PROGRAM: [u8; 192] = {
    let mut elf = [0; 192];
    let mut at = 0;
    while at < HEADERS.len() + CODE.len() {
        elf[at] = if at < HEADERS.len() { HEADERS[at] } else { CODE[at - HEADERS.len()] };
        at += 1;
    }
    elf[ACTION] = 1;
    elf
};

#[cfg(test)]
#[path = "pause_test.rs"]
mod tests;
