//! The CPU path: matrices in parallel, each by one thread.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{
    Options, Output, Rank, Sizes, Svd, Verdict,
    solver::{Outputs, Solver, Task, Workspace},
    source::Source,
    verdict::{ROW_BYTES, Row},
    watch::Steps,
};
use crate::{Dtype, Result, Scratch, Tensor, device::simd};

pub(super) fn scratch_bytes(sizes: Sizes, options: &Options) -> usize {
    share(&sizes, options) * workers(&sizes) * size_of::<f64>()
}

/// Matrices worked on at the same time.
fn workers(sizes: &Sizes) -> usize {
    rayon::current_num_threads().min(sizes.batch)
}

/// Elements of working memory for one matrix.
fn share(sizes: &Sizes, options: &Options) -> usize {
    Workspace::elements(sizes.m.min(sizes.n), sizes.columns) + staging(sizes, options)
}

/// Elements for factors in f32 that are rounded afterwards.
fn staging(sizes: &Sizes, options: &Options) -> usize {
    let staged = options.factors != Dtype::F32 && options.output != Output::ValuesOnly;
    if staged { ((sizes.m + sizes.n) * sizes.columns).div_ceil(2) } else { 0 }
}

pub(super) fn truncated(
    a: &Tensor,
    sizes: Sizes,
    rank: Rank,
    options: &Options,
    out: &mut Svd,
    scratch: &mut Scratch,
) -> Result<()> {
    let steps = Steps(options.watch.as_ref());
    steps.begin(sizes.batch)?;
    // Workers draw matrices one by one: matrices that climb the ladder take longer than others.
    let jobs = Mutex::new(parts(out, &sizes)?.enumerate());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let share = share(&sizes, options);
    let work = |memory: &mut [f64]| {
        while let Some((index, part)) = next() {
            let source = Source::new(matrix(a, index)?);
            let task = Task::new(rank, options, source.is_wide());
            part.fill(&sizes, options, source, memory, |source, outputs, memory| {
                let mut workspace = Workspace::new(source.columns, sizes.columns, memory);
                Solver { source, task, outside: 0.0, workspace: &mut workspace, outputs }.solve()
            })?;
            steps.done()?;
        }
        Ok(())
    };
    let memory = scratch.take::<f64>(workers(&sizes) * share)?;
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
fn parts<'a>(out: &'a mut Svd, sizes: &Sizes) -> Result<impl Iterator<Item = Part<'a>> + use<'a>> {
    let rows: &mut [Row] = bytemuck::cast_slice_mut(out.table.slice_mut::<i8>()?);
    debug_assert_eq!(size_of_val(rows), sizes.batch * ROW_BYTES);
    let us = equal_parts(out.u.bytes_mut()?, sizes.batch);
    let ss = equal_parts(out.s.slice_mut::<f32>()?, sizes.batch);
    let vs = equal_parts(out.v.bytes_mut()?, sizes.batch);
    Ok(rows.iter_mut().zip(us).zip(ss).zip(vs).map(|(((row, u), s), v)| Part { u, s, v, row }))
}

/// `count` slices of the same length, which may be zero.
fn equal_parts<T>(mut rest: &mut [T], count: usize) -> impl Iterator<Item = &mut [T]> {
    let each = rest.len() / count.max(1);
    (0..count).map(move |_| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(each);
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
        let (staged, memory) = memory.split_at_mut(staging(sizes, options));
        let Self { u, s, v, row } = self;
        let wide = source.is_wide();
        let run = |u: &mut [f32], v: &mut [f32]| {
            let (tall, small) = if wide { (v, u) } else { (u, v) };
            solve(source, Outputs { tall, s, small }, memory)
        };
        let verdict = if staged.is_empty() {
            run(bytemuck::cast_slice_mut(u), bytemuck::cast_slice_mut(v))?
        } else {
            let (staged_u, rest) = bytemuck::cast_slice_mut::<f64, f32>(staged).split_at_mut(sizes.m * sizes.columns);
            let staged_v = &mut rest[..sizes.n * sizes.columns];
            let verdict = run(staged_u, staged_v)?;
            simd::narrow(options.factors, staged_u, u);
            simd::narrow(options.factors, staged_v, v);
            verdict
        };
        *row = Row::new(verdict);
        Ok(())
    }
}

/// The matrix at `index` in row-major order of the leading axes.
fn matrix(a: &Tensor, mut index: usize) -> Result<Tensor> {
    let mut view = a.clone();
    for axis in (0..a.shape().len() - 2).rev() {
        view = view.select(axis, index % a.shape()[axis])?;
        index /= a.shape()[axis];
    }
    Ok(view)
}
