//! `process.capabilities`, before and after the user is set: shrinking the bounding set needs privileges, and the
//! change of user clears the other sets.
//!
//! Without no_new_privs only CAP_SYS_ADMIN may load a seccomp filter. So that this can be the last step before execve,
//! the capability stays permitted until then, whatever the process is to have: execve computes the permitted set anew,
//! from the bounding, inheritable and ambient sets.

use nix::unistd::Uid;
use stockade_protocol::container::Capabilities;
use stockade_sys::capabilities::{self, Capability, Sets};

use crate::error::{Context, Result};

const SYS_ADMIN: u64 = Capability::SysAdmin.bit();

/// Capabilities that are set after the user.
pub struct Limited {
    sets: Option<Capabilities>,
    extra: u64,
}

/// Reduces the bounding set to the given one, and keeps the other sets over the change of user. `loads_filter` is
/// whether [`be_allowed_to_load_a_filter`] will be called.
pub fn limit(given: Option<Capabilities>, loads_filter: bool) -> Result<Limited> {
    if let Some(sets) = given {
        capabilities::bound(sets.bounding).or_spec(|| "limit the bounding capabilities".to_owned())?;
    }
    if given.is_some() || loads_filter {
        keep_over_setuid(true)?;
    }
    Ok(Limited { sets: given, extra: if loads_filter { SYS_ADMIN } else { 0 } })
}

impl Limited {
    /// Sets the remaining sets.
    pub fn apply(self) -> Result<()> {
        keep_over_setuid(false)?;
        let sets = match self.sets {
            Some(sets) => sets,
            // Root already has what execve gives it, and other users get nothing.
            None if self.extra == 0 || Uid::effective().is_root() => return Ok(()),
            None => Capabilities::default(),
        };
        let Capabilities { effective, permitted, inheritable, ambient, .. } = sets;
        Sets { effective, permitted: permitted | self.extra, inheritable }
            .set()
            .or_spec(|| "set the capabilities".to_owned())?;
        capabilities::raise_ambient(ambient).or_spec(|| "raise the ambient capabilities".to_owned())
    }
}

/// Makes CAP_SYS_ADMIN effective for the last steps before execve.
pub fn be_allowed_to_load_a_filter() -> Result<()> {
    Sets::get()
        .and_then(|sets| Sets { effective: sets.effective | SYS_ADMIN, ..sets }.set())
        .or_internal(|| "be allowed to load linux.seccomp".to_owned())
}

fn keep_over_setuid(keep: bool) -> Result<()> {
    capabilities::keep_over_setuid(keep).or_internal(|| "keep the capabilities".to_owned())
}
