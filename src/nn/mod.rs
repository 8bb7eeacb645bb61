//! Element-wise and row-wise operations of a transformer. Activations are f32; shapes are [rows, width].

mod cpu;
mod gpu;
mod params;

use crate::{Dtype, Error, Result, Tensor, device::Kind};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// x * Phi(x), by the tanh approximation of Hendrycks and Gimpel, "Gaussian error linear units", 2016.
    GeluTanh,
    /// x * Phi(x), by the error function.
    Gelu,
}

/// Rows `ids` of `table` [vocabulary, width], widened to f32: [ids, width].
///
/// # Errors
/// [`Error::Shape`] when an id is outside the table.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    const OP: &str = "nn::embedding";
    let [rows, width] = matrix(OP, "table", table)?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        return Err(Error::shape(OP, format!("id {id}"), format!("ids below {rows}")));
    }
    f32_only(OP, table)?;
    let mut out = Tensor::zeros(&[ids.len(), width], Dtype::F32, &table.device())?;
    match table.device().kind() {
        Kind::Cpu => cpu::embedding(table.slice()?, ids, out.slice_mut()?, width),
        _ => return Err(table.device().unsupported(OP)),
    }
    Ok(out)
}

/// x / sqrt(mean(x^2) + eps) * weight, by row (Zhang and Sennrich, "Root mean square layer normalization", 2019).
///
/// x is `[rows, width]` f32, weight `[width]` f32.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Dtype`] when the arguments do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    const OP: &str = "nn::rms_norm";
    let [rows, width] = matrix(OP, "x", x)?;
    vector(OP, "weight", weight, width)?;
    f32_only(OP, x)?;
    let mut out = Tensor::zeros(&[rows, width], Dtype::F32, &x.device())?;
    match x.device().kind() {
        Kind::Cpu => cpu::rms_norm(x.slice()?, weight.slice()?, eps, out.slice_mut()?),
        _ => return Err(x.device().unsupported(OP)),
    }
    Ok(out)
}

/// (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, by row (Ba, Kiros and Hinton, "Layer normalization", 2016).
///
/// x is `[rows, width]` f32, weight and bias `[width]` f32.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Dtype`] when the arguments do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    const OP: &str = "nn::layer_norm";
    let [rows, width] = matrix(OP, "x", x)?;
    vector(OP, "weight", weight, width)?;
    vector(OP, "bias", bias, width)?;
    f32_only(OP, x)?;
    let mut out = Tensor::zeros(&[rows, width], Dtype::F32, &x.device())?;
    match x.device().kind() {
        Kind::Cpu => cpu::layer_norm(x.slice()?, weight.slice()?, bias.slice()?, eps, out.slice_mut()?),
        _ => return Err(x.device().unsupported(OP)),
    }
    Ok(out)
}

/// x <- activation(x). x is f32 and the sole owner of its memory.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Dtype`] when x is shared or not f32.
pub fn activate(x: &mut Tensor, activation: Activation) -> Result<()> {
    const OP: &str = "nn::activate";
    match x.device().kind() {
        Kind::Cpu => cpu::activate(x.slice_mut()?, activation),
        _ => return Err(x.device().unsupported(OP)),
    }
    Ok(())
}

/// gate <- activation(gate) * up, the gated feed-forward of Shazeer, "GLU variants improve transformer", 2020.
///
/// Both are f32 of one shape; `gate` is the sole owner of its memory.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Dtype`] when the arguments do not fit.
pub fn activate_gated(gate: &mut Tensor, up: &Tensor, activation: Activation) -> Result<()> {
    const OP: &str = "nn::activate_gated";
    same_shape(OP, gate, up)?;
    match gate.device().kind() {
        Kind::Cpu => cpu::activate_gated(gate.slice_mut()?, up.slice()?, activation),
        _ => return Err(gate.device().unsupported(OP)),
    }
    Ok(())
}

/// x <- x + y. Both are contiguous f32 of one shape; x gets memory of its own first when it shares it.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Dtype`] when the arguments do not fit or have gaps; [`Error::Device`] when they are on
/// different devices, or there is no memory for a shared x.
pub fn add(x: &mut Tensor, y: &Tensor) -> Result<()> {
    const OP: &str = "nn::add";
    same_shape(OP, x, y)?;
    f32_only(OP, x)?;
    f32_only(OP, y)?;
    if x.device() != y.device() {
        let found = format!("{OP}: x on {}, y on {}", x.device(), y.device());
        return Err(Error::device(found, "move them to one device"));
    }
    x.unshare(OP)?;
    match x.device().kind() {
        Kind::Cpu => crate::device::simd::axpy(1.0, y.slice()?, x.slice_mut()?),
        _ => return gpu::add(OP, x, y),
    }
    Ok(())
}

fn f32_only(op: &'static str, x: &Tensor) -> Result<()> {
    if x.dtype() == Dtype::F32 {
        return Ok(());
    }
    Err(Error::Dtype { op, found: x.dtype(), expected: &[Dtype::F32] })
}

fn matrix(op: &'static str, name: &str, x: &Tensor) -> Result<[usize; 2]> {
    x.shape().try_into().map_err(|_| Error::shape(op, format!("{name} {:?}", x.shape()), "[rows, width]"))
}

fn vector(op: &'static str, name: &str, x: &Tensor, width: usize) -> Result<()> {
    if x.shape() == [width] {
        return Ok(());
    }
    Err(Error::shape(op, format!("{name} {:?}", x.shape()), format!("[{width}]")))
}

fn same_shape(op: &'static str, x: &Tensor, y: &Tensor) -> Result<()> {
    if x.shape() == y.shape() {
        return Ok(());
    }
    Err(Error::shape(op, format!("{:?} and {:?}", x.shape(), y.shape()), "one shape"))
}
