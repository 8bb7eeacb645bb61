//! What `svd::truncated` promises, held to f64 decompositions made here by another crate.

use half::{bf16, f16};
use lowkey::{
    Device, Dtype, Error, Scratch, Tensor,
    philox::Stream,
    svd::{self, Info, Mode, Options, Rank, Rung, Svd},
};

const EPS: f64 = f32::EPSILON as f64;

/// A matrix in f64, row-major.
#[derive(Clone)]
pub(crate) struct Matrix {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) data: Vec<f64>,
}

impl Matrix {
    pub(crate) fn from_fn(m: usize, n: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        Self { m, n, data: (0..m * n).map(|i| f(i / n, i % n)).collect() }
    }

    pub(crate) fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.n + j]
    }

    fn faer(&self) -> faer::Mat<f64> {
        faer::Mat::from_fn(self.m, self.n, |i, j| self.at(i, j))
    }

    pub(crate) fn norm(&self) -> f64 {
        self.data.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    pub(crate) fn singular_values(&self) -> Vec<f64> {
        self.faer().singular_values().expect("the oracle converges")
    }

    /// The matrix rounded to f32, as a tensor; and as what the tensor then holds.
    pub(crate) fn rounded(&self) -> (Tensor, Self) {
        let data: Vec<f32> = self.data.iter().map(|x| *x as f32).collect();
        let tensor = Tensor::from_slice(&data, &[self.m, self.n], &Device::cpu()).expect("memory");
        (tensor, Self { data: data.iter().map(|x| f64::from(*x)).collect(), ..*self })
    }
}

pub(crate) fn normal(seed: u64, m: usize, n: usize) -> Matrix {
    let stream = Stream::new(seed, 0);
    Matrix::from_fn(m, n, |i, j| f64::from(stream.normal((i * n + j) as u64)))
}

/// Orthonormal factors of random directions around the given singular values.
pub(crate) fn with_spectrum(seed: u64, m: usize, n: usize, s: &[f64]) -> Matrix {
    let k = m.min(n);
    let left = normal(2 * seed, m, k).faer().qr().compute_thin_Q();
    let right = normal(2 * seed + 1, n, k).faer().qr().compute_thin_Q();
    let scaled = faer::Mat::from_fn(m, k, |i, j| left[(i, j)] * s[j]);
    let product = scaled * right.transpose();
    Matrix::from_fn(m, n, |i, j| product[(i, j)])
}

/// Spectra by name, for k singular values.
pub(crate) fn spectrum(name: &str, k: usize) -> Vec<f64> {
    let at = |i: usize| match name {
        "power law" => 1.0 / (i + 1) as f64,
        "steep power law" => ((i + 1) as f64).powi(-3),
        "exponential" => (-(i as f64) * 0.3).exp(),
        "step" => {
            if i < k / 3 {
                1.0
            } else {
                1e-3
            }
        }
        "tiny step" => {
            if i < k.div_ceil(3) {
                1.0
            } else {
                1e-5
            }
        }
        "flat" => 1.0,
        "duplicates" => 1.0 / (i / 4 + 1) as f64,
        "deficient" => {
            if i < k.div_ceil(2) {
                1.0 / (i + 1) as f64
            } else {
                0.0
            }
        }
        "kappa 1e5" => 10f64.powf(-5.0 * i as f64 / (k - 1).max(1) as f64),
        "one large" => {
            if i == 0 {
                1e4
            } else {
                1.0 - 0.5 * i as f64 / k as f64
            }
        }
        _ => panic!("no spectrum {name}"),
    };
    (0..k).map(at).collect()
}

pub(crate) const SPECTRA: [&str; 10] = [
    "power law",
    "steep power law",
    "exponential",
    "step",
    "tiny step",
    "flat",
    "duplicates",
    "deficient",
    "kappa 1e5",
    "one large",
];

/// The factors of one matrix of a batch, widened.
pub(crate) struct Factors {
    pub(crate) u: Matrix,
    pub(crate) s: Vec<f64>,
    pub(crate) v: Matrix,
}

pub(crate) fn factors(svd: &Svd, index: usize) -> Factors {
    let wide = |tensor: &Tensor| -> Vec<f64> { tensor.to_f32_vec().expect("host").into_iter().map(f64::from).collect() };
    let part = |tensor: &Tensor| {
        let [.., m, n] = *tensor.shape() else { panic!("factors are matrices") };
        Matrix { m, n, data: wide(tensor)[index * m * n..][..m * n].to_vec() }
    };
    let r = *svd.s.shape().last().expect("an axis");
    Factors { u: part(&svd.u), s: wide(&svd.s)[index * r..][..r].to_vec(), v: part(&svd.v) }
}

impl Factors {
    pub(crate) fn error(&self, a: &Matrix) -> f64 {
        let mut squares = 0.0;
        for i in 0..a.m {
            for j in 0..a.n {
                let product: f64 = (0..self.s.len()).map(|k| self.u.at(i, k) * self.s[k] * self.v.at(j, k)).sum();
                squares += (a.at(i, j) - product).powi(2);
            }
        }
        squares.sqrt()
    }
}

/// The largest entry of Q'Q - I over the first `columns`.
pub(crate) fn skew(q: &Matrix, columns: usize) -> f64 {
    let mut worst = 0.0f64;
    for a in 0..columns {
        for b in 0..=a {
            let product: f64 = (0..q.m).map(|i| q.at(i, a) * q.at(i, b)).sum();
            worst = worst.max((product - f64::from(u8::from(a == b))).abs());
        }
    }
    worst
}

pub(crate) fn least_error(singular_values: &[f64], rank: usize) -> f64 {
    singular_values[rank..].iter().map(|s| s * s).sum::<f64>().sqrt()
}

/// Every promise about one matrix, its rank fixed. `what` names the case.
pub(crate) fn check(what: &str, svd: &Svd, index: usize, a: &Matrix, singular_values: &[f64]) {
    let (f, verdict) = (factors(svd, index), svd.verdicts().expect("host")[index]);
    let (rank, norm) = (f.s.len(), a.norm());
    assert!(matches!(verdict.info, Info::Solved(_)), "{what}: {verdict:?}");
    assert_eq!(verdict.rank, rank, "{what}");
    // U, s and V are rounded to f32, so nothing can be better than a few eps.
    let (error, least) = (f.error(a), least_error(singular_values, rank));
    assert!(error <= 1.001 * least + 4.0 * EPS * norm, "{what}: error {error:e}, least {least:e}, {verdict:?}");
    let tail = f64::from(verdict.tail) * norm;
    assert!((tail - error).abs() <= 0.01 * error + 4.0 * EPS * norm, "{what}: tail {tail:e}, error {error:e}");
    assert!(skew(&f.u, rank) <= 1e-5, "{what}: U'U - I {:e}", skew(&f.u, rank));
    assert!(skew(&f.v, rank) <= 1e-5, "{what}: V'V - I {:e}", skew(&f.v, rank));
    for (k, s) in f.s.iter().enumerate() {
        let exact = singular_values[k];
        assert!((s - exact).abs() <= 1e-5 * exact + 4.0 * EPS * norm, "{what}: s[{k}] {s:e}, exactly {exact:e}");
        assert!(k == 0 || *s <= f.s[k - 1], "{what}: s ascends at {k}");
        let column = || (0..f.v.m).map(|i| f.v.at(i, k));
        let largest = column().fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a });
        assert!(largest > 0.0, "{what}: the largest entry of column {k} of V is {largest}");
    }
}

fn fixed(a: &Tensor, rank: usize) -> Svd {
    svd::truncated(a, Rank::Fixed(rank), &Options::default()).expect("a valid call")
}

#[test]
fn every_spectrum_and_odd_shape_comes_within_a_thousandth_of_the_least_error() {
    let shapes =
        [(1, 1), (1, 59), (59, 1), (2, 3), (59, 59), (97, 111), (111, 97), (1025, 59), (59, 1025), (300, 64), (257, 128)];
    for (seed, (m, n)) in shapes.into_iter().enumerate() {
        let k: usize = m.min(n);
        for name in SPECTRA {
            let (tensor, a) = with_spectrum(seed as u64, m, n, &spectrum(name, k)).rounded();
            let exact = a.singular_values();
            let mut ranks = vec![1, k.div_ceil(4), k.div_ceil(2), k.saturating_sub(1).max(1), k];
            ranks.dedup();
            for rank in ranks {
                check(&format!("{name} {m}x{n} rank {rank}"), &fixed(&tensor, rank), 0, &a, &exact);
            }
        }
    }
}

#[test]
fn the_widest_matrices_keep_the_promise() {
    for name in ["power law", "flat", "kappa 1e5", "deficient"] {
        let (tensor, a) = with_spectrum(3, 300, 256, &spectrum(name, 256)).rounded();
        let exact = a.singular_values();
        for rank in [1, 59, 256] {
            check(&format!("{name} rank {rank}"), &fixed(&tensor, rank), 0, &a, &exact);
        }
    }
}

#[test]
fn a_thousand_random_matrices_keep_the_promise() {
    for seed in 0..1000u64 {
        let pick = |element, from: usize, to: usize| from + Stream::new(seed, 99).bits(element) as usize % (to - from + 1);
        let (m, n) = (pick(0, 1, 70), pick(1, 1, 40));
        let k = m.min(n);
        let name = SPECTRA[pick(2, 0, SPECTRA.len() - 1)];
        let scale = 10f64.powi(pick(3, 0, 40) as i32 - 20);
        let s: Vec<f64> = spectrum(name, k).iter().map(|s| s * scale).collect();
        let (tensor, a) = with_spectrum(seed, m, n, &s).rounded();
        let rank = pick(4, 1, k);
        check(
            &format!("seed {seed}: {name} {m}x{n} rank {rank} scale {scale:e}"),
            &fixed(&tensor, rank),
            0,
            &a,
            &a.singular_values(),
        );
    }
}

#[test]
fn every_rung_of_the_ladder_keeps_the_promise() {
    for name in SPECTRA {
        let (tensor, a) = with_spectrum(5, 131, 59, &spectrum(name, 59)).rounded();
        let exact = a.singular_values();
        for start in [Rung::Single, Rung::Double, Rung::Jacobi] {
            let svd = svd::truncated(&tensor, Rank::Fixed(20), &Options { start, ..Options::default() }).expect("a valid call");
            check(&format!("{name} from {start:?}"), &svd, 0, &a, &exact);
            let info = infos(&svd)[0];
            assert!(matches!(info, Info::Solved(rung) if rung >= start), "{name}: {info:?}");
        }
    }
}

#[test]
fn the_quick_rung_serves_ordinary_spectra_and_the_thorough_one_the_rest() {
    let rung = |name: &str, rank| infos(&fixed(&with_spectrum(6, 200, 64, &spectrum(name, 64)).rounded().0, rank))[0];
    assert_eq!(rung("power law", 16), Info::Solved(Rung::Single));
    assert_eq!(rung("flat", 16), Info::Solved(Rung::Single));
    assert_eq!(rung("kappa 1e5", 40), Info::Solved(Rung::Double));
    assert_eq!(rung("power law", 64), Info::Solved(Rung::Double));
}

#[test]
fn exactly_deficient_matrices_get_zero_singular_values_and_orthonormal_completions() {
    // Small integers: the product is exact, so the rank is exactly 3.
    let digit = |seed, i: usize| f64::from(Stream::new(seed, 1).bits(i as u64) % 7) - 3.0;
    for (m, n) in [(59, 20), (20, 59), (20, 20), (1025, 17)] {
        let a = Matrix::from_fn(m, n, |i, j| (0..3).map(|k| digit(1, 3 * i + k) * digit(2, 3 * j + k)).sum());
        let (tensor, a) = a.rounded();
        let exact = a.singular_values();
        for rank in [2, 3, 4, m.min(n)] {
            let svd = fixed(&tensor, rank);
            check(&format!("{m}x{n} rank {rank}"), &svd, 0, &a, &exact);
            let s = svd.s.to_f32_vec().expect("host");
            assert!(s.iter().skip(3).all(|x| *x <= 1e-6 * s[0]), "{s:?}");
        }
    }
}

#[test]
fn zero_matrices_get_orthonormal_factors() {
    for (m, n) in [(5, 3), (3, 5), (1, 1), (59, 59)] {
        let (tensor, a) = Matrix::from_fn(m, n, |_, _| 0.0).rounded();
        let rank = m.min(n);
        check("zero", &fixed(&tensor, rank), 0, &a, &vec![0.0; rank]);
    }
    // One column of it, the rest zero.
    let (tensor, a) = Matrix::from_fn(40, 9, |i, j| if j == 4 { i as f64 - 7.0 } else { 0.0 }).rounded();
    check("one column", &fixed(&tensor, 9), 0, &a, &a.singular_values());
    // A multiple of the identity: every eigenvalue equal, the tridiagonal form diagonal.
    let (tensor, a) = Matrix::from_fn(31, 31, |i, j| if i == j { 3.0 } else { 0.0 }).rounded();
    check("identity", &fixed(&tensor, 31), 0, &a, &a.singular_values());
}

#[test]
fn graded_columns_keep_the_promise() {
    for base in [2.0f64, 10.0, 0.3] {
        let (tensor, a) = Matrix::from_fn(120, 24, |i, j| normal(8, 120, 24).at(i, j) * base.powi(-(j as i32))).rounded();
        for rank in [1, 6, 12, 24] {
            check(&format!("base {base} rank {rank}"), &fixed(&tensor, rank), 0, &a, &a.singular_values());
        }
    }
}

#[test]
fn scale_does_not_matter() {
    let base = with_spectrum(7, 111, 32, &spectrum("power law", 32));
    for scale in [1e30, 1e-30, 1e-37, 1e36, 2f64.powi(-90)] {
        let (tensor, a) = Matrix { data: base.data.iter().map(|x| x * scale).collect(), ..base }.rounded();
        for rank in [8, 32] {
            check(&format!("scale {scale:e} rank {rank}"), &fixed(&tensor, rank), 0, &a, &a.singular_values());
        }
    }
}

#[test]
fn half_precision_inputs_are_read_exactly() {
    for (m, n) in [(97, 40), (40, 97), (300, 64)] {
        let source = with_spectrum(9, m, n, &spectrum("power law", 40.min(m.min(n)).max(m.min(n))));
        let half: Vec<f16> = source.data.iter().map(|x| f16::from_f64(*x)).collect();
        let brain: Vec<bf16> = source.data.iter().map(|x| bf16::from_f64(*x)).collect();
        let device = Device::cpu();
        for tensor in [Tensor::from_slice(&half, &[m, n], &device), Tensor::from_slice(&brain, &[m, n], &device)] {
            let tensor = tensor.expect("memory");
            let data = tensor.to_f32_vec().expect("host").into_iter().map(f64::from).collect();
            let a = Matrix { m, n, data };
            check(&format!("{} {m}x{n}", tensor.dtype()), &fixed(&tensor, 12), 0, &a, &a.singular_values());
            let wide = fixed(&tensor.to_dtype(Dtype::F32).expect("memory"), 12);
            assert_eq!(bits(&fixed(&tensor, 12)), bits(&wide), "{}", tensor.dtype());
        }
    }
}

/// A batch with every kind of matrix in it, as [count, m, n] f32 data.
pub(crate) fn batch(count: usize, m: usize, n: usize) -> Vec<f32> {
    let names = ["power law", "kappa 1e5", "deficient", "flat"];
    let one = |i: usize| with_spectrum(i as u64, m, n, &spectrum(names[i % names.len()], m.min(n))).rounded().1.data;
    (0..count).flat_map(one).map(|x| x as f32).collect()
}

/// All bits of a result.
pub(crate) fn bits(svd: &Svd) -> Vec<u32> {
    let host = |tensor: &Tensor| tensor.to_f32_vec().expect("host");
    [host(&svd.u), host(&svd.s), host(&svd.v), tails(svd)].concat().iter().map(|x| x.to_bits()).collect()
}

pub(crate) fn infos(svd: &Svd) -> Vec<Info> {
    svd.verdicts().expect("host").iter().map(|verdict| verdict.info).collect()
}

pub(crate) fn ranks(svd: &Svd) -> Vec<usize> {
    svd.verdicts().expect("host").iter().map(|verdict| verdict.rank).collect()
}

pub(crate) fn tails(svd: &Svd) -> Vec<f32> {
    svd.verdicts().expect("host").iter().map(|verdict| verdict.tail).collect()
}

pub(crate) fn bits_of(svd: &Svd, index: usize) -> Vec<u32> {
    let one = |tensor: &Tensor| {
        let all = tensor.to_f32_vec().expect("host");
        let each = all.len() / infos(svd).len();
        all[index * each..][..each].to_vec()
    };
    [one(&svd.u), one(&svd.s), one(&svd.v), vec![tails(svd)[index]]].concat().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_matrix_alone_and_in_a_batch_gives_the_same_bits() {
    for (m, n, rank) in [(97, 32, 9), (32, 97, 9), (600, 59, 20)] {
        let data = batch(33, m, n);
        let together = fixed(&Tensor::from_slice(&data, &[3, 11, m, n], &Device::cpu()).expect("memory"), rank);
        for (i, one) in data.chunks_exact(m * n).enumerate() {
            let alone = fixed(&Tensor::from_slice(one, &[m, n], &Device::cpu()).expect("memory"), rank);
            assert_eq!(bits_of(&alone, 0), bits_of(&together, i), "matrix {i} of {m}x{n}");
            assert_eq!(infos(&alone)[0], infos(&together)[i]);
        }
    }
}

#[test]
fn thread_counts_do_not_change_a_bit() {
    let tensor = Tensor::from_slice(&batch(16, 300, 64), &[16, 300, 64], &Device::cpu()).expect("memory");
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| bits(&fixed(&tensor, 24)))
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
fn a_nan_or_infinity_marks_its_own_matrix_and_leaves_the_others_bits_alone() {
    let (m, n) = (60, 32);
    let clean = batch(64, m, n);
    let before = fixed(&Tensor::from_slice(&clean, &[64, m, n], &Device::cpu()).expect("memory"), 8);
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = clean.clone();
        data[37 * m * n + 5] = poison;
        let after = fixed(&Tensor::from_slice(&data, &[64, m, n], &Device::cpu()).expect("memory"), 8);
        for i in 0..64 {
            if i == 37 {
                let verdict = after.verdicts().expect("host")[i];
                assert_eq!((verdict.info, verdict.rank), (Info::NonFinite, 0));
                assert!(verdict.tail.is_nan());
                assert!(factors(&after, i).u.data.iter().all(|x| x.is_nan()));
            } else {
                assert_eq!(bits_of(&after, i), bits_of(&before, i), "matrix {i} beside {poison}");
            }
        }
    }
}

#[test]
fn a_cache_is_read_in_place_through_its_transpose() {
    let (tokens, heads, width) = (130, 3, 40);
    let data: Vec<f32> = normal(11, tokens * heads, width).data.iter().map(|x| *x as f32).collect();
    let cache = Tensor::from_slice(&data, &[tokens, heads, width], &Device::cpu()).expect("memory");
    let view = cache.transpose(0, 1).expect("two axes");
    let copy = view.contiguous().expect("memory");
    assert_eq!(bits(&fixed(&view, 7)), bits(&fixed(&copy, 7)));
    // Columns cut out of wider rows, wide and tall.
    for (from, len) in [(3, 20), (0, 1)] {
        let cut = view.narrow(2, from, len).expect("a range");
        assert_eq!(bits(&fixed(&cut, 1)), bits(&fixed(&cut.contiguous().expect("memory"), 1)));
    }
    let wide = view.narrow(1, 0, 9).expect("a range");
    assert_eq!(bits(&fixed(&wide, 5)), bits(&fixed(&wide.contiguous().expect("memory"), 5)));
}

#[test]
fn a_tolerance_is_met_by_the_smallest_rank_or_nearly() {
    for (seed, name) in SPECTRA.into_iter().enumerate() {
        for (m, n) in [(200, 59), (59, 200)] {
            let (tensor, a) = with_spectrum(seed as u64, m, n, &spectrum(name, 59)).rounded();
            let (exact, norm) = (a.singular_values(), a.norm());
            let tolerances = [0.5, 0.1, 0.02, 1e-2, 1e-3, 1e-4, 1e-5, 2e-6];
            for (relative, mode) in tolerances.into_iter().flat_map(|relative| [(relative, Mode::Safe), (relative, Mode::Fast)])
            {
                let options = Options { mode, ..Options::default() };
                let svd = svd::truncated(&tensor, Rank::Tolerance { relative, max: 59 }, &options).expect("a valid call");
                let (f, rank) = (factors(&svd, 0), ranks(&svd)[0]);
                let error = f.error(&a) / norm;
                assert!(error <= relative, "{name} {m}x{n}: {error:e} at tolerance {relative:e}, rank {rank}");
                let smallest = (0..=59).find(|r| least_error(&exact, *r) <= relative * norm).expect("full rank does");
                assert!(rank <= smallest + 2, "{name} {m}x{n}: rank {rank}, {smallest} would do at {relative:e}");
                assert!(skew(&f.u, rank) <= 1e-5 && skew(&f.v, rank) <= 1e-5, "{name} at {relative:e}");
                for part in [&f.u, &f.v] {
                    let above = (0..part.m).all(|i| (rank..59).all(|j| part.at(i, j) == 0.0));
                    assert!(above && f.s[rank..].iter().all(|s| *s == 0.0), "{name}: columns above {rank} are not zero");
                }
            }
        }
    }
}

#[test]
fn a_tolerance_out_of_reach_keeps_max_columns_and_says_so() {
    let (tensor, a) = with_spectrum(1, 100, 30, &spectrum("flat", 30)).rounded();
    let svd = svd::truncated(&tensor, Rank::Tolerance { relative: 0.01, max: 10 }, &Options::default()).expect("a valid call");
    assert_eq!((ranks(&svd)[0], svd.u.shape()), (10, &[100, 10][..]));
    let error = factors(&svd, 0).error(&a) / a.norm();
    assert!((f64::from(tails(&svd)[0]) - error).abs() < 1e-3 && error > 0.8, "{error}");
    let zero = Tensor::zeros(&[2, 8, 4], Dtype::F32, &Device::cpu()).expect("memory");
    let svd = svd::truncated(&zero, Rank::Tolerance { relative: 0.1, max: 4 }, &Options::default()).expect("a valid call");
    assert_eq!((ranks(&svd), tails(&svd)), (vec![0, 0], vec![0.0, 0.0]));
}

#[test]
fn outputs_and_scratch_are_reused_and_what_they_held_does_not_matter() {
    let (m, n, rank) = (130, 48, 13);
    let device = Device::cpu();
    let tensor = Tensor::from_slice(&batch(4, m, n), &[4, m, n], &device).expect("memory");
    let expected = bits(&fixed(&tensor, rank));
    let mut out = Svd::zeros(&[4, m, n], rank, &Options::default(), &device).expect("memory");
    for part in [&mut out.u, &mut out.s, &mut out.v] {
        part.slice_mut::<f32>().expect("sole owner").fill(f32::NAN);
    }
    let bytes = svd::scratch_bytes(&[4, m, n], rank, &Options::default(), &device).expect("a valid shape");
    let mut scratch = Scratch::with_bytes(&device, bytes).expect("memory");
    let poisoned = Tensor::from_slice(&vec![f32::NAN; 4 * m * n], &[4, m, n], &device).expect("memory");
    svd::truncated_into(&poisoned, Rank::Fixed(rank), &Options::default(), &mut out, &mut scratch).expect("a valid call");
    for _ in 0..2 {
        svd::truncated_into(&tensor, Rank::Fixed(rank), &Options::default(), &mut out, &mut scratch).expect("a valid call");
        assert_eq!(bits(&out), expected);
    }
    assert_eq!(scratch.bytes(), bytes);
}

#[test]
fn each_bad_call_has_its_own_error() {
    let device = Device::cpu();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, Dtype::F32, &device).expect("memory");
    let refusal = |a: &Tensor, rank| svd::truncated(a, rank, &Options::default()).expect_err("a refusal").to_string();
    let fixed = |shape: &[usize], rank| refusal(&zeros(shape), Rank::Fixed(rank));
    assert!(fixed(&[4, 5, 3], 4).contains("rank 4; expected 1..=3"), "{}", fixed(&[4, 5, 3], 4));
    assert!(fixed(&[4, 5, 3], 0).contains("rank 0"));
    assert!(fixed(&[0, 5, 3], 1).contains("empty batch"));
    assert!(fixed(&[2, 0, 3], 1).contains("at least one row"));
    assert!(fixed(&[2, 3, 0], 1).contains("at least one row"));
    assert!(fixed(&[3], 1).contains("[.., m, n]"));
    for relative in [-0.1, 1.0, f64::NAN] {
        assert!(refusal(&zeros(&[5, 3]), Rank::Tolerance { relative, max: 3 }).contains("0 <= relative < 1"));
    }
    let gaps = zeros(&[5, 3]).transpose(0, 1).expect("two axes");
    assert!(refusal(&gaps, Rank::Fixed(1)).contains("stride 1"));
    let codes = Tensor::zeros(&[5, 3], Dtype::I8, &device).expect("memory");
    assert!(matches!(svd::truncated(&codes, Rank::Fixed(1), &Options::default()), Err(Error::Dtype { .. })));
    let mut out = Svd::zeros(&[5, 3], 2, &Options::default(), &device).expect("memory");
    let mut scratch = Scratch::new(&device);
    let error = svd::truncated_into(&zeros(&[5, 3]), Rank::Fixed(1), &Options::default(), &mut out, &mut scratch);
    assert!(error.expect_err("a refusal").to_string().contains("out.u"));
}

#[cfg(feature = "model")]
#[test]
fn a_real_models_cache_comes_within_a_thousandth_of_the_least_error_at_every_rank() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tinyshakespeare-llama/reference/kv.safetensors");
    let bytes = std::fs::read(path).expect("the recorded cache");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let caches = file.tensors().into_iter().filter(|(_, view)| view.dtype() == safetensors::Dtype::F16);
    let mut seen = 0;
    for (name, view) in caches {
        seen += 1;
        let data: Vec<f16> = view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect();
        let [heads, tokens, width] = *view.shape() else { panic!("{name} is [heads, tokens, width]") };
        let cache = Tensor::from_slice(&data, view.shape(), &Device::cpu()).expect("memory");
        let wide: Vec<f64> = data.iter().map(|x| x.to_f64()).collect();
        let each: Vec<Matrix> =
            wide.chunks_exact(tokens * width).map(|d| Matrix { m: tokens, n: width, data: d.to_vec() }).collect();
        let exact: Vec<Vec<f64>> = each.iter().map(Matrix::singular_values).collect();
        for rank in [8, 16, 24, 32, 48, 64] {
            let svd = fixed(&cache, rank);
            for head in 0..heads {
                let (error, least) = (factors(&svd, head).error(&each[head]), least_error(&exact[head], rank));
                let rounding = if rank == width { 4.0 * EPS * each[head].norm() } else { 0.0 };
                assert!(error <= 1.001 * least + rounding, "{name} head {head} rank {rank}: {error:e}, least {least:e}");
            }
        }
    }
    assert!(seen >= 12, "only {seen} caches: K before and after rotation, and V, of every layer");
}
