//! The query: f, g and h at a point, without a division and without a transform.
//!
//! A polynomial is given by its values on the n-th roots of unity. With f(x) = e(x²) + x·o(x²), the values of 2e and 2o on
//! the (n/2)-th roots are v[i] + v[i + n/2] and (v[i] − v[i + n/2]) / w^i, so that folding log n times leaves n·f(r): two
//! multiplications a value. The same read backwards gives every value's weight at r, which serves two vectors at the
//! price of little more than one: First's values, and the ones that it takes off in every bin. No division by r − w^i:
//! every r is an ordinary point.

use zeroize::Zeroizing;

use super::field::{add, inverse, montgomery, montgomery_mul, reduce, root, subtract};
use super::lanes::{Instructions, MOST_LANES, dot, fold, weigh};
use super::{Message, domain, mul, proof_length};
use crate::formats::work::Share;

/// Levels of folding: 2n-th roots exist up to 2^20.
const MOST_LEVELS: usize = 19;

/// What queries of the same number of bins have in common.
#[derive(Clone, Debug)]
pub struct ProofQuery {
    instructions: Instructions,
    bins: usize,
    n: usize,
    /// For each level of the folding, the inverse powers of its root, in Montgomery form.
    twiddles: Vec<Vec<u32>>,
    /// 1/n, 1/2 and the inverse of the 2n-th root, in Montgomery form.
    n_inverse: u32,
    half: u32,
    root_inverse: u32,
}

/// Room to work in, for one query after another; wiped when dropped. Its `Debug` shows no element.
#[derive(Clone, Debug)]
pub struct QueryBuffer(Zeroizing<Vec<u32>>);

impl ProofQuery {
    /// Prepares queries of packets of so many bins, 1 to 2^19 − 1.
    #[must_use]
    pub fn new(bins: u32) -> Self {
        Self::on(Instructions::detect(), bins)
    }

    pub(super) fn on(instructions: Instructions, bins: u32) -> Self {
        let n = domain(bins);
        let mut twiddles = Vec::new();
        let mut size = n;
        while size > 1 {
            let step = montgomery(inverse(root(size)));
            let powers = std::iter::successors(Some(montgomery(1)), |power| Some(montgomery_mul(*power, step)));
            twiddles.push(powers.take((size / 2).max(MOST_LANES)).collect());
            size /= 2;
        }
        Self {
            instructions,
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

    /// Room for [`ProofQuery::message_in`].
    #[must_use]
    pub fn buffer(&self) -> QueryBuffer {
        QueryBuffer(Zeroizing::new(vec![0; self.n.max(MOST_LANES)]))
    }

    /// The verification message of a share of [`proof_length`] elements below p, at `r_pit` reduced modulo p.
    ///
    /// Ask [`super::query_point_refused`] first: the message of such a point must not leave the process.
    ///
    /// # Panics
    /// Where the share has another length; parsing gives no such share.
    #[must_use]
    pub fn message(&self, elements: &[u32], r_pit: u32, share: Share) -> Message {
        self.message_in(&mut self.buffer(), elements, r_pit, share)
    }

    /// As [`ProofQuery::message`], in a buffer of this query (or one of the same bins) that is used again and again.
    ///
    /// # Panics
    /// Where the share has another length, or the buffer is of fewer bins.
    #[must_use]
    pub fn message_in(&self, buffer: &mut QueryBuffer, elements: &[u32], r_pit: u32, share: Share) -> Message {
        assert_eq!(elements.len(), proof_length(self.bins()), "the share is of other bins");
        let buffer = &mut buffer.0[..self.n.max(MOST_LANES)];
        let (values, proof) = elements.split_at(self.bins);
        let (f0, g0, h0, odd) = (proof[0], proof[1], proof[2], &proof[3..]);
        let r = montgomery(reduce(r_pit));
        let (powers, r_to_n) = self.powers(r);

        // `first_root` is L0(r), which is 1 at the first root and 0 at the others.
        let (f, ones, first_root) = match share {
            Share::First => {
                weigh(self.instructions, buffer, &self.twiddles, &powers, self.n_inverse);
                let (f, ones) = dot(self.instructions, &buffer[1..=self.bins], values);
                (
                    add(f, montgomery_mul(buffer[0], f0)),
                    montgomery_mul(ones, 1),
                    buffer[0],
                )
            }
            Share::Second => {
                buffer[0] = f0;
                buffer[1..=self.bins].copy_from_slice(values);
                buffer[self.bins + 1..].fill(0);
                let f = fold(self.instructions, buffer, &self.twiddles, &powers);
                (montgomery_mul(f, self.n_inverse), 0, self.first_root(&powers))
            }
        };
        // g has the values of f, but for its own g(0), and less 1 in every bin where First holds the constant.
        let g = subtract(add(f, montgomery_mul(subtract(g0, f0), first_root)), ones);

        // h of degree below 2n: on the even 2n-th roots only h(0); its odd ones are those of a polynomial at r / w.
        buffer[..self.n].copy_from_slice(odd);
        let (powers, _) = self.powers(montgomery_mul(r, self.root_inverse));
        let shifted = montgomery_mul(fold(self.instructions, buffer, &self.twiddles, &powers), self.n_inverse);
        let r_to_n = montgomery_mul(r_to_n, 1);
        let even = montgomery_mul(h0, first_root);
        let h = add(mul(even, add(1, r_to_n)), mul(shifted, subtract(1, r_to_n)));
        Message {
            f,
            g,
            h: montgomery_mul(h, self.half),
        }
    }

    /// The 2^l-th powers of a point for every level, and the n-th, all in Montgomery form.
    #[inline]
    fn powers(&self, mut r: u32) -> ([u32; MOST_LEVELS], u32) {
        let mut powers = [0; MOST_LEVELS];
        for power in &mut powers[..self.twiddles.len()] {
            *power = r;
            r = montgomery_mul(r, r);
        }
        (powers, r)
    }

    /// L0(r) in Montgomery form: (1 + r + … + r^(n−1)) / n, the product of 1 + r^(2^l) over n.
    fn first_root(&self, powers: &[u32]) -> u32 {
        let one = montgomery(1);
        let levels = &powers[..self.twiddles.len()];
        levels.iter().fold(self.n_inverse, |product, power| {
            montgomery_mul(product, add(one, *power))
        })
    }
}
