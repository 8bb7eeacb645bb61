//! The approximation that loses least under a weight: the weight's roots, the weighted rows, their SVD, and what encodes and
//! decodes rows.

use super::{
    Extents, Job, MAX_COLUMNS, Matrices, Outputs, THREADS, broad, code, kernels,
    multiply::{multiply, product},
};
use crate::{
    Device, Dtype, Error, Result, Scratch, Tensor,
    device::{Address, Grid},
    svd::{
        Options, Output, Rank, Svd, Weighted,
        params::{MultiplyParams, SVD_F32, SVD_F64, SvdOperand, WeightParams},
        truncated,
        verdict::ROW_BYTES,
        weighted::OP,
    },
};

/// Matrices of one launch, at most.
const LAUNCHED: usize = 1 << 15;
/// Columns that a block turns.
const TURNED: usize = 8;

/// As the CPU path does, for rows [batch, m, n] with `weight` [batch, n, n] or [n, n].
pub(in crate::svd) fn weighted(x: &Tensor, weight: &Tensor, rank: Rank, options: &Options) -> Result<Weighted> {
    let [leading @ .., m, n] = x.shape() else { return Err(Error::shape(OP, format!("{:?}", x.shape()), "rows [.., m, n]")) };
    let (m, n, r, device) = (*m, *n, rank.columns(), x.device());
    if n > MAX_COLUMNS {
        return Err(Error::shape(OP, format!("rows of {n}"), format!("n <= {MAX_COLUMNS} on {device}")));
    }
    let batch = leading.iter().product::<usize>();
    let mut arena = Scratch::new(&device);
    let roots = Roots::new(&device, &weight.contiguous()?, n, &mut arena)?;
    let zeros = |columns: &[usize], dtype| Tensor::zeros(&[leading, columns].concat(), dtype, &device);

    let mut rows = zeros(&[m, n], Dtype::F32)?;
    weigh(x, &roots, rows.address_mut(OP)?, [m, n])?;
    let as_latents = Options { output: Output::LatentDecoder, factors: Dtype::F32, ..options.clone() };
    let svd = truncated(&rows, rank, &as_latents)?;

    let (mut encoder, mut decoder) = (zeros(&[n, r], Dtype::F32)?, zeros(&[n, r], Dtype::F32)?);
    let v = SvdOperand::dense(svd.v.address(), SVD_F32, n, r);
    for (root, out) in [(roots.half(), encoder.address_mut(OP)?), (roots.inverse(), decoder.address_mut(OP)?)] {
        let out = SvdOperand::dense(out, SVD_F32, n, r);
        in_launches(&device, batch, &product(root, v, out, [n, r, n]))?;
    }
    let mut rounded = Weighted {
        encoder: zeros(&[n, r], options.factors)?,
        decoder: zeros(&[n, r], options.factors)?,
        svd: Svd { u: zeros(&[m, r], options.factors)?, v: zeros(&[n, r], options.factors)?, s: svd.s, table: svd.table },
    };
    let params = WeightParams {
        u: svd.u.address(),
        v: svd.v.address(),
        encoder: encoder.address(),
        decoder: decoder.address(),
        out_u: rounded.svd.u.address_mut(OP)?,
        out_v: rounded.svd.v.address_mut(OP)?,
        out_encoder: rounded.encoder.address_mut(OP)?,
        out_decoder: rounded.decoder.address_mut(OP)?,
        rows: m as i32,
        width: n as i32,
        columns: r as i32,
        factors: code(options.factors),
    };
    let blocks = [r.div_ceil(TURNED) as u32, batch as u32, 1];
    device.launch(&kernels::SVD_WEIGHT_FINISH, Grid { blocks, threads: THREADS, shared: 0 }, &params)?;
    Ok(rounded)
}

/// The product for all of a batch; its operands begin with the first matrix.
fn in_launches(device: &Device, batch: usize, params: &MultiplyParams) -> Result<()> {
    for first in (0..batch).step_by(LAUNCHED) {
        let from = |x: SvdOperand| SvdOperand { first: x.first + first as i32, ..x };
        let params = MultiplyParams { a: from(params.a), b: from(params.b), c: from(params.c), ..*params };
        multiply(device, &params, LAUNCHED.min(batch - first))?;
    }
    Ok(())
}

/// Y = X W^1/2, f32 [batch, m, n].
fn weigh(x: &Tensor, roots: &Roots, to: Address, [m, n]: [usize; 2]) -> Result<()> {
    let rows = Matrices::of(x);
    for wave in rows.walk.waves(usize::MAX) {
        let first = wave[2] as i32;
        let root = SvdOperand { first, ..roots.half() };
        let out = SvdOperand { first, ..SvdOperand::dense(to, SVD_F32, m, n) };
        in_launches(&x.device(), wave[3], &product(rows.operand(wave, false), root, out, [m, n, n]))?;
    }
    Ok(())
}

/// W^1/2 and W^-1/2 in f64, of one weight or of one for each matrix.
struct Roots {
    half: Address,
    inverse: Address,
    n: usize,
    shared: bool,
}

impl Roots {
    /// In memory from `arena`, whose other parts are free again afterwards.
    fn new(device: &Device, weight: &Tensor, n: usize, arena: &mut Scratch) -> Result<Self> {
        let count = weight.len() / (n * n);
        let extents = Extents::new(count, n, n, n);
        let options = Options::default();
        let (squares, verdicts) = (count * n * n * size_of::<f64>(), (count * ROW_BYTES).next_multiple_of(16));
        let base = arena.address(device, 2 * squares + verdicts + broad::bytes(&extents, &options))?;
        let (half, inverse) = (base, base.offset(squares));
        let table = base.offset(2 * squares);
        let outputs = Outputs { tall: Address::NULL, s: Address::NULL, small: Address::NULL, verdicts: table };
        let weights = Matrices::of(weight);
        let (rank, base) = (Rank::Fixed(n), table.offset(verdicts));
        let job = Job { matrices: &weights, extents, rank, options: &options, outputs, base };
        let call = broad::Call::new(job);
        for first in (0..count).step_by(call.wave()) {
            let matrices = call.wave().min(count - first);
            call.roots([0, first, first, matrices], [half, inverse].map(|to| to.offset(first * n * n * size_of::<f64>())))?;
        }
        Ok(Self { half, inverse, n, shared: count == 1 })
    }

    fn half(&self) -> SvdOperand {
        self.operand(self.half)
    }

    fn inverse(&self) -> SvdOperand {
        self.operand(self.inverse)
    }

    fn operand(&self, at: Address) -> SvdOperand {
        let dense = SvdOperand::dense(at, SVD_F64, self.n, self.n);
        SvdOperand { inner_stride: if self.shared { 0 } else { dense.inner_stride }, ..dense }
    }
}
