//! `linux.sysctl`, through the guest's /proc: the kernel takes the namespaces of the process that writes.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Component, Path, PathBuf},
};

use crate::error::{Context, ErrorKind, Result, error};

/// Sets them in order.
pub fn apply(sysctl: &[(String, String)]) -> Result<()> {
    for (name, value) in sysctl {
        let path = path(name)?;
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .or_spec(|| format!("set linux.sysctl {name} to {value:?}"))?;
    }
    Ok(())
}

/// The file of a name like `net.ipv4.ip_forward`. As in sysctl(8), a name with a slash before its first dot
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
    Ok(Path::new("/proc/sys").join(relative))
}

#[cfg(test)]
#[path = "sysctl_test.rs"]
mod tests;
