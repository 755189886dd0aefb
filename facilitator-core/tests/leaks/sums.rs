//! Ledger rules 6 and 7. Whoever gets both sum parts may add and subtract sums: what is left must never be of few clients.

use facilitator_core::aggregate::{AggregateOutcome, aggregate_again};
use facilitator_core::formats::ledger::{FailedReason, Verdict, WindowResult};
use facilitator_core::formats::work::{Approval, Share};
use facilitator_core::processor::Processor;
use facilitator_core::proof::{PRIME, accumulate, add, subtract};

use crate::observer::{Client, SHARES};
use crate::world::{NOW, World, intake_both, second, verdict, window};

const BINS: u32 = 8;
const FLOOR: u64 = 10;

/// What a portal makes of the two sum parts of these clients.
fn totals(clients: &[&Client]) -> Vec<u32> {
    let [first, second] = SHARES.map(|share| {
        let mut sum = vec![0; BINS as usize];
        for client in clients {
            accumulate(&mut sum, client.addend(share));
        }
        sum
    });
    first.iter().zip(&second).map(|(a, b)| add(*a, *b)).collect()
}

fn difference(more: &[u32], fewer: &[u32]) -> Vec<u32> {
    more.iter().zip(fewer).map(|(a, b)| subtract(*a, *b)).collect()
}

fn clients(count: u64) -> Vec<Client> {
    (0..count).map(|seed| Client::new(BINS, seed)).collect()
}

#[test]
fn two_sums_that_differ_by_one_client_are_that_client() {
    let clients = clients(100);
    let all: Vec<&Client> = clients.iter().collect();
    for (place, client) in all.iter().enumerate().step_by(17) {
        let mut others = all.clone();
        others.remove(place);
        assert_eq!(
            difference(&totals(&all), &totals(&others)),
            client.values,
            "client {place}"
        );
        // One for another: neither sum is the smaller one, and the difference is of just these two.
        let exchanged: Vec<&Client> = others[1..].iter().copied().chain([*client]).collect();
        let seen = difference(&totals(&exchanged), &totals(&others));
        let expected: Vec<u32> = client
            .values
            .iter()
            .zip(&others[0].values)
            .map(|(a, b)| subtract(*a, *b))
            .collect();
        assert_eq!(seen, expected);
    }
}

/// Each two of these sums differ by 50 clients or more.
#[test]
fn three_sums_can_be_one_client_though_no_two_are() {
    let clients = clients(101);
    let (early, rest) = clients.split_at(50);
    let (late, one) = rest.split_at(50);
    let all: Vec<&Client> = clients.iter().collect();
    let [early, late]: [Vec<&Client>; 2] = [early, late].map(|part| part.iter().collect());
    let left = difference(&difference(&totals(&all), &totals(&early)), &totals(&late));
    assert_eq!(left, one[0].values);
}

#[test]
fn a_sum_of_few_clients_is_the_clients() {
    let [one, other, third] = [1, 2, 3].map(|seed| Client::new(BINS, seed));
    assert_eq!(totals(&[&one]), one.values);
    // Two that have seen their own values know the third's.
    let theirs = totals(&[&other, &third]);
    assert_eq!(difference(&totals(&[&one, &other, &third]), &theirs), one.values);
    // And a bin that nobody or everybody has set tells of each of them.
    let known = totals(&[&one, &other]).iter().filter(|total| **total != 1).count();
    assert!(known > 0);
}

fn processor(world: &World, share: Share, min_clients: u64) -> Processor {
    Processor {
        min_clients,
        ..world.processor(share)
    }
}

async fn release_again(processor: &Processor, release: u8) -> WindowResult {
    let approval = Approval {
        release,
        expires_at_millis: (NOW + 60) * 1_000,
        approved_by: "privacy-officer".into(),
        reason: "late".into(),
    };
    match aggregate_again(processor, &window(), &approval, second(NOW), &|| second(NOW)).await {
        Ok(AggregateOutcome::Done { result, .. }) => *result,
        other => panic!("{other:?}"),
    }
}

/// With a floor of one client the guard lets everything through, and the portal's sums give the late client away.
#[tokio::test]
async fn a_late_client_can_not_be_told_from_two_releases() {
    let world = World::new();
    intake_both(&world, &world.sample(1, 20, &[]).id).await;
    for share in SHARES {
        verdict(&world.processor(share), &window()).await;
    }
    let late = world.sample(2, 1, &[]);
    intake_both(&world, &late.id).await;
    for share in SHARES {
        let refused = release_again(&processor(&world, share, FLOOR), 2).await;
        assert_eq!(refused.reason, Some(FailedReason::SetsTooClose), "{}", refused.message);
        assert!(
            !world.portal[usize::from(share.index())]
                .snapshot()
                .keys()
                .any(|name| name.contains("release-"))
        );
    }
    for share in SHARES {
        let unguarded = release_again(&processor(&world, share, 1), 3).await;
        assert_eq!(unguarded.verdict, Verdict::Summed, "{}", unguarded.message);
    }
    let [before, after] = [window(), window().again(3).unwrap()].map(|window| world.totals(&window));
    let p = u64::from(PRIME);
    let told: Vec<u64> = after.iter().zip(&before).map(|(a, b)| (a + p - b) % p).collect();
    assert_eq!(told, late.totals, "its values, bit by bit");
}

#[tokio::test]
async fn a_sum_below_the_floor_reaches_no_portal_and_one_part_alone_says_nothing() {
    let world = World::new();
    let sample = world.sample(1, 1, &[]);
    intake_both(&world, &sample.id).await;
    for share in SHARES {
        let result = verdict(&processor(&world, share, FLOOR), &window()).await;
        assert_eq!((result.verdict, result.clients), (Verdict::BelowFloor, 1));
        assert!(world.portal[usize::from(share.index())].snapshot().is_empty());
    }
    // Without the floor at one side only, the portal has one part: noise without the other.
    let world = World::new();
    intake_both(&world, &world.sample(1, 1, &[]).id).await;
    verdict(&processor(&world, Share::First, FLOOR), &window()).await;
    verdict(&processor(&world, Share::Second, 1), &window()).await;
    assert!(world.portal[0].snapshot().is_empty());
    let part = world.sum_part(Share::Second, &window()).unwrap();
    assert!(part.sum.iter().all(|share| *share > 1), "{:?}", part.sum);
    // With it at neither side, the two parts are the client.
    let world = World::new();
    let sample = world.sample(1, 1, &[]);
    intake_both(&world, &sample.id).await;
    for share in SHARES {
        verdict(&processor(&world, share, 1), &window()).await;
    }
    assert_eq!(world.totals(&window()), sample.totals);
}
