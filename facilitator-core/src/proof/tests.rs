//! Against the `prio` crate, which implements the same system, over random and extreme inputs.
#![allow(clippy::unwrap_used)]

use prio::codec::{Decode, Encode};
use prio::field::FieldPrio2;
use prio::vdaf::prio2::Prio2;
use prio::vdaf::xof::Seed;
use prio::vdaf::{Aggregator, Client, Share as PrioShare, VerifyTransition};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;

const BINS: [u32; 14] = [1, 2, 3, 4, 7, 8, 15, 16, 17, 123, 127, 128, 1000, 4096];

fn prio_message(bins: u32, r: u32, share: &PrioShare<FieldPrio2, 32>, leader: bool) -> Message {
    let prio = Prio2::new(bins as usize).unwrap();
    let (_, verifier) = prio
        .verify_init_with_query_rand(FieldPrio2::from(r), share, leader)
        .unwrap();
    let bytes = verifier.get_encoded().unwrap();
    let element = |i: usize| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap());
    Message {
        f: element(0),
        g: element(1),
        h: element(2),
    }
}

fn leader(elements: &[u32]) -> PrioShare<FieldPrio2, 32> {
    PrioShare::Leader(elements.iter().map(|element| FieldPrio2::from(*element)).collect())
}

#[test]
fn messages_equal_the_reference_for_any_vector_and_point() {
    let mut rng = StdRng::seed_from_u64(7);
    for bins in BINS {
        let query = ProofQuery::new(bins);
        let vectors: Vec<Vec<u32>> = vec![
            vec![0; proof_length(bins)],
            vec![PRIME - 1; proof_length(bins)],
            (0..proof_length(bins)).map(|_| rng.random_range(0..PRIME)).collect(),
        ];
        let roots = field::root(2 * domain(bins));
        let points = [
            0,
            1,
            2,
            PRIME - 1,
            PRIME,
            PRIME + 1,
            u32::MAX,
            roots,
            mul(roots, roots),
            rng.next_u32(),
            rng.next_u32(),
        ];
        for elements in &vectors {
            for r in points {
                // The library's own conversion of u32 aliases as ours does.
                let expected = (
                    prio_message(bins, r, &leader(elements), true),
                    prio_message(bins, r, &leader(elements), false),
                );
                let own = (
                    query.message(elements, r, Share::First),
                    query.message(elements, r, Share::Second),
                );
                if !query_point_refused(r, bins) {
                    assert_eq!(own, expected, "bins {bins}, r {r}");
                }
                assert_eq!(verification_message(elements, bins, r, Share::First), own.0);
            }
        }
    }
}

#[test]
fn the_most_bins_that_the_field_has_roots_for_work() {
    let mut rng = StdRng::seed_from_u64(11);
    let bins = crate::formats::parameters::MAX_BINS;
    let elements = expand_seed(&rng.random(), bins);
    let expected = prio_message(bins, 3, &leader(&elements), true);
    assert_eq!(verification_message(&elements, bins, 3, Share::First), expected);
    assert!(Prio2::new(bins as usize + 1).is_err());
}

#[test]
fn all_instructions_give_the_same_messages_at_any_number_of_bins() {
    let mut rng = StdRng::seed_from_u64(13);
    let tested = lanes::tests::tested();
    let sampled: Vec<u32> = (1..=70).chain((0..40).map(|_| rng.random_range(71..=4096))).collect();
    let powers = (7..=12).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1]);
    for bins in sampled.into_iter().chain(powers).chain([50_000, 65_535, 65_536]) {
        let queries: Vec<_> = tested
            .iter()
            .map(|instructions| ProofQuery::on(*instructions, bins))
            .collect();
        let random: Vec<u32> = (0..proof_length(bins)).map(|_| rng.random_range(0..PRIME)).collect();
        for elements in [vec![PRIME - 1; proof_length(bins)], random] {
            for r in [0, PRIME - 1, u32::MAX, rng.next_u32()] {
                for share in [Share::First, Share::Second] {
                    let expected = queries[0].message(&elements, r, share);
                    if bins < 3000 && !query_point_refused(r, bins) {
                        assert_eq!(
                            expected,
                            prio_message(bins, r, &leader(&elements), share == Share::First),
                            "bins {bins}, r {r}"
                        );
                    }
                    // A buffer that was used for another share before.
                    let mut buffer = queries[0].buffer();
                    for query in &queries {
                        assert_eq!(
                            query.message_in(&mut buffer, &elements, r, share),
                            expected,
                            "bins {bins}, r {r}"
                        );
                    }
                }
            }
        }
    }
}

/// The most bins that the field allows; too many for the reference in a test, so each way against another.
#[test]
fn the_most_bins_are_queried_alike_and_their_proofs_hold() {
    let bins = (1 << 19) - 1;
    let mut rng = StdRng::seed_from_u64(14);
    let values: Vec<u32> = (0..bins).map(|_| rng.random_range(0..2)).collect();
    let shares = ShareSplitter::new(bins).split(&values, &mut rng);
    let first = parse_first_share(&shares.first, bins).unwrap();
    let second = parse_second_share(&*shares.second, bins).unwrap();
    let r = rng.next_u32();
    let messages: Vec<_> = lanes::tests::tested()
        .into_iter()
        .map(|instructions| {
            let query = ProofQuery::on(instructions, bins);
            (
                query.message(&first, r, Share::First),
                query.message(&second, r, Share::Second),
            )
        })
        .collect();
    assert!(messages.iter().all(|pair| *pair == messages[0]));
    assert!(proof_holds(messages[0].0, messages[0].1));
}

#[test]
fn seeds_expand_as_the_references() {
    let mut rng = StdRng::seed_from_u64(8);
    let mut seeds: Vec<[u8; 32]> = vec![[0; 32], [0xff; 32]];
    seeds.extend((0..20).map(|_| rng.random::<[u8; 32]>()));
    for bins in BINS {
        let prio = Prio2::new(bins as usize).unwrap();
        for seed in &seeds {
            let own = expand_seed(seed, bins);
            assert_eq!(own.len(), proof_length(bins));
            // The whole vector shows in the message; the values show in the output share.
            let share = PrioShare::Helper(Seed::get_decoded(seed).unwrap());
            assert_eq!(
                ProofQuery::new(bins).message(&own, 12_345, Share::Second),
                prio_message(bins, 12_345, &share, false)
            );
            let (state, _) = prio
                .verify_init_with_query_rand(FieldPrio2::from(5), &share, false)
                .unwrap();
            let VerifyTransition::Finish(output) = prio.verify_next(b"", state, ()).unwrap() else {
                panic!("two rounds")
            };
            let values: Vec<u32> = output.as_ref().iter().map(|element| u32::from(*element)).collect();
            assert_eq!(values, own[..bins as usize]);
        }
    }
}

#[test]
fn proofs_of_the_reference_hold_and_sum_to_the_values() {
    let mut rng = StdRng::seed_from_u64(9);
    for bins in BINS {
        let values: Vec<u32> = (0..bins).map(|_| rng.random_range(0..2)).collect();
        let (_, shares) = Prio2::new(bins as usize)
            .unwrap()
            .shard(b"", &values, &[0; 16])
            .unwrap();
        let first = parse_first_share(&shares[0].get_encoded().unwrap(), bins).unwrap();
        let second = parse_second_share(&shares[1].get_encoded().unwrap(), bins).unwrap();
        check(bins, &values, &first, &second, true, &mut rng);
    }
}

#[test]
fn our_splits_hold_for_bits_and_for_nothing_else() {
    let mut rng = StdRng::seed_from_u64(10);
    for bins in BINS {
        let splitter = ShareSplitter::new(bins);
        for (low, high) in [(0, 1), (1, 2), (0, 2)] {
            let values: Vec<u32> = (0..bins).map(|_| rng.random_range(low..high)).collect();
            let shares = splitter.split(&values, &mut rng);
            let first = parse_first_share(&shares.first, bins).unwrap();
            let second = parse_second_share(&*shares.second, bins).unwrap();
            check(bins, &values, &first, &second, true, &mut rng);
        }
        for bad in [2, PRIME - 1] {
            let mut values = vec![1; bins as usize];
            values[bins as usize - 1] = bad;
            let shares = splitter.split(&values, &mut rng);
            let first = parse_first_share(&shares.first, bins).unwrap();
            let second = parse_second_share(&*shares.second, bins).unwrap();
            check(bins, &values, &first, &second, false, &mut rng);
        }
    }
}

fn check(bins: u32, values: &[u32], first: &[u32], second: &[u32], holds: bool, rng: &mut StdRng) {
    let mut sum = first[..bins as usize].to_vec();
    accumulate(&mut sum, &second[..bins as usize]);
    assert_eq!(sum, values);
    subtract_from(&mut sum, values);
    assert!(sum.iter().all(|element| *element == 0));
    let r = rng.random_range(2..PRIME);
    let own = prio_message(bins, r, &leader(first), true);
    let query = ProofQuery::new(bins);
    assert_eq!(query.message(first, r, Share::First), own);
    assert_eq!(
        proof_holds(own, query.message(second, r, Share::Second)),
        holds,
        "bins {bins}"
    );
}

#[test]
fn shares_of_other_bins_or_beyond_the_field_are_told_apart() {
    let bytes = |element: u32| element.to_le_bytes().repeat(proof_length(3));
    assert!(parse_first_share(&bytes(PRIME - 1), 3).is_ok());
    assert_eq!(
        parse_first_share(&bytes(PRIME), 3).unwrap_err(),
        ShareError::ElementOutOfField { index: 0 }
    );
    assert!(matches!(
        parse_first_share(&bytes(0), 4).unwrap_err(),
        ShareError::WrongDimension { .. }
    ));
    assert!(matches!(
        parse_first_share(&bytes(PRIME)[1..], 3).unwrap_err(),
        ShareError::WrongDimension { .. }
    ));
    for length in [0, 31, 33] {
        assert!(matches!(
            parse_second_share(&vec![0; length], 3).unwrap_err(),
            ShareError::WrongDimension { .. }
        ));
    }
}

/// Ledger rule 8, over every 2n-th root: those and no others are refused.
#[test]
fn query_points_refused_are_the_roots_of_unity() {
    for bins in [1, 5, 7, 16] {
        let order = 2 * domain(bins);
        let root = field::root(order);
        let mut point = 1;
        for _ in 0..order {
            assert!(query_point_refused(point, bins));
            if point < u32::MAX - PRIME {
                assert!(query_point_refused(point + PRIME, bins), "aliases too");
            }
            assert!(!query_point_refused(mul(point, field::root(2 * order)), bins));
            point = mul(point, root);
        }
        assert!(!query_point_refused(0, bins) && !query_point_refused(PRIME, bins));
        assert!(!query_point_refused(2, bins) && query_point_refused(PRIME + 1, bins));
    }
}
