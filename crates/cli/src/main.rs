//! The `partial-sync` program.
fn main() {}
