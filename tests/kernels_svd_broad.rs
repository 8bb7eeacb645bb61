//! The SVD of matrices with more than 128 columns on devices: the same promises, by other kernels.

use lowkey::{
    Device, Dtype, Scratch, Tensor,
    device::Emulation,
    svd::{self, Info, Mode, Options, Output, Rank, Rung, Svd},
};

use crate::{
    kernels_svd::{Batch, DTYPES, OUTPUTS, check_output, fixed_on, with_options},
    support,
    svd::{Matrix, SPECTRA, bits, bits_of, factors, infos, least_error, normal, ranks, spectrum, with_spectrum},
};

/// Matrices by their shapes, with ranks that fill panels, tiles and warps unevenly.
const SHAPES: [([usize; 2], usize); 4] = [([150, 131], 37), ([131, 170], 131), ([400, 193], 65), ([129, 129], 128)];

#[test]
fn every_spectrum_and_odd_width_comes_within_a_thousandth_of_the_least_error() {
    let device = support::device();
    for (seed, (shape, rank)) in (0..).zip(SHAPES) {
        for (dtype, names) in DTYPES.into_iter().zip(SPECTRA.chunks(4)) {
            let batch = Batch::of_spectra(seed, shape, names, dtype);
            let svd = fixed_on(&device, &batch.tensor, rank);
            batch.check(&format!("{names:?} rank {rank}"), &svd);
            assert!(infos(&svd).iter().all(|info| *info == Info::Solved(Rung::Double) || *info == Info::Solved(Rung::Single)));
        }
    }
}

#[test]
fn rotations_serve_as_well() {
    let device = support::device();
    let batch = Batch::of_spectra(5, [150, 131], &["power law", "deficient", "kappa 1e5"], Dtype::F32);
    let tensor = batch.tensor.to_device(&device).unwrap();
    let svd = with_options(&tensor, Rank::Fixed(40), &Options { start: Rung::Jacobi, ..Options::default() });
    batch.check("rotated", &svd);
    assert_eq!(infos(&svd), [Info::Solved(Rung::Jacobi); 3]);
    batch.check_cpu("rotated", &svd, 40);
}

#[test]
fn every_output_in_every_dtype_keeps_the_promise() {
    let device = support::device();
    let names = ["power law", "kappa 1e5", "deficient"];
    for (shape, rank) in [([160, 140], 33), ([140, 160], 33)] {
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
fn a_matrix_keeps_its_bits_alone_and_beside_a_nan_and_zeros() {
    let (m, n, rank) = (135, 132, 17);
    let names = ["power law", "kappa 1e5", "deficient", "flat"];
    let one = |i: usize| with_spectrum(i as u64, m, n, &spectrum(names[i % 4], n));
    for (architecture, dtype) in [80, 90].into_iter().zip([Dtype::BF16, Dtype::F32]) {
        let device = support::emulate(&Emulation { architecture, ..Emulation::default() });
        let batch = Batch::new(&(0..6).map(one).collect::<Vec<_>>(), dtype);
        let mut data = batch.tensor.to_f32_vec().unwrap();
        data[4 * m * n + 77] = f32::NAN;
        data[5 * m * n..].fill(0.0);
        let poisoned = Tensor::from_slice(&data, &[6, m, n], &Device::cpu()).unwrap().to_dtype(dtype).unwrap();
        let together = fixed_on(&device, &poisoned, rank);
        assert_eq!((infos(&together)[4], ranks(&together)[4], ranks(&together)[5]), (Info::NonFinite, 0, rank));
        let (bad, zero) = (factors(&together, 4), factors(&together, 5));
        assert!(bad.u.data.iter().chain(&bad.s).chain(&bad.v.data).all(|x| x.is_nan()));
        assert!(zero.s.iter().all(|s| *s == 0.0) && zero.u.at(3, 3) == 1.0 && zero.v.at(3, 2) == 0.0);
        for i in 0..4 {
            let alone = fixed_on(&device, &batch.tensor.select(0, i).unwrap(), rank);
            assert_eq!(bits_of(&alone, 0), bits_of(&together, i), "matrix {i} in {dtype} on {architecture}");
        }
    }
}

#[test]
fn zero_and_deficient_matrices_and_extreme_scales_are_no_exception() {
    let device = support::device();
    let (m, n) = (140, 133);
    let digit = |seed, i: usize| f64::from(lowkey::philox::Stream::new(seed, 1).bits(i as u64) % 7) - 3.0;
    let product = Matrix::from_fn(m, n, |i, j| (0..3).map(|k| digit(1, 3 * i + k) * digit(2, 3 * j + k)).sum());
    let identity = Matrix::from_fn(m, n, |i, j| if i == j { 3.0 } else { 0.0 });
    let one_column = Matrix::from_fn(m, n, |i, j| if j == 4 { i as f64 - 7.0 } else { 0.0 });
    let base = with_spectrum(7, m, n, &spectrum("power law", n));
    let scaled = |scale: f64| Matrix { data: base.data.iter().map(|x| x * scale).collect(), ..base };
    let batch = Batch::new(&[product, identity, one_column, scaled(1e30), scaled(1e-37)], Dtype::F32);
    for rank in [4, n] {
        batch.check(&format!("rank {rank}"), &fixed_on(&device, &batch.tensor, rank));
    }
}

#[test]
fn a_tolerance_is_met_by_the_smallest_rank_or_nearly() {
    let device = support::device();
    let batch = Batch::of_spectra(1, [150, 130], &["power law", "kappa 1e5", "deficient", "flat", "tiny step"], Dtype::F32);
    let tensor = batch.tensor.to_device(&device).unwrap();
    for relative in [0.5, 0.02, 1e-4, 2e-6] {
        for mode in [Mode::Safe, Mode::Fast] {
            let options = Options { mode, ..Options::default() };
            let svd = with_options(&tensor, Rank::Tolerance { relative, max: 130 }, &options);
            for (i, (a, exact)) in batch.matrices.iter().zip(&batch.exact).enumerate() {
                let (error, rank, norm) = (factors(&svd, i).error(a), ranks(&svd)[i], a.norm());
                assert!(error <= relative * norm, "matrix {i}: {error:e} at {relative:e}, rank {rank}");
                let smallest = (0..=130).find(|r| least_error(exact, *r) <= relative * norm).expect("full rank does");
                assert!(rank <= smallest + 2, "matrix {i}: rank {rank}, {smallest} would do at {relative:e}");
            }
        }
    }
}

#[test]
fn the_schedule_does_not_change_a_bit() {
    let batch = Batch::of_spectra(8, [140, 130], &["power law", "deficient"], Dtype::BF16);
    let run = |schedule| {
        let device = support::emulate(&Emulation { schedule, threads: 2, ..Emulation::default() });
        bits(&fixed_on(&device, &batch.tensor, 34))
    };
    let expected = run(0);
    for schedule in [1, 11, 22] {
        assert!(run(schedule) == expected, "schedule {schedule}");
    }
}

#[test]
fn a_captured_call_allocates_nothing_and_reads_its_matrices_in_place() {
    let device = support::device().new_stream().unwrap();
    let (tokens, heads, width, rank) = (140, 2, 131, 9);
    let data = |seed| -> Vec<f32> { normal(seed, tokens * heads, width).data.iter().map(|x| *x as f32).collect() };
    let mut cache = Tensor::from_slice(&data(11), &[tokens, heads, width], &device).unwrap();
    let options = Options { output: Output::LatentDecoder, ..Options::default() };
    let shape = [heads, tokens, width];
    let mut out = Svd::zeros(&shape, rank, &options, &device).unwrap();
    let bytes = svd::scratch_bytes(&shape, rank, &options, &device).unwrap();
    let mut scratch = Scratch::with_bytes(&device, bytes).unwrap();
    let scope = device.memory_scope();
    let view = cache.transpose(0, 1).unwrap();
    let graph = device.capture(|| svd::truncated_into(&view, Rank::Fixed(rank), &options, &mut out, &mut scratch)).unwrap();
    drop(view);
    cache.write(&data(12)).unwrap();
    graph.launch().unwrap();
    assert_eq!(scope.peak(), scope.at_start(), "nothing is allocated");
    let copied = cache.to_device(&Device::cpu()).unwrap().transpose(0, 1).unwrap().contiguous().unwrap();
    assert_eq!(bits(&out), bits(&with_options(&copied.to_device(&device).unwrap(), Rank::Fixed(rank), &options)));
}
