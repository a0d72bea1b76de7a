//! Starts `lib.rs`; deliberately holds nothing else.
fn main() {}
