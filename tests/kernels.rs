//! What holds for every kernel: each instantiation agrees with an oracle and with the CPU path, under every schedule and
//! on every architecture; comparisons notice a mutated kernel; no barrier is there for nothing; no access is a race or out
//! of bounds.

use std::{
    any::Any,
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
};

use lowkey::{
    Device,
    device::{Emulation, Site, kernels},
};

use crate::{
    emulator::Variant,
    support::{self, Against, Family, Scale, emulate, library},
};

/// Every family of kernels that operations use. Conformance kernels have promises of their own.
const FAMILIES: &[Family] = &[
    crate::kernels_attention::FAMILY,
    crate::kernels_bench::FAMILY,
    crate::kernels_linear::FAMILY,
    crate::kernels_nn::FAMILY,
    crate::kernels_sparse::FAMILY,
    crate::kernels_svd::FAMILY,
];

/// How many random schedules follow 0 and 1.
const RANDOM: u64 = 8;

fn emulation(schedule: u64) -> Emulation {
    Emulation { schedule, threads: 2, ..Emulation::default() }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// The bytes that a family's comparison gives on devices of one emulation, or what it complains of.
fn compare(family: &Family, emulation: &Emulation, scale: Scale) -> Result<Vec<u8>, String> {
    catch_unwind(AssertUnwindSafe(|| (family.compare)(&|| emulate(emulation), scale))).map_err(|panic| text(&*panic))
}

#[test]
fn every_instantiation_agrees_with_an_oracle_and_the_cpu() {
    for family in FAMILIES {
        (family.compare)(&support::device, Scale::Every);
    }
    let folder = |source: &str| source.split('/').next().unwrap_or("").to_owned();
    let mut missing = Vec::new();
    for kernel in kernels().iter().filter(|kernel| folder(kernel.source) != "conformance") {
        for against in [Against::Oracle, Against::Cpu] {
            // What measures a GPU has no counterpart on the CPU.
            let has_none = folder(kernel.source) == "bench" && against == Against::Cpu;
            if !has_none && !support::was_compared(kernel.name, against) {
                missing.push(format!("{} of {}: never compared with {against:?}", kernel.name, kernel.source));
            }
        }
    }
    assert!(!kernels().is_empty() && missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_smallest_instantiations_agree() {
    for family in FAMILIES {
        (family.compare)(&support::device, Scale::Smallest);
    }
}

#[test]
#[ignore = "slow: every kernel ten times"]
fn results_do_not_depend_on_the_schedule() {
    for family in FAMILIES {
        let first = compare(family, &emulation(0), Scale::Every).unwrap();
        assert!(!first.is_empty(), "{} compares nothing", family.folder);
        for schedule in 1..2 + RANDOM {
            let bytes = compare(family, &emulation(schedule), Scale::Every).unwrap();
            assert!(bytes == first, "{}: schedule {schedule} gives other bits than schedule 0", family.folder);
        }
    }
}

#[test]
fn kernels_run_within_the_limits_of_every_architecture() {
    for architecture in [80, 90, 100, 120] {
        for family in FAMILIES {
            compare(family, &Emulation { architecture, ..emulation(2) }, Scale::Every)
                .unwrap_or_else(|why| panic!("{} on {architecture}: {why}", family.folder));
        }
    }
}

/// The sources of a family.
fn family_sources(family: &Family) -> Vec<PathBuf> {
    let mut sources = library::kernel_sources();
    sources.retain(|path| path.parent().unwrap().ends_with(family.folder));
    sources
}

/// The sources of a family, one of them mutated.
fn mutated_sources(family: &Family) -> Vec<PathBuf> {
    let mutation = &family.mutation;
    let original = library::root().join("kernels").join(mutation.file);
    let source = fs::read_to_string(&original).unwrap();
    assert_eq!(source.matches(mutation.from).count(), 1, "{:?} in {}", mutation.from, mutation.file);
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants").join(mutation.file);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, source.replace(mutation.from, mutation.to)).unwrap();
    let mut sources = family_sources(family);
    for path in sources.iter_mut().filter(|path| **path == original) {
        path.clone_from(&copy);
    }
    sources
}

#[test]
#[ignore = "slow: compiles every kernel again"]
fn comparisons_notice_a_mutated_kernel() {
    for family in FAMILIES {
        let compare_built = |name: &str, sources: &[PathBuf]| {
            let built = library::build(&format!("{name}_{}", family.folder), Variant::Plain, sources, &[]);
            compare(family, &Emulation { library: Some(built), ..emulation(0) }, Scale::Every)
        };
        // Built the same way without the mutation, so that it is the mutation that is noticed.
        compare_built("unmutated", &family_sources(family)).unwrap_or_else(|why| panic!("{}: {why}", family.folder));
        let unnoticed = compare_built("mutant", &mutated_sources(family));
        assert!(unnoticed.is_err(), "{}: nobody notices {:?}", family.folder, family.mutation.to);
    }
}

#[test]
#[ignore = "slow: compiles every kernel again"]
fn no_access_is_a_race_out_of_bounds_or_undefined() {
    let checked = library::build_all(Variant::Checked);
    for family in FAMILIES {
        for schedule in [0, 1, 2] {
            let emulation = Emulation { library: Some(checked.clone()), ..emulation(schedule) };
            assert!(emulate(&emulation).is_checked());
            compare(family, &emulation, Scale::Smallest).unwrap_or_else(|why| panic!("{}: {why}", family.folder));
        }
    }
}

/// The places in the project's own sources where a family's smallest kernels order threads or memory.
fn sites(family: &Family) -> Vec<Site> {
    let traced = Emulation { trace: true, ..emulation(0) };
    let devices = std::cell::RefCell::new(Vec::new());
    let make = || {
        let device = emulate(&traced);
        devices.borrow_mut().push(device.clone());
        device
    };
    (family.compare)(&make, Scale::Smallest);
    let mut sites: Vec<Site> = devices.borrow().iter().flat_map(Device::sites).collect();
    sites.sort();
    sites.dedup();
    sites
}

/// Whether anyone notices that one synchronization does nothing: first by results and errors, then by the race checker.
fn is_missed(family: &Family, site: &Site, checked: &Path) -> bool {
    let skip = Some(site.clone());
    let plain = (0..2 + RANDOM)
        .any(|schedule| compare(family, &Emulation { skip: skip.clone(), ..emulation(schedule) }, Scale::Smallest).is_err());
    plain
        || (0..3).any(|schedule| {
            let library = Some(checked.to_owned());
            compare(family, &Emulation { skip: skip.clone(), library, ..emulation(schedule) }, Scale::Smallest).is_err()
        })
}

#[test]
#[ignore = "slow: compiles every kernel again"]
fn every_barrier_and_wait_is_missed_when_it_is_skipped() {
    let checked = library::build_all(Variant::Checked);
    let mut unmissed = BTreeMap::new();
    let mut walked = 0;
    for family in FAMILIES {
        for site in sites(family) {
            walked += 1;
            if !is_missed(family, &site, &checked) {
                unmissed.insert(format!("{}:{}", site.file, site.line), format!("{} in {}", site.kind, family.folder));
            }
        }
    }
    println!("{walked} synchronizations skipped");
    assert!(unmissed.is_empty(), "nobody misses these, so they are not needed or not tested: {unmissed:#?}");
}

/// Run by the test below in a process that the address sanitizer was loaded into first.
#[test]
#[ignore = "slow: compiles every kernel again"]
fn kernels_pass_under_the_sanitizers_of_the_compiler() {
    let Ok(library) = env::var("LOWKEY_SANITIZED_EMULATOR") else {
        return sanitized_process();
    };
    for family in FAMILIES {
        let emulation = Emulation { library: Some(library.clone().into()), threads: 1, ..emulation(2) };
        compare(family, &emulation, Scale::Smallest).unwrap_or_else(|why| panic!("{}: {why}", family.folder));
    }
    println!("sanitized");
}

fn sanitized_process() {
    let library = library::build_all(Variant::Sanitized);
    let compiler = crate::emulator::compiler().unwrap();
    let runtime = Command::new(compiler).arg("-print-file-name=libasan.so").output().unwrap().stdout;
    let runtime = String::from_utf8(runtime).unwrap();
    let run = Command::new(env::current_exe().unwrap())
        .args(["kernels::kernels_pass_under_the_sanitizers_of_the_compiler", "--exact", "--nocapture", "--include-ignored"])
        .env("LD_PRELOAD", runtime.trim())
        .env("ASAN_OPTIONS", "detect_leaks=0:verify_asan_link_order=0:use_sigaltstack=0")
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .env("LOWKEY_SANITIZED_EMULATOR", library)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && text.contains("sanitized"), "{text}");
}
