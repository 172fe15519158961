//! JSON for callers and people: the content of strings cannot control a terminal.

use serde::Serialize;

use super::table::steers;

/// JSON in one line.
///
/// # Errors
/// serde_json's, for what has no JSON.
pub fn compact(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(escaped)
}

/// JSON in many lines, with indentation.
///
/// # Errors
/// As [`compact`].
pub fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(escaped)
}

/// The same value, with those characters escaped that serde_json leaves as they are: outside of strings JSON has none of them.
fn escaped(json: String) -> String {
    if !json.chars().any(is_escaped) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_escaped(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

fn is_escaped(c: char) -> bool {
    c != '\n' && steers(c)
}

#[cfg(test)]
#[path = "json_test.rs"]
mod tests;
