//! config.json as untyped JSON: what is read here is read in another way than by what is checked.

use std::sync::LazyLock;

use serde_json::Value;

static ABSENT: Value = Value::Null;
static EMPTY: LazyLock<Vec<Value>> = LazyLock::new(Vec::new);

/// The value at a path like `process.user.uid`; null where there is none.
pub fn at<'a>(config: &'a Value, path: &str) -> &'a Value {
    config.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&ABSENT)
}

/// The entries of a list; none where there is no list.
pub fn list<'a>(config: &'a Value, path: &str) -> &'a [Value] {
    at(config, path).as_array().unwrap_or(&EMPTY)
}

/// A list of strings.
pub fn strings(config: &Value, path: &str) -> Vec<String> {
    list(config, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A property of this object as a string; empty where there is none.
pub fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}
