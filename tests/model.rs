//! Models: logits, hidden states and greedy text are those of transformers, however tokens are split and batched.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lowkey::{
    Device, Error, Tensor,
    cache::KvCache,
    coded::Format,
    model::{
        self, Encoded, GenerateOptions, LoadOptions, Logits, Model, Observer, Run, Sampling, Tokenizer,
        perplexity::{self, Options},
    },
};

pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    project("tests/fixtures/tiny").join(name)
}

/// A copy of a fixture to change; with `config` in place of its config.json.
pub(crate) fn copy_of(name: &str, config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(fixture(name).join(config), folder.path().join("config.json")).unwrap();
    folder
}

pub(crate) fn load(folder: &Path) -> Model {
    Model::load(folder, &Device::cpu(), &LoadOptions::default()).unwrap()
}

/// A reference file, read by the safetensors crate alone.
pub(crate) struct Reference(Vec<u8>);

impl Reference {
    pub(crate) fn open(path: &Path) -> Self {
        Self(fs::read(path).unwrap())
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let data = file.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
        data.into_iter().map(f32::from_le_bytes).collect()
    }

    /// Rows of an [n, tokens] or [tokens] integer tensor.
    pub(crate) fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let size = view.dtype().bitsize() / 8;
        let ids: Vec<u32> = view.data().chunks(size).map(|b| u32::from_le_bytes(b[..4].try_into().unwrap())).collect();
        ids.chunks(*view.shape().last().unwrap()).map(<[u32]>::to_vec).collect()
    }
}

fn caches(model: &Model, n: usize, max_tokens: usize) -> Vec<KvCache> {
    let layout = model.layout(max_tokens).unwrap();
    (0..n).map(|_| KvCache::dense(&layout, Format::F32, model.device()).unwrap()).collect()
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    // NaN must not pass, so the comparison is by total order.
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).max_by(f32::total_cmp).unwrap()
}

#[derive(Default)]
struct Seen {
    hidden: Vec<Vec<f32>>,
    shapes: Vec<[Vec<usize>; 3]>,
}

impl Observer for Seen {
    fn hidden(&mut self, index: usize, states: &Tensor) {
        assert_eq!(index, self.hidden.len());
        self.hidden.push(states.to_f32_vec().unwrap());
    }

    fn qkv(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) {
        assert_eq!(layer, self.shapes.len());
        self.shapes.push([q, k, v].map(|x| x.shape().to_vec()));
    }
}

fn greedy(model: &Model, prompt: &[u32], max_new_tokens: usize) -> Vec<u32> {
    let mut cache = caches(model, 1, prompt.len() + max_new_tokens).remove(0);
    let options = GenerateOptions { max_new_tokens, ..Default::default() };
    model::generate(model, &mut cache, prompt, &options, &mut |_| true).unwrap().ids
}

fn matches_transformers(model: &Model, reference: &Reference) {
    let ids = reference.ids("input_ids");
    let mut caches = caches(model, ids.len(), ids[0].len());
    let mut runs: Vec<Run> = ids.iter().zip(&mut caches).map(|(ids, cache)| Run { ids, cache }).collect();
    let mut seen = Seen::default();
    let logits = model.forward(&mut runs, Logits::All, &mut seen).unwrap();
    let difference = largest_difference(&logits.to_f32_vec().unwrap(), &reference.floats("logits"));
    assert!(difference <= 1e-4, "logits differ by {difference}");
    let config = model.config();
    assert_eq!(seen.hidden.len(), config.n_layers + 1);
    for (i, states) in seen.hidden.iter().enumerate() {
        let difference = largest_difference(states, &reference.floats(&format!("hidden_states.{i}")));
        assert!(difference <= 1e-4, "hidden_states.{i} differ by {difference}");
    }
    let tokens = ids.len() * ids[0].len();
    let [q, kv] = [config.n_heads, config.n_kv_heads].map(|heads| vec![tokens, heads, config.head_dim]);
    assert_eq!(seen.shapes, vec![[q, kv.clone(), kv]; config.n_layers]);
}

#[test]
fn every_fixture_gives_the_numbers_of_transformers_in_both_spellings_of_its_configuration() {
    for name in ["llama", "llama-sharded", "llama-tied-bf16", "llama3-rope", "gpt2", "gpt2-oldnames"] {
        for config in ["config.json", "config.v5.json"] {
            println!("{name} with {config}");
            let model = load(copy_of(name, config).path());
            let reference = Reference::open(&fixture(name).join("reference.safetensors"));
            matches_transformers(&model, &reference);
            for (ids, expected) in reference.ids("input_ids").iter().zip(reference.ids("greedy_ids")) {
                assert_eq!(greedy(&model, ids, expected.len()), expected);
            }
        }
    }
}

#[test]
fn trained_models_give_the_logits_and_greedy_text_of_transformers() {
    for name in ["tinyshakespeare-llama", "tinyshakespeare-gpt2"] {
        let folder = project("models").join(name);
        let model = load(&folder);
        matches_transformers(&model, &Reference::open(&folder.join("reference/logits.safetensors")));
        let cases: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("reference/greedy.json")).unwrap()).unwrap();
        let ids = |value: &serde_json::Value| value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        for case in cases.as_array().unwrap() {
            let (prompt, expected): (Vec<u32>, Vec<u32>) = (ids(&case["prompt_ids"]), ids(&case["continuation_ids"]));
            assert_eq!(greedy(&model, &prompt, expected.len()), expected, "{name}, {}", case["prompt"]);
        }
    }
}

#[test]
fn trained_models_reach_their_known_perplexity() {
    for (name, known) in [("tinyshakespeare-llama", 26.758_506), ("tinyshakespeare-gpt2", 30.809_590)] {
        let model = load(&project("models").join(name));
        let text = val_text(&model);
        let layout = model.layout(512).unwrap();
        let make = || KvCache::dense(&layout, Format::F32, model.device());
        let score = perplexity::score(&model, &text, &Options::default(), make).unwrap();
        assert_eq!(score.tokens, 49_056);
        assert!((score.perplexity - known).abs() < 5e-4, "{name}: {}", score.perplexity);
        assert!((score.nll.exp() - score.perplexity).abs() < 1e-9);
    }
}

fn val_text(model: &Model) -> Encoded {
    let tokenizer = Tokenizer::load(project("models/tinyshakespeare-llama"), model.config().vocab_size).unwrap();
    let text = fs::read_to_string(project("models/tinyshakespeare/val.txt")).unwrap();
    tokenizer.encode(&text, false).unwrap()
}

#[test]
fn overlapping_windows_score_each_token_once_with_what_is_before_it() {
    let model = load(&fixture("llama"));
    let ids: Vec<u32> = (0..97).map(|i| (i * 37 + 11) % 288).collect();
    let text = Encoded { ids: ids.clone(), ends: (1..=97).map(|i| 3 * i).collect() };
    let layout = model.layout(40).unwrap();
    let make = || KvCache::dense(&layout, Format::F32, model.device());
    let options = Options { window: 40, stride: Some(10), ..Default::default() };
    let score = perplexity::score(&model, &text, &options, make).unwrap();
    // Windows 0..40, 10..50, .. 50..90: tokens 1..90, each once.
    assert_eq!(score.tokens, 89);
    let mut sum = 0.0f64;
    for target in 1..90usize {
        let window = target.saturating_sub(30) / 10 * 10;
        let mut cache = caches(&model, 1, 40).remove(0);
        let mut runs = [Run { ids: &ids[window..target], cache: &mut cache }];
        let logits = model.forward(&mut runs, Logits::Last, &mut ()).unwrap().to_f32_vec().unwrap();
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        sum += total.ln() - f64::from(logits[ids[target] as usize]);
    }
    assert!((score.nll - sum / 89.0).abs() < 1e-5, "{} for {}", score.nll, sum / 89.0);
    assert!((score.bits_per_byte - score.nll / 2f64.ln() / 3.0).abs() < 1e-9, "three bytes a token");
    let sampled = Options { samples: Some(2), ..options };
    assert_eq!(perplexity::windows(97, &sampled).unwrap(), [0..40, 30..70]);
}

#[test]
fn the_score_does_not_depend_on_the_number_of_threads() {
    let model = load(&project("models/tinyshakespeare-gpt2"));
    let text = val_text(&model);
    let layout = model.layout(59).unwrap();
    let score = |threads: usize| {
        let make = || KvCache::dense(&layout, Format::F32, model.device());
        let options = Options { window: 59, samples: Some(7), ..Default::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| perplexity::score(&model, &text, &options, make)).unwrap().nll.to_bits()
    };
    assert_eq!(score(1), score(3));
}

#[test]
fn steps_and_batches_do_not_change_logits() {
    for name in ["llama", "gpt2"] {
        let model = load(&fixture(name));
        let ids: Vec<u32> = (0..59).map(|i| (i * 101 + 7) % 256).collect();
        let whole = |ids: &[u32]| {
            let mut cache = caches(&model, 1, 64).remove(0);
            model.forward(&mut [Run { ids, cache: &mut cache }], Logits::All, &mut ()).unwrap().to_f32_vec().unwrap()
        };
        let expected = whole(&ids);
        let vocab = model.config().vocab_size;
        let mut cache = caches(&model, 1, 64).remove(0);
        let mut stepped = Vec::new();
        for step in [&ids[..1], &ids[1..2], &ids[2..40], &ids[40..41], &ids[41..59]] {
            let mut runs = [Run { ids: step, cache: &mut cache }];
            stepped.extend(model.forward(&mut runs, Logits::All, &mut ()).unwrap().to_f32_vec().unwrap());
        }
        assert!(largest_difference(&stepped, &expected) < 5e-5, "{name} in steps");
        // Three sequences, one of them with a past, in one batch.
        let mut batch = caches(&model, 3, 64);
        model.forward(&mut [Run { ids: &ids[..30], cache: &mut batch[1] }], Logits::Last, &mut ()).unwrap();
        let parts = [&ids[..1], &ids[30..59], &ids[..17]];
        let mut runs: Vec<Run> = parts.iter().zip(&mut batch).map(|(ids, cache)| Run { ids, cache }).collect();
        let found = model.forward(&mut runs, Logits::All, &mut ()).unwrap().to_f32_vec().unwrap();
        let wanted = [whole(parts[0]), expected[30 * vocab..].to_vec(), whole(parts[2])].concat();
        assert!(largest_difference(&found, &wanted) < 5e-5, "{name} in a batch");
    }
}

#[test]
fn caches_that_seal_split_a_prompt_and_keep_the_order_of_its_tokens() {
    let model = load(&fixture("llama"));
    let ids: Vec<u32> = (0..61).map(|i| (i * 67 + 5) % 288).collect();
    let spec = "rank=16,latent=f32,dense=f32,basis=online,keys=post-rope,block=16,window=4,sinks=2".parse().unwrap();
    let layout = model.layout(61).unwrap();
    let sealing = || KvCache::new(&layout, &spec, None, model.device()).unwrap();
    let (mut a, mut b, mut dense) = (sealing(), sealing(), caches(&model, 1, 61).remove(0));
    assert!(a.max_step() < 61, "the prompt takes several steps");
    let mut runs =
        [Run { ids: &ids, cache: &mut a }, Run { ids: &ids[..23], cache: &mut b }, Run { ids: &ids[..9], cache: &mut dense }];
    let found = model.forward(&mut runs, Logits::All, &mut ()).unwrap().to_f32_vec().unwrap();
    let mut cache = caches(&model, 1, 61).remove(0);
    let whole = model.forward(&mut [Run { ids: &ids, cache: &mut cache }], Logits::All, &mut ()).unwrap().to_f32_vec().unwrap();
    let vocab = model.config().vocab_size;
    let wanted = [&whole[..], &whole[..23 * vocab], &whole[..9 * vocab]].concat();
    let difference = largest_difference(&found, &wanted);
    assert!(difference < 1e-3, "full rank in f32 differs from dense by {difference}");
}

#[test]
fn observers_may_keep_what_they_see() {
    struct Keep(Vec<(Tensor, Vec<f32>)>);
    impl Observer for Keep {
        fn hidden(&mut self, _: usize, states: &Tensor) {
            self.0.push((states.clone(), states.to_f32_vec().unwrap()));
        }
    }
    let model = load(&fixture("gpt2"));
    let mut keep = Keep(Vec::new());
    let mut cache = caches(&model, 1, 8).remove(0);
    model.forward(&mut [Run { ids: &[1, 2, 3], cache: &mut cache }], Logits::Last, &mut keep).unwrap();
    assert_eq!(keep.0.len(), 3);
    assert!(keep.0.iter().all(|(kept, then)| kept.to_f32_vec().unwrap() == *then));
}

#[test]
fn ids_and_lengths_outside_the_model_are_named_errors() {
    let model = load(&fixture("gpt2"));
    let long = vec![1; 73];
    for (ids, field, limit) in
        [(&[][..], "tokens", "at least one"), (&[5, 256], "token 1", "below 256"), (&long, "tokens", "72")]
    {
        let mut cache = caches(&model, 1, 72).remove(0);
        let Err(Error::Input(error)) = model.forward(&mut [Run { ids, cache: &mut cache }], Logits::Last, &mut ()) else {
            panic!("{field}")
        };
        assert_eq!(error.field, field);
        assert!(error.limit.contains(limit), "{error}");
    }
    assert!(matches!(model.layout(73), Err(Error::Input(_))));
    let text = Encoded { ids: vec![1; 50], ends: (1..=50).collect() };
    let layout = model.layout(72).unwrap();
    for (window, stride, samples, field) in
        [(51, None, None, "text"), (1, None, None, "window"), (8, Some(9), None, "stride"), (8, None, Some(0), "samples")]
    {
        let options = Options { window, stride, samples, ..Default::default() };
        let score = perplexity::score(&model, &text, &options, || KvCache::dense(&layout, Format::F32, model.device()));
        let Err(Error::Input(error)) = score else { panic!("{field}") };
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn sampling_keeps_to_its_limits_and_its_seed() {
    let model = load(&fixture("llama"));
    let prompt = [3, 1, 4, 1, 5];
    let sample = |sampling: Sampling| {
        let mut cache = caches(&model, 1, 64).remove(0);
        let options = GenerateOptions { max_new_tokens: 40, sampling, ..Default::default() };
        model::generate(&model, &mut cache, &prompt, &options, &mut |_| true).map(|g| g.ids)
    };
    let hot = Sampling { temperature: 2.0, ..Default::default() };
    let greedy = greedy(&model, &prompt, 40);
    let seeded = |seed| sample(Sampling { seed, ..hot.clone() }).unwrap();
    assert_eq!(seeded(7), seeded(7));
    assert_ne!(seeded(7), seeded(8));
    assert_ne!(seeded(7), greedy);
    for narrow in [
        Sampling { top_k: 1, ..hot.clone() },
        Sampling { top_p: 1e-6, ..hot.clone() },
        Sampling { min_p: 1.0, ..hot.clone() },
        Sampling { temperature: 1e-4, ..hot.clone() },
    ] {
        assert_eq!(sample(narrow.clone()).unwrap(), greedy, "{narrow:?}");
    }
    for wrong in [
        Sampling { temperature: -1.0, ..hot.clone() },
        Sampling { temperature: f32::NAN, ..hot.clone() },
        Sampling { top_p: 0.0, ..hot.clone() },
        Sampling { min_p: 1.5, ..hot.clone() },
    ] {
        assert!(matches!(sample(wrong), Err(Error::Input(_))));
    }
}

#[test]
fn draws_follow_the_probabilities() {
    // One token after a fixed prompt, many seeds: shares against the softmax of the logits.
    let model = load(&fixture("llama"));
    let prompt = [9, 2, 6];
    let mut cache = caches(&model, 1, 8).remove(0);
    let logits = model.forward(&mut [Run { ids: &prompt, cache: &mut cache }], Logits::Last, &mut ()).unwrap();
    let weights: Vec<f64> = logits.to_f32_vec().unwrap().iter().map(|x| f64::from(*x).exp()).collect();
    let total: f64 = weights.iter().sum();
    let best = (0..weights.len()).max_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap();
    let p = weights[best] / total;
    let draws = 600;
    let hits = (0..draws).filter(|seed| {
        let mut cache = caches(&model, 1, 8).remove(0);
        let sampling = Sampling { temperature: 1.0, seed: *seed, ..Default::default() };
        let options = GenerateOptions { max_new_tokens: 1, sampling, ..Default::default() };
        model::generate(&model, &mut cache, &prompt, &options, &mut |_| true).unwrap().ids == [best as u32]
    });
    let (share, spread) = (hits.count() as f64 / draws as f64, (p * (1.0 - p) / draws as f64).sqrt());
    assert!((share - p).abs() < 5.0 * spread, "{share} for {p}");
}

#[test]
fn generation_stops_at_stop_tokens_and_when_the_context_is_full() {
    let model = load(&fixture("gpt2"));
    let prompt: Vec<u32> = (0..60).collect();
    let mut cache = caches(&model, 1, 72).remove(0);
    let free = model::generate(
        &model,
        &mut cache,
        &prompt,
        &GenerateOptions { max_new_tokens: 50, ..Default::default() },
        &mut |_| true,
    );
    let free = free.unwrap().ids;
    assert_eq!(free.len(), 13, "60 tokens of prompt, 72 of context, and the token that follows the last");
    let stop = free[5];
    let first = free.iter().position(|id| *id == stop).unwrap();
    let mut cache = caches(&model, 1, 72).remove(0);
    let options = GenerateOptions { max_new_tokens: 50, stop_ids: vec![stop], ..Default::default() };
    assert_eq!(model::generate(&model, &mut cache, &prompt, &options, &mut |_| true).unwrap().ids, free[..first]);
}
