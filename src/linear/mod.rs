//! Linear layers.

mod cpu;
mod gpu;
mod params;

use crate::{Dtype, Error, Result, Scratch, Tensor, device::Kind};

const FACTORIZED: &str = "linear::factorized";

/// y = x W' (+ bias): x `[rows, k]`, weight `[n, k]`, bias `[n]`, all f32, giving `[rows, n]` f32.
///
/// Few rows are dot products and more are a matrix product, which sum in different orders: the last bits of a row can
/// depend on how many rows there are, and outside of a worker on how many threads share them.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Dtype`] when the arguments do not fit; [`Error::Device`] when memory runs out.
pub fn dense(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let rows = x.shape().first().copied().unwrap_or(0);
    let n = weight.shape().first().copied().unwrap_or(0);
    let mut out = Tensor::zeros(&[rows, n], Dtype::F32, &x.device())?;
    dense_into(&mut out, x, weight, bias)?;
    Ok(out)
}

/// [`dense`] into `out` [rows, n] f32, whose old content is lost. On the CPU no scratch is needed.
///
/// # Errors
/// As [`dense`]; [`Error::Shape`] as well when `out` shares its memory.
pub fn dense_into(out: &mut Tensor, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    let found = || {
        let bias = bias.map_or(String::new(), |b| format!(", bias {:?}", b.shape()));
        format!("x {:?}, weight {:?}{bias}, out {:?}", x.shape(), weight.shape(), out.shape())
    };
    let fits = matches!((x.shape(), weight.shape(), out.shape()), ([m, k], [n, l], [a, b]) if k == l && m == a && n == b)
        && bias.is_none_or(|b| b.shape() == [weight.shape()[0]]);
    if !fits {
        return Err(Error::shape("linear::dense", found(), "x [rows, k], weight [n, k], bias [n], out [rows, n]"));
    }
    if x.device() != weight.device() || x.device() != out.device() {
        return Err(apart("linear::dense"));
    }
    if x.device().kind() != Kind::Cpu {
        return Err(x.device().unsupported("linear::dense"));
    }
    if let Some(other) = [x, weight, &*out].into_iter().chain(bias).find(|tensor| tensor.dtype() != Dtype::F32) {
        return Err(Error::Dtype { op: "linear::dense", found: other.dtype(), expected: &[Dtype::F32] });
    }
    let bias = bias.map(Tensor::slice).transpose()?;
    cpu::dense(out.slice_mut()?, x.slice()?, weight.slice()?, bias, weight.shape());
    Ok(())
}

/// y = (x B') A' (+ bias), a linear layer in two factors: x `[rows, k]` f32, b `[r, k]` and a `[n, r]` f32, f16 or bf16 (both
/// alike), bias `[n]` f32, giving `[rows, n]` f32.
///
/// Arithmetic is f32. On `emulated` and `cuda` a row has the same bits alone and in any batch; on the CPU as in [`dense`].
///
/// # Errors
/// [`Error::Shape`] or [`Error::Dtype`] when the arguments do not fit or have gaps, and off the CPU for more than 524280
/// rows or 2^30 columns, ranks or outputs; [`Error::Device`] when they are on different devices or memory runs out.
pub fn factorized(x: &Tensor, b: &Tensor, a: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let rows = x.shape().first().copied().unwrap_or(0);
    let n = a.shape().first().copied().unwrap_or(0);
    let mut out = Tensor::zeros(&[rows, n], Dtype::F32, &x.device())?;
    factorized_into(&mut out, x, b, a, bias, &mut Scratch::new(&x.device()))?;
    Ok(out)
}

/// [`factorized`] into `out` [rows, n] f32, whose old content is lost, with working memory from `scratch`.
///
/// # Errors
/// As [`factorized`]; [`Error::Shape`] as well when `out` shares its memory, [`Error::Device`] when `scratch` is of another
/// device.
pub fn factorized_into(
    out: &mut Tensor,
    x: &Tensor,
    b: &Tensor,
    a: &Tensor,
    bias: Option<&Tensor>,
    scratch: &mut Scratch,
) -> Result<()> {
    check_factors(x, b, a)?;
    check_ends(out, x, a, bias)?;
    match x.device().kind() {
        Kind::Cpu => cpu::factorized(out, x, b, a, bias, scratch),
        _ => gpu::factorized(out, x, b, a, bias, scratch),
    }
}

/// Bytes of scratch that [`factorized_into`] takes.
///
/// # Errors
/// As [`factorized`].
pub fn factorized_scratch_bytes(x: &Tensor, b: &Tensor, a: &Tensor) -> Result<usize> {
    check_factors(x, b, a)?;
    match x.device().kind() {
        Kind::Cpu => Ok(cpu::factorized_scratch(x, b, a) * size_of::<f32>()),
        _ => gpu::factorized_scratch(x, b, a),
    }
}

fn check_factors(x: &Tensor, b: &Tensor, a: &Tensor) -> Result<()> {
    const FACTORS: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];
    let fits = matches!((x.shape(), b.shape(), a.shape()), ([_, k], [r, l], [_, s]) if k == l && r == s);
    if !fits || ![x, b, a].into_iter().all(Tensor::is_contiguous) {
        let found = format!("x {:?}, b {:?}, a {:?}", x.shape(), b.shape(), a.shape());
        return Err(Error::shape(FACTORIZED, found, "contiguous x [rows, k], b [r, k], a [n, r]"));
    }
    for (tensor, expected) in [(x, &FACTORS[..1]), (b, FACTORS), (a, FACTORS)] {
        if !expected.contains(&tensor.dtype()) {
            return Err(Error::Dtype { op: FACTORIZED, found: tensor.dtype(), expected });
        }
    }
    if b.dtype() != a.dtype() {
        let found = format!("b in {}, a in {}", b.dtype(), a.dtype());
        return Err(Error::shape(FACTORIZED, found, "both factors in one dtype"));
    }
    if x.device() != b.device() || x.device() != a.device() {
        return Err(apart(FACTORIZED));
    }
    Ok(())
}

/// The arguments that only the second product sees.
fn check_ends(out: &Tensor, x: &Tensor, a: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    let (rows, n) = (x.shape()[0], a.shape()[0]);
    if out.is_shared() {
        return Err(Error::shape(FACTORIZED, "out shares its memory", "a sole owner"));
    }
    let ends = [(Some(out), vec![rows, n]), (bias, vec![n])];
    for (tensor, shape) in ends.iter().filter_map(|(tensor, shape)| tensor.map(|tensor| (tensor, shape))) {
        if tensor.shape() != shape || !tensor.is_contiguous() {
            let found = format!("out or bias {:?}", tensor.shape());
            return Err(Error::shape(FACTORIZED, found, format!("a contiguous {shape:?}")));
        }
        if tensor.dtype() != Dtype::F32 {
            return Err(Error::Dtype { op: FACTORIZED, found: tensor.dtype(), expected: &[Dtype::F32] });
        }
        if tensor.device() != x.device() {
            return Err(apart(FACTORIZED));
        }
    }
    Ok(())
}

fn apart(op: &str) -> Error {
    Error::device(format!("{op}: arguments on different devices"), "move them to one device")
}
