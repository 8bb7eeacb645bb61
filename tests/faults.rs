//! What the emulator promises to notice, it notices and names: kernels with one planted fault each, `tests/faults/`.
//!
//! Each source lists its faults, with the words that the plain build's error and the checked build's must have.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lowkey::{
    Device,
    device::{Buffer, Emulation, Grid},
    philox::Stream,
};

use crate::{emulator::Variant, support::library};

/// One line of a source's table.
struct Fault {
    define: String,
    plain: String,
    checked: String,
}

/// A source and what its kernel takes.
struct Program {
    file: &'static str,
    kernel: &'static str,
    blocks: usize,
    shared: usize,
    /// Words of input, of output, and `count`.
    words: (usize, usize, usize),
}

const PROGRAMS: [Program; 5] = [
    Program { file: "barriers.cu", kernel: "fault_barriers", blocks: 3, shared: 1024, words: (384, 384, 384) },
    Program { file: "blocks.cu", kernel: "fault_blocks", blocks: 3, shared: 1024, words: (384, 384, 384) },
    Program { file: "copies.cu", kernel: "fault_copies", blocks: 2, shared: 4096, words: (2560, 256, 2560) },
    Program { file: "hopper_sm90.cu", kernel: "fault_hopper", blocks: 2, shared: 34304, words: (4096, 8192, 4096) },
    Program { file: "memory.cu", kernel: "fault_memory", blocks: 3, shared: 512, words: (348, 348, 348) },
];

fn source(program: &Program) -> PathBuf {
    library::root().join("tests/faults").join(program.file)
}

fn faults(program: &Program) -> Vec<Fault> {
    let text = fs::read_to_string(source(program)).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("// FAULT_"));
    let columns = |row: &str| row.split("  ").map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect::<Vec<_>>();
    rows.map(|row| match &columns(row)[..] {
        [define, plain, checked, _why] => {
            Fault { define: format!("-DFAULT_{define}"), plain: plain.clone(), checked: checked.clone() }
        }
        other => panic!("{}: {other:?}", program.file),
    })
    .collect()
}

fn buffer(device: &Device, words: &[u32]) -> Buffer {
    let mut buffer = device.alloc(4 * words.len()).unwrap();
    buffer.write(0, bytemuck::cast_slice(words)).unwrap();
    buffer
}

/// The output of a program, or the emulator's error.
fn run(program: &Program, library: &Path, schedule: u64) -> Result<Vec<u32>, String> {
    run_on(program, library, Emulation { schedule, ..Emulation::default() })
}

fn run_on(program: &Program, library: &Path, emulation: Emulation) -> Result<Vec<u32>, String> {
    let device = Device::emulate(Emulation { library: Some(library.to_owned()), ..emulation }).unwrap();
    let (inputs, outputs, count) = program.words;
    let random = Stream::new(3, 0);
    // Each half of a word is a bf16 between 0.5 and 2, so that products are finite.
    let input: Vec<u32> =
        (0..inputs as u64).map(|i| 0x3f00_3f00 | (random.uniform(i) * 65536.0) as u32 & 0x00ff_00ff).collect();
    let (input, output) = (buffer(&device, &input), buffer(&device, &vec![0xffff_ffff; outputs]));
    let scratch = buffer(&device, &vec![0; 1 + program.blocks]);
    let mut params = Vec::new();
    for address in [input.address(), output.address(), scratch.address()] {
        params.extend(address.get().to_ne_bytes());
    }
    params.extend((count as i32).to_ne_bytes());
    params.extend(0i32.to_ne_bytes());
    let grid = Grid { blocks: [program.blocks as u32, 1, 1], threads: 128, shared: program.shared };
    // SAFETY: the emulator stops a kernel that leaves its memory; that it does is what is tested.
    unsafe { device.launch_foreign(program.kernel, grid, &params) }.map_err(|error| error.to_string())?;
    let mut found = vec![0u32; outputs];
    output.read(0, bytemuck::cast_slice_mut(&mut found)).map_err(|error| error.to_string())?;
    Ok(found)
}

fn build(program: &Program, variant: Variant, define: Option<&str>) -> PathBuf {
    let name = format!("{}_{}", program.kernel, define.unwrap_or("clean").trim_start_matches("-D").to_lowercase());
    let defines: Vec<&str> = define.into_iter().collect();
    library::build(&name, variant, &[source(program)], &defines)
}

#[test]
#[ignore = "slow: compiles many small kernels"]
fn clean_kernels_pass_under_every_schedule() {
    for program in &PROGRAMS {
        let (plain, checked) = (build(program, Variant::Plain, None), build(program, Variant::Checked, None));
        let expected = run(program, &plain, 0).unwrap();
        for schedule in 1..10 {
            assert_eq!(run(program, &plain, schedule).unwrap(), expected, "{} schedule {schedule}", program.kernel);
        }
        for schedule in 0..4 {
            assert_eq!(run(program, &checked, schedule).unwrap(), expected, "{} schedule {schedule}", program.kernel);
        }
    }
}

#[test]
#[ignore = "slow: compiles many small kernels"]
fn the_plain_build_notices_what_it_promises() {
    for program in &PROGRAMS {
        let expected = run(program, &build(program, Variant::Plain, None), 0).unwrap();
        for fault in faults(program).iter().filter(|fault| fault.plain != "-") {
            let library = build(program, Variant::Plain, Some(&fault.define));
            let runs: Vec<_> = (0..10).map(|schedule| run(program, &library, schedule)).collect();
            let noticed = runs.iter().any(|run| match run {
                Ok(output) => fault.plain == "output" && *output != expected,
                Err(error) => fault.plain == "output" || error.contains(&fault.plain) && error.contains(program.kernel),
            });
            assert!(noticed, "{} {}: {:?}", program.file, fault.define, runs.iter().map(|r| r.is_ok()).collect::<Vec<_>>());
        }
    }
}

#[test]
#[ignore = "slow: compiles many small kernels"]
fn the_checked_build_names_every_fault() {
    let mut count = 0;
    for program in &PROGRAMS {
        for fault in faults(program) {
            let library = build(program, Variant::Checked, Some(&fault.define));
            let errors: Vec<String> = (0..3).filter_map(|schedule| run(program, &library, schedule).err()).collect();
            let named =
                |error: &String| fault.checked.split('|').any(|word| error.contains(word)) && error.contains(program.kernel);
            assert!(errors.iter().any(named), "{} {}: {errors:#?}", program.file, fault.define);
            count += 1;
        }
    }
    assert!(count >= 30, "only {count} faults are planted");
}

/// More shared memory than the architecture has, and a kernel for Hopper elsewhere.
#[test]
fn limits_of_an_architecture_are_named() {
    let launch = |architecture, program: &Program| {
        let library = build(program, Variant::Plain, None);
        run_on(program, &library, Emulation { architecture, ..Emulation::default() })
    };
    let large = Program { shared: 100 * 1024, ..PROGRAMS[0] };
    let error = launch(120, &large).unwrap_err();
    let expected = "fault_barriers: 102400 bytes of shared memory: architecture 120 has 101376";
    assert!(error.contains(expected), "{error}");
    assert_eq!(launch(90, &large).unwrap(), launch(120, &PROGRAMS[0]).unwrap(), "an H100 has as much");
    let error = launch(80, &PROGRAMS[3]).unwrap_err();
    assert!(error.contains("fault_hopper: is made for architecture 90, not 80"), "{error}");
}
