//! The transformer runtime: Hugging Face folders in, logits, text and perplexity out.

pub mod files;
mod json;

pub use json::read_text;
