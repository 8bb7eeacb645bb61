//! What is measured on: synthetic matrices, tensors of a file, the cache of a real model.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use faer::{Mat, MatRef};
use rayon::prelude::*;

use super::{
    Line, Prepared, REAL_MODEL, Request,
    capture::Captured,
    host,
    spectrum::{Shape, Spectrum},
    tokens::{Sequences, Text, Tokens},
};
use crate::{
    Device, Dtype, Error, InputError, Result, Tensor,
    cache::{self, Bases},
    device::Kind,
    model::files::{SafeFile, StoredDtype},
    philox::Stream,
};

/// Where matrices come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Matrices {
    /// Seeded, with singular values that fall like 1/j.
    Power { batch: usize, rows: usize, cols: usize, seed: u64 },
    /// One, seeded, with the singular values of a spectrum.
    Made { spectrum: Spectrum, rows: usize, cols: usize, seed: u64 },
    /// A tensor [.., tokens, width] of a safetensors file.
    File { path: String, tensor: String },
    /// Keys before RoPE, or values, of every layer and key-value head of a model, over windows of text.
    Model { values: bool, windows: usize },
}

impl Matrices {
    /// Adds the fields of the source to a case.
    pub(super) fn describe(&self, line: Line) -> Line {
        match self {
            Self::Power { batch, rows, cols, seed } => {
                let line = line.with("data", "power").with("batch", *batch).with("rows", *rows);
                line.with("cols", *cols).with("seed", *seed)
            }
            Self::Made { spectrum, rows, cols, seed } => {
                let line = line.with("data", spectrum.shape.name()).with("rows", *rows).with("cols", *cols);
                line.with("kappa", spectrum.kappa).with("at", spectrum.rank).with("seed", *seed)
            }
            Self::File { path, tensor } => line.with("data", "file").with("input", path.clone()).with("tensor", tensor.clone()),
            Self::Model { values, windows } => {
                let side = if *values { "values" } else { "keys" };
                line.with("data", side).with("model", REAL_MODEL).with("windows", *windows)
            }
        }
    }

    /// Takes the fields of the source out of a case.
    pub(super) fn parse(line: &mut Line) -> Result<Self> {
        const MOST: usize = 1 << 24;
        match line.need("data")?.as_str() {
            "power" => Ok(Self::Power {
                batch: line.count("batch", MOST)?,
                rows: line.count("rows", MOST)?,
                cols: line.count("cols", MOST)?,
                seed: line.parsed("seed", "a whole number")?,
            }),
            "file" => Ok(Self::File { path: line.need("input")?, tensor: line.need("tensor")? }),
            side @ ("keys" | "values") => {
                expect_real_model(line)?;
                Ok(Self::Model { values: side == "values", windows: line.count("windows", MOST_WINDOWS)? })
            }
            other => match Shape::NAMES.iter().find(|(name, _)| *name == other) {
                Some((_, shape)) => Self::parse_made(*shape, line),
                None => Err(line.refuse(&format!("data={other}"), "power, a spectrum, file, keys or values")),
            },
        }
    }
}

impl Matrices {
    fn parse_made(shape: Shape, line: &mut Line) -> Result<Self> {
        const MOST: usize = 1 << 24;
        let limit = "a number from 1 to 1e30";
        let (rows, cols) = (line.count("rows", MOST)?, line.count("cols", MOST)?);
        let kappa: f64 = line.parsed("kappa", limit)?;
        if !(1.0..=1e30).contains(&kappa) {
            return Err(line.refuse(&format!("kappa={kappa}"), limit));
        }
        let rank = line.count("at", rows.min(cols))?;
        Ok(Self::Made { spectrum: Spectrum { shape, kappa, rank }, rows, cols, seed: line.parsed("seed", "a whole number")? })
    }
}

/// Takes the name of the model out of a case.
pub(super) fn expect_real_model(line: &mut Line) -> Result<()> {
    let name = line.need("model")?;
    if name == REAL_MODEL { Ok(()) } else { Err(line.refuse(&format!("model={name}"), REAL_MODEL)) }
}

/// A batch of matrices and what is known about them in f64.
pub(super) struct Batch {
    /// [batch, rows, cols].
    pub(super) tensor: Tensor,
    /// The same elements, widened; what oracles and rivals start from.
    pub(super) wide: Vec<f32>,
    /// Frobenius norm of each matrix; NaN for one that is not finite.
    pub(super) norms: Vec<f64>,
    /// Singular values of each matrix by an f64 SVD, largest first; none for a matrix that is not finite.
    pub(super) spectra: Vec<Vec<f64>>,
}

impl Batch {
    fn new(tensor: Tensor) -> Result<Self> {
        let wide = tensor.to_f32_vec()?;
        let [_, rows, cols] = dimensions(&tensor);
        let known: Vec<(f64, Vec<f64>)> =
            wide.par_chunks(rows * cols).map(|matrix| spectrum(matrix, rows, cols)).collect::<Result<_>>()?;
        let (norms, spectra) = known.into_iter().unzip();
        Ok(Self { tensor, wide, norms, spectra })
    }

    /// batch, rows, cols.
    pub(super) fn dimensions(&self) -> [usize; 3] {
        dimensions(&self.tensor)
    }

    /// The least relative error that any approximation of `rank` can have for a matrix.
    pub(super) fn optimum(&self, matrix: usize, rank: usize) -> f64 {
        let tail: f64 = self.spectra[matrix].iter().skip(rank).map(|s| s * s).sum();
        tail.sqrt() / self.norms[matrix]
    }
}

impl Batch {
    /// The lowest rank that reaches a relative error for a matrix.
    pub(super) fn rank_for(&self, matrix: usize, error: f64) -> usize {
        let most = self.spectra[matrix].len();
        (0..most).find(|rank| self.optimum(matrix, *rank) <= error).unwrap_or(most)
    }
}

fn dimensions(tensor: &Tensor) -> [usize; 3] {
    let shape = tensor.shape();
    [shape[0], shape[1], shape[2]]
}

fn spectrum(matrix: &[f32], rows: usize, cols: usize) -> Result<(f64, Vec<f64>)> {
    if matrix.iter().any(|x| !x.is_finite()) {
        return Ok((f64::NAN, Vec::new()));
    }
    let norm = matrix.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let view = MatRef::from_row_major_slice(matrix, rows, cols);
    let wide = Mat::<f64>::from_fn(rows, cols, |i, j| f64::from(view[(i, j)]));
    let failed = |_| Error::Numeric { op: "oracle", what: "the f64 SVD did not converge".to_owned() };
    Ok((norm, wide.singular_values().map_err(failed)?))
}

/// Windows of text that a case may ask for.
pub(super) const MOST_WINDOWS: usize = 96;

/// Data of a run, made when first asked for and kept while cases ask for the same again.
pub(super) struct Inputs {
    /// Where operations run.
    device: Device,
    /// Where data is made, and what it is checked with.
    host: Device,
    remarks: Vec<String>,
    batch: Option<(Matrices, Dtype, Rc<Batch>)>,
    matrices: Option<(Matrices, Dtype, Tensor)>,
    captured: Option<Rc<Captured>>,
    sequences: Option<(Tokens, Rc<Sequences>)>,
    /// Folder of the model, and its text.
    model: Option<(PathBuf, PathBuf)>,
    warned: bool,
    allow_nonfinite: bool,
}

impl Inputs {
    pub(super) fn new(request: &Request) -> Self {
        Self {
            device: request.device.clone(),
            host: match request.device.kind() {
                Kind::Cpu => request.device.clone(),
                _ => Device::cpu(),
            },
            remarks: Vec::new(),
            batch: None,
            matrices: None,
            captured: None,
            sequences: None,
            model: host::find_model(REAL_MODEL),
            warned: false,
            allow_nonfinite: request.allow_nonfinite,
        }
    }

    /// Whether the real model is here; says so once when it is not.
    pub(super) fn has_model(&mut self) -> bool {
        if self.model.is_none() && !self.warned {
            self.warned = true;
            self.remark(format!(
                "no models/{REAL_MODEL} found (set LOWKEY_MODELS to the folder `models`): the data is synthetic"
            ));
        }
        self.model.is_some()
    }

    /// Where operations run.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Where data is made: the device itself on a CPU.
    pub(super) fn host(&self) -> &Device {
        &self.host
    }

    /// Adds something that users should read.
    pub(super) fn remark(&mut self, line: String) {
        self.remarks.push(line);
    }

    /// What users should read, and has not been taken yet.
    pub(super) fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// The matrices in `dtype` and what is known about them, or why there are none.
    pub(super) fn batch(&mut self, matrices: &Matrices, dtype: Dtype) -> Result<Prepared<Rc<Batch>>> {
        if let Some((held, kind, batch)) = &self.batch
            && (held, *kind) == (matrices, dtype)
        {
            return Ok(Ok(Rc::clone(batch)));
        }
        self.batch = None;
        let tensor = match self.matrices(matrices, dtype)? {
            Ok(tensor) => tensor,
            Err(reason) => return Ok(Err(reason)),
        };
        let batch = Rc::new(Batch::new(tensor)?);
        self.batch = Some((matrices.clone(), dtype, Rc::clone(&batch)));
        Ok(Ok(batch))
    }

    /// The matrices [batch, rows, cols] in `dtype`, or why there are none.
    pub(super) fn matrices(&mut self, matrices: &Matrices, dtype: Dtype) -> Result<Prepared<Tensor>> {
        if let Some((held, kind, tensor)) = &self.matrices
            && (held, *kind) == (matrices, dtype)
        {
            return Ok(Ok(tensor.clone()));
        }
        self.matrices = None;
        let tensor = match matrices {
            Matrices::Power { batch, rows, cols, seed } => {
                // The data, its f32 copy and the oracle's f64.
                if let Some(reason) = too_large([*batch, *rows, *cols].into_iter().try_fold(16usize, usize::checked_mul)) {
                    return Ok(Err(reason));
                }
                power(*batch, *rows, *cols, *seed, &self.host)?
            }
            Matrices::Made { spectrum, rows, cols, seed } => {
                // Factors in f64, and the oracle's.
                if let Some(reason) = too_large([*rows, *cols, 40].into_iter().try_fold(1usize, usize::checked_mul)) {
                    return Ok(Err(reason));
                }
                Tensor::from_slice(&spectrum.matrix(*rows, *cols, *seed), &[1, *rows, *cols], &self.host)?
            }
            Matrices::File { path, tensor } => self.file_tensor(path, tensor)?,
            Matrices::Model { values, windows } => match self.captured(*windows)? {
                Ok(captured) => {
                    let (rows, shape) = captured.matrices(*values);
                    Tensor::from_slice(&rows, &shape, &self.host)?
                }
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let tensor = tensor.to_dtype(dtype)?.to_device(&self.device)?;
        self.matrices = Some((matrices.clone(), dtype, tensor.clone()));
        Ok(Ok(tensor))
    }
}

/// Why so many bytes cannot be had, if they cannot.
pub(super) fn too_large(bytes: Option<usize>) -> Option<String> {
    let free = host::memory("MemAvailable:").unwrap_or(u64::MAX);
    match bytes {
        Some(bytes) if bytes as u64 <= free => None,
        Some(bytes) => Some(format!("needs about {bytes} bytes of memory, {free} are free")),
        None => Some("needs more memory than can be counted".to_owned()),
    }
}

impl Inputs {
    /// What the real model computes over so many windows, or why there is none.
    pub(super) fn captured(&mut self, windows: usize) -> Result<Prepared<Rc<Captured>>> {
        if let Some(captured) = self.captured.as_ref().filter(|held| held.windows == windows) {
            return Ok(Ok(Rc::clone(captured)));
        }
        let Some((model, text)) = &self.model else {
            return Ok(Err(format!("needs models/{REAL_MODEL}; set LOWKEY_MODELS to the folder `models`")));
        };
        let captured = Rc::new(Captured::new(model, text, windows, &self.host)?);
        self.captured = Some(Rc::clone(&captured));
        Ok(Ok(captured))
    }

    /// Calibrated bases for caches of these sequences, or why there are none.
    pub(super) fn bases(&mut self, tokens: &Tokens, spec: &cache::Spec) -> Result<Prepared<Arc<Bases>>> {
        let Text::Model { windows } = tokens.text else {
            return Ok(Err("calibrated bases need a model to calibrate; leave out --heads and --head-dim".to_owned()));
        };
        let captured = match self.captured(windows)? {
            Ok(captured) => captured,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some((model, text)) = &self.model else { return Ok(Err("needs a model".to_owned())) };
        let sample = text.with_file_name("train.txt");
        if !sample.is_file() {
            return Ok(Err(format!("calibration needs {}", sample.display())));
        }
        captured.bases(model, &sample, spec).map(Ok)
    }

    /// Sequences for attention, or why there are none.
    pub(super) fn sequences(&mut self, tokens: &Tokens) -> Result<Prepared<Rc<Sequences>>> {
        if let Some((_, sequences)) = self.sequences.as_ref().filter(|(held, _)| held == tokens) {
            return Ok(Ok(Rc::clone(sequences)));
        }
        self.sequences = None;
        if let Some(reason) = tokens.objection() {
            return Ok(Err(reason));
        }
        let sequences = match &tokens.text {
            Text::Model { windows } => {
                let captured = match self.captured(*windows)? {
                    Ok(captured) => captured,
                    Err(reason) => return Ok(Err(reason)),
                };
                let config = &captured.config;
                if let Some(reason) = too_large(tokens.bytes(config.n_layers, config.n_kv_heads, config.head_dim)) {
                    return Ok(Err(reason));
                }
                Sequences::captured(&captured, tokens, &self.host)?
            }
            Text::Power { heads, head_dim, seed } => {
                if let Some(reason) = too_large(tokens.bytes(1, heads.1, *head_dim)) {
                    return Ok(Err(reason));
                }
                Sequences::power(*heads, *head_dim, *seed, tokens, &self.host)?
            }
        };
        let sequences = Rc::new(sequences);
        self.sequences = Some((tokens.clone(), Rc::clone(&sequences)));
        Ok(Ok(sequences))
    }

    /// Every floating-point tensor [.., tokens, width] of a file.
    ///
    /// # Errors
    /// Whatever is wrong with the file; [`Error::Input`] when it has no such tensor.
    pub(super) fn file_matrices(&self, path: &Path) -> Result<Vec<Matrices>> {
        let file = SafeFile::open(path)?;
        let Some(path_text) = path.to_str() else {
            let error = InputError::new("--input", path.display(), "a name in UTF-8");
            return Err(error.hint("rename the file, so that its cases can be printed").into());
        };
        let is_float = |dtype| matches!(dtype, StoredDtype::F32 | StoredDtype::F16 | StoredDtype::BF16);
        let usable =
            file.tensors().filter(|(_, about)| is_float(about.dtype) && about.shape.len() >= 2 && about.elements() > 0);
        let found: Vec<Matrices> =
            usable.map(|(name, _)| Matrices::File { path: path_text.to_owned(), tensor: name.to_owned() }).collect();
        if found.is_empty() {
            let held = format!("{} tensors, none of them such", file.tensors().count());
            let error = InputError::new("tensors", held, "a tensor [.., tokens, width] in f32, f16 or bf16").file(path);
            return Err(error.hint("save keys or values as one tensor each").into());
        }
        Ok(found)
    }

    fn file_tensor(&self, path: &str, name: &str) -> Result<Tensor> {
        let tensor = SafeFile::open(path)?.allow_nonfinite(self.allow_nonfinite).read(name, &self.host)?;
        let &[.., rows, cols] = tensor.shape() else {
            let error =
                InputError::new(format!("tensor {name:?}, shape"), format!("{:?}", tensor.shape()), "[.., tokens, width]");
            return Err(error.file(path).into());
        };
        if tensor.is_empty() {
            let error = InputError::new(format!("tensor {name:?}"), "no elements", "at least one matrix");
            return Err(error.file(path).into());
        }
        tensor.reshape(&[tensor.len() / (rows * cols), rows, cols])
    }

    /// Keys and values of the real model.
    pub(super) fn model_matrices(&self, quick: bool) -> Vec<Matrices> {
        let windows = if quick { 2 } else { 8 };
        [false, true].map(|values| Matrices::Model { values, windows }).to_vec()
    }
}

/// Normal columns scaled by 1/j, then mirrored at a random hyperplane so that no axis is special: singular values
/// near sqrt(rows)/j.
fn power(batch: usize, rows: usize, cols: usize, seed: u64, device: &Device) -> Result<Tensor> {
    let mut tensor = Tensor::zeros(&[batch, rows, cols], Dtype::F32, device)?;
    let matrices = tensor.slice_mut::<f32>()?.par_chunks_mut((rows * cols).max(1)).enumerate();
    matrices.for_each(|(matrix, elements)| {
        let stream = Stream::new(seed, matrix as u64);
        let normal: Vec<f32> = (0..cols as u64).map(|j| stream.normal((rows * cols) as u64 + j)).collect();
        for (i, row) in elements.chunks_exact_mut(cols).enumerate() {
            for (j, x) in row.iter_mut().enumerate() {
                *x = stream.normal((i * cols + j) as u64) / (j + 1) as f32;
            }
            mirror(row, &normal);
        }
    });
    Ok(tensor)
}

/// Mirrors a row at the plane that `normal` stands on.
pub(super) fn mirror(row: &mut [f32], normal: &[f32]) {
    let length: f32 = normal.iter().map(|x| x * x).sum();
    let along = 2.0 * row.iter().zip(normal).map(|(x, n)| x * n).sum::<f32>() / length;
    row.iter_mut().zip(normal).for_each(|(x, n)| *x -= along * n);
}
