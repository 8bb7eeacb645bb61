//! Batched truncated SVD.
