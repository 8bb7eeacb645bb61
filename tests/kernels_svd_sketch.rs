//! Sketches of large matrices on devices.

use lowkey::{
    Dtype, Tensor,
    svd::{self, Info, Mode, Options, Output, Rank, Rung, Svd},
};

use crate::{
    kernels_svd::{Batch, with_options},
    support::{self, Against, Maker, agreed},
    svd::{Matrix, bits, bits_of, factors, infos, least_error, ranks, skew, spectrum, tails, with_spectrum},
};

/// The relative error of a sketch beside the least one: a Krylov space of five blocks holds nearly all, one of three a little
/// less.
fn promised(mode: Mode) -> f64 {
    if mode == Mode::Safe { 1.001 } else { 1.005 }
}

fn check(what: &str, svd: &Svd, index: usize, mode: Mode, a: &Matrix, s: &[f64]) {
    let (f, rank) = (factors(svd, index), ranks(svd)[index]);
    let (error, least) = (f.error(a), least_error(s, rank));
    assert!(error <= promised(mode) * least + 4e-7 * a.norm(), "{what}: error {error:e}, least {least:e}");
    assert!(skew(&f.u, rank) <= 1e-5 && skew(&f.v, rank) <= 1e-5, "{what}: {:e} {:e}", skew(&f.u, rank), skew(&f.v, rank));
    let tail = f64::from(tails(svd)[index]);
    assert!((tail * a.norm() - error).abs() <= 1e-3 * error + 4e-7 * a.norm(), "{what}: tail {tail:e}, error {error:e}");
    assert!(
        (0..f.v.n).all(|k| (0..f.v.m).map(|i| f.v.at(i, k)).fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a }) >= 0.0)
    );
    assert!(matches!(infos(svd)[index], Info::Sketched(Rung::Double)), "{what}: {:?}", infos(svd)[index]);
}

/// A sketch, held to an oracle and to the CPU path.
pub(crate) fn compare(make: &Maker<'_>) -> Vec<u8> {
    let batch = Batch::new(&[with_spectrum(9, 1027, 1025, &spectrum("power law", 1025))], Dtype::BF16);
    let (device, options) = (make(), Options { mode: Mode::Fast, ..Options::default() });
    let svd = with_options(&batch.tensor.to_device(&device).unwrap(), Rank::Fixed(4), &options);
    check("a comparison", &svd, 0, Mode::Fast, &batch.matrices[0], &batch.exact[0]);
    agreed(&device, Against::Oracle);
    let cpu = with_options(&batch.tensor, Rank::Fixed(4), &options);
    let (here, there) = (factors(&svd, 0), factors(&cpu, 0));
    assert!(here.s.iter().zip(&there.s).all(|(x, y)| (x - y).abs() <= 1e-3 * y), "{:?} {:?}", here.s, there.s);
    agreed(&device, Against::Cpu);
    bits(&svd).iter().flat_map(|x| x.to_ne_bytes()).collect()
}

/// 40 equal values, more than a block has columns, above a flat rest.
fn step(k: usize) -> Vec<f64> {
    (0..k).map(|i| if i < 40 { 1.0 } else { 0.02 }).collect()
}

#[test]
fn sketches_come_near_the_least_error() {
    let device = support::device();
    let cases = [
        ([1030, 1029], 9, Mode::Safe, Dtype::F32, "power law"),
        ([1029, 1030], 9, Mode::Fast, Dtype::BF16, "step"),
        ([1100, 1027], 5, Mode::Fast, Dtype::F32, "kappa 1e5"),
        ([1027, 1100], 40, Mode::Safe, Dtype::F16, "step"),
    ];
    for (seed, (shape, rank, mode, dtype, name)) in (0..).zip(cases) {
        let width = shape[0].min(shape[1]);
        let s = if name == "step" { step(width) } else { spectrum(name, width) };
        let batch = Batch::new(&[with_spectrum(seed, shape[0], shape[1], &s)], dtype);
        let options = Options { mode, ..Options::default() };
        let svd = with_options(&batch.tensor.to_device(&device).unwrap(), Rank::Fixed(rank), &options);
        check(&format!("{name} {shape:?} {mode:?}"), &svd, 0, mode, &batch.matrices[0], &batch.exact[0]);
    }
}

#[test]
fn matrices_of_small_rank_or_none_or_with_a_nan_do_not_touch_others() {
    let device = support::device();
    let (m, n, rank) = (1026, 1025, 6);
    let one = with_spectrum(1, m, n, &spectrum("power law", n));
    let three = with_spectrum(2, m, n, &(0..n).map(|i| [3.0, 2.0, 1.0].get(i).copied().unwrap_or(0.0)).collect::<Vec<_>>());
    let corner = Matrix::from_fn(m, n, |i, j| if i < 2 && j < 3 { (1 + i + 2 * j) as f64 } else { 0.0 });
    let zero = Matrix::from_fn(m, n, |_, _| 0.0);
    let mut bad = one.clone();
    bad.data[77] = f64::NAN;
    let options = Options { mode: Mode::Fast, ..Options::default() };
    let tensor = |matrices: &[&Matrix]| {
        let data: Vec<f32> = matrices.iter().flat_map(|a| &a.data).map(|x| *x as f32).collect();
        Tensor::from_slice(&data, &[matrices.len(), m, n], &device).unwrap()
    };
    let svd = with_options(&tensor(&[&one, &bad, &three, &corner, &zero]), Rank::Fixed(rank), &options);
    let infos = infos(&svd);
    assert!(matches!(infos[1], Info::NonFinite) && matches!(infos[4], Info::Solved(_)), "{infos:?}");
    assert!(factors(&svd, 1).s.iter().all(|s| s.is_nan()) && factors(&svd, 4).v.at(2, 2) == 1.0);
    for (i, a) in [(2, &three), (3, &corner)] {
        let f = factors(&svd, i);
        assert!(f.error(a) <= 1e-6 * a.norm(), "matrix {i}: {:e}", f.error(a) / a.norm());
        assert!(
            skew(&f.u, rank) <= 1e-5 && skew(&f.v, rank) <= 1e-5,
            "matrix {i}: {:e} {:e}",
            skew(&f.u, rank),
            skew(&f.v, rank)
        );
    }
    let alone = with_options(&tensor(&[&one]), Rank::Fixed(rank), &options);
    assert_eq!(bits_of(&alone, 0), bits_of(&svd, 0));
}

#[test]
fn every_output_and_tolerances_are_kept() {
    let device = support::device();
    let s = spectrum("exponential", 1025);
    for (seed, shape) in (0..).zip([[1040, 1025], [1025, 1040]]) {
        let batch = Batch::new(&[with_spectrum(seed, shape[0], shape[1], &s)], Dtype::F32);
        let (a, exact, tensor) = (&batch.matrices[0], &batch.exact[0], batch.tensor.to_device(&device).unwrap());
        for output in [Output::LatentDecoder, Output::Qb, Output::ValuesOnly] {
            let options = Options { output, mode: Mode::Fast, ..Options::default() };
            let svd = with_options(&tensor, Rank::Fixed(12), &options);
            let parts = factors(&svd, 0);
            for (x, y) in parts.s.iter().zip(exact) {
                assert!((x - y).abs() <= 0.02 * y, "{output:?}: {x:e}, exactly {y:e}");
            }
            if output == Output::ValuesOnly {
                continue;
            }
            let orthonormal = if output == Output::Qb { &parts.u } else { &parts.v };
            assert!(skew(orthonormal, 12) <= 1e-5, "{output:?}");
            let product = crate::svd::Factors { s: vec![1.0; 12], ..parts };
            assert!(product.error(a) <= 1.005 * least_error(exact, 12), "{output:?}");
        }
        let norm = a.norm();
        for relative in [0.2, 1e-3] {
            let svd = with_options(&tensor, Rank::Tolerance { relative, max: 60 }, &Options::default());
            let (error, rank) = (factors(&svd, 0).error(a) / norm, ranks(&svd)[0]);
            let smallest = (0..=60).find(|r| least_error(exact, *r) <= relative * norm).expect("60 columns do");
            assert!(error <= relative && rank <= smallest + 2, "{error:e} at {relative:e}, rank {rank} for {smallest}");
        }
    }
}

#[test]
fn the_seed_of_a_sketch_counts() {
    let device = support::device();
    let s: Vec<f64> = (0..1025).map(|i| f64::from(i + 1).powf(-0.2)).collect();
    let tensor = Batch::new(&[with_spectrum(3, 1030, 1025, &s)], Dtype::F32).tensor.to_device(&device).unwrap();
    let run = |seed| {
        let options = Options { seed, mode: Mode::Fast, ..Options::default() };
        factors(&svd::truncated(&tensor, Rank::Fixed(4), &options).unwrap(), 0).s
    };
    let (one, two) = (run(1), run(2));
    assert!(one != two && one == run(1));
    assert!(one.iter().zip(&two).all(|(x, y)| (x - y).abs() <= 0.05 * y), "{one:?} {two:?}");
}
