//! Inner loops of the CPU device: written once in plain Rust, compiled for AVX-512, AVX2 and the baseline, and
//! chosen at run time.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::Dtype;

/// Compiles a plain function for each instruction set and calls the widest this machine has.
///
/// The body must be `#[inline(always)]` so that it is compiled with the features of its caller.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[inline]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match $crate::device::simd::level() {
                    // SAFETY: `level` found these features on this machine.
                    $crate::device::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::device::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::device::simd::Level::Baseline => {}
                }
            }
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// What the compiler does not find by itself.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
        _mm512_shuffle_ps, _mm512_storeu_ps,
    };

    use super::ROW_LANES;

    /// Where [`sums`] leaves the sum of each vector; its own inverse.
    const ORDER: [usize; ROW_LANES] = [0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15];

    /// Dot products of whole groups of 16 rows, each row in a register of its own, reduced together.
    ///
    /// # Safety
    /// `rows` holds at least `out.len()` rows of x's length.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn dot_rows(x: &[f32], rows: &[f32], out: &mut [f32]) {
        let width = x.len();
        for (group, out) in out.chunks_exact_mut(ROW_LANES).enumerate() {
            let first = rows[group * ROW_LANES * width..].as_ptr();
            let mut products = [_mm512_setzero_ps(); ROW_LANES];
            for start in (0..width).step_by(ROW_LANES) {
                let mask = u16::MAX >> (ROW_LANES - ROW_LANES.min(width - start));
                // SAFETY: the mask keeps every load inside x and inside its row.
                unsafe {
                    let x = _mm512_maskz_loadu_ps(mask, x.as_ptr().add(start));
                    for (i, product) in products.iter_mut().enumerate() {
                        let row = _mm512_maskz_loadu_ps(mask, first.add(ORDER[i] * width + start));
                        *product = _mm512_fmadd_ps(row, x, *product);
                    }
                }
            }
            // SAFETY: a group has 16 outputs.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums(products)) };
        }
    }

    /// The sum of each of 16 vectors, in [`ORDER`]: every level adds the halves of two vectors into one.
    #[target_feature(enable = "avx512f")]
    fn sums(v: [__m512; ROW_LANES]) -> __m512 {
        let halves = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xEE>(a, b));
        let quarters = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
        let pairs = |a, b| _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xEE>(a, b));
        let singles = |a, b| _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xDD>(a, b));
        let eight: [__m512; 8] = std::array::from_fn(|i| halves(v[i], v[i + 8]));
        let four: [__m512; 4] = std::array::from_fn(|i| quarters(eight[i], eight[i + 4]));
        singles(pairs(four[0], four[2]), pairs(four[1], four[3]))
    }
}

/// The instruction sets that inner loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Whatever the target guarantees.
    Baseline,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
}

/// The widest instruction set of this machine (the detection is cached by the standard library).
#[inline]
pub fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("fma") && has!("f16c") {
            return Level::Avx512;
        }
        if has!("avx2") && has!("fma") && has!("f16c") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// a * b + c, fused where the instruction set has it (a call into libm where it has not would cost more than it gains).
#[inline(always)]
pub(crate) fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

const LANES: usize = 64;

#[inline(always)]
fn dot_body<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] = fma::<FUSED>(x[i], y[i], lanes[i]);
        }
    }
    for (i, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = fma::<FUSED>(*x, *y, lanes[i]);
    }
    let quarter = |i: usize| (lanes[i] + lanes[i + 16]) + (lanes[i + 32] + lanes[i + 48]);
    sum_lanes(&std::array::from_fn(quarter))
}

multiversion! {
    /// Sum of products over the shorter length, in a fixed order that depends on the length alone.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

/// Rows taken together by [`dot_rows`], so that a row's reduction overlaps its neighbours' products.
const ROWS: usize = 4;
const ROW_LANES: usize = 16;

#[inline(always)]
fn dot_rows_body<const FUSED: bool>(x: &[f32], rows: &[f32], out: &mut [f32]) {
    let width = x.len();
    if width == 0 {
        out.fill(0.0);
        return;
    }
    let (x_chunks, x_rest) = x.as_chunks::<ROW_LANES>();
    for (rows, out) in rows.chunks(width * ROWS).zip(out.chunks_mut(ROWS)) {
        let mut lanes = [[0.0f32; ROW_LANES]; ROWS];
        for (lanes, row) in lanes.iter_mut().zip(rows.chunks_exact(width)) {
            let (chunks, rest) = row.as_chunks::<ROW_LANES>();
            for (x, y) in x_chunks.iter().zip(chunks) {
                for i in 0..ROW_LANES {
                    lanes[i] = fma::<FUSED>(x[i], y[i], lanes[i]);
                }
            }
            for (i, (x, y)) in x_rest.iter().zip(rest).enumerate() {
                lanes[i] = fma::<FUSED>(*x, *y, lanes[i]);
            }
        }
        for (lanes, out) in lanes.iter().zip(out) {
            *out = sum_lanes(lanes);
        }
    }
}

/// Sum in a fixed tree, written so that every level stays in registers.
#[inline(always)]
fn sum_lanes(lanes: &[f32; ROW_LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// `out[i] = x . rows[i]`, for rows of x's length lying one after the other.
#[inline]
pub fn dot_rows(x: &[f32], rows: &[f32], out: &mut [f32]) {
    assert!(rows.len() >= x.len() * out.len());
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        let whole = out.len() / ROW_LANES * ROW_LANES;
        let (out, out_rest) = out.split_at_mut(whole);
        // SAFETY: `level` found AVX-512 on this machine; `rows` holds a row for each output.
        unsafe { avx512::dot_rows(x, rows, out) };
        return dot_rows_rest(x, &rows[whole * x.len()..], out_rest);
    }
    dot_rows_rest(x, rows, out);
}

multiversion! {
    fn dot_rows_rest(x: &[f32], rows: &[f32], out: &mut [f32]) = dot_rows_body
}

#[inline(always)]
fn combine_rows_body<const FUSED: bool>(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    let width = out.len();
    if width == 0 {
        return;
    }
    let (weight_chunks, weights_rest) = weights.as_chunks::<ROWS>();
    let (row_chunks, rows_rest) = rows.split_at(weight_chunks.len() * ROWS * width);
    for (w, rows) in weight_chunks.iter().zip(row_chunks.chunks_exact(ROWS * width)) {
        let (a, rows) = rows.split_at(width);
        let (b, rows) = rows.split_at(width);
        let (c, d) = rows.split_at(width);
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            let pair = fma::<FUSED>(w[1], *b, fma::<FUSED>(w[0], *a, *out));
            *out = fma::<FUSED>(w[3], *d, fma::<FUSED>(w[2], *c, pair));
        }
    }
    for (weight, row) in weights_rest.iter().zip(rows_rest.chunks_exact(width)) {
        axpy_body::<FUSED>(*weight, row, out);
    }
}

multiversion! {
    /// `out += sum over i of weights[i] * rows[i]`, for rows of out's length lying one after the other.
    pub fn combine_rows(weights: &[f32], rows: &[f32], out: &mut [f32]) = combine_rows_body
}

/// e^x for x <= 0 within 2 ulp; below -87 it is 0. NaN stays NaN.
#[inline(always)]
fn exp_nonpositive<const FUSED: bool>(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to an integer without a call.
    const ROUND: f32 = 12_582_912.0;
    let kept = if x < -87.0 { -87.0 } else { x };
    // 2^n e^r with |r| <= ln 2 / 2, ln 2 split in two so that r is exact to f32; e^r by its Taylor series.
    let n = fma::<FUSED>(kept, std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = fma::<FUSED>(n, -1.428_606_8e-6, fma::<FUSED>(n, -0.693_145_75, kept));
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = fma::<FUSED>(p, r, coefficient);
    }
    // The integer sits in the low bits of n + ROUND; NaN makes p NaN whatever they hold.
    let power = f32::from_bits(((n + ROUND).to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

#[inline(always)]
fn exp_shifted_body<const FUSED: bool>(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; ROW_LANES];
    let (chunks, rest) = x.as_chunks_mut::<ROW_LANES>();
    for chunk in chunks {
        for i in 0..ROW_LANES {
            chunk[i] = exp_nonpositive::<FUSED>(chunk[i] - shift);
            lanes[i] += chunk[i];
        }
    }
    for (i, x) in rest.iter_mut().enumerate() {
        *x = exp_nonpositive::<FUSED>(*x - shift);
        lanes[i] += *x;
    }
    sum_lanes(&lanes)
}

multiversion! {
    /// Replaces x by e^(x - shift), which must not exceed 1, and returns the sum.
    pub fn exp_shifted(x: &mut [f32], shift: f32) -> f32 = exp_shifted_body
}

#[inline(always)]
fn axpy_body<const FUSED: bool>(scale: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = fma::<FUSED>(scale, *x, *y);
    }
}

multiversion! {
    /// y += scale * x.
    pub fn axpy(scale: f32, x: &[f32], y: &mut [f32]) = axpy_body
}

#[inline(always)]
fn widen_int8_body<const FUSED: bool>(from: &[u8], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from(*from as i8);
    }
}

multiversion! {
    fn widen_int8(from: &[u8], to: &mut [f32]) = widen_int8_body
}

#[inline(always)]
fn widen_int4_body<const FUSED: bool>(from: &[u8], to: &mut [f32]) {
    let (pairs, rest) = to.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(from) {
        let byte = i32::from(*byte as i8);
        *pair = [(byte << 28 >> 28) as f32, (byte >> 4) as f32];
    }
    if let (Some(last), Some(byte)) = (rest.first_mut(), from.last()) {
        *last = (i32::from(*byte) << 28 >> 28) as f32;
    }
}

multiversion! {
    fn widen_int4(from: &[u8], to: &mut [f32]) = widen_int4_body
}

#[inline(always)]
fn widen_f16_body<const FUSED: bool>(from: &[u16], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        let from = u32::from(*from);
        // 2^112 moves the exponent bias from 15 to 127, subnormals included; what lands past f16 was infinite or NaN.
        let magnitude = f32::from_bits((from & 0x7fff) << 13) * f32::from_bits(239 << 23);
        let special = if magnitude >= 65_536.0 { 0x7f80_0000 } else { 0 };
        *to = f32::from_bits(magnitude.to_bits() | special | (from & 0x8000) << 16);
    }
}

multiversion! {
    fn widen_f16(from: &[u16], to: &mut [f32]) = widen_f16_body
}

#[inline(always)]
fn widen_bf16_body<const FUSED: bool>(from: &[u16], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(*from) << 16);
    }
}

multiversion! {
    fn widen_bf16(from: &[u16], to: &mut [f32]) = widen_bf16_body
}

/// Widens one row of raw elements to f32; integer codes become their values.
pub(crate) fn widen(dtype: Dtype, from: &[u8], to: &mut [f32]) {
    match dtype {
        Dtype::F32 => to.copy_from_slice(bytemuck::cast_slice(from)),
        Dtype::F16 => widen_f16(bytemuck::cast_slice(from), to),
        Dtype::BF16 => widen_bf16(bytemuck::cast_slice(from), to),
        Dtype::I8 => widen_int8(from, to),
        Dtype::I4 => widen_int4(from, to),
    }
}

/// Rounds f32 to raw elements of a floating-point dtype, to nearest even.
pub(crate) fn narrow(dtype: Dtype, from: &[f32], to: &mut [u8]) {
    match dtype {
        Dtype::F32 => to.copy_from_slice(bytemuck::cast_slice(from)),
        Dtype::F16 => bytemuck::cast_slice_mut::<u8, f16>(to).convert_from_f32_slice(from),
        Dtype::BF16 => bytemuck::cast_slice_mut::<u8, bf16>(to).convert_from_f32_slice(from),
        Dtype::I8 | Dtype::I4 => unreachable!("codes are made by a quantizer, which knows their scale"),
    }
}
