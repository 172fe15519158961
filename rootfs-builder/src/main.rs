//! Start of the crate.
fn main() {}
