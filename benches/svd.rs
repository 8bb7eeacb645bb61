//! Batched truncated SVD: head-sized matrices of several widths, ranks and conditions.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lowkey::{
    Device, Scratch, Tensor,
    philox::Stream,
    svd::{self, Options, Rank, Rung, Svd},
};

const BATCH: usize = 16;
const TOKENS: usize = 2048;

/// Columns that decay like a power law, mixed by random signs: quick to make, and not flat.
fn matrices(columns: usize) -> Tensor {
    let stream = Stream::new(1, columns as u64);
    let data: Vec<f32> = (0..BATCH * TOKENS * columns)
        .map(|i| stream.normal(i as u64) / (1 + i % columns) as f32 + 0.01 * stream.normal((i / columns) as u64))
        .collect();
    Tensor::from_slice(&data, &[BATCH, TOKENS, columns], &Device::cpu()).expect("matrices")
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
        let a = matrices(columns);
        for rank in [8, 32, columns / 2] {
            let name = format!("{BATCH}x{TOKENS}x{columns}/r{rank}");
            case(c, "svd", name, &a, Rank::Fixed(rank), Options::default());
        }
    }
}

fn rungs(c: &mut Criterion) {
    let a = matrices(128);
    for start in [Rung::Single, Rung::Double] {
        case(c, "svd rung", format!("{start:?}"), &a, Rank::Fixed(32), Options { start, ..Options::default() });
    }
    case(c, "svd tolerance", "0.05".into(), &a, Rank::Tolerance { relative: 0.05, max: 128 }, Options::default());
}

criterion_group!(benches, ranks, rungs);
criterion_main!(benches);
