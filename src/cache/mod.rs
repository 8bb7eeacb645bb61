//! Key-value caches.
