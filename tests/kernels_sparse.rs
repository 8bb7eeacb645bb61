//! The kernels of masks: every bit is that of a stable sort and of the CPU path.

use lowkey::{
    Device, Dtype, Error, Scratch, Tensor,
    device::Emulation,
    sparse::{self, Mask, Scope},
};

use crate::{
    sparse::{FLOATS, KINDS, expected, packed, poisoned, scopes, scores, strided, strided_on},
    support::{self, Against, Family, Maker, Mutation, Scale, agreed, emulate},
};

pub(crate) const FAMILY: Family = Family {
    folder: "sparse",
    compare,
    mutation: Mutation {
        file: "sparse/pattern.cu",
        from: "larger[j] += keys[j] <= keys[i];",
        to: "larger[j] += keys[j] < keys[i];",
    },
};

fn compare(make: &Maker<'_>, scale: Scale) -> Vec<u8> {
    // More rows than the block that adds up their ties has threads.
    let mut shapes = vec![(2, 97), (300, 3)];
    let mut dtypes = vec![Dtype::F32, Dtype::F16];
    if scale == Scale::Every {
        shapes.extend([(1, 1), (5, 59), (2, 1025)]);
        dtypes.push(Dtype::BF16);
    }
    let mut bytes = Vec::new();
    for (rows, cols) in shapes {
        for dtype in dtypes.iter().copied() {
            let patterns = [Scope::Pattern { n: 2, m: 4 }, Scope::Pattern { n: 4, m: 8 }];
            let shares = [Scope::Row { keep: cols / 3 }, Scope::Tensor { keep: rows * cols / 3 }];
            for scope in patterns.into_iter().chain(shares) {
                bytes.extend(compare_mask(&make(), "ties", [rows, cols], dtype, scope));
            }
            bytes.extend(compare_application(&make(), [rows, cols], 3, dtype));
        }
    }
    bytes
}

/// The bytes of the mask that a device makes over poisoned memory, which are those of a stable sort and of the CPU.
fn compare_mask(device: &Device, kind: &str, [rows, cols]: [usize; 2], dtype: Dtype, scope: Scope) -> Vec<u8> {
    let values = scores(kind, rows, cols);
    let here = strided(&values, cols, 0, dtype);
    let mut mask = poisoned(rows, cols).to_device(device).unwrap();
    let bytes = sparse::scratch_bytes(rows, cols, scope, device);
    let mut scratch = Scratch::with_bytes(device, bytes).unwrap();
    sparse::mask_into(&mut mask, &strided_on(device, &values, cols, 3, dtype), scope, &mut scratch).unwrap();
    assert_eq!(scratch.bytes(), bytes, "{scope:?}");
    let found = mask.bits().to_vec::<i8>().unwrap();
    let oracle = packed(&expected(&here.to_f32_vec().unwrap(), cols, scope), cols);
    assert!(found == oracle, "{kind} {rows}x{cols} {dtype} {scope:?}: not as a sort");
    agreed(device, Against::Oracle);
    let cpu = sparse::mask(&here, scope).unwrap().bits().to_vec::<i8>().unwrap();
    assert!(found == cpu, "{kind} {rows}x{cols} {dtype} {scope:?}: not as the CPU");
    agreed(device, Against::Cpu);
    found.into_iter().map(|byte| byte as u8).collect()
}

/// The bytes of masked weights, which are those that the mask keeps, and zeros.
fn compare_application(device: &Device, [rows, cols]: [usize; 2], gap: usize, dtype: Dtype) -> Vec<u8> {
    let odd = [f32::NAN, f32::INFINITY, -0.0, 1e-42, 3.5, -2.25, 1e5];
    let weights: Vec<f32> = (0..rows * cols).map(|i| odd[i % odd.len()]).collect();
    let (scope, here) = (Scope::Row { keep: cols / 2 }, strided(&weights, cols, gap, dtype));
    let chosen = strided(&scores("normal", rows, cols), cols, 0, dtype);
    let mask = sparse::mask(&chosen, scope).unwrap();
    let mut out = strided(&vec![f32::NAN; rows * cols], cols, 0, dtype).contiguous().unwrap().to_device(device).unwrap();
    let there = strided_on(device, &weights, cols, gap, dtype);
    sparse::apply_into(&mut out, &there, &mask.to_device(device).unwrap()).unwrap();
    let bits = |t: &Tensor| t.to_f32_vec().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let kept = expected(&chosen.to_f32_vec().unwrap(), cols, scope);
    let oracle: Vec<u32> = bits(&here).iter().zip(&kept).map(|(x, kept)| if *kept { *x } else { 0 }).collect();
    let found = bits(&out);
    assert!(found == oracle, "{rows}x{cols}+{gap} {dtype}: not what the mask keeps");
    agreed(device, Against::Oracle);
    assert!(found == bits(&sparse::apply(&here, &mask).unwrap()), "{rows}x{cols}+{gap} {dtype}: not as the CPU");
    agreed(device, Against::Cpu);
    found.iter().flat_map(|bits| bits.to_ne_bytes()).collect()
}

#[test]
fn masks_of_a_device_are_exact_whatever_the_scores() {
    let device = support::device();
    let assert_exact = |kind: &str, [rows, cols]: [usize; 2], dtype: Dtype| {
        for scope in scopes(rows, cols) {
            compare_mask(&device, kind, [rows, cols], dtype, scope);
        }
    };
    for kind in KINDS {
        for shape in [[1, 1], [5, 59], [3, 97], [2, 1025]] {
            FLOATS.iter().for_each(|dtype| assert_exact(kind, shape, *dtype));
        }
    }
    assert_exact("normal", [2, 4097], Dtype::F32);
    assert_exact("ties", [300, 33], Dtype::F16);
}

/// Rows that do not fit shared memory, and more columns than one block counts.
#[test]
fn long_rows_are_read_again_and_again() {
    let shape = [1, (1 << 16) + 35];
    for scope in [Scope::Row { keep: 20_000 }, Scope::Tensor { keep: 30_000 }, Scope::Pattern { n: 2, m: 4 }] {
        compare_mask(&support::device(), "normal", shape, Dtype::F32, scope);
        compare_mask(&support::device(), "ties", shape, Dtype::BF16, scope);
    }
}

/// Lengths and gaps with rows that are aligned for vector loads and rows that are not.
#[test]
fn masks_are_applied_to_rows_at_any_address() {
    for (shape, gap) in [([1, 1], 0), ([4, 59], 5), ([3, 97], 0), ([6, 96], 0), ([6, 96], 1), ([5, 1025], 7), ([7, 1024], 0)] {
        for dtype in FLOATS {
            compare_application(&support::device(), shape, gap, dtype);
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
                let device = emulate(&Emulation { schedule, threads: 2, ..Emulation::default() });
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

#[test]
fn scratch_of_another_device_is_refused() {
    let device = support::device();
    let x = strided_on(&device, &scores("normal", 3, 59), 59, 0, Dtype::F32);
    let mut out = Mask::zeros(3, 59, &device).unwrap();
    support::refuses_scratch_of_the_cpu(&device, |scratch| sparse::mask_into(&mut out, &x, Scope::Tensor { keep: 9 }, scratch));
}

/// What is copied into and out of the scratch follows the work on the scores.
#[test]
fn a_mask_is_made_on_the_stream_of_its_scores() {
    let device = support::device();
    let (values, stream) = (scores("normal", 97, 1025), device.new_stream().unwrap());
    let scope = Scope::Tensor { keep: 9999 };
    let there = strided_on(&stream, &values, 1025, 0, Dtype::F32);
    let oracle = packed(&expected(&values, 1025, scope), 1025);
    let mut out = Mask::zeros(97, 1025, &stream).unwrap();
    let mut scratch = Scratch::new(&device);
    for _ in 0..3 {
        sparse::mask_into(&mut out, &there, scope, &mut scratch).unwrap();
        assert!(out.bits().to_vec::<i8>().unwrap() == oracle);
    }
}
