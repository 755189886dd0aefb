//! Eight elements with AVX2, sixteen with AVX-512.

use std::arch::x86_64::*;

use super::Lanes;
use crate::proof::field::{PRIME, PRIME_INVERSE};

/// 0, 1, 2, …
const INDICES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

#[derive(Clone, Copy)]
pub(super) struct Eight(__m256i);

// SAFETY of every block below: `Lanes` is used only where the instructions were found, and with pointers that are good
// for the width.
impl Lanes for Eight {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        Self(unsafe { _mm256_set1_epi32(value.cast_signed()) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // a − (p − b), where p − b may be p itself.
        unsafe { self.sub(Self(_mm256_sub_epi32(Self::splat(PRIME).0, other.0))) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe {
            let difference = _mm256_sub_epi32(self.0, other.0);
            let fits = _mm256_cmpeq_epi32(_mm256_max_epu32(self.0, other.0), self.0);
            Self(_mm256_add_epi32(
                difference,
                _mm256_andnot_si256(fits, Self::splat(PRIME).0),
            ))
        }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe {
            let (prime, inverse) = (Self::splat(PRIME).0, Self::splat(PRIME_INVERSE).0);
            let even = _mm256_mul_epu32(self.0, other.0);
            let odd = _mm256_mul_epu32(_mm256_srli_epi64(self.0, 32), _mm256_srli_epi64(other.0, 32));
            let even_multiple = _mm256_mul_epu32(_mm256_mul_epu32(even, inverse), prime);
            let odd_multiple = _mm256_mul_epu32(_mm256_mul_epu32(odd, inverse), prime);
            let high = |even, odd| Self(_mm256_blend_epi32::<0xaa>(_mm256_srli_epi64(even, 32), odd));
            high(even, odd).sub(high(even_multiple, odd_multiple))
        }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm256_max_epu32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn rotate(self, by: usize) -> Self {
        unsafe {
            // The instruction looks at the three lowest bits of an index.
            let indices = _mm256_add_epi32(Self::load(INDICES.as_ptr()).0, Self::splat(by as u32).0);
            Self(_mm256_permutevar8x32_epi32(self.0, indices))
        }
    }
    #[inline(always)]
    unsafe fn repeat(self, period: usize) -> Self {
        unsafe {
            let indices = _mm256_and_si256(Self::load(INDICES.as_ptr()).0, Self::splat(period as u32 - 1).0);
            Self(_mm256_permutevar8x32_epi32(self.0, indices))
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Sixteen(__m512i);

impl Lanes for Sixteen {
    const WIDTH: usize = 16;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        Self(unsafe { _mm512_set1_epi32(value.cast_signed()) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { self.sub(Self(_mm512_sub_epi32(Self::splat(PRIME).0, other.0))) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe {
            let difference = _mm512_sub_epi32(self.0, other.0);
            let borrows = _mm512_cmplt_epu32_mask(self.0, other.0);
            Self(_mm512_mask_add_epi32(
                difference,
                borrows,
                difference,
                Self::splat(PRIME).0,
            ))
        }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe {
            let (prime, inverse) = (Self::splat(PRIME).0, Self::splat(PRIME_INVERSE).0);
            let even = _mm512_mul_epu32(self.0, other.0);
            let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(self.0), _mm512_srli_epi64::<32>(other.0));
            let even_multiple = _mm512_mul_epu32(_mm512_mul_epu32(even, inverse), prime);
            let odd_multiple = _mm512_mul_epu32(_mm512_mul_epu32(odd, inverse), prime);
            let high = |even, odd| Self(_mm512_mask_shuffle_epi32::<0b1011_0001>(odd, 0x5555, even));
            high(even, odd).sub(high(even_multiple, odd_multiple))
        }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_epu32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn rotate(self, by: usize) -> Self {
        unsafe {
            // The instruction looks at the four lowest bits of an index.
            let indices = _mm512_add_epi32(Self::load(INDICES.as_ptr()).0, Self::splat(by as u32).0);
            Self(_mm512_permutexvar_epi32(indices, self.0))
        }
    }
    #[inline(always)]
    unsafe fn repeat(self, period: usize) -> Self {
        unsafe {
            let indices = _mm512_and_si512(Self::load(INDICES.as_ptr()).0, Self::splat(period as u32 - 1).0);
            Self(_mm512_permutexvar_epi32(indices, self.0))
        }
    }
}
