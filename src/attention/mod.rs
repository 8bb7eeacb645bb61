//! Attention over compressed keys and values.
