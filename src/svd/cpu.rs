//! The CPU path: matrices in parallel, each by one thread; then large ones through a sketch, one after another, whose passes
//! all threads share; then those that a sketch does not serve.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{
    Options, Output, Rank, Sizes, Svd, Verdict,
    sketch::Sketch,
    solver::{Outputs, Solver, Task, Workspace},
    source::Source,
    verdict::{ROW_BYTES, Row},
    watch::Steps,
};
use crate::{Dtype, Result, Scratch, Tensor, device::simd};

/// How a matrix is factorized.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Gram,
    Sketch,
}

impl Route {
    /// Of a matrix with so many rows.
    fn of(rows: usize, sizes: &Sizes) -> Self {
        if Sketch::serves(rows.min(sizes.n), sizes.columns) { Self::Sketch } else { Self::Gram }
    }

    /// Elements of working memory for a matrix with so many rows.
    fn elements(self, rows: usize, sizes: &Sizes, options: &Options) -> usize {
        let (long, short) = (rows.max(sizes.n), rows.min(sizes.n));
        let columns = sizes.columns.min(short);
        let work = match self {
            Self::Sketch => Sketch::elements(long, short, columns),
            Self::Gram => Workspace::elements(short, columns, 1),
        };
        work + self.staging(rows, sizes, options)
    }

    /// Elements for the factors of one matrix in f32, where they are rounded afterwards, or made only to see what they leave
    /// out.
    fn staging(self, rows: usize, sizes: &Sizes, options: &Options) -> usize {
        let staged = match options.output {
            Output::ValuesOnly => self == Self::Sketch,
            _ => options.factors != Dtype::F32,
        };
        if staged { ((rows + sizes.n) * sizes.columns).div_ceil(2) } else { 0 }
    }
}

/// Matrices that are worked on one by one by as many workers.
#[derive(Clone, Copy, Default)]
struct Load {
    workers: usize,
    /// Elements of working memory for each.
    share: usize,
}

impl Load {
    /// Of the matrices of so many rows that take this route.
    fn new(lengths: impl Iterator<Item = usize>, route: Route, times: usize, sizes: &Sizes, options: &Options) -> Self {
        let mut load = Self::default();
        for rows in lengths {
            load.workers += times;
            load.share = load.share.max(route.elements(rows, sizes, options));
        }
        // A sketch has all threads to itself.
        let most = if route == Route::Sketch { 1 } else { rayon::current_num_threads() };
        Self { workers: load.workers.min(most), ..load }
    }

    /// Of all matrices that take this route from the beginning.
    fn of(route: Route, sizes: &Sizes, options: &Options) -> Self {
        let lengths = sizes.lengths().filter(|rows| Route::of(*rows, sizes) == route);
        Self::new(lengths, route, sizes.batch / sizes.segments(), sizes, options)
    }

    fn elements(self) -> usize {
        self.workers * self.share
    }
}

pub(super) fn scratch_bytes(sizes: &Sizes, options: &Options) -> usize {
    let of = |route| Load::of(route, sizes, options).elements();
    of(Route::Gram).max(of(Route::Sketch)) * size_of::<f64>()
}

pub(super) fn truncated(
    a: &Tensor,
    sizes: &Sizes,
    rank: Rank,
    options: &Options,
    out: &mut Svd,
    scratch: &mut Scratch,
) -> Result<()> {
    let call = Call { a, sizes, rank, options, steps: Steps(options.watch.as_ref()) };
    call.steps.begin(sizes.batch)?;
    let takes = |route| move |index| Route::of(sizes.rows(index).len(), sizes) == route;
    call.by_gram(Load::of(Route::Gram, sizes, options), takes(Route::Gram), out, scratch)?;
    let refused = call.by_sketch(Load::of(Route::Sketch, sizes, options), takes(Route::Sketch), out, scratch)?;
    let lengths = refused.iter().map(|index| sizes.rows(*index).len());
    let load = Load::new(lengths, Route::Gram, 1, sizes, options);
    call.by_gram(load, |index| refused.binary_search(&index).is_ok(), out, scratch)
}

/// What is asked of a whole batch.
struct Call<'a> {
    a: &'a Tensor,
    sizes: &'a Sizes,
    rank: Rank,
    options: &'a Options,
    steps: Steps<'a>,
}

impl Call<'_> {
    /// Solves some of the matrices in parallel, each by one thread.
    fn by_gram(&self, load: Load, mine: impl Fn(usize) -> bool + Sync, out: &mut Svd, scratch: &mut Scratch) -> Result<()> {
        if load.workers == 0 {
            return Ok(());
        }
        // Workers draw matrices one by one: matrices that climb the ladder take longer than others.
        let jobs = Mutex::new(parts(out, self.sizes)?.enumerate().filter(|(index, _)| mine(*index)));
        let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = |memory: &mut [f64]| {
            while let Some((index, part)) = next() {
                let (source, task) = self.begin(index)?;
                part.fill(self, Route::Gram, source, memory, |source, outputs, memory| {
                    let mut workspace = Workspace::new(source.columns, task.rank.columns(), 1, memory);
                    Solver { source, task, workspace: &mut workspace, outputs, steps: self.steps }.solve().map(Some)
                })?;
                self.steps.done()?;
            }
            Ok(())
        };
        scratch.take::<f64>(load.elements())?.par_chunks_exact_mut(load.share).try_for_each(work)
    }

    /// Sketches some of the matrices one after another, and returns which of them it could not serve, in order.
    fn by_sketch(&self, load: Load, mine: impl Fn(usize) -> bool, out: &mut Svd, scratch: &mut Scratch) -> Result<Vec<usize>> {
        let mut refused = Vec::new();
        if load.workers == 0 {
            return Ok(refused);
        }
        let memory = scratch.take::<f64>(load.elements())?;
        for (index, part) in parts(out, self.sizes)?.enumerate().filter(|(index, _)| mine(*index)) {
            let (source, task) = self.begin(index)?;
            let task = Task { values_only: false, ..task };
            let served = part.fill(self, Route::Sketch, source, memory, |source, outputs, memory| {
                match Sketch::new(&source, &task, self.options.seed, memory) {
                    Some(sketch) => sketch.solve(source, task, outputs, self.steps),
                    None => Ok(None),
                }
            })?;
            if served {
                self.steps.done()?;
            } else {
                tracing::debug!(index, "a sketch does not serve a matrix");
                refused.push(index);
            }
        }
        Ok(refused)
    }

    fn begin(&self, index: usize) -> Result<(Source<'static>, Task)> {
        let source = Source::new(matrix(self.a, self.sizes, index)?);
        let task = Task::new(self.rank.at_most(source.columns), self.options, source.is_wide());
        Ok((source, task))
    }
}

/// The memory of one matrix's result.
struct Part<'a> {
    u: &'a mut [u8],
    s: &'a mut [f32],
    v: &'a mut [u8],
    row: &'a mut Row,
}

/// The parts of every matrix of the batch.
fn parts<'a>(out: &'a mut Svd, sizes: &'a Sizes) -> Result<impl Iterator<Item = Part<'a>> + use<'a>> {
    let rows: &mut [Row] = bytemuck::cast_slice_mut(out.table.slice_mut::<i8>()?);
    debug_assert_eq!(size_of_val(rows), sizes.batch * ROW_BYTES);
    let batch = sizes.batch;
    let u_row = out.u.dtype().bytes_of(out.u.shape().last().copied().unwrap_or(0));
    let us = slices(out.u.bytes_mut()?, (0..batch).map(move |index| sizes.rows(index).len() * u_row));
    let ss = out.s.slice_mut::<f32>()?;
    let vs = out.v.bytes_mut()?;
    let (s_len, v_len) = (ss.len() / batch, vs.len() / batch);
    let (ss, vs) = (slices(ss, (0..batch).map(move |_| s_len)), slices(vs, (0..batch).map(move |_| v_len)));
    Ok(rows.iter_mut().zip(us).zip(ss).zip(vs).map(|(((row, u), s), v)| Part { u, s, v, row }))
}

/// Slices of these lengths, which may be zero.
fn slices<T>(mut rest: &mut [T], lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = &mut [T]> {
    lengths.map(move |len| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
        rest = after;
        part
    })
}

impl Part<'_> {
    /// Has `solve` make the factors in f32, and rounds them to their dtype where it is another. False where there is no verdict.
    fn fill<'s>(
        self,
        call: &Call,
        route: Route,
        source: Source<'s>,
        memory: &mut [f64],
        solve: impl FnOnce(Source<'s>, Outputs<'_>, &mut [f64]) -> Result<Option<Verdict>>,
    ) -> Result<bool> {
        let (sizes, options) = (call.sizes, call.options);
        let wide = source.is_wide();
        let (rows, stride) = (if wide { source.columns } else { source.rows }, sizes.columns);
        let (staged, memory) = memory.split_at_mut(route.staging(rows, sizes, options));
        let Self { u, s, v, row } = self;
        let run = |u: &mut [f32], v: &mut [f32]| {
            let (tall, small) = if wide { (v, u) } else { (u, v) };
            solve(source, Outputs { tall, s, small, stride }, memory)
        };
        let verdict = if staged.is_empty() {
            run(bytemuck::cast_slice_mut(u), bytemuck::cast_slice_mut(v))?
        } else {
            let (staged_u, rest) = bytemuck::cast_slice_mut::<f64, f32>(staged).split_at_mut(rows * stride);
            let staged_v = &mut rest[..sizes.n * stride];
            let verdict = run(staged_u, staged_v)?;
            if options.output != Output::ValuesOnly {
                simd::narrow(options.factors, staged_u, u);
                simd::narrow(options.factors, staged_v, v);
            }
            verdict
        };
        if let Some(verdict) = verdict {
            *row = Row::new(verdict);
        }
        Ok(verdict.is_some())
    }
}

/// The matrix at `index` in row-major order of the leading axes and the segments.
fn matrix(a: &Tensor, sizes: &Sizes, index: usize) -> Result<Tensor> {
    let mut view = a.clone();
    let mut position = index / sizes.segments();
    for axis in (0..a.shape().len() - 2).rev() {
        view = view.select(axis, position % a.shape()[axis])?;
        position /= a.shape()[axis];
    }
    let rows = sizes.rows(index);
    view.narrow(0, rows.start, rows.len())
}
