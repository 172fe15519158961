//! `process.rlimits`: names to numbers.

use oci_spec::runtime::{PosixRlimit, PosixRlimitType as Type};
use stockade_protocol::container::Rlimit;

use crate::oci::bundle::SpecError;

/// The limits with the kernel's numbers.
///
/// # Errors
/// A limit that is listed twice, or a soft limit above its hard limit.
pub fn lower(limits: &[PosixRlimit]) -> Result<Vec<Rlimit>, SpecError> {
    let mut lowered: Vec<Rlimit> = Vec::with_capacity(limits.len());
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
