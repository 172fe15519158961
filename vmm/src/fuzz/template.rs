//! The state file of a template, whole or as what is behind its checksum.

use crate::template::{framed, parse};

/// What the input says is refused, or is a state that can be written again and is the same.
pub fn run(input: &[u8]) {
    let _ = parse(input);
    let Ok(state) = parse(&framed(input)) else { return };
    let content = postcard::to_stdvec(&state).unwrap();
    let again = parse(&framed(&content)).unwrap();
    assert_eq!(postcard::to_stdvec(&again).unwrap(), content);
}
