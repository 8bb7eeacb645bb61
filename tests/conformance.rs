//! Each primitive that kernels are built from does what its published layout says, and what a recording of a GPU says once
//! there is one: `kernels/conformance/*.json`, written by a run with `LOWKEY_RECORD_CONFORMANCE`.
//!
//! Data movement and integers are held to the layouts bit for bit. Products are held to them within the rounding of their
//! accumulation, whose bits only a recording can settle; approximate functions to a stated error.

use std::{collections::BTreeMap, env, fs};

use half::{bf16, f16};
use lowkey::{
    Device, Tensor,
    device::{Address, Buffer, Grid, TileMap, kernels},
    philox::{Stream, philox4x32},
};

use crate::support::{self, library};

#[path = "params/conformance.rs"]
mod params;
use params::ConformanceParams;

/// One run of a kernel, and what its output must be.
struct Case {
    name: String,
    kernel: &'static str,
    input: Vec<u32>,
    /// Words of output.
    words: usize,
    count: usize,
    mode: i32,
    threads: u32,
    shared: usize,
    /// Where a tile of the matrix begins, for what takes or stores one; the output is then the matrix after a store.
    tile: Option<[i32; 2]>,
    expected: Expected,
}

enum Expected {
    /// These words.
    Bits(Vec<u32>),
    /// Floats within an error of these: (value, bound).
    Near(Vec<(f64, f64)>),
}

/// Words whose halves are finite 16-bit floats of either type, and finite as f32.
fn words(seed: u64, count: usize) -> Vec<u32> {
    let stream = Stream::new(seed, 0);
    (0..count as u64).map(|i| stream.bits(i) & 0xbf7f_bf7f).collect()
}

/// Floats of mixed magnitude.
fn floats(seed: u64, count: usize) -> Vec<u32> {
    let stream = Stream::new(seed, 1);
    (0..count as u64).map(|i| (stream.normal(i) * 2f32.powi((stream.bits(i) % 24) as i32 - 12)).to_bits()).collect()
}

/// 16-bit elements of mixed magnitude, two to a word.
fn pairs(seed: u64, count: usize, to_bits: fn(f32) -> u16) -> Vec<u32> {
    let wide: Vec<f32> = floats(seed, 2 * count).into_iter().map(f32::from_bits).collect();
    wide.chunks(2).map(|pair| u32::from(to_bits(pair[0])) | u32::from(to_bits(pair[1])) << 16).collect()
}

fn low(word: u32) -> u16 {
    word as u16
}

fn high(word: u32) -> u16 {
    (word >> 16) as u16
}

fn case(name: &str, kernel: &'static str, input: Vec<u32>, count: usize, expected: Expected) -> Case {
    let words = match &expected {
        Expected::Bits(bits) => bits.len(),
        Expected::Near(values) => values.len(),
    };
    Case { name: name.to_owned(), kernel, input, words, count, mode: 0, threads: 32, shared: 1024, tile: None, expected }
}

/// D = A B + C with the bound of a sum of `depth` products in f32, truncated at each of its chunks.
fn product(a: impl Fn(usize) -> f64, b: impl Fn(usize) -> f64, c: f64, depth: usize) -> (f64, f64) {
    let terms = (0..depth).map(|k| a(k) * b(k));
    let (sum, size) = terms.fold((c, c.abs()), |(sum, size), term| (sum + term, size + term.abs()));
    (sum, size * f64::from(f32::EPSILON) * 4.0)
}

const TESTS: usize = 8;

/// mma.m16n8k16: lane = 4 g + t; a holds rows g, g + 8 at columns 2t.., 2t + 8..; b rows 2t, 2t + 8 of column g; d rows g,
/// g + 8 at columns 2t, 2t + 1. (PTX ISA, "Matrix fragments for mma.m16n8k16".)
fn mma(kernel: &'static str, to_bits: fn(f32) -> u16, widen: fn(u16) -> f64) -> Case {
    let mut input = Vec::new();
    for test in 0..TESTS as u64 {
        let (ab, c) = (pairs(10 + test, 32 * 6, to_bits), floats(40 + test, 32 * 4));
        for lane in 0..32 {
            input.extend(&ab[lane * 6..][..6]);
            input.extend(&c[lane * 4..][..4]);
        }
    }
    let mut expected = Vec::new();
    for test in input.chunks(320) {
        let half = |word: u32, odd: usize| widen(if odd == 0 { low(word) } else { high(word) });
        let a = |row: usize, k: usize| {
            let lane = row % 8 * 4 + k % 8 / 2;
            half(test[lane * 10 + row / 8 + k / 8 * 2], k % 2)
        };
        let b = |k: usize, column: usize| half(test[(column * 4 + k % 8 / 2) * 10 + 4 + k / 8], k % 2);
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
                let c = f64::from(f32::from_bits(test[lane * 10 + 6 + i]));
                expected.push(product(|k| a(row, k), |k| b(k, column), c, 16));
            }
        }
    }
    case(kernel, kernel, input, TESTS, Expected::Near(expected))
}

/// mma.m16n8k8 of tf32: a holds rows g, g + 8 at columns t, t + 4; b rows t, t + 4 of column g.
fn mma_tf32() -> Case {
    let input = floats(60, TESTS * 320);
    let tf32 = |bits: u32| f64::from(f32::from_bits(bits & !0x1fff));
    let mut expected = Vec::new();
    for test in input.chunks(320) {
        let a = |row: usize, k: usize| tf32(test[(row % 8 * 4 + k % 4) * 10 + row / 8 + k / 4 * 2]);
        let b = |k: usize, column: usize| tf32(test[(column * 4 + k % 4) * 10 + 4 + k / 4]);
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
                let c = f64::from(f32::from_bits(test[lane * 10 + 6 + i]));
                expected.push(product(|k| a(row, k), |k| b(k, column), c, 8));
            }
        }
    }
    case("conformance_mma_tf32", "conformance_mma_tf32", input, TESTS, Expected::Near(expected))
}

/// ldmatrix: lane i gives row i % 8 of matrix i / 8; of each matrix lane i gets word i % 4 of row i / 4, or transposed the
/// elements of column i / 4 at rows 2 (i % 4) and the next.
fn ldmatrix(mode: i32) -> Case {
    let rows = words(70, 128);
    let given: Vec<u32> = (0..32).map(|lane| (lane * 13 + 5) % 32).collect();
    let matrices = if mode < 2 { 4 } else { 2 };
    let mut expected = vec![0; 128];
    for lane in 0..32 {
        for matrix in 0..matrices {
            let row = |i: usize| &rows[given[8 * matrix + i] as usize * 4..][..4];
            let element = |i: usize, j: usize| if j.is_multiple_of(2) { low(row(i)[j / 2]) } else { high(row(i)[j / 2]) };
            expected[lane * 4 + matrix] = if mode % 2 == 0 {
                row(lane / 4)[lane % 4]
            } else {
                let (i, j) = (lane % 4 * 2, lane / 4);
                u32::from(element(i, j)) | u32::from(element(i + 1, j)) << 16
            };
        }
    }
    let input = given.into_iter().chain(rows).collect();
    Case { mode, ..case(&format!("ldmatrix_{mode}"), "conformance_ldmatrix", input, 1, Expected::Bits(expected)) }
}

/// movmatrix: the 8 x 8 fragment, lane i holding row i / 4 at columns 2 (i % 4) and the next, transposed.
fn movmatrix() -> Case {
    let input = words(71, 32);
    let element = |i: usize, j: usize| {
        let word = input[i * 4 + j / 2];
        if j.is_multiple_of(2) { low(word) } else { high(word) }
    };
    let moved = |lane: usize| {
        let (i, j) = (lane / 4, lane % 4 * 2);
        u32::from(element(j, i)) | u32::from(element(j + 1, i)) << 16
    };
    let expected = Expected::Bits((0..32).map(moved).collect());
    case("movmatrix", "conformance_movmatrix", input.clone(), 1, expected)
}

/// cp.async copies 16 bytes, or zeros where it is told that there are none to read.
fn cp_async() -> Case {
    let (input, mask) = (words(72, 128), 0x5a5a_1234u32);
    let expected = (0..128).map(|i| if mask >> (i / 4) & 1 == 1 { input[i] } else { 0 }).collect();
    Case { mode: mask as i32, ..case("cp_async", "conformance_cp_async", input, 1, Expected::Bits(expected)) }
}

/// Shuffles, votes, matches and reductions, from the CUDA C++ programming guide's definitions.
fn collectives() -> Case {
    let input: Vec<u32> = words(73, 32);
    let at = |lane: usize| input[lane];
    let within = |lane: usize, source: usize, fits: bool| if fits { at(source) } else { at(lane) };
    let mut expected = Vec::new();
    for lane in 0..32usize {
        let x = at(lane);
        let count = |predicate: &dyn Fn(u32) -> bool| (0..32).fold(0u32, |m, i| m | u32::from(predicate(at(i))) << i);
        expected.extend([
            at(5),
            at(lane / 8 * 8 + 11 % 8),
            within(lane, lane.wrapping_sub(3) % 32, lane >= 3),
            within(lane, lane.wrapping_sub(3) % 32, lane % 8 >= 3),
            within(lane, (lane + 5) % 32, lane + 5 < 32),
            within(lane, (lane + 5) % 32, lane % 16 + 5 < 16),
            at(lane ^ 9),
            // The partner of a lane is in the segment before its own, or in none that it may read.
            within(lane, lane ^ 9, (lane ^ 9) / 8 <= lane / 8),
            count(&|y| y & 1 == 1),
            count(&|y| y & 3 == x & 3),
            input.iter().fold(0u32, |sum, y| sum.wrapping_add(*y)),
            input.iter().map(|y| *y as i32).min().unwrap() as u32,
            input.iter().copied().max().unwrap(),
            input.iter().fold(0, |sum, y| sum ^ y),
            u32::from(input.contains(&0)) | u32::from(!input.contains(&0)) << 1,
            input.iter().fold(u32::MAX, |all, y| all & y),
        ]);
    }
    case("collectives", "conformance_collectives", input.clone(), 1, Expected::Bits(expected))
}

fn philox() -> Case {
    let input = words(74, 59 * 6);
    let block = |c: &[u32]| philox4x32([c[0], c[1], c[2], c[3]], [c[4], c[5]]);
    let expected = Expected::Bits(input.chunks(6).flat_map(block).collect());
    case("philox", "conformance_philox", input.clone(), 59, expected)
}

/// Conversions to 16 bits and tf32 by the half crate and by hand; integer instructions from their definitions.
fn conversions() -> Case {
    let input: Vec<u32> =
        floats(75, 97).into_iter().chain([0f32, -0.0, 65504.0, 65520.0, 1e-7, -3.5, 2.5, 1e30].map(f32::to_bits)).collect();
    let tf32 = |bits: u32| (bits.wrapping_add(0x1000)) & !0x1fff;
    let dot = |a: u32, b: u32| {
        let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        bytes.fold(7i32, |sum, (a, b)| sum + i32::from(a as i8) * i32::from(b as i8)) as u32
    };
    let words = |bits: u32| {
        let (x, bytes) = (f32::from_bits(bits), [bits.to_le_bytes(), (!bits).to_le_bytes()].concat());
        [
            u32::from(bf16::from_f32(x).to_bits()),
            u32::from(f16::from_f32(x).to_bits()),
            tf32(bits),
            x.round_ties_even() as i32 as u32,
            x as i32 as u32,
            x.round_ties_even() as u32,
            // prmt with selector 0x7a31: byte 1, byte 3, the sign of byte 2 replicated, byte 7.
            u32::from_le_bytes([bytes[1], bytes[3], if bytes[2] & 0x80 == 0 { 0 } else { 0xff }, bytes[7]]),
            dot(bits, bits ^ 0x8040_2010),
            ((u64::from(bits) * 0xCD9E_8D57) >> 32) as u32,
            bits.leading_zeros() | (if bits == 0 { 0 } else { bits.trailing_zeros() + 1 }) << 8 | bits.count_ones() << 16,
            bits.reverse_bits(),
            ((u64::from(!bits) << 32 | u64::from(bits)) << (bits & 31) >> 32) as u32,
        ]
    };
    let expected = Expected::Bits(input.iter().flat_map(|bits| words(*bits)).collect());
    let count = input.len();
    case("conversions", "conformance_conversions", input.clone(), count, expected)
}

/// The error bounds of the CUDA C++ programming guide, and some room for what it calls absolute errors.
fn fast_math() -> Case {
    let stream = Stream::new(76, 0);
    let input: Vec<f32> = (0..111).map(|i| 0.01 + 3.0 * stream.uniform(i)).collect();
    let bound = |value: f64, ulps: f64| (value, ulps * f64::from(f32::EPSILON) * value.abs().max(f64::from(f32::MIN_POSITIVE)));
    let near = |x: &f32| {
        let x = f64::from(*x);
        [
            bound(x.exp2(), 2.0),
            bound(x.exp(), 4.0 + 2.0 * x),
            (x.ln(), 2f64.powi(-20)),
            bound(1.0 / x, 2.0),
            bound(1.0 / x.sqrt(), 2.0),
            (x.sin(), 2f64.powi(-20)),
            (x.cos(), 2f64.powi(-18)),
            bound(1.0 / x, 0.51),
        ]
    };
    let expected = Expected::Near(input.iter().flat_map(near).collect());
    let count = input.len();
    case("fast_math", "conformance_fast_math", input.iter().map(|x| x.to_bits()).collect(), count, expected)
}

/// Bulk copies there and back, with one bit of each half flipped on the way.
fn bulk_copy() -> Case {
    let input = words(77, 1028);
    let expected = Expected::Bits(input.iter().map(|word| word ^ 0x0100_0001).collect());
    Case { threads: 128, shared: 128 + 4 * 1028, ..case("bulk_copy", "conformance_bulk_copy", input.clone(), 1028, expected) }
}

/// stmatrix is ldmatrix the other way.
fn stmatrix(mode: i32) -> Case {
    let input = words(78, 128);
    let mut halves = vec![0u16; 256];
    for lane in 0..32 {
        for matrix in 0..4 {
            let (i, j, word) = (lane / 4, lane % 4 * 2, input[lane * 4 + matrix]);
            let mut store = |i: usize, j: usize, half| halves[(matrix * 8 + i) * 8 + j] = half;
            if mode == 0 {
                store(i, j, low(word));
                store(i, j + 1, high(word));
            } else {
                store(j, i, low(word));
                store(j + 1, i, high(word));
            }
        }
    }
    let expected = halves.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect();
    let name = format!("stmatrix_{mode}");
    Case { mode, threads: 128, ..case(&name, "conformance_stmatrix", input.clone(), 1, Expected::Bits(expected)) }
}

/// An element of a bf16 matrix with rows of 128 bytes and the 128-byte swizzle: chunks of 16 bytes of row i are at their
/// index xor i % 8.
fn swizzled(matrix: &[u32], row: usize, column: usize) -> f64 {
    let chunk = (column / 8) ^ (row % 8);
    let word = matrix[row * 32 + chunk * 4 + column % 8 / 2];
    f64::from(bf16::from_bits(if column.is_multiple_of(2) { low(word) } else { high(word) }))
}

/// wgmma.m64nNk16: warp w of the group holds rows 16 w + g and + 8, at columns 8 j + 2 t and the next. (PTX ISA, "Register
/// fragments for wgmma.mma_async", and the K-major and MN-major layouts of its descriptors.)
fn wgmma(kernel: &'static str, n: usize, mode: i32) -> Case {
    let (a, b) =
        (pairs(80 + n as u64, 2048, |x| bf16::from_f32(x).to_bits()), pairs(90, 4096, |x| bf16::from_f32(x).to_bits()));
    let d = floats(91, 64 * n);
    let (slice, transposed) = ((mode & 3) as usize * 16, mode & 4 != 0);
    let of_b = |k: usize, column: usize| match transposed {
        false => swizzled(&b, column, k),
        // [64, N] in blocks of 64 columns, 8192 bytes apart.
        true => swizzled(&b[column / 64 * 2048..], k, column % 64),
    };
    let mut expected = Vec::new();
    for thread in 0..128 {
        for i in 0..n / 2 {
            let row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
            let column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            let c = f64::from(f32::from_bits(d[thread * (n / 2) + i]));
            expected.push(product(|k| swizzled(&a, row, slice + k), |k| of_b(slice + k, column), c, 16));
        }
    }
    let input = a.into_iter().chain(b).chain(d).collect();
    let name = format!("{kernel}_{mode}");
    Case { mode, threads: 128, shared: 1024 + 8192 + 16384, ..case(&name, kernel, input, 1, Expected::Near(expected)) }
}

/// As above with A from registers and no accumulator: 64 x 64 x 16 in f16.
fn wgmma_registers() -> Case {
    let (a, b) = (pairs(92, 512, |x| f16::from_f32(x).to_bits()), pairs(93, 2048, |x| f16::from_f32(x).to_bits()));
    let half = |word: u32, odd: usize| f64::from(f16::from_bits(if odd == 0 { low(word) } else { high(word) }));
    let of_a = |row: usize, k: usize| {
        let thread = row / 16 * 32 + row % 8 * 4 + k % 8 / 2;
        half(a[thread * 4 + row % 16 / 8 + k / 8 * 2], k % 2)
    };
    let of_b = |k: usize, column: usize| half(b[column * 32 + ((k / 8) ^ (column % 8)) * 4 + k % 8 / 2], k % 2);
    let mut expected = Vec::new();
    for thread in 0..128 {
        for i in 0..32 {
            let row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
            let column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            expected.push(product(|k| of_a(row, k), |k| of_b(k, column), 0.0, 16));
        }
    }
    let input = a.iter().chain(&b).copied().collect();
    let name = "conformance_wgmma_registers";
    Case { threads: 128, shared: 1024 + 8192, ..case(name, name, input, 1, Expected::Near(expected)) }
}

/// Rows and columns of the matrix that tiles are of; no multiple of a tile.
const MATRIX: [usize; 2] = [77, 104];

/// Tiles 64 x 64 as the copy engine lays them out: swizzled, zero beyond the matrix.
fn tma_load(x: usize, y: usize) -> Case {
    let matrix = words(94, MATRIX[0] * MATRIX[1] / 2);
    let mut expected = vec![0u32; 2048];
    for row in 0..64 {
        for word in 0..32 {
            let (i, j) = (y + row, (x + 2 * word) / 2);
            let inside = i < MATRIX[0] && x + 2 * word < MATRIX[1];
            expected[row * 32 + ((word / 4) ^ (row % 8)) * 4 + word % 4] =
                if inside { matrix[i * MATRIX[1] / 2 + j] } else { 0 };
        }
    }
    let name = format!("tma_load_{x}_{y}");
    let tile = Some([x as i32, y as i32]);
    Case { threads: 128, shared: 10240, tile, ..case(&name, "conformance_tma_load", matrix, 1, Expected::Bits(expected)) }
}

/// The way back: what lies beyond the matrix is not written.
fn tma_store(x: usize, y: usize) -> Case {
    let tile = words(95, 2048);
    let mut expected = vec![0u32; MATRIX[0] * MATRIX[1] / 2];
    for row in 0..64 {
        for word in 0..32 {
            let (i, j) = (y + row, x + 2 * word);
            if i < MATRIX[0] && j < MATRIX[1] {
                expected[i * MATRIX[1] / 2 + j / 2] = tile[row * 32 + ((word / 4) ^ (row % 8)) * 4 + word % 4];
            }
        }
    }
    let name = format!("tma_store_{x}_{y}");
    let at = Some([x as i32, y as i32]);
    Case { threads: 128, shared: 10240, tile: at, ..case(&name, "conformance_tma_store", tile, 1, Expected::Bits(expected)) }
}

/// mma.sp m16n8k32: of each four neighbours of a row of A two are stored, at the places that two pairs of bits of the metadata
/// name; lanes of which `selector` picks a pair hold the metadata of rows g (low half) and g + 8.
fn mma_sparse(kernel: &'static str, selector: usize, to_bits: fn(f32) -> u16, widen: fn(u16) -> f64) -> Case {
    let stream = Stream::new(96, 0);
    // The six ways to choose two of four, ascending.
    let places = [0b0100u32, 0b1000, 0b1100, 0b1001, 0b1101, 0b1110];
    let mut input = Vec::new();
    for test in 0..TESTS as u64 {
        let (ab, c) = (pairs(100 + test, 32 * 8, to_bits), floats(120 + test, 32 * 4));
        for lane in 0..32 {
            let nibble = |i: u64| places[(stream.uniform(test * 1024 + lane as u64 * 8 + i) * 6.0) as usize % 6];
            input.extend(&ab[lane * 8..][..8]);
            input.push((0..8).fold(0, |word, i| word | nibble(i) << (4 * i)));
            input.extend(&c[lane * 4..][..4]);
        }
    }
    let mut expected = Vec::new();
    for test in input.chunks(13 * 32) {
        let half = |word: u32, odd: usize| widen(if odd == 0 { low(word) } else { high(word) });
        // Stored column s of 16, as in m16n8k16.
        let stored = |row: usize, s: usize| half(test[(row % 8 * 4 + s % 8 / 2) * 13 + row / 8 + s / 8 * 2], s % 2);
        let group = |row: usize, group: usize| {
            // Of the pair of lanes, the first has groups 0 to 3 of its rows, the second 4 to 7.
            let lane = row % 8 * 4 + selector * 2 + group / 4;
            test[lane * 13 + 8] >> (row / 8 * 16 + group % 4 * 4) & 15
        };
        let b = |k: usize, column: usize| half(test[(column * 4 + k % 8 / 2) * 13 + 4 + k / 8], k % 2);
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
                let c = f64::from(f32::from_bits(test[lane * 13 + 9 + i]));
                let place = |s: usize| s / 2 * 4 + (group(row, s / 2) >> (s % 2 * 2) & 3) as usize;
                expected.push(product(|s| stored(row, s), |s| b(place(s), column), c, 16));
            }
        }
    }
    let name = format!("{kernel}_{selector}");
    Case { mode: selector as i32, ..case(&name, kernel, input, TESTS, Expected::Near(expected)) }
}

/// Every case a device can run: those of Hopper are for 9.0 alone.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        mma("conformance_mma_bf16", |x| bf16::from_f32(x).to_bits(), |bits| f64::from(bf16::from_bits(bits))),
        mma("conformance_mma_f16", |x| f16::from_f32(x).to_bits(), |bits| f64::from(f16::from_bits(bits))),
        mma_tf32(),
        movmatrix(),
        cp_async(),
        collectives(),
        philox(),
        conversions(),
        fast_math(),
        bulk_copy(),
        wgmma_registers(),
    ];
    for selector in 0..2 {
        let (of_bf16, of_f16) = ("conformance_mma_sparse_bf16", "conformance_mma_sparse_f16");
        cases.push(mma_sparse(of_bf16, selector, |x| bf16::from_f32(x).to_bits(), |bits| f64::from(bf16::from_bits(bits))));
        cases.push(mma_sparse(of_f16, selector, |x| f16::from_f32(x).to_bits(), |bits| f64::from(f16::from_bits(bits))));
    }
    for (x, y) in [(0, 0), (64, 0), (24, 13), (72, 64)] {
        cases.extend([tma_load(x, y), tma_store(x, y)]);
    }
    cases.extend((0..4).map(ldmatrix));
    cases.extend((0..2).map(stmatrix));
    for (kernel, n) in [("conformance_wgmma_n32", 32), ("conformance_wgmma_n64", 64), ("conformance_wgmma_n128", 128)] {
        cases.extend((0..8).map(|mode| wgmma(kernel, n, mode)));
    }
    cases
}

fn upload(device: &Device, words: &[u32]) -> Buffer {
    let mut buffer = device.alloc(4 * words.len()).unwrap();
    buffer.write(0, bytemuck::cast_slice(words)).unwrap();
    buffer
}

/// The output of a case, which begins poisoned; that of a store is the matrix, which begins as zeros.
fn run(case: &Case, device: &Device) -> Vec<u32> {
    let input = upload(device, &case.input);
    let output = upload(device, &vec![u32::MAX; case.words]);
    let loads = case.tile.is_some() && case.kernel.ends_with("load");
    let words = if loads { case.input.clone() } else { vec![0; MATRIX[0] * MATRIX[1] / 2] };
    let elements: Vec<bf16> = words.iter().flat_map(|word| [low(*word), high(*word)]).map(bf16::from_bits).collect();
    let matrix = case.tile.map(|_| Tensor::from_slice(&elements, &MATRIX, device).unwrap());
    let map = matrix.as_ref().map(|matrix| {
        let map = TileMap::new(matrix, 64).unwrap();
        let mut buffer = device.alloc(size_of::<TileMap>()).unwrap();
        buffer.write(0, bytemuck::bytes_of(&map)).unwrap();
        buffer
    });
    let [x, y] = case.tile.unwrap_or_default();
    let params = ConformanceParams {
        input: input.address(),
        output: output.address(),
        map: map.as_ref().map_or(Address::NULL, Buffer::address),
        count: case.count as i32,
        mode: case.mode,
        x,
        y,
    };
    let grid = Grid { blocks: [1, 1, 1], threads: case.threads, shared: case.shared };
    // SAFETY: buffers are as long as each kernel says.
    unsafe { device.launch_raw(case.kernel, grid, bytemuck::bytes_of(&params)) }.unwrap();
    if let Some(matrix) = matrix.filter(|_| !loads) {
        let stored: Vec<u16> = matrix.to_vec::<bf16>().unwrap().iter().map(|x| x.to_bits()).collect();
        return stored.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect();
    }
    let mut found = vec![0u32; case.words];
    output.read(0, bytemuck::cast_slice_mut(&mut found)).unwrap();
    found
}

#[test]
fn primitives_do_what_their_published_layouts_say() {
    for case in cases() {
        let found = run(&case, &support::device());
        match &case.expected {
            Expected::Bits(bits) => {
                let wrong = found.iter().zip(bits).position(|(found, expected)| found != expected);
                if let Some(at) = wrong {
                    panic!("{}: word {at} is {:#010x}, expected {:#010x}", case.name, found[at], bits[at]);
                }
            }
            Expected::Near(values) => {
                for (at, (found, (value, bound))) in found.iter().zip(values).enumerate() {
                    let off = (f64::from(f32::from_bits(*found)) - value).abs();
                    assert!(off <= *bound, "{}: float {at} is {off:e} from {value}, at most {bound:e}", case.name);
                }
            }
        }
    }
}

#[test]
fn every_conformance_kernel_is_run() {
    let run: Vec<&str> = cases().iter().map(|case| case.kernel).collect();
    let all = kernels().iter().filter(|kernel| kernel.source.starts_with("conformance/"));
    let missing: Vec<&str> = all.map(|kernel| kernel.name).filter(|name| !run.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What a device did, by case.
type Record = BTreeMap<String, Vec<u32>>;

fn record() -> Record {
    cases().iter().map(|case| (case.name.clone(), run(case, &support::device()))).collect()
}

fn to_json(record: &Record) -> String {
    let rows = record.iter().map(|(name, words)| {
        let hex: Vec<String> = words.iter().map(|word| format!("{word:08x}")).collect();
        format!("\"{name}\": \"{}\"", hex.join(""))
    });
    format!("{{\n{}\n}}\n", rows.collect::<Vec<_>>().join(",\n"))
}

fn from_json(text: &str) -> Record {
    let rows = text.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(": "));
    let words = |hex: &str| (0..hex.len() / 8).map(|i| u32::from_str_radix(&hex[8 * i..8 * i + 8], 16).unwrap()).collect();
    rows.map(|(name, hex)| (name.trim_matches('"').to_owned(), words(hex.trim_matches('"')))).collect()
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let record = Record::from([("a".to_owned(), vec![0, 1, u32::MAX]), ("b".to_owned(), vec![0x0102_0304])]);
    assert_eq!(from_json(&to_json(&record)), record);
}

/// Approximate functions may differ in their last bits between a GPU and the host's library.
#[test]
fn the_emulator_agrees_with_what_gpus_were_recorded_to_do() {
    if let Some(path) = env::var_os("LOWKEY_RECORD_CONFORMANCE") {
        return fs::write(path, to_json(&record())).unwrap();
    }
    let folder = fs::read_dir(library::root().join("kernels/conformance")).unwrap().map(|entry| entry.unwrap().path());
    let records: Vec<_> = folder.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    if records.is_empty() {
        eprintln!("no GPU's record is there yet: nothing was compared");
    }
    for path in records {
        let (recorded, found) = (from_json(&fs::read_to_string(&path).unwrap()), record());
        assert!(recorded.len() >= 20, "{} has {} cases", path.display(), recorded.len());
        for (name, words) in recorded.iter().filter(|(name, _)| *name != "fast_math") {
            assert!(found.get(name) == Some(words), "{name}: not what {} says", path.display());
        }
    }
}
