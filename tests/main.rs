//! Every promise lowkey makes, a module per promise, in one binary.
#![allow(missing_docs)]

#[cfg(unix)]
mod absence;
mod attention;
mod cache;
mod nn;
mod package;
mod philox;
mod sparse;
mod svd;
mod svd_large;
mod svd_weighted;
mod tensor;

// What the build script compiles emulators with; tests compile others the same way.
#[cfg(feature = "emulator")]
#[path = "../build/compile.rs"]
mod compile;
#[cfg(feature = "emulator")]
#[path = "../build/emulator.rs"]
mod emulator;

#[cfg(feature = "emulator")]
mod conformance;
#[cfg(all(feature = "emulator", feature = "cuda"))]
mod cuda;
#[cfg(feature = "emulator")]
mod device;
#[cfg(feature = "emulator")]
mod faults;
#[cfg(feature = "emulator")]
mod kernels;
#[cfg(feature = "emulator")]
mod kernels_attention;
#[cfg(feature = "emulator")]
mod kernels_bench;
#[cfg(feature = "emulator")]
mod kernels_linear;
#[cfg(feature = "emulator")]
mod kernels_nn;
#[cfg(feature = "emulator")]
mod kernels_sparse;
#[cfg(feature = "emulator")]
mod kernels_svd;
#[cfg(feature = "emulator")]
mod kernels_svd_broad;
#[cfg(feature = "emulator")]
mod kernels_svd_ragged;
#[cfg(feature = "emulator")]
mod kernels_svd_sketch;
#[cfg(feature = "emulator")]
mod support;

#[cfg(feature = "model")]
mod files;
#[cfg(feature = "model")]
mod model;
#[cfg(feature = "model")]
mod tokenizer;

#[cfg(feature = "cli")]
mod kernel_report;
#[cfg(feature = "cli")]
mod kvbench;
#[cfg(feature = "cli")]
mod lowkey;
#[cfg(feature = "cli")]
mod quality;
#[cfg(feature = "cli")]
mod roofline;
