//! Vector registers as values: what a register-blocked kernel needs from one, for each instruction set.

use bytemuck::Pod;

/// The element types of registers.
pub(super) trait Real: Pod + Send + Sync {
    /// Zero.
    const ZERO: Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
}

impl Real for f64 {
    const ZERO: Self = 0.0;
}

/// One vector register.
///
/// # Safety
/// Every method needs the instruction set of the implementing type, and is inlined into a function that enables it;
/// `load` and `store` touch [`Lanes::COUNT`] elements.
pub(super) unsafe trait Lanes: Copy {
    /// Element type.
    type Real: Real;
    /// Elements in a register.
    const COUNT: usize;

    unsafe fn load(from: *const Self::Real) -> Self;
    unsafe fn store(self, to: *mut Self::Real);
    unsafe fn splat(value: Self::Real) -> Self;
    /// self + a * b.
    unsafe fn plus(self, a: Self, b: Self) -> Self;
    /// Brings the line at `from` nearer, where there is an instruction for that.
    unsafe fn prefetch(from: *const Self::Real);
}

/// What counting the sign changes of a Sturm sequence needs besides.
///
/// # Safety
/// As [`Lanes`].
pub(super) unsafe trait Signs: Lanes<Real = f64> {
    /// self * b - a * c.
    unsafe fn recur(self, b: Self, a: Self, c: Self) -> Self;
    unsafe fn minus(self, b: Self) -> Self;
    /// Integer lanes: self + 1 where the signs of a and b differ.
    unsafe fn flips(self, a: Self, b: Self) -> Self;
    /// The power of two that brings the larger of |a| and |b| near one.
    unsafe fn rescale(a: Self, b: Self) -> Self;
    unsafe fn times(self, b: Self) -> Self;
}

const EXPONENT: i64 = 0x7FF0 << 48;
const INVERSE: i64 = 0x7FE0 << 48;
const MAGNITUDE: i64 = i64::MAX;

// SAFETY: plain arithmetic.
unsafe impl Signs for F64x4 {
    #[inline(always)]
    unsafe fn recur(self, b: Self, a: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i] - a.0[i] * c.0[i]))
    }
    #[inline(always)]
    unsafe fn minus(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }
    #[inline(always)]
    unsafe fn flips(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| f64::from_bits(self.0[i].to_bits() + ((a.0[i].to_bits() ^ b.0[i].to_bits()) >> 63))))
    }
    #[inline(always)]
    unsafe fn rescale(a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| {
            let largest = (a.0[i].to_bits() as i64 & MAGNITUDE).max(b.0[i].to_bits() as i64 & MAGNITUDE);
            f64::from_bits((INVERSE - (largest & EXPONENT)) as u64)
        }))
    }
    #[inline(always)]
    unsafe fn times(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
    }
}

macro_rules! portable {
    ($name:ident, $real:ty) => {
        /// Four lanes of plain arithmetic, for machines without the wider sets.
        #[derive(Clone, Copy)]
        pub(super) struct $name([$real; 4]);

        // SAFETY: plain arithmetic; loads and stores touch the four elements of COUNT.
        unsafe impl Lanes for $name {
            type Real = $real;
            const COUNT: usize = 4;

            #[inline(always)]
            unsafe fn load(from: *const $real) -> Self {
                // SAFETY: the caller passes four readable elements.
                Self(unsafe { from.cast::<[$real; 4]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $real) {
                // SAFETY: the caller passes four writable elements.
                unsafe { to.cast::<[$real; 4]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn splat(value: $real) -> Self {
                Self([value; 4])
            }
            #[inline(always)]
            unsafe fn plus(self, a: Self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
            }
            #[inline(always)]
            unsafe fn prefetch(_: *const $real) {}
        }
    };
}

portable!(F32x4, f32);
portable!(F64x4, f64);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{EXPONENT, INVERSE, Lanes, MAGNITUDE, Signs};

    macro_rules! register {
        ($name:ty, $real:ty, $count:literal, $load:ident, $store:ident, $splat:ident, $fma:ident) => {
            // SAFETY: each method is one instruction of the set that its caller enables.
            unsafe impl Lanes for $name {
                type Real = $real;
                const COUNT: usize = $count;

                #[inline(always)]
                unsafe fn load(from: *const $real) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $real) {
                    // SAFETY: the caller's promise.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn splat(value: $real) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn plus(self, a: Self, b: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $fma(a, b, self) }
                }
                #[inline(always)]
                unsafe fn prefetch(from: *const $real) {
                    // SAFETY: a hint that touches nothing.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
                }
            }
        };
    }

    register!(__m512, f32, 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps);
    register!(__m512d, f64, 8, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_set1_pd, _mm512_fmadd_pd);
    register!(__m256, f32, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps);
    register!(__m256d, f64, 4, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_set1_pd, _mm256_fmadd_pd);

    macro_rules! signs {
        ($name:ty, $mul:ident, $sub:ident, $fms:ident, $ints:ident, $floats:ident, $set:ident, $xor:ident, $and:ident,
         $shift:ident, $add:ident, $subtract:ident, $max:ident) => {
            // SAFETY: a few instructions of the set that the caller enables.
            unsafe impl Signs for $name {
                #[inline(always)]
                unsafe fn recur(self, b: Self, a: Self, c: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $fms(self, b, $mul(a, c)) }
                }
                #[inline(always)]
                unsafe fn minus(self, b: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $sub(self, b) }
                }
                #[inline(always)]
                unsafe fn flips(self, a: Self, b: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $floats($add($ints(self), $shift::<63>($xor($ints(a), $ints(b))))) }
                }
                #[inline(always)]
                unsafe fn rescale(a: Self, b: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let magnitude = $set(MAGNITUDE);
                        let a = $floats($and($ints(a), magnitude));
                        let b = $floats($and($ints(b), magnitude));
                        $floats($subtract($set(INVERSE), $and($ints($max(a, b)), $set(EXPONENT))))
                    }
                }
                #[inline(always)]
                unsafe fn times(self, b: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $mul(self, b) }
                }
            }
        };
    }

    signs!(
        __m512d,
        _mm512_mul_pd,
        _mm512_sub_pd,
        _mm512_fmsub_pd,
        _mm512_castpd_si512,
        _mm512_castsi512_pd,
        _mm512_set1_epi64,
        _mm512_xor_si512,
        _mm512_and_si512,
        _mm512_srli_epi64,
        _mm512_add_epi64,
        _mm512_sub_epi64,
        _mm512_max_pd
    );
    signs!(
        __m256d,
        _mm256_mul_pd,
        _mm256_sub_pd,
        _mm256_fmsub_pd,
        _mm256_castpd_si256,
        _mm256_castsi256_pd,
        _mm256_set1_epi64x,
        _mm256_xor_si256,
        _mm256_and_si256,
        _mm256_srli_epi64,
        _mm256_add_epi64,
        _mm256_sub_epi64,
        _mm256_max_pd
    );
}
