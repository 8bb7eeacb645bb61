//! Cases of attention: one decode step over a cache, every layer, one query a sequence.
//!
//! Verified against attention in f64 over what the cache decodes to (`relative`, the kernel alone), and what it decodes to
//! against the exact keys and values, within what its format may lose (`keys_limit`, `values_limit`). Beside it stand
//! `attention_output`, the distance from f64 attention over the exact keys and values, and the errors of the kept keys
//! and values themselves. The rival is our own decode over a dense 16-bit cache of the same tokens; there is none on an
//! emulated device.
//!
//! Work of a call: bytes = all that the cache holds, scales and bases included, the queries and the result; flops = for
//! each token 2 n_heads w a side, where w is the width of stored rows that are used as they are, and for keys stored
//! before RoPE, which are decoded and turned first, 2 n_kv_heads rank head_dim + 2 n_heads head_dim.

use std::rc::Rc;

use super::{
    Case, Line, Prepared, Request, Verdict, Work,
    data::Inputs,
    limits,
    moved::Moved,
    oracle::{self, Rows, worst_of},
    sweep::Pair,
    timing::Side,
    tokens::{Sequences, Text, Tokens},
};
use crate::{
    Device, Dtype, Result, Tensor,
    cache::{self, BasisKind, CacheBytes, KeyForm, KvCache},
    coded::Format,
    device::Kind,
};

/// Largest relative error of a layer's output, in f32 arithmetic, for a result to count as right.
const KERNEL_LIMIT: f64 = 2e-5;
/// The same on emulated and cuda devices, where queries and probabilities keep the eight bits of a bf16.
const DEVICE_LIMIT: f64 = 8e-3;

/// What to sweep over. `None` is what comes natural.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Sequences at a time.
    pub batch: Option<Vec<usize>>,
    /// Tokens in the cache.
    pub context: Option<Vec<usize>>,
    /// Query and key-value heads.
    pub heads: Option<Vec<Pair>>,
    /// Elements of a head.
    pub head_dim: Option<Vec<usize>>,
    /// Ranks of keys and values.
    pub rank: Option<Vec<Pair>>,
    /// Storage of latents.
    pub latent: Option<Vec<&'static str>>,
    /// Source of bases.
    pub basis: Option<Vec<&'static str>>,
    /// Form of stored keys.
    pub keys: Option<Vec<&'static str>>,
    /// Tokens sealed at a time.
    pub block: Option<Vec<usize>>,
    /// Newest tokens kept dense.
    pub window: Option<Vec<usize>>,
    /// First tokens kept dense.
    pub sinks: Option<Vec<usize>>,
    /// Whether to say where the bytes lie.
    pub explain: bool,
}

/// How a cache keeps its tokens.
#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Dense,
    Coded { basis: String, rank: Option<Pair>, keys: String, latent: String, window: usize, sinks: usize, block: usize },
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    tokens: Tokens,
    dtype: Dtype,
    kept: Kept,
    explain: bool,
}

/// The cases of a sweep: the dense cache, plain quantization, and low rank beside them.
pub(super) fn plan(sweep: &Sweep, request: &Request, inputs: &mut Inputs) -> Result<Vec<Spec>> {
    let or = |list: &Option<Vec<usize>>, usual: usize| list.clone().unwrap_or_else(|| vec![usual]);
    let kind = request.device.kind();
    let shaped = sweep.heads.is_some() || sweep.head_dim.is_some();
    // Every layer of a model is much to emulate; only calibrated bases need one.
    let real = kind != Kind::Emulated || sweep.basis.as_ref().is_some_and(|bases| bases.contains(&"calibrated"));
    let texts = if !shaped && real && inputs.has_model() {
        vec![Text::Model { windows: if request.quick { 2 } else { 8 } }]
    } else {
        let (heads, head_dim) = if kind == Kind::Emulated { (Pair(8, 2), 64) } else { (Pair(32, 8), 128) };
        let heads = sweep.heads.clone().unwrap_or_else(|| vec![heads]);
        let shapes = product(&heads, &or(&sweep.head_dim, head_dim));
        shapes.into_iter().map(|(heads, head_dim)| Text::Power { heads, head_dim, seed: request.seed }).collect()
    };
    // Device kernels have no f16.
    let dtypes = request.dtypes.clone().unwrap_or_else(|| vec![if kind == Kind::Cpu { Dtype::F16 } else { Dtype::BF16 }]);
    let context = match kind {
        Kind::Emulated => 512,
        _ if request.quick => 1024,
        _ => 4096,
    };
    let contexts = or(&sweep.context, context);
    let mut specs = Vec::new();
    for (text, dtype) in product(&texts, &dtypes) {
        for (batch, context) in product(&or(&sweep.batch, 1), &contexts) {
            let tokens = Tokens { text: text.clone(), batch, context };
            let spec = |kept| Spec { tokens: tokens.clone(), dtype, kept, explain: sweep.explain };
            specs.extend(kept_forms(sweep, &text, kind).into_iter().map(spec));
        }
    }
    Ok(specs)
}

fn product<A: Clone, B: Clone>(a: &[A], b: &[B]) -> Vec<(A, B)> {
    a.iter().flat_map(|a| b.iter().map(|b| (a.clone(), b.clone()))).collect()
}

fn kept_forms(sweep: &Sweep, text: &Text, kind: Kind) -> Vec<Kept> {
    let or = |list: &Option<Vec<usize>>, usual: usize| list.clone().unwrap_or_else(|| vec![usual]);
    let places = product(&product(&or(&sweep.window, 64), &or(&sweep.sinks, 4)), &or(&sweep.block, 256));
    let wide = matches!(text, Text::Power { head_dim, .. } if *head_dim > 64);
    let usual_bases: &[&'static str] =
        if matches!(text, Text::Model { .. }) { &["identity", "calibrated", "online"] } else { &["identity", "online"] };
    let usual_ranks: &[usize] = match kind {
        Kind::Emulated => &[16, 48],
        _ if wide => &[8, 16, 32, 48, 64, 128],
        _ => &[8, 16, 24, 32, 48, 64],
    };
    let usual_latents: &[&'static str] = if kind == Kind::Cpu { &["f16", "int4"] } else { &["bf16", "int8"] };
    let ranks = sweep.rank.clone().unwrap_or_else(|| usual_ranks.iter().map(|r| Pair(*r, *r)).collect());
    let ranks: Vec<Option<Pair>> = ranks.into_iter().map(Some).collect();
    let mut kept = vec![Kept::Dense];
    for basis in sweep.basis.as_deref().unwrap_or(usual_bases) {
        // Without a decoder to absorb nothing is gained by rotating late.
        let usual_keys: &[&'static str] = if *basis == "identity" { &["post-rope"] } else { &["post-rope", "pre-rope"] };
        for keys in sweep.keys.as_deref().unwrap_or(usual_keys) {
            let usual: (&[&'static str], &[Option<Pair>]) =
                if *basis == "identity" { (&["int8", "int4"], &[None]) } else { (usual_latents, &ranks) };
            for latent in sweep.latent.as_deref().unwrap_or(usual.0) {
                let form = |(rank, ((window, sinks), block)): (Option<Pair>, ((usize, usize), usize))| {
                    let (basis, keys, latent) = (basis.to_string(), keys.to_string(), latent.to_string());
                    Kept::Coded { basis, rank, keys, latent, window, sinks, block }
                };
                kept.extend(product(usual.1, &places).into_iter().map(form));
            }
        }
    }
    kept
}

impl Spec {
    pub(super) fn line(&self) -> Line {
        let line = self.tokens.describe(Line::new("attention")).with("dtype", self.dtype.to_string());
        let Kept::Coded { basis, rank, keys, latent, window, sinks, block } = &self.kept else {
            return line.with("basis", "dense");
        };
        let line = line.with("basis", basis.clone());
        let line = match rank {
            Some(rank) => line.with("rank", rank.to_string()),
            None => line,
        };
        let line = line.with("keys", keys.clone()).with("latent", latent.clone());
        line.with("window", *window).with("sinks", *sinks).with("block", *block)
    }

    pub(super) fn parse(mut line: Line) -> Result<Self> {
        const MOST: usize = 1 << 30;
        let tokens = Tokens::parse(&mut line)?;
        let dtype = super::float_dtype(&mut line)?;
        let basis = line.need("basis")?;
        let kept = match basis.as_str() {
            "dense" => Kept::Dense,
            _ => Kept::Coded {
                basis,
                rank: line.take("rank").map(|text| line.pair("rank", &text)).transpose()?,
                keys: line.need("keys")?,
                latent: line.need("latent")?,
                window: line.parsed("window", "a number of tokens")?,
                sinks: line.parsed("sinks", "a number of tokens")?,
                block: line.count("block", MOST)?,
            },
        };
        line.finish()?;
        Ok(Self { tokens, dtype, kept, explain: false })
    }

    fn cache_spec(&self) -> Result<cache::Spec> {
        let dense: Format = self.dtype.to_string().parse()?;
        let Kept::Coded { basis, rank, keys, latent, window, sinks, block } = &self.kept else {
            return Ok(cache::Spec::dense(dense));
        };
        let rank = rank.map_or_else(String::new, |rank| format!(",rank={rank}"));
        let places = format!("window={window},sinks={sinks},block={block}");
        format!("basis={basis}{rank},keys={keys},latent={latent},dense={dense},{places}").parse()
    }

    pub(super) fn prepare(&self, inputs: &mut Inputs) -> Result<Prepared<Decode>> {
        let spec = self.cache_spec()?;
        let sequences = match inputs.sequences(&self.tokens)? {
            Ok(sequences) => sequences,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Err(error) = spec.ranks(sequences.layout.head_dim) {
            return Ok(Err(error.to_string()));
        }
        let bases = match (spec.basis == BasisKind::Calibrated).then(|| inputs.bases(&self.tokens, &spec)).transpose()? {
            Some(Err(reason)) => return Ok(Err(reason)),
            Some(Ok(bases)) => Some(bases),
            None => None,
        };
        let (device, host) = (inputs.device(), inputs.host());
        let dense = cache::Spec::dense(self.dtype.to_string().parse()?);
        let ours = sequences.fill(&spec, bases.as_ref(), host)?;
        let contested = !spec.is_dense() && device.kind() != Kind::Emulated;
        let rival = if contested { Some(sequences.fill(&dense, None, host)?) } else { None };
        let queries = sequences.query_tensors(device)?;
        let moved = if device.kind() == Kind::Cpu {
            None
        } else {
            let rival = rival.as_ref().map(|rival| Moved::new(rival, &sequences, device)).transpose()?;
            Some([Some(Moved::new(&ours, &sequences, device)?), rival])
        };
        let decode = Decode { spec: self.clone(), sequences, ours, rival, queries, moved };
        if self.explain {
            inputs.remark(decode.explain());
        }
        Ok(Ok(decode))
    }
}

/// A case with its caches.
pub(super) struct Decode {
    spec: Spec,
    sequences: Rc<Sequences>,
    ours: Vec<KvCache>,
    rival: Option<Vec<KvCache>>,
    queries: Vec<Tensor>,
    /// Both sides' caches where attention runs, when that is not the CPU.
    moved: Option<[Option<Moved>; 2]>,
}

impl Decode {
    /// One step over every layer of our caches or of the rival's, which are ours where there is no rival.
    fn step(&mut self, side: Side) -> Result<()> {
        self.each_layer(side, |_, out| {
            std::hint::black_box(out);
            Ok(())
        })
    }

    fn each_layer(&mut self, side: Side, mut see: impl FnMut(usize, &Tensor) -> Result<()>) -> Result<()> {
        let theirs = side == Side::Baseline && self.rival.is_some();
        if let Some(moved) = &mut self.moved {
            let Some(moved) = &mut moved[usize::from(theirs)] else { return Ok(()) };
            return self.queries.iter().enumerate().try_for_each(|(layer, q)| see(layer, moved.attend(layer, q)?));
        }
        let caches = self.rival.as_ref().filter(|_| theirs).unwrap_or(&self.ours);
        let caches: Vec<&KvCache> = caches.iter().collect();
        let tokens = vec![1; caches.len()];
        let mut layers = self.queries.iter().enumerate();
        layers.try_for_each(|(layer, q)| see(layer, &cache::attend(&caches, &tokens, layer, q)?))
    }

    fn bytes(&self) -> CacheBytes {
        let mut sum = CacheBytes::default();
        for bytes in self.ours.iter().map(KvCache::bytes) {
            sum.dense += bytes.dense;
            sum.sealed += bytes.sealed;
            sum.online_bases += bytes.online_bases;
            sum.calibrated_bases = bytes.calibrated_bases;
        }
        sum
    }

    fn dense_bytes(&self) -> usize {
        self.sequences.layout.dense_bytes_per_token() * self.sequences.layout.max_tokens * self.ours.len()
    }

    fn explain(&self) -> String {
        let bytes = self.bytes();
        let sealed: usize = self.sealed_tokens();
        format!(
            "{}\n  {sealed} of {} tokens sealed; {} bytes of sealed rows, {} of online bases, {} of sinks and window; a dense \
             16-bit cache has {}",
            self.spec.line(),
            self.sequences.layout.max_tokens,
            bytes.sealed,
            bytes.online_bases,
            bytes.dense,
            self.dense_bytes()
        )
    }

    fn sealed_tokens(&self) -> usize {
        let first = self.ours.first().into_iter().flat_map(|cache| cache.parts(0));
        first
            .filter(|part| part.keys.decoder.is_some() || part.keys.rows.format().is_quantized())
            .map(|p| p.keys.rows.tokens())
            .sum()
    }

    /// Holds the output [batch, n_heads, head_dim] of a layer against f64.
    fn judge_layer(&self, layer: usize, out: &Tensor, errors: &mut Errors) -> Result<()> {
        let layout = &self.sequences.layout;
        let (heads, width) = (layout.n_kv_heads, layout.head_dim);
        let out = out.to_f32_vec()?;
        let share = layout.n_heads * width;
        for (i, cache) in self.ours.iter().enumerate() {
            let q = &self.sequences.queries[layer][i * share..][..share];
            let parts: Vec<_> = cache.parts(layer).collect();
            let exact_values = Rows::from_tokens(&self.sequences.values[i][layer], heads, width);
            let mut exact_keys = Rows::from_tokens(&self.sequences.keys[i][layer], heads, width);
            let mut keys = Rows::from_parts(&parts, false, heads, width)?;
            let values = Rows::from_parts(&parts, true, heads, width)?;
            let latent = cache.spec().latent;
            let before = exact_keys.quantization(latent);
            if let Some(rope) = &layout.rope {
                exact_keys.rotate(rope)?;
                if cache.spec().keys == KeyForm::PreRope {
                    keys.rotate(rope)?;
                }
            }
            let turned = cache.spec().keys == KeyForm::PostRope;
            errors.key_step.add(if turned { exact_keys.quantization(latent) } else { before });
            errors.value_step.add(exact_values.quantization(latent));
            errors.keys.add(exact_keys.distance(&keys));
            errors.values.add(exact_values.distance(&values));
            let same = oracle::attention(q, &keys, &values, layout.scale, layout.rope.as_ref())?;
            let exact = oracle::attention(q, &exact_keys, &exact_values, layout.scale, layout.rope.as_ref())?;
            let found = &out[i * share..][..share];
            errors.kernel.push(Distance::of(found, &same).relative());
            errors.output.add(Distance::of(found, &exact).0);
        }
        Ok(())
    }

    fn flops(&self) -> u64 {
        let layout = &self.sequences.layout;
        let (n_heads, n_kv_heads, head_dim) = (layout.n_heads as u64, layout.n_kv_heads as u64, layout.head_dim as u64);
        let mut flops = 0;
        for (cache, layer) in self.ours.iter().flat_map(|cache| (0..layout.n_layers).map(move |layer| (cache, layer))) {
            for part in cache.parts(layer) {
                let (keys, values) = (part.keys.rows.width() as u64, part.values.rows.width() as u64);
                let decoded = part.keys.decoder.is_some() && cache.spec().keys == KeyForm::PreRope && layout.rope.is_some();
                let key_flops =
                    if decoded { 2 * n_kv_heads * keys * head_dim + 2 * n_heads * head_dim } else { 2 * n_heads * keys };
                flops += part.keys.rows.tokens() as u64 * (key_flops + 2 * n_heads * values);
            }
        }
        flops
    }
}

impl Case for Decode {
    fn line(&self) -> Line {
        self.spec.line()
    }

    fn about(&self) -> Vec<(&'static str, String)> {
        let layout = &self.sequences.layout;
        let heads = format!("{}/{}", layout.n_heads, layout.n_kv_heads);
        vec![("layers", layout.n_layers.to_string()), ("heads", heads), ("head-dim", layout.head_dim.to_string())]
    }

    fn dtype(&self) -> String {
        self.spec.dtype.to_string()
    }

    fn verify(&mut self) -> Result<Verdict> {
        let mut errors = Errors::default();
        let mut outputs = Vec::new();
        self.each_layer(Side::Ours, |_, out| {
            outputs.push(out.to_device(&Device::cpu())?);
            Ok(())
        })?;
        for (layer, out) in outputs.iter().enumerate() {
            self.judge_layer(layer, out, &mut errors)?;
        }
        let bytes = self.bytes();
        let head_dim = self.sequences.layout.head_dim;
        let spec = self.spec.cache_spec()?;
        let (key_rank, value_rank) = spec.ranks(head_dim)?;
        let (keys, values) = (errors.keys.relative(), errors.values.relative());
        let keys_limit = limits::kept(&spec, key_rank, head_dim, errors.key_step.relative());
        let values_limit = limits::kept(&spec, value_rank, head_dim, errors.value_step.relative());
        let kernel = worst_of(errors.kernel.into_iter());
        Ok(Verdict {
            passed: kernel <= if self.moved.is_some() { DEVICE_LIMIT } else { KERNEL_LIMIT }
                && keys <= keys_limit
                && values <= values_limit,
            error: vec![
                ("relative", kernel),
                ("attention_output", errors.output.relative()),
                ("keys", keys),
                ("values", values),
            ],
            figures: vec![
                ("kept_bytes", bytes.sequence() as f64 / self.dense_bytes() as f64),
                ("kv_bytes", bytes.sequence() as f64),
                ("dense_kv_bytes", self.dense_bytes() as f64),
                ("calibrated_bases_bytes", bytes.calibrated_bases as f64),
                ("keys_limit", keys_limit),
                ("values_limit", values_limit),
                ("sealed_tokens", self.sealed_tokens() as f64),
            ],
            note: self.sequences.note.clone(),
        })
    }

    fn work(&self) -> Work {
        let moved: usize = self.queries.iter().map(|q| 2 * q.bytes()).sum();
        let bytes = self.bytes();
        Work { bytes: (bytes.sequence() + bytes.calibrated_bases + moved) as u64, flops: self.flops() }
    }

    fn baseline(&self) -> Option<String> {
        self.rival.as_ref().map(|_| format!("lowkey's own decode over a dense {} cache of the same tokens", self.spec.dtype))
    }

    fn call(&mut self, side: Side) -> Result<()> {
        self.step(side)
    }
}

#[derive(Default)]
struct Errors {
    kernel: Vec<f64>,
    output: Distance,
    keys: Distance,
    values: Distance,
    key_step: Distance,
    value_step: Distance,
}

/// Squared distance and squared length, summed.
#[derive(Clone, Copy, Default)]
struct Distance((f64, f64));

impl Distance {
    fn of(found: &[f32], exact: &[f64]) -> Self {
        let off = found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        Self((off, exact.iter().map(|b| b * b).sum()))
    }

    fn add(&mut self, (off, length): (f64, f64)) {
        self.0.0 += off;
        self.0.1 += length;
    }

    fn relative(self) -> f64 {
        let (off, length) = self.0;
        if length > 0.0 { (off / length).sqrt() } else { off.sqrt() }
    }
}
