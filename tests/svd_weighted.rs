//! What `svd::weighted` and `svd::truncated_ragged` promise.

use lowkey::{
    Device, Dtype, Error, Scratch, Tensor,
    svd::{self, Info, Options, Output, Rank, Svd, Weighted},
};

use crate::svd::{Matrix, batch, bits, normal, spectrum, with_spectrum};

const EPS: f64 = f32::EPSILON as f64;

fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f32_vec().expect("host").into_iter().map(f64::from).collect()
}

fn faer(a: &Matrix) -> faer::Mat<f64> {
    faer::Mat::from_fn(a.m, a.n, |i, j| a.at(i, j))
}

pub(crate) fn tensor(a: &Matrix) -> Tensor {
    let data: Vec<f32> = a.data.iter().map(|x| *x as f32).collect();
    Tensor::from_slice(&data, &[a.m, a.n], &Device::cpu()).expect("memory")
}

/// Q'Q of a matrix whose columns differ by powers of ten.
pub(crate) fn weight(seed: u64, n: usize, decades: f64) -> Matrix {
    let s: Vec<f64> = (0..n).map(|i| 10f64.powf(-decades * i as f64 / n as f64)).collect();
    let q = faer(&with_spectrum(seed, 2 * n, n, &s));
    let w = q.transpose() * &q;
    Matrix::from_fn(n, n, |i, j| 0.5 * (w[(i, j)] + w[(j, i)]))
}

/// ||(X - X E D') R|| and ||X R|| for R'R = W, by a Cholesky factor: a root that the function does not use.
fn losses(found: &Weighted, x: &Matrix, w: &Matrix) -> (f64, f64) {
    let r = found.encoder.shape()[1];
    let (e, d) = (wide(&found.encoder), wide(&found.decoder));
    let e = faer::Mat::from_fn(x.n, r, |i, j| e[i * r + j]);
    let d = faer::Mat::from_fn(x.n, r, |i, j| d[i * r + j]);
    let x = faer(x);
    let left = &x - &x * &e * d.transpose();
    let factor = faer(w).llt(faer::Side::Lower).expect("a positive definite weight");
    let root = factor.L();
    ((&left * root).norm_l2(), (&x * root).norm_l2())
}

/// Holds a loss to what was predicted of it, and to the least there is; returns ||X R||.
pub(crate) fn keeps_the_promise(what: &str, found: &Weighted, x: &Matrix, w: &Matrix) -> f64 {
    let (lost, whole) = losses(found, x, w);
    let verdict = found.verdicts().expect("a table")[0];
    let what = format!("{what}: {lost:e} of {whole:e}, {verdict:?}");
    assert!((f64::from(verdict.tail) * whole - lost).abs() <= 2e-3 * lost + 30.0 * EPS * whole, "{what}");
    // No matrix of this rank does better: the tail of X L for W = L L'.
    let factor = faer(w).llt(faer::Side::Lower).expect("a positive definite weight");
    let values = (faer(x) * factor.L()).singular_values().expect("the oracle converges");
    let least = values[found.encoder.shape()[1]..].iter().map(|s| s * s).sum::<f64>().sqrt();
    assert!(lost <= 1.001 * least + 30.0 * EPS * whole, "{what}: the least is {least:e}");
    whole
}

#[test]
fn the_loss_that_is_predicted_is_the_loss_that_is_had_and_the_least_there_is() {
    for (seed, (m, n, rank)) in (0..).zip([(300, 40, 12), (40, 59, 7), (97, 16, 15), (64, 64, 1)]) {
        for decades in [0.5, 2.0] {
            let (x, w) = (with_spectrum(seed, m, n, &spectrum("power law", m.min(n))), weight(seed + 50, n, decades));
            let found = svd::weighted(&tensor(&x), &tensor(&w), Rank::Fixed(rank), &Options::default()).expect("a valid call");
            let what = format!("{m}x{n} rank {rank}, {decades} decades");
            let whole = keeps_the_promise(&what, &found, &x, &w);
            // Latents are the encoded rows, and a decoder's columns have the sign that bases have.
            let (e, u) = (wide(&found.encoder), wide(&found.svd.u));
            for i in 0..m {
                for k in 0..rank {
                    let latent: f64 = (0..n).map(|j| x.at(i, j) * e[j * rank + k]).sum();
                    assert!((latent - u[i * rank + k]).abs() <= 2e-5 * whole, "{what}: latent {latent:e}");
                }
            }
            let d = wide(&found.decoder);
            let largest =
                |k: usize| (0..n).map(|j| d[j * rank + k]).fold(0.0f64, |a: f64, b: f64| if b.abs() > a.abs() { b } else { a });
            assert!((0..rank).all(|k| largest(k) > 0.0), "{what}");
        }
    }
}

#[test]
fn the_identity_weighs_nothing_and_a_deficient_weight_is_floored() {
    let x = with_spectrum(1, 120, 24, &spectrum("power law", 24));
    let identity = Matrix::from_fn(24, 24, |i, j| f64::from(u8::from(i == j)));
    let plain = svd::truncated(&tensor(&x), Rank::Fixed(6), &Options::default()).expect("a valid call");
    for w in [identity.clone(), Matrix::from_fn(24, 24, |_, _| 0.0)] {
        let found = svd::weighted(&tensor(&x), &tensor(&w), Rank::Fixed(6), &Options::default()).expect("a valid call");
        for (x, y) in wide(&found.encoder).iter().zip(wide(&plain.v)).chain(wide(&found.decoder).iter().zip(wide(&plain.v))) {
            assert!((x - y).abs() < 1e-5, "{x} {y}");
        }
    }
    // A weight of one direction: that direction is kept whole, and everything stays finite.
    let one = Matrix::from_fn(24, 24, |i, j| if i == 3 && j == 3 { 1.0 } else { 0.0 });
    let found = svd::weighted(&tensor(&x), &tensor(&one), Rank::Fixed(1), &Options::default()).expect("a valid call");
    let (e, d) = (wide(&found.encoder), wide(&found.decoder));
    assert!(e.iter().chain(&d).all(|x| x.is_finite()));
    let kept = |i: usize| (0..24).map(|j| x.at(i, j) * e[j]).sum::<f64>() * d[3];
    let error: f64 = (0..120).map(|i| (x.at(i, 3) - kept(i)).powi(2)).sum::<f64>().sqrt();
    assert!(error < 2e-3, "{error}");
}

#[test]
fn weights_of_their_own_or_one_for_all_and_halves_in_and_out() {
    let (m, n, rank) = (70, 20, 5);
    let x: Vec<f32> = (0..3).flat_map(|i| normal(i, m, n).data).map(|x| x as f32).collect();
    let ws: Vec<f32> = (0..3).flat_map(|i| weight(i, n, 1.0).data).map(|x| x as f32).collect();
    let device = Device::cpu();
    let x = Tensor::from_slice(&x, &[3, m, n], &device).expect("memory");
    let ws = Tensor::from_slice(&ws, &[3, n, n], &device).expect("memory");
    let options = Options { factors: Dtype::BF16, output: Output::ValuesOnly, ..Options::default() };
    let brain = x.to_dtype(Dtype::BF16).expect("memory");
    let together = svd::weighted(&brain, &ws, Rank::Fixed(rank), &options).expect("a valid call");
    assert_eq!((together.encoder.shape(), together.svd.u.dtype()), (&[3, n, rank][..], Dtype::BF16));
    let shared = svd::weighted(&brain, &ws.select(0, 1).expect("a matrix"), Rank::Fixed(rank), &options).expect("a valid call");
    for i in 0..3 {
        let [x, w] = [&brain, &ws].map(|t| t.select(0, i).expect("a matrix"));
        let alone = svd::weighted(&x, &w, Rank::Fixed(rank), &options).expect("a valid call");
        let of = |found: &Weighted| wide(&found.decoder.select(0, i).expect("a matrix"));
        assert_eq!(of(&together), wide(&alone.decoder));
        assert_eq!(of(&shared) == of(&together), i == 1);
    }
}

#[test]
fn the_scale_of_a_weight_changes_nothing_and_overflows_nothing() {
    let (x, w) = (normal(2, 90, 24), weight(3, 24, 1.0));
    let options = Options { factors: Dtype::F16, ..Options::default() };
    let at = |scale: f64| {
        let scaled = Matrix { data: w.data.iter().map(|x| x * scale).collect(), ..w };
        svd::weighted(&tensor(&x), &tensor(&scaled), Rank::Fixed(6), &options).expect("a valid call")
    };
    let once = at(1.0);
    let norm = wide(&tensor(&x)).iter().map(|x| x * x).sum::<f64>().sqrt();
    for scale in [2f64.powi(40), 2f64.powi(-40)] {
        let found = at(scale);
        for (a, b) in [(&found.encoder, &once.encoder), (&found.decoder, &once.decoder), (&found.svd.u, &once.svd.u)] {
            assert_eq!(wide(a), wide(b), "scaled by {scale:e}");
        }
    }
    assert!(wide(&once.svd.u).iter().all(|x| x.abs() < 2.0 * norm), "latents have the size of the rows");
}

#[test]
fn weights_that_do_not_fit_have_their_own_errors() {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::cpu()).expect("memory");
    let refused = |x: &Tensor, w: &Tensor| svd::weighted(x, w, Rank::Fixed(1), &Options::default()).expect_err("a refusal");
    let x = zeros(&[2, 5, 3], Dtype::F32);
    assert!(refused(&x, &zeros(&[4, 4], Dtype::F32)).to_string().contains("weight [4, 4]; expected [2, 3, 3] or [3, 3]"));
    assert!(matches!(refused(&x, &zeros(&[3, 3], Dtype::BF16)), Error::Dtype { .. }));
    assert!(refused(&zeros(&[0, 5, 3], Dtype::F32), &zeros(&[3, 3], Dtype::F32)).to_string().contains("at least one"));
    // What cannot be made is refused before the weight is looked at.
    let infinite = Tensor::from_slice(&[f32::INFINITY; 9], &[3, 3], &Device::cpu()).expect("memory");
    for rank in [Rank::Fixed(0), Rank::Fixed(4), Rank::Tolerance { relative: 1.5, max: 2 }] {
        let call = svd::weighted(&x, &infinite, rank, &Options::default());
        assert!(matches!(call, Err(Error::Shape { .. })), "{call:?}");
    }
    let options = Options { factors: Dtype::I8, ..Options::default() };
    assert!(matches!(svd::weighted(&x, &infinite, Rank::Fixed(1), &options), Err(Error::Dtype { .. })));
    let nan = Tensor::from_slice(&[f32::NAN; 9], &[3, 3], &Device::cpu()).expect("memory");
    assert!(matches!(refused(&x, &nan), Error::Numeric { .. }));
}

/// Rows of sequences of these lengths, for `heads` heads, as a cache has them: [tokens, heads, width].
fn cache(lengths: &[usize], heads: usize, width: usize) -> (Tensor, Vec<usize>) {
    let tokens: usize = lengths.iter().sum();
    let data: Vec<f32> = normal(31, tokens * heads, width).data.iter().map(|x| *x as f32).collect();
    let offsets = lengths.iter().scan(0, |end, len| {
        *end += len;
        Some(*end)
    });
    let offsets = std::iter::once(0).chain(offsets).collect();
    (Tensor::from_slice(&data, &[tokens, heads, width], &Device::cpu()).expect("memory"), offsets)
}

#[test]
fn every_segment_is_what_it_is_alone() {
    let (heads, width, rank) = (2, 33, 9);
    let (cache, offsets) = cache(&[97, 1, 300, 20, 9, 5], heads, width);
    for dtype in [Dtype::F32, Dtype::F16] {
        let rows = cache.to_dtype(dtype).expect("memory");
        let rows = rows.transpose(0, 1).expect("two axes");
        for output in [Output::Usv, Output::LatentDecoder, Output::Qb, Output::ValuesOnly] {
            for factors in [Dtype::F32, Dtype::BF16] {
                let options = Options { output, factors, ..Options::default() };
                let all = svd::truncated_ragged(&rows, &offsets, Rank::Fixed(rank), &options).expect("a valid call");
                let columns = all.u.shape()[2];
                assert_eq!(all.u.shape()[..2], [heads, 432]);
                assert_eq!((all.v.shape()[..3].to_vec(), all.s.shape()[..2].to_vec()), (vec![heads, 6, width], vec![heads, 6]));
                let verdicts = all.verdicts().expect("host");
                for head in 0..heads {
                    for (i, pair) in offsets.windows(2).enumerate() {
                        let len = pair[1] - pair[0];
                        let segment = rows.select(0, head).expect("a head").narrow(0, pair[0], len).expect("rows");
                        let own = rank.min(len);
                        let alone = svd::truncated(&segment, Rank::Fixed(own), &options).expect("a valid call");
                        let verdict = verdicts[head * 6 + i];
                        assert_eq!(verdict, alone.verdicts().expect("host")[0], "{output:?} segment {i}");
                        let u = all.u.select(0, head).expect("a head").narrow(0, pair[0], len).expect("rows");
                        let v = all.v.select(0, head).expect("a head").select(0, i).expect("a segment");
                        for (part, one) in [(&u, &alone.u), (&v, &alone.v)] {
                            if columns == 0 {
                                continue;
                            }
                            assert_eq!(wide(&part.narrow(1, 0, own).expect("columns")), wide(one), "{output:?} segment {i}");
                            let beyond = part.narrow(1, own, columns - own).expect("columns");
                            assert!(wide(&beyond).iter().all(|x| *x == 0.0), "columns that segment {i} has not");
                        }
                        if output != Output::Qb {
                            let s = wide(&all.s.select(0, head).expect("a head").select(0, i).expect("a segment"));
                            assert_eq!(s[..own], wide(&alone.s)[..], "{output:?} segment {i}");
                            assert!(s[own..].iter().all(|s| *s == 0.0));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_nan_marks_its_segment_alone_and_tolerances_are_met_in_each() {
    let (cache, offsets) = cache(&[50, 70, 30], 1, 16);
    let clean: Vec<f32> = cache.to_f32_vec().expect("host");
    let run = |data: &[f32], rank| {
        let rows = Tensor::from_slice(data, &[150, 16], &Device::cpu()).expect("memory");
        svd::truncated_ragged(&rows, &offsets, rank, &Options::default()).expect("a valid call")
    };
    let before = run(&clean, Rank::Fixed(4));
    let mut data = clean.clone();
    data[60 * 16] = f32::NAN;
    let after = run(&data, Rank::Fixed(4));
    let infos: Vec<Info> = after.verdicts().expect("host").iter().map(|verdict| verdict.info).collect();
    assert!(infos[1] == Info::NonFinite && infos[0] != Info::NonFinite && infos[2] != Info::NonFinite, "{infos:?}");
    let rows = |svd: &Svd, from, to| wide(&svd.u.narrow(0, from, to - from).expect("rows"));
    assert_eq!((rows(&after, 0, 50), rows(&after, 120, 150)), (rows(&before, 0, 50), rows(&before, 120, 150)));
    assert!(rows(&after, 50, 120).iter().all(|x| x.is_nan()));
    let met = run(&clean, Rank::Tolerance { relative: 0.4, max: 16 });
    assert!(met.verdicts().expect("host").iter().all(|verdict| verdict.tail <= 0.4 && verdict.rank < 16));
}

#[test]
fn offsets_that_do_not_fit_have_their_own_errors() {
    let a = Tensor::zeros(&[10, 4], Dtype::F32, &Device::cpu()).expect("memory");
    let refused = |offsets: &[usize], rank| {
        let call = svd::truncated_ragged(&a, offsets, Rank::Fixed(rank), &Options::default());
        call.expect_err("a refusal").to_string()
    };
    for offsets in [&[][..], &[0], &[1, 10], &[0, 9], &[0, 11]] {
        assert!(refused(offsets, 1).contains("offsets from 0 to the 10 rows"), "{}", refused(offsets, 1));
    }
    assert!(refused(&[0, 4, 4, 10], 1).contains("segment 1 from row 4 to row 4"));
    assert!(refused(&[0, 6, 4, 10], 1).contains("segment 1 from row 6 to row 4"));
    assert!(refused(&[0, 2, 10], 5).contains("rank 5; expected 1..=4"));
    assert!(refused(&[0, 2, 10], 0).contains("rank 0"));
    let mut out = Svd::zeros(&[10, 4], 2, &Options::default(), &Device::cpu()).expect("memory");
    let call = svd::truncated_ragged_into(
        &a,
        &[0, 5, 10],
        Rank::Fixed(2),
        &Options::default(),
        &mut out,
        &mut Scratch::new(&Device::cpu()),
    );
    assert!(call.expect_err("a refusal").to_string().contains("out.s"), "an output without segments");
}

#[test]
fn one_segment_is_a_plain_call() {
    let data = batch(3, 40, 12);
    let a = Tensor::from_slice(&data, &[3, 40, 12], &Device::cpu()).expect("memory");
    let plain = svd::truncated(&a, Rank::Fixed(5), &Options::default()).expect("a valid call");
    let ragged = svd::truncated_ragged(&a, &[0, 40], Rank::Fixed(5), &Options::default()).expect("a valid call");
    assert_eq!(bits(&plain), bits(&ragged));
}

#[test]
fn segments_that_are_sketched_lie_beside_small_ones() {
    let (lengths, width, rank) = ([40, 1100, 9, 1030, 300], 1030, 5);
    let (rows, offsets) = cache(&lengths, 1, width);
    let rows = rows.select(1, 0).expect("a head");
    for output in [Output::Usv, Output::ValuesOnly] {
        let options = Options { output, ..Options::default() };
        let all = svd::truncated_ragged(&rows, &offsets, Rank::Fixed(rank), &options).expect("a valid call");
        for (i, pair) in offsets.windows(2).enumerate() {
            let segment = rows.narrow(0, pair[0], pair[1] - pair[0]).expect("rows");
            let alone = svd::truncated(&segment, Rank::Fixed(rank), &options).expect("a valid call");
            assert_eq!(all.verdicts().expect("host")[i], alone.verdicts().expect("host")[0], "{output:?} segment {i}");
            assert_eq!(wide(&all.s.select(0, i).expect("a segment")), wide(&alone.s), "{output:?} segment {i}");
            assert_eq!(wide(&all.v.select(0, i).expect("a segment")), wide(&alone.v), "{output:?} segment {i}");
        }
    }
}
