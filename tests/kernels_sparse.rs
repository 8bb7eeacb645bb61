//! The kernels of masks: every bit is that of a stable sort and of the CPU path, under every schedule.

use lowkey::{
    Device, Dtype, Error, Scratch, Tensor,
    device::Emulation,
    sparse::{self, Mask, Scope},
};

use crate::{
    sparse::{FLOATS, KINDS, expected, packed, poisoned, scopes, scores, strided, strided_on},
    support,
};

fn emulate(schedule: u64, architecture: u32) -> Device {
    Device::emulate(Emulation { schedule, architecture, threads: 2, ..Emulation::default() }).unwrap()
}

/// The bytes of the mask that a device makes over poisoned memory.
fn mask_on(device: &Device, values: &[f32], cols: usize, gap: usize, dtype: Dtype, scope: Scope) -> Vec<i8> {
    let tensor = strided_on(device, values, cols, gap, dtype);
    let rows = values.len() / cols;
    let bits = Tensor::from_slice(&vec![-1i8; poisoned(rows, cols).bits().len()], poisoned(rows, cols).bits().shape(), device);
    let mut mask = Mask::from_bits(bits.unwrap(), cols).unwrap();
    let bytes = sparse::scratch_bytes(rows, cols, scope, device);
    let mut scratch = Scratch::with_bytes(device, bytes).unwrap();
    sparse::mask_into(&mut mask, &tensor, scope, &mut scratch).unwrap();
    assert_eq!(scratch.bytes(), bytes, "{scope:?}");
    mask.bits().to_vec().unwrap()
}

fn assert_exact(device: &Device, kind: &str, rows: usize, cols: usize, dtype: Dtype) {
    let values = scores(kind, rows, cols);
    let cpu = strided(&values, cols, 0, dtype);
    let rounded = cpu.to_f32_vec().unwrap();
    for scope in scopes(rows, cols) {
        let found = mask_on(device, &values, cols, 3, dtype, scope);
        assert_eq!(found, packed(&expected(&rounded, cols, scope), cols), "{kind} {rows}x{cols} {dtype} {scope:?}");
        assert_eq!(found, sparse::mask(&cpu, scope).unwrap().bits().to_vec::<i8>().unwrap(), "{kind} {scope:?}");
    }
}

#[test]
fn masks_of_a_device_equal_a_stable_sort_and_the_cpu() {
    let device = support::device();
    for kind in KINDS {
        for (rows, cols) in [(1, 1), (5, 59), (3, 97), (2, 1025)] {
            FLOATS.iter().for_each(|dtype| assert_exact(&device, kind, rows, cols, *dtype));
        }
    }
    assert_exact(&device, "normal", 2, 4097, Dtype::F32);
    assert_exact(&device, "ties", 300, 33, Dtype::F16);
}

/// A row that does not fit shared memory, and more columns than one block counts.
#[test]
fn long_rows_are_read_again_and_again() {
    let device = support::device();
    let cols = (1 << 16) + 35;
    for kind in ["normal", "ties"] {
        let values = scores(kind, 1, cols);
        for scope in [Scope::Row { keep: cols / 3 }, Scope::Tensor { keep: cols / 2 }, Scope::Pattern { n: 2, m: 4 }] {
            let found = mask_on(&device, &values, cols, 0, Dtype::F32, scope);
            assert_eq!(found, packed(&expected(&values, cols, scope), cols), "{kind} {scope:?}");
        }
    }
}

#[test]
fn masks_do_not_depend_on_the_schedule() {
    let (rows, cols) = (4, 1025);
    for dtype in [Dtype::F32, Dtype::BF16] {
        let values = scores("ties", rows, cols);
        for scope in [Scope::Row { keep: 500 }, Scope::Tensor { keep: 1999 }, Scope::Pattern { n: 4, m: 8 }] {
            let oracle = packed(&expected(&strided(&values, cols, 0, dtype).to_f32_vec().unwrap(), cols, scope), cols);
            for (schedule, architecture) in (0..10).zip([80, 90, 100, 120].into_iter().cycle()) {
                let found = mask_on(&emulate(schedule, architecture), &values, cols, 1, dtype, scope);
                assert_eq!(found, oracle, "schedule {schedule} {dtype} {scope:?}");
            }
        }
    }
}

#[test]
fn applying_a_mask_on_a_device_keeps_bits_and_writes_zeros() {
    // Lengths and gaps with rows that are aligned for vector loads and rows that are not.
    for (rows, cols, gap) in [(1, 1, 0), (4, 59, 5), (3, 97, 0), (6, 96, 0), (6, 96, 1), (5, 1025, 7), (7, 1024, 0)] {
        for dtype in FLOATS {
            for schedule in [0, 1, 2] {
                let device = emulate(schedule, 90);
                let odd = [f32::NAN, f32::INFINITY, -0.0, 1e-42, 3.5, -2.25, 1e5];
                let weights: Vec<f32> = (0..rows * cols).map(|i| odd[i % odd.len()]).collect();
                let mask = sparse::mask(&strided(&scores("normal", rows, cols), cols, 0, dtype), Scope::Row { keep: cols / 2 });
                let mask = mask.unwrap();
                let here = sparse::apply(&strided(&weights, cols, gap, dtype), &mask).unwrap();
                let poison = vec![f32::NAN; rows * cols];
                let mut out = strided(&poison, cols, 0, dtype).to_device(&device).unwrap();
                let there = strided_on(&device, &weights, cols, gap, dtype);
                sparse::apply_into(&mut out, &there, &mask.to_device(&device).unwrap()).unwrap();
                let bits = |t: &Tensor| t.to_f32_vec().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(&out), bits(&here), "{rows}x{cols}+{gap} {dtype} schedule {schedule}");
            }
        }
    }
}

#[test]
fn a_device_names_the_first_nan() {
    let (rows, cols) = (9, 1025);
    let mut values = scores("infinite", rows, cols);
    for (row, col) in [(8, 0), (5, 1024), (5, 77), (6, 3)] {
        values[row * cols + col] = f32::NAN.copysign(if col == 77 { -1.0 } else { 1.0 });
    }
    for dtype in FLOATS {
        for scope in
            [Scope::Row { keep: 3 }, Scope::Pattern { n: 2, m: 4 }, Scope::Tensor { keep: 9 }, Scope::Tensor { keep: 0 }]
        {
            for schedule in 0..4 {
                let device = emulate(schedule, 80);
                let error = sparse::mask(&strided_on(&device, &values, cols, 1, dtype), scope).unwrap_err();
                assert!(matches!(error, Error::Numeric { .. }), "{error}");
                assert!(error.to_string().contains("row 5, column 77 is NaN"), "{scope:?}: {error}");
            }
        }
    }
}

#[test]
fn what_a_device_cannot_do_is_a_named_error() {
    let device = support::device();
    let x = strided_on(&device, &scores("normal", 3, 59), 59, 0, Dtype::F32);
    let error = sparse::mask(&x, Scope::Pattern { n: 3, m: 7 }).unwrap_err();
    assert!(matches!(error, Error::Device { .. }) && error.to_string().contains("3:7"), "{error}");
    let here = Mask::zeros(3, 59, &Device::cpu()).unwrap();
    let error = sparse::apply(&x, &here).unwrap_err();
    assert!(matches!(error, Error::Device { .. }) && error.to_string().contains("mask on cpu"), "{error}");
    let mut shared = Mask::zeros(3, 59, &device).unwrap();
    let _other = shared.clone();
    let error = sparse::mask_into(&mut shared, &x, Scope::Row { keep: 1 }, &mut Scratch::new(&device)).unwrap_err();
    assert!(error.to_string().contains("shares"), "{error}");
}
