//! One decode step over a long cache: dense, quantized, low-rank.

#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

use std::{hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lowkey::{
    Device, Tensor,
    cache::{KvCache, Layout, Spec, attend},
    philox::Stream,
    rope::Rope,
};

const CONTEXT: usize = 16 * 1024;
const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;

fn layout() -> Arc<Layout> {
    let rope = Rope::new(&Rope::inverse_frequencies(HEAD_DIM, 10_000.0), CONTEXT, &Device::cpu()).expect("rotary tables");
    let scale = 1.0 / (HEAD_DIM as f32).sqrt();
    Arc::new(Layout {
        n_layers: 1,
        n_heads: HEADS,
        n_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        max_tokens: CONTEXT,
        scale,
        rope: Some(rope),
    })
}

fn rows(seed: u64, tokens: usize, heads: usize) -> Tensor {
    let stream = Stream::new(seed, 0);
    let data: Vec<f32> = (0..(tokens * heads * HEAD_DIM) as u64).map(|i| stream.normal(i)).collect();
    Tensor::from_slice(&data, &[tokens, heads, HEAD_DIM], &Device::cpu()).expect("rows")
}

fn filled(spec: &Spec) -> KvCache {
    let mut cache = KvCache::new(&layout(), spec, None, &Device::cpu()).expect("cache");
    let mut done = 0;
    while done < CONTEXT {
        let count = cache.max_step().min(1024).min(CONTEXT - done);
        cache.append(0, &rows(done as u64, count, KV_HEADS), &rows(!done as u64, count, KV_HEADS)).expect("append");
        cache.end_step().expect("seal");
        done += count;
    }
    cache
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode 32/8 heads x 128, 16k context");
    group.sample_size(10);
    let q = rows(7, 1, HEADS);
    let dense = Spec::dense(lowkey::coded::Format::F16);
    let lines = [
        "basis=identity,latent=int8,keys=post-rope",
        "basis=identity,latent=int4,keys=post-rope",
        "rank=32,keys=post-rope,latent=f16",
        "rank=32,keys=post-rope,latent=int8",
        "rank=32,keys=pre-rope,latent=int8",
    ];
    let specs = std::iter::once(dense).chain(lines.iter().map(|line| line.parse().expect("spec")));
    for spec in specs {
        let cache = filled(&spec);
        group.throughput(Throughput::Bytes(cache.bytes().sequence() as u64));
        group.bench_function(BenchmarkId::from_parameter(&spec), |b| {
            b.iter(|| attend(&[black_box(&cache)], &[1], 0, &q).expect("decode"))
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
