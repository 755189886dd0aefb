//! Ledger rule 1. One query point per packet, ever: f(0) hides the values behind one random element of the field. Two
//! messages of the same packet at two points take it out again, and what is left are so few possible values that all can
//! be tried. Here within a batch; a packet that comes again in another batch is in `tests/flow/replays.rs`.

use facilitator_core::formats::work::Share;
use facilitator_core::proof::{add, mul, subtract};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::observer::{Client, SHARES, answered, f, inverse, tamper, weights};
use crate::world::{World, intake_both, verdict, window};

/// The values that fit both points: f(r) = w0(r)·f(0) + Σ w(r)·value, so f(r)/w0(r) at one point less that at the other is
/// a sum of known weights, one for each value that is 1. All 2^bins are tried.
fn fitting(bins: u32, [(r, at_r), (s, at_s)]: [(u32, u32); 2]) -> Vec<Vec<u32>> {
    let scaled = |r: u32| -> (u32, Vec<u32>) {
        let weights = weights(bins, r);
        let scale = inverse(weights[0]);
        (scale, weights[1..].iter().map(|weight| mul(*weight, scale)).collect())
    };
    let ((scale_r, of_r), (scale_s, of_s)) = (scaled(r), scaled(s));
    let wanted = subtract(mul(at_r, scale_r), mul(at_s, scale_s));
    let steps: Vec<u32> = of_r.iter().zip(&of_s).map(|(a, b)| subtract(*a, *b)).collect();
    let sum = |bits: u32| {
        (0..bins)
            .filter(|bin| bits >> bin & 1 == 1)
            .fold(0, |sum, bin| add(sum, steps[bin as usize]))
    };
    (0..1 << bins)
        .filter(|bits| sum(*bits) == wanted)
        .map(|bits| (0..bins).map(|bin| bits >> bin & 1).collect())
        .collect()
}

#[test]
fn one_packet_under_two_query_points_is_a_clients_whole_histogram() {
    for (bins, seed) in [(1, 1), (8, 2), (12, 3), (16, 4)] {
        let client = Client::new(bins, seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let points: [u32; 2] = [rng.random_range(0..1 << 31), rng.random_range(0..1 << 31)];
        let seen = points.map(|r| (r, f(client.messages(r))));
        assert_eq!(fitting(bins, seen), std::slice::from_ref(&client.values), "{bins} bins");
        // One point alone fits every histogram: for each there is an f(0).
        let weights = weights(bins, points[0]);
        let mut free = seen[0].1;
        for (value, weight) in client.values.iter().zip(&weights[1..]) {
            free = subtract(free, mul(1 - value, *weight));
        }
        let f0 = mul(free, inverse(weights[0]));
        let opposite = client.values.iter().zip(&weights[1..]);
        let again = opposite.fold(mul(f0, weights[0]), |sum, (value, weight)| {
            add(sum, mul(1 - value, *weight))
        });
        assert_eq!(again, seen[0].1, "the opposite of every value fits as well");
    }
}

/// The ingestor writes a client's packet again, under another name and another query point.
#[tokio::test]
async fn a_packet_is_answered_once_whatever_it_is_called() {
    let world = World::new();
    let sample = world.sample_of(1, 12, 8, &[]);
    tamper(&world, &sample.id, |packets| {
        let mut again = packets[3].clone();
        again.uuid = uuid::Uuid::from_u128(77);
        again.r_pit = (again.r_pit + 1) % (1 << 31);
        packets.push(again);
    });
    intake_both(&world, &sample.id).await;
    for share in SHARES {
        let answered = answered(&world.peer_validation, &sample.id, share);
        assert_eq!(answered.len(), 12);
        assert!(!answered.contains(&uuid::Uuid::from_u128(77)));
    }
    let result = verdict(&world.processor(Share::First), &window()).await;
    assert_eq!((result.clients, result.excluded_packets), (12, 1));
    verdict(&world.processor(Share::Second), &window()).await;
    assert_eq!(world.totals(&window()), sample.totals);
}
