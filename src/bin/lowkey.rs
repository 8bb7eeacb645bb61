//! `lowkey`: works on models.
fn main() {}
