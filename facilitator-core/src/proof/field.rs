//! The field of p elements, on u32.

/// p = 2^32 − 2^20 + 1.
pub const PRIME: u32 = 4_293_918_721;
const P: u64 = PRIME as u64;
/// A generator of the subgroup of order 2^20, the one that the original's library uses.
const GENERATOR: u32 = 3_925_978_153;
const GENERATOR_ORDER: u64 = 1 << 20;

/// A number modulo p: values from p to 2^32 − 1 alias small ones.
#[must_use]
pub fn reduce(value: u32) -> u32 {
    if value >= PRIME { value - PRIME } else { value }
}

/// a + b, both below p.
#[must_use]
#[inline]
pub fn add(a: u32, b: u32) -> u32 {
    let sum = u64::from(a) + u64::from(b);
    (if sum >= P { sum - P } else { sum }) as u32
}

/// a − b, both below p.
#[must_use]
#[inline]
pub fn subtract(a: u32, b: u32) -> u32 {
    if a >= b {
        a - b
    } else {
        a.wrapping_sub(b).wrapping_add(PRIME)
    }
}

/// a · b, both below p.
#[must_use]
#[inline]
pub fn mul(a: u32, b: u32) -> u32 {
    (u64::from(a) * u64::from(b) % P) as u32
}

/// base^exponent.
#[must_use]
pub fn pow(mut base: u32, mut exponent: u64) -> u32 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = mul(result, base);
        }
        base = mul(base, base);
        exponent >>= 1;
    }
    result
}

/// 1 / a, for a ≠ 0.
pub(super) fn inverse(a: u32) -> u32 {
    pow(a, P - 2)
}

/// A primitive root of unity of order n, a power of two up to 2^20; consistent: the root of n is that of 2n squared.
pub(super) fn root(n: usize) -> u32 {
    pow(GENERATOR, GENERATOR_ORDER / n as u64)
}

// Montgomery form a·2^32 mod p: a product of one factor in Montgomery form with one in plain form is plain, without a
// division. The twiddle factors and the query point are kept in it.

const fn inverse_of_prime() -> u32 {
    let (mut x, mut step) = (1_u32, 0);
    while step < 5 {
        x = x.wrapping_mul(2_u32.wrapping_sub(PRIME.wrapping_mul(x)));
        step += 1;
    }
    x
}

/// p^−1 modulo 2^32.
pub(super) const PRIME_INVERSE: u32 = inverse_of_prime();

/// a in Montgomery form.
pub(super) fn montgomery(a: u32) -> u32 {
    ((u64::from(a) << 32) % P) as u32
}

/// a · b · 2^−32.
#[inline]
pub(super) fn montgomery_mul(a: u32, b: u32) -> u32 {
    let product = u64::from(a) * u64::from(b);
    let multiple = u64::from((product as u32).wrapping_mul(PRIME_INVERSE)) * P;
    subtract((product >> 32) as u32, (multiple >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [u32; 10] = [0, 1, 2, 3, 0xffff, 0x10_0000, 1 << 31, PRIME / 2, PRIME - 2, PRIME - 1];

    #[test]
    fn agrees_with_big_integers() {
        for a in SAMPLES {
            for b in SAMPLES {
                let (x, y, p) = (u128::from(a), u128::from(b), u128::from(PRIME));
                assert_eq!(u128::from(add(a, b)), (x + y) % p);
                assert_eq!(u128::from(subtract(a, b)), (x + p - y) % p);
                assert_eq!(u128::from(mul(a, b)), x * y % p);
                assert_eq!(montgomery_mul(montgomery(a), b), mul(a, b));
            }
            if a != 0 {
                assert_eq!(mul(a, inverse(a)), 1);
            }
            assert_eq!(reduce(a), a);
        }
        assert_eq!(reduce(PRIME), 0);
        assert_eq!(reduce(u32::MAX), u32::MAX - PRIME);
    }

    #[test]
    fn roots_have_their_order() {
        for log in 1..=20 {
            let n = 1_usize << log;
            assert_eq!(pow(root(n), n as u64), 1);
            assert_eq!(pow(root(n), n as u64 / 2), PRIME - 1);
            assert_eq!(mul(root(n), root(n)), root(n / 2));
        }
    }
}
