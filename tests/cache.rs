//! Caches: what is sealed decodes to what it should, bytes are what formulas say, steps do not matter, bad lines are refused.

use std::sync::Arc;

use lowkey::{
    Device, Error, Tensor,
    cache::{Bases, Basis, KvCache, Layout, Mode, Spec, attend, hadamard},
    coded::{Coded, Format},
    philox::Stream,
    rope::Rope,
};
use proptest::prelude::*;

const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;

fn layout() -> Arc<Layout> {
    let rope = Rope::new(&Rope::inverse_frequencies(HEAD_DIM, 10_000.0), 600, &Device::cpu()).unwrap();
    Arc::new(Layout {
        n_layers: LAYERS,
        n_heads: HEADS,
        n_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        max_tokens: 600,
        scale: 0.25,
        rope: Some(rope),
    })
}

fn rows(seed: u64, tokens: usize, heads: usize) -> Tensor {
    let stream = Stream::new(seed, heads as u64);
    let data: Vec<f32> = (0..(tokens * heads * HEAD_DIM) as u64).map(|i| stream.normal(i)).collect();
    Tensor::from_slice(&data, &[tokens, heads, HEAD_DIM], &Device::cpu()).unwrap()
}

/// Fills a cache with the same random tokens in steps of at most `step`.
fn fill(cache: &mut KvCache, tokens: usize, step: usize) {
    let all: Vec<(Tensor, Tensor)> =
        (0..LAYERS as u64).map(|layer| (rows(10 + layer, tokens, KV_HEADS), rows(20 + layer, tokens, KV_HEADS))).collect();
    let mut done = 0;
    while done < tokens {
        let count = step.min(cache.max_step()).min(tokens - done);
        for (layer, (keys, values)) in all.iter().enumerate() {
            cache.append(layer, &keys.narrow(0, done, count).unwrap(), &values.narrow(0, done, count).unwrap()).unwrap();
        }
        cache.end_step().unwrap();
        done += count;
    }
}

fn identity_bases(rank: usize) -> Arc<Bases> {
    let eye: Vec<f32> = (0..KV_HEADS * HEAD_DIM * rank).map(|i| f32::from(i / rank % HEAD_DIM == i % rank)).collect();
    let basis = Basis::new(&eye, &eye, None, [KV_HEADS, HEAD_DIM, rank], Format::F32, &Device::cpu()).unwrap();
    Arc::new(Bases { layers: vec![(Some(basis.clone()), Some(basis)); LAYERS] })
}

fn filled(spec: &str, tokens: usize, step: usize) -> KvCache {
    let spec: Spec = spec.parse().unwrap();
    let rank = spec.ranks(HEAD_DIM).unwrap().0;
    let mut cache = KvCache::new(&layout(), &spec, Some(&identity_bases(rank)), &Device::cpu()).unwrap();
    fill(&mut cache, tokens, step);
    cache
}

fn answers(cache: &KvCache, queries: usize) -> Vec<f32> {
    let q = rows(77, queries, HEADS);
    (0..LAYERS).flat_map(|layer| attend(&[cache], &[queries], layer, &q).unwrap().to_f32_vec().unwrap()).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) })
}

#[test]
fn full_rank_in_f32_attends_like_the_dense_cache() {
    let mut dense = KvCache::dense(&layout(), Format::F32, &Device::cpu()).unwrap();
    fill(&mut dense, 333, 50);
    for basis in ["basis=online,rank=16", "basis=calibrated,rank=16,weighting=none", "basis=identity"] {
        for keys in ["pre-rope", "post-rope"] {
            let spec = format!("{basis},keys={keys},latent=f32,window=7,sinks=3,block=59");
            let cache = filled(&spec, 333, 50);
            for queries in [1, 12] {
                let difference = largest_difference(&answers(&cache, queries), &answers(&dense, queries));
                assert!(difference < 2e-5, "{spec}, {queries} queries: {difference}");
            }
        }
    }
}

#[test]
fn lower_rank_and_fewer_bits_are_further_from_dense() {
    let mut dense = KvCache::dense(&layout(), Format::F32, &Device::cpu()).unwrap();
    fill(&mut dense, 300, 300);
    let difference = |spec: &str| largest_difference(&answers(&filled(spec, 300, 300), 1), &answers(&dense, 1));
    let ranks: Vec<f32> =
        [15, 12, 6].iter().map(|rank| difference(&format!("rank={rank},latent=f32,window=8,block=64"))).collect();
    assert!(0.001 < ranks[0] && ranks[0] < ranks[2], "{ranks:?}");
    let latents: Vec<f32> =
        ["f16", "int8", "int4"].iter().map(|f| difference(&format!("basis=identity,latent={f},window=8,block=64"))).collect();
    assert!(0.0 < latents[0] && latents[0] < latents[1] && latents[1] < latents[2] && latents[2] < 1.0, "{latents:?}");
}

#[test]
fn token_by_token_and_in_steps_give_the_same_bits() {
    for spec in [
        "rank=8,block=59,window=7",
        "basis=identity,latent=int4,keys=post-rope,block=33",
        "rank=5/9,latent=int4,block=64,v-only",
        "rank=8,k-only,block=64",
    ] {
        let by_token = answers(&filled(spec, 300, 1), 1);
        assert_eq!(by_token, answers(&filled(spec, 300, 300), 1), "{spec}");
        assert_eq!(by_token, answers(&filled(spec, 300, 37), 1), "{spec}");
    }
}

#[test]
fn sinks_and_window_stay_dense_and_the_rest_is_sealed_in_blocks() {
    let cache = filled("rank=8,latent=f16,window=20,sinks=4,block=50", 200, 9);
    let row = KV_HEADS * 2 * LAYERS;
    // 4 sinks, then sealing whenever the window reaches 70: 196 = 2 x 50 sealed + 96 would be too many, so 3 x 50 + 46.
    assert_eq!(cache.bytes().dense, row * (4 + 46) * HEAD_DIM * 2);
    assert_eq!(cache.bytes().sealed, row * 150 * 8 * 2);
    assert_eq!(cache.bytes().online_bases, row * 3 * 8 * HEAD_DIM * 2);
    assert_eq!(cache.len(), 200);
}

#[test]
fn bytes_follow_the_published_shares() {
    let share = |spec: &str| {
        let layout = Arc::new(Layout { head_dim: 64, max_tokens: 512, rope: None, ..(*layout()).clone() });
        let spec = spec.parse::<Spec>().unwrap().with_mode(Mode::Whole);
        let (k, v) = spec.ranks(64).unwrap();
        let basis = |rank| {
            Basis::new(&vec![0.5; 128 * rank], &vec![0.5; 128 * rank], None, [2, 64, rank], Format::F16, &Device::cpu())
                .unwrap()
        };
        let bases = Arc::new(Bases { layers: vec![(Some(basis(k)), Some(basis(v))); LAYERS] });
        let mut cache = KvCache::new(&layout, &spec, Some(&bases), &Device::cpu()).unwrap();
        let stream = Stream::new(3, 3);
        let data: Vec<f32> = (0..512 * 128).map(|i| stream.normal(i)).collect();
        let x = Tensor::from_slice(&data, &[512, 2, 64], &Device::cpu()).unwrap();
        (0..LAYERS).for_each(|layer| cache.append(layer, &x, &x).unwrap());
        cache.bytes().sequence() as f64 / (512 * layout.dense_bytes_per_token()) as f64
    };
    assert_eq!(share("basis=identity,latent=int8"), 0.515625);
    assert_eq!(share("basis=identity,latent=int4"), 0.265625);
    assert_eq!(share("basis=identity,latent=int4-asym"), 0.28125);
    assert_eq!(share("basis=calibrated,rank=8"), 0.125);
    assert_eq!(share("basis=calibrated,rank=16/32,latent=int8"), 0.203125);
    assert_eq!(share("basis=calibrated,rank=32,latent=int4"), 0.140625);
    assert_eq!(share("basis=calibrated,rank=16/64,latent=int4"), 0.171875);
    assert_eq!(share("basis=online,rank=32"), 0.5625);
    assert_eq!(share("basis=calibrated,rank=16,v-only"), 0.625);
    let ratio: Spec = "ratio=0.15,basis=calibrated,latent=int4".parse().unwrap();
    assert_eq!(ratio.ranks(64).unwrap(), (34, 34));
}

#[test]
fn the_memory_account_holds_what_the_cache_allocated() {
    let device = Device::cpu();
    let spec: Spec = "rank=8,latent=int8,window=20,sinks=4,block=50".parse().unwrap();
    let mut cache = KvCache::new(&layout(), &spec, None, &device).unwrap();
    fill(&mut cache, 200, 9);
    let held = device.memory().of(lowkey::Purpose::Cache).current;
    let spare = KV_HEADS * 2 * LAYERS * (20 + 50 - 46) * HEAD_DIM * 2;
    assert_eq!(held, cache.bytes().sequence() + spare);
    drop(cache);
    assert_eq!(device.memory().total.current, 0);
}

#[test]
fn a_value_that_is_not_finite_is_reported_where_it_is_sealed() {
    let mut cache = KvCache::new(&layout(), &"rank=4,window=2,block=8,sinks=0".parse().unwrap(), None, &Device::cpu()).unwrap();
    let good = rows(1, 10, KV_HEADS);
    let mut bad = good.to_f32_vec().unwrap();
    bad[5 * KV_HEADS * HEAD_DIM + HEAD_DIM + 3] = f32::NAN;
    let bad = Tensor::from_slice(&bad, good.shape(), &Device::cpu()).unwrap();
    cache.append(0, &good, &good).unwrap();
    cache.append(1, &good, &bad).unwrap();
    let message = cache.end_step().unwrap_err().to_string();
    assert!(message.contains("layer 1, values, head 1, row 5"), "{message}");
}

#[test]
fn appends_that_do_not_fit_are_named_errors() {
    let mut cache = filled("rank=8,window=20,sinks=4,block=50", 10, 10);
    assert_eq!(cache.max_step(), 64);
    let shape = |result: lowkey::Result<()>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    shape(cache.append(0, &rows(1, 65, KV_HEADS), &rows(1, 65, KV_HEADS)));
    shape(cache.append(0, &rows(1, 3, KV_HEADS), &rows(1, 4, KV_HEADS)));
    shape(cache.append(0, &rows(1, 3, HEADS), &rows(1, 3, HEADS)));
    shape(cache.append(LAYERS, &rows(1, 3, KV_HEADS), &rows(1, 3, KV_HEADS)));
    let mut dense = KvCache::dense(&layout(), Format::F16, &Device::cpu()).unwrap();
    fill(&mut dense, 600, 600);
    shape(dense.append(0, &rows(1, 1, KV_HEADS), &rows(1, 1, KV_HEADS)));
    let calibrated: Spec = "rank=8,basis=calibrated".parse().unwrap();
    assert!(matches!(KvCache::new(&layout(), &calibrated, None, &Device::cpu()), Err(Error::Input(_))));
    assert!(matches!(KvCache::new(&layout(), &calibrated, Some(&identity_bases(9)), &Device::cpu()), Err(Error::Shape { .. })));
    let unusable = Spec { dense: Format::Int8, ..calibrated.clone() };
    assert!(matches!(KvCache::new(&layout(), &unusable, Some(&identity_bases(8)), &Device::cpu()), Err(Error::Input(_))));
    let wide: Spec = "rank=17".parse().unwrap();
    assert!(matches!(KvCache::new(&layout(), &wide, None, &Device::cpu()), Err(Error::Input(_))));
}

#[test]
fn a_spec_prints_a_line_that_reads_back_as_itself() {
    for line in [
        "rank=32/48,basis=calibrated,weighting=query,keys=pre-rope,latent=int4,window=64,sinks=4,block=1024,v-only",
        "rank=8,mean,basis=calibrated,weighting=none",
        "basis=identity,latent=int4-asym,keys=post-rope",
        "ratio=0.25,latent=bf16,k-only",
        "rank-share=0.5,latent=f32,dense=f16",
    ] {
        let spec: Spec = line.parse().unwrap();
        assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec, "{line} printed as {spec}");
    }
}

#[test]
fn lines_that_mean_nothing_are_refused_by_key() {
    for (line, field) in [
        ("", "kv"),
        ("rank=0", "kv rank"),
        ("rank=8/", "kv rank"),
        ("rank=-1", "kv rank"),
        ("rank=99999999999999999999", "kv rank"),
        ("rank=8,rank=9", "kv rank"),
        ("rank=8,ratio=0.5", "kv"),
        ("ratio=1.5", "kv ratio"),
        ("ratio=NaN", "kv ratio"),
        ("rank=8,basis=pca", "kv basis"),
        ("rank=8,latent=int3", "latent"),
        ("rank=8,window=x", "kv window"),
        ("rank=8,block=0", "kv block"),
        ("rank=8,basis=identity", "kv rank"),
        ("basis=online", "kv rank"),
        ("rank=8,weighting=query", "kv weighting"),
        ("rank=8,mean", "kv mean"),
        ("rank=8,v-only,k-only", "kv"),
        ("rank=8,group=16", "kv group"),
        ("rank=8,whole", "kv"),
        ("rank=8,colour=red", "kv"),
    ] {
        match line.parse::<Spec>() {
            Err(Error::Input(error)) => assert_eq!(error.field, field, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in "[a-z0-9=/,.-]{0,40}") {
        let _ = line.parse::<Spec>();
    }

    #[test]
    fn quantized_rows_are_within_half_a_step(seed: u64, width in 1usize..70, scale in -12i32..12) {
        let stream = Stream::new(seed, 0);
        let row: Vec<f32> = (0..width as u64).map(|i| stream.normal(i) * 2f32.powi(scale)).collect();
        let largest = row.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let span = row.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x)) - row.iter().fold(f32::INFINITY, |m, x| m.min(*x));
        for (format, step) in [(Format::Int8, largest / 127.0), (Format::Int4, largest / 7.0), (Format::Int4Asym, span / 15.0)] {
            let mut coded = Coded::new(1, width, format, &Device::cpu()).unwrap();
            coded.push(&row).unwrap();
            prop_assert_eq!(coded.bytes(), format.row_bytes(width));
            // Scales and offsets are f16: half an ulp of each on top, subnormal ones included.
            let slack = 0.5 * step + largest * 2f32.powi(-10) + 128.0 * 2f32.powi(-25);
            for (x, y) in row.iter().zip(coded.decode(0, 1).unwrap()) {
                prop_assert!((x - y).abs() <= slack * 1.001, "{format}: {x} became {y}, step {step}");
            }
        }
    }

    #[test]
    fn rows_survive_growing_and_dropping(seed: u64, pushes in prop::collection::vec(1usize..9, 1..8), dropped in 0usize..5, width in 1usize..9) {
        for format in [Format::F32, Format::Int8, Format::Int4Asym] {
            let (mut coded, mut whole) = (Coded::new(2, width, format, &Device::cpu()).unwrap(), Coded::new(2, width, format, &Device::cpu()).unwrap());
            let total: usize = pushes.iter().sum();
            let stream = Stream::new(seed, 0);
            let element = |head: usize, token: usize, i: usize| stream.normal(((head * total + token) * width + i) as u64);
            let rows = |from: usize, to: usize| -> Vec<f32> {
                (0..2).flat_map(|h| (from..to).flat_map(move |t| (0..width).map(move |i| element(h, t, i)))).collect()
            };
            let mut at = 0;
            for count in &pushes {
                coded.push(&rows(at, at + count)).unwrap();
                at += count;
            }
            whole.push(&rows(0, total)).unwrap();
            let dropped = dropped.min(total);
            coded.drop_front(dropped).unwrap();
            prop_assert_eq!(coded.decode(0, total - dropped).unwrap(), whole.decode(dropped, total - dropped).unwrap());
        }
    }
}

#[test]
fn the_hadamard_rotation_is_orthonormal_and_its_own_inverse() {
    for rank in [1, 2, 3, 8, 24, 48, 59, 64] {
        let mut eye: Vec<f32> = (0..rank * rank).map(|i| f32::from(i / rank == i % rank)).collect();
        let before = eye.clone();
        hadamard(&mut eye, rank);
        let gram = |i: usize, j: usize| (0..rank).map(|k| eye[i * rank + k] * eye[j * rank + k]).sum::<f32>();
        for (i, j) in (0..rank).flat_map(|i| (0..rank).map(move |j| (i, j))) {
            assert!((gram(i, j) - f32::from(i == j)).abs() < 1e-5, "rank {rank}");
        }
        hadamard(&mut eye, rank);
        assert!(largest_difference(&eye, &before) < 1e-5);
    }
}
