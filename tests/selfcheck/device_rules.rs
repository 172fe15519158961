//! `linux.resources.devices`: by opening the nodes that there are, and by making one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::Value;

use crate::capabilities;
use crate::config::{list, text};
use crate::findings::Findings;

/// A device as rules name it.
struct Device<'a> {
    path: &'a str,
    kind: &'a str,
    major: i64,
    minor: i64,
}

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    let rules = list(config, "linux.resources.devices");
    let always = ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"].map(|path| {
        let minor = match path {
            "/dev/null" => 3,
            "/dev/zero" => 5,
            "/dev/full" => 7,
            _ => 9,
        };
        Device { path, kind: "c", major: 1, minor }
    });
    let listed = list(config, "linux.devices").iter().map(|device| Device {
        path: text(device, "path"),
        kind: if text(device, "type") == "u" { "c" } else { text(device, "type") },
        major: device["major"].as_i64().unwrap_or(0),
        minor: device["minor"].as_i64().unwrap_or(0),
    });
    for device in listed.filter(|device| device.kind != "p").chain(always) {
        for (access, name) in [('r', "reading"), ('w', "writing")] {
            // The node's own mode comes first, and then the rules cannot be seen.
            let Some(found) = opens(&device, access) else { continue };
            let (wanted, rule) = verdict(rules, &device, access);
            let path = rule.map_or("linux.resources.devices".to_owned(), |rule| {
                format!("linux.resources.devices[{rule}]")
            });
            let what = format!("{name} {} ({} {}:{})", device.path, device.kind, device.major, device.minor);
            let word = |allowed| if allowed { "allowed" } else { "denied" };
            findings.equal(&path, &what, word(found), word(wanted));
        }
    }
    let namespaces = list(config, "linux.namespaces");
    // In a user namespace of one's own no node can be made, whatever the rules say.
    if namespaces.iter().any(|namespace| text(namespace, "type") == "user") {
        Ok(())
    } else {
        making(findings)
    }
}

/// Any node may be made in a container that has the capability.
fn making(findings: &mut Findings) -> Result<()> {
    if !capabilities::has("MKNOD")? {
        return Ok(());
    }
    let directory = ["/dev", "/tmp"].into_iter().find(|directory| {
        OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(directory).is_ok()
    });
    let Some(directory) = directory else { return Ok(()) };
    let node = Path::new(directory).join(format!("self-check-{}", std::process::id()));
    let made = mknod(&node, SFlag::S_IFBLK, Mode::empty(), makedev(240, 77));
    let _ = fs::remove_file(&node);
    findings.holds("linux.resources.devices", made != Err(nix::errno::Errno::EPERM), || {
        "making b 240:77 is denied, and every container may make nodes".to_owned()
    });
    Ok(())
}

/// Whether the kernel lets the device be opened, were there a driver for it.
fn opens(device: &Device, access: char) -> Option<bool> {
    let opened = OpenOptions::new()
        .read(access == 'r')
        .write(access == 'w')
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(device.path);
    match opened.map_err(|error: io::Error| error.raw_os_error()) {
        Err(Some(libc::EPERM)) => Some(false),
        Err(Some(libc::EACCES | libc::ENOENT | libc::EROFS)) => None,
        _ => Some(true),
    }
}

/// Whether the access is allowed, and the rule that says so: the last that fits. Every container may use the default
/// devices and pseudo-terminals.
fn verdict(rules: &[Value], device: &Device, access: char) -> (bool, Option<usize>) {
    const DEFAULT: [(i64, i64); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    if device.kind == "c" && (DEFAULT.contains(&(device.major, device.minor)) || device.major == 136) {
        return (true, None);
    }
    let fits = |rule: &Value| {
        let number = |name: &str, wanted: i64| match rule[name].as_i64() {
            None | Some(-1) => true,
            Some(number) => number == wanted,
        };
        let kind = text(rule, "type");
        let accesses = rule["access"].as_str().filter(|access| !access.is_empty()).unwrap_or("rwm");
        (kind.is_empty() || kind == "a" || kind == device.kind)
            && number("major", device.major)
            && number("minor", device.minor)
            && accesses.contains(access)
    };
    match rules.iter().rposition(fits) {
        Some(index) => (rules[index]["allow"].as_bool().unwrap_or(false), Some(index)),
        None => (false, None),
    }
}
