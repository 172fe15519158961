//! One entry's `options`: those of a mount, those of a file system, and those that only say how to mount.

use std::collections::BTreeSet;

/// What is on or off for a mount, each by the word that mountinfo has for it.
const OF_MOUNTS: [(&str, &str, &str); 6] = [
    ("ro", "rw", "ro"),
    ("nosuid", "suid", "nosuid"),
    ("nodev", "dev", "nodev"),
    ("noexec", "exec", "noexec"),
    ("nodiratime", "diratime", "nodiratime"),
    ("nosymfollow", "symfollow", "nosymfollow"),
];

/// The same for what belongs to the file system as a whole.
const OF_FILE_SYSTEMS: [(&str, &str, &str); 3] =
    [("sync", "async", "sync"), ("dirsync", "", "dirsync"), ("lazytime", "nolazytime", "lazytime")];

/// What the mount's options in mountinfo should be; `rw` is left out.
pub fn wanted_of_mount(options: &[String]) -> BTreeSet<String> {
    let mut wanted = switches(options, &OF_MOUNTS);
    // The recursive ones come after all others.
    for (on, off, word) in OF_MOUNTS {
        let (on, off) = (format!("r{on}"), format!("r{off}"));
        match options.iter().rfind(|option| **option == on || **option == off) {
            Some(last) if *last == on => drop(wanted.insert(word.to_owned())),
            Some(_) => drop(wanted.remove(word)),
            None => {}
        }
    }
    let last = |words: [&str; 3]| {
        options.iter().rev().find_map(|option| words.iter().position(|word| word == option))
    };
    let access_time = last(["rrelatime", "rnoatime", "rstrictatime"])
        .or_else(|| last(["relatime", "noatime", "strictatime"]));
    // The first is the kernel's default, and of the last it says nothing.
    wanted.extend(["relatime", "noatime"].get(access_time.unwrap_or(0)).map(|word| (*word).to_owned()));
    wanted
}

/// What mountinfo says, without `rw`.
pub fn found_of_mount(options: &[String]) -> BTreeSet<String> {
    options.iter().filter(|option| *option != "rw").cloned().collect()
}

/// Which of the file system's own switches should be on.
pub fn wanted_of_file_system(options: &[String]) -> BTreeSet<String> {
    switches(options, &OF_FILE_SYSTEMS)
}

/// Which are.
pub fn found_of_file_system(data: &[String]) -> BTreeSet<String> {
    let known = |option: &&String| OF_FILE_SYSTEMS.iter().any(|(_, _, word)| word == option);
    data.iter().filter(known).cloned().collect()
}

fn switches(options: &[String], table: &[(&str, &str, &str)]) -> BTreeSet<String> {
    let last = |on: &str, off: &str| options.iter().rev().find(|option| *option == on || *option == off);
    table
        .iter()
        .filter(|(on, off, _)| last(on, off).is_some_and(|option| option == on))
        .map(|(_, _, word)| (*word).to_owned())
        .collect()
}

/// A file system's own options in a form that can be compared: what config.json asks for, and what mountinfo shows of
/// the same. `None` for options that mountinfo does not show.
pub fn of_file_system(option: &str, fstype: &str, data: &[String]) -> Option<(String, String)> {
    let (name, value) = option.split_once('=')?;
    let shown = data.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
    let octal = |text: &str| format!("{:o}", u32::from_str_radix(text, 8).unwrap_or(u32::MAX));
    let (wanted, found) = match (fstype, name) {
        ("tmpfs", "size") => (pages(value), pages(shown.unwrap_or("0"))),
        ("tmpfs", "nr_inodes") => (bytes(value), bytes(shown.unwrap_or("0"))),
        // mountinfo leaves out what is the default.
        ("tmpfs", "mode") => (octal(value), octal(shown.unwrap_or("1777"))),
        ("devpts", "mode" | "ptmxmode") => (octal(value), octal(shown.unwrap_or("0"))),
        ("tmpfs" | "devpts", "uid" | "gid" | "max") => (value.to_owned(), shown.unwrap_or("0").to_owned()),
        ("proc", "hidepid" | "subset" | "gid") => (hidden(value), hidden(shown.unwrap_or("0"))),
        _ => return None,
    };
    Some((format!("{name}={wanted}"), format!("{name}={found}")))
}

fn hidden(value: &str) -> String {
    match value {
        "0" | "off" => "off",
        "1" | "noaccess" => "noaccess",
        "2" | "invisible" => "invisible",
        "4" | "ptraceable" => "ptraceable",
        other => other,
    }
    .to_owned()
}

fn bytes(size: &str) -> String {
    number(size).to_string()
}

/// A size in bytes, rounded up to pages.
fn pages(size: &str) -> String {
    number(size).next_multiple_of(4096).to_string()
}

fn number(size: &str) -> u64 {
    let digits = size.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let shift = match size[digits.len()..].to_ascii_lowercase().as_str() {
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => 0,
    };
    digits.parse::<u64>().unwrap_or(0) << shift
}
