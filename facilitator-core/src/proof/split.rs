//! What a client does: proves that its values are bits, and splits values and proof in two shares. For samples.

use rand::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::field::{add, inverse, mul, root, subtract};
use super::{PRIME, domain, expand_seed, proof_length};

/// The two shares of one packet, as their plaintexts.
#[derive(Clone)]
pub struct Shares {
    /// First's: the packed vector.
    pub first: Zeroizing<Vec<u8>>,
    /// Second's: the seed.
    pub second: Zeroizing<[u8; 32]>,
}

/// Splits packets of the same number of bins.
#[derive(Clone, Debug)]
pub struct ShareSplitter {
    bins: u32,
    forward: Vec<u32>,
    backward: Vec<u32>,
    shift: Vec<u32>,
}

impl ShareSplitter {
    /// Prepares packets of so many bins, 1 to 2^19 − 1.
    #[must_use]
    pub fn new(bins: u32) -> Self {
        let n = domain(bins);
        let powers = |step: u32, count: usize| -> Vec<u32> {
            std::iter::successors(Some(1), |power| Some(mul(*power, step)))
                .take(count)
                .collect()
        };
        let scale = inverse(n as u32);
        Self {
            bins,
            forward: powers(root(n), n / 2),
            backward: powers(inverse(root(n)), n / 2),
            shift: powers(root(2 * n), n)
                .into_iter()
                .map(|power| mul(power, scale))
                .collect(),
        }
    }

    /// Splits `values`, one a bin, each below p. Values other than 0 and 1 make a packet whose proof doesn't hold.
    ///
    /// # Panics
    /// Where there are more or fewer values than bins.
    pub fn split(&self, values: &[u32], rng: &mut impl CryptoRng) -> Shares {
        assert_eq!(values.len(), self.bins as usize, "one value a bin");
        let (f0, g0) = (element(rng), element(rng));
        let n = domain(self.bins);
        let (mut f, mut g) = (Zeroizing::new(vec![0; n]), Zeroizing::new(vec![0; n]));
        f[0] = f0;
        g[0] = g0;
        for (i, value) in values.iter().enumerate() {
            f[i + 1] = *value;
            g[i + 1] = subtract(*value, 1);
        }
        self.to_odd_roots(&mut f);
        self.to_odd_roots(&mut g);
        let mut elements = Zeroizing::new(Vec::with_capacity(proof_length(self.bins)));
        elements.extend_from_slice(values);
        elements.extend([f0, g0, mul(f0, g0)]);
        elements.extend(f.iter().zip(g.iter()).map(|(f, g)| mul(*f, *g)));

        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        let second = expand_seed(&seed, self.bins);
        // Room for all of it from the start: growing would leave copies.
        let mut first = Zeroizing::new(Vec::with_capacity(4 * elements.len()));
        for (whole, second) in elements.iter().zip(second.iter()) {
            first.extend_from_slice(&subtract(*whole, *second).to_le_bytes());
        }
        Shares { first, second: seed }
    }

    /// Turns values on the n-th roots into values on the odd 2n-th roots.
    fn to_odd_roots(&self, values: &mut [u32]) {
        transform(values, &self.backward);
        values
            .iter_mut()
            .zip(&self.shift)
            .for_each(|(coefficient, shift)| *coefficient = mul(*coefficient, *shift));
        transform(values, &self.forward);
    }
}

/// The discrete Fourier transform in place, by the powers of its root.
fn transform(values: &mut [u32], powers: &[u32]) {
    let n = values.len();
    for i in 1..n {
        let j = i.reverse_bits() >> (usize::BITS - n.trailing_zeros());
        if i < j {
            values.swap(i, j);
        }
    }
    let mut size = 2;
    while size <= n {
        for chunk in values.chunks_exact_mut(size) {
            let (low, high) = chunk.split_at_mut(size / 2);
            for ((a, b), power) in low.iter_mut().zip(high).zip(powers.iter().step_by(n / size)) {
                let odd = mul(*b, *power);
                (*a, *b) = (add(*a, odd), subtract(*a, odd));
            }
        }
        size *= 2;
    }
}

fn element(rng: &mut impl RngCore) -> u32 {
    loop {
        let number = rng.next_u32();
        if number < PRIME {
            return number;
        }
    }
}
