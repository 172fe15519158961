//! `process.user`.

use nix::{
    sys::stat::{Mode, umask},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use stockade_protocol::container::User;

use crate::error::{Context, Result};

/// The file mode creation mask if config.json has none.
const UMASK: u32 = 0o022;

/// Becomes this user.
pub fn apply(user: &User) -> Result<()> {
    let groups: Vec<Gid> = user.additional_gids.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&groups).or_spec(|| "set process.user.additionalGids".to_owned())?;
    setresgid(gid, gid, gid).or_spec(|| format!("set process.user.gid to {gid}"))?;
    setresuid(uid, uid, uid).or_spec(|| format!("set process.user.uid to {uid}"))?;
    umask(Mode::from_bits_truncate(user.umask.unwrap_or(UMASK)));
    Ok(())
}
