//! `process.rlimits`: names to numbers.

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType as Type};
use stockade_protocol::container::Rlimit;

use crate::oci::bundle::SpecError;

/// All that Linux has.
const ALL: [Resource; 16] = [
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_STACK,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_AS,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
];

/// The limits with the kernel's numbers. Those that are not listed are this process's own: on a host, a container has
/// the limits of its engine.
///
/// # Errors
/// A limit that is listed twice, or a soft limit above its hard limit.
pub fn lower(limits: &[PosixRlimit]) -> Result<Vec<Rlimit>, SpecError> {
    let mut lowered: Vec<Rlimit> = Vec::with_capacity(ALL.len());
    for (index, limit) in limits.iter().enumerate() {
        let property = || format!("process.rlimits[{index}]");
        let resource = number(limit.typ());
        if lowered.iter().any(|other| other.resource == resource) {
            return Err(SpecError::new(property(), format!("{} is listed twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(SpecError::new(property(), format!("{}: soft is above hard", limit.typ())));
        }
        lowered.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    for own in ALL {
        let resource = own as u32;
        if lowered.iter().any(|listed| listed.resource == resource) {
            continue;
        }
        let (soft, hard) = getrlimit(own).map_err(|cause| {
            SpecError::new("process.rlimits", format!("cannot read the caller's: {cause}"))
        })?;
        lowered.push(Rlimit { resource, soft, hard });
    }
    Ok(lowered)
}

fn number(limit: Type) -> u32 {
    match limit {
        Type::RlimitCpu => libc::RLIMIT_CPU,
        Type::RlimitFsize => libc::RLIMIT_FSIZE,
        Type::RlimitData => libc::RLIMIT_DATA,
        Type::RlimitStack => libc::RLIMIT_STACK,
        Type::RlimitCore => libc::RLIMIT_CORE,
        Type::RlimitRss => libc::RLIMIT_RSS,
        Type::RlimitNproc => libc::RLIMIT_NPROC,
        Type::RlimitNofile => libc::RLIMIT_NOFILE,
        Type::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        Type::RlimitAs => libc::RLIMIT_AS,
        Type::RlimitLocks => libc::RLIMIT_LOCKS,
        Type::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        Type::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        Type::RlimitNice => libc::RLIMIT_NICE,
        Type::RlimitRtprio => libc::RLIMIT_RTPRIO,
        Type::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
