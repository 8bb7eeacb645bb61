//! Attention over keys and values in the form their cache keeps them.
//!
//! A sequence is a list of [`Part`]s in token order. Each side of a part holds rows: the keys or values themselves, or
//! latents A with a decoder D (and perhaps a mean), K ~ A D' + mean. Nothing is decoded ahead of the call:
//! - keys stored after RoPE: the decoder is absorbed into the query, q K' = (q D) A';
//! - keys stored before RoPE: a tile of keys is decoded, rotated and used;
//! - values: accumulated in latent space and decoded once a part, sum p V = (sum p A) D' + mean sum p.
//!
//! Partial results of parts are combined by log-sum-exp.

mod cpu;
mod gpu;
mod params;

use crate::{Device, Dtype, Error, Result, Scratch, Tensor, coded::Coded, device::Kind, rope::Rope};

const OP: &str = "attention";

/// What turns latents back into rows of head_dim elements.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// D: [n_kv_heads, head_dim, rank], floating-point.
    pub matrix: Tensor,
    /// What decoded rows are added to: [n_kv_heads, head_dim] f32.
    pub mean: Option<Tensor>,
}

/// The keys or the values of one part.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// [n_kv_heads, tokens, rank], or [n_kv_heads, tokens, head_dim] without a decoder.
    pub rows: &'a Coded,
    /// How rows are decoded; `None` when they are the keys or values themselves.
    pub decoder: Option<&'a Decoder>,
}

/// Consecutive tokens of a sequence that are kept alike.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Keys.
    pub keys: Side<'a>,
    /// Values.
    pub values: Side<'a>,
}

/// One sequence of a ragged batch.
#[derive(Clone, Debug, Default)]
pub struct Sequence<'a> {
    /// Everything cached, oldest first; the queries' own keys and values are the last rows.
    pub parts: Vec<Part<'a>>,
    /// Queries of this sequence; they stand at its last positions.
    pub queries: usize,
}

impl Sequence<'_> {
    fn tokens(&self) -> usize {
        self.parts.iter().map(|part| part.keys.rows.tokens()).sum()
    }
}

impl Decoder {
    /// A copy on `device`, or the decoder itself when it is there already.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had or a device failed.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mean = self.mean.as_ref().map(|mean| mean.to_device(device)).transpose()?;
        Ok(Self { matrix: self.matrix.to_device(device)?, mean })
    }
}

/// What holds for every sequence of a call.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    /// Factor on q . k, usually 1 / sqrt(head_dim).
    pub scale: f32,
    /// Rotary tables; `None` for models without RoPE.
    pub rope: Option<&'a Rope>,
    /// Whether cached keys were rotated before they were stored. Queries never are.
    pub keys_rotated: bool,
}

/// Causal softmax attention of `q` [queries, n_heads, head_dim] f32 over cached sequences.
///
/// Queries of all sequences lie one after the other; the result has q's shape. Query heads share key-value heads in
/// runs of n_heads / n_kv_heads. Scores are f32, sums are taken in an order that depends on the sequence alone, so a
/// sequence has the same bits alone and in any batch.
///
/// On `emulated` and `cuda` so far: one query a sequence (decode); keys rotated before they were stored, or no RoPE; rows of
/// at most 128 elements in bf16 or int8, keys and values of a part alike; decoders f32, f16 or bf16. Queries and
/// probabilities keep 16 bits there. An infinity among the rows makes NaN.
///
/// # Errors
/// [`Error::Shape`] when heads, widths, ranks or lengths do not fit; [`Error::Dtype`] when q is not f32, or rows are in a
/// format that the device has no kernel for; [`Error::Device`] when the arguments are on different devices, for what the
/// device has no kernel for, or when memory runs out.
pub fn attend(q: &Tensor, sequences: &[Sequence<'_>], params: &Params<'_>) -> Result<Tensor> {
    let mut out = Tensor::zeros(q.shape(), Dtype::F32, &q.device())?;
    attend_into(&mut out, q, sequences, params, &mut Scratch::new(&q.device()))?;
    Ok(out)
}

/// [`attend`] into `out`, f32 of q's shape, whose old content is lost, with working memory from `scratch`.
/// On devices the host writes the work lists of each call, so it cannot be captured in a graph yet.
///
/// # Errors
/// As [`attend`]; [`Error::Shape`] as well when `out` has another shape or shares its memory, [`Error::Device`] when
/// `scratch` is of another device.
pub fn attend_into(
    out: &mut Tensor,
    q: &Tensor,
    sequences: &[Sequence<'_>],
    params: &Params<'_>,
    scratch: &mut Scratch,
) -> Result<()> {
    check(q, sequences, params)?;
    check_out(out, q)?;
    match q.device().kind() {
        Kind::Cpu => cpu::attend(out.slice_mut()?, q, sequences, params),
        _ => gpu::attend(out, q, sequences, params, scratch),
    }
}

/// Bytes of scratch that [`attend_into`] takes for these arguments. On the CPU none: its working memory is short-lived.
///
/// # Errors
/// As [`attend`].
pub fn scratch_bytes(q: &Tensor, sequences: &[Sequence<'_>], params: &Params<'_>) -> Result<usize> {
    check(q, sequences, params)?;
    match q.device().kind() {
        Kind::Cpu => Ok(0),
        _ => gpu::scratch_bytes(q, sequences, params),
    }
}

fn check_out(out: &Tensor, q: &Tensor) -> Result<()> {
    if out.shape() != q.shape() || !out.is_contiguous() || out.is_shared() {
        let expected = format!("{:?}, contiguous, the sole owner of its memory", q.shape());
        return Err(Error::shape(OP, format!("out {:?} with strides {:?}", out.shape(), out.strides()), expected));
    }
    if out.dtype() != Dtype::F32 {
        return Err(Error::Dtype { op: OP, found: out.dtype(), expected: &[Dtype::F32] });
    }
    check_device("out", &out.device(), q)
}

/// Refuses an argument that is not where the queries are.
fn check_device(name: &str, found: &Device, q: &Tensor) -> Result<()> {
    if *found == q.device() {
        return Ok(());
    }
    Err(Error::device(format!("{OP}: {name} on {found}, q on {}", q.device()), "move them to one device"))
}

fn check(q: &Tensor, sequences: &[Sequence<'_>], params: &Params<'_>) -> Result<()> {
    let &[queries, _, head_dim] = q.shape() else {
        return Err(Error::shape(OP, format!("q {:?}", q.shape()), "[queries, n_heads, head_dim]"));
    };
    if head_dim == 0 {
        return Err(Error::shape(OP, format!("q {:?}", q.shape()), "a head_dim of at least 1"));
    }
    if q.dtype() != Dtype::F32 {
        return Err(Error::Dtype { op: OP, found: q.dtype(), expected: &[Dtype::F32] });
    }
    if sequences.iter().map(|s| s.queries).sum::<usize>() != queries {
        return Err(Error::shape(OP, format!("q {:?}", q.shape()), "as many queries as the sequences have"));
    }
    if let Some(rope) = params.rope {
        check_device("rope", &rope.device(), q)?;
    }
    let mut heads = None;
    for sequence in sequences {
        if sequence.queries > sequence.tokens() {
            let found = format!("{} queries over {} tokens", sequence.queries, sequence.tokens());
            return Err(Error::shape(OP, found, "a key for every query"));
        }
        let fits = params.rope.is_none_or(|rope| 2 * rope.pairs() == head_dim && sequence.tokens() <= rope.positions());
        if !fits {
            let found = format!("{} tokens of head_dim {head_dim}", sequence.tokens());
            return Err(Error::shape(OP, found, "rotary tables of that head_dim and at least so many positions"));
        }
        for part in &sequence.parts {
            let n_kv_heads = *heads.get_or_insert(part.keys.rows.heads());
            check_part(part, q, n_kv_heads)?;
        }
    }
    Ok(())
}

fn check_part(part: &Part<'_>, q: &Tensor, n_kv_heads: usize) -> Result<()> {
    let (n_heads, head_dim) = (q.shape()[1], q.shape()[2]);
    if part.keys.rows.tokens() != part.values.rows.tokens() {
        let found = format!("{} keys and {} values", part.keys.rows.tokens(), part.values.rows.tokens());
        return Err(Error::shape(OP, found, "as many keys as values in a part"));
    }
    for side in [part.keys, part.values] {
        check_side_device(side, q)?;
        let heads = side.rows.heads();
        if heads != n_kv_heads || heads == 0 || !n_heads.is_multiple_of(heads) {
            return Err(Error::shape(
                OP,
                format!("{heads} key-value heads for {n_heads} heads"),
                "one count that divides n_heads",
            ));
        }
        let decoded = match side.decoder {
            None => vec![side.rows.width()],
            Some(decoder) => decoder.matrix.shape().to_vec(),
        };
        let expected = if side.decoder.is_some() { vec![heads, head_dim, side.rows.width()] } else { vec![head_dim] };
        if decoded != expected {
            return Err(Error::shape(OP, format!("decoder or width {decoded:?}"), format!("{expected:?}")));
        }
        if let Some(mean) = side.decoder.and_then(|decoder| decoder.mean.as_ref())
            && mean.shape() != [heads, head_dim]
        {
            return Err(Error::shape(OP, format!("mean {:?}", mean.shape()), format!("[{heads}, {head_dim}]")));
        }
    }
    Ok(())
}

fn check_side_device(side: Side<'_>, q: &Tensor) -> Result<()> {
    check_device("keys or values", &side.rows.device(), q)?;
    let Some(decoder) = side.decoder else { return Ok(()) };
    check_device("decoder", &decoder.matrix.device(), q)?;
    decoder.mean.as_ref().map_or(Ok(()), |mean| check_device("mean", &mean.device(), q))
}
