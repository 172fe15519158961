//! TOML documents.

use serde_json::{Map, Value};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, TomlError};

use super::{Document, Problem};

/// A TOML document.
pub(super) struct Toml(DocumentMut);

impl Document for Toml {
    fn parse(text: &str) -> Result<Self, Problem> {
        text.parse().map(Self).map_err(|error: TomlError| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
            Problem::Malformed { line, message: error.message().replace('\n', " ") }
        })
    }

    fn get(&self, keys: &[String]) -> Option<Value> {
        let item = keys.iter().try_fold(self.0.as_item(), |item, key| item.get(key.as_str()))?;
        Some(to_json(item))
    }

    fn put(&mut self, keys: &[String], value: &Value) -> Result<(), Problem> {
        let Some((last, parents)) = keys.split_last() else { return Ok(()) };
        let mut table: &mut dyn TableLike = self.0.as_table_mut();
        for (depth, key) in parents.iter().enumerate() {
            table = table
                .entry(key)
                .or_insert_with(|| {
                    let mut table = Table::new();
                    // Its header is printed only if it has settings of its own.
                    table.set_implicit(true);
                    Item::Table(table)
                })
                .as_table_like_mut()
                .ok_or_else(|| Problem::NotATable(parents[..=depth].join(".")))?;
        }
        let value = from_json(value).ok_or_else(|| Problem::NotSet(keys.join(".")))?;
        table.insert(last, Item::Value(value));
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) {
        let Some((last, parents)) = keys.split_last() else { return };
        let mut table: &mut dyn TableLike = self.0.as_table_mut();
        for key in parents {
            match table.get_mut(key).and_then(Item::as_table_like_mut) {
                Some(inner) => table = inner,
                None => return,
            }
        }
        table.remove(last);
    }

    fn is_empty(&self) -> bool {
        self.print().trim().is_empty()
    }

    fn print(&self) -> String {
        self.0.to_string()
    }
}

fn to_json(item: &Item) -> Value {
    if let Some(table) = item.as_table_like() {
        let entries = table.iter().filter(|(_, item)| !item.is_none());
        return Value::Object(
            entries.map(|(key, item)| (key.to_owned(), to_json(item))).collect::<Map<_, _>>(),
        );
    }
    match item {
        Item::Value(value) => value_to_json(value),
        other => other.to_string().into(),
    }
}

fn value_to_json(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => text.value().as_str().into(),
        toml_edit::Value::Integer(number) => (*number.value()).into(),
        toml_edit::Value::Boolean(truth) => (*truth.value()).into(),
        toml_edit::Value::Array(array) => array.iter().map(value_to_json).collect(),
        other => other.to_string().into(),
    }
}

/// Converts a value to TOML; `None` for a kind of value that no setting has.
fn from_json(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::String(text) => text.into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => number.as_i64()?.into(),
        Value::Array(array) => array.iter().map(from_json).collect::<Option<Array>>()?.into(),
        Value::Null | Value::Object(_) => return None,
    })
}
