//! The CPU path. Magnitudes are compared as integers: the bits of a float without its sign, its *key*, are in the order
//! of magnitude.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Pod;
use rayon::prelude::*;

use super::{Mask, Scope, infinity, nan_at};
use crate::{Dtype, Result, Scratch, Tensor, device::simd::multiversion};

/// Bins of a digit of [`select_in_tensor`]: a 31-bit key has two digits.
const BINS: usize = 1 << 16;
/// Columns of a word of the mask.
const WORD: usize = 32;
/// Elements below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 15;

pub(super) fn scratch_bytes(rows: usize, cols: usize, scope: Scope) -> usize {
    workers(rows, cols) * words_of_worker(cols, scope) * size_of::<u32>()
}

fn workers(rows: usize, cols: usize) -> usize {
    rayon::current_num_threads().min(rows).min((rows * cols).div_ceil(WORTH_A_THREAD)).max(1)
}

/// Working memory of one thread: the keys of a row, and what its scope adds to them.
fn words_of_worker(cols: usize, scope: Scope) -> usize {
    match scope {
        Scope::Row { .. } => 2 * cols,
        Scope::Pattern { .. } => cols,
        Scope::Tensor { .. } => cols + BINS,
    }
}

/// A block of consecutive rows, which one thread works on.
struct Block<'a> {
    first: usize,
    rows: &'a [&'a [u8]],
    bits: &'a mut [u8],
    memory: &'a mut [u32],
}

pub(super) fn mask(out: &mut Mask, scores: &Tensor, scope: Scope, scratch: &mut Scratch) -> Result<()> {
    let (cols, row_bytes) = (out.cols(), out.row_bytes());
    let rows: Vec<&[u8]> = scores.rows()?.collect();
    let workers = workers(rows.len(), cols);
    let share = rows.len().div_ceil(workers);
    let words = words_of_worker(cols, scope);
    let bits = bytemuck::cast_slice_mut::<i8, u8>(out.bits.slice_mut()?).chunks_mut(share * row_bytes);
    let memory = scratch.take::<u32>(workers * words)?.chunks_exact_mut(words);
    let parts = rows.chunks(share).zip(bits).zip(memory).enumerate();
    let blocks: Vec<Block<'_>> =
        parts.map(|(i, ((rows, bits), memory))| Block { first: i * share, rows, bits, memory }).collect();
    let keys = Keys { dtype: scores.dtype(), cols, row_bytes, first_nan: AtomicUsize::new(usize::MAX) };
    match scope {
        Scope::Row { keep } => keys.of_every_row(blocks, |keys, rest, bits| {
            let (threshold, mut ties) = kth_largest(keys, rest, keep);
            write_kept(keys, threshold, &mut ties, bits);
        }),
        Scope::Pattern { n, m } => keys.of_every_row(blocks, |keys, _, bits| write_pattern(keys, n, m, bits)),
        Scope::Tensor { keep } => keys.select_in_tensor(blocks, keep),
    }
    match keys.first_nan.into_inner() {
        usize::MAX => Ok(()),
        at => Err(nan_at(at, cols)),
    }
}

/// How rows become keys.
struct Keys {
    dtype: Dtype,
    cols: usize,
    row_bytes: usize,
    /// Row-major index of the first NaN met; `usize::MAX` while there is none.
    first_nan: AtomicUsize,
}

impl Keys {
    /// The keys of the row at `index`; remembers a NaN.
    fn read(&self, index: usize, row: &[u8], keys: &mut [u32]) {
        let infinity = infinity(self.dtype);
        let largest = match self.dtype {
            Dtype::F32 => keys_of_32(bytemuck::cast_slice(row), keys),
            _ => keys_of_16(bytemuck::cast_slice(row), keys),
        };
        if largest > infinity
            && let Some(col) = keys.iter().position(|key| *key > infinity)
        {
            self.first_nan.fetch_min(index * self.cols + col, Ordering::Relaxed);
        }
    }

    /// Calls `write` with the keys of each row, what is left of its thread's memory, and the bits to set.
    fn of_every_row(&self, blocks: Vec<Block<'_>>, write: impl Fn(&[u32], &mut [u32], &mut [u8]) + Sync) {
        blocks.into_par_iter().for_each(|block| {
            let (keys, rest) = block.memory.split_at_mut(self.cols);
            for (i, (row, bits)) in block.rows.iter().zip(block.bits.chunks_exact_mut(self.row_bytes)).enumerate() {
                self.read(block.first + i, row, keys);
                write(keys, rest, bits);
            }
        });
    }

    /// Finds the threshold digit by digit, the upper half of the keys first, from counts that each thread keeps of its
    /// own rows. The last counts also say how many ties lie in the rows before a block.
    fn select_in_tensor(&self, mut blocks: Vec<Block<'_>>, keep: usize) {
        if keep == 0 {
            // The same walk, to find a NaN.
            return self.of_every_row(blocks, |_, _, bits| bits.fill(0));
        }
        let (upper, left) = match self.dtype {
            Dtype::F32 => self.digit(&mut blocks, keep, |key| Some(key >> 16)),
            _ => (0, keep),
        };
        let (lower, mut left) = self.digit(&mut blocks, left, |key| (key >> 16 == upper).then_some(key & 0xffff));
        let quotas: Vec<usize> = blocks
            .iter()
            .map(|block| {
                let quota = left.min(block.memory[self.cols + lower as usize] as usize);
                left -= quota;
                quota
            })
            .collect();
        let threshold = upper << 16 | lower;
        blocks.into_par_iter().zip(quotas).for_each(|(block, mut ties)| {
            let keys = &mut block.memory[..self.cols];
            for (i, (row, bits)) in block.rows.iter().zip(block.bits.chunks_exact_mut(self.row_bytes)).enumerate() {
                self.read(block.first + i, row, keys);
                write_kept(keys, threshold, &mut ties, bits);
            }
        });
    }

    /// The digit that the `keep`-th largest key has among those that `digit_of` selects, and how many of the keys with
    /// that digit are within the `keep` largest.
    fn digit(&self, blocks: &mut [Block<'_>], keep: usize, digit_of: impl Fn(u32) -> Option<u32> + Sync) -> (u32, usize) {
        blocks.par_iter_mut().for_each(|block| {
            let (keys, counts) = block.memory.split_at_mut(self.cols);
            counts.fill(0);
            for (i, row) in block.rows.iter().enumerate() {
                self.read(block.first + i, row, keys);
                keys.iter().filter_map(|key| digit_of(*key)).for_each(|digit| counts[digit as usize] += 1);
            }
        });
        let mut left = keep;
        for digit in (0..BINS).rev() {
            let count: usize = blocks.iter().map(|block| block.memory[self.cols + digit] as usize).sum();
            if left <= count {
                return (digit as u32, left);
            }
            left -= count;
        }
        (0, 0)
    }
}

#[inline(always)]
fn keys_of_body<const FUSED: bool, T: Pod + Into<u32>>(row: &[T], keys: &mut [u32], magnitude: u32) -> u32 {
    let mut largest = 0;
    for (key, bits) in keys.iter_mut().zip(row) {
        *key = (*bits).into() & magnitude;
        largest = largest.max(*key);
    }
    largest
}

#[inline(always)]
fn keys_of_32_body<const FUSED: bool>(row: &[u32], keys: &mut [u32]) -> u32 {
    keys_of_body::<FUSED, u32>(row, keys, 0x7fff_ffff)
}

#[inline(always)]
fn keys_of_16_body<const FUSED: bool>(row: &[u16], keys: &mut [u32]) -> u32 {
    keys_of_body::<FUSED, u16>(row, keys, 0x7fff)
}

multiversion! {
    /// Writes the keys of 32-bit floats and returns the largest.
    fn keys_of_32(row: &[u32], keys: &mut [u32]) -> u32 = keys_of_32_body
}

multiversion! {
    /// Writes the keys of 16-bit floats and returns the largest.
    fn keys_of_16(row: &[u16], keys: &mut [u32]) -> u32 = keys_of_16_body
}

/// The `keep`-th largest key, and how many keys equal to it are among the `keep` largest.
fn kth_largest(keys: &[u32], copy: &mut [u32], keep: usize) -> (u32, usize) {
    let Some(index) = keep.checked_sub(1) else { return (u32::MAX, 0) };
    copy.copy_from_slice(keys);
    let (larger, kth, _) = copy.select_nth_unstable_by(index, |a, b| b.cmp(a));
    (*kth, keep - larger.iter().filter(|key| *key > kth).count())
}

/// Sets the bits of the keys above `threshold`, and of the first `ties` keys equal to it; takes those off `ties`.
fn write_kept(keys: &[u32], threshold: u32, ties: &mut usize, bits: &mut [u8]) {
    let (whole, padding) = bits.split_at_mut(keys.len().div_ceil(8));
    padding.fill(0);
    let equal = write_at_least(keys, threshold, whole) as usize;
    let kept = equal.min(*ties);
    *ties -= kept;
    let last = keys.iter().enumerate().rev().filter(|(_, key)| **key == threshold);
    last.take(equal - kept).for_each(|(col, _)| whole[col / 8] &= !(1 << (col % 8)));
}

#[inline(always)]
fn write_at_least_body<const FUSED: bool>(keys: &[u32], threshold: u32, bits: &mut [u8]) -> u32 {
    let mut equal = 0;
    for (keys, bits) in keys.chunks(WORD).zip(bits.chunks_mut(WORD / 8)) {
        let mut word = 0;
        for (i, key) in keys.iter().enumerate() {
            word |= u32::from(*key >= threshold) << i;
            equal += u32::from(*key == threshold);
        }
        bits.copy_from_slice(&word.to_le_bytes()[..bits.len()]);
    }
    equal
}

multiversion! {
    /// Sets the bits of the keys that reach `threshold` and returns how many equal it.
    fn write_at_least(keys: &[u32], threshold: u32, bits: &mut [u8]) -> u32 = write_at_least_body
}

/// Sets the bits of the `n` largest keys of every `m`.
fn write_pattern(keys: &[u32], n: usize, m: usize, bits: &mut [u8]) {
    match m {
        4 => return write_pattern_of_4(keys, n as u32, bits),
        8 => return write_pattern_of_8(keys, n as u32, bits),
        _ => bits.fill(0),
    }
    for (group, keys) in keys.chunks(m).enumerate() {
        for (i, key) in keys.iter().enumerate() {
            let before = keys[..i].iter().filter(|other| *other >= key).count();
            let after = keys[i + 1..].iter().filter(|other| *other > key).count();
            let col = group * m + i;
            bits[col / 8] |= u8::from(before + after < n) << (col % 8);
        }
    }
}

/// As [`write_pattern`] for an `M` that divides a word. Past the last key are zeros, which come after every key.
#[inline(always)]
fn write_pattern_body<const M: usize>(keys: &[u32], n: u32, bits: &mut [u8]) {
    for (keys, bits) in keys.chunks(WORD).zip(bits.chunks_exact_mut(WORD / 8)) {
        let mut padded = [0; WORD];
        padded[..keys.len()].copy_from_slice(keys);
        let word = kept_of_word::<M>(&padded, n) & (u32::MAX >> (WORD - keys.len()));
        bits.copy_from_slice(&word.to_le_bytes());
    }
}

/// Compares every key of a group with one of its keys after the other, in the shape that compilers make vectors of.
#[inline(always)]
fn kept_of_word<const M: usize>(keys: &[u32; WORD], n: u32) -> u32 {
    let mut larger = [0; WORD];
    for start in (0..WORD).step_by(M) {
        for i in 0..M {
            for j in 0..M {
                // An equal key comes first where its position does; a key has 31 bits and room for the one added.
                let key = keys[start + i] + u32::from(i < j);
                larger[start + j] += u32::from(key > keys[start + j]);
            }
        }
    }
    (0..WORD).fold(0, |word, i| word | u32::from(larger[i] < n) << i)
}

#[inline(always)]
fn write_pattern_of_4_body<const FUSED: bool>(keys: &[u32], n: u32, bits: &mut [u8]) {
    write_pattern_body::<4>(keys, n, bits);
}

#[inline(always)]
fn write_pattern_of_8_body<const FUSED: bool>(keys: &[u32], n: u32, bits: &mut [u8]) {
    write_pattern_body::<8>(keys, n, bits);
}

multiversion! {
    fn write_pattern_of_4(keys: &[u32], n: u32, bits: &mut [u8]) = write_pattern_of_4_body
}

multiversion! {
    fn write_pattern_of_8(keys: &[u32], n: u32, bits: &mut [u8]) = write_pattern_of_8_body
}

pub(super) fn apply(out: &mut Tensor, weights: &Tensor, mask: &Mask) -> Result<()> {
    let (cols, row_bytes) = (mask.cols(), mask.row_bytes());
    let rows: Vec<&[u8]> = weights.rows()?.collect();
    let share = rows.len().div_ceil(workers(rows.len(), cols));
    let width = weights.dtype().bytes_of(cols);
    let apply_row = match weights.dtype() {
        Dtype::F32 => apply_row_32,
        _ => apply_row_16,
    };
    let bits = bytemuck::cast_slice::<i8, u8>(mask.bits.slice()?);
    let blocks =
        out.bytes_mut()?.par_chunks_mut(share * width).zip(rows.par_chunks(share)).zip(bits.par_chunks(share * row_bytes));
    blocks.for_each(|((out, rows), bits)| {
        for ((out, row), bits) in out.chunks_exact_mut(width).zip(rows).zip(bits.chunks_exact(row_bytes)) {
            apply_row(row, bits, out);
        }
    });
    Ok(())
}

#[inline(always)]
fn apply_row_32_body<const FUSED: bool>(row: &[u8], bits: &[u8], out: &mut [u8]) {
    let (row, out): (&[u32], &mut [u32]) = (bytemuck::cast_slice(row), bytemuck::cast_slice_mut(out));
    for ((out, row), byte) in out.chunks_mut(8).zip(row.chunks(8)).zip(bits) {
        for (i, (out, x)) in out.iter_mut().zip(row).enumerate() {
            *out = if byte >> i & 1 == 1 { *x } else { 0 };
        }
    }
}

#[inline(always)]
fn apply_row_16_body<const FUSED: bool>(row: &[u8], bits: &[u8], out: &mut [u8]) {
    let (row, out): (&[u16], &mut [u16]) = (bytemuck::cast_slice(row), bytemuck::cast_slice_mut(out));
    for ((out, row), byte) in out.chunks_mut(8).zip(row.chunks(8)).zip(bits) {
        for (i, (out, x)) in out.iter_mut().zip(row).enumerate() {
            *out = if byte >> i & 1 == 1 { *x } else { 0 };
        }
    }
}

multiversion! {
    fn apply_row_32(row: &[u8], bits: &[u8], out: &mut [u8]) = apply_row_32_body
}

multiversion! {
    fn apply_row_16(row: &[u8], bits: &[u8], out: &mut [u8]) = apply_row_16_body
}
