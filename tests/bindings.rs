//! The Rust structs that kernels take are those of their `params.h`, byte for byte, and both sides assert the layout.
//!
//! `tools/bindings` writes what these tests compare with.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use bindgen::{
    Builder, FieldVisibilityKind,
    callbacks::{DeriveInfo, ParseCallbacks},
};

/// What is made from the header of one folder of kernels.
struct Made {
    folder: String,
    /// Rust structs.
    rust: (PathBuf, String),
    /// The layout that C++ asserts.
    cpp: (PathBuf, String),
}

#[derive(Debug)]
struct PlainData;

impl ParseCallbacks for PlainData {
    fn add_derives(&self, _: &DeriveInfo<'_>) -> Vec<String> {
        ["bytemuck::Pod", "bytemuck::Zeroable"].map(str::to_owned).into()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// libclang, where `tools/setup` puts it or the environment says.
fn find_libclang() -> Result<(), String> {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return Ok(());
    }
    let fetched = root().join(".toolkit/clang/native");
    if !fetched.is_dir() {
        return Err(format!("no libclang: run tools/setup, or set LIBCLANG_PATH ({} is not there)", fetched.display()));
    }
    // SAFETY: set before libclang is looked for, by the only tests that read it.
    unsafe { env::set_var("LIBCLANG_PATH", fetched) };
    Ok(())
}

fn headers() -> Vec<PathBuf> {
    let folders = [root().join("kernels"), root().join("tests")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut headers: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path().join("params.h")).collect();
    headers.retain(|path| path.is_file());
    headers.sort();
    headers
}

/// Where the structs of a folder live: beside the operation that fills them, or beside the tests.
fn rust_home(folder: &str) -> PathBuf {
    let operation = root().join("src").join(folder);
    if operation.is_dir() { operation.join("params.rs") } else { root().join("tests/params").join(format!("{folder}.rs")) }
}

fn make(header: &Path) -> Made {
    let folder = header.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let bindings = Builder::default()
        .header(header.to_str().unwrap())
        .clang_args(["-xc", "-fparse-all-comments", "-nostdinc", "-Itests/libc"])
        .allowlist_file(format!(".*{folder}/params.h"))
        .parse_callbacks(Box::new(PlainData))
        .default_visibility(FieldVisibilityKind::PublicCrate)
        .use_core()
        .generate()
        .unwrap()
        .to_string();
    let source = header.strip_prefix(root()).unwrap().display();
    let rust = format!(
        "//! Made by `tools/bindings` from `{source}`: what its kernels take.\n\n\
         use crate::device::Address;\n\n{}",
        structs(&bindings)
    );
    Made { rust: (rust_home(&folder), rust), cpp: (header.with_file_name("layout.h"), layout(&bindings, &folder)), folder }
}

/// The structs, with addresses for pointers.
fn structs(bindings: &str) -> String {
    let mut text = String::new();
    for line in bindings.lines().skip_while(|line| !line.starts_with("#[")) {
        let line = line.replace("pub struct", "pub(crate) struct");
        match line.split_once(": *") {
            Some((field, _)) => writeln!(text, "{field}: Address,").unwrap(),
            None => writeln!(text, "{line}").unwrap(),
        }
    }
    text
}

/// Assertions of the sizes and offsets that libclang computed.
fn layout(bindings: &str, folder: &str) -> String {
    let mut text = format!(
        "/* Made by tools/bindings from {folder}/params.h: the layout that Rust has. */\n#pragma once\n#include <stddef.h>\n\n"
    );
    for line in bindings.split("[\"").skip(1) {
        let (what, rest) = line.split_once("\"]").unwrap();
        let bytes: String = rest.rsplit_once("- ").unwrap().1.chars().take_while(char::is_ascii_digit).collect();
        let measured = match what.split_once(" of ").unwrap() {
            ("Size", name) => format!("sizeof({name})"),
            ("Alignment", name) => format!("alignof({name})"),
            (_, field) => {
                let (name, field) = field.strip_prefix("field: ").unwrap().split_once("::").unwrap();
                format!("offsetof({name}, {field})")
            }
        };
        writeln!(text, "static_assert({measured} == {bytes}, \"{what}\");").unwrap();
    }
    text
}

#[test]
fn parameter_structs_are_those_of_the_headers() {
    find_libclang().unwrap();
    let headers = headers();
    assert!(headers.len() >= 4, "only {} headers", headers.len());
    let mut stale = Vec::new();
    for made in headers.iter().map(|header| make(header)) {
        for (path, text) in [&made.rust, &made.cpp] {
            if env::var_os("LOWKEY_WRITE_BINDINGS").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            } else if fs::read_to_string(path).ok().as_ref() != Some(text) {
                stale.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
        assert!(made.rust.1.contains("struct"), "no struct in {}", made.folder);
    }
    assert!(stale.is_empty(), "run tools/bindings: {stale:?} differ from what the headers say");
}

#[test]
fn every_source_asserts_the_layout() {
    for header in headers() {
        let text = fs::read_to_string(&header).unwrap();
        assert!(text.contains("#include \"layout.h\""), "{} does not include layout.h", header.display());
    }
}
