//! Low-rank transformer inference: batched truncated SVD, compressed key-value caches and attention that runs
//! directly on the compressed form.
//!
//! Modules form floors; a module uses only the floors below it:
//!
//! | floor | modules |
//! |---|---|
//! | programs' engines | `bench`, `report` (feature `cli`) |
//! | whole models | `calibrate`, `model` (feature `model`) |
//! | caches | [`cache`] |
//! | operations | [`svd`], [`attention`], [`linear`], [`nn`], [`sparse`] |
//! | memory | [`tensor`], [`coded`], [`rope`], [`philox`], [`device`] |
//!
//! Operations dispatch on the device of their arguments. See the README for what runs where today.

// A library neither panics on what users pass in nor prints.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)
)]

pub mod attention;
#[cfg(feature = "cli")]
pub mod bench;
pub mod cache;
#[cfg(feature = "model")]
pub mod calibrate;
pub mod coded;
pub mod device;
mod error;
pub mod linear;
#[cfg(feature = "model")]
pub mod model;
pub mod nn;
pub mod philox;
#[cfg(feature = "cli")]
pub mod report;
pub mod rope;
pub mod sparse;
pub mod svd;
pub mod tensor;

pub use device::{Device, Dtype, Purpose, Scratch};
pub use error::{Error, InputError, Result};
pub use tensor::Tensor;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
