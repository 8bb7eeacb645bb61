//! The engine of `kvbench`.
