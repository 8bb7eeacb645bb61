//! GPT-2: configuration and tensor names, with and without the `transformer.` prefix.

use super::Family;
use crate::{
    Device, Result, Tensor,
    model::{
        config::{CONTEXT, Config, Fields, HEADS, LAYERS, Positions, VOCABULARY, WIDTH},
        files::Checkpoint,
        weights::{Block, Linear, Mlp, Norm, Weights},
    },
};

pub(super) fn config(fields: &Fields) -> Result<Config> {
    fields.must_be("add_cross_attention", false)?;
    fields.must_be("scale_attn_by_inverse_layer_idx", false)?;
    let hidden_size = fields.size("n_embd", WIDTH, Some(768))?;
    let n_heads = fields.size("n_head", HEADS, Some(12))?;
    if !hidden_size.is_multiple_of(n_heads) {
        return Err(fields.wrong("n_head", n_heads, format!("a divisor of n_embd {hidden_size}")));
    }
    let head_dim = hidden_size / n_heads;
    let scaled = fields.flag("scale_attn_weights", true)?;
    Ok(Config {
        family: Family::Gpt2,
        vocab_size: fields.size("vocab_size", VOCABULARY, Some(50257))?,
        hidden_size,
        n_layers: fields.size("n_layer", LAYERS, Some(12))?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        mlp_size: fields.size("n_inner", WIDTH, Some(4 * hidden_size))?,
        context: fields.size("n_positions", CONTEXT, Some(1024))?,
        norm_eps: fields.positive("layer_norm_epsilon", Some(1e-5))? as f32,
        activation: fields.activation("activation_function", "gelu_new")?,
        positions: Positions::Learned,
        attention_scale: if scaled { 1.0 / (head_dim as f32).sqrt() } else { 1.0 },
        attention_bias: true,
        mlp_bias: true,
        tied_head: fields.flag("tie_word_embeddings", true)?,
        stop_ids: fields.ids("eos_token_id")?,
    })
}

pub(super) fn weights(config: &Config, checkpoint: &Checkpoint, device: &Device) -> Result<Weights> {
    let prefix = if checkpoint.contains("wte.weight") { "" } else { "transformer." };
    let hidden = config.hidden_size;
    let tensor = |name: &str, shape: &[usize]| checkpoint.tensor(&format!("{prefix}{name}"), shape, device);
    let norm = |name: &str| -> Result<Norm> {
        let (weight, bias) = (tensor(&format!("{name}.weight"), &[hidden])?, tensor(&format!("{name}.bias"), &[hidden])?);
        Ok(Norm::Layer { weight, bias, eps: config.norm_eps })
    };
    // The file holds [k, n]; linear layers take [n, k].
    let linear = |name: &str, n: usize, k: usize| -> Result<Linear> {
        let weight = tensor(&format!("{name}.weight"), &[k, n])?.transpose(0, 1)?.contiguous()?;
        let weight = Tensor::from_slice(weight.slice::<f32>()?, &[n, k], device)?;
        Ok(Linear { weight, bias: Some(tensor(&format!("{name}.bias"), &[n])?) })
    };
    let block = |layer: usize| -> Result<Block> {
        let at = |name: &str| format!("h.{layer}.{name}");
        let qkv = linear(&at("attn.c_attn"), 3 * hidden, hidden)?;
        Ok(Block {
            attention_norm: norm(&at("ln_1"))?,
            q: qkv.rows(0, hidden)?,
            k: qkv.rows(hidden, hidden)?,
            v: qkv.rows(2 * hidden, hidden)?,
            o: linear(&at("attn.c_proj"), hidden, hidden)?,
            mlp_norm: norm(&at("ln_2"))?,
            mlp: Mlp {
                gate: None,
                up: linear(&at("mlp.c_fc"), config.mlp_size, hidden)?,
                down: linear(&at("mlp.c_proj"), hidden, config.mlp_size)?,
            },
        })
    };
    let embedding = tensor("wte.weight", &[config.vocab_size, hidden])?;
    let positions = Some(tensor("wpe.weight", &[config.context, hidden])?);
    let blocks = (0..config.n_layers).map(block).collect::<Result<Vec<_>>>()?;
    let head = match config.tied_head {
        true => embedding.clone(),
        false => checkpoint.tensor("lm_head.weight", &[config.vocab_size, hidden], device)?,
    };
    Ok(Weights { embedding, positions, blocks, norm: norm("ln_f")?, head })
}
