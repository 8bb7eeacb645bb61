//! The kernels of the SVD: the promises of `svd::truncated`, held on the emulated device to f64 decompositions and to the
//! CPU path.

use lowkey::{
    Device, Dtype, Scratch, Tensor,
    device::Emulation,
    philox::Stream,
    svd::{self, Info, Mode, Options, Output, Rank, Rung, Svd},
};

use crate::{
    support::{self, Against, Family, Maker, Mutation, Scale, agreed},
    svd::{
        Matrix, SPECTRA, bits, bits_of, check, factors, infos, least_error, normal, ranks, skew, spectrum, tails, with_spectrum,
    },
};

pub(crate) const FAMILY: Family = Family {
    folder: "svd",
    compare,
    mutation: Mutation { file: "svd/gram_wide.cu", from: "x[i] = at[j0 + i * SIDE];", to: "x[i] = at[i0 + i * SIDE];" },
};

pub(crate) const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// A batch of matrices: as a tensor of some dtype on the CPU, and in f64 what it holds.
pub(crate) struct Batch {
    pub(crate) tensor: Tensor,
    pub(crate) matrices: Vec<Matrix>,
    pub(crate) exact: Vec<Vec<f64>>,
}

impl Batch {
    pub(crate) fn new(matrices: &[Matrix], dtype: Dtype) -> Self {
        let (m, n) = (matrices[0].m, matrices[0].n);
        let data: Vec<f32> = matrices.iter().flat_map(|a| &a.data).map(|x| *x as f32).collect();
        let tensor = Tensor::from_slice(&data, &[matrices.len(), m, n], &Device::cpu()).unwrap().to_dtype(dtype).unwrap();
        let held = tensor.to_f32_vec().unwrap();
        let matrix = |data: &[f32]| Matrix { m, n, data: data.iter().map(|x| f64::from(*x)).collect() };
        let matrices: Vec<Matrix> = held.chunks_exact(m * n).map(matrix).collect();
        let exact = matrices.iter().map(Matrix::singular_values).collect();
        Self { tensor, matrices, exact }
    }

    /// One matrix for each of the spectra named.
    pub(crate) fn of_spectra(seed: u64, [m, n]: [usize; 2], names: &[&str], dtype: Dtype) -> Self {
        let one = |(i, name): (usize, &&str)| with_spectrum(seed + i as u64, m, n, &spectrum(name, m.min(n)));
        Self::new(&names.iter().enumerate().map(one).collect::<Vec<_>>(), dtype)
    }

    /// Holds a result for every matrix to everything that is promised.
    pub(crate) fn check(&self, what: &str, svd: &Svd) {
        let shape = self.tensor.shape();
        for (i, (a, exact)) in self.matrices.iter().zip(&self.exact).enumerate() {
            check(&format!("{what}: {} {shape:?}, matrix {i}", self.tensor.dtype()), svd, i, a, exact);
        }
    }

    /// Compares with the CPU path: the same singular values, and the same error.
    pub(crate) fn check_cpu(&self, what: &str, svd: &Svd, rank: usize) {
        let on_cpu = fixed(&self.tensor, rank);
        for (i, a) in self.matrices.iter().enumerate() {
            let (found, expected) = (factors(svd, i), factors(&on_cpu, i));
            let rounding = 4.0 * f64::from(f32::EPSILON) * a.norm();
            for (x, y) in found.s.iter().zip(&expected.s) {
                assert!((x - y).abs() <= 2e-5 * y + 2.0 * rounding, "{what}: s {x:e}, on the CPU {y:e}");
            }
            let (error, on_cpu) = (found.error(a), expected.error(a));
            assert!((error - on_cpu).abs() <= 1e-3 * on_cpu + 2.0 * rounding, "{what}: {error:e}, on the CPU {on_cpu:e}");
        }
    }
}

pub(crate) fn with_options(a: &Tensor, rank: Rank, options: &Options) -> Svd {
    svd::truncated(a, rank, options).unwrap()
}

fn fixed(a: &Tensor, rank: usize) -> Svd {
    with_options(a, Rank::Fixed(rank), &Options::default())
}

/// As [`fixed`], with a copy of the matrices on a device.
pub(crate) fn fixed_on(device: &Device, a: &Tensor, rank: usize) -> Svd {
    fixed(&a.to_device(device).unwrap(), rank)
}

/// Shapes and ranks that reach every kernel, and every rung by way of the spectra.
fn compare(make: &Maker<'_>, scale: Scale) -> Vec<u8> {
    let cases: &[([usize; 2], usize, &[&str])] = match scale {
        Scale::Smallest => &[
            ([70, 5], 3, &["power law", "kappa 1e5"]),
            ([5, 70], 4, &["deficient"; 9]),
            ([1100, 8], 2, &["power law"]),
            ([133, 130], 70, &["power law"]),
        ],
        Scale::Every => &[
            ([1, 1], 1, &["flat"]),
            ([59, 7], 3, &["power law", "deficient"]),
            ([97, 59], 20, &["power law", "kappa 1e5"]),
            ([64, 111], 64, &["deficient"]),
            ([200, 96], 70, &["power law"]),
            ([59, 1025], 16, &["power law"]),
            ([130, 140], 33, &["power law", "deficient"]),
        ],
    };
    let mut bytes = Vec::new();
    for (seed, &(shape, rank, names)) in cases.iter().enumerate() {
        // Broad matrices take long to emulate, and one dtype reaches all of their kernels.
        let few = scale == Scale::Smallest && shape[0].min(shape[1]) > 128;
        for dtype in DTYPES.into_iter().take(if few { 1 } else { DTYPES.len() }) {
            let batch = Batch::of_spectra(10 * seed as u64, shape, names, dtype);
            // Rotations are for what other means do not solve, and no such matrix is known.
            let starts = [Rung::Single, Rung::Jacobi];
            for start in &starts[..1 + usize::from(seed == 1 && dtype == Dtype::F32)] {
                let device = make();
                let options = Options { start: *start, ..Options::default() };
                let svd = with_options(&batch.tensor.to_device(&device).unwrap(), Rank::Fixed(rank), &options);
                batch.check("a comparison", &svd);
                agreed(&device, Against::Oracle);
                batch.check_cpu("a comparison", &svd, rank);
                agreed(&device, Against::Cpu);
                bytes.extend(bytemuck::cast_slice::<u32, u8>(&bits(&svd)));
            }
        }
    }
    // Small integers, so that the rank is exactly 3: the other columns hold rounding only.
    let product = Matrix::from_fn(131, 130, |i, j| (0..3).map(|k| ((i * (k + 2)) % 7 * ((j + k) % 5)) as f64).sum());
    let (device, deficient) = (make(), Batch::new(&[product], Dtype::F32));
    let svd = fixed_on(&device, &deficient.tensor, 8);
    deficient.check("a comparison", &svd);
    bytes.extend(bytemuck::cast_slice::<u32, u8>(&bits(&svd)));
    bytes.extend(crate::kernels_svd_ragged::compare(make));
    if scale == Scale::Every {
        bytes.extend(crate::kernels_svd_sketch::compare(make));
    }
    bytes
}

#[test]
fn every_spectrum_and_odd_shape_comes_within_a_thousandth_of_the_least_error() {
    let device = support::device();
    let shapes: [[usize; 2]; 8] = [[1, 1], [1, 59], [59, 1], [2, 3], [59, 59], [97, 111], [111, 97], [300, 64]];
    for (seed, shape) in (0..).zip(shapes) {
        let width = shape[0].min(shape[1]);
        let ranks = [1, width.div_ceil(4), width.saturating_sub(1).max(1), width];
        for ((dtype, names), rank) in DTYPES.into_iter().cycle().skip(seed).zip(SPECTRA.chunks(3)).zip(ranks) {
            let batch = Batch::of_spectra(seed as u64, shape, names, dtype);
            batch.check(&format!("{names:?} rank {rank}"), &fixed_on(&device, &batch.tensor, rank));
        }
    }
    for (dtype, name) in DTYPES.into_iter().zip(["power law", "kappa 1e5", "deficient"]) {
        let batch = Batch::of_spectra(2, [257, 128], &[name], dtype);
        for rank in [43, 128] {
            batch.check(&format!("{name} rank {rank}"), &fixed_on(&device, &batch.tensor, rank));
        }
    }
}

#[test]
fn long_matrices_of_odd_widths_keep_the_promise() {
    let device = support::device();
    for (dtype, shape) in DTYPES.into_iter().cycle().zip([[1025, 1], [1025, 7], [7, 2049], [2500, 33], [1025, 97]]) {
        let batch = Batch::of_spectra(3, shape, &["power law", "one large"], dtype);
        for rank in [1, (shape[0].min(shape[1])).div_ceil(3)] {
            let svd = fixed_on(&device, &batch.tensor, rank);
            batch.check(&format!("rank {rank}"), &svd);
            batch.check_cpu(&format!("rank {rank} of {shape:?}"), &svd, rank);
        }
    }
}

#[test]
fn random_matrices_keep_the_promise() {
    let device = support::device();
    for seed in 0..60u64 {
        let pick = |element, from: usize, to: usize| from + Stream::new(seed, 99).bits(element) as usize % (to - from + 1);
        let (m, n) = (pick(0, 1, 140), pick(1, 1, 40));
        let name = SPECTRA[pick(2, 0, SPECTRA.len() - 1)];
        let scale = 10f64.powi(pick(3, 0, 40) as i32 - 20);
        let s: Vec<f64> = spectrum(name, m.min(n)).iter().map(|s| s * scale).collect();
        let batch = Batch::new(&[with_spectrum(seed, m, n, &s)], Dtype::F32);
        let rank = pick(4, 1, m.min(n));
        batch.check(&format!("seed {seed}: {name} rank {rank} scale {scale:e}"), &fixed_on(&device, &batch.tensor, rank));
    }
}

#[test]
fn the_quick_rung_keeps_factors_of_many_columns_orthonormal() {
    let device = support::device();
    for (seed, rank) in (0u64..).zip([64, 100, 126, 37]) {
        let s: Vec<f64> = (0..128).map(|i| f64::from(i + 1).powf(-0.4)).collect();
        let one = |i| with_spectrum(10 * seed + i, 140, 128, &s);
        let batch = Batch::new(&[one(0), one(1), one(2)], DTYPES[seed as usize % 3]);
        let svd = fixed_on(&device, &batch.tensor, rank);
        batch.check(&format!("rank {rank}"), &svd);
        assert!(infos(&svd).contains(&Info::Solved(Rung::Single)), "rank {rank}: {:?}", infos(&svd));
    }
}

#[test]
fn the_quick_rung_serves_ordinary_spectra_and_the_thorough_one_the_rest() {
    let device = support::device();
    let rungs = |dtype, names: &[&str], rank| {
        let batch = Batch::of_spectra(6, [200, 64], names, dtype);
        infos(&fixed_on(&device, &batch.tensor, rank))
    };
    let (single, double) = (Info::Solved(Rung::Single), Info::Solved(Rung::Double));
    for dtype in DTYPES {
        assert_eq!(rungs(dtype, &["power law", "flat"], 16), [single, single], "{dtype}");
        assert_eq!(rungs(dtype, &["power law"], 64), [double], "{dtype}");
    }
    assert_eq!(rungs(Dtype::F32, &["kappa 1e5", "power law", "tiny step"], 40), [double, single, double]);
}

#[test]
fn every_start_keeps_the_promise() {
    let device = support::device();
    let batch = Batch::of_spectra(5, [131, 59], &SPECTRA, Dtype::F32);
    let tensor = batch.tensor.to_device(&device).unwrap();
    for start in [Rung::Single, Rung::Double, Rung::Jacobi] {
        let svd = with_options(&tensor, Rank::Fixed(20), &Options { start, ..Options::default() });
        batch.check(&format!("from {start:?}"), &svd);
        let infos = infos(&svd);
        assert!(infos.iter().all(|info| matches!(info, Info::Solved(rung) if *rung >= start)), "{infos:?}");
    }
}

#[test]
fn the_schedule_does_not_change_a_bit() {
    for (dtype, (shape, rank)) in DTYPES.into_iter().zip([([97, 33], 9), ([33, 97], 33), ([130, 20], 7)]) {
        let batch = Batch::of_spectra(8, shape, &["power law", "kappa 1e5", "deficient"], dtype);
        let run = |schedule| {
            let device = support::emulate(&Emulation { schedule, threads: 2, ..Emulation::default() });
            bits(&fixed_on(&device, &batch.tensor, rank))
        };
        let expected = run(0);
        for schedule in [1, 11, 22, 33, 44, 55, 66, 77, 88] {
            assert!(run(schedule) == expected, "{dtype} {shape:?}: schedule {schedule}");
        }
    }
}

#[test]
fn a_matrix_alone_and_in_a_batch_gives_the_same_bits() {
    let device = support::device();
    for (dtype, shape) in DTYPES.into_iter().zip([[97, 32], [32, 97], [1030, 17]]) {
        let batch = Batch::of_spectra(4, shape, &["power law", "kappa 1e5", "deficient", "flat"], dtype);
        let together = fixed_on(&device, &batch.tensor, 9);
        for i in 0..4 {
            let alone = fixed_on(&device, &batch.tensor.select(0, i).unwrap(), 9);
            assert_eq!(bits_of(&alone, 0), bits_of(&together, i), "matrix {i} of {shape:?}");
            assert_eq!(infos(&alone)[0], infos(&together)[i]);
        }
    }
}

#[test]
fn more_matrices_than_are_worked_on_at_once_are_no_different() {
    let device = support::device();
    let stream = Stream::new(12, 0);
    let count = 1030;
    let data: Vec<f32> = (0..count * 6).map(|i| stream.normal(i as u64)).collect();
    let tensor = Tensor::from_slice(&data, &[count / 5, 5, 3, 2], &device).unwrap();
    let together = fixed(&tensor, 2);
    for i in [0, 511, 512, 777, 1023, 1024, 1029] {
        let alone = fixed(&tensor.reshape(&[count, 3, 2]).unwrap().select(0, i).unwrap(), 2);
        assert_eq!(bits_of(&alone, 0), bits_of(&together, i), "matrix {i}");
    }
}

#[test]
fn a_matrix_keeps_its_bits_in_a_batch_of_33_and_beside_a_nan_in_64() {
    let (m, n, rank) = (130, 24, 8);
    let names = ["power law", "kappa 1e5", "deficient", "flat"];
    let one = |i: usize| with_spectrum(i as u64, m, n, &spectrum(names[i % 4], n));
    for (architecture, dtype) in [80, 90].into_iter().zip([Dtype::BF16, Dtype::F32]) {
        let device = support::emulate(&Emulation { architecture, ..Emulation::default() });
        let batch = Batch::new(&(0..64).map(one).collect::<Vec<_>>(), dtype);
        let few = fixed_on(&device, &batch.tensor.narrow(0, 0, 33).unwrap(), rank);
        let mut data = batch.tensor.to_f32_vec().unwrap();
        data[40 * m * n + 77] = f32::NAN;
        let poisoned = Tensor::from_slice(&data, &[64, m, n], &Device::cpu()).unwrap().to_dtype(dtype).unwrap();
        let (clean, many) = (fixed_on(&device, &batch.tensor, rank), fixed_on(&device, &poisoned, rank));
        assert_eq!(infos(&many)[40], Info::NonFinite);
        for i in (0..64).filter(|i| *i != 40) {
            assert!(bits_of(&many, i) == bits_of(&clean, i), "matrix {i} beside a NaN in {dtype} on {architecture}");
        }
        for i in 0..33 {
            let alone = bits_of(&fixed_on(&device, &batch.tensor.select(0, i).unwrap(), rank), 0);
            assert!(bits_of(&few, i) == alone && bits_of(&many, i) == alone, "matrix {i} in {dtype} on {architecture}");
        }
    }
}

#[test]
fn a_long_matrix_among_many_gives_the_same_bits_as_alone() {
    let device = support::device();
    let (count, m, n) = (130, 2100, 4);
    let stream = Stream::new(14, 0);
    let data: Vec<f32> = (0..count * m * n).map(|i| stream.normal(i as u64)).collect();
    for dtype in DTYPES {
        let tensor = Tensor::from_slice(&data, &[count, m, n], &Device::cpu()).unwrap().to_dtype(dtype).unwrap();
        let together = fixed_on(&device, &tensor, 2);
        for i in [0, 129] {
            let alone = fixed_on(&device, &tensor.select(0, i).unwrap(), 2);
            assert_eq!(bits_of(&alone, 0), bits_of(&together, i), "matrix {i} in {dtype}");
        }
    }
}

#[test]
fn a_nan_or_infinity_marks_its_own_matrix_and_leaves_the_others_bits_alone() {
    let device = support::device();
    let (m, n) = (60, 32);
    for dtype in DTYPES {
        let batch = Batch::of_spectra(2, [m, n], &["power law", "flat", "kappa 1e5", "deficient", "power law"], dtype);
        let clean = batch.tensor.to_f32_vec().unwrap();
        let run = |data: &[f32]| {
            let tensor = Tensor::from_slice(data, &[5, m, n], &Device::cpu()).unwrap().to_dtype(dtype).unwrap();
            fixed_on(&device, &tensor, 8)
        };
        let before = run(&clean);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut data = clean.clone();
            data[2 * m * n + 5] = poison;
            let after = run(&data);
            for i in [0, 1, 3, 4] {
                assert_eq!(bits_of(&after, i), bits_of(&before, i), "matrix {i} beside {poison} in {dtype}");
            }
            assert_eq!((infos(&after)[2], ranks(&after)[2]), (Info::NonFinite, 0));
            assert!(tails(&after)[2].is_nan());
            let marked = factors(&after, 2);
            assert!(marked.u.data.iter().chain(&marked.s).chain(&marked.v.data).all(|x| x.is_nan()));
        }
    }
}

#[test]
fn scale_does_not_matter() {
    let device = support::device();
    let base = with_spectrum(7, 111, 32, &spectrum("power law", 32));
    for scale in [1e30, 1e-30, 1e-37, 1e36, 2f64.powi(-90)] {
        let scaled = Matrix { data: base.data.iter().map(|x| x * scale).collect(), ..base };
        for dtype in [Dtype::F32, Dtype::BF16] {
            let batch = Batch::new(std::slice::from_ref(&scaled), dtype);
            for rank in [8, 32] {
                batch.check(&format!("scale {scale:e} rank {rank}"), &fixed_on(&device, &batch.tensor, rank));
            }
        }
    }
}

#[test]
fn the_quick_rung_serves_latents_at_any_ordinary_scale() {
    let device = support::device();
    for scale in [1e-4, 1.0, 1e5] {
        let s: Vec<f64> = (0..48).map(|i| scale / f64::from(i + 1)).collect();
        let batch = Batch::new(&[with_spectrum(3, 200, 48, &s)], Dtype::BF16);
        let options = Options { output: Output::LatentDecoder, ..Options::default() };
        let svd = with_options(&batch.tensor.to_device(&device).unwrap(), Rank::Fixed(12), &options);
        check_output(&format!("scale {scale:e}"), &svd, 0, &options, &batch.matrices[0], &batch.exact[0]);
        assert_eq!(infos(&svd), [Info::Solved(Rung::Single)], "scale {scale:e}");
    }
}

#[test]
fn zero_and_deficient_matrices_get_zero_singular_values_and_orthonormal_completions() {
    let device = support::device();
    // Small integers: the product is exact, so the rank is exactly 3.
    let digit = |seed, i: usize| f64::from(Stream::new(seed, 1).bits(i as u64) % 7) - 3.0;
    for [m, n] in [[59, 20], [20, 59], [20, 20], [300, 17]] {
        let product = Matrix::from_fn(m, n, |i, j| (0..3).map(|k| digit(1, 3 * i + k) * digit(2, 3 * j + k)).sum());
        let zero = Matrix::from_fn(m, n, |_, _| 0.0);
        let one_column = Matrix::from_fn(m, n, |i, j| if j == 4 { i as f64 - 7.0 } else { 0.0 });
        let doubled = Matrix::from_fn(m, n, |i, j| digit(3, i * n + j / 2));
        let identity = Matrix::from_fn(m, n, |i, j| if i == j { 3.0 } else { 0.0 });
        for dtype in DTYPES {
            let batch =
                Batch::new(&[product.clone(), zero.clone(), one_column.clone(), doubled.clone(), identity.clone()], dtype);
            for rank in [3, 4, m.min(n)] {
                let svd = fixed_on(&device, &batch.tensor, rank);
                batch.check(&format!("rank {rank}"), &svd);
                let s = factors(&svd, 0).s;
                assert!(s.iter().skip(3).all(|x| *x <= 1e-6 * s[0]), "{s:?}");
            }
        }
    }
}

#[test]
fn a_cache_is_read_in_place_through_its_transpose() {
    let device = support::device();
    let (tokens, heads, width) = (130, 3, 40);
    let data: Vec<f32> = normal(11, tokens * heads, width).data.iter().map(|x| *x as f32).collect();
    for dtype in DTYPES {
        let cache = Tensor::from_slice(&data, &[tokens, heads, width], &Device::cpu()).unwrap().to_dtype(dtype).unwrap();
        let cache = cache.to_device(&device).unwrap();
        let view = cache.transpose(0, 1).unwrap();
        let copied = |view: &Tensor| view.to_device(&Device::cpu()).unwrap().to_device(&device).unwrap();
        assert_eq!(bits(&fixed(&view, 7)), bits(&fixed(&copied(&view), 7)), "{dtype}");
        // Columns cut out of wider rows at odd places, tall and wide.
        for (from, len) in [(3, 20), (0, 1)] {
            let cut = view.narrow(2, from, len).unwrap();
            assert_eq!(bits(&fixed(&cut, 1)), bits(&fixed(&copied(&cut), 1)), "{dtype}");
        }
        let wide = view.narrow(1, 1, 9).unwrap();
        assert_eq!(bits(&fixed(&wide, 5)), bits(&fixed(&copied(&wide), 5)), "{dtype}");
    }
}

#[test]
fn leading_axes_may_lie_in_any_order() {
    let device = support::device();
    let data: Vec<f32> = normal(13, 2 * 3 * 4 * 2, 9 * 5).data.iter().map(|x| *x as f32).collect();
    let tensor = Tensor::from_slice(&data, &[2, 3, 4, 2, 9, 5], &device).unwrap();
    let view = tensor.transpose(0, 3).unwrap().transpose(1, 2).unwrap().narrow(1, 1, 3).unwrap();
    let copied = view.to_device(&Device::cpu()).unwrap().to_device(&device).unwrap();
    assert_eq!(view.shape(), [2, 3, 3, 2, 9, 5]);
    assert_eq!(bits(&fixed(&view, 3)), bits(&fixed(&copied, 3)));
}

#[test]
fn a_tolerance_is_met_by_the_smallest_rank_or_nearly() {
    let device = support::device();
    for (shape, dtype) in [([150, 40], Dtype::F32), ([40, 150], Dtype::F16), ([150, 40], Dtype::BF16)] {
        let batch = Batch::of_spectra(1, shape, &SPECTRA, dtype);
        let tensor = batch.tensor.to_device(&device).unwrap();
        for (relative, mode) in
            [(0.5, Mode::Fast), (0.02, Mode::Safe), (1e-3, Mode::Safe), (1e-3, Mode::Fast), (2e-6, Mode::Safe)]
        {
            let options = Options { mode, ..Options::default() };
            let svd = with_options(&tensor, Rank::Tolerance { relative, max: 40 }, &options);
            for (i, (a, exact)) in batch.matrices.iter().zip(&batch.exact).enumerate() {
                let (f, rank, norm, name) = (factors(&svd, i), ranks(&svd)[i], a.norm(), SPECTRA[i]);
                let error = f.error(a) / norm;
                assert!(error <= relative, "{name} {shape:?}: {error:e} at tolerance {relative:e}, rank {rank}");
                let smallest = (0..=40).find(|r| least_error(exact, *r) <= relative * norm).expect("full rank does");
                assert!(rank <= smallest + 2, "{name} {shape:?}: rank {rank}, {smallest} would do at {relative:e}");
                assert!(skew(&f.u, rank) <= 1e-5 && skew(&f.v, rank) <= 1e-5, "{name} at {relative:e}");
                for part in [&f.u, &f.v] {
                    let above = (0..part.m).all(|i| (rank..40).all(|j| part.at(i, j) == 0.0));
                    assert!(above && f.s[rank..].iter().all(|s| *s == 0.0), "{name}: columns above {rank} are not zero");
                }
            }
        }
    }
    let flat = Batch::of_spectra(1, [100, 30], &["flat"], Dtype::F32);
    let tolerance = Rank::Tolerance { relative: 0.01, max: 10 };
    let svd = with_options(&flat.tensor.to_device(&device).unwrap(), tolerance, &Options::default());
    let error = factors(&svd, 0).error(&flat.matrices[0]) / flat.matrices[0].norm();
    assert!(ranks(&svd) == [10] && (f64::from(tails(&svd)[0]) - error).abs() < 1e-3 && error > 0.8, "{error}");
    let zero = Tensor::zeros(&[2, 8, 4], Dtype::F32, &device).unwrap();
    let svd = with_options(&zero, Rank::Tolerance { relative: 0.1, max: 4 }, &Options::default());
    assert_eq!((ranks(&svd), tails(&svd)), (vec![0, 0], vec![0.0, 0.0]));
}

#[test]
fn outputs_and_scratch_are_reused_and_what_they_held_does_not_matter() {
    let device = support::device();
    let (shape, rank) = ([4, 130, 48], 13);
    let batch = Batch::of_spectra(9, [130, 48], &["power law", "kappa 1e5", "deficient", "flat"], Dtype::F32);
    let tensor = batch.tensor.to_device(&device).unwrap();
    let expected = bits(&fixed(&tensor, rank));
    let mut out = Svd::zeros(&shape, rank, &Options::default(), &device).unwrap();
    let bytes = svd::scratch_bytes(&shape, rank, &Options::default(), &device).unwrap();
    let mut scratch = Scratch::with_bytes(&device, bytes).unwrap();
    let poisoned = Tensor::from_slice(&vec![f32::NAN; 4 * 130 * 48], &shape, &device).unwrap();
    let scope = device.memory_scope();
    for a in [&poisoned, &tensor, &tensor] {
        svd::truncated_into(a, Rank::Fixed(rank), &Options::default(), &mut out, &mut scratch).unwrap();
    }
    assert_eq!(bits(&out), expected);
    assert_eq!((scratch.bytes(), scope.peak()), (bytes, scope.at_start()), "nothing is allocated");
}

pub(crate) const OUTPUTS: [Output; 4] = [Output::Usv, Output::LatentDecoder, Output::Qb, Output::ValuesOnly];

/// What a rounding to a dtype changes at most, relative to the number.
fn unit(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(f32::EPSILON) / 2.0,
        Dtype::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-8),
    }
}

/// Holds whatever was made of a matrix to the same promises as U, s and V, but for the rounding of its parts.
pub(crate) fn check_output(what: &str, svd: &Svd, index: usize, options: &Options, a: &Matrix, exact: &[f64]) {
    let (parts, norm, unit, rank) = (factors(svd, index), a.norm(), unit(options.factors), ranks(svd)[index]);
    let only_values = options.output == Output::ValuesOnly;
    // An eigenvalue of an f32 Gram matrix is right to some eps of the largest, and s_1 <= 10 s_rank where that serves.
    let relative = if only_values { 1e-4 } else { 1e-5 + unit * unit };
    for (s, exact) in parts.s.iter().zip(exact) {
        assert!((s - exact).abs() <= relative * exact + 1e-6 * norm, "{what}: s {s:e}, exactly {exact:e}");
    }
    if only_values {
        return;
    }
    let ones = vec![1.0; rank];
    let (s, latents) = if options.output == Output::Usv { (parts.s.clone(), None) } else { (ones, Some(options.output)) };
    let factors = crate::svd::Factors { u: parts.u, s, v: parts.v };
    let (error, least) = (factors.error(a), least_error(exact, rank));
    assert!(error <= 1.001 * least + (4e-7 + 2.0 * unit) * norm, "{what}: error {error:e}, least {least:e}");
    let skewed = 1e-5 + 6.0 * unit;
    if latents != Some(Output::LatentDecoder) {
        assert!(skew(&factors.u, rank) <= skewed, "{what}: u'u - I {:e}", skew(&factors.u, rank));
    }
    if latents != Some(Output::Qb) {
        assert!(skew(&factors.v, rank) <= skewed, "{what}: v'v - I {:e}", skew(&factors.v, rank));
    }
}

#[test]
fn every_output_in_every_dtype_keeps_the_promise() {
    let device = support::device();
    let names = ["power law", "kappa 1e5", "deficient", "flat"];
    for (shape, rank) in [([150, 24], 7), ([24, 1100], 9), ([300, 90], 70)] {
        for (dtype, factors) in DTYPES.into_iter().zip([Dtype::BF16, Dtype::F32, Dtype::F16]) {
            let batch = Batch::of_spectra(20, shape, &names, dtype);
            let tensor = batch.tensor.to_device(&device).unwrap();
            for output in OUTPUTS {
                let options = Options { output, factors, ..Options::default() };
                let svd = with_options(&tensor, Rank::Fixed(rank), &options);
                for (i, (a, exact)) in batch.matrices.iter().zip(&batch.exact).enumerate() {
                    let what = format!("{output:?} of {} in {factors} from {dtype} {shape:?}", names[i]);
                    check_output(&what, &svd, i, &options, a, exact);
                }
            }
        }
    }
}

#[test]
fn the_fast_mode_takes_the_first_rung_and_keeps_its_promise() {
    let device = support::device();
    let names = ["power law", "kappa 300", "flat"];
    let spectrum_of = |name: &str| match name {
        "kappa 300" => (0..48).map(|i| 300f64.powf(-f64::from(i) / 15.0)).collect(),
        name => spectrum(name, 48),
    };
    for dtype in DTYPES {
        let one = |(i, name): (usize, &&str)| with_spectrum(30 + i as u64, 200, 48, &spectrum_of(name));
        let batch = Batch::new(&names.iter().enumerate().map(one).collect::<Vec<_>>(), dtype);
        let options = Options { mode: Mode::Fast, ..Options::default() };
        let svd = with_options(&batch.tensor.to_device(&device).unwrap(), Rank::Fixed(16), &options);
        for (i, (a, exact)) in batch.matrices.iter().zip(&batch.exact).enumerate() {
            let f = factors(&svd, i);
            let (error, least) = (f.error(a), least_error(exact, 16));
            let rounding = 400.0 * f64::from(f32::EPSILON) * a.norm();
            assert!(error <= 1.001 * least + rounding, "{}: error {error:e}, least {least:e}", names[i]);
            assert!(skew(&f.u, 16) <= 1e-5 && skew(&f.v, 16) <= 1e-5, "{}", names[i]);
        }
        assert_eq!(infos(&svd), [Info::Solved(Rung::Single); 3], "{dtype}");
    }
}

#[test]
fn a_captured_call_gives_the_bits_of_a_plain_one_for_new_matrices() {
    let device = support::device().new_stream().unwrap();
    let (shape, rank) = ([5, 1100, 20], 6);
    let batch =
        |seed| Batch::of_spectra(seed, [1100, 20], &["power law", "kappa 1e5", "deficient", "flat", "power law"], Dtype::F32);
    let (first, second) = (batch(1).tensor, batch(2).tensor);
    let options = Options::default();
    let mut a = first.to_device(&device).unwrap();
    let mut out = Svd::zeros(&shape, rank, &options, &device).unwrap();
    let bytes = svd::scratch_bytes(&shape, rank, &options, &device).unwrap();
    let mut scratch = Scratch::with_bytes(&device, bytes).unwrap();
    svd::truncated_into(&a, Rank::Fixed(rank), &options, &mut out, &mut scratch).unwrap();
    let graph = device.capture(|| svd::truncated_into(&a, Rank::Fixed(rank), &options, &mut out, &mut scratch)).unwrap();
    for tensor in [&second, &first] {
        a.write(&tensor.to_f32_vec().unwrap()).unwrap();
        graph.launch().unwrap();
        assert_eq!(bits(&out), bits(&fixed_on(&device, tensor, rank)));
    }
}

#[test]
fn what_a_device_cannot_do_has_its_own_error() {
    let device = support::device();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, Dtype::F32, &device).unwrap();
    let refusal =
        |a: &Tensor, rank| svd::truncated(a, Rank::Fixed(rank), &Options::default()).expect_err("a refusal").to_string();
    assert!(refusal(&zeros(&[4097, 4098]), 500).contains("min(m, n) <= 4096 on"));
    assert!(refusal(&zeros(&[4, 5, 3]), 4).contains("rank 4; expected 1..=3"));
    assert!(refusal(&zeros(&[5, 3]).transpose(0, 1).unwrap(), 1).contains("stride 1"));
    let (a, mut scratch) = (zeros(&[5, 3]), Scratch::new(&device));
    let mut on_cpu = Svd::zeros(&[5, 3], 2, &Options::default(), &Device::cpu()).unwrap();
    let error = svd::truncated_into(&a, Rank::Fixed(2), &Options::default(), &mut on_cpu, &mut scratch);
    assert!(error.expect_err("a refusal").to_string().contains("out.u on cpu"));
    let mut out = Svd::zeros(&[5, 3], 2, &Options::default(), &device).unwrap();
    let shared = out.u.clone();
    let error = svd::truncated_into(&a, Rank::Fixed(2), &Options::default(), &mut out, &mut scratch);
    assert!(error.expect_err("a refusal").to_string().contains("another tensor shares"));
    drop(shared);
    out.u = zeros(&[6, 2]).narrow(0, 1, 5).unwrap();
    let error = svd::truncated_into(&a, Rank::Fixed(2), &Options::default(), &mut out, &mut scratch);
    assert!(error.expect_err("a refusal").to_string().contains("multiple of 16"));
}

#[test]
fn scratch_of_another_device_is_refused() {
    let device = support::device();
    let a = Tensor::zeros(&[5, 3], Dtype::F32, &device).unwrap();
    let mut out = Svd::zeros(&[5, 3], 2, &Options::default(), &device).unwrap();
    support::refuses_scratch_of_the_cpu(&device, |scratch| {
        svd::truncated_into(&a, Rank::Fixed(2), &Options::default(), &mut out, scratch)
    });
}
