//! What `svd::truncated` promises of matrices that are sketched, of wide Gram matrices, and of every kind of output.

use half::{bf16, f16};
use lowkey::{
    Device, Dtype, Error, Scratch, Tensor,
    svd::{self, Info, Mode, Options, Output, Rank, Rung, Svd, Verdict, Watch},
};

use crate::svd::{Matrix, bits, factors, least_error, normal, skew, spectrum, with_spectrum};

const EPS: f64 = f32::EPSILON as f64;

fn run(a: &Tensor, rank: Rank, options: &Options) -> Svd {
    svd::truncated(a, rank, options).expect("a valid call")
}

fn verdict(svd: &Svd) -> Verdict {
    svd.verdicts().expect("host")[0]
}

/// What the product of a result's parts leaves of A, whatever the output.
fn left(svd: &Svd, output: Output, a: &Matrix) -> f64 {
    let wide = |tensor: &Tensor| tensor.to_f32_vec().expect("host").into_iter().map(f64::from).collect::<Vec<_>>();
    let (u, s, v) = (wide(&svd.u), wide(&svd.s), wide(&svd.v));
    let rank = *svd.u.shape().last().expect("an axis");
    let u = faer::Mat::from_fn(a.m, rank, |i, k| u[i * rank + k] * if output == Output::Usv { s[k] } else { 1.0 });
    let v = faer::Mat::from_fn(a.n, rank, |j, k| v[j * rank + k]);
    let product = u * v.transpose();
    let squares = (0..a.m).flat_map(|i| (0..a.n).map(move |j| (i, j))).map(|(i, j)| (a.at(i, j) - product[(i, j)]).powi(2));
    squares.sum::<f64>().sqrt()
}

/// A matrix with this spectrum, rounded to f32. Its singular values are those of the spectrum, but for that rounding.
fn large(seed: u64, [m, n]: [usize; 2], s: &[f64]) -> (Tensor, Matrix) {
    with_spectrum(seed, m, n, s).rounded()
}

#[test]
fn sketched_matrices_come_within_a_thousandth_of_the_least_error() {
    let cases = [
        ("power law", [1300, 1100], 40),
        ("flat", [1100, 1300], 24),
        ("step", [1500, 1100], 30),
        ("exponential", [1100, 1100], 48),
        ("duplicates", [1030, 1200], 33),
        ("deficient", [1100, 1030], 20),
        ("kappa 1e5", [1100, 1111], 64),
    ];
    for (seed, (name, shape, rank)) in (0..).zip(cases) {
        let s = spectrum(name, shape[0].min(shape[1]));
        let (tensor, a) = large(seed, shape, &s);
        let norm = a.norm();
        for (mode, limit) in [(Mode::Safe, 1.001), (Mode::Fast, 1.02)] {
            let svd = run(&tensor, Rank::Fixed(rank), &Options { mode, ..Options::default() });
            let (f, verdict) = (factors(&svd, 0), verdict(&svd));
            assert!(matches!(verdict.info, Info::Sketched(_)), "{name}: {verdict:?}");
            let (error, least) = (left(&svd, Output::Usv, &a), least_error(&s, rank));
            let what = format!("{name} {shape:?} {mode:?} {verdict:?}");
            assert!(error <= limit * least + 16.0 * EPS * norm, "{what}: error {error:e}, least {least:e}");
            assert!((f64::from(verdict.tail) * norm - error).abs() <= 0.01 * error + 8.0 * EPS * norm, "{what}: {error:e}");
            assert!(skew(&f.u, rank) <= 1e-5, "{what}: U'U - I {:e}", skew(&f.u, rank));
            assert!(skew(&f.v, rank) <= 1e-5, "{what}: V'V - I {:e}", skew(&f.v, rank));
            for (k, exact) in s.iter().enumerate().take(rank) {
                let largest = (0..f.v.m).fold(0.0f64, |x, i| if f.v.at(i, k).abs() > x.abs() { f.v.at(i, k) } else { x });
                assert!(largest > 0.0 && (k == 0 || f.s[k] <= f.s[k - 1]), "{what}: column {k}");
                let share = if mode == Mode::Safe { 0.02 } else { 0.1 };
                assert!(
                    (f.s[k] - exact).abs() <= share * exact + 16.0 * EPS * norm,
                    "{what}: s[{k}] {:e}, {:e}",
                    f.s[k],
                    exact
                );
            }
        }
    }
}

#[test]
fn sketches_find_values_beside_noise_when_large_ones_were_found_long_before() {
    let steep: Vec<f64> = (0..1030).map(|i| if i < 6 { 10f64.powf(-(i as f64) / 2.0) } else { 0.0 }).collect();
    let (clean, noise) = (with_spectrum(13, 1051, 1030, &steep), normal(14, 1051, 1030));
    let (tensor, a) = Matrix::from_fn(1051, 1030, |i, j| clean.at(i, j) + 1.5e-6 * noise.at(i, j)).rounded();
    let svd = run(&tensor, Rank::Fixed(16), &Options::default());
    let (error, least) = (left(&svd, Output::Usv, &a), least_error(&a.singular_values(), 16));
    assert!(error <= 1.001 * least + 16.0 * EPS * a.norm(), "{:?}: error {error:e}, least {least:e}", verdict(&svd));
}

/// The error over the least possible one, and the verdict, of U, s and V.
fn over_the_least(tensor: &Tensor, a: &Matrix, s: &[f64], rank: usize, mode: Mode) -> (f64, Verdict) {
    let svd = run(tensor, Rank::Fixed(rank), &Options { mode, ..Options::default() });
    (left(&svd, Output::Usv, a) / least_error(s, rank), verdict(&svd))
}

#[test]
fn values_repeated_more_often_than_a_block_is_wide_are_all_found() {
    for (seed, (copies, rank, rest)) in (0..).zip([(40, 40, 0.1), (33, 36, 0.03), (24, 32, 0.2)]) {
        let s: Vec<f64> = (0..1030).map(|i| if i < copies { 1.0 } else { rest }).collect();
        let (tensor, a) = large(seed, [1111, 1030], &s);
        for (mode, limit) in [(Mode::Safe, 1.001), (Mode::Fast, 1.02)] {
            let (ratio, verdict) = over_the_least(&tensor, &a, &s, rank, mode);
            assert!(ratio <= limit, "{copies} copies, rank {rank}, {mode:?}: {ratio}, {verdict:?}");
            assert!(matches!(verdict.info, Info::Sketched(_)), "{verdict:?}");
        }
    }
}

#[test]
fn spectra_that_no_sketch_resolves_are_left_to_the_gram_matrix() {
    let round = |i: usize, all: usize, power: f64| (1.0 - (i as f64 / all as f64).powf(power)).max(1e-7);
    let slow: Vec<f64> = (0..1030).map(|i| round(i.min(160), 160, 2.0)).collect();
    let straight: Vec<f64> = (0..1030).map(|i| round(i.min(120), 120, 1.0)).collect();
    let tiny: Vec<f64> = (0..1030).map(|i| if i < 8 { 1.0 } else { 3e-5 * round((i - 8).min(160), 160, 2.0) }).collect();
    for (seed, (what, s, rank)) in (0..).zip([("slow", &slow, 20), ("straight", &straight, 4), ("tiny", &tiny, 28)]) {
        let (tensor, a) = large(seed, [1100, 1030], s);
        let (ratio, verdict) = over_the_least(&tensor, &a, s, rank, Mode::Safe);
        // What is tiny is held to the least error as well, as far as f32 can tell.
        assert!(ratio <= if what == "tiny" { 1.003 } else { 1.001 }, "{what}: {ratio}, {verdict:?}");
    }
    // The Gram matrix has every output, and the other side of a wide matrix.
    let (tensor, a) = large(9, [1030, 1100], &slow);
    for output in OUTPUTS {
        let svd = run(&tensor, Rank::Fixed(20), &Options { output, factors: Dtype::F32, ..Options::default() });
        assert!((factors(&svd, 0).s.first().copied().unwrap_or(1.0) - 1.0).abs() < 1e-5, "{output:?}");
        if output != Output::ValuesOnly {
            assert!(left(&svd, output, &a) <= 1.001 * least_error(&slow, 20), "{output:?} {:?}", verdict(&svd));
        }
    }
}

#[test]
fn values_alone_of_a_sketch_meet_small_tolerances() {
    let s = spectrum("exponential", 1030);
    let (tensor, _) = large(5, [1100, 1030], &s);
    for relative in [1e-2, 1e-4, 1e-5] {
        let rank = Rank::Tolerance { relative, max: 60 };
        let svd = run(&tensor, rank, &Options { output: Output::ValuesOnly, ..Options::default() });
        assert_eq!(verdict(&svd), verdict(&run(&tensor, rank, &Options::default())), "{relative:e}");
        assert!(svd.s.to_f32_vec().expect("host")[verdict(&svd).rank..].iter().all(|s| *s == 0.0));
    }
}

#[test]
fn sketches_of_matrices_with_few_columns_are_complete() {
    let mut cases = vec![("all ones", Matrix::from_fn(1100, 1030, |_, _| 1.0))];
    cases.push(("one entry", Matrix::from_fn(1030, 1100, |i, j| f64::from(u8::from((i, j) == (700, 3))))));
    for columns in [1, 10, 17, 60] {
        let dense = crate::svd::normal(columns as u64, 1100, columns);
        cases.push((
            "few columns",
            Matrix::from_fn(1100, 1030, |i, j| if j % 17 == 0 && j / 17 < columns { dense.at(i, j / 17) } else { 0.0 }),
        ));
    }
    for (what, a) in cases {
        let (tensor, a) = a.rounded();
        let exact = a.singular_values();
        for (mode, rank) in [(Mode::Safe, 20), (Mode::Fast, 20), (Mode::Safe, 3)] {
            let svd = run(&tensor, Rank::Fixed(rank), &Options { mode, ..Options::default() });
            let (f, least, verdict) = (factors(&svd, 0), least_error(&exact, rank), verdict(&svd));
            let error = left(&svd, Output::Usv, &a);
            let what = format!("{what} {mode:?} rank {rank}: {verdict:?}, error {error:e}, least {least:e}");
            let limit = if mode == Mode::Safe { 1.001 } else { 1.02 };
            assert!(error <= limit * least + 64.0 * EPS * a.norm(), "{what}");
            assert!(
                skew(&f.u, rank) <= 1e-5 && skew(&f.v, rank) <= 1e-5,
                "{what}: {:e} {:e}",
                skew(&f.u, rank),
                skew(&f.v, rank)
            );
            // An error within 1.001 leaves this much to the largest of many values that lie close together.
            let share = if mode == Mode::Safe { 0.02 } else { 0.05 };
            assert!((f.s[0] - exact[0]).abs() <= share * exact[0], "{what}: s[0] {:e}, {:e}", f.s[0], exact[0]);
        }
    }
}

#[test]
fn sketches_keep_every_other_promise() {
    let s = spectrum("power law", 1030);
    let (tensor, a) = large(3, [1100, 1030], &s);
    let rank = Rank::Fixed(20);
    let expected = run(&tensor, rank, &Options::default());
    // Threads.
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        assert!(pool.install(|| bits(&run(&tensor, rank, &Options::default()))) == bits(&expected), "{threads} threads");
    }
    // A batch, with a neighbour that holds a NaN and one of zeros.
    let mut data = tensor.to_f32_vec().expect("host");
    let one = data.len();
    data.extend_from_within(..);
    data[one + 5] = f32::NAN;
    data.resize(3 * one, 0.0);
    let batch = Tensor::from_slice(&data, &[3, 1100, 1030], &Device::cpu()).expect("memory");
    let together = run(&batch, rank, &Options::default());
    let verdicts = together.verdicts().expect("host");
    assert_eq!(verdicts[0], verdict(&expected));
    assert!(factors(&together, 0).u.data == factors(&expected, 0).u.data);
    assert_eq!((verdicts[1].info, verdicts[1].rank), (Info::NonFinite, 0));
    assert!(factors(&together, 1).v.data.iter().all(|x| x.is_nan()));
    assert_eq!((verdicts[2].rank, verdicts[2].tail), (20, 0.0));
    assert!(skew(&factors(&together, 2).u, 20) == 0.0 && factors(&together, 2).s.iter().all(|s| *s == 0.0));
    // Scale, and the transposed view's memory.
    for scale in [2f32.powi(100), 2f32.powi(-100)] {
        let scaled: Vec<f32> = data[..one].iter().map(|x| x * scale).collect();
        let scaled = Tensor::from_slice(&scaled, &[1100, 1030], &Device::cpu()).expect("memory");
        let svd = run(&scaled, rank, &Options::default());
        for (x, y) in factors(&svd, 0).s.iter().zip(&factors(&expected, 0).s) {
            assert!((x / f64::from(scale) - y).abs() <= 1e-5 * y, "{x:e} {y:e} at {scale:e}");
        }
    }
    // Another seed, another sketch, the same promise.
    let other = run(&tensor, rank, &Options { seed: 9, ..Options::default() });
    assert!(bits(&other) != bits(&expected));
    assert!(left(&other, Output::Usv, &a) <= 1.001 * least_error(&s, 20));
}

#[test]
fn sketches_read_halves_and_strided_rows_as_what_they_hold() {
    let a = with_spectrum(4, 1100, 1040, &spectrum("power law", 1040));
    let half: Vec<f16> = a.data.iter().map(|x| f16::from_f64(*x)).collect();
    let brain: Vec<bf16> = a.data.iter().map(|x| bf16::from_f64(*x)).collect();
    let device = Device::cpu();
    for tensor in [Tensor::from_slice(&half, &[1100, 1040], &device), Tensor::from_slice(&brain, &[1100, 1040], &device)] {
        let tensor = tensor.expect("memory");
        let cut = tensor.narrow(1, 7, 1030).expect("a range");
        let copy = cut.to_dtype(Dtype::F32).expect("memory").contiguous().expect("memory");
        let [in_place, copied] = [&cut, &copy].map(|a| bits(&run(a, Rank::Fixed(9), &Options::default())));
        assert!(in_place == copied, "{}", tensor.dtype());
    }
}

#[test]
fn sketched_tolerances_are_met_by_the_smallest_rank_or_nearly() {
    let s = spectrum("exponential", 1030);
    let (tensor, a) = large(5, [1100, 1030], &s);
    let norm = a.norm();
    for relative in [0.3, 1e-2, 1e-3, 1e-4] {
        let svd = run(&tensor, Rank::Tolerance { relative, max: 60 }, &Options::default());
        let (verdict, error) = (verdict(&svd), left(&svd, Output::Usv, &a) / norm);
        assert!(error <= relative, "{error:e} at {relative:e}: {verdict:?}");
        let smallest = (0..=60).find(|r| least_error(&s, *r) <= relative * norm).expect("60 columns do");
        assert!(verdict.rank <= smallest + 2, "rank {}, {smallest} would do at {relative:e}", verdict.rank);
        assert!((f64::from(verdict.tail) - error).abs() <= 0.01 * error + 8.0 * EPS, "{verdict:?}, error {error:e}");
    }
}

#[test]
fn gram_matrices_wider_than_the_caches_keep_the_promise() {
    for (seed, (name, shape, rank)) in
        (0..).zip([("power law", [700, 300], 40), ("kappa 1e5", [520, 515], 100), ("deficient", [333, 600], 333)])
    {
        let (tensor, a) = large(seed, shape, &spectrum(name, shape[0].min(shape[1])));
        crate::svd::check(name, &run(&tensor, Rank::Fixed(rank), &Options::default()), 0, &a, &a.singular_values());
    }
}

const OUTPUTS: [Output; 4] = [Output::Usv, Output::LatentDecoder, Output::Qb, Output::ValuesOnly];

#[test]
fn every_output_is_what_it_says() {
    let names = ["power law", "flat", "kappa 1e5", "deficient", "tiny step"];
    for (seed, shape) in (0..).zip([[90, 40], [40, 90], [33, 33], [1100, 1030], [1030, 1100]]) {
        for name in names {
            let width = shape[0].min(shape[1]);
            let (rank, s) = (if width > 1000 { 24 } else { 12 }, spectrum(name, width));
            let (tensor, a) = large(seed, shape, &s);
            let (norm, least) = (a.norm(), least_error(&s, rank));
            for output in OUTPUTS {
                let svd = run(&tensor, Rank::Fixed(rank), &Options { output, ..Options::default() });
                let what = format!("{name} {shape:?} {output:?} {:?}", verdict(&svd));
                let columns = if output == Output::ValuesOnly { 0 } else { rank };
                assert_eq!((svd.u.shape(), svd.v.shape()), (&[shape[0], columns][..], &[shape[1], columns][..]), "{what}");
                assert_eq!(svd.s.len(), if output == Output::Qb { 0 } else { rank }, "{what}");
                for (x, y) in factors(&svd, 0).s.iter().zip(&s) {
                    assert!((x - y).abs() <= 0.02 * y + 16.0 * EPS * norm, "{what}: {x:e}, exactly {y:e}");
                }
                if output == Output::ValuesOnly {
                    continue;
                }
                let error = left(&svd, output, &a);
                assert!(error <= 1.001 * least + 16.0 * EPS * norm, "{what}: error {error:e}, least {least:e}");
                let orthonormal = if output == Output::Qb { factors(&svd, 0).u } else { factors(&svd, 0).v };
                assert!(skew(&orthonormal, rank) <= 1e-5, "{what}: {:e}", skew(&orthonormal, rank));
            }
        }
    }
}

#[test]
fn values_alone_are_those_of_the_factors() {
    for name in ["power law", "kappa 1e5", "flat", "deficient"] {
        let (tensor, a) = large(1, [200, 60], &spectrum(name, 60));
        let exact = a.singular_values();
        let svd = run(&tensor, Rank::Fixed(30), &Options { output: Output::ValuesOnly, ..Options::default() });
        for (x, y) in factors(&svd, 0).s.iter().zip(&exact) {
            assert!((x - y).abs() <= 1e-5 * y + 4.0 * EPS * a.norm(), "{name}: {x:e}, exactly {y:e}");
        }
    }
}

#[test]
fn zero_matrices_have_every_output() {
    for shape in [[6, 4], [4, 6], [1030, 1100]] {
        let zero = Tensor::zeros(&shape, Dtype::BF16, &Device::cpu()).expect("memory");
        for output in OUTPUTS {
            let svd = run(&zero, Rank::Fixed(3), &Options { output, ..Options::default() });
            let (f, verdict) = (factors(&svd, 0), verdict(&svd));
            assert!((verdict.rank, verdict.tail) == (3, 0.0) && f.s.iter().all(|s| *s == 0.0), "{verdict:?}");
            if output != Output::ValuesOnly {
                assert_eq!(left(&svd, output, &Matrix::from_fn(shape[0], shape[1], |_, _| 0.0)), 0.0);
                assert!(skew(if output == Output::Qb { &f.u } else { &f.v }, 3) == 0.0, "{output:?}");
            }
        }
    }
}

#[test]
fn factors_in_sixteen_bits_are_the_f32_ones_rounded() {
    for shape in [[70, 33], [33, 70], [1030, 1100]] {
        let (tensor, _) = large(2, shape, &spectrum("power law", shape[0].min(shape[1])));
        for output in OUTPUTS {
            let single = run(&tensor, Rank::Fixed(7), &Options { output, ..Options::default() });
            for factors in [Dtype::F16, Dtype::BF16] {
                let svd = run(&tensor, Rank::Fixed(7), &Options { output, factors, ..Options::default() });
                for (part, whole) in [(&svd.u, &single.u), (&svd.v, &single.v)] {
                    let rounded = whole.to_dtype(factors).expect("memory").to_f32_vec().expect("host");
                    assert_eq!((part.dtype(), part.to_f32_vec().expect("host")), (factors, rounded), "{output:?} {shape:?}");
                }
                assert_eq!(svd.s.to_f32_vec().expect("host"), single.s.to_f32_vec().expect("host"));
                assert_eq!(verdict(&svd), verdict(&single));
            }
        }
    }
    let options = Options { factors: Dtype::I8, ..Options::default() };
    let a = Tensor::zeros(&[3, 3], Dtype::F32, &Device::cpu()).expect("memory");
    assert!(matches!(svd::truncated(&a, Rank::Fixed(1), &options), Err(Error::Dtype { .. })));
}

#[test]
fn latents_beyond_sixteen_bits_are_infinite_there_and_nowhere_else() {
    let (_, a) = large(3, [70, 20], &spectrum("power law", 20));
    let data: Vec<f32> = a.data.iter().map(|x| 1e7 * *x as f32).collect();
    let tensor = Tensor::from_slice(&data, &[70, 20], &Device::cpu()).expect("memory");
    let latents = |factors| {
        let svd = run(&tensor, Rank::Fixed(4), &Options { output: Output::LatentDecoder, factors, ..Options::default() });
        assert!(verdict(&svd).info == Info::Solved(Rung::Single) && verdict(&svd).tail.is_finite());
        assert!(svd.v.to_f32_vec().expect("host").iter().all(|x| x.is_finite()));
        svd.u.to_f32_vec().expect("host")
    };
    let (half, single) = (latents(Dtype::F16), latents(Dtype::F32));
    assert!(half.iter().zip(&single).all(|(half, x)| half.is_infinite() == (x.abs() >= 65520.0)));
    assert!(half.iter().any(|x| x.is_infinite()) && latents(Dtype::BF16).iter().all(|x| x.is_finite()));
}

#[test]
fn a_thousand_seeds_keep_the_promises_of_both_modes() {
    let stream = lowkey::philox::Stream::new(77, 0);
    for seed in 0..1000u64 {
        let pick = |i: u64, from: usize, to: usize| from + stream.bits(8 * seed + i) as usize % (to - from + 1);
        let (n, m) = (pick(0, 8, 40), pick(1, 40, 90));
        let rank = pick(2, 2, n - 2);
        for (mode, most, share) in [(Mode::Fast, 300.0, 400.0), (Mode::Safe, 1e4, 4.0)] {
            // s_1 / s_rank up to the limit, and a tail that starts anywhere below.
            let kappa: f64 = f64::powf(most, f64::from(stream.uniform(8 * seed + 3)));
            let gap = f64::from(stream.uniform(8 * seed + 4));
            let s: Vec<f64> = (0..n)
                .map(|i| kappa.powf(-(i as f64) / (rank - 1) as f64).max(1.0 / kappa) * if i < rank { 1.0 } else { gap })
                .collect();
            let (tensor, a) = with_spectrum(seed, m, n, &s).rounded();
            let svd = run(&tensor, Rank::Fixed(rank), &Options { mode, ..Options::default() });
            let (f, least) = (factors(&svd, 0), least_error(&a.singular_values(), rank));
            let what = format!("seed {seed} {mode:?} {m}x{n} rank {rank} kappa {kappa:.0} gap {gap:.2} {:?}", verdict(&svd));
            let error = f.error(&a);
            assert!(error <= 1.001 * least + share * EPS * a.norm(), "{what}: error {error:e}, least {least:e}");
            assert!(skew(&f.u, rank) <= 1e-5 && skew(&f.v, rank) <= 1e-5, "{what}: {:e}", skew(&f.u, rank));
            assert!(mode == Mode::Safe || verdict(&svd).info == Info::Solved(Rung::Single), "{what}");
        }
    }
}

#[test]
fn a_watch_counts_matrices_and_ends_a_call() {
    let device = Device::cpu();
    let a = Tensor::from_slice(&vec![1.0f32; 40 * 30 * 8], &[40, 30, 8], &device).expect("memory");
    let watch = Watch::new();
    let options = Options { watch: Some(watch.clone()), ..Options::default() };
    assert_eq!(watch.progress(), (0, 0));
    run(&a, Rank::Fixed(2), &options);
    assert_eq!(watch.progress(), (40, 40));
    // A large matrix: passes count, and there are as many done as there are in all.
    let (large, _) = large(1, [1100, 1030], &spectrum("power law", 1030));
    run(&large, Rank::Fixed(8), &options);
    let (done, total) = watch.progress();
    assert!(done == total && total > 6, "{done} of {total}");
    watch.cancel();
    let mut out = Svd::zeros(a.shape(), 2, &options, &device).expect("memory");
    let cancelled = svd::truncated_into(&a, Rank::Fixed(2), &options, &mut out, &mut Scratch::new(&device));
    assert!(matches!(cancelled, Err(Error::Cancelled { .. })), "{cancelled:?}");
    // From another thread, in the middle of a call that would take far longer.
    let (watch, long) = (Watch::new(), Tensor::zeros(&[1 << 22, 2, 2], Dtype::F32, &device).expect("memory"));
    let options = Options { watch: Some(watch.clone()), ..Options::default() };
    std::thread::scope(|scope| {
        let call = scope.spawn(|| svd::truncated(&long, Rank::Fixed(1), &options));
        while watch.progress().0 == 0 {
            std::thread::yield_now();
        }
        watch.cancel();
        assert!(matches!(call.join().expect("no panic"), Err(Error::Cancelled { .. })));
    });
    assert!(watch.progress().0 < 1 << 22);
}

#[test]
fn a_watch_ends_work_on_one_wide_gram_matrix() {
    let data = normal(3, 2600, 2600).data.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let a = Tensor::from_slice(&data, &[2600, 2600], &Device::cpu()).expect("memory");
    let watch = Watch::new();
    let options = Options { watch: Some(watch.clone()), ..Options::default() };
    std::thread::scope(|scope| {
        let start = std::time::Instant::now();
        let call = scope.spawn(|| svd::truncated(&a, Rank::Fixed(1300), &options));
        while watch.progress().1 == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        watch.cancel();
        assert!(matches!(call.join().expect("no panic"), Err(Error::Cancelled { .. })));
        // The matrix by itself takes much longer.
        assert!(start.elapsed().as_secs_f64() < 3.0, "{:?}", start.elapsed());
    });
}
