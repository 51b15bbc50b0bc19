//! rsip-client
fn main() {}
