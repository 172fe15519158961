//! `linux.personality`, by personality(2).

use nix::errno::Errno;

use crate::error::{Context, Result};

/// Gives the calling process this execution domain, which its programs inherit.
pub fn apply(domain: Option<u32>) -> Result<()> {
    let Some(domain) = domain else { return Ok(()) };
    // SAFETY: the call takes a number.
    let result = unsafe { libc::personality(domain.into()) };
    Errno::result(result).map(drop).or_spec(|| "linux.personality".to_owned())
}
