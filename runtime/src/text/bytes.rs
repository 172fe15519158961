//! Amounts of memory as people write them.

/// Factors of the suffixes, by their first letter.
const UNITS: [(char, u64); 5] =
    [('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30), ('t', 1 << 40), ('p', 1 << 50)];

/// Bytes of an amount such as `67108864`, `64m`, `1.5G` or `64MiB`; `-1` stands for no limit, as in config.json.
///
/// # Errors
/// One line for a person.
pub fn parse_limit(text: &str) -> Result<i64, String> {
    if text == "-1" {
        Ok(-1)
    } else {
        parse(text).ok_or_else(|| {
            "give a number of bytes, or a size such as 64m or 1.5g; -1 means no limit".to_owned()
        })
    }
}

/// Bytes of an amount, as [`parse_limit`] takes it, but never "no limit".
pub fn parse(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, suffix) =
        lower.split_at(lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len()));
    let mut letters = suffix.chars();
    let factor = match letters.next() {
        None => 1,
        Some('b') if letters.as_str().is_empty() => 1,
        Some(unit) if matches!(letters.as_str(), "" | "b" | "ib") => {
            UNITS.iter().find(|(name, _)| *name == unit)?.1
        }
        Some(_) => return None,
    };
    let number = number.trim_end();
    if let Ok(whole) = number.parse::<u64>() {
        return i64::try_from(whole.checked_mul(factor)?).ok();
    }
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    // Beyond that not every whole number is a float.
    (bytes <= (1u64 << 53) as f64).then_some(bytes as i64)
}

/// An amount in the largest unit of which it has at least one, with one decimal.
pub fn short(bytes: u64) -> String {
    match UNITS.iter().rev().find(|(_, factor)| bytes >= *factor) {
        None => format!("{bytes}B"),
        Some((unit, factor)) => format!("{:.1}{}", bytes as f64 / *factor as f64, unit.to_ascii_uppercase()),
    }
}

#[cfg(test)]
#[path = "bytes_test.rs"]
mod tests;
