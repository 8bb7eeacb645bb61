//! What the package promises to those who read and build it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Modules by floor, lowest first. What is on one floor may not see its neighbours, except on [`OPEN`].
const FLOORS: [&[&str]; 9] = [
    &["device"],
    &["tensor", "coded", "rope", "philox"],
    &["svd", "attention", "linear", "nn", "sparse"],
    &["cache"],
    &["model"],
    &["calibrate"],
    &["report"],
    &["bench"],
    &["bin"],
];

/// The floor whose modules build on each other: what a tensor is, and the plain data made of it.
const OPEN: usize = 1;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn module_of(path: &Path) -> String {
    let first = path.strip_prefix(source()).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The names right after `crate::`, in groups as well: `crate::{a::B, c}` gives a and c. Comments do not count.
fn modules_named(text: &str) -> Vec<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut named = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(group) => named.extend(first_names(group)),
            None => named.push(name_at(after)),
        }
    }
    named
}

fn name_at(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first name of every item up to the brace that closes the group.
fn first_names(group: &str) -> Vec<String> {
    let mut named = vec![name_at(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => named.push(name_at(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    named
}

#[test]
fn imports_are_found_in_every_form() {
    let text =
        "use crate::{Error, cache::{self, nn::Spec}, rope::Rope,\n linear};\nlet x = crate::svd::truncated(a); // crate::nn";
    let found = modules_named(text);
    for module in ["cache", "rope", "linear", "svd"] {
        assert!(found.iter().any(|name| name == module), "{module} is not among {found:?}");
    }
    assert!(!found.iter().any(|name| name == "nn"));
}

#[test]
fn a_file_imports_from_lower_floors_only() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    assert!(files.len() > 20, "only {} files under src", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let module = module_of(path);
        if ["lib", "error"].contains(&module.as_str()) {
            continue;
        }
        let Some(floor) = floor_of(&module) else {
            wrong.push(format!("{module} is on no floor"));
            continue;
        };
        for name in modules_named(&fs::read_to_string(path).unwrap()) {
            let Some(other) = floor_of(&name) else { continue };
            if name != module && (other > floor || other == floor && floor != OPEN) {
                wrong.push(format!("{} imports {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_documents_that_the_package_ships_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        let length = fs::metadata(root.join(name)).map(|file| file.len()).unwrap_or(0);
        assert!(length > 200, "{name} has {length} bytes");
    }
}

/// Cargo.toml builds no test harness for the library and the programs, so a test in them would never run.
#[test]
fn every_test_is_where_tests_are_run() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    files.retain(|path| fs::read_to_string(path).unwrap().contains("#[test]"));
    assert!(files.is_empty(), "{files:?}");
}
