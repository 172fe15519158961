//! `linux.personality`.

use oci_spec::runtime::{Linux, LinuxPersonalityDomain as Domain};

use crate::oci::bundle::SpecError;

/// linux/personality.h
const PER_LINUX: u32 = 0;
const PER_LINUX32: u32 = 8;

/// The execution domain as personality(2) takes it.
///
/// # Errors
/// Flags: the specification knows none.
pub fn lower(linux: Option<&Linux>) -> Result<Option<u32>, SpecError> {
    let Some(given) = linux.and_then(|linux| linux.personality().as_ref()) else { return Ok(None) };
    if let Some(flag) = given.flags().iter().flatten().next() {
        let problem = format!("{flag:?} is not supported; the specification has no flags yet");
        return Err(SpecError::new("linux.personality.flags[0]", problem));
    }
    Ok(Some(match given.domain() {
        Domain::PerLinux => PER_LINUX,
        Domain::PerLinux32 => PER_LINUX32,
    }))
}
