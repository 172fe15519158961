//! `linux.devices` and what every /dev has (runtime-spec config-linux, "Default Devices" and "Dev symbolic links").

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::sys::stat::{major, minor};
use serde_json::Value;

use crate::config::{list, strings, text};
use crate::findings::Findings;

const DEFAULT: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

pub fn check(config: &Value, findings: &mut Findings) {
    let devices = list(config, "linux.devices");
    for (index, device) in devices.iter().enumerate() {
        let number = |name: &str| device[name].as_u64();
        let kind = match text(device, "type") {
            "u" => "c",
            other => other,
        };
        let numbers = match kind {
            "p" => String::new(),
            _ => format!(" {}:{}", number("major").unwrap_or(0), number("minor").unwrap_or(0)),
        };
        let wanted = format!(
            "{kind}{numbers} mode {:o} owner {}:{}",
            number("fileMode").unwrap_or(0o666) & 0o7777,
            number("uid").unwrap_or(0),
            number("gid").unwrap_or(0)
        );
        let path = text(device, "path");
        findings.equal(&format!("linux.devices[{index}]"), path, seen(path), wanted);
    }
    let dev_is_the_hosts = list(config, "mounts").iter().any(|mount| {
        let is_bind = text(mount, "type") == "bind"
            || strings(mount, "options").iter().any(|option| option == "bind" || option == "rbind");
        is_bind && text(mount, "destination").trim_end_matches('/') == "/dev"
    });
    if dev_is_the_hosts {
        return;
    }
    for (path, major, minor) in DEFAULT {
        if devices.iter().any(|device| text(device, "path") == path) {
            continue;
        }
        let wanted = format!("c {major}:{minor} mode 666 owner 0:0");
        findings.equal("linux.devices", &format!("{path}, which every container has,"), seen(path), wanted);
    }
    for (path, target) in LINKS {
        let found = fs::read_link(path).map_or_else(|e| e.to_string(), |target| target.display().to_string());
        findings.equal("linux.devices", &format!("the target of {path}"), found.as_str(), target);
    }
}

/// What is there.
fn seen(path: &str) -> String {
    let node = match fs::symlink_metadata(path) {
        Ok(node) => node,
        Err(error) => return error.to_string(),
    };
    let kind = node.file_type();
    let number = format!(" {}:{}", major(node.rdev()), minor(node.rdev()));
    let kind = match (kind.is_char_device(), kind.is_block_device(), kind.is_fifo()) {
        (true, ..) => format!("c{number}"),
        (_, true, _) => format!("b{number}"),
        (.., true) => "p".to_owned(),
        _ => "no device".to_owned(),
    };
    format!("{kind} mode {:o} owner {}:{}", node.mode() & 0o7777, node.uid(), node.gid())
}
