//! The CPU path: matrices in parallel, each by one thread. Large ones go through a sketch, one after another, whose passes
//! all threads share.

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

pub(super) fn scratch_bytes(sizes: &Sizes, options: &Options) -> usize {
    share(sizes, options) * workers(sizes) * size_of::<f64>()
}

/// Matrices worked on at the same time. A sketch has all threads to itself.
fn workers(sizes: &Sizes) -> usize {
    let sketched = sizes.lengths().any(|rows| Sketch::serves(rows.min(sizes.n), sizes.columns));
    if sketched { 1 } else { rayon::current_num_threads().min(sizes.batch) }
}

/// Elements of working memory for one matrix.
fn share(sizes: &Sizes, options: &Options) -> usize {
    let of = |rows: usize| {
        let (long, short) = (rows.max(sizes.n), rows.min(sizes.n));
        let columns = sizes.columns.min(short);
        let work = match Sketch::serves(short, columns) {
            true => Sketch::elements(long, short, columns),
            false => Workspace::elements(short, columns),
        };
        work + staging(rows, sizes, options)
    };
    sizes.lengths().map(of).max().unwrap_or(0)
}

/// Elements for the factors of one matrix in f32, where they are rounded afterwards.
fn staging(rows: usize, sizes: &Sizes, options: &Options) -> usize {
    let staged = options.factors != Dtype::F32 && options.output != Output::ValuesOnly;
    if staged { ((rows + sizes.n) * sizes.columns).div_ceil(2) } else { 0 }
}

pub(super) fn truncated(
    a: &Tensor,
    sizes: &Sizes,
    rank: Rank,
    options: &Options,
    out: &mut Svd,
    scratch: &mut Scratch,
) -> Result<()> {
    let steps = Steps(options.watch.as_ref());
    steps.begin(sizes.batch)?;
    // Workers draw matrices one by one: matrices that climb the ladder take longer than others.
    let jobs = Mutex::new(parts(out, sizes)?.enumerate());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let share = share(sizes, options);
    let work = |memory: &mut [f64]| {
        while let Some((index, part)) = next() {
            let source = Source::new(matrix(a, sizes, index)?);
            let task = Task::new(rank.at_most(source.columns), options, source.is_wide());
            part.fill(sizes, options, source, memory, |source, outputs, memory| {
                if let Some(sketch) = Sketch::new(&source, &task, options.seed, memory) {
                    return sketch.solve(source, task, outputs, steps);
                }
                let mut workspace = Workspace::new(source.columns, task.rank.columns(), memory);
                Solver { source, task, workspace: &mut workspace, outputs }.solve()
            })?;
            steps.done()?;
        }
        Ok(())
    };
    let memory = scratch.take::<f64>(workers(sizes) * share)?;
    memory.par_chunks_exact_mut(share).try_for_each(work)
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
    /// Has `solve` make the factors in f32, and rounds them to their dtype where it is another.
    fn fill<'s>(
        self,
        sizes: &Sizes,
        options: &Options,
        source: Source<'s>,
        memory: &mut [f64],
        solve: impl FnOnce(Source<'s>, Outputs<'_>, &mut [f64]) -> Result<Verdict>,
    ) -> Result<()> {
        let wide = source.is_wide();
        let (rows, stride) = (if wide { source.columns } else { source.rows }, sizes.columns);
        let (staged, memory) = memory.split_at_mut(staging(rows, sizes, options));
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
            simd::narrow(options.factors, staged_u, u);
            simd::narrow(options.factors, staged_v, v);
            verdict
        };
        *row = Row::new(verdict);
        Ok(())
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
