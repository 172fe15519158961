use std::io::Read;

use super::*;
use cpio::newc::Reader;

const AGENT: &[u8] = b"\x7fELF and the rest";

struct Entry {
    name: String,
    mode: u32,
    rdev: (u32, u32),
    content: Vec<u8>,
}

fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut rest = archive;
    let mut entries = Vec::new();
    loop {
        let mut reader = Reader::new(rest).unwrap();
        let header = reader.entry();
        if header.is_trailer() {
            return entries;
        }
        assert_eq!((header.uid(), header.gid(), header.mtime()), (0, 0, 0), "{}", header.name());
        let mut entry = Entry {
            name: header.name().to_owned(),
            mode: header.mode(),
            rdev: (header.rdev_major(), header.rdev_minor()),
            content: Vec::new(),
        };
        reader.read_to_end(&mut entry.content).unwrap();
        entries.push(entry);
        rest = reader.finish().unwrap();
    }
}

#[test]
fn holds_the_agent_the_console_and_the_mount_points() {
    let entries = entries(&build(AGENT).unwrap());
    let find = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
    assert_eq!((find("init").mode, &*find("init").content), (0o100_500, AGENT));
    assert_eq!((find("dev/console").mode, find("dev/console").rdev), (0o020_600, (5, 1)));
    for directory in DIRECTORIES {
        assert_eq!(find(directory).mode, 0o040_755, "{directory}");
    }
    assert_eq!(entries.len(), DIRECTORIES.len() + 2);
}

#[test]
fn parents_come_before_their_children_in_sorted_order() {
    let names: Vec<String> = entries(&build(AGENT).unwrap()).into_iter().map(|entry| entry.name).collect();
    assert!(names.is_sorted());
    for (index, name) in names.iter().enumerate() {
        if let Some((parent, _)) = name.rsplit_once('/') {
            assert!(names[..index].iter().any(|earlier| earlier == parent), "{name}");
        }
    }
}

#[test]
fn same_agent_same_bytes() {
    assert_eq!(build(AGENT).unwrap(), build(AGENT).unwrap());
}

#[test]
fn refuses_what_is_no_executable() {
    assert!(build(b"#!/bin/sh").is_err());
}
