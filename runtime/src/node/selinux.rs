//! The SELinux policy for a guest: of a file that the administrator names, or the host's own.
//!
//! In the guest, the domain of the agent is permissive. It plays the part of the host's kernel and engine for the
//! containers; a policy that was written for a host does not know what it has to do, and need not restrict it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use stockade_protocol::settings::SelinuxPolicy;

use crate::config::selinux::{HOST, Mode, Selinux};

/// The host's kernel has its policy and its mode here.
const LOADED: &str = "/sys/fs/selinux/policy";
const ENFORCES: &str = "/sys/fs/selinux/enforce";

/// The host's files.
const ETC: &str = "/etc/selinux";

/// The newest version of policies that the guest's kernel knows.
const NEWEST: u32 = 33;

/// Largest policy that a message has room for, in bytes.
const LARGEST: usize = 7 << 20;

/// The type of the kernel in all policies that descend from the reference policy.
const KERNEL_TYPE: &str = "kernel_t";

/// The beginning of a binary policy (security/selinux/ss/policydb.c).
const MAGIC: u32 = 0xf97c_ff8c;
const SIGNATURE: &[u8] = b"SE Linux";

/// The oldest version with permissive domains.
const OLDEST: u32 = 24;

/// Bits in a node of a bitmap.
const UNIT: u32 = 64;

/// A type that is not an alias.
const PRIMARY: u32 = 1;

/// Reads the policy for a guest whose shared files get the label `shares`.
///
/// # Errors
/// The file cannot be read, or is not a policy with the agent's type.
pub fn load(selinux: &Selinux, shares: Option<&str>) -> anyhow::Result<SelinuxPolicy> {
    let path = find(&selinux.policy)?;
    let context = || format!("selinux.policy in config.toml: {}", path.display());
    let policy = read(&path).with_context(context)?;
    let agent_type = selinux.agent.as_deref().and_then(|label| label.split(':').nth(2));
    let policy = with_permissive(&policy, agent_type.unwrap_or(KERNEL_TYPE))
        .map_err(anyhow::Error::msg)
        .with_context(context)?;
    let is_enforcing = match selinux.mode {
        Some(mode) => mode == Mode::Enforcing,
        None => fs::read(ENFORCES).map_or(true, |value| value != b"0"),
    };
    Ok(SelinuxPolicy {
        policy,
        is_enforcing,
        agent: selinux.agent.clone(),
        shares: shares.map(str::to_owned),
    })
}

/// Reads a policy, or as much of a longer file as shows that it is too long. Nothing but a file is waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut policy = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut policy)?;
    Ok(policy)
}

fn find(policy: &Path) -> anyhow::Result<PathBuf> {
    if policy != Path::new(HOST) {
        return Ok(policy.to_owned());
    }
    if fs::File::open(LOADED).is_ok() {
        return Ok(LOADED.into());
    }
    newest(Path::new(ETC)).with_context(|| {
        format!("selinux.policy in config.toml: the host has no policy, neither {LOADED} nor in {ETC}")
    })
}

/// The newest policy that is installed for this host, of those that the guest's kernel understands.
fn newest(etc: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string(etc.join("config"))?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let directory = etc.join(name.unwrap_or("targeted").trim()).join("policy");
    let versions = fs::read_dir(&directory)?.flatten().filter_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix("policy.")?.parse::<u32>().ok()?;
        (version <= NEWEST).then_some((version, entry.path()))
    });
    versions.max().map(|(_, path)| path).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The policy, in which this type is permissive.
fn with_permissive(policy: &[u8], name: &str) -> Result<Vec<u8>, String> {
    if policy.len() > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes, which is the most that a guest takes"));
    }
    let no_policy = || "it is not a binary SELinux policy".to_owned();
    let (start, end) = permissive_map(policy).ok_or_else(no_policy)?;
    let value = type_value(&policy[end..], name).ok_or_else(|| format!("it has no type {name}"))?;
    let mut nodes = nodes(&policy[start..]).ok_or_else(no_policy)?.0;
    let (base, bit) = (value / UNIT * UNIT, 1 << (value % UNIT));
    match nodes.binary_search_by_key(&base, |(base, _)| *base) {
        Ok(index) => nodes[index].1 |= bit,
        Err(index) => nodes.insert(index, (base, bit)),
    }
    let highest = nodes.last().map_or(Some(0), |(base, _)| base.checked_add(UNIT)).ok_or_else(no_policy)?;
    let mut changed = policy[..start].to_vec();
    for word in [UNIT, highest, nodes.len() as u32] {
        changed.extend(word.to_le_bytes());
    }
    for (base, bits) in nodes {
        changed.extend(base.to_le_bytes());
        changed.extend(u64::to_le_bytes(bits));
    }
    changed.extend(&policy[end..]);
    Ok(changed)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Where the bitmap of permissive types begins and ends: after the header and the bitmap of capabilities.
fn permissive_map(policy: &[u8]) -> Option<(usize, usize)> {
    let header = 8 + SIGNATURE.len();
    let is_policy = word(policy, 0)? == MAGIC
        && word(policy, 4)? as usize == SIGNATURE.len()
        && policy.get(8..header)? == SIGNATURE
        && word(policy, header)? >= OLDEST;
    // Version, configuration, and two numbers of tables.
    let capabilities = header + 16;
    let start = capabilities + nodes(policy.get(capabilities..).filter(|_| is_policy)?)?.1;
    Some((start, start + nodes(&policy[start..])?.1))
}

/// The nodes of a bitmap, each with the number of its first bit, and its length in bytes.
fn nodes(bytes: &[u8]) -> Option<(Vec<(u32, u64)>, usize)> {
    const HEADER: usize = 12;
    const NODE: usize = 12;
    let count = word(bytes, 8).filter(|_| word(bytes, 0) == Some(UNIT))? as usize;
    let end = count.checked_mul(NODE)?.checked_add(HEADER)?;
    let nodes = bytes.get(HEADER..end)?.chunks_exact(NODE).map(|node| {
        let (base, bits) = node.split_at(4);
        Some((word(base, 0)?, u64::from_le_bytes(bits.try_into().ok()?)))
    });
    Some((nodes.collect::<Option<_>>()?, end))
}

/// The number of a type: its entry is the length of its name, the number, properties, bounds, and the name.
fn type_value(tables: &[u8], name: &str) -> Option<u32> {
    const FIXED: usize = 16;
    let length = u32::try_from(name.len()).ok().filter(|length| *length > 0)?;
    tables.windows(FIXED + name.len()).find_map(|entry| {
        let is_it = &entry[FIXED..] == name.as_bytes()
            && word(entry, 0) == Some(length)
            && word(entry, 8).is_some_and(|properties| properties & PRIMARY != 0 && properties < 8);
        word(entry, 4).filter(|value| is_it && *value > 0)
    })
}

#[cfg(test)]
#[path = "selinux_test.rs"]
mod tests;
