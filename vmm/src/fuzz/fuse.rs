//! FUSE requests to the file server, on a populated tree: [`wild`] says what is checked after each.

use super::input::Input;
use crate::files::wild::{self, Choices};

/// Requests as the input chooses them.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let host_locks = input.u8() & 1 != 0;
    wild::run(Choices::Input(input), host_locks);
}
