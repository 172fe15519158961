//! `mounts`, `root.readonly` and `linux.rootfsPropagation`.
//!
//! Where a bind mount comes from cannot be seen in a VM, so sources that are to be compared say it themselves: a
//! directory in its file `.source`, a file by its content.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::config::{at, list, strings, text};
use crate::findings::Findings;
use crate::mount_options as options;
use crate::mount_tree::{self, Mounted, Planned};
use crate::propagation::{self, Propagation};

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    let mounted = match mount_tree::read() {
        Ok(mounted) => mounted,
        Err(error) => {
            findings.unseen("mounts and root", error);
            return Ok(());
        }
    };
    let Some(root) = mounted.iter().find(|mount| mount.point == Path::new("/")) else {
        anyhow::bail!("mountinfo has no root");
    };
    let readonly = at(config, "root.readonly").as_bool().unwrap_or(false);
    findings.equal("root.readonly", "", root.options.iter().any(|option| option == "ro"), readonly);
    let whole = at(config, "linux.rootfsPropagation").as_str().unwrap_or_default();
    let wanted = Propagation::default().change(whole);
    findings.equal("linux.rootfsPropagation", "", Propagation::found(&root.groups).name(), wanted.name());

    let mut planned = Planned::default();
    // The mounts of config.json that were found, and how they should propagate.
    let mut places: BTreeMap<usize, (&Mounted, Propagation)> = BTreeMap::new();
    for (index, entry) in list(config, "mounts").iter().enumerate() {
        let destination = resolved(text(entry, "destination"));
        let on = planned.add(&destination);
        let below = match on {
            None => Some((root, Propagation::default())),
            Some(on) => places.get(&on).copied(),
        };
        let Some((parent, inherited)) = below else { continue };
        let path = format!("mounts[{index}].destination");
        let here = |mount: &&Mounted| mount.point == destination;
        let found = mounted.iter().find(|mount| mount.parent == parent.id && here(mount));
        findings.holds(&path, found.is_some(), || {
            let parent = parent.point.display();
            match mounted.iter().any(|mount| here(&mount)) {
                true => format!("is {}, but not mounted on {parent}: the order", destination.display()),
                false => format!("nothing is mounted on {}", destination.display()),
            }
        });
        let Some(found) = found else { continue };
        // What is mounted on a shared mount is shared itself.
        let start = Propagation { shared: inherited.shared, unbindable: false };
        let wanted =
            strings(entry, "options").iter().fold(start, |propagation, word| propagation.change(word));
        places.insert(index, (found, wanted));
        one(index, entry, found, config, findings);
    }
    for (index, (found, wanted)) in places {
        // A mount's own propagation counts more than the root's.
        let entry = &list(config, "mounts")[index];
        let has_own = strings(entry, "options").iter().any(|word| propagation::is_word(word));
        let wanted = if propagation::is_recursive(whole) && !has_own { wanted.change(whole) } else { wanted };
        let path = format!("mounts[{index}].options");
        findings.equal(&path, "propagation", Propagation::found(&found.groups).name(), wanted.name());
    }
    Ok(())
}

fn one(index: usize, entry: &Value, found: &Mounted, config: &Value, findings: &mut Findings) {
    let asked = strings(entry, "options");
    let is_bind = is_bind(entry, &asked);
    let fstype = match text(entry, "type") {
        _ if is_bind => "virtiofs",
        // Whatever the host has.
        "cgroup" => "cgroup2",
        other => other,
    };
    findings.equal(&format!("mounts[{index}].type"), "", found.fstype.as_str(), fstype);
    let path = format!("mounts[{index}].options");
    let words = |set: std::collections::BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
    let found_of_mount = words(options::found_of_mount(&found.options));
    findings.equal_lists(&path, &found_of_mount, &words(options::wanted_of_mount(&asked)));
    if is_bind {
        // What another mount covers cannot be looked into.
        if mount_tree::visible_at(&found.point) == Some(found.id.into()) {
            source(index, entry, findings);
        }
        return;
    }
    let found_of_file_system = words(options::found_of_file_system(&found.data));
    findings.equal_lists(&path, &found_of_file_system, &words(options::wanted_of_file_system(&asked)));
    for option in asked.iter().map(|option| outside(option, config)) {
        if let Some((wanted, found)) = options::of_file_system(&option, &found.fstype, &found.data) {
            findings.equal(&path, "", found, wanted);
        }
    }
}

/// mountinfo has IDs as the kernel knows them, whatever user namespace reads it.
fn outside(option: &str, config: &Value) -> String {
    let mapped = option.split_once('=').and_then(|(name, id)| {
        let list = list(config, &format!("linux.{name}Mappings"));
        let id: u64 = id.parse().ok()?;
        list.iter().find_map(|entry| {
            let number = |name: &str| entry[name].as_u64().unwrap_or(0);
            let place = id.checked_sub(number("containerID")).filter(|place| *place < number("size"))?;
            Some(format!("{name}={}", number("hostID") + place))
        })
    });
    mapped.unwrap_or_else(|| option.to_owned())
}

fn is_bind(entry: &Value, options: &[String]) -> bool {
    text(entry, "type") == "bind" || options.iter().any(|option| option == "bind" || option == "rbind")
}

fn source(index: usize, entry: &Value, findings: &mut Findings) {
    let destination = PathBuf::from(text(entry, "destination"));
    let file = if destination.is_dir() { destination.join(".source") } else { destination };
    let found = fs::read_to_string(&file).unwrap_or_else(|error| format!("{}: {error}", file.display()));
    findings.equal(&format!("mounts[{index}].source"), "", found.as_str(), text(entry, "source"));
}

/// Links of the image in the way to a destination lead elsewhere.
fn resolved(destination: &str) -> PathBuf {
    fs::canonicalize(destination).unwrap_or_else(|_| destination.into())
}
