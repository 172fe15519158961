//! Which sockets of the host containers may be connected to: `host_sockets` of the configuration.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Deserialize;

/// An absolute path, in which `*` stands for any characters of a name.
///
/// It is compared with a socket's path after all links in that path are followed. Links in the pattern itself are not
/// followed: otherwise, whoever may make links in a listed directory would decide what is listed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("host_sockets: {text:?} {why}"));
        let Some(names) = text.strip_prefix('/') else {
            return refuse("must be an absolute path");
        };
        match names.split('/').find(|name| matches!(*name, "" | "." | "..") || name.contains("**")) {
            None => Ok(Self(text)),
            Some("") => refuse("has an empty name in it"),
            Some(name) if name.contains("**") => {
                refuse("has ** in it; use *, which stands for one name or a part of it")
            }
            Some(_) => refuse("has . or .. in it; give the real path, without links"),
        }
    }
}

impl Pattern {
    /// Whether the pattern matches a path, which has no links in it.
    pub fn matches(&self, path: &Path) -> bool {
        let (mut names, mut patterns) =
            (path.as_os_str().as_bytes().split(|byte| *byte == b'/'), self.0.split('/'));
        loop {
            match (names.next(), patterns.next()) {
                (None, None) => return true,
                (Some(name), Some(pattern)) if is_like(name, pattern.as_bytes()) => {}
                _ => return false,
            }
        }
    }
}

/// Whether a name matches a pattern without slashes. Each asterisk takes as few characters as possible; the first way
/// that works is as good as any other.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match (0..=rest.len()).find(|&at| rest[at..].starts_with(part)) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
#[path = "pattern_test.rs"]
mod tests;
