//! Query points that must not be answered (ledger rule 8).
//!
//! With n the next power of two ≥ bins + 1, the proof's polynomials are fixed at the n-th roots of unity: our message for
//! such a point would be a client's value at that position. At the other 2n-th roots the check says nothing.

use crate::proof::query_point_refused;

/// Whether a packet with this `r_pit` is refused: r^(2n) = 1 mod p after reduction mod p. `bins` is 1 to 2^19 − 1, the
/// most for which the field has 2n-th roots of unity.
#[must_use]
pub fn is_refused(r_pit: u32, bins: u32) -> bool {
    query_point_refused(r_pit, bins)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIME: u64 = crate::proof::PRIME as u64;

    fn power(base: u64, exponent: u64) -> u64 {
        (0..64).rev().fold(1, |acc, bit| {
            let squared = acc * acc % PRIME;
            if exponent >> bit & 1 == 1 {
                squared * base % PRIME
            } else {
                squared
            }
        })
    }

    /// A generator of the multiplicative group is 19 for this field (p − 1 = 2^20 · 3² · 5 · 7 · 13).
    fn root_of_unity(order: u64) -> u32 {
        let root = power(19, (PRIME - 1) / order);
        assert_ne!(power(root, order / 2), 1, "a primitive root");
        u32::try_from(root).unwrap_or_default()
    }

    #[test]
    fn roots_of_unity_up_to_2n_are_refused_and_nothing_else() {
        for bins in [1, 15, 16, 123, 4_096, (1 << 19) - 1] {
            let n = (u64::from(bins) + 1).next_power_of_two();
            for order in [2, n, 2 * n] {
                assert!(is_refused(root_of_unity(order), bins), "order {order}, {bins} bins");
            }
            assert!(is_refused(1, bins));
            assert!(is_refused(4_293_918_720, bins), "p - 1 is -1");
            assert!(is_refused(4_293_918_722, bins), "p + 1 aliases 1");
            assert!(!is_refused(0, bins), "0 is an ordinary point");
            assert!(!is_refused(4_293_918_721, bins), "p aliases 0");
            assert!(!is_refused(19, bins));
            if 4 * n <= 1 << 20 {
                assert!(!is_refused(root_of_unity(4 * n), bins), "{bins} bins");
            }
        }
    }
}
