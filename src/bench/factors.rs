//! Truncated factorizations held against f64.

use faer::{Mat, MatRef};
use rayon::prelude::*;

use super::{data::Batch, oracle::worst_of};
use crate::{
    Result, Tensor,
    svd::{Info, Svd, Verdict},
};

/// What one matrix came out as. Norms are Frobenius norms.
pub(super) struct Factors {
    pub(super) rank: usize,
    pub(super) info: Info,
    /// Norm of the matrix; NaN when it is not finite.
    pub(super) norm: f64,
    /// ||A - U S V'|| / ||A||, or the numerator alone for a matrix of zeros.
    pub(super) relative: f64,
    /// The least that this could be.
    pub(super) optimum: f64,
    /// Largest entry of U'U - 1 and V'V - 1.
    pub(super) orthogonality: f64,
    /// ||U'U - 1|| and ||V'V - 1||.
    pub(super) skew: [f64; 2],
    /// ||A V - U S|| / ||A||.
    pub(super) residual: f64,
    /// Largest difference of a singular value, over the largest one.
    pub(super) values: f64,
    /// s_1 / s_rank by the oracle.
    pub(super) kappa: f64,
    /// Whether singular values descend.
    pub(super) descends: bool,
}

impl Factors {
    /// Of every matrix of a batch.
    pub(super) fn all(svd: &Svd, batch: &Batch) -> Result<Vec<Self>> {
        let (u, s, v) = (svd.u.to_f32_vec()?, svd.s.to_f32_vec()?, svd.v.to_f32_vec()?);
        let verdicts = svd.verdicts()?;
        let part = |tensor: &Tensor, data: &[f32], i: usize| {
            let &[_, rows, width] = tensor.shape() else { return Mat::new() };
            widened(&data[i * rows * width..][..rows * width], rows, width).subcols(0, verdicts[i].rank).to_owned()
        };
        let one = |i: usize| {
            let width = s.len() / verdicts.len();
            let s: Vec<f64> = s[i * width..][..verdicts[i].rank].iter().map(|s| f64::from(*s)).collect();
            Self::one(batch, i, verdicts[i], &part(&svd.u, &u, i), &s, &part(&svd.v, &v, i))
        };
        Ok((0..verdicts.len()).into_par_iter().map(one).collect())
    }

    fn one(batch: &Batch, i: usize, verdict: Verdict, u: &Mat<f64>, s: &[f64], v: &Mat<f64>) -> Self {
        let [_, rows, cols] = batch.dimensions();
        let (rank, norm, spectrum) = (verdict.rank, batch.norms[i], &batch.spectra[i]);
        let a = widened(&batch.wide[i * rows * cols..][..rows * cols], rows, cols);
        let scaled = Mat::from_fn(rows, rank, |row, k| u[(row, k)] * s[k]);
        let over = |error: f64, whole: f64| if whole > 0.0 { error / whole } else { error };
        let first = spectrum.first().copied().unwrap_or(f64::NAN);
        let last = rank.checked_sub(1).and_then(|last| spectrum.get(last)).copied().unwrap_or(f64::NAN);
        let off = [u, v].map(off_identity);
        Self {
            rank,
            info: verdict.info,
            norm,
            relative: over((&a - &scaled * v.transpose()).norm_l2(), norm),
            optimum: batch.optimum(i, rank),
            orthogonality: worst_of(off.iter().map(|off| off.norm_max())),
            skew: off.map(|off| off.norm_l2()),
            residual: over((&a * v - &scaled).norm_l2(), norm),
            values: over(worst_of(s.iter().zip(spectrum).map(|(s, exact)| (s - exact).abs())), first),
            kappa: first / last,
            descends: s.is_sorted_by(|a, b| a >= b),
        }
    }

    /// Whether the result says that something is wrong with this matrix.
    pub(super) fn is_marked(&self) -> bool {
        matches!(self.info, Info::NonFinite | Info::Stuck)
    }

    /// Error over the least possible one. Where that is below what f32 factors of `columns` columns have by rounding alone,
    /// as at full rank, the error is held against the rounding instead.
    pub(super) fn optimal_ratio(&self, columns: usize) -> f64 {
        let rounding = 8.0 * (columns as f64).sqrt() * f64::from(f32::EPSILON);
        if self.optimum > rounding { self.relative / self.optimum } else { (self.relative / rounding).max(1.0) }
    }
}

fn widened(data: &[f32], rows: usize, cols: usize) -> Mat<f64> {
    let view = MatRef::from_row_major_slice(data, rows, cols);
    Mat::from_fn(rows, cols, |i, j| f64::from(view[(i, j)]))
}

/// Q'Q - 1.
fn off_identity(q: &Mat<f64>) -> Mat<f64> {
    q.transpose() * q - Mat::<f64>::identity(q.ncols(), q.ncols())
}
