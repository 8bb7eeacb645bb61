//! Synthetic matrices whose singular values are known by a name and a condition.

use faer::{Mat, Scale};

use crate::philox::Stream;

/// How singular values fall from s_1 = 1 to s_rank = 1 / kappa, and beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// j to the power that kappa asks for.
    Power,
    /// By the same factor each time.
    Exponential,
    /// One, then 1 / kappa from the middle of those kept, then a tenth of that.
    Step,
    /// One alone, then 1 / kappa without end.
    Flat,
    /// A power of j, each value four times.
    Duplicates,
}

impl Shape {
    pub(super) const NAMES: [(&str, Self); 5] = [
        ("power-law", Self::Power),
        ("exponential", Self::Exponential),
        ("step", Self::Step),
        ("flat", Self::Flat),
        ("duplicates", Self::Duplicates),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, shape)| *shape == self).map_or("", |(name, _)| name)
    }

    /// Whether kappa = 1 makes something else of it than [`Shape::Flat`].
    pub(super) fn differs_at_one(self) -> bool {
        matches!(self, Self::Flat | Self::Step)
    }

    /// Singular value `j`, counted from zero.
    fn value(self, j: usize, rank: usize, kappa: f64) -> f64 {
        let power = |j: usize, last: usize| {
            let exponent = kappa.ln() / ((last + 1) as f64).ln().max(f64::MIN_POSITIVE);
            ((j + 1) as f64).powf(-exponent)
        };
        match self {
            Self::Power => power(j, rank - 1),
            Self::Exponential => kappa.powf(-(j as f64) / (rank - 1).max(1) as f64),
            Self::Step if j < rank.div_ceil(2) => 1.0,
            Self::Step => 1.0 / kappa / if j < rank { 1.0 } else { 10.0 },
            Self::Flat => {
                if j == 0 {
                    1.0
                } else {
                    1.0 / kappa
                }
            }
            Self::Duplicates => power(j / 4, (rank - 1) / 4),
        }
    }
}

/// A spectrum, and where its condition is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spectrum {
    pub(super) shape: Shape,
    /// s_1 / s_rank.
    pub(super) kappa: f64,
    pub(super) rank: usize,
}

impl Spectrum {
    /// A matrix [rows, cols] in random directions, its entries near one in magnitude at most.
    pub(super) fn matrix(&self, rows: usize, cols: usize, seed: u64) -> Vec<f32> {
        let short = rows.min(cols);
        let (left, right) = (orthonormal(seed, 0, rows, short), orthonormal(seed, 1, cols, short));
        let scaled = Mat::from_fn(rows, short, |i, j| left[(i, j)] * self.shape.value(j, self.rank, self.kappa));
        let product = Scale(((rows * cols) as f64).sqrt()) * (scaled * right.transpose());
        (0..rows * cols).map(|i| product[(i / cols, i % cols)] as f32).collect()
    }
}

/// An orthonormal basis of a space of random directions.
fn orthonormal(seed: u64, side: u64, rows: usize, columns: usize) -> Mat<f64> {
    let stream = Stream::new(seed, side);
    Mat::from_fn(rows, columns, |i, j| f64::from(stream.normal((i * columns + j) as u64))).qr().compute_thin_Q()
}
