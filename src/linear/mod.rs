//! Linear layers.

mod cpu;

use crate::{Dtype, Error, Result, Tensor, device::Kind};

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
        return Err(Error::device("linear::dense: arguments on different devices", "move them to one device"));
    }
    let bias = bias.map(Tensor::slice).transpose()?;
    match x.device().kind() {
        Kind::Cpu => cpu::dense(out.slice_mut()?, x.slice()?, weight.slice()?, bias, weight.shape()),
        _ => return Err(x.device().unsupported("linear::dense")),
    }
    Ok(())
}
