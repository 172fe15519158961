//! `linux.sysctl`, through the guest's /proc: the kernel changes the namespaces of the process that writes.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use super::proc_files;
use crate::error::{Context, ErrorKind, Result, error};

/// Sets the sysctls in order.
pub fn apply<'a>(sysctl: impl IntoIterator<Item = &'a (String, String)>) -> Result<()> {
    sysctl.into_iter().try_for_each(|(name, value)| set(&path(name)?, value).or_spec(|| step(name, value)))
}

/// Sets the sysctls of the network, which is the guest's.
pub fn apply_of_network(sysctl: &[(String, String)]) -> Result<()> {
    apply(sysctl.iter().filter(|(name, _)| is_of_network(name)))
}

/// Sets those other sysctls that the guest's user 0 may set; returns the rest, which the root of the user namespace
/// sets.
pub fn apply_permitted(sysctl: &[(String, String)]) -> Result<Vec<&(String, String)>> {
    let mut denied = Vec::new();
    for entry @ (name, value) in sysctl.iter().filter(|(name, _)| !is_of_network(name)) {
        match set(&path(name)?, value) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied.push(entry),
            set => set.or_spec(|| step(name, value))?,
        }
    }
    Ok(denied)
}

fn is_of_network(name: &str) -> bool {
    name.split(['.', '/']).next() == Some("net")
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    proc_files::write(path, value)
}

fn step(name: &str, value: &str) -> String {
    format!("set linux.sysctl {name} to {value:?}")
}

/// The file below /proc of a name like `net.ipv4.ip_forward`. As in sysctl(8), a name with a slash before its first dot
/// has slashes for separators, and dots then belong to the names (`net/ipv4/conf/eth0.1/forwarding`).
fn path(name: &str) -> Result<PathBuf> {
    let slashes_separate = name.find(['/', '.']).is_some_and(|first| name.as_bytes()[first] == b'/');
    let relative: String = if slashes_separate {
        name.to_owned()
    } else {
        let swap = |c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        name.chars().map(swap).collect()
    };
    let relative = Path::new(&relative);
    let is_name = |part| matches!(part, Component::Normal(_));
    if relative.as_os_str().is_empty() || !relative.components().all(is_name) {
        return Err(error(ErrorKind::Spec, format!("linux.sysctl {name:?} is not a name")));
    }
    Ok(Path::new("sys").join(relative))
}

#[cfg(test)]
#[path = "sysctl_test.rs"]
mod tests;
