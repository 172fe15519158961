//! `process.capabilities`, as execve leaves them (capabilities(7), "Transformation of capabilities during execve()").

use std::io;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::config::{at, strings};
use crate::findings::Findings;

/// The kernel's numbers are the places in this list.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets, bit n for capability n.
#[derive(Clone, Copy, Default)]
struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    let found = held()?;
    let wanted = after_execve(asked_for(config)?, config);
    for (name, found, wanted) in [
        ("bounding", found.bounding, wanted.bounding),
        ("effective", found.effective, wanted.effective),
        ("inheritable", found.inheritable, wanted.inheritable),
        ("permitted", found.permitted, wanted.permitted),
        ("ambient", found.ambient, wanted.ambient),
    ] {
        findings.equal_lists(&format!("process.capabilities.{name}"), &named(found), &named(wanted));
    }
    Ok(())
}

/// Whether this process has a capability in effect.
pub fn has(name: &str) -> Result<bool> {
    Ok(named(held()?.effective).contains(&name))
}

fn named(bits: u64) -> Vec<&'static str> {
    NAMES.iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0).map(|(_, name)| *name).collect()
}

/// What config.json lists: nothing where it has no sets.
fn asked_for(config: &Value) -> Result<Sets> {
    let set = |name: &str| -> Result<u64> {
        let mut bits = 0;
        for name in strings(config, &format!("process.capabilities.{name}")) {
            let bit = NAMES.iter().position(|known| name.strip_prefix("CAP_") == Some(known));
            bits |= 1 << bit.with_context(|| format!("capability {name}"))?;
        }
        Ok(bits)
    };
    Ok(Sets {
        bounding: set("bounding")?,
        effective: set("effective")?,
        inheritable: set("inheritable")?,
        permitted: set("permitted")?,
        ambient: set("ambient")?,
    })
}

/// A program without capabilities of its own, and without securebits.
fn after_execve(before: Sets, config: &Value) -> Sets {
    let mut permitted = 0;
    let is_root = at(config, "process.user.uid").as_u64().unwrap_or(0) == 0;
    if is_root {
        permitted = before.inheritable | before.bounding;
        if at(config, "process.noNewPrivileges").as_bool() == Some(true) {
            permitted &= before.permitted;
        }
    }
    permitted |= before.ambient;
    Sets { permitted, effective: if is_root { permitted } else { before.ambient }, ..before }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `__user_cap_data_struct`: effective, permitted, inheritable.
type Data = [u32; 3];

fn held() -> Result<Sets> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data: [Data; 2] = [[0; 3]; 2];
    // SAFETY: version 3 has two structures of data, which the kernel fills.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("capget");
    }
    let both = |index: usize| u64::from(data[0][index]) | u64::from(data[1][index]) << 32;
    let ask = |option: libc::c_int, argument: u64| {
        let bits = (0..NAMES.len() as u64).filter(|capability| {
            let (first, second) =
                if option == libc::PR_CAPBSET_READ { (*capability, 0) } else { (argument, *capability) };
            // SAFETY: both options take numbers only.
            unsafe { libc::prctl(option, first, second, 0u64, 0u64) == 1 }
        });
        bits.fold(0, |bits, capability| bits | 1 << capability)
    };
    Ok(Sets {
        bounding: ask(libc::PR_CAPBSET_READ, 0),
        effective: both(0),
        permitted: both(1),
        inheritable: both(2),
        ambient: ask(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as u64),
    })
}
