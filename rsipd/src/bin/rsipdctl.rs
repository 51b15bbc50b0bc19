//! rsipdctl
fn main() {}
