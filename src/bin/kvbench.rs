//! `kvbench`: measures what the kernels reach.
fn main() {}
