//! The query: f, g and h at a point, in one pass over the share each.
//!
//! A polynomial is given by its values on the n-th roots of unity. With f(x) = e(x²) + x·o(x²), the values of 2e and 2o on
//! the (n/2)-th roots are v[i] + v[i + n/2] and (v[i] − v[i + n/2]) / w^i, so that folding log n times leaves n·f(r). No
//! division by r − w^i: every r is an ordinary point.

use zeroize::Zeroize;

use super::field::{add, inverse, montgomery, montgomery_mul, pow, reduce, root, subtract};
use super::{Message, domain, proof_length};
use crate::formats::work::Share;

/// What queries of the same number of bins have in common.
#[derive(Clone, Debug)]
pub struct ProofQuery {
    bins: usize,
    n: usize,
    /// For each level of the folding, the inverse powers of its root, in Montgomery form.
    twiddles: Vec<Vec<u32>>,
    /// 1/n, 1/2 and the inverse of the 2n-th root, in Montgomery form.
    n_inverse: u32,
    half: u32,
    root_inverse: u32,
}

impl ProofQuery {
    /// Prepares queries of packets of so many bins, 1 to 2^19 − 1.
    #[must_use]
    pub fn new(bins: u32) -> Self {
        let n = domain(bins);
        let mut twiddles = Vec::new();
        let mut size = n;
        while size > 1 {
            let step = inverse(root(size));
            let powers = std::iter::successors(Some(1), |power| Some(super::mul(*power, step)));
            twiddles.push(powers.take(size / 2).map(montgomery).collect());
            size /= 2;
        }
        Self {
            bins: bins as usize,
            n,
            twiddles,
            n_inverse: montgomery(inverse(n as u32)),
            half: montgomery(inverse(2)),
            root_inverse: montgomery(inverse(root(2 * n))),
        }
    }

    /// The number of bins.
    #[must_use]
    pub fn bins(&self) -> u32 {
        self.bins as u32
    }

    /// The verification message of a share of [`proof_length`] elements below p, at `r_pit` reduced modulo p.
    ///
    /// Ask [`super::query_point_refused`] first: the message of such a point must not leave the process.
    ///
    /// # Panics
    /// Where the share has another length; parsing gives no such share.
    #[must_use]
    pub fn message(&self, elements: &[u32], r_pit: u32, share: Share) -> Message {
        assert_eq!(elements.len(), proof_length(self.bins()), "the share is of other bins");
        let (values, proof) = elements.split_at(self.bins);
        let (f0, g0, h0, odd) = (proof[0], proof[1], proof[2], &proof[3..]);
        let r = montgomery(reduce(r_pit));
        // L0(r), which is 1 at the first root and 0 at the others: (1 + r + … + r^(n−1)) / n.
        let first_root = self.first_root(r);

        let mut buffer = vec![0; self.n];
        buffer[0] = f0;
        buffer[1..=self.bins].copy_from_slice(values);
        let f = self.evaluate(&mut buffer, r);

        // g has the values of f, but for its own g(0), and less 1 in every bin where First holds the constant.
        let mut g = add(f, montgomery_mul(subtract(g0, f0), first_root));
        if share == Share::First {
            buffer.fill(0);
            buffer[1..=self.bins].fill(1);
            g = subtract(g, self.evaluate(&mut buffer, r));
        }

        // h of degree below 2n: on the even 2n-th roots only h(0); its odd ones are those of a polynomial at r / w.
        buffer.copy_from_slice(odd);
        let shifted = self.evaluate(&mut buffer, montgomery_mul(r, self.root_inverse));
        buffer.zeroize();
        let r_to_n = pow(montgomery_mul(r, 1), self.n as u64);
        let even = montgomery_mul(h0, first_root);
        let h = add(
            super::mul(even, add(1, r_to_n)),
            super::mul(shifted, subtract(1, r_to_n)),
        );
        Message {
            f,
            g,
            h: montgomery_mul(h, self.half),
        }
    }

    /// L0(r) in Montgomery form, for r in Montgomery form: the product of 1 + r^(2^j), over n.
    fn first_root(&self, mut r: u32) -> u32 {
        let one = montgomery(1);
        let mut product = self.n_inverse;
        for _ in 0..self.n.trailing_zeros() {
            product = montgomery_mul(product, add(one, r));
            r = montgomery_mul(r, r);
        }
        product
    }

    /// The polynomial of these values on the n-th roots, at r in Montgomery form. Uses the buffer up.
    fn evaluate(&self, values: &mut [u32], mut r: u32) -> u32 {
        let mut size = values.len();
        for twiddles in &self.twiddles {
            size /= 2;
            let (low, high) = values.split_at_mut(size);
            for ((a, b), twiddle) in low.iter_mut().zip(high.iter()).zip(twiddles) {
                let odd = montgomery_mul(subtract(*a, *b), montgomery_mul(*twiddle, r));
                *a = add(add(*a, *b), odd);
            }
            r = montgomery_mul(r, r);
        }
        montgomery_mul(values[0], self.n_inverse)
    }
}
