//! The ways out.

mod files;
mod kernel;
mod processes;
mod sockets;

pub use sockets::ABSTRACT_SOCKET;

use crate::call::Outcome;

const HERE: libc::c_long = libc::AT_FDCWD as libc::c_long;
const READ: libc::c_long = libc::O_RDONLY as libc::c_long;

type Attempt = (&'static str, fn() -> Outcome);

/// All of them.
pub fn all() -> impl Iterator<Item = Attempt> {
    [
        files::FILES,
        processes::PROCESSES,
        processes::RIGHTS,
        kernel::MEMORY,
        sockets::SOCKETS,
        kernel::KERNEL,
        kernel::DESCRIPTORS,
    ]
    .into_iter()
    .flatten()
    .copied()
}
