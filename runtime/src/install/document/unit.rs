//! Unit files of systemd, as lines: enough to change one setting of one section.

use serde_json::{Map, Value};

use super::{Document, Problem};

/// Its lines.
pub(super) struct Unit(Vec<String>);

/// The name of the section that a line begins.
fn section(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.strip_suffix(']')
}

/// The value that a line gives a name.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once('=')?;
    (key.trim() == name).then(|| value.trim())
}

impl Unit {
    /// The lines of a section, without its name.
    fn range(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let start = self.0.iter().position(|line| section(line) == Some(name))? + 1;
        let length = self.0[start..].iter().position(|line| section(line).is_some());
        Some(start..length.map_or(self.0.len(), |length| start + length))
    }

    /// The last line that gives this setting a value.
    fn line(&self, keys: &[String]) -> Option<usize> {
        let [name, key] = keys else { return None };
        self.range(name)?.rev().find(|index| value(&self.0[*index], key).is_some())
    }
}

impl Document for Unit {
    fn parse(text: &str) -> Result<Self, Problem> {
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let begins = lines.iter().position(|line| section(line).is_some()).unwrap_or(lines.len());
        match lines[..begins]
            .iter()
            .position(|line| line.contains('=') && !line.trim().starts_with(['#', ';']))
        {
            Some(index) => {
                Err(Problem::Malformed { line: index + 1, message: "is in no section".to_owned() })
            }
            None => Ok(Self(lines)),
        }
    }

    /// A section has no value of its own, but it exists.
    fn get(&self, keys: &[String]) -> Option<Value> {
        match keys {
            [name] => {
                let lines = &self.0[self.range(name)?];
                let settings = lines.iter().filter_map(|line| line.split_once('='));
                Some(
                    settings
                        .map(|(key, value)| (key.trim().to_owned(), value.trim().into()))
                        .collect::<Map<_, _>>()
                        .into(),
                )
            }
            [_, key] => Some(value(&self.0[self.line(keys)?], key)?.into()),
            _ => None,
        }
    }

    fn put(&mut self, keys: &[String], value: &Value) -> Result<(), Problem> {
        let ([name, key], Some(value)) = (keys, value.as_str()) else {
            return Err(Problem::NotSet(keys.join(".")));
        };
        let line = format!("{key}={value}");
        match (self.line(keys), self.range(name)) {
            (Some(index), _) => self.0[index] = line,
            (None, Some(range)) => self.0.insert(range.end, line),
            (None, None) => self.0.extend([format!("[{name}]"), line]),
        }
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) {
        match keys {
            [name] => {
                if let Some(range) = self.range(name) {
                    self.0.drain(range.start - 1..range.end);
                }
            }
            _ => {
                if let Some(index) = self.line(keys) {
                    self.0.remove(index);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|line| line.trim().is_empty())
    }

    fn print(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }
}
