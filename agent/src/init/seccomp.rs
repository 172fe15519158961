//! `linux.seccomp`: the host sends compiled programs.

use stockade_protocol::container::SeccompFilter;
use stockade_sys::seccomp;

use crate::error::{Context, ErrorKind, Result, error};

/// Puts the calling process under these filters, in order. It needs no_new_privs or CAP_SYS_ADMIN.
pub fn load(filters: &[SeccompFilter]) -> Result<()> {
    filters.iter().try_for_each(|filter| {
        let instructions = instructions(&filter.program)?;
        seccomp::install(&instructions, filter.flags).or_spec(|| "load linux.seccomp".to_owned())
    })
}

/// The instructions in the kernel's form: aligned, and with their number.
fn instructions(program: &[u8]) -> Result<Vec<libc::sock_filter>> {
    let (instructions, rest) = program.as_chunks::<{ size_of::<libc::sock_filter>() }>();
    if !rest.is_empty() || u16::try_from(instructions.len()).is_err() {
        return Err(error(
            ErrorKind::Spec,
            "linux.seccomp: the program has a length that no program can have",
        ));
    }
    Ok(instructions
        .iter()
        .map(|&[code_low, code_high, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([code_low, code_high]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect())
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;
