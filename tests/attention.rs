//! Attention on the compressed form equals f64 attention over what the form decodes to.

use lowkey::{
    Device, Dtype, Error, Tensor,
    attention::{Decoder, Params, Part, Sequence, Side, attend},
    coded::{Coded, Format},
    philox::Stream,
    rope::Rope,
};

const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const THETA: f32 = 10_000.0;

fn normals(seed: u64, matrix: u64, n: usize) -> Vec<f32> {
    let stream = Stream::new(seed, matrix);
    (0..n as u64).map(|i| stream.normal(i)).collect()
}

struct OwnedSide {
    rows: Coded,
    decoder: Option<Decoder>,
}

impl OwnedSide {
    fn random(seed: u64, tokens: usize, format: Format, rank: Option<usize>, mean: bool) -> Self {
        let width = rank.unwrap_or(HEAD_DIM);
        let device = Device::cpu();
        let mut rows = Coded::new(KV_HEADS, width, format, &device).unwrap();
        rows.push(&normals(seed, 0, KV_HEADS * tokens * width)).unwrap();
        let decoder = rank.map(|rank| {
            let matrix: Vec<f32> =
                normals(seed, 1, KV_HEADS * HEAD_DIM * rank).iter().map(|x| x / (rank as f32).sqrt()).collect();
            let matrix = Tensor::from_slice(&matrix, &[KV_HEADS, HEAD_DIM, rank], &device).unwrap();
            let mean = mean
                .then(|| Tensor::from_slice(&normals(seed, 2, KV_HEADS * HEAD_DIM), &[KV_HEADS, HEAD_DIM], &device).unwrap());
            Decoder { matrix: matrix.to_dtype(Dtype::BF16).unwrap(), mean }
        });
        Self { rows, decoder }
    }

    fn side(&self) -> Side<'_> {
        Side { rows: &self.rows, decoder: self.decoder.as_ref() }
    }

    /// One head's rows, decoded in f64.
    fn exact(&self, head: usize) -> Vec<Vec<f64>> {
        let (tokens, width) = (self.rows.tokens(), self.rows.width());
        let stored = self.rows.decode(0, tokens).unwrap();
        let stored = stored[head * tokens * width..(head + 1) * tokens * width].chunks_exact(width);
        let Some(decoder) = &self.decoder else {
            return stored.map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        };
        let matrix = decoder.matrix.to_f32_vec().unwrap();
        let mean = decoder.mean.as_ref().map(|mean| mean.to_f32_vec().unwrap());
        let element = |row: &[f32], i: usize| -> f64 {
            let start = (head * HEAD_DIM + i) * width;
            let product: f64 = row.iter().zip(&matrix[start..start + width]).map(|(a, d)| f64::from(*a) * f64::from(*d)).sum();
            product + mean.as_ref().map_or(0.0, |mean| f64::from(mean[head * HEAD_DIM + i]))
        };
        stored.map(|row| (0..HEAD_DIM).map(|i| element(row, i)).collect()).collect()
    }
}

/// Turns a row by its position, in f64 from the definition.
fn rotated(row: &[f64], position: usize) -> Vec<f64> {
    let half = HEAD_DIM / 2;
    (0..HEAD_DIM)
        .map(|i| {
            let angle = position as f64 * f64::from(THETA).powf(-2.0 * (i % half) as f64 / HEAD_DIM as f64);
            if i < half {
                row[i] * angle.cos() - row[i + half] * angle.sin()
            } else {
                row[i] * angle.cos() + row[i - half] * angle.sin()
            }
        })
        .collect()
}

/// Softmax attention in f64 of query rows at the last positions.
fn oracle(q: &[f32], parts: &[(OwnedSide, OwnedSide)], queries: usize, scale: f64, rope: bool, keys_rotated: bool) -> Vec<f64> {
    let tokens: usize = parts.iter().map(|(keys, _)| keys.rows.tokens()).sum();
    let mut out = Vec::new();
    for i in 0..queries {
        let position = tokens - queries + i;
        for h in 0..HEADS {
            let head = h / (HEADS / KV_HEADS);
            let keys: Vec<Vec<f64>> = parts.iter().flat_map(|(keys, _)| keys.exact(head)).collect();
            let values: Vec<Vec<f64>> = parts.iter().flat_map(|(_, values)| values.exact(head)).collect();
            let row: Vec<f64> = q[(i * HEADS + h) * HEAD_DIM..][..HEAD_DIM].iter().map(|x| f64::from(*x)).collect();
            let row = if rope { rotated(&row, position) } else { row };
            let score = |t: usize| {
                let key = if rope && !keys_rotated { rotated(&keys[t], t) } else { keys[t].clone() };
                scale * row.iter().zip(&key).map(|(a, b)| a * b).sum::<f64>()
            };
            let scores: Vec<f64> = (0..=position).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            out.extend(
                (0..HEAD_DIM).map(|j| scores.iter().zip(&values).map(|(s, v)| (s - max).exp() / total * v[j]).sum::<f64>()),
            );
        }
    }
    out
}

fn parts() -> Vec<(OwnedSide, OwnedSide)> {
    let side = OwnedSide::random;
    vec![
        (side(1, 5, Format::F16, None, false), side(2, 5, Format::F32, None, false)),
        (side(3, 59, Format::Int8, Some(7), false), side(4, 59, Format::F16, Some(13), true)),
        (side(5, 97, Format::Int4, Some(13), true), side(6, 97, Format::Int4, Some(16), false)),
        (side(7, 111, Format::Int4Asym, None, false), side(8, 111, Format::Int4Asym, Some(9), true)),
        (side(9, 1, Format::BF16, Some(HEAD_DIM), false), side(10, 1, Format::Int8, None, false)),
        (side(11, 70, Format::F32, None, false), side(12, 70, Format::F32, None, false)),
    ]
}

fn sequence(parts: &[(OwnedSide, OwnedSide)], queries: usize) -> Sequence<'_> {
    Sequence { parts: parts.iter().map(|(keys, values)| Part { keys: keys.side(), values: values.side() }).collect(), queries }
}

fn query(seed: u64, queries: usize) -> Tensor {
    Tensor::from_slice(&normals(seed, 9, queries * HEADS * HEAD_DIM), &[queries, HEADS, HEAD_DIM], &Device::cpu()).unwrap()
}

fn rope() -> Rope {
    Rope::new(&Rope::inverse_frequencies(HEAD_DIM, THETA), 4096, &Device::cpu()).unwrap()
}

#[test]
fn every_form_of_keys_and_values_matches_an_f64_oracle() {
    let (parts, rope) = (parts(), rope());
    for queries in [1, 3, 8, 9, 70] {
        for (rope, keys_rotated) in [(None, true), (None, false), (Some(&rope), true), (Some(&rope), false)] {
            let q = query(queries as u64, queries);
            let params = Params { scale: 0.3, rope, keys_rotated };
            let found = attend(&q, &[sequence(&parts, queries)], &params).unwrap().to_f32_vec().unwrap();
            let expected =
                oracle(&q.to_f32_vec().unwrap(), &parts, queries, f64::from(params.scale), rope.is_some(), keys_rotated);
            let error = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(error < 2e-5, "{queries} queries, rope {}, rotated {keys_rotated}: error {error}", rope.is_some());
        }
    }
}

#[test]
fn long_sequences_combine_their_splits() {
    let parts = vec![(
        OwnedSide::random(1, 5000, Format::Int8, Some(8), false),
        OwnedSide::random(2, 5000, Format::F16, Some(8), true),
    )];
    let q = query(5, 1);
    let params = Params { scale: 1.0, rope: None, keys_rotated: true };
    let found = attend(&q, &[sequence(&parts, 1)], &params).unwrap().to_f32_vec().unwrap();
    let expected = oracle(&q.to_f32_vec().unwrap(), &parts, 1, 1.0, false, true);
    let error = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(error < 2e-5, "{error}");
}

#[test]
fn a_sequence_has_the_same_bits_alone_in_a_ragged_batch_and_on_one_thread() {
    let rope = rope();
    let params = Params { scale: 0.2, rope: Some(&rope), keys_rotated: false };
    let owned: Vec<(Vec<(OwnedSide, OwnedSide)>, usize)> = (0..7)
        .map(|i| {
            let tokens = [1, 59, 97, 111, 1025, 64, 2100][i];
            let side = |seed| OwnedSide::random(seed + i as u64, tokens, Format::Int8, Some(16), false);
            (vec![(side(100), side(200))], [1, 1, 9, 30, 1, 64, 2][i])
        })
        .collect();
    let queries: Vec<Tensor> = owned.iter().enumerate().map(|(i, (_, n))| query(i as u64, *n)).collect();
    let joined: Vec<f32> = queries.iter().flat_map(|q| q.to_f32_vec().unwrap()).collect();
    let joined = Tensor::from_slice(&joined, &[joined.len() / (HEADS * HEAD_DIM), HEADS, HEAD_DIM], &Device::cpu()).unwrap();
    let batch: Vec<Sequence<'_>> = owned.iter().map(|(parts, n)| sequence(parts, *n)).collect();
    let together = attend(&joined, &batch, &params).unwrap().to_f32_vec().unwrap();
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut start = 0;
    for (q, sequence) in queries.iter().zip(batch) {
        let alone = one_thread.install(|| attend(q, std::slice::from_ref(&sequence), &params).unwrap().to_f32_vec().unwrap());
        assert_eq!(alone, together[start..start + alone.len()]);
        start += alone.len();
    }
}

#[test]
fn a_nan_stays_in_its_own_sequence() {
    for queries in [1, 20] {
        let good =
            vec![(OwnedSide::random(1, 59, Format::F32, None, false), OwnedSide::random(2, 59, Format::F32, None, false))];
        let mut bad = OwnedSide::random(3, 58, Format::F32, None, false);
        bad.rows.push(&[f32::NAN; KV_HEADS * HEAD_DIM]).unwrap();
        let bad = vec![(bad, OwnedSide::random(4, 59, Format::F32, None, false))];
        let params = Params { scale: 0.2, rope: None, keys_rotated: true };
        let q: Vec<f32> = [query(1, queries), query(2, queries)].iter().flat_map(|q| q.to_f32_vec().unwrap()).collect();
        let q = Tensor::from_slice(&q, &[2 * queries, HEADS, HEAD_DIM], &Device::cpu()).unwrap();
        let both = attend(&q, &[sequence(&good, queries), sequence(&bad, queries)], &params).unwrap().to_f32_vec().unwrap();
        let alone = attend(&query(1, queries), &[sequence(&good, queries)], &params).unwrap().to_f32_vec().unwrap();
        let (left, right) = both.split_at(both.len() / 2);
        assert_eq!(left, alone);
        assert!(right[right.len() - HEADS * HEAD_DIM..].iter().all(|x| x.is_nan()), "the query that sees the NaN says so");
    }
}

#[test]
fn a_nan_in_a_token_is_not_seen_by_the_tokens_before_it() {
    const TOKENS: usize = 150;
    const AT: usize = 97;
    let params = Params { scale: 0.2, rope: None, keys_rotated: true };
    let data = |seed| normals(seed, 0, KV_HEADS * TOKENS * HEAD_DIM);
    let side = |data: &[f32]| {
        let mut rows = Coded::new(KV_HEADS, HEAD_DIM, Format::F32, &Device::cpu()).unwrap();
        rows.push(data).unwrap();
        OwnedSide { rows, decoder: None }
    };
    let clean = vec![(side(&data(1)), side(&data(2)))];
    let expected = attend(&query(3, TOKENS), &[sequence(&clean, TOKENS)], &params).unwrap().to_f32_vec().unwrap();
    for in_values in [false, true] {
        let mut poisoned = data(if in_values { 2 } else { 1 });
        poisoned[AT * HEAD_DIM + 5] = f32::NAN;
        let (keys, values) = if in_values { (data(1), poisoned) } else { (poisoned, data(2)) };
        let parts = vec![(side(&keys), side(&values))];
        let found = attend(&query(3, TOKENS), &[sequence(&parts, TOKENS)], &params).unwrap().to_f32_vec().unwrap();
        for (token, (found, expected)) in found.chunks(HEADS * HEAD_DIM).zip(expected.chunks(HEADS * HEAD_DIM)).enumerate() {
            let shown = found[..HEAD_DIM].iter().any(|x| x.is_nan());
            assert_eq!(shown, token >= AT, "token {token}");
            let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(token >= AT || close, "token {token}");
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_named_errors() {
    let parts = parts();
    let params = Params { scale: 1.0, rope: None, keys_rotated: true };
    let attend = |q: &Tensor, sequence: Sequence<'_>| attend(q, &[sequence], &params);
    let shape = |result: lowkey::Result<Tensor>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    shape(attend(&query(1, 2), sequence(&parts, 1)));
    shape(attend(&query(1, 400), sequence(&parts, 400)));
    shape(attend(&query(1, 1).reshape(&[1, HEADS * HEAD_DIM]).unwrap(), sequence(&parts, 1)));
    shape(attend(&Tensor::zeros(&[1, HEADS - 1, HEAD_DIM], Dtype::F32, &Device::cpu()).unwrap(), sequence(&parts, 1)));
    shape(attend(&Tensor::zeros(&[1, HEADS, HEAD_DIM + 2], Dtype::F32, &Device::cpu()).unwrap(), sequence(&parts, 1)));
    let uneven = [(OwnedSide::random(1, 3, Format::F32, None, false), OwnedSide::random(2, 4, Format::F32, None, false))];
    shape(attend(&query(1, 1), sequence(&uneven, 1)));
    let half = query(1, 1).to_dtype(Dtype::F16).unwrap();
    assert!(matches!(attend(&half, sequence(&parts, 1)), Err(Error::Dtype { .. })));
}
