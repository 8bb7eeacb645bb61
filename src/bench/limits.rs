//! How far kept keys and values may be from the exact ones: what tells a coarse cache from a broken one.

use crate::{
    cache::{BasisKind, Spec},
    coded::Format,
};

/// Above this a cache does no better than one that kept nothing.
const NOTHING_KEPT: f64 = 0.9999;

/// Largest relative error of rows kept at `rank` of `head_dim`. `step` is the part that quantizing the rows as they are
/// may have.
pub(super) fn kept(spec: &Spec, rank: usize, head_dim: usize, step: f64) -> f64 {
    if spec.is_dense() {
        return unit(spec.dense) + 1e-6;
    }
    let rounding = 3.0 * unit(spec.dense).max(unit(spec.latent)) + 1e-4;
    let limit = match spec.basis {
        BasisKind::Identity => step + rounding,
        // Another text may lie anywhere to a basis that was fixed before.
        BasisKind::Calibrated if rank < head_dim || spec.latent.is_quantized() => NOTHING_KEPT,
        // The best basis leaves least to gain where all directions weigh the same. A latent is no longer than its row.
        _ => (1.0 - rank as f64 / head_dim as f64).sqrt() + (rank as f64).sqrt() * half_step(spec.latent) + rounding,
    };
    limit.min(NOTHING_KEPT)
}

/// Largest relative error of rounding one number.
pub(super) fn unit(format: Format) -> f64 {
    match format {
        Format::F32 => 2f64.powi(-24),
        Format::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-11),
    }
}

/// Half a quantization step over what the codes of a row span: its largest magnitude, or from lowest to highest.
pub(super) fn half_step(format: Format) -> f64 {
    match format {
        Format::Int8 => 0.5 / 127.0,
        Format::Int4 => 0.5 / 7.0,
        Format::Int4Asym => 0.5 / 15.0,
        _ => 0.0,
    }
}
