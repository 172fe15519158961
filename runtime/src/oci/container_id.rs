//! Container IDs. They become file names on the host and in the guest, so few characters are allowed.

use std::fmt;
use std::str::FromStr;

/// Longest ID, in bytes; with a prefix it must still fit in a file name.
const LIMIT: usize = 240;

/// A valid container ID: letters, digits and `_+-.`, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

/// Not a container ID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidId {
    /// The text is empty.
    #[error("container ID must not be empty")]
    Empty,
    /// The text is too long for a file name.
    #[error("container ID is longer than {LIMIT} bytes")]
    TooLong,
    /// Something else than letters, digits and `_+-.`.
    #[error(
        "invalid container ID {0:?}: only letters, digits and `_+-.` are allowed, and neither `.` nor `..`"
    )]
    Malformed(String),
}

impl ContainerId {
    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            "" => Err(InvalidId::Empty),
            _ if text.len() > LIMIT => Err(InvalidId::TooLong),
            "." | ".." => Err(InvalidId::Malformed(text.to_owned())),
            _ if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte)) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidId::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[path = "container_id_test.rs"]
mod tests;
