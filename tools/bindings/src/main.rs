//! Writes the Rust structs and the C++ layout assertions of every `params.h`, or with `--check` says which are stale.
//!
//! A package of its own: the library need not compile for it, which it does not while a struct changes.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bindgen::{
    Builder, FieldVisibilityKind,
    callbacks::{DeriveInfo, ParseCallbacks},
};

/// A file and what it should hold.
type Made = (PathBuf, String);

#[derive(Debug)]
struct PlainData;

impl ParseCallbacks for PlainData {
    fn add_derives(&self, _: &DeriveInfo<'_>) -> Vec<String> {
        ["bytemuck::Pod", "bytemuck::Zeroable"].map(str::to_owned).into()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// libclang, where `tools/setup` puts it or the environment says.
fn find_libclang() -> Result<(), String> {
    let named = env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| root().join(".toolkit/clang/native"));
    let holds_it = |name: &str| folder.join(name).exists() || folder.is_file();
    if !["libclang.so", "libclang.so.1", "libclang.dylib"].into_iter().any(holds_it) {
        return Err(format!("no libclang in {}: run tools/setup, or set LIBCLANG_PATH", folder.display()));
    }
    // SAFETY: no other thread runs yet.
    unsafe { env::set_var("LIBCLANG_PATH", folder) };
    Ok(())
}

fn headers() -> Vec<PathBuf> {
    let folders = fs::read_dir(root().join("kernels")).unwrap();
    let mut headers: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path().join("params.h")).collect();
    headers.retain(|path| path.is_file());
    headers.sort();
    headers
}

/// Where the structs of a folder live: beside the operation that fills them, or beside the tests.
fn rust_home(folder: &str) -> PathBuf {
    let operation = root().join("src").join(folder);
    if operation.is_dir() { operation.join("params.rs") } else { root().join("tests/params").join(format!("{folder}.rs")) }
}

/// The Rust structs and the C++ assertions for the header of one folder of kernels.
fn make(header: &Path) -> [Made; 2] {
    let folder = header.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let bindings = Builder::default()
        .header(header.to_str().unwrap())
        .clang_args(["-xc", "-fparse-all-comments", "-nostdinc", "-Wno-pragma-once-outside-header", &format!("-I{}", root().join("tools/bindings/include").display())])
        .allowlist_file(format!(".*{folder}/params.h"))
        .parse_callbacks(Box::new(PlainData))
        .default_visibility(FieldVisibilityKind::PublicCrate)
        .use_core()
        .generate()
        .unwrap()
        .to_string();
    let source = header.strip_prefix(root()).unwrap().display();
    let home = rust_home(&folder);
    // Tests are a crate of their own.
    let library = if home.starts_with(root().join("src")) { "crate" } else { "lowkey" };
    let rust = format!(
        "//! Made by `tools/bindings` from `{source}`.\n\n\
         use {library}::device::Address;\n\n{}",
        structs(&bindings)
    );
    [(home, rust), (header.with_file_name("layout.h"), layout(&bindings, &folder))]
}

/// The constants and structs, with addresses for pointers.
fn structs(bindings: &str) -> String {
    let mut text = String::new();
    for line in bindings.lines().skip_while(|line| !line.starts_with("#[") && !line.starts_with("pub const")) {
        let line = line.replace("pub struct", "pub(crate) struct").replace("pub const", "pub(crate) const");
        let line = line.replace(" :: ", "::");
        if let Some((indent, comment)) = line.split_once("#[doc = \"") {
            writeln!(text, "{indent}///{}", comment.trim_end_matches("\"]")).unwrap();
            continue;
        }
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
        let bytes: String = rest.split_once("- ").unwrap().1.chars().take_while(char::is_ascii_digit).collect();
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

/// Makes the files; with `check`, returns those that differ instead.
fn update(check: bool) -> Vec<String> {
    let mut stale = Vec::new();
    for (path, text) in headers().iter().flat_map(|header| make(header)) {
        if fs::read_to_string(&path).ok().as_ref() == Some(&text) {
            continue;
        }
        stale.push(path.strip_prefix(root()).unwrap().display().to_string());
        if !check {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
    }
    stale
}

fn main() -> ExitCode {
    if let Err(missing) = find_libclang() {
        eprintln!("error: {missing}");
        return ExitCode::from(2);
    }
    let check = env::args().any(|argument| argument == "--check");
    let stale = update(check);
    println!("{} headers, {} files {}", headers().len(), stale.len(), if check { "stale" } else { "written" });
    stale.iter().for_each(|path| println!("  {path}"));
    if check && !stale.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}
