//! Large matrices of small rank: a few blocks of a Krylov space, and the Gram route on what the matrix is within it.
//!
//! In the tall orientation, A [rows, columns]: K holds orthonormal blocks of b columns, the first spanning A' Omega for a
//! Omega of random signs, each next one what A'A makes of the one before, orthogonal to all of them; and Z = A K. Then A ~ Z K',
//! and from Z = P S W' follows A ~ P S (K W)' (Musco and Musco, "Randomized block Krylov methods for stronger and faster
//! approximate singular value decomposition", NIPS 2015; Halko, Martinsson and Tropp, SIAM Review 53, 2011, for the rest).
//!
//! Every product is made in panels of a fixed size, each by one thread, so bits do not depend on how many there are.

use std::ops::Range;

use faer::{MatMut, MatRef};

use super::{
    GRAM_COLUMNS, Info, Mode, Rank, Rung, Verdict,
    dense::{Pivots, cholesky, invert, reflect_columns},
    kernels::PAD,
    panels::{DEPTH, PANEL, TILES, add_product, chunks, larger, moments_of, panels, rows_of, squared_lengths},
    solver::{Outputs, SAFE_ENERGY, Solver, Task, Workspace},
    source::Source,
    stopping::{Wanted, wanted},
    vector::sum_of_squares,
    watch::Steps,
};
use crate::{Result, philox::Stream};

/// Columns beyond the rank that the smallest useful space has.
const OVERSAMPLING: usize = 8;
/// Blocks that there is room for beyond those to begin with.
const MORE: usize = 4;
/// A pass that leaves this share of a column's squared length has orthogonalized it.
const KEPT: f64 = 0.5;
const ROUNDS: usize = 8;
/// Threads that share what is solved within the space, each with memory for a square of its width.
const DESKS: usize = 8;
/// Columns whose Cholesky pivots keep this share of their diagonal are orthonormalized by way of their moments.
const PIVOTS: Pivots = Pivots { share: 1e-5, diagonal: 0.0 };
/// A column of which less than this share of its squared length is left holds noise alone.
const NOISE: f64 = 1e-12;
/// Below this share of the energy, what is left out is measured entry by entry.
const MEASURED: f64 = 1e-4;
/// Rounding of the factors to f32: kept free below a tolerance.
const OUTPUT_ROUNDING: f64 = 2e-7;

/// Widths of the space for one rank.
#[derive(Clone, Copy)]
struct Plan {
    /// Columns of a block.
    block: usize,
    /// Blocks to begin with, and at most.
    first: usize,
    most: usize,
}

impl Plan {
    /// Where the larger of the spaces to begin with is no more than half of all `columns`.
    fn new(columns: usize, rank: usize, mode: Mode) -> Option<Self> {
        let needed = rank + OVERSAMPLING;
        // Whole registers, and four of them where there is room: products of other widths are slower.
        let quarter = ((needed + 32) / 64 * 16).max(16);
        let block = if quarter < 64 { quarter } else { (quarter / 64 * 64).min(256) };
        let [fast, safe] = [needed * 13 / 8, needed * 2].map(|width| width.div_ceil(block).max(3));
        let most = (6 * needed).div_ceil(block).min(columns / 2 / block).max(safe + MORE).min(columns / block - 1);
        let first = if mode == Mode::Fast { fast } else { safe };
        (2 * safe * block <= columns).then_some(Self { block, first, most })
    }

    /// Columns of the largest space.
    fn width(&self) -> usize {
        self.most * self.block
    }

    /// Elements from one row to the next: no power of two, whose rows would fall on each other in the caches.
    fn stride(&self) -> usize {
        self.width() + PAD
    }
}

/// Where a sketch ended: the rung of the route within its blocks, and the energy left out.
struct Found {
    rung: Rung,
    left: f64,
}

/// The memory of one sketch.
pub(super) struct Sketch<'a> {
    plan: Plan,
    /// Blocks that began from signs of their own.
    beginnings: usize,
    rows: usize,
    columns: usize,
    /// [columns, stride]
    k: &'a mut [f32],
    /// [rows, stride]
    z: &'a mut [f32],
    /// The block to come, [columns, block]; between blocks, the small factor with its scale.
    next: &'a mut [f32],
    /// [width, the larger of block and rank]
    mix: &'a mut [f32],
    /// Two tiles for each thread.
    tiles: &'a mut [f32],
    /// Two squares of a block.
    squares: &'a mut [f64],
    /// Not zero for the columns of `next` that hold noise alone.
    noise: &'a mut [f64],
    seed: u64,
    /// The singular values of Z.
    s: &'a mut [f32],
    work: &'a mut [f64],
}

impl<'a> Sketch<'a> {
    /// Whether matrices with so many columns in the tall orientation are sketched.
    pub(super) fn serves(columns: usize, rank: usize) -> bool {
        columns > GRAM_COLUMNS && Plan::new(columns, rank, Mode::Safe).is_some()
    }

    fn lengths(plan: Plan, rows: usize, columns: usize, rank: usize) -> [usize; 9] {
        let (width, block) = (plan.width(), plan.block);
        let singles = [columns * plan.stride(), rows * plan.stride(), columns * block.max(rank), width * block.max(rank)];
        let [k, z, next, mix] = singles.map(|len| len.div_ceil(2));
        let threads = rayon::current_num_threads();
        let (tiles, work) = (TILES / 2 * threads, Workspace::elements(width, rank, threads.min(DESKS)));
        [k, z, next, mix, tiles, 2 * block * block, block, rank.div_ceil(2), work]
    }

    /// Elements for matrices of `rows` x `columns` in the tall orientation, which [`Sketch::serves`].
    pub(super) fn elements(rows: usize, columns: usize, rank: usize) -> usize {
        let plan = Plan::new(columns, rank, Mode::Safe);
        plan.map_or(0, |plan| Self::lengths(plan, rows, columns, rank).iter().sum())
    }

    /// Nothing for a matrix that it does not serve.
    pub(super) fn new(source: &Source, task: &Task, seed: u64, memory: &'a mut [f64]) -> Option<Self> {
        let rank = task.rank.columns();
        let plan = Plan::new(source.columns, rank, task.mode).filter(|_| source.columns > GRAM_COLUMNS)?;
        let mut rest = memory;
        let [k, z, next, mix, tiles, squares, noise, s, work] =
            Self::lengths(plan, source.rows, source.columns, rank).map(|len| {
                let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
                rest = tail;
                part
            });
        let [k, z, next, mix, tiles, s] = [k, z, next, mix, tiles, s].map(bytemuck::cast_slice_mut);
        Some(Self {
            plan,
            beginnings: 0,
            rows: source.rows,
            columns: source.columns,
            k,
            z,
            next,
            mix,
            tiles,
            squares,
            noise,
            seed,
            s: &mut s[..rank],
            work,
        })
    }

    /// The factorization; nothing when the sketch cannot keep its promise.
    pub(super) fn solve(mut self, mut source: Source, task: Task, outputs: Outputs, steps: Steps) -> Result<Option<Verdict>> {
        let mut energy = self.energy(&source)?;
        if !SAFE_ENERGY.contains(&energy) {
            let largest = self.largest(&source)?;
            if !largest.is_finite() {
                return Ok(Some(outputs.void(Info::NonFinite)));
            }
            if largest == 0.0 {
                return Ok(Some(outputs.zero(&task)));
            }
            source.scale = f64::from(largest).log2().floor().exp2().recip();
            energy = self.energy(&source)?;
        }
        let Outputs { tall, s: s_out, small, stride } = outputs;
        debug_assert_eq!(stride, task.rank.columns(), "a matrix that is sketched has more columns than are asked for");
        let mut parts = Outputs { tall, s: std::mem::take(&mut self.s), small, stride };
        let Some(found) = self.converge(energy, &source, &task, &mut parts, steps)? else { return Ok(None) };
        let (rank, left) = cut(&mut parts, &task, found.left, energy);
        unscale(&mut parts, &task, source.scale);
        s_out.iter_mut().zip(&*parts.s).for_each(|(to, from)| *to = *from);
        Ok(Some(Verdict { rank, info: Info::Sketched(found.rung), tail: (left / energy).sqrt() as f32 }))
    }

    /// The sum of the squares of all entries.
    fn energy(&mut self, source: &Source) -> Result<f64> {
        let count = source.rows.div_ceil(PANEL);
        let mut sums = vec![0.0f64; count];
        panels(&mut sums, 1, self.tiles, |panel, sum, tile| {
            for depth in chunks(source.columns) {
                let tile = source.tile(rows_of(panel, source.rows), depth, tile)?;
                // As it lies in memory.
                let tile = if tile.col_stride() == 1 { tile } else { tile.transpose() };
                for i in 0..tile.nrows() {
                    sum[0] += tile.row(i).try_as_row_major().map_or(f64::NAN, |row| sum_of_squares(row.as_slice()));
                }
            }
            Ok(())
        })?;
        Ok(sums.iter().sum())
    }

    /// The largest magnitude; NaN when an entry is not finite.
    fn largest(&mut self, source: &Source) -> Result<f32> {
        let mut largest = vec![0.0f32; source.rows.div_ceil(PANEL)];
        panels(&mut largest, 1, self.tiles, |panel, largest, tile| {
            for depth in chunks(source.columns) {
                let tile = source.tile(rows_of(panel, source.rows), depth, tile)?;
                let entries = (0..tile.nrows()).flat_map(|i| (0..tile.ncols()).map(move |j| tile[(i, j)].abs()));
                largest[0] = entries.fold(largest[0], larger);
                if !largest[0].is_finite() {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(largest.into_iter().fold(0.0, larger))
    }

    /// Makes these blocks of K and Z, the first of them from new signs where it `begins`; false when one was not to be had.
    fn grow(&mut self, blocks: Range<usize>, begins: bool, source: &Source, steps: Steps) -> Result<bool> {
        steps.more(2 * blocks.len());
        for index in blocks.clone() {
            if begins && index == blocks.start {
                self.begin(source, index)?;
            } else {
                self.times_transpose(source, index - 1)?;
            }
            steps.done()?;
            if !self.orthonormalize(index)? {
                return Ok(false);
            }
            self.times(source, index)?;
            steps.done()?;
        }
        Ok(true)
    }

    /// next = A' Omega. Omega is kept where this block of Z will be.
    fn begin(&mut self, source: &Source, index: usize) -> Result<()> {
        let (block, width) = (self.plan.block, self.plan.stride());
        let random = Stream::new(self.seed, 0);
        let before = index * self.rows * block / 16;
        for (i, row) in self.z.chunks_exact_mut(width).take(self.rows).enumerate() {
            // A block has whole halves of words.
            let signs = row[index * block..][..block].chunks_exact_mut(16);
            for (signs, half) in signs.zip((before + i * block / 16) as u64..) {
                let word = random.bits(half / 2) >> (half % 2 * 16);
                signs.iter_mut().enumerate().for_each(|(bit, x)| *x = if word >> bit & 1 == 0 { 1.0 } else { -1.0 });
            }
        }
        self.beginnings += 1;
        self.times_transpose(source, index)
    }

    /// next = A' Z of one block.
    fn times_transpose(&mut self, source: &Source, index: usize) -> Result<()> {
        let (block, width) = (self.plan.block, self.plan.stride());
        let z = MatRef::from_row_major_slice(&self.z[..self.rows * width], self.rows, width).subcols(index * block, block);
        panels(&mut self.next[..self.columns * block], PANEL * block, self.tiles, |panel, out, tile| {
            let columns = rows_of(panel, source.columns);
            let (tile, rest) = tile.split_at_mut(PANEL * DEPTH);
            // By columns, as the product reads A', and then turned.
            let mut sums = MatMut::from_column_major_slice_mut(&mut rest[..columns.len() * block], columns.len(), block);
            for depth in chunks(source.rows) {
                let tile = source.tile(depth.clone(), columns.clone(), tile)?;
                add_product(sums.as_mut(), depth.start == 0, tile.transpose(), z.subrows(depth.start, depth.len()), 1.0);
            }
            MatMut::from_row_major_slice_mut(out, columns.len(), block).copy_from(sums);
            Ok(())
        })
    }

    /// Z = A K of one block.
    fn times(&mut self, source: &Source, index: usize) -> Result<()> {
        let (block, width) = (self.plan.block, self.plan.stride());
        let k =
            MatRef::from_row_major_slice(&self.k[..self.columns * width], self.columns, width).subcols(index * block, block);
        panels(&mut self.z[..self.rows * width], PANEL * width, self.tiles, |panel, out, tile| {
            let rows = rows_of(panel, source.rows);
            let mut out = MatMut::from_row_major_slice_mut(out, rows.len(), width).subcols_mut(index * block, block);
            for depth in chunks(source.columns) {
                let tile = source.tile(rows.clone(), depth.clone(), tile)?;
                add_product(out.as_mut(), depth.start == 0, tile, k.subrows(depth.start, depth.len()), 1.0);
            }
            Ok(())
        })
    }

    /// Block `index` of K: what `next` has beside the blocks before, orthonormal. False when that was not to be had.
    fn orthonormalize(&mut self, index: usize) -> Result<bool> {
        let (block, width) = (self.plan.block, self.plan.stride());
        let mut kept = 0.0;
        for round in 0..ROUNDS {
            let before = squared_lengths(&self.next[..self.columns * block], block);
            self.remove_blocks(index)?;
            kept = self.normalize(&before)?;
            // Columns of length one that lose little are orthogonal to the others.
            if kept >= KEPT && round > 0 {
                break;
            }
            self.refill(index, round);
        }
        for (to, from) in self.k.chunks_exact_mut(width).take(self.columns).zip(self.next.chunks_exact(block)) {
            to[index * block..][..block].copy_from_slice(from);
        }
        Ok(kept >= KEPT)
    }

    /// Replaces the columns of `next` that hold noise by random signs, of which the other columns and blocks have little.
    fn refill(&mut self, index: usize, round: usize) {
        let (block, columns) = (self.plan.block, self.columns);
        let length = 1.0 / (columns as f32).sqrt();
        for column in (0..block).filter(|column| self.noise[*column] != 0.0) {
            let random = Stream::new(self.seed, 1 + ((index * ROUNDS + round) * block + column) as u64);
            for (row, i) in self.next[..columns * block].chunks_exact_mut(block).zip(0..) {
                row[column] = if random.bits(i) & 1 == 0 { length } else { -length };
            }
        }
    }

    /// next -= K K' next, over the first blocks of K.
    fn remove_blocks(&mut self, blocks: usize) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let (block, width, columns) = (self.plan.block, self.plan.stride(), self.columns);
        let k = MatRef::from_row_major_slice(&self.k[..columns * width], columns, width).subcols(0, blocks * block);
        let next = MatRef::from_row_major_slice(&self.next[..columns * block], columns, block);
        panels(&mut self.mix[..blocks * block * block], block * block, self.tiles, |index, out, _| {
            let mut out = MatMut::from_row_major_slice_mut(out, block, block);
            let k = k.subcols(index * block, block).transpose();
            for depth in chunks(columns) {
                let next = next.subrows(depth.start, depth.len());
                add_product(out.as_mut(), depth.start == 0, k.subcols(depth.start, depth.len()), next, 1.0);
            }
            Ok(())
        })?;
        let mix = MatRef::from_row_major_slice(&self.mix[..blocks * block * block], blocks * block, block);
        panels(&mut self.next[..columns * block], PANEL * block, self.tiles, |panel, out, _| {
            let part = rows_of(panel, columns);
            let out = MatMut::from_row_major_slice_mut(out, part.len(), block);
            add_product(out, false, k.subrows(part.start, part.len()), mix, -1.0);
            Ok(())
        })
    }

    /// Makes the columns of `next` orthonormal: by the Cholesky factor of their moments, or where that fails by Householder
    /// reflections. Returns the least squared length that a column had beside those before it; zero where that was next to
    /// nothing. Columns of which only noise is left, of the squared lengths `before`, are marked.
    fn normalize(&mut self, before: &[f64]) -> Result<f64> {
        let (block, columns) = (self.plan.block, self.columns);
        let next = &mut self.next[..columns * block];
        let (moments, inverse) = self.squares.split_at_mut(block * block);
        let inverse = &mut inverse[..block * block];
        moments_of(next, block, moments, self.tiles)?;
        for (i, (noise, before)) in self.noise.iter_mut().zip(before).enumerate() {
            *noise = f64::from(u8::from(moments[i * block + i] <= NOISE * before));
        }
        if self.noise.iter().any(|noise| *noise != 0.0) {
            return Ok(0.0);
        }
        if !cholesky(moments, block, block, PIVOTS) {
            let lengths = squared_lengths(next, block);
            let kept = reflect_columns(next, block);
            for ((noise, length), kept) in self.noise.iter_mut().zip(lengths).zip(kept) {
                *noise = f64::from(u8::from(f64::from(kept).powi(2) <= NOISE * length));
            }
            return Ok(0.0);
        }
        let least = (0..block).map(|i| moments[i * block + i].powi(2)).fold(f64::INFINITY, f64::min);
        invert(moments, inverse, block, block);
        let factor: &mut [f32] = bytemuck::cast_slice_mut(moments);
        factor.iter_mut().zip(&*inverse).for_each(|(to, from)| *to = *from as f32);
        let factor = MatRef::from_row_major_slice(&factor[..block * block], block, block);
        panels(next, PANEL * block, self.tiles, |_, rows, tile| {
            let old = &mut tile[..rows.len()];
            old.copy_from_slice(rows);
            let count = rows.len() / block;
            let old = MatRef::from_row_major_slice(old, count, block);
            add_product(MatMut::from_row_major_slice_mut(rows, count, block), true, old, factor, 1.0);
            Ok(())
        })?;
        Ok(least)
    }

    /// Grows a space and solves Z, until more columns would bring in next to nothing. Nothing when they would not fit.
    fn converge(
        &mut self,
        energy: f64,
        source: &Source,
        task: &Task,
        parts: &mut Outputs,
        steps: Steps,
    ) -> Result<Option<Found>> {
        let (mut blocks, mut want, mut begins) = (0, self.plan.first, true);
        loop {
            if !self.grow(blocks..want, begins, source, steps)? {
                return Ok(None);
            }
            blocks = want;
            let Info::Solved(rung) = self.inner(blocks, *task, parts.tall, parts.s, steps)?.info else { return Ok(None) };
            let mut left = energy - parts.s.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
            let measured = left < MEASURED * energy;
            if measured {
                left = self.measured(blocks, source, task, parts)?;
            }
            (want, begins) = match self.wanted(blocks, parts.s, [left, energy], task.mode)? {
                Wanted::Steps(count) if blocks < self.plan.most => (self.plan.most.min(blocks + count), false),
                Wanted::Beginning if blocks + 2 <= self.plan.most => (blocks + 2, true),
                Wanted::Nothing => {
                    if !matches!(task.rank, Rank::Fixed(_)) && !measured {
                        left = self.measured(blocks, source, task, parts)?;
                    } else if !measured {
                        self.small_factor(blocks, task, parts)?;
                    }
                    return Ok(Some(Found { rung, left }));
                }
                _ => return Ok(None),
            };
            tracing::debug!(blocks, want, "a sketch needs more blocks");
        }
    }

    /// What the factors of so many blocks leave out, entry by entry.
    fn measured(&mut self, blocks: usize, source: &Source, task: &Task, parts: &mut Outputs) -> Result<f64> {
        self.small_factor(blocks, task, parts)?;
        self.left_out(source, task, parts)
    }

    /// The Gram route on the first blocks of Z; W lies in `mix` then.
    fn inner(&mut self, blocks: usize, task: Task, tall: &mut [f32], s: &mut [f32], steps: Steps) -> Result<Verdict> {
        let (width, rank) = (blocks * self.plan.block, task.rank.columns());
        let source = Source::plain(&self.z[..self.rows * self.plan.stride()], width, self.plan.stride());
        let mut workspace = Workspace::new(width, rank, rayon::current_num_threads().min(DESKS), self.work);
        // A tolerance is met afterwards, for what the sketch leaves out counts as well, and so are scales.
        let task = Task { rank: Rank::Fixed(rank), small_is_scaled: false, ..task };
        let outputs = Outputs { tall, s, small: &mut self.mix[..width * rank], stride: rank };
        Solver { source, task, workspace: &mut workspace, outputs, steps }.solve()
    }

    fn wanted(&mut self, blocks: usize, s: &[f32], left_of: [f64; 2], mode: Mode) -> Result<Wanted> {
        let columns = self.beginnings * self.plan.block;
        wanted(s, left_of, mode, columns, || Ok([self.gains(blocks, 1, s)?, self.gains(blocks, 2, s)?]))
    }

    /// Energy that the last `count` blocks brought to each singular value, at most. Where T w = t w for T = Z'Z and w = (v, x)
    /// with x the part in those blocks, v in the space of the others has the Rayleigh quotient t - (t x'x - x'Cx) / v'v, C being
    /// their corner of T.
    fn gains(&mut self, blocks: usize, count: usize, s: &[f32]) -> Result<Vec<f64>> {
        let (block, width, rank) = (self.plan.block, self.plan.stride(), s.len());
        let (first, len) = ((blocks - count) * block, count * block);
        let z = MatRef::from_row_major_slice(&self.z[..self.rows * width], self.rows, width).subcols(first, len);
        let x = MatRef::from_row_major_slice(&self.mix[first * rank..][..len * rank], len, rank);
        // Z x, a panel at a time: its columns have the squared lengths x'Cx.
        let mut lengths = vec![0.0f64; self.rows.div_ceil(PANEL) * rank];
        panels(&mut lengths, rank, self.tiles, |panel, lengths, tiles| {
            let rows = rows_of(panel, self.rows);
            for columns in chunks(rank) {
                let product = &mut tiles[..rows.len() * columns.len()];
                let out = MatMut::from_row_major_slice_mut(product, rows.len(), columns.len());
                let part = x.subcols(columns.start, columns.len());
                add_product(out, true, z.subrows(rows.start, rows.len()), part, 1.0);
                for row in product.chunks_exact(columns.len()) {
                    lengths[columns.clone()].iter_mut().zip(row).for_each(|(sum, y)| *sum += f64::from(*y).powi(2));
                }
            }
            Ok(())
        })?;
        let mut curved = vec![0.0f64; rank];
        for lengths in lengths.chunks_exact(rank) {
            curved.iter_mut().zip(lengths).for_each(|(sum, length)| *sum += length);
        }
        let lost = |(i, curved): (usize, &f64)| {
            let held: f64 = (0..len).map(|j| f64::from(x[(j, i)]).powi(2)).sum();
            (f64::from(s[i]).powi(2) * held - curved).max(0.0) / (1.0 - held).max(0.5)
        };
        Ok(curved.iter().enumerate().map(lost).collect())
    }

    /// small = K W, with the signs of V.
    fn small_factor(&mut self, blocks: usize, task: &Task, found: &mut Outputs) -> Result<()> {
        let (inner, width, rank) = (blocks * self.plan.block, self.plan.stride(), task.rank.columns());
        let k = MatRef::from_row_major_slice(&self.k[..self.columns * width], self.columns, width).subcols(0, inner);
        let w = MatRef::from_row_major_slice(&self.mix[..inner * rank], inner, rank);
        panels(found.small, PANEL * rank, self.tiles, |panel, out, _| {
            let rows = rows_of(panel, self.columns);
            let out = MatMut::from_row_major_slice_mut(out, rows.len(), rank);
            add_product(out, true, k.subrows(rows.start, rows.len()), w, 1.0);
            Ok(())
        })?;
        if task.small_is_scaled {
            for row in found.small.chunks_exact_mut(rank) {
                row.iter_mut().zip(&*found.s).for_each(|(x, s)| *x *= s);
            }
        }
        if !task.tall_is_v {
            let mut largest = vec![0.0f32; rank];
            for row in found.small.chunks_exact(rank) {
                for (largest, x) in largest.iter_mut().zip(row) {
                    if x.abs() > largest.abs() {
                        *largest = *x;
                    }
                }
            }
            for row in found.small.chunks_exact_mut(rank).chain(found.tall.chunks_exact_mut(rank)) {
                row.iter_mut().zip(&largest).for_each(|(x, largest)| *x *= 1f32.copysign(*largest));
            }
        }
        Ok(())
    }

    /// The sum of the squares of all entries of what the factors leave out.
    fn left_out(&mut self, source: &Source, task: &Task, found: &Outputs) -> Result<f64> {
        let rank = task.rank.columns();
        let small = &mut self.next[..self.columns * rank];
        small.copy_from_slice(found.small);
        if !task.tall_is_scaled && !task.small_is_scaled {
            for row in small.chunks_exact_mut(rank) {
                row.iter_mut().zip(&*found.s).for_each(|(x, s)| *x *= s);
            }
        }
        let small = MatRef::from_row_major_slice(small, self.columns, rank);
        let tall = MatRef::from_row_major_slice(&*found.tall, self.rows, rank);
        let mut sums = vec![0.0f64; source.rows.div_ceil(PANEL)];
        panels(&mut sums, 1, self.tiles, |panel, sum, tiles| {
            let (tile, rest) = tiles.split_at_mut(PANEL * DEPTH);
            let rows = rows_of(panel, source.rows);
            for depth in chunks(source.columns) {
                let tile = source.tile(rows.clone(), depth.clone(), tile)?;
                let mut left = MatMut::from_row_major_slice_mut(&mut rest[..rows.len() * depth.len()], rows.len(), depth.len());
                left.copy_from(tile);
                let columns = small.subrows(depth.start, depth.len());
                add_product(left.as_mut(), false, tall.subrows(rows.start, rows.len()), columns.transpose(), -1.0);
                sum[0] += sum_of_squares(&rest[..rows.len() * depth.len()]);
            }
            Ok(())
        })?;
        Ok(sums.iter().sum())
    }
}

/// The rank that a tolerance asks for, with zeros in the columns beyond, and the energy that is left out then. `left` is
/// what all columns together leave out.
fn cut(found: &mut Outputs, task: &Task, mut left: f64, energy: f64) -> (usize, f64) {
    let columns = task.rank.columns();
    let Rank::Tolerance { relative, .. } = task.rank else { return (columns, left) };
    let tolerated = energy * (relative * relative - OUTPUT_ROUNDING * OUTPUT_ROUNDING);
    let mut rank = columns;
    while rank > 0 && left + f64::from(found.s[rank - 1]).powi(2) <= tolerated {
        rank -= 1;
        left += f64::from(found.s[rank]).powi(2);
    }
    found.s[rank..].fill(0.0);
    for row in found.tall.chunks_exact_mut(columns).chain(found.small.chunks_exact_mut(columns)) {
        row[rank..].fill(0.0);
    }
    (rank, left)
}

/// Undoes the scale that entries were read with.
fn unscale(found: &mut Outputs, task: &Task, scale: f64) {
    if scale == 1.0 {
        return;
    }
    let undo = |x: &mut f32| *x = (f64::from(*x) / scale) as f32;
    found.s.iter_mut().for_each(undo);
    if task.tall_is_scaled {
        found.tall.iter_mut().for_each(undo);
    }
    if task.small_is_scaled {
        found.small.iter_mut().for_each(undo);
    }
}
