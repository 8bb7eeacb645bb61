//! `forward` from file to file: token ids in, logits and hidden states out.

use std::path::Path;

use super::{
    Logits, Model, Observer, Run,
    files::{SafeFile, Saved, save},
};
use crate::{Error, InputError, Result, Tensor, cache::KvCache, coded::Format};

/// Most tokens of a file, all rows together: logits for more would fit no memory.
const TOKENS: usize = 1 << 24;

/// Runs `input_ids` [batch, tokens] of the safetensors file `ids` and writes `logits` [batch, tokens, vocabulary] and
/// `hidden_states.0` .. `hidden_states.n_layers` [batch, tokens, hidden], f32, to `out`. Returns batch and tokens.
///
/// `attention_mask`, if present, may mask the end of a row; what is written for masked positions means nothing.
///
/// # Errors
/// [`Error::Input`] naming file and field when ids, mask or lengths do not fit the model; as [`Model::forward`].
pub fn forward_file(model: &Model, ids: &Path, out: &Path) -> Result<[usize; 2]> {
    let file = SafeFile::open(ids)?;
    let (ids, shape) = read_ids(model, &file)?;
    check_mask(&file, shape)?;
    if file.get("token_type_ids").is_some() && file.read_integers("token_type_ids", ids.len())?.0.iter().any(|t| *t != 0) {
        return Err(InputError::new("token_type_ids", "other than 0", "0: the model has no token types")
            .file(file.path())
            .into());
    }
    let layout = model.layout(shape[1])?;
    let caches: Result<Vec<KvCache>> = (0..shape[0]).map(|_| KvCache::dense(&layout, Format::F32, model.device())).collect();
    let mut caches = caches?;
    let mut runs: Vec<Run> = ids.chunks(shape[1]).zip(&mut caches).map(|(ids, cache)| Run { ids, cache }).collect();
    let mut states = HiddenStates::default();
    let logits = model.forward(&mut runs, Logits::All, &mut states)?;
    let batched = |x: &Tensor| x.reshape(&[shape[0], shape[1], x.shape()[1]]);
    let mut tensors = vec![("logits".to_string(), Saved::tensor(&batched(&logits)?)?)];
    for (i, state) in states.0.iter().enumerate() {
        tensors.push((format!("hidden_states.{i}"), Saved::tensor(&batched(state)?)?));
    }
    save(out, &tensors)?;
    Ok(shape)
}

fn read_ids(model: &Model, file: &SafeFile) -> Result<(Vec<u32>, [usize; 2])> {
    let wrong = |field: &str, found: String, limit: String| Error::from(InputError::new(field, found, limit).file(file.path()));
    let config = model.config();
    let (ids, shape) = file.read_integers("input_ids", TOKENS)?;
    let limit = || format!("[batch, tokens], at least one and at most {} tokens", config.context);
    let [batch, tokens] =
        <[usize; 2]>::try_from(&*shape).map_err(|_| wrong("input_ids", format!("shape {shape:?}"), limit()))?;
    if batch == 0 || !(1..=config.context).contains(&tokens) {
        return Err(wrong("input_ids", format!("shape {shape:?}"), limit()));
    }
    let fits = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < config.vocab_size);
    if let Some(index) = ids.iter().position(|id| !fits(id)) {
        let field = format!("input_ids[{}, {}]", index / tokens, index % tokens);
        return Err(wrong(&field, ids[index].to_string(), format!("ids from 0 to {}", config.vocab_size - 1)));
    }
    Ok((ids.into_iter().map(|id| id as u32).collect(), [batch, tokens]))
}

/// Attention is causal, so tokens masked at the end of a row change nothing before them; a mask anywhere else would.
fn check_mask(file: &SafeFile, ids: [usize; 2]) -> Result<()> {
    let Some(info) = file.get("attention_mask") else { return Ok(()) };
    let wrong = |field: String, found: String, limit: &str| Error::from(InputError::new(field, found, limit).file(file.path()));
    if info.shape != ids {
        return Err(wrong("attention_mask".into(), format!("shape {:?}", info.shape), "the shape of input_ids"));
    }
    let (mask, _) = file.read_integers("attention_mask", ids[0] * ids[1])?;
    for (row, mask) in mask.chunks(ids[1]).enumerate() {
        if !mask.is_sorted_by(|a, b| a >= b) || !mask.iter().all(|m| matches!(m, 0 | 1)) {
            let hint = "ones, then zeros: padding at the end";
            return Err(wrong(format!("attention_mask[{row}]"), "another pattern".into(), hint));
        }
    }
    Ok(())
}

/// Keeps the hidden states of a pass that takes a single step.
#[derive(Default)]
struct HiddenStates(Vec<Tensor>);

impl Observer for HiddenStates {
    fn hidden(&mut self, _: usize, states: &Tensor) {
        self.0.push(states.clone());
    }
}
