//! The CUDA backend on a driver made for tests: what is absent is named, what is there works, faults poison the device.
//!
//! The driver is a stand-in with the emulator behind it; cudarc loads it as it would NVIDIA's, in a process of its own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use lowkey::{Device, Dtype, Purpose, Tensor, device::architectures, nn};

use crate::{
    emulator::{Variant, compiler},
    support::library,
};

/// A folder with a libcuda that lacks one symbol, or none.
fn driver(without: Option<&str>) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drivers").join(without.unwrap_or("whole"));
    std::fs::create_dir_all(&folder).unwrap();
    // Written aside and renamed: tests run at once, and another may be loading it.
    let staged = folder.join(format!("libcuda.{:?}", std::thread::current().id()));
    let mut command = Command::new(compiler().expect("a C++ compiler"));
    command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]);
    command.arg(format!("-I{}", library::root().join("kernels").display()));
    command.args(without.map(|symbol| format!("-D{symbol}=hidden_{symbol}")));
    command.arg("-o").arg(&staged).arg(library::root().join("tests/fake_driver/libcuda.cpp")).arg("-ldl");
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    std::fs::rename(staged, folder.join("libcuda.so")).unwrap();
    folder
}

/// Runs tests of this program on `cuda:0` in a new process; returns whether they passed and what they said.
fn on_gpu(filter: &[&str], gpu: &str, driver: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(filter).args(["--nocapture", "--test-threads=1"]);
    command.env("LOWKEY_TEST_DEVICE", "cuda:0").env("LOWKEY_FAKE_GPU", gpu);
    command.env("LOWKEY_FAKE_EMULATOR", library::build_all(Variant::Plain));
    match driver {
        Some(folder) => command.env("LD_LIBRARY_PATH", folder),
        None => command.env_remove("LD_LIBRARY_PATH"),
    };
    let run = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    (run.status.success(), text)
}

/// Whether this build has kernels for GPUs. A test that needs them is skipped where it has none, unless
/// `LOWKEY_CUDA=require` is set.
fn has_kernels() -> bool {
    let has = !architectures().is_empty();
    assert!(has || env::var("LOWKEY_CUDA").as_deref() != Ok("require"), "kernels are required, and nvcc built none");
    if !has {
        eprintln!("skipped: this build has no CUDA kernels");
    }
    has
}

/// What `report` below says on a GPU that `gpu` describes.
fn reported(gpu: &str, driver: Option<&Path>) -> String {
    let (passed, text) = on_gpu(&["cuda::a_gpu_is_used_or_what_is_missing_is_named", "--exact"], gpu, driver);
    assert!(passed, "{text}");
    text.lines().filter(|line| line.starts_with("said: ")).collect::<Vec<_>>().join("\n")
}

fn say<T: std::fmt::Debug>(what: &str, result: Result<T, lowkey::Error>) {
    match result {
        Ok(value) => println!("said: {what}: ok {value:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.contains("; "), "an error is one line with a hint: {text}");
            println!("said: {what}: {text}");
        }
    }
}

/// Every step is tried whatever became of the one before.
fn report() {
    // The harness has begun a line.
    println!();
    let device = match Device::cuda(0) {
        Ok(device) => device,
        Err(error) => return say::<()>("open", Err(error)),
    };
    say("second", Device::cuda(0).map(|second| second == device));
    let _weights = Tensor::zeros(&[100_000], Dtype::F32, &device.accounting(Purpose::Weights));
    say("allocate", Tensor::zeros(&[1 << 40], Dtype::F32, &device).map(|_| ()));
    let (x, y) = (Tensor::from_slice(&[1.0f32, 2.0], &[2], &device), Tensor::from_slice(&[3.0f32, 4.0], &[2], &device));
    let (Ok(mut x), Ok(y)) = (x, y) else { return println!("said: no memory") };
    say("add", nn::add(&mut x, &y));
    say("wait", device.synchronize());
    say("read", x.to_f32_vec());
    say("add again", nn::add(&mut x, &y));
    say("read again", x.to_f32_vec());
    say("allocate again", Tensor::zeros(&[4], Dtype::F32, &device).map(|_| ()));
    say("stream", device.new_stream().map(|_| ()));
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_gpu_is_used_or_what_is_missing_is_named() {
    if env::var_os("LOWKEY_FAKE_GPU").is_some() {
        return report();
    }
    if !has_kernels() {
        return;
    }
    let whole = driver(None);
    let text = reported("", Some(&whole));
    assert_says(&text, &["second: ok true", "add: ok", "wait: ok", "read: ok [4.0, 6.0]", "read again: ok [7.0, 10.0]"]);
}

#[test]
fn a_machine_without_a_driver_says_so() {
    assert_says(&reported("", None), &["open: device cuda:0", "no NVIDIA driver", "580", "--device cpu"]);
}

#[test]
fn what_a_driver_lacks_is_named() {
    let whole = driver(None);
    for (gpu, expected) in [
        ("version=12040", &["is for CUDA 12.4", "CUDA 13.0 is needed", "580"][..]),
        ("init=100", &["no GPU", "nvidia-smi"]),
        ("init=803", &["does not start", "803"]),
    ] {
        assert_says(&reported(gpu, Some(&whole)), expected);
    }
    let text = reported("", Some(&driver(Some("cuMemAllocAsync"))));
    assert_says(&text, &["has no cuMemAllocAsync", "580"]);
}

#[test]
fn what_a_gpu_lacks_is_named() {
    if !has_kernels() {
        return;
    }
    let whole = driver(None);
    assert_says(&reported("gpus=0", Some(&whole)), &["has 0 GPUs"]);
    let text = reported("capability=75", Some(&whole));
    assert_says(&text, &["Fake GPU has compute capability 7.5", "8.0 or newer is needed"]);
}

#[test]
fn an_image_that_the_gpu_cannot_run_is_named() {
    if !has_kernels() {
        return;
    }
    let text = reported("image=209 capability=87", Some(&driver(None)));
    assert_says(
        &text,
        &["kernel nn_add_f32: nn/add.cu has no image for Fake GPU (compute capability 8.7)", "sm_80", "wait: ok"],
    );
}

#[test]
fn memory_that_runs_out_is_told_in_figures() {
    if !has_kernels() {
        return;
    }
    let text = reported("memory=1000000", Some(&driver(None)));
    assert_says(&text, &["4398046511104 bytes asked for activations", "600000 free of 1000000", "weights (400000)"]);
    assert_says(&text, &["read: ok [4.0, 6.0]"]);
}

#[test]
fn a_fault_names_the_kernel_and_poisons_the_device() {
    if !has_kernels() {
        return;
    }
    let text = reported("fault=nn_add_f32", Some(&driver(None)));
    assert_says(
        &text,
        &["add: ok", "wait: cuda:0 failed and cannot be used any more", "CUDA_ERROR_LAUNCH_FAILED in kernel nn_add_f32"],
    );
    for step in ["read", "add again", "read again", "allocate again", "stream"] {
        assert_says(&text, &[&format!("said: {step}: ")]);
        assert!(!text.contains(&format!("said: {step}: ok")), "{text}");
    }
}

#[test]
fn devices_and_kernels_pass_on_the_cuda_backend() {
    if !has_kernels() {
        return;
    }
    let whole = driver(None);
    for filter in ["device::", "kernels::every_instantiation"] {
        let (passed, text) = on_gpu(&[filter], "", Some(&whole));
        assert!(passed && text.contains("test result: ok.") && !text.contains(" 0 passed"), "{filter}: {text}");
    }
}
