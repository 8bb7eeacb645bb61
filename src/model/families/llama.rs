//! Llama: configuration and tensor names.

use std::f64::consts::TAU;

use super::Family;
use crate::{
    Device, Result,
    model::{
        config::{CONTEXT, Config, Fields, HEADS, LAYERS, Positions, VOCABULARY, WIDTH},
        files::Checkpoint,
        weights::{Block, Linear, Mlp, Norm, Weights},
    },
    rope::Rope,
};

pub(super) fn config(fields: &Fields) -> Result<Config> {
    let hidden_size = fields.size("hidden_size", WIDTH, None)?;
    let n_heads = fields.size("num_attention_heads", HEADS, None)?;
    if !fields.has("head_dim") && !hidden_size.is_multiple_of(n_heads) {
        let limit = format!("a divisor of hidden_size {hidden_size}, or a head_dim");
        return Err(fields.wrong("num_attention_heads", n_heads, limit));
    }
    let head_dim = fields.size("head_dim", 1..=4096, Some(hidden_size / n_heads))?;
    Ok(Config {
        family: Family::Llama,
        vocab_size: fields.size("vocab_size", VOCABULARY, None)?,
        hidden_size,
        n_layers: fields.size("num_hidden_layers", LAYERS, None)?,
        n_heads,
        n_kv_heads: fields.size("num_key_value_heads", HEADS, Some(n_heads))?,
        head_dim,
        mlp_size: fields.size("intermediate_size", WIDTH, None)?,
        context: fields.size("max_position_embeddings", CONTEXT, Some(2048))?,
        norm_eps: fields.positive("rms_norm_eps", Some(1e-6))? as f32,
        activation: fields.activation("hidden_act", "silu")?,
        positions: Positions::Rotary { inverse_frequencies: inverse_frequencies(fields, head_dim)? },
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        attention_bias: fields.flag("attention_bias", false)?,
        mlp_bias: fields.flag("mlp_bias", false)?,
        tied_head: fields.flag("tie_word_embeddings", false)?,
        stop_ids: fields.ids("eos_token_id")?,
    })
}

/// Angles per position; a base or factor far from any in use would make them infinite.
fn inverse_frequencies(fields: &Fields, head_dim: usize) -> Result<Vec<f32>> {
    let frequencies = stretched_frequencies(fields, head_dim)?;
    match frequencies.iter().find(|frequency| !frequency.is_finite()) {
        Some(found) => Err(fields.wrong("rope_theta", format!("an angle of {found} per position"), "finite angles")),
        None => Ok(frequencies),
    }
}

/// Angles per position, stretched as `rope_parameters` (transformers 5) or `rope_scaling` (4) say.
fn stretched_frequencies(fields: &Fields, head_dim: usize) -> Result<Vec<f32>> {
    if !head_dim.is_multiple_of(2) {
        return Err(fields.wrong("head_dim", head_dim, "an even number, since halves of a head rotate together"));
    }
    let parameters = fields.object("rope_parameters")?;
    let theta = match &parameters {
        Some(parameters) if parameters.has("rope_theta") => parameters.positive("rope_theta", None)?,
        _ => fields.positive("rope_theta", Some(10_000.0))?,
    };
    for place in parameters.iter().chain([fields]) {
        if place.has("partial_rotary_factor") && place.positive("partial_rotary_factor", None)? != 1.0 {
            return Err(place.wrong("partial_rotary_factor", place.positive("partial_rotary_factor", None)?, "1"));
        }
    }
    let plain = Rope::inverse_frequencies(head_dim, theta as f32);
    let Some(scaling) = parameters.map_or_else(|| fields.object("rope_scaling"), |p| Ok(Some(p)))? else {
        return Ok(plain);
    };
    let key = if scaling.has("rope_type") { "rope_type" } else { "type" };
    match scaling.text(key)? {
        None | Some("default") => Ok(plain),
        Some("linear") => {
            let factor = scaling.positive("factor", None)?;
            Ok(plain.iter().map(|f| (f64::from(*f) / factor) as f32).collect())
        }
        Some("llama3") => llama3(&scaling, &plain),
        Some(other) => Err(scaling.wrong(key, format!("{other:?}"), "default, linear or llama3")),
    }
}

/// Llama 3.1's stretch: waves longer than the original context slow down by `factor`, short ones stay, those between
/// are interpolated.
fn llama3(scaling: &Fields, plain: &[f32]) -> Result<Vec<f32>> {
    let factor = scaling.positive("factor", None)?;
    let low = scaling.positive("low_freq_factor", None)?;
    let high = scaling.positive("high_freq_factor", None)?;
    let original = scaling.size("original_max_position_embeddings", CONTEXT, None)? as f64;
    if high <= low {
        return Err(scaling.wrong("high_freq_factor", high, format!("a number above low_freq_factor {low}")));
    }
    let stretch = |frequency: &f32| {
        let frequency = f64::from(*frequency);
        let turns = original * frequency / TAU;
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        ((1.0 - kept) * frequency / factor + kept * frequency) as f32
    };
    Ok(plain.iter().map(stretch).collect())
}

pub(super) fn weights(config: &Config, checkpoint: &Checkpoint, device: &Device) -> Result<Weights> {
    let prefix = if checkpoint.contains("embed_tokens.weight") { "" } else { "model." };
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let embedding = checkpoint.tensor(&format!("{prefix}embed_tokens.weight"), &[vocab, hidden], device)?;
    let norm = |name: &str| -> Result<Norm> {
        Ok(Norm::Rms { weight: checkpoint.tensor(&format!("{prefix}{name}.weight"), &[hidden], device)?, eps: config.norm_eps })
    };
    let linear = |name: &str, n: usize, k: usize, biased: bool| -> Result<Linear> {
        let weight = checkpoint.tensor(&format!("{prefix}{name}.weight"), &[n, k], device)?;
        let bias = biased.then(|| checkpoint.tensor(&format!("{prefix}{name}.bias"), &[n], device)).transpose()?;
        Ok(Linear { weight, bias })
    };
    let block = |layer: usize| -> Result<Block> {
        let at = |name: &str| format!("layers.{layer}.{name}");
        let (queries, keys, mlp) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim, config.mlp_size);
        Ok(Block {
            attention_norm: norm(&at("input_layernorm"))?,
            q: linear(&at("self_attn.q_proj"), queries, hidden, config.attention_bias)?,
            k: linear(&at("self_attn.k_proj"), keys, hidden, config.attention_bias)?,
            v: linear(&at("self_attn.v_proj"), keys, hidden, config.attention_bias)?,
            o: linear(&at("self_attn.o_proj"), hidden, queries, config.attention_bias)?,
            mlp_norm: norm(&at("post_attention_layernorm"))?,
            mlp: Mlp {
                gate: Some(linear(&at("mlp.gate_proj"), mlp, hidden, config.mlp_bias)?),
                up: linear(&at("mlp.up_proj"), mlp, hidden, config.mlp_bias)?,
                down: linear(&at("mlp.down_proj"), hidden, mlp, config.mlp_bias)?,
            },
        })
    };
    let blocks = (0..config.n_layers).map(block).collect::<Result<Vec<_>>>()?;
    let head = match config.tied_head {
        true => embedding.clone(),
        false => checkpoint.tensor("lm_head.weight", &[vocab, hidden], device)?,
    };
    Ok(Weights { embedding, positions: None, blocks, norm: norm("norm")?, head })
}
