//! Properties of a share of the host besides its mount flags.

use serde::{Deserialize, Serialize};

/// Properties of a share of the host besides its mount flags. They are sent in [`crate::container::Mount::data`], which
/// the agent of 0.1 does not read there: what is mounted below has the flags of the mount itself then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareOptions {
    /// Whether a destination that is a symbolic link is mounted on itself, instead of its target.
    pub is_unfollowed: bool,
    /// The file systems below that have other flags than the mount itself.
    pub below: Vec<Below>,
}

/// A directory of a shared tree in which another file system begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// Where it is: relative to the tree, without links.
    pub path: String,
    /// `MS_*`.
    pub flags: u64,
    /// Whether the host's terminals (devpts) are there, which only the host's kernel can serve: the container gets a
    /// devpts of the guest instead.
    pub has_terminals: bool,
}

impl ShareOptions {
    /// The form in which [`crate::container::Mount::data`] has it: postcard, in hexadecimal digits; empty for the
    /// default.
    pub fn encode(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        // A value without floating-point numbers and maps can always be written.
        let bytes = postcard::to_extend(self, Vec::new()).unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`Self::encode`] has written; `None` for anything else.
    pub fn decode(data: &str) -> Option<Self> {
        if data.is_empty() {
            return Some(Self::default());
        }
        let digits = data.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
        let bytes = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<_>>>()?;
        postcard::from_bytes(&bytes).ok()
    }
}
