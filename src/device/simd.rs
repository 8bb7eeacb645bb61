//! Inner loops of the CPU device: written once in plain Rust, compiled for AVX-512, AVX2 and the baseline, and
//! chosen at run time.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::Dtype;

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
#[allow(unused_imports, reason = "operations use it")]
pub(crate) use multiversion;

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
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

multiversion! {
    /// Sum of products over the shorter length, in a fixed order that depends on the length alone.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
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

/// Widens one row of raw elements to f32; integer codes become their values.
pub(crate) fn widen(dtype: Dtype, from: &[u8], to: &mut [f32]) {
    match dtype {
        Dtype::F32 => to.copy_from_slice(bytemuck::cast_slice(from)),
        Dtype::F16 => bytemuck::cast_slice::<u8, f16>(from).convert_to_f32_slice(to),
        Dtype::BF16 => bytemuck::cast_slice::<u8, bf16>(from).convert_to_f32_slice(to),
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
