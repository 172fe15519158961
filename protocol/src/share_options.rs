//! What a mount of the host's has besides its flags.

use serde::{Deserialize, Serialize};

/// What there is to say of a mount of the host's besides. It stands in [`crate::container::Mount::data`], which the agent of 0.1 does not read
/// there: what is mounted below has the flags of the mount itself then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareOptions {
    /// A destination that is a symbolic link is mounted on, and not what it leads to.
    pub is_unfollowed: bool,
    /// What is mounted below and differs from the mount itself.
    pub below: Vec<Below>,
}

/// A directory of a shared tree in which another file system begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// Where it is: relative to the tree, without links.
    pub path: String,
    /// `MS_*`.
    pub flags: u64,
    /// It holds the host's terminals, which are of no use to the guest: the container gets some of its own there.
    pub has_terminals: bool,
}

impl ShareOptions {
    /// As [`crate::container::Mount::data`] has it: postcard, in hexadecimal digits; nothing where there is nothing to say.
    pub fn encode(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        // What has no floating-point numbers and no maps can always be written.
        let bytes = postcard::to_extend(self, Vec::new()).unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads that; `None` where it is something else.
    pub fn decode(data: &str) -> Option<Self> {
        if data.is_empty() {
            return Some(Self::default());
        }
        let digits = data.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
        let bytes = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<_>>>()?;
        postcard::from_bytes(&bytes).ok()
    }
}
