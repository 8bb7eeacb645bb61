//! What a machine lacks when the crate is built is named, and costs only what needs it. The build script is run by itself,
//! with compilers that are scripts of the test.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use tempfile::TempDir;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The build script as a program.
fn script() -> &'static Path {
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build-script");
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let run = Command::new(rustc)
            .args(["--edition", "2024", "--crate-name", "build_script", "-Adead_code", "-o"])
            .arg(&program)
            .arg(root().join("build.rs"))
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        program
    })
}

/// A package with two small sources, a place for output, and folders of programs to find on PATH.
struct Place {
    folder: TempDir,
}

const SOURCE: &str = "KERNEL(nn_NAME, Params, 128) {}\n";

impl Place {
    fn new() -> Self {
        let place = Self { folder: TempDir::new().unwrap() };
        for folder in ["kernels/nn", "kernels/device", "out", "bin"] {
            fs::create_dir_all(place.path(folder)).unwrap();
        }
        fs::write(place.path("kernels/device/kernel.cuh"), "").unwrap();
        fs::write(place.path("kernels/nn/add.cu"), SOURCE.replace("NAME", "add")).unwrap();
        fs::write(place.path("kernels/nn/fast_sm90.cu"), SOURCE.replace("NAME", "fast")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// An nvcc that notes what it is asked for, and makes an image and a depfile.
    fn nvcc(&self, version: &str) -> PathBuf {
        let log = self.path("nvcc.log").display().to_string();
        let header = self.path("kernels/device/kernel.cuh").display().to_string();
        self.program(
            "nvcc",
            &format!(
                r#"[ "$1" != --version ] || {{ echo "Cuda compilation tools, release {version}, V{version}.88"; exit 0; }}
echo "$@" >>{log}
while [ $# -gt 1 ]; do
    case $1 in -o) out=$2 ;; -MF) dep=$2 ;; esac
    shift
done
echo image >"$out"
echo "$out: $1 {header}" >"$dep""#
            ),
        )
    }

    fn nvcc_runs(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("nvcc.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn build(&self, features: &[&str], variables: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(script());
        command.env_clear().current_dir(self.folder.path());
        command.env("PATH", self.path("bin")).env("NUM_JOBS", "2");
        command.env("CARGO_MANIFEST_DIR", self.folder.path()).env("OUT_DIR", self.path("out"));
        command.envs(features.iter().map(|feature| (format!("CARGO_FEATURE_{feature}"), "1")));
        command.envs(variables.iter().copied()).output().unwrap()
    }

    fn table(&self) -> String {
        fs::read_to_string(self.path("out/table.rs")).unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn assert_says(output: &Output, success: bool, parts: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.success(), success, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn without_nvcc_kernels_are_known_and_have_no_images() {
    let place = Place::new();
    let output = place.build(&["CUDA"], &[]);
    assert_says(&output, true, &["cargo::warning=nvcc was not found", "tools/setup", "without CUDA kernels"]);
    let table = place.table();
    assert!(table.contains("name: \"nn_add\", source: \"nn/add.cu\", max_threads: 128"), "{table}");
    assert!(table.contains("ARCHITECTURES: &[&str] = &[]") && !table.contains("include_bytes"), "{table}");
    let handles = fs::read_to_string(place.path("out/nn.rs")).unwrap();
    assert!(handles.contains("NN_ADD: Kernel<Params> = Kernel::new(0)"), "{handles}");
    assert!(handles.contains("NN_FAST: Kernel<Params> = Kernel::new(1)"), "{handles}");
    let off = place.build(&["CUDA"], &[("LOWKEY_CUDA", Path::new("off"))]);
    assert!(off.status.success() && !said(&off).contains("warning"), "{}", said(&off));
}

#[test]
fn required_kernels_are_an_error_without_nvcc() {
    let place = Place::new();
    let require = ("LOWKEY_CUDA", Path::new("require"));
    assert_says(&place.build(&["CUDA"], &[require]), false, &["cargo::error=LOWKEY_CUDA=require", "nvcc was not found"]);
    let missing = place.path("no/nvcc");
    assert_says(&place.build(&["CUDA"], &[require, ("NVCC", &missing)]), false, &["no/nvcc does not run"]);
    let old = place.nvcc("12.4");
    assert_says(&place.build(&["CUDA"], &[require, ("NVCC", &old)]), false, &["version 12.4", "13.0 or newer is needed"]);
    assert_says(
        &place.build(&["CUDA"], &[("LOWKEY_CUDA", Path::new("maybe"))]),
        false,
        &["LOWKEY_CUDA=maybe", "auto, require or off"],
    );
}

#[test]
fn every_source_is_compiled_once_for_its_architectures() {
    let place = Place::new();
    let nvcc = place.nvcc("13.0");
    let with_nvcc = [("NVCC", nvcc.as_path())];
    assert_says(&place.build(&["CUDA"], &with_nvcc), true, &[]);
    let table = place.table();
    assert!(table.contains(r#"&["sm_80", "sm_90", "sm_100", "sm_120", "compute_80"]"#), "{table}");
    assert_eq!(table.matches("include_bytes!").count(), 2, "{table}");
    let mut runs = place.nvcc_runs();
    runs.sort_by_key(|run| run.contains("_sm90"));
    assert_eq!(runs.len(), 2, "{runs:?}");
    for target in ["code=sm_80", "code=sm_90", "code=sm_100", "code=sm_120", "arch=compute_80,code=compute_80"] {
        assert!(runs[0].contains(target), "{}", runs[0]);
    }
    assert!(runs[1].contains("code=sm_90a") && runs[1].matches("-gencode").count() == 1, "{}", runs[1]);
    // Nothing changed, nothing is compiled; a header compiles what reads it, other flags everything.
    place.build(&["CUDA"], &with_nvcc);
    assert_eq!(place.nvcc_runs().len(), 2);
    let later = fs::metadata(place.path("out/nn_add.fatbin")).unwrap().modified().unwrap() + std::time::Duration::from_secs(2);
    fs::File::options().write(true).open(place.path("kernels/nn/add.cu")).unwrap().set_modified(later).unwrap();
    place.build(&["CUDA"], &with_nvcc);
    assert_eq!(place.nvcc_runs().len(), 3);
    let narrow = [with_nvcc[0], ("LOWKEY_CUDA_ARCHS", Path::new("90"))];
    place.build(&["CUDA"], &narrow);
    assert!(place.nvcc_runs()[3..].iter().any(|run| run.contains("code=sm_90 ") && !run.contains("sm_80")));
    // PTX is of the oldest, wherever it stands in the list, or of none.
    let mixed = [with_nvcc[0], ("LOWKEY_CUDA_ARCHS", Path::new("120,90a,100"))];
    place.build(&["CUDA"], &mixed);
    assert!(place.table().contains(r#"&["sm_120", "sm_90a", "sm_100", "compute_100"]"#), "{}", place.table());
    assert!(place.nvcc_runs().last().unwrap().contains("arch=compute_100,code=compute_100"), "{:?}", place.nvcc_runs());
    place.build(&["CUDA"], &[mixed[0], mixed[1], ("LOWKEY_CUDA_PTX", Path::new("off"))]);
    assert!(place.table().contains(r#"&["sm_120", "sm_90a", "sm_100"]"#), "{}", place.table());
    assert!(!place.nvcc_runs().last().unwrap().contains("code=compute_"), "{:?}", place.nvcc_runs());
    let unclear = [with_nvcc[0], ("LOWKEY_CUDA_PTX", Path::new("some"))];
    assert_says(&place.build(&["CUDA"], &unclear), false, &["LOWKEY_CUDA_PTX=some", "on or off"]);
    let wrong = [with_nvcc[0], ("LOWKEY_CUDA_ARCHS", Path::new("ampere"))];
    assert_says(&place.build(&["CUDA"], &wrong), false, &["LOWKEY_CUDA_ARCHS", "ampere"]);
}

#[test]
fn a_source_that_does_not_compile_fails_the_build_with_its_message() {
    let place = Place::new();
    let broken = r#"[ "$1" != --version ] || { echo "release 13.0, V13.0.88"; exit 0; }
echo 'add.cu(7): error: no such thing' >&2
exit 1"#;
    let nvcc = place.program("nvcc", broken);
    assert_says(&place.build(&["CUDA"], &[("NVCC", &nvcc)]), false, &["cargo::error=add.cu(7): error: no such thing"]);
}

#[test]
fn kernel_lines_that_mean_nothing_are_named_with_their_place() {
    for (line, expected) in [
        ("KERNEL(nn_x, Params)", "expected KERNEL(name, Params, max_threads)"),
        ("KERNEL(nn_x, Params, kThreads)", "max_threads is a literal number"),
        ("KERNEL(other_x, Params, 128)", "begins with its folder's, nn_"),
        ("KERNEL(nn_add, Params, 128)", "kernel nn_add is in"),
        ("// no kernel", "no line begins with KERNEL"),
    ] {
        let place = Place::new();
        fs::write(place.path("kernels/nn/more.cu"), format!("{line}\n")).unwrap();
        assert_says(&place.build(&[], &[]), false, &[expected, "more.cu"]);
    }
}

#[test]
fn without_a_cpp_compiler_there_is_no_emulator_and_a_warning() {
    let place = Place::new();
    let output = place.build(&["EMULATOR"], &[]);
    assert_says(&output, true, &["cargo::warning=no C++ compiler was found", "without the emulator", "g++"]);
    assert!(!said(&output).contains("rustc-cfg=lowkey_emulator"));
    let missing = place.path("no-such-compiler");
    assert_says(&place.build(&["EMULATOR"], &[("CXX", &missing)]), true, &["no C++ compiler was found"]);
}

#[test]
fn setup_says_which_package_is_missing() {
    let place = Place::new();
    // Everything that setup needs but a C++ compiler and a Python with pip.
    let needed = [
        "bash", "cat", "cmp", "cut", "cc", "ld", "as", "dirname", "env", "find", "head", "mkdir", "mktemp", "mv", "printf",
        "rm", "rmdir", "sed", "sort", "tail", "touch", "tr", "uname", "cp",
    ];
    for name in needed {
        let found =
            std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|folder| folder.join(name)).find(|p| p.exists());
        if let Some(found) = found {
            symlink(found, place.path("bin").join(name)).unwrap();
        }
    }
    place.program("bin/python3", "echo 'No module named pip' >&2; exit 1");
    for (name, text) in
        [("cargo", "exit 0"), ("rustc", "case $1 in --version) echo 'rustc 1.95.0 (x)';; -vV) echo 'host: x';; esac")]
    {
        place.program(&format!("bin/{name}"), text);
    }
    fs::create_dir_all(place.path("tools")).unwrap();
    for name in ["Cargo.toml", "build.rs", "tools/setup", "tools/cuda-requirements.txt"] {
        fs::copy(root().join(name), place.path(name)).unwrap();
    }
    let setup = |mode: &str| {
        let mut command = Command::new(place.path("tools/setup"));
        command.env_clear().env("PATH", place.path("bin")).env("CARGO_HOME", place.path("none")).env("LOWKEY_CUDA", mode);
        command.output().unwrap()
    };
    let auto = setup("auto");
    assert_says(&auto, true, &["warning: no C++ compiler", "apt-get install g++", "has no pip", "apt-get install python3-pip"]);
    assert_says(&setup("require"), false, &["error: no C++ compiler"]);
    assert_says(&setup("off"), true, &["no C++ compiler"]);
}

fn bindings(arguments: &[&str], libclang: Option<&str>) -> Output {
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(root().join("tools/bindings/Cargo.toml"));
    command.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bindings")).arg("--").args(arguments);
    command.envs(libclang.map(|path| ("LIBCLANG_PATH", path)));
    command.output().unwrap()
}

/// Needs libclang, which `tools/setup` brings: where it is missing this fails and says so.
#[test]
fn parameter_structs_are_those_of_the_headers() {
    assert_says(&bindings(&["--check"], None), true, &["0 files stale"]);
}

#[test]
fn without_libclang_the_bindings_say_where_it_comes_from() {
    assert_says(&bindings(&["--check"], Some("/nowhere")), false, &["error: no libclang", "tools/setup"]);
}

#[test]
fn every_source_asserts_the_layout_that_rust_has() {
    let folders = fs::read_dir(root().join("kernels")).unwrap().map(|entry| entry.unwrap().path());
    let headers: Vec<PathBuf> = folders.map(|folder| folder.join("params.h")).filter(|path| path.is_file()).collect();
    assert!(headers.len() >= 6, "only {} headers", headers.len());
    for header in headers {
        assert!(fs::read_to_string(&header).unwrap().contains("#include \"layout.h\""), "{}", header.display());
    }
}
