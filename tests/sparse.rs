//! Masks keep exactly the largest magnitudes, ties by position, and change nothing that they keep.

use half::{bf16, f16};
use lowkey::{
    Device, Dtype, Error, Scratch, Tensor,
    philox::Stream,
    sparse::{self, Mask, Scope},
};

pub(crate) const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// Scores [rows, cols] of a kind that is hard on a selection.
pub(crate) fn scores(kind: &str, rows: usize, cols: usize) -> Vec<f32> {
    let stream = Stream::new(11, (rows * 10_000 + cols) as u64);
    let element = |i: usize| match kind {
        "normal" => stream.normal(i as u64),
        // Seven magnitudes in all, both signs, zero and minus zero among them.
        "ties" => (stream.bits(i as u64) % 7) as f32 * 0.25 * if stream.bits(i as u64) & 64 == 0 { 1.0 } else { -1.0 },
        "equal" => [0.3, -0.3][i % 2],
        "zeros" => [0.0, -0.0][stream.bits(i as u64) as usize % 2],
        // Denormals of f16, some of them ties or zeros in f16.
        "denormal" => stream.normal(i as u64) * 4e-7,
        // Denormals of f32.
        "tiny" => f32::from_bits(stream.bits(i as u64) & 0x8003_ffff),
        "infinite" if i.is_multiple_of(3) => f32::NEG_INFINITY,
        "infinite" => stream.normal(i as u64) * 1e4,
        other => unreachable!("{other}"),
    };
    (0..rows * cols).map(element).collect()
}

pub(crate) const KINDS: [&str; 7] = ["normal", "ties", "equal", "zeros", "denormal", "tiny", "infinite"];

/// What stays: a stable sort by magnitude, within each row, group or the whole.
pub(crate) fn expected(values: &[f32], cols: usize, scope: Scope) -> Vec<bool> {
    let (group, keep) = match scope {
        Scope::Row { keep } => (cols, keep),
        Scope::Pattern { n, m } => (m, n),
        Scope::Tensor { keep } => (values.len(), keep),
    };
    let row = if matches!(scope, Scope::Tensor { .. }) { values.len() } else { cols };
    let mut kept = vec![false; values.len()];
    for row in (0..values.len()).step_by(row) {
        let end = if matches!(scope, Scope::Tensor { .. }) { values.len() } else { row + cols };
        for start in (row..end).step_by(group) {
            let mut order: Vec<usize> = (start..end.min(start + group)).collect();
            order.sort_by(|a, b| f64::from(values[*b]).abs().total_cmp(&f64::from(values[*a]).abs()));
            order.into_iter().take(keep).for_each(|i| kept[i] = true);
        }
    }
    kept
}

/// The bytes of a mask, from its documentation.
pub(crate) fn packed(kept: &[bool], cols: usize) -> Vec<i8> {
    let mut bytes = Vec::new();
    for row in kept.chunks(cols) {
        let mut words = vec![0u32; cols.div_ceil(32)];
        row.iter().enumerate().for_each(|(c, kept)| words[c / 32] |= u32::from(*kept) << (c % 32));
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| byte as i8));
    }
    bytes
}

/// A matrix whose rows lie apart, NaN between them.
pub(crate) fn strided(values: &[f32], cols: usize, gap: usize, dtype: Dtype) -> Tensor {
    strided_on(&Device::cpu(), values, cols, gap, dtype)
}

pub(crate) fn strided_on(device: &Device, values: &[f32], cols: usize, gap: usize, dtype: Dtype) -> Tensor {
    let rows: Vec<f32> = values.chunks(cols).flat_map(|row| [row, &vec![f32::NAN; gap]].concat()).collect();
    let wide = Tensor::from_slice(&rows, &[values.len() / cols, cols + gap], &Device::cpu()).unwrap();
    wide.to_dtype(dtype).unwrap().to_device(device).unwrap().narrow(1, 0, cols).unwrap()
}

/// A mask whose every bit, padding included, is set.
pub(crate) fn poisoned(rows: usize, cols: usize) -> Mask {
    let row_bytes = cols.div_ceil(32) * 4;
    let bits = Tensor::from_slice(&vec![-1i8; rows * row_bytes], &[rows, row_bytes], &Device::cpu()).unwrap();
    Mask::from_bits(bits, cols).unwrap()
}

pub(crate) fn scopes(rows: usize, cols: usize) -> Vec<Scope> {
    let mut scopes = vec![Scope::Pattern { n: 2, m: 4 }, Scope::Pattern { n: 4, m: 8 }, Scope::Pattern { n: 1, m: 4 }];
    scopes.extend([0, 1, cols / 3, cols - 1, cols].map(|keep| Scope::Row { keep }));
    let all = rows * cols;
    scopes.extend([0, 1, all / 3, all - 1, all].map(|keep| Scope::Tensor { keep }));
    scopes
}

#[test]
fn masks_equal_a_stable_sort_whatever_the_scores() {
    let mut scratch = Scratch::new(&Device::cpu());
    for kind in KINDS {
        for (rows, cols) in [(1, 1), (5, 59), (3, 97), (2, 1025), (40, 1025), (1, 4097)] {
            let values = scores(kind, rows, cols);
            for dtype in FLOATS {
                let tensor = strided(&values, cols, 3, dtype);
                let rounded = tensor.to_f32_vec().unwrap();
                let odd = [Scope::Pattern { n: 3, m: 7 }, Scope::Pattern { n: 31, m: 32 }, Scope::Pattern { n: 0, m: 1 }];
                for scope in scopes(rows, cols).into_iter().chain(odd) {
                    let mut mask = poisoned(rows, cols);
                    sparse::mask_into(&mut mask, &tensor, scope, &mut scratch).unwrap();
                    let oracle = packed(&expected(&rounded, cols, scope), cols);
                    assert_eq!(mask.bits().slice::<i8>().unwrap(), oracle, "{kind} {rows}x{cols} {dtype} {scope:?}");
                }
            }
        }
    }
}

#[test]
fn a_mask_depends_neither_on_threads_nor_on_other_rows() {
    let (rows, cols) = (67, 1025);
    let values = scores("ties", rows, cols);
    let tensor = strided(&values, cols, 0, Dtype::F32);
    for scope in scopes(rows, cols) {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| sparse::mask(&tensor, scope).unwrap().bits().slice::<i8>().unwrap().to_vec())
        };
        let one = with(1);
        assert_eq!(one, with(7), "{scope:?}");
        if !matches!(scope, Scope::Tensor { .. }) {
            let alone = sparse::mask(&tensor.narrow(0, 66, 1).unwrap(), scope).unwrap();
            assert_eq!(alone.bits().slice::<i8>().unwrap(), &one[66 * alone.row_bytes()..], "{scope:?}");
        }
    }
}

#[test]
fn applying_a_mask_keeps_bits_and_writes_zeros() {
    for (rows, cols) in [(1, 1), (4, 59), (3, 97), (33, 1025)] {
        for dtype in FLOATS {
            let scores = strided(&scores("normal", rows, cols), cols, 5, dtype);
            // What is kept need not be a number.
            let odd = [f32::NAN, f32::INFINITY, -0.0, 1e-42, 3.5, -2.25];
            let weights: Vec<f32> = (0..rows * cols).map(|i| odd[i % odd.len()]).collect();
            let weights = strided(&weights, cols, 2, dtype);
            let mask = sparse::mask(&scores, Scope::Row { keep: cols / 2 }).unwrap();
            let poison = Tensor::from_slice(&vec![f32::NAN; rows * cols], &[rows, cols], &Device::cpu()).unwrap();
            let mut out = poison.to_dtype(dtype).unwrap();
            sparse::apply_into(&mut out, &weights, &mask).unwrap();
            let kept = expected(&scores.to_f32_vec().unwrap(), cols, Scope::Row { keep: cols / 2 });
            let bits = |t: &Tensor| t.to_f32_vec().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let oracle: Vec<u32> = bits(&weights).iter().zip(&kept).map(|(x, kept)| if *kept { *x } else { 0 }).collect();
            assert_eq!(bits(&out), oracle, "{rows}x{cols} {dtype}");
            assert_eq!(bits(&sparse::apply(&weights, &mask).unwrap()), oracle, "{rows}x{cols} {dtype}");
        }
    }
}

#[test]
fn the_first_nan_is_named() {
    let (rows, cols) = (70, 1025);
    let clean = scores("infinite", rows, cols);
    for dtype in FLOATS {
        for scope in
            [Scope::Row { keep: 3 }, Scope::Pattern { n: 2, m: 4 }, Scope::Tensor { keep: 9 }, Scope::Tensor { keep: 0 }]
        {
            let mut values = clean.clone();
            for (row, col) in [(69, 0), (41, 1024), (41, 77), (42, 3)] {
                values[row * cols + col] = f32::NAN.copysign(if col == 77 { -1.0 } else { 1.0 });
            }
            let tensor = strided(&values, cols, 1, dtype);
            let error = sparse::mask(&tensor, scope).unwrap_err();
            assert!(matches!(error, Error::Numeric { .. }), "{error}");
            assert!(error.to_string().contains("row 41, column 77 is NaN"), "{scope:?}: {error}");
        }
    }
}

#[test]
fn scratch_is_what_was_promised_and_is_not_taken_twice() {
    for scope in scopes(40, 1025) {
        let device = Device::cpu();
        let tensor = strided(&scores("normal", 40, 1025), 1025, 0, Dtype::F16);
        let bytes = sparse::scratch_bytes(40, 1025, scope, &device);
        let mut scratch = Scratch::with_bytes(&device, bytes).unwrap();
        let mut mask = Mask::zeros(40, 1025, &device).unwrap();
        sparse::mask_into(&mut mask, &tensor, scope, &mut scratch).unwrap();
        assert_eq!(scratch.bytes(), bytes, "{scope:?}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_named_errors() {
    let cpu = Device::cpu();
    let matrix = |rows, cols| Tensor::from_slice(&scores("normal", rows, cols), &[rows, cols], &cpu).unwrap();
    let x = matrix(3, 8);
    let shape = |error: Error, words: &str| {
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    shape(sparse::mask(&x, Scope::Row { keep: 9 }).unwrap_err(), "keep 9 of 8");
    shape(sparse::mask(&x, Scope::Tensor { keep: 25 }).unwrap_err(), "keep 25 of 24");
    shape(sparse::mask(&x, Scope::Pattern { n: 5, m: 4 }).unwrap_err(), "keep 5 of 4");
    shape(sparse::mask(&x, Scope::Pattern { n: 0, m: 0 }).unwrap_err(), "0:0");
    shape(sparse::mask(&x, Scope::Pattern { n: 1, m: 33 }).unwrap_err(), "1:33");
    shape(sparse::mask(&x.transpose(0, 1).unwrap(), Scope::Row { keep: 1 }).unwrap_err(), "stride 1");
    shape(sparse::mask(&x.reshape(&[24]).unwrap(), Scope::Row { keep: 1 }).unwrap_err(), "[24]");
    let codes = Tensor::zeros(&[3, 8], Dtype::I8, &cpu).unwrap();
    assert!(matches!(sparse::mask(&codes, Scope::Row { keep: 1 }), Err(Error::Dtype { .. })));
    let mut other = Mask::zeros(3, 7, &cpu).unwrap();
    let mut scratch = Scratch::new(&cpu);
    shape(sparse::mask_into(&mut other, &x, Scope::Row { keep: 1 }, &mut scratch).unwrap_err(), "3 x 7");
    shape(sparse::apply(&x, &other).unwrap_err(), "3 x 7");
    let mut half = Tensor::zeros(&[3, 8], Dtype::F16, &cpu).unwrap();
    let mask = sparse::mask(&x, Scope::Row { keep: 1 }).unwrap();
    shape(sparse::apply_into(&mut half, &x, &mask).unwrap_err(), "f16");
    shape(sparse::apply_into(&mut x.clone(), &x, &mask).unwrap_err(), "shares");
    shape(Mask::from_bits(codes.clone(), 8).unwrap_err(), "[3, 8]");
    assert!(matches!(Mask::from_bits(half, 8), Err(Error::Dtype { .. })));
    let bytes = Tensor::zeros(&[9], Dtype::I8, &cpu).unwrap();
    let off_by_one = bytes.narrow(0, 1, 8).unwrap().reshape(&[2, 4]).unwrap();
    shape(Mask::from_bits(off_by_one, 8).unwrap_err(), "whole words");
}

#[test]
fn a_matrix_without_elements_has_an_empty_mask() {
    for shape in [[0, 5], [5, 0], [0, 0]] {
        let x = Tensor::zeros(&shape, Dtype::F32, &Device::cpu()).unwrap();
        for scope in [Scope::Row { keep: 0 }, Scope::Tensor { keep: 0 }, Scope::Pattern { n: 2, m: 4 }] {
            let mask = sparse::mask(&x, scope).unwrap();
            assert_eq!([mask.rows(), mask.cols()], shape);
            assert_eq!(sparse::apply(&x, &mask).unwrap().shape(), shape);
        }
    }
}

#[test]
fn sixteen_bit_scores_are_compared_as_they_are() {
    // Two neighbours of each format, where an f32 tie rule would see one value.
    let bits = [0x3c01u16, 0x3c00, 0x3c01, 0x3bff];
    for (dtype, tensor) in [
        (Dtype::F16, Tensor::from_slice(&bits.map(f16::from_bits), &[1, 4], &Device::cpu()).unwrap()),
        (Dtype::BF16, Tensor::from_slice(&bits.map(bf16::from_bits), &[1, 4], &Device::cpu()).unwrap()),
    ] {
        let mask = sparse::mask(&tensor, Scope::Row { keep: 3 }).unwrap();
        assert_eq!(mask.bits().slice::<i8>().unwrap(), [0b0111, 0, 0, 0], "{dtype}");
    }
}
