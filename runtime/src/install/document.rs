//! Configuration files as documents in which single settings are set and removed again, while all else stays as it is.

mod json;
mod toml;
mod unit;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A setting's place: the path of keys that leads to it.
pub type Keys = Vec<String>;

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its place.
    pub keys: Keys,
    /// Its value; null where there is to be no such setting.
    pub value: Value,
}

/// A file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// JSON: the file is written anew with an indentation of two spaces; the keys keep their order.
    Json,
    /// TOML: the file is changed in place; comments and layout stay.
    Toml,
    /// A unit file of systemd, with sections of `Name=value`: the file is changed in place.
    Unit,
}

/// Why a document cannot be changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not of this format.
    #[error("line {line}: {message}")]
    Malformed {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, in one line.
        message: String,
    },
    /// A key on the way to a setting is something else than a table.
    #[error("`{0}` is not a table of settings")]
    NotATable(String),
    /// A table is written in a way that cannot be added to.
    #[error("cannot set `{0}` because of the way the file is written; set it by hand")]
    NotSet(String),
}

/// A parsed document.
trait Document: Sized {
    fn parse(text: &str) -> Result<Self, Problem>;
    /// The value at `keys`, if there is one.
    fn get(&self, keys: &[String]) -> Option<Value>;
    /// Sets the value at `keys`; missing tables on the way are made.
    fn put(&mut self, keys: &[String], value: &Value) -> Result<(), Problem>;
    fn remove(&mut self, keys: &[String]);
    /// Whether the document has no content, not even a comment.
    fn is_empty(&self) -> bool;
    fn print(&self) -> String;
}

impl Format {
    /// The text with these settings.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn set(self, text: &str, settings: &[Setting]) -> Result<String, Problem> {
        match self {
            Self::Json => set::<json::Json>(text, settings),
            Self::Toml => set::<toml::Toml>(text, settings),
            Self::Unit => set::<unit::Unit>(text, settings),
        }
    }

    /// The text with the settings at `places` as they are in `before`, or without them if `before` does not have them.
    /// `None` if nothing is left and there was no file before.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn take_back(
        self,
        text: &str,
        places: &[Keys],
        before: Option<&str>,
    ) -> Result<Option<String>, Problem> {
        match self {
            Self::Json => take_back::<json::Json>(text, places, before),
            Self::Toml => take_back::<toml::Toml>(text, places, before),
            Self::Unit => take_back::<unit::Unit>(text, places, before),
        }
    }

    /// The value at `keys` of the text.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn get(self, text: &str, keys: &[&str]) -> Result<Option<Value>, Problem> {
        let keys: Keys = keys.iter().map(ToString::to_string).collect();
        Ok(match self {
            Self::Json => json::Json::parse(text)?.get(&keys),
            Self::Toml => toml::Toml::parse(text)?.get(&keys),
            Self::Unit => unit::Unit::parse(text)?.get(&keys),
        })
    }
}

fn set<D: Document>(text: &str, settings: &[Setting]) -> Result<String, Problem> {
    let mut document = D::parse(text)?;
    let differs =
        |document: &D, setting: &&Setting| document.get(&setting.keys).unwrap_or_default() != setting.value;
    if !settings.iter().any(|setting| differs(&document, &setting)) {
        return Ok(text.to_owned());
    }
    for setting in settings.iter().filter(|setting| differs(&document, setting)).collect::<Vec<_>>() {
        match &setting.value {
            Value::Null => document.remove(&setting.keys),
            value => document.put(&setting.keys, value)?,
        }
    }
    let printed = document.print();
    let written = D::parse(&printed)?;
    match settings.iter().find(|setting| differs(&written, setting)) {
        Some(lost) => Err(Problem::NotSet(lost.keys.join("."))),
        None => Ok(printed),
    }
}

fn take_back<D: Document>(
    text: &str,
    places: &[Keys],
    before: Option<&str>,
) -> Result<Option<String>, Problem> {
    let mut document = D::parse(text)?;
    let former = D::parse(before.unwrap_or_default())?;
    for keys in places {
        match former.get(keys) {
            Some(value) => document.put(keys, &value)?,
            None => remove_with_parents(&mut document, keys, &former),
        }
    }
    Ok((before.is_some() || !document.is_empty()).then(|| document.print()))
}

/// Removes a setting, and then those tables around it that are empty and did not exist before.
fn remove_with_parents<D: Document>(document: &mut D, keys: &[String], before: &D) {
    document.remove(keys);
    let empty = Value::Object(serde_json::Map::new());
    let parents = (1..keys.len()).rev().map(|length| &keys[..length]);
    for table in parents {
        if document.get(table).as_ref() != Some(&empty) || before.get(table).is_some() {
            return;
        }
        document.remove(table);
    }
}

#[cfg(test)]
#[path = "document_test.rs"]
mod tests;
