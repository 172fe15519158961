//! `process.rlimits`.

use std::io;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::config::{list, text};
use crate::findings::Findings;

/// The kernel's numbers are the places in this list.
const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    for (index, limit) in list(config, "process.rlimits").iter().enumerate() {
        let name = text(limit, "type");
        let number = NAMES.iter().position(|known| *known == name).with_context(|| name.to_owned())?;
        let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit fills the structure.
        if unsafe { libc::getrlimit(number as u32, &raw mut found) } != 0 {
            return Err(io::Error::last_os_error()).with_context(|| name.to_owned());
        }
        let wanted = [limit["soft"].as_u64().unwrap_or(0), limit["hard"].as_u64().unwrap_or(0)];
        findings.equal(
            &format!("process.rlimits[{index}]"),
            name,
            format!("{}:{}", found.rlim_cur, found.rlim_max),
            format!("{}:{}", wanted[0], wanted[1]),
        );
    }
    Ok(())
}
