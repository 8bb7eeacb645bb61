//! The attention kernels, executed on the emulated device, against an f64 oracle and the CPU path.
//!
//! What is stored is exact in the oracle. Two bounds hold everywhere: the error is at most twice that of a straightforward
//! bf16 implementation (queries, decoded keys, probabilities and decoded values rounded to bf16, sums in f32), and the
//! distance to the CPU path is at most 1e-4 of the largest value (queries and probabilities keep 16 bits).

use std::time::Instant;

use half::bf16;
use lowkey::{
    Device, Dtype, Error, Result, Scratch, Tensor,
    attention::{Decoder, Params, Part, Sequence, Side, attend, attend_into, scratch_bytes},
    coded::{Coded, Format},
    device::Emulation,
    philox::Stream,
    rope::Rope,
};

use crate::support::{self, Against, Family, Maker, Mutation, Scale, agreed};

const THETA: f32 = 10_000.0;

fn normals(seed: u64, matrix: u64, n: usize) -> Vec<f32> {
    let stream = Stream::new(seed, matrix);
    (0..n as u64).map(|i| stream.normal(i)).collect()
}

fn emulated(schedule: u64) -> Device {
    Device::emulate(Emulation { schedule, ..Emulation::default() }).unwrap()
}

/// Heads of a model.
#[derive(Clone, Copy)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Heads {
    fn query(self, seed: u64, queries: usize) -> Tensor {
        let shape = [queries, self.heads, self.head_dim];
        Tensor::from_slice(&normals(seed, 9, shape.iter().product()), &shape, &Device::cpu()).unwrap()
    }

    fn rope(self) -> Rope {
        Rope::new(&Rope::inverse_frequencies(self.head_dim, THETA), 2048, &Device::cpu()).unwrap()
    }

    /// Rows and, with a rank, a decoder to head_dim, with a mean when the seed is odd. `spare` rows of the memory are NaN.
    fn side(self, seed: u64, tokens: usize, format: Format, rank: Option<usize>, spare: usize) -> OwnedSide {
        let width = rank.unwrap_or(self.head_dim);
        let device = Device::cpu();
        let mut rows = Coded::new(self.kv_heads, width, format, &device).unwrap();
        rows.push(&vec![f32::NAN; self.kv_heads * (tokens + spare) * width]).unwrap();
        rows.drop_front(tokens + spare).unwrap();
        rows.push(&normals(seed, 0, self.kv_heads * tokens * width)).unwrap();
        let decoder = rank.map(|rank| {
            let shape = [self.kv_heads, self.head_dim, rank];
            let matrix: Vec<f32> = normals(seed, 1, shape.iter().product()).iter().map(|x| x / (rank as f32).sqrt()).collect();
            let dtype = [Dtype::F32, Dtype::F16, Dtype::BF16][seed as usize % 3];
            let mean = normals(seed, 2, self.kv_heads * self.head_dim);
            let mean = Tensor::from_slice(&mean, &[self.kv_heads, self.head_dim], &device).unwrap();
            let matrix = Tensor::from_slice(&matrix, &shape, &device).unwrap().to_dtype(dtype).unwrap();
            Decoder { matrix, mean: (seed % 2 == 1).then_some(mean) }
        });
        OwnedSide { rows, decoder }
    }

    fn part(self, seed: u64, tokens: usize, format: Format, ranks: Option<(usize, usize)>) -> OwnedPart {
        OwnedPart {
            keys: self.side(5 * seed, tokens, format, ranks.map(|(keys, _)| keys), 3),
            values: self.side(5 * seed + 2, tokens, format, ranks.map(|(_, values)| values), 5),
        }
    }
}

struct OwnedSide {
    rows: Coded,
    decoder: Option<Decoder>,
}

struct OwnedPart {
    keys: OwnedSide,
    values: OwnedSide,
}

impl OwnedSide {
    fn to_device(&self, device: &Device) -> Self {
        let decoder = self.decoder.as_ref().map(|decoder| decoder.to_device(device).unwrap());
        Self { rows: self.rows.to_device(device).unwrap(), decoder }
    }

    fn side(&self) -> Side<'_> {
        Side { rows: &self.rows, decoder: self.decoder.as_ref() }
    }

    /// One head's rows, decoded in f64.
    fn exact(&self, head: usize, head_dim: usize) -> Vec<Vec<f64>> {
        let (tokens, width) = (self.rows.tokens(), self.rows.width());
        let stored = self.rows.decode(0, tokens).unwrap();
        let stored = stored[head * tokens * width..(head + 1) * tokens * width].chunks_exact(width);
        let stored = stored.map(|row| row.iter().copied().map(f64::from).collect::<Vec<_>>());
        let Some(decoder) = &self.decoder else { return stored.collect() };
        let matrix = decoder.matrix.to_f32_vec().unwrap();
        let mean = decoder.mean.as_ref().map(|mean| mean.to_f32_vec().unwrap());
        let element = |row: &[f64], i: usize| {
            let matrix = &matrix[(head * head_dim + i) * width..][..width];
            let product: f64 = row.iter().zip(matrix).map(|(a, d)| a * f64::from(*d)).sum();
            product + mean.as_ref().map_or(0.0, |mean| f64::from(mean[head * head_dim + i]))
        };
        stored.map(|row| (0..head_dim).map(|i| element(&row, i)).collect()).collect()
    }
}

fn to_device(parts: &[OwnedPart], device: &Device) -> Vec<OwnedPart> {
    let moved = parts.iter();
    moved.map(|part| OwnedPart { keys: part.keys.to_device(device), values: part.values.to_device(device) }).collect()
}

fn sequence(parts: &[OwnedPart]) -> Sequence<'_> {
    let parts = parts.iter().map(|part| Part { keys: part.keys.side(), values: part.values.side() });
    Sequence { parts: parts.collect(), queries: 1 }
}

/// Attention on a device of arguments that are on the CPU.
fn attend_on(device: &Device, q: &Tensor, sequences: &[&[OwnedPart]], params: &Params<'_>) -> Result<Vec<f32>> {
    let moved: Vec<Vec<OwnedPart>> = sequences.iter().map(|parts| to_device(parts, device)).collect();
    let sequences: Vec<Sequence<'_>> = moved.iter().map(|parts| sequence(parts)).collect();
    let rope = params.rope.map(|rope| rope.to_device(device)).transpose()?;
    let params = Params { rope: rope.as_ref(), ..*params };
    attend(&q.to_device(device)?, &sequences, &params)?.to_f32_vec()
}

/// Turns a row by its position, in f64 from the definition.
fn rotated(row: &[f64], position: usize) -> Vec<f64> {
    let half = row.len() / 2;
    let turned = |i: usize| {
        let angle = position as f64 * f64::from(THETA).powf(-2.0 * (i % half) as f64 / row.len() as f64);
        let other = if i < half { -row[i + half] } else { row[i - half] };
        row[i] * angle.cos() + other * angle.sin()
    };
    (0..row.len()).map(turned).collect()
}

/// Softmax attention of one query of one head, its operands and probabilities rounded by `round`.
fn attention(query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], scale: f64, round: impl Fn(f64) -> f64) -> Vec<f64> {
    let score = |key: &Vec<f64>| scale * query.iter().zip(key).map(|(a, b)| round(*a) * round(*b)).sum::<f64>();
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let element = |i: usize| weights.iter().zip(values).map(|(w, v)| round(*w) * round(v[i])).sum::<f64>() / total;
    (0..values[0].len()).map(element).collect()
}

/// The exact result of a sequence, and the error that a straightforward bf16 implementation makes.
fn oracle(heads: Heads, q: &[f32], parts: &[OwnedPart], params: &Params<'_>) -> (Vec<f64>, f64) {
    let tokens: usize = parts.iter().map(|part| part.keys.rows.tokens()).sum();
    let (mut exact, mut error) = (Vec::new(), 0.0f64);
    for kv_head in 0..heads.kv_heads {
        let keys: Vec<Vec<f64>> = parts.iter().flat_map(|part| part.keys.exact(kv_head, heads.head_dim)).collect();
        let values: Vec<Vec<f64>> = parts.iter().flat_map(|part| part.values.exact(kv_head, heads.head_dim)).collect();
        let group = heads.heads / heads.kv_heads;
        for row in q.chunks_exact(heads.head_dim).skip(kv_head * group).take(group) {
            let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
            let row = if params.rope.is_some() { rotated(&row, tokens - 1) } else { row };
            let scale = f64::from(params.scale);
            let right = attention(&row, &keys, &values, scale, |x| x);
            let rounded = attention(&row, &keys, &values, scale, |x| f64::from(bf16::from_f64(x)));
            error = right.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(error, f64::max);
            exact.extend(right);
        }
    }
    (exact, error)
}

fn distance(a: &[f32], b: impl IntoIterator<Item = f64>) -> f64 {
    let distances = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs());
    distances.fold(0.0, |most, distance| if distance <= most { most } else { distance })
}

/// Runs one sequence on a device and holds the result to both bounds.
fn verify(device: &Device, heads: Heads, parts: &[OwnedPart], params: &Params<'_>, what: &str) -> Vec<f32> {
    let q = heads.query(77, 1);
    let found = attend_on(device, &q, &[parts], params).unwrap();
    let (exact, straightforward) = oracle(heads, &q.to_f32_vec().unwrap(), parts, params);
    let error = distance(&found, exact);
    assert!(error <= 2.0 * straightforward, "{what}: error {error}, straightforward {straightforward}");
    agreed(device, Against::Oracle);
    let on_cpu = attend(&q, &[sequence(parts)], params).unwrap().to_f32_vec().unwrap();
    let largest = on_cpu.iter().copied().map(f32::abs).fold(0.0, f32::max);
    let apart = distance(&found, on_cpu.iter().copied().map(f64::from));
    assert!(apart <= 1e-4 * f64::from(largest), "{what}: {apart} from the CPU path, largest value {largest}");
    agreed(device, Against::Cpu);
    found
}

fn plain(scale: f32) -> Params<'static> {
    Params { scale, rope: None, keys_rotated: true }
}

pub(crate) const FAMILY: Family = Family {
    folder: "attention",
    compare,
    // Splits that count alike, whatever their largest scores.
    mutation: Mutation { file: "attention/combine.cu", from: "share += weight * p.sums[row];", to: "share += p.sums[row];" },
};

/// head_dim and ranks of keys and values: every bucket, full and partly used.
const SHAPES: [(u64, usize, usize, usize); 8] = [
    (1, 16, 16, 5),
    (2, 32, 16, 32),
    (3, 32, 7, 31),
    (4, 48, 48, 33),
    (5, 64, 3, 64),
    (6, 80, 65, 72),
    (7, 128, 1, 128),
    (8, 128, 127, 24),
];

fn compare(make: &Maker<'_>, scale: Scale) -> Vec<u8> {
    let shapes = if scale == Scale::Smallest { &SHAPES[..1] } else { &SHAPES };
    let mut bytes = Vec::new();
    for format in [Format::BF16, Format::Int8] {
        for &(seed, head_dim, keys, values) in shapes {
            let heads = Heads { heads: 4, kv_heads: 2, head_dim };
            let rope = heads.rope();
            // More tiles of 64 tokens than there are buffers, parts with and without decoders, K and V of unlike ranks.
            let parts = [
                heads.part(10 * seed, 5, format, None),
                heads.part(10 * seed + 1, 259, format, Some((keys, values))),
                heads.part(10 * seed + 2, 97, format, Some((values, keys))),
                heads.part(10 * seed + 3, 30, format, None),
            ];
            let params = Params { scale: 0.3, rope: (seed % 2 == 0).then_some(&rope), keys_rotated: true };
            let what = format!("{format}, head_dim {head_dim}, ranks {keys} and {values}");
            bytes.extend(bits(&verify(&make(), heads, &parts, &params, &what)).iter().flat_map(|bits| bits.to_ne_bytes()));
        }
    }
    bytes
}

#[test]
fn odd_lengths_and_every_grouping_of_heads_match() {
    let device = support::device();
    for (seed, tokens) in [(1, 1), (2, 59), (3, 97), (4, 111), (5, 1025)] {
        let heads = Heads { heads: 6, kv_heads: 2, head_dim: 32 };
        let format = if seed % 2 == 0 { Format::Int8 } else { Format::BF16 };
        let parts = [heads.part(seed, tokens, format, Some((16, 32)))];
        verify(&device, heads, &parts, &plain(0.2), &format!("{tokens} tokens"));
    }
    for (n_heads, kv_heads) in [(8, 8), (8, 4), (8, 2), (8, 1), (3, 1), (18, 2), (17, 1)] {
        let heads = Heads { heads: n_heads, kv_heads, head_dim: 32 };
        let parts = [heads.part(1, 5, Format::BF16, None), heads.part(2, 59, Format::Int8, Some((13, 32)))];
        verify(&device, heads, &parts, &plain(0.2), &format!("{n_heads} heads, {kv_heads} key-value heads"));
    }
}

#[test]
fn queries_are_rotated_to_their_positions() {
    let device = support::device();
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 64 };
    let rope = heads.rope();
    let params = Params { scale: 0.125, rope: Some(&rope), keys_rotated: true };
    let parts = [heads.part(1, 97, Format::BF16, Some((32, 16))), heads.part(2, 111, Format::BF16, None)];
    verify(&device, heads, &parts, &params, "with RoPE");
}

/// Seven sequences of odd lengths, some of several parts; memory behind their rows is NaN.
fn ragged(heads: Heads) -> Vec<Vec<OwnedPart>> {
    let lengths = [1, 59, 97, 111, 1025, 64, 300];
    let sequences = lengths.iter().zip(0u64..).map(|(tokens, i)| {
        let format = if i % 2 == 0 { Format::Int8 } else { Format::BF16 };
        let mut parts = vec![heads.part(3 * i + 1, *tokens, format, Some((16, 32)))];
        if i % 3 != 0 {
            parts.push(heads.part(3 * i + 2, 31, Format::BF16, None));
        }
        parts
    });
    sequences.collect()
}

fn joined(queries: &[Tensor]) -> Tensor {
    let all: Vec<f32> = queries.iter().flat_map(|q| q.to_f32_vec().unwrap()).collect();
    let shape = [queries.len(), queries[0].shape()[1], queries[0].shape()[2]];
    Tensor::from_slice(&all, &shape, &Device::cpu()).unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_in_a_ragged_batch() {
    let device = support::device();
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 32 };
    let rope = heads.rope();
    let params = Params { scale: 0.2, rope: Some(&rope), keys_rotated: true };
    let sequences = ragged(heads);
    let queries: Vec<Tensor> = (0..sequences.len()).map(|i| heads.query(i as u64, 1)).collect();
    let batch: Vec<&[OwnedPart]> = sequences.iter().map(Vec::as_slice).collect();
    let together = attend_on(&device, &joined(&queries), &batch, &params).unwrap();
    assert!(together.iter().all(|x| x.is_finite()), "spare rows are not read");
    for ((q, parts), together) in queries.iter().zip(&batch).zip(together.chunks(heads.heads * heads.head_dim)) {
        let alone = attend_on(&device, q, &[parts], &params).unwrap();
        assert_eq!(bits(&alone), bits(together));
    }
}

#[test]
fn the_schedule_does_not_change_a_bit() {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 32 };
    let sequences = ragged(heads);
    let batch: Vec<&[OwnedPart]> = sequences.iter().map(Vec::as_slice).collect();
    let queries: Vec<Tensor> = (0..sequences.len()).map(|i| heads.query(i as u64, 1)).collect();
    let run = |schedule| bits(&attend_on(&emulated(schedule), &joined(&queries), &batch, &plain(0.2)).unwrap());
    let expected = run(0);
    for schedule in [1, 11, 22, 33, 44, 55, 66, 77, 88] {
        assert_eq!(run(schedule), expected, "schedule {schedule}");
    }
}

#[test]
fn a_nan_stays_in_its_own_sequence() {
    let device = support::device();
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 32 };
    let good = [heads.part(1, 59, Format::BF16, None)];
    for in_values in [false, true] {
        let mut bad = heads.part(2, 58, Format::BF16, None);
        bad.keys.rows.push(&[if in_values { 0.5 } else { f32::NAN }; 64]).unwrap();
        bad.values.rows.push(&[if in_values { f32::NAN } else { 0.5 }; 64]).unwrap();
        let q = joined(&[heads.query(1, 1), heads.query(2, 1)]);
        let both = attend_on(&device, &q, &[&good, &[bad]], &plain(0.2)).unwrap();
        let alone = attend_on(&device, &heads.query(1, 1), &[&good], &plain(0.2)).unwrap();
        let (left, right) = both.split_at(both.len() / 2);
        assert_eq!(bits(left), bits(&alone));
        assert!(right.iter().all(|x| x.is_nan()));
    }
}

#[test]
fn attend_into_writes_everything_and_allocates_nothing() {
    let device = support::device();
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 32 };
    let parts = to_device(&[heads.part(1, 300, Format::Int8, Some((16, 8))), heads.part(2, 31, Format::BF16, None)], &device);
    let q = heads.query(1, 1).to_device(&device).unwrap();
    let sequences = [sequence(&parts)];
    let bytes = scratch_bytes(&q, &sequences, &plain(0.2)).unwrap();
    let mut scratch = Scratch::with_bytes(&device, bytes).unwrap();
    let poison = vec![f32::NAN; heads.heads * heads.head_dim];
    let mut out = Tensor::from_slice(&poison, q.shape(), &device).unwrap();
    let scope = device.memory_scope();
    attend_into(&mut out, &q, &sequences, &plain(0.2), &mut scratch).unwrap();
    assert_eq!(scope.peak(), scope.at_start());
    let found = out.to_f32_vec().unwrap();
    let fresh = attend(&q, &sequences, &plain(0.2)).unwrap().to_f32_vec().unwrap();
    assert_eq!(bits(&found), bits(&fresh));
    assert!(found.iter().all(|x| x.is_finite()));
}

#[test]
fn what_a_device_cannot_do_is_an_error_that_says_so() {
    let device = support::device();
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 32 };
    let q = heads.query(1, 1);
    let run = |parts: &[OwnedPart], params: &Params<'_>| attend_on(&device, &q, &[parts], params);
    for format in [Format::F32, Format::F16, Format::Int4, Format::Int4Asym] {
        let error = run(&[heads.part(1, 9, format, None)], &plain(0.2)).unwrap_err();
        assert!(matches!(error, Error::Dtype { .. }), "{error}");
        assert!(error.to_string().contains("bf16, int8"), "{error}");
    }
    let mixed = OwnedPart { keys: heads.side(1, 9, Format::BF16, None, 0), values: heads.side(2, 9, Format::Int8, None, 0) };
    assert!(matches!(run(&[mixed], &plain(0.2)), Err(Error::Device { .. })));
    let rope = heads.rope();
    let before_rope = Params { scale: 0.2, rope: Some(&rope), keys_rotated: false };
    let parts = [heads.part(1, 9, Format::BF16, None)];
    assert!(matches!(run(&parts, &before_rope), Err(Error::Device { .. })));
    let wide = Heads { heads: 2, kv_heads: 1, head_dim: 160 };
    let error = attend_on(&device, &wide.query(1, 1), &[&[wide.part(1, 9, Format::BF16, None)]], &plain(0.1)).unwrap_err();
    assert!(error.to_string().contains("at most 128"), "{error}");
    let moved = to_device(&parts, &device);
    let prefill = Sequence { queries: 2, ..sequence(&moved) };
    let many = heads.query(1, 2).to_device(&device).unwrap();
    assert!(matches!(attend(&many, &[prefill], &plain(0.2)), Err(Error::Device { .. })));
    let elsewhere = attend(&q, &[sequence(&moved)], &plain(0.2));
    assert!(matches!(elsewhere, Err(Error::Device { .. })), "{elsewhere:?}");
}

/// Not a promise that a test can hold: how long the emulator takes is printed (`--nocapture`).
#[test]
fn the_time_of_a_small_emulated_decode_is_printed() {
    let device = support::device();
    let heads = Heads { heads: 4, kv_heads: 4, head_dim: 64 };
    let parts = to_device(&[heads.part(1, 256, Format::BF16, None)], &device);
    let q = heads.query(1, 1).to_device(&device).unwrap();
    let timed = |_| {
        let start = Instant::now();
        assert_eq!(attend(&q, &[sequence(&parts)], &plain(0.125)).unwrap().to_f32_vec().unwrap().len(), 256);
        start.elapsed().as_secs_f64() * 1e3
    };
    let best = (0..5).map(timed).fold(f64::INFINITY, f64::min);
    println!("4 heads x 256 tokens x 64 on {device}: {best:.2} ms");
}

#[test]
fn scratch_of_another_device_is_refused() {
    let device = support::device();
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 32 };
    let parts = to_device(&[heads.part(1, 9, Format::BF16, None)], &device);
    let q = heads.query(1, 1).to_device(&device).unwrap();
    let mut out = Tensor::zeros(q.shape(), Dtype::F32, &device).unwrap();
    support::refuses_scratch_of_the_cpu(&device, |scratch| {
        attend_into(&mut out, &q, &[sequence(&parts)], &plain(0.2), scratch)
    });
}
