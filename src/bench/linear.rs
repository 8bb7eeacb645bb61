//! Cases of linear layers without bias, y = x W': x m x k, W n x k, all seeded normal numbers.
//!
//! Verified element by element against f64 over the same weights: |y - exact| is held against the sum of magnitudes that
//! the element adds up. The rival, on the CPU alone, is our own dense f32 layer of the same n x k over the same rows.
//!
//! Work of a call with weights of element size e: bytes = 4 m k + 4 m n and the weights, n k e when dense and
//! rank (n + k) e when factorized; flops = 2 m n k and 2 m rank (n + k).

use rayon::prelude::*;

use super::{
    Case, Line, Prepared, Request, Verdict, Work,
    data::{self, Inputs},
    oracle::worst_of,
    timing::Side,
};
use crate::{Dtype, Result, Scratch, Tensor, device::Kind, linear, philox::Stream};

/// How weights may be kept: `--format-of-weights`.
pub const FORMATS: [&str; 8] = ["dense", "factorized", "bitmap", "delta", "csr", "2:4", "int8", "int4"];
/// Those that keep as many elements as one asks for.
const SPARSE: [&str; 3] = ["bitmap", "delta", "csr"];
/// The largest m, n, k and rank.
const MOST: usize = 1 << 24;
/// Largest error of an element over the sum of the magnitudes that it adds up, in f32 arithmetic.
const LIMIT: f64 = 64.0 * f32::EPSILON as f64;

/// What to sweep over. `None` is what comes natural.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Rows of the input.
    pub m: Option<Vec<usize>>,
    /// Rows of the weights: elements of an output.
    pub n: Option<Vec<usize>>,
    /// Columns of the weights: elements of an input.
    pub k: Option<Vec<usize>>,
    /// Ranks of factorized weights.
    pub rank: Option<Vec<usize>>,
    /// How weights are kept, some of [`FORMATS`].
    pub formats: Option<Vec<&'static str>>,
    /// Shares of the elements that sparse weights keep.
    pub density: Option<Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    Dense,
    Factorized {
        rank: usize,
    },
    /// A format that there is no layer for.
    Unbuilt {
        format: &'static str,
        density: Option<f64>,
    },
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    m: usize,
    n: usize,
    k: usize,
    kept: Kept,
    dtype: Dtype,
    seed: u64,
}

/// The cases of a sweep: dense weights and factors of some ranks.
pub(super) fn plan(sweep: &Sweep, request: &Request) -> Vec<Spec> {
    let or = |list: &Option<Vec<usize>>, usual: &[usize]| list.clone().unwrap_or_else(|| usual.to_vec());
    let (width, ranks): (usize, &[usize]) = match request.device.kind() {
        Kind::Emulated => (256, &[16]),
        _ if request.quick => (512, &[32, 128]),
        _ => (1024, &[64, 256]),
    };
    let usual = if request.device.kind() == Kind::Cpu { Dtype::F32 } else { Dtype::BF16 };
    let dtypes = request.dtypes.clone().unwrap_or_else(|| vec![usual]);
    let kept = kept_forms(sweep, &or(&sweep.rank, ranks));
    let mut specs = Vec::new();
    for m in or(&sweep.m, &[1, 16]) {
        for n in or(&sweep.n, &[width]) {
            for k in or(&sweep.k, &[width]) {
                for dtype in dtypes.iter().copied() {
                    specs.extend(kept.iter().map(|kept| Spec { m, n, k, kept: *kept, dtype, seed: request.seed }));
                }
            }
        }
    }
    specs
}

fn kept_forms(sweep: &Sweep, ranks: &[usize]) -> Vec<Kept> {
    let densities = sweep.density.as_deref().unwrap_or(&[0.5]);
    let mut forms = Vec::new();
    for format in sweep.formats.as_deref().unwrap_or(&["dense", "factorized"]).iter().copied() {
        match format {
            "dense" => forms.push(Kept::Dense),
            "factorized" => forms.extend(ranks.iter().map(|rank| Kept::Factorized { rank: *rank })),
            _ if SPARSE.contains(&format) => {
                forms.extend(densities.iter().map(|density| Kept::Unbuilt { format, density: Some(*density) }));
            }
            _ => forms.push(Kept::Unbuilt { format, density: None }),
        }
    }
    forms
}

impl Spec {
    pub(super) fn line(&self) -> Line {
        let line = Line::new("linear").with("m", self.m).with("n", self.n).with("k", self.k);
        let line = match self.kept {
            Kept::Dense => line.with("format-of-weights", "dense"),
            Kept::Factorized { rank } => line.with("format-of-weights", "factorized").with("rank", rank),
            Kept::Unbuilt { format, density } => {
                let line = line.with("format-of-weights", format);
                match density {
                    Some(density) => line.with("density", density),
                    None => line,
                }
            }
        };
        line.with("dtype", self.dtype.to_string()).with("seed", self.seed)
    }

    pub(super) fn parse(mut line: Line) -> Result<Self> {
        let format = line.need("format-of-weights")?;
        let kept = match FORMATS.into_iter().find(|known| *known == format) {
            Some("dense") => Kept::Dense,
            Some("factorized") => Kept::Factorized { rank: line.count("rank", MOST)? },
            Some(format) if SPARSE.contains(&format) => Kept::Unbuilt { format, density: Some(line.share("density")?) },
            Some(format) => Kept::Unbuilt { format, density: None },
            None => return Err(line.refuse(&format!("format-of-weights={format}"), &FORMATS.join(", "))),
        };
        let spec = Self {
            m: line.count("m", MOST)?,
            n: line.count("n", MOST)?,
            k: line.count("k", MOST)?,
            kept,
            dtype: super::float_dtype(&mut line)?,
            seed: line.parsed("seed", "a whole number")?,
        };
        line.finish()?;
        Ok(spec)
    }

    pub(super) fn prepare(&self, inputs: &mut Inputs) -> Result<Prepared<Layer>> {
        let Self { m, n, k, .. } = *self;
        let rank = match self.kept {
            Kept::Dense => n.min(k),
            Kept::Factorized { rank } if rank > n.min(k) => {
                return Ok(Err(format!("rank {rank} is over the {} that a {n} x {k} matrix has", n.min(k))));
            }
            Kept::Factorized { rank } => rank,
            Kept::Unbuilt { format, .. } => return Ok(Err(format!("{format} weights: not built yet"))),
        };
        // Operands, their f32 copies, and a result with its f64 oracle. No count within MOST wraps.
        if let Some(reason) = data::too_large(Some(16 * (m * (n + k) + n * k + rank * (n + k)))) {
            return Ok(Err(reason));
        }
        let (device, host) = (inputs.device(), inputs.host());
        let random = |stream: u64, shape: [usize; 2], dtype: Dtype| {
            Tensor::from_slice(&normal(self.seed, stream, shape[0] * shape[1]), &shape, host)?.to_dtype(dtype)
        };
        let x = random(0, [m, k], Dtype::F32)?;
        let factors = match self.kept {
            Kept::Factorized { rank } => vec![random(1, [rank, k], self.dtype)?, random(2, [n, rank], self.dtype)?],
            _ => vec![random(1, [n, k], self.dtype)?],
        };
        let contested = matches!(self.kept, Kept::Factorized { .. }) && device.kind() == Kind::Cpu;
        Ok(Ok(Layer {
            spec: *self,
            wide: [&x].into_iter().chain(&factors).map(Tensor::to_f32_vec).collect::<Result<_>>()?,
            x: x.to_device(device)?,
            factors: factors.iter().map(|factor| factor.to_device(device)).collect::<Result<_>>()?,
            rival: contested.then(|| random(3, [n, k], Dtype::F32)).transpose()?,
            // Elements that are not written show as wrong.
            out: Tensor::from_slice(&vec![f32::NAN; m * n], &[m, n], device)?,
            scratch: Scratch::new(device),
        }))
    }
}

fn normal(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    let stream = Stream::new(seed, stream);
    (0..count as u64).into_par_iter().map(|i| stream.normal(i)).collect()
}

/// A case with its weights.
pub(super) struct Layer {
    spec: Spec,
    x: Tensor,
    /// What x is multiplied by, one after the other: [n, k], or [rank, k] and [n, rank].
    factors: Vec<Tensor>,
    /// x and the factors for the oracle, on the host.
    wide: Vec<Vec<f32>>,
    /// Dense weights [n, k] of the rival.
    rival: Option<Tensor>,
    out: Tensor,
    scratch: Scratch,
}

impl Layer {
    fn ours(&mut self) -> Result<()> {
        match self.factors.as_slice() {
            [b, a] => linear::factorized_into(&mut self.out, &self.x, b, a, None, &mut self.scratch),
            factors => linear::dense_into(&mut self.out, &self.x, &factors[0], None),
        }
    }

    /// Every element of the result, and the sum of the magnitudes that it adds up.
    fn oracle(&self) -> Vec<(f64, f64)> {
        let row_of = |x: &[f32]| {
            let mut row: Vec<(f64, f64)> = x.iter().map(|x| (f64::from(*x), f64::from(x.abs()))).collect();
            for factor in &self.wide[1..] {
                row = factor.par_chunks(row.len()).map(|weights| dot(&row, weights)).collect();
            }
            row
        };
        self.wide[0].par_chunks(self.spec.k).flat_map_iter(row_of).collect()
    }
}

fn dot(row: &[(f64, f64)], weights: &[f32]) -> (f64, f64) {
    row.iter().zip(weights).fold((0.0, 0.0), |(sum, size), ((x, magnitude), weight)| {
        let weight = f64::from(*weight);
        (sum + x * weight, size + magnitude * weight.abs())
    })
}

impl Case for Layer {
    fn line(&self) -> Line {
        self.spec.line()
    }

    fn dtype(&self) -> String {
        self.spec.dtype.to_string()
    }

    fn verify(&mut self) -> Result<Verdict> {
        self.ours()?;
        let found = self.out.to_f32_vec()?;
        let oracle = self.oracle();
        let pairs = || found.iter().zip(&oracle).map(|(y, (exact, size))| ((f64::from(*y) - exact).abs(), *exact, *size));
        // A sum of nothing but zeros has no rounding.
        let of_magnitudes = worst_of(pairs().map(|(off, _, size)| if off == 0.0 { 0.0 } else { off / size }));
        let (off, length) = pairs().fold((0.0, 0.0), |(off, length), (e, y, _)| (off + e * e, length + y * y));
        let Spec { n, k, .. } = self.spec;
        let kept: usize = self.factors.iter().map(Tensor::len).sum();
        Ok(Verdict {
            passed: of_magnitudes <= LIMIT && found.len() == oracle.len(),
            error: vec![
                ("relative", (off / length).sqrt()),
                ("max_abs", worst_of(pairs().map(|(off, ..)| off))),
                ("of_magnitudes", of_magnitudes),
            ],
            figures: vec![("kept_bytes", kept as f64 / (n * k) as f64)],
            note: None,
        })
    }

    fn work(&self) -> Work {
        let weights: usize = self.factors.iter().map(Tensor::bytes).sum();
        let elements: usize = self.factors.iter().map(Tensor::len).sum();
        Work { bytes: (self.x.bytes() + self.out.bytes() + weights) as u64, flops: 2 * self.spec.m as u64 * elements as u64 }
    }

    fn baseline(&self) -> Option<String> {
        self.rival.as_ref().map(|_| "lowkey's own dense f32 layer of the same n x k".to_owned())
    }

    fn call(&mut self, side: Side) -> Result<()> {
        match &self.rival {
            Some(weight) if side == Side::Baseline => linear::dense_into(&mut self.out, &self.x, weight, None),
            _ => self.ours(),
        }
    }
}
