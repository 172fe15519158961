//! `hostname` and `domainname`.

use nix::{errno::Errno, unistd::sethostname};
use stockade_protocol::container::{Container, Namespace};

use crate::error::{Context, ErrorKind, Result, error};

/// Sets the names of the UTS namespace.
pub fn apply(spec: &Container) -> Result<()> {
    if (spec.hostname.is_some() || spec.domainname.is_some()) && spec.namespaces.uts == Namespace::Guest {
        let message = "hostname: a container without a UTS namespace of its own cannot have one";
        return Err(error(ErrorKind::Spec, message));
    }
    if let Some(name) = &spec.hostname {
        sethostname(name).or_spec(|| format!("set hostname to {name:?}"))?;
    }
    if let Some(name) = &spec.domainname {
        // SAFETY: the pointer and the length are those of one string, which the kernel only reads.
        let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
        Errno::result(result).or_spec(|| format!("set domainname to {name:?}"))?;
    }
    Ok(())
}
