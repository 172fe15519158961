//! JSON documents.

use serde_json::{Map, Value};

use super::{Document, Problem};

/// A JSON object.
pub(super) struct Json(Value);

impl Document for Json {
    /// Parses a document; an empty text is an empty object.
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.trim().is_empty() {
            return Ok(Self(Value::Object(Map::new())));
        }
        match serde_json::from_str(text) {
            Ok(value @ Value::Object(_)) => Ok(Self(value)),
            Ok(_) => Err(Problem::Malformed { line: 1, message: "is not a JSON object".to_owned() }),
            Err(error) => Err(Problem::Malformed { line: error.line(), message: error.to_string() }),
        }
    }

    fn get(&self, keys: &[String]) -> Option<Value> {
        keys.iter().try_fold(&self.0, |value, key| value.get(key)).cloned()
    }

    fn put(&mut self, keys: &[String], value: &Value) -> Result<(), Problem> {
        let mut place = &mut self.0;
        for (depth, key) in keys.iter().enumerate() {
            let Value::Object(table) = place else { return Err(Problem::NotATable(keys[..depth].join("."))) };
            place = table.entry(key.as_str()).or_insert_with(|| Value::Object(Map::new()));
        }
        *place = value.clone();
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) {
        let Some((last, parents)) = keys.split_last() else { return };
        let parent = parents.iter().try_fold(&mut self.0, |value, key| value.get_mut(key));
        if let Some(Value::Object(table)) = parent {
            // The others keep their order.
            table.shift_remove(last);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.as_object().is_some_and(Map::is_empty)
    }

    fn print(&self) -> String {
        format!("{:#}\n", self.0)
    }
}
