//! `linux.namespaces` and what is set in them: names, mappings, offsets.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use nix::sys::utsname::uname;
use serde_json::Value;

use crate::config::{at, list, text};
use crate::findings::Findings;

/// The type in config.json, the name in /proc/PID/ns, and the inode of the one that a kernel boots with, which is the
/// same everywhere. The first network and mount namespaces have no fixed number; a container's network is the guest's.
const KINDS: [(&str, &str, u64); 6] = [
    ("pid", "pid", 0xefff_fffc),
    ("ipc", "ipc", 0xefff_ffff),
    ("uts", "uts", 0xefff_fffe),
    ("user", "user", 0xefff_fffd),
    ("cgroup", "cgroup", 0xefff_fffb),
    ("time", "time", 0xefff_fffa),
];

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    kinds(config, findings);
    names(config, findings)?;
    mappings(config, findings);
    offsets(config, findings);
    Ok(())
}

fn kinds(config: &Value, findings: &mut Findings) {
    let listed = list(config, "linux.namespaces");
    for (kind, file, initial) in KINDS {
        let index = listed.iter().position(|entry| text(entry, "type") == kind);
        let path = index.map_or("linux.namespaces".to_owned(), |index| format!("linux.namespaces[{index}]"));
        // Another container's, or one that the caller has made: not to be told from here.
        if index.is_some_and(|index| !text(&listed[index], "path").is_empty()) {
            continue;
        }
        let named = |name: &str| !text(config, name).is_empty();
        // A container with a name of its own needs somewhere to put it.
        let is_own = index.is_some() || (kind == "uts" && (named("hostname") || named("domainname")));
        let word = |is_own| if is_own { "the container's own" } else { "the guest's" };
        match fs::metadata(format!("/proc/self/ns/{file}")) {
            Ok(namespace) => {
                let found = word(namespace.ino() != initial);
                findings.equal(&path, &format!("the {kind} namespace"), found, word(is_own));
            }
            Err(error) => findings.unseen(&path, format!("{kind}: {error}")),
        }
    }
}

fn names(config: &Value, findings: &mut Findings) -> Result<()> {
    let names = uname()?;
    for (path, found) in [("hostname", names.nodename()), ("domainname", names.domainname())] {
        let wanted = text(config, path);
        if !wanted.is_empty() {
            findings.equal(path, "", found.to_string_lossy().as_ref(), wanted);
        }
    }
    Ok(())
}

fn mappings(config: &Value, findings: &mut Findings) {
    for (property, file) in [("uidMappings", "uid_map"), ("gidMappings", "gid_map")] {
        let path = format!("linux.{property}");
        let wanted: Vec<String> = list(config, &path)
            .iter()
            .map(|entry| format!("{} {} {}", entry["containerID"], entry["hostID"], entry["size"]))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        match fs::read_to_string(format!("/proc/self/{file}")) {
            Ok(text) => findings.equal_lists(&path, &words_of_lines(&text), &wanted),
            Err(error) => findings.unseen(&path, error),
        }
    }
}

fn offsets(config: &Value, findings: &mut Findings) {
    let Some(wanted) = at(config, "linux.timeOffsets").as_object() else { return };
    for (clock, offset) in wanted {
        let path = format!("linux.timeOffsets.{clock}");
        let number = |name: &str| offset[name].as_i64().unwrap_or(0);
        let wanted = format!("{clock} {} {}", number("secs"), number("nanosecs"));
        match fs::read_to_string("/proc/self/timens_offsets") {
            Ok(text) => {
                let lines = words_of_lines(&text);
                let found = lines.iter().find(|line| line.starts_with(clock.as_str()));
                findings.equal(&path, "", found.cloned().unwrap_or_default(), wanted);
            }
            Err(error) => findings.unseen(&path, error),
        }
    }
}

/// Every line with single spaces.
fn words_of_lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
