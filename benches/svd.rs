//! Batched truncated SVD: widths, ranks, rungs, modes, outputs and a large matrix, and the same inputs through faer and
//! nalgebra. Errors over the least possible ones are printed once, beside the times.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use faer::{Mat, MatRef};
use lowkey::{
    Device, Dtype, Scratch, Tensor,
    philox::Stream,
    svd::{self, Mode, Options, Output, Rank, Rung, Svd},
};

const BATCH: usize = 16;
const TOKENS: usize = 2048;

/// Columns that decay like a power law, mixed by random signs: quick to make, and not flat.
fn matrices(batch: usize, rows: usize, columns: usize) -> Tensor {
    let stream = Stream::new(1, columns as u64);
    let data: Vec<f32> = (0..batch * rows * columns)
        .map(|i| stream.normal(i as u64) / (1 + i % columns) as f32 + 0.01 * stream.normal((i / columns) as u64))
        .collect();
    Tensor::from_slice(&data, &[batch, rows, columns], &Device::cpu()).expect("matrices")
}

fn case(c: &mut Criterion, group: &str, name: String, a: &Tensor, rank: Rank, options: Options) {
    let mut out = Svd::zeros(a.shape(), rank.columns(), &options, &a.device()).expect("output");
    let mut scratch = Scratch::new(&a.device());
    let mut group = c.benchmark_group(group);
    group.sample_size(20).throughput(Throughput::Bytes(a.bytes() as u64));
    group.bench_function(BenchmarkId::from_parameter(name), |b| {
        b.iter(|| svd::truncated_into(black_box(a), rank, &options, &mut out, &mut scratch).expect("factors"));
    });
    group.finish();
}

fn ranks(c: &mut Criterion) {
    for columns in [64, 128, 256] {
        let a = matrices(BATCH, TOKENS, columns);
        for rank in [8, 32, columns / 2] {
            let name = format!("{BATCH}x{TOKENS}x{columns}/r{rank}");
            case(c, "svd", name, &a, Rank::Fixed(rank), Options::default());
        }
    }
}

fn rungs(c: &mut Criterion) {
    let a = matrices(BATCH, TOKENS, 128);
    for start in [Rung::Single, Rung::Double] {
        case(c, "svd rung", format!("{start:?}"), &a, Rank::Fixed(32), Options { start, ..Options::default() });
    }
    case(c, "svd tolerance", "0.05".into(), &a, Rank::Tolerance { relative: 0.05, max: 128 }, Options::default());
}

fn modes_and_outputs(c: &mut Criterion) {
    let a = matrices(BATCH, TOKENS, 128);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let a = a.to_dtype(dtype).expect("memory");
        for mode in [Mode::Safe, Mode::Fast] {
            case(c, "svd mode", format!("{mode:?} {dtype}"), &a, Rank::Fixed(32), Options { mode, ..Options::default() });
        }
    }
    for output in [Output::Usv, Output::LatentDecoder, Output::Qb, Output::ValuesOnly] {
        case(c, "svd output", format!("{output:?}"), &a, Rank::Fixed(32), Options { output, ..Options::default() });
    }
    let large = matrices(1, TOKENS, TOKENS);
    for mode in [Mode::Safe, Mode::Fast] {
        let options = Options { mode, ..Options::default() };
        case(c, "svd large", format!("{TOKENS}x{TOKENS}/r256 {mode:?}"), &large, Rank::Fixed(256), options);
    }
}

/// Frobenius norm of A - U S V'.
fn error(a: MatRef<'_, f32>, u: &Mat<f64>, s: &[f64], v: &Mat<f64>) -> f64 {
    let scaled = Mat::from_fn(u.nrows(), s.len(), |i, k| u[(i, k)] * s[k]);
    (Mat::from_fn(a.nrows(), a.ncols(), |i, j| f64::from(a[(i, j)])) - scaled * v.transpose()).norm_l2()
}

/// One matrix by each library, all of it sequential.
fn rivals(c: &mut Criterion) {
    const RANK: usize = 32;
    let a = matrices(1, TOKENS, 128);
    let data = a.to_f32_vec().expect("host");
    let view = MatRef::from_row_major_slice(&data, TOKENS, 128);
    let owned = nalgebra::DMatrix::from_row_slice(TOKENS, 128, &data);
    faer::set_global_parallelism(faer::Par::Seq);

    let exact = Mat::from_fn(TOKENS, 128, |i, j| f64::from(view[(i, j)])).singular_values().expect("the oracle converges");
    let least = exact[RANK..].iter().map(|s| s * s).sum::<f64>().sqrt();
    let wide = |m: usize, at: &dyn Fn(usize, usize) -> f32| Mat::from_fn(m, RANK, |i, k| f64::from(at(i, k)));
    let svd = svd::truncated(&a, Rank::Fixed(RANK), &Options::default()).expect("factors");
    let [u, s, v] = [&svd.u, &svd.s, &svd.v].map(|part| part.to_f32_vec().expect("host"));
    let s: Vec<f64> = s.into_iter().map(f64::from).collect();
    let ours = error(view, &wide(TOKENS, &|i, k| u[i * RANK + k]), &s, &wide(128, &|j, k| v[j * RANK + k]));
    let faers = view.thin_svd().expect("faer converges");
    let s: Vec<f64> = (0..RANK).map(|k| f64::from(faers.S().column_vector()[k])).collect();
    let theirs = error(view, &wide(TOKENS, &|i, k| faers.U()[(i, k)]), &s, &wide(128, &|j, k| faers.V()[(j, k)]));
    let other = owned.clone().svd(true, true);
    let (u, vt) = (other.u.as_ref().expect("U"), other.v_t.as_ref().expect("V'"));
    let s: Vec<f64> = other.singular_values.iter().take(RANK).map(|s| f64::from(*s)).collect();
    let others = error(view, &wide(TOKENS, &|i, k| u[(i, k)]), &s, &wide(128, &|j, k| vt[(k, j)]));
    println!("error over the least: lowkey {:.6}, faer {:.6}, nalgebra {:.6}", ours / least, theirs / least, others / least);

    case(c, "svd rivals", format!("lowkey {TOKENS}x128/r{RANK}"), &a, Rank::Fixed(RANK), Options::default());
    let mut group = c.benchmark_group("svd rivals");
    group.sample_size(20).throughput(Throughput::Bytes(a.bytes() as u64));
    group.bench_function("faer thin_svd", |b| b.iter(|| black_box(view).thin_svd().expect("faer converges")));
    group.bench_function("nalgebra svd", |b| {
        b.iter_batched(|| owned.clone(), |a| nalgebra::SVD::new(a, true, true), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, ranks, rungs, modes_and_outputs, rivals);
criterion_main!(benches);
