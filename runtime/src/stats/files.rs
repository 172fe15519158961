//! The files of a cgroup (version 2), as text that a guest has sent: what does not have the kernel's format is left
//! out.

use std::collections::BTreeMap;

/// Files of one cgroup.
#[derive(Clone, Debug, Default)]
pub struct CgroupFiles(BTreeMap<String, String>);

/// One line of a `*.pressure` file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Share of time in which tasks waited, in percent, over 10, 60 and 300 seconds.
    pub averages: [f64; 3],
    /// Total time in which tasks waited, in microseconds.
    pub total_us: u64,
}

/// One device's value of `io.stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// What is counted: `rbytes`, `wios` …
    pub key: String,
    /// The number.
    pub value: u64,
}

impl CgroupFiles {
    /// The files of these names with this content.
    pub fn new(files: Vec<(String, String)>) -> Self {
        Self(files.into_iter().collect())
    }

    /// A file's text without the line end.
    pub fn text(&self, file: &str) -> Option<&str> {
        self.0.get(file).map(|text| text.trim_end())
    }

    /// A file that holds one number; `None` also for `max`.
    pub fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.parse().ok()
    }

    /// A file that holds a limit: `max` becomes the largest number, as in runc.
    pub fn limit(&self, file: &str) -> Option<u64> {
        match self.text(file)? {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        }
    }

    /// A file of lines `KEY NUMBER`; keys that could control a terminal are left out.
    pub fn keyed(&self, file: &str) -> BTreeMap<&str, u64> {
        let lines = self.text(file).unwrap_or_default().lines();
        lines
            .filter_map(|line| {
                let (key, value) = line.split_once(' ')?;
                is_name(key).then_some((key, value.parse().ok()?))
            })
            .collect()
    }

    /// One number of a file of lines `KEY NUMBER`; 0 where it is not there.
    pub fn of(&self, file: &str, key: &str) -> u64 {
        self.keyed(file).get(key).copied().unwrap_or(0)
    }

    /// `some` and `full` of a pressure file; `None` where the guest does not measure it.
    pub fn pressure(&self, file: &str) -> Option<[Pressure; 2]> {
        let text = self.text(file)?;
        let line =
            |kind: &str| text.lines().find_map(|line| pressure(line.strip_prefix(kind)?.strip_prefix(' ')?));
        // The CPU pressure of the whole system has no "full".
        Some([line("some")?, line("full").unwrap_or_default()])
    }

    /// Every value of `io.stat`.
    pub fn io(&self) -> Vec<IoEntry> {
        let lines = self.text("io.stat").unwrap_or_default().lines();
        lines.flat_map(io_line).collect()
    }

    /// The sizes of huge pages that the cgroup counts, such as `2MB`.
    pub fn huge_page_sizes(&self) -> Vec<&str> {
        let size = |name| str::strip_suffix(str::strip_prefix(name, "hugetlb.")?, ".current");
        self.0.keys().filter_map(|name| size(name)).filter(|size| is_name(size)).collect()
    }

    /// A list of CPUs or memory nodes such as `0-3,8`.
    pub fn set(&self, file: &str) -> Vec<u16> {
        /// More CPUs than Linux supports.
        const MAX: usize = 8192;
        let text = self.text(file).unwrap_or_default();
        text.split(',').filter_map(range).flatten().take(MAX).collect()
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn pressure(fields: &str) -> Option<Pressure> {
    let mut found = Pressure::default();
    for field in fields.split_ascii_whitespace() {
        let (key, value) = field.split_once('=')?;
        let index = ["avg10", "avg60", "avg300"].iter().position(|name| *name == key);
        match (index, key) {
            // JSON has no infinity.
            (Some(index), _) => found.averages[index] = value.parse().ok().filter(|v: &f64| v.is_finite())?,
            (None, "total") => found.total_us = value.parse().ok()?,
            _ => {}
        }
    }
    Some(found)
}

fn io_line(line: &str) -> Vec<IoEntry> {
    let mut words = line.split_ascii_whitespace();
    let device = words.next().and_then(|device| device.split_once(':'));
    let numbers = device.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some((major, minor)) = numbers else { return Vec::new() };
    let entry = |word: &str| {
        let (key, value) = word.split_once('=')?;
        Some(IoEntry { major, minor, key: key.to_owned(), value: value.parse().ok()? })
    };
    words.filter_map(entry).collect()
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
