//! Field arithmetic on 1, 8 or 16 elements at once, and the loops over vectors that a proof query consists of.
//!
//! The loops are written once, over [`Lanes`]; which instructions carry them out is found at run time. The only unsafe
//! code of the proofs is here.
#![allow(unsafe_code)]

use super::field::{PRIME, add, montgomery_mul, subtract};

/// The instructions that loops run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    /// One element at a time.
    Portable,
    /// Eight.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Sixteen.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The most elements at once: tables and buffers have at least so many.
pub(super) const MOST_LANES: usize = 16;

impl Instructions {
    /// The best that this processor has.
    pub(super) fn detect() -> Self {
        *Self::available().last().unwrap_or(&Self::Portable)
    }

    /// All that this processor has, the slowest first.
    pub(super) fn available() -> Vec<Self> {
        let mut available = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                available.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                available.push(Self::Avx512);
            }
        }
        available
    }
}

/// Some field elements, each below p.
///
/// # Safety
/// The processor must have the instructions of the implementation, and pointers must be good for [`Lanes::WIDTH`]
/// elements; alignment doesn't matter.
trait Lanes: Copy {
    const WIDTH: usize;
    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(self, to: *mut u32);
    unsafe fn splat(value: u32) -> Self;
    /// Sums.
    unsafe fn add(self, other: Self) -> Self;
    /// Differences.
    unsafe fn sub(self, other: Self) -> Self;
    /// Montgomery products.
    unsafe fn mul(self, other: Self) -> Self;
    /// Lane i takes lane (i + by) mod `WIDTH`.
    unsafe fn rotate(self, by: usize) -> Self;
    /// Lane i takes lane i mod `period`, a power of two.
    unsafe fn repeat(self, period: usize) -> Self;
}

#[derive(Clone, Copy)]
struct One(u32);

impl Lanes for One {
    const WIDTH: usize = 1;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: the caller's pointer is good for one element.
        Self(unsafe { from.read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: the caller's pointer is good for one element.
        unsafe { to.write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        Self(value)
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(subtract(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(montgomery_mul(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn rotate(self, _: usize) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn repeat(self, _: usize) -> Self {
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;

/// Makes a safe function of a loop: the loop compiled for each kind of instructions, chosen by the first argument.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident = $generic:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        $(#[$doc])*
        pub(super) fn $name(instructions: Instructions, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn eight($($argument: $type),*) $(-> $result)? {
                // SAFETY: the processor has AVX2, or this function would not run.
                unsafe { $generic::<x86::Eight>($($argument),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            fn sixteen($($argument: $type),*) $(-> $result)? {
                // SAFETY: the processor has AVX-512F, or this function would not run.
                unsafe { $generic::<x86::Sixteen>($($argument),*) }
            }
            // SAFETY: `Instructions` other than `Portable` come only from `available`, which asks the processor.
            match instructions {
                Instructions::Portable => unsafe { $generic::<One>($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => unsafe { eight($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => unsafe { sixteen($($argument),*) },
            }
        }
    };
}

dispatched! {
    /// n times the polynomial of these n values on the n-th roots, at a point: `powers` are its 2^l-th powers in
    /// Montgomery form, `twiddles` of each level the inverse powers of its root. Uses the buffer up, which has
    /// [`MOST_LANES`] elements at least.
    fold = fold_on(values: &mut [u32], twiddles: &[Vec<u32>], powers: &[u32]) -> u32
}
dispatched! {
    /// What each of the n values contributes at a point: the values of the Lagrange polynomials times `start` · n, in
    /// Montgomery form. Arguments as [`fold`]'s.
    weigh = weigh_on(weights: &mut [u32], twiddles: &[Vec<u32>], powers: &[u32], start: u32)
}
dispatched! {
    /// The sum of Montgomery products, and the sum of the first factors; both vectors have the same length.
    dot = dot_on(weights: &[u32], values: &[u32]) -> (u32, u32)
}
dispatched! {
    /// Adds a vector to another of the same length.
    add_to = add_to_on(sums: &mut [u32], values: &[u32])
}

#[inline(always)]
unsafe fn fold_on<L: Lanes>(values: &mut [u32], twiddles: &[Vec<u32>], powers: &[u32]) -> u32 {
    assert!(values.len() >= MOST_LANES.max(1 << twiddles.len()) && powers.len() >= twiddles.len());
    assert!(
        twiddles
            .iter()
            .rev()
            .enumerate()
            .all(|(log, level)| level.len() >= MOST_LANES.max(1 << log))
    );
    let mut size = 1_usize << twiddles.len();
    let mut levels = twiddles.iter().zip(powers);
    let values = values.as_mut_ptr();
    // SAFETY: all offsets are below `size`, which `values` and twice each level's table reach (asserted), or below the
    // width, which both reach too.
    unsafe {
        while size >= 2 * L::WIDTH {
            let Some((twiddles, power)) = levels.next() else { break };
            let (half, power) = (size / 2, L::splat(*power));
            for i in (0..half).step_by(L::WIDTH) {
                let (a, b) = (L::load(values.add(i)), L::load(values.add(half + i)));
                let x = L::load(twiddles.as_ptr().add(i)).mul(power);
                a.add(b).add(a.sub(b).mul(x)).store(values.add(i));
            }
            size = half;
        }
        // What is left fits into one register; lanes from half on hold nothing of use.
        let mut a = L::load(values);
        for (twiddles, power) in levels {
            size /= 2;
            let b = a.rotate(size);
            let x = L::load(twiddles.as_ptr()).mul(L::splat(*power));
            a = a.add(b).add(a.sub(b).mul(x));
        }
        a.store(values);
        *values
    }
}

#[inline(always)]
unsafe fn weigh_on<L: Lanes>(weights: &mut [u32], twiddles: &[Vec<u32>], powers: &[u32], start: u32) {
    assert!(weights.len() >= MOST_LANES.max(1 << twiddles.len()) && powers.len() >= twiddles.len());
    assert!(
        twiddles
            .iter()
            .rev()
            .enumerate()
            .all(|(log, level)| level.len() >= MOST_LANES.max(1 << log))
    );
    let mut levels = twiddles.iter().zip(powers).rev();
    let weights = weights.as_mut_ptr();
    let mut size = 1;
    // SAFETY: as in `fold_on`.
    unsafe {
        let mut w = L::splat(start);
        while size < L::WIDTH {
            let Some((twiddles, power)) = levels.next() else { break };
            // The root's power at i + size is minus that at i, so that the sign takes care of itself.
            let repeated = w.repeat(size);
            let x = L::load(twiddles.as_ptr()).mul(L::splat(*power));
            w = repeated.add(repeated.mul(x));
            size *= 2;
        }
        w.store(weights);
        for (twiddles, power) in levels {
            let power = L::splat(*power);
            for i in (0..size).step_by(L::WIDTH) {
                let w = L::load(weights.add(i));
                let product = w.mul(L::load(twiddles.as_ptr().add(i)).mul(power));
                w.add(product).store(weights.add(i));
                w.sub(product).store(weights.add(size + i));
            }
            size *= 2;
        }
    }
}

#[inline(always)]
unsafe fn dot_on<L: Lanes>(weights: &[u32], values: &[u32]) -> (u32, u32) {
    assert_eq!(weights.len(), values.len());
    let whole = weights.len() / L::WIDTH * L::WIDTH;
    // SAFETY: offsets and the width beyond them are below the common length.
    let (mut products, mut sum) = unsafe {
        let (mut products, mut sum) = (L::splat(0), L::splat(0));
        for i in (0..whole).step_by(L::WIDTH) {
            let w = L::load(weights.as_ptr().add(i));
            products = products.add(w.mul(L::load(values.as_ptr().add(i))));
            sum = sum.add(w);
        }
        (total(products), total(sum))
    };
    for (weight, value) in weights[whole..].iter().zip(&values[whole..]) {
        products = add(products, montgomery_mul(*weight, *value));
        sum = add(sum, *weight);
    }
    (products, sum)
}

/// The sum of all lanes.
#[inline(always)]
unsafe fn total<L: Lanes>(mut lanes: L) -> u32 {
    let mut out = [0; MOST_LANES];
    // SAFETY: the buffer has room for the widest.
    unsafe {
        let mut by = L::WIDTH / 2;
        while by > 0 {
            lanes = lanes.add(lanes.rotate(by));
            by /= 2;
        }
        lanes.store(out.as_mut_ptr());
    }
    out[0]
}

#[inline(always)]
unsafe fn add_to_on<L: Lanes>(sums: &mut [u32], values: &[u32]) {
    assert_eq!(sums.len(), values.len());
    let whole = sums.len() / L::WIDTH * L::WIDTH;
    // SAFETY: offsets and the width beyond them are below the common length.
    unsafe {
        for i in (0..whole).step_by(L::WIDTH) {
            let sum = L::load(sums.as_ptr().add(i)).add(L::load(values.as_ptr().add(i)));
            sum.store(sums.as_mut_ptr().add(i));
        }
    }
    for (sum, value) in sums[whole..].iter_mut().zip(&values[whole..]) {
        *sum = add(*sum, *value);
    }
}

/// The place of the first element that isn't below p.
pub(super) fn first_beyond(elements: &[u32]) -> Option<usize> {
    // p − 1 more than the largest element overflows; without branches, so that the compiler may take many at once.
    let beyond = |element: u32| element.wrapping_add(u32::MAX - PRIME + 1) < u32::MAX - PRIME + 1;
    if !elements.iter().fold(false, |any, element| any | beyond(*element)) {
        return None;
    }
    elements.iter().position(|element| *element >= PRIME)
}

#[cfg(test)]
pub(super) mod tests;
