//! Batched truncated SVD.

use faer::MatRef;

use crate::{Error, Result, Tensor};

/// How many columns to keep.
#[derive(Clone, Copy, Debug)]
pub enum Rank {
    /// This many.
    Fixed(usize),
}

/// Nothing to choose yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {}

/// Right singular vectors [batch, n, r] f32.
#[derive(Debug)]
pub struct Svd {
    /// V.
    pub v: Tensor,
}

/// The truncated SVD of a [batch, m, n] f32.
///
/// # Errors
/// [`Error::Shape`], [`Error::Numeric`].
pub fn truncated(a: &Tensor, rank: Rank, _options: &Options) -> Result<Svd> {
    let &[batch, m, n] = a.shape() else { return Err(Error::shape("svd", format!("{:?}", a.shape()), "[batch, m, n]")) };
    let Rank::Fixed(r) = rank;
    let mut v = Vec::with_capacity(batch * n * r);
    for a in a.to_f32_vec()?.chunks_exact(m * n) {
        let svd = MatRef::from_row_major_slice(a, m, n)
            .thin_svd()
            .map_err(|_| Error::Numeric { op: "svd", what: "no convergence".into() })?;
        v.extend((0..n).flat_map(|i| (0..r).map(move |j| (i, j))).map(|(i, j)| svd.V()[(i, j)]));
    }
    Ok(Svd { v: Tensor::from_slice(&v, &[batch, n, r], &a.device())? })
}
