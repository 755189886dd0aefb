//! Every kind of instructions against one element at a time.

use std::io::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What this processor can be tested with. Where it lacks AVX2, what production runs on isn't tested here: somebody must know.
///
/// # Panics
/// Without AVX2, unless `PRIO_OPERATOR_TEST_WITHOUT_AVX2` is set.
pub(in crate::proof) fn tested() -> Vec<Instructions> {
    let available: Vec<_> = Instructions::available().collect();
    // Past the capture of tests' output: what ran should be seen of tests that pass, too.
    drop(writeln!(std::io::stderr(), "instructions tested: {available:?}"));
    #[cfg(target_arch = "x86_64")]
    let enough = available.contains(&Instructions::Avx2);
    #[cfg(not(target_arch = "x86_64"))]
    let enough = false;
    assert!(
        enough || std::env::var_os("PRIO_OPERATOR_TEST_WITHOUT_AVX2").is_some(),
        "this processor lacks AVX2, so that its instructions aren't tested: run the tests on one that has it, or set \
         PRIO_OPERATOR_TEST_WITHOUT_AVX2=1 to go without"
    );
    available
}

/// Elements that reach every carry and borrow.
const EXTREMES: [u32; 14] = [
    0,
    1,
    2,
    0xffff,
    0xf_ffff,
    0x10_0000,
    0x7fff_ffff,
    1 << 31,
    PRIME / 2,
    PRIME / 2 + 1,
    PRIME - 0x10_0000,
    PRIME - 0xf_ffff,
    PRIME - 2,
    PRIME - 1,
];

fn extremes(rng: &mut StdRng, length: usize) -> Vec<u32> {
    (0..length)
        .map(|_| {
            if rng.random() {
                EXTREMES[rng.random_range(0..EXTREMES.len())]
            } else {
                rng.random_range(0..PRIME)
            }
        })
        .collect()
}

#[test]
fn all_instructions_agree_with_one_element_at_a_time() {
    let mut rng = StdRng::seed_from_u64(11);
    let tested = tested();
    for length in (0..70).chain([1000, 4097]) {
        let (a, b) = (extremes(&mut rng, length), extremes(&mut rng, length));
        let products = a.iter().zip(&b).fold(0, |sum, (a, b)| add(sum, montgomery_mul(*a, *b)));
        let sum = a.iter().fold(0, |sum, a| add(sum, *a));
        let sums: Vec<u32> = a.iter().zip(&b).map(|(a, b)| add(*a, *b)).collect();
        for instructions in tested.iter().copied() {
            assert_eq!(dot(instructions, &a, &b), (products, sum), "{instructions:?}, {length}");
            let mut added = a.clone();
            add_to(instructions, &mut added, &b);
            assert_eq!(added, sums, "{instructions:?}, {length}");
        }
    }
}

dispatched! {
    /// The sums, differences and Montgomery products of the first [`MOST_LANES`] pairs.
    each = each_on(a: &[u32; MOST_LANES], b: &[u32; MOST_LANES]) -> [[u32; MOST_LANES]; 3]
}

#[inline(always)]
unsafe fn each_on<L: Lanes>(a: &[u32; MOST_LANES], b: &[u32; MOST_LANES]) -> [[u32; MOST_LANES]; 3] {
    let mut out = [[0; MOST_LANES]; 3];
    for i in (0..MOST_LANES).step_by(L::WIDTH) {
        // SAFETY: the most lanes are a multiple of any width.
        unsafe {
            let (a, b) = (L::load(a.as_ptr().add(i)), L::load(b.as_ptr().add(i)));
            a.add(b).store(out[0].as_mut_ptr().add(i));
            a.sub(b).store(out[1].as_mut_ptr().add(i));
            a.mul(b).store(out[2].as_mut_ptr().add(i));
        }
    }
    out
}

/// By division, with nothing of ours.
fn expected(a: u32, b: u32) -> [u32; 3] {
    let (a, b, p) = (u64::from(a), u64::from(b), u64::from(PRIME));
    // 2^32 is 2^20 − 1 modulo p; its inverse is found by Fermat.
    let inverse = (0..32).rev().fold(1, |power, bit| {
        let power = power * power % p;
        let odd = ((p - 2) >> bit) & 1 == 1;
        if odd { power * 0xf_ffff % p } else { power }
    });
    [(a + b) % p, (a + p - b) % p, a * b % p * inverse % p].map(|element| u32::try_from(element).unwrap_or(u32::MAX))
}

#[test]
fn every_pair_of_extremes_multiplies_adds_and_subtracts_in_every_lane() {
    let pairs: Vec<(u32, u32)> = EXTREMES.iter().flat_map(|a| EXTREMES.map(|b| (*a, b))).collect();
    for instructions in tested() {
        // As many turns as pairs: each is once in each lane, beside others every time.
        for turn in 0..pairs.len() {
            let of_lane = |lane: usize| pairs[(turn + 13 * lane) % pairs.len()];
            let (a, b) = (
                std::array::from_fn(|lane| of_lane(lane).0),
                std::array::from_fn(|lane| of_lane(lane).1),
            );
            let out = each(instructions, &a, &b);
            let [products, sums, differences] = out;
            let lanes = products.into_iter().zip(sums).zip(differences);
            for (lane, ((product, sum), difference)) in lanes.enumerate() {
                let got = [product, sum, difference];
                let (a, b) = of_lane(lane);
                assert_eq!(got, expected(a, b), "{instructions:?}, lane {lane}: {a} and {b}");
            }
        }
    }
}

#[test]
fn folding_and_weighing_agree_over_extremes() {
    let mut rng = StdRng::seed_from_u64(12);
    let tested = tested();
    let one = super::super::field::montgomery(1);
    for _ in 0..500 {
        // One level of folding is a + b + (a − b)·t·r.
        let mut values = extremes(&mut rng, 32);
        let twiddles: Vec<Vec<u32>> = (0..5).map(|_| extremes(&mut rng, 16)).collect();
        let powers = extremes(&mut rng, 5);
        let folded = tested.iter().map(|i| fold(*i, &mut values.clone(), &twiddles, &powers));
        let folded: Vec<u32> = folded.collect();
        assert!(folded.iter().all(|one| *one == folded[0]), "{folded:?}");
        let mut sums = vec![one; 32];
        weigh(Instructions::Portable, &mut sums, &halved(&twiddles), &powers, one);
        values.copy_from_slice(&sums);
        for instructions in tested.iter().copied() {
            weigh(instructions, &mut sums, &halved(&twiddles), &powers, one);
            assert_eq!(sums, values, "{instructions:?}");
        }
    }
}

/// Tables whose second halves are minus the first, as powers of a root are.
fn halved(twiddles: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let table = |(level, table): (usize, &Vec<u32>)| {
        let half = (1_usize << twiddles.len()) >> (level + 1);
        let at = |i: usize| {
            if (i / half).is_multiple_of(2) {
                table[i % half]
            } else {
                subtract(0, table[i % half])
            }
        };
        (0..table.len()).map(at).collect()
    };
    twiddles.iter().enumerate().map(table).collect()
}

#[test]
fn the_first_number_beyond_the_field_is_found_wherever_it_is() {
    for instructions in tested() {
        assert_eq!(first_beyond(instructions, &[]), None);
        for length in (1..70).chain([1000, 1024]) {
            let mut numbers = vec![PRIME - 1; length];
            assert_eq!(first_beyond(instructions, &numbers), None, "{instructions:?}, {length}");
            // Behind the one that is looked for others stay.
            for place in (0..length).rev() {
                numbers[place] = [PRIME, PRIME + 1, u32::MAX][place % 3];
                assert_eq!(
                    first_beyond(instructions, &numbers),
                    Some(place),
                    "{instructions:?}, {length}"
                );
            }
        }
    }
}
