//! Every kind of instructions against one element at a time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Elements that reach every carry and borrow.
fn extremes(rng: &mut StdRng, length: usize) -> Vec<u32> {
    let some = [
        0,
        1,
        2,
        0xf_ffff,
        0x10_0000,
        1 << 31,
        PRIME / 2,
        PRIME - 0x10_0000,
        PRIME - 2,
        PRIME - 1,
    ];
    (0..length)
        .map(|_| {
            if rng.random() {
                some[rng.random_range(0..some.len())]
            } else {
                rng.random_range(0..PRIME)
            }
        })
        .collect()
}

#[test]
fn all_instructions_agree_with_one_element_at_a_time() {
    let mut rng = StdRng::seed_from_u64(11);
    for length in (0..70).chain([1000, 4097]) {
        let (a, b) = (extremes(&mut rng, length), extremes(&mut rng, length));
        let products = a.iter().zip(&b).fold(0, |sum, (a, b)| add(sum, montgomery_mul(*a, *b)));
        let sum = a.iter().fold(0, |sum, a| add(sum, *a));
        let sums: Vec<u32> = a.iter().zip(&b).map(|(a, b)| add(*a, *b)).collect();
        for instructions in Instructions::available() {
            assert_eq!(dot(instructions, &a, &b), (products, sum), "{instructions:?}, {length}");
            let mut added = a.clone();
            add_to(instructions, &mut added, &b);
            assert_eq!(added, sums, "{instructions:?}, {length}");
        }
    }
}

#[test]
fn every_pair_of_extremes_multiplies_adds_and_subtracts_in_every_lane() {
    let mut rng = StdRng::seed_from_u64(12);
    let one = super::super::field::montgomery(1);
    for _ in 0..500 {
        // One level of folding is a + b + (a − b)·t·r.
        let mut values = extremes(&mut rng, 32);
        let twiddles: Vec<Vec<u32>> = (0..5).map(|_| extremes(&mut rng, 16)).collect();
        let powers = extremes(&mut rng, 5);
        let folded = Instructions::available()
            .into_iter()
            .map(|i| fold(i, &mut values.clone(), &twiddles, &powers));
        let folded: Vec<u32> = folded.collect();
        assert!(folded.iter().all(|one| *one == folded[0]), "{folded:?}");
        let mut sums = vec![one; 32];
        weigh(Instructions::Portable, &mut sums, &halved(&twiddles), &powers, one);
        values.copy_from_slice(&sums);
        for instructions in Instructions::available() {
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
fn elements_beyond_the_field_are_found() {
    assert_eq!(first_beyond(&[]), None);
    assert_eq!(first_beyond(&[0, PRIME - 1, 5]), None);
    for bad in [PRIME, PRIME + 1, u32::MAX] {
        let mut elements = vec![PRIME - 1; 100];
        elements[77] = bad;
        elements[99] = bad;
        assert_eq!(first_beyond(&elements), Some(77));
    }
}
