//! rsipd
fn main() {}
