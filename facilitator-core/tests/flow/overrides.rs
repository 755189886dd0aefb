//! A window that is released once more, under an approved override: what it may tell beside the sums before it.

use std::sync::atomic::{AtomicI64, Ordering};

use facilitator_core::aggregate::{AggregateOutcome, aggregate_again};
use facilitator_core::crypto::BatchSigningKey;
use facilitator_core::formats::ledger::{BlockedReason, FailedReason, Verdict, WindowResult};
use facilitator_core::formats::names::{BatchId, ValidationPart, WindowId};
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::{Approval, Share};
use facilitator_core::processor::Processor;
use facilitator_core::sample::FaultKind;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::world::{NOW, World, intake_both, second, verdict, window};

const SHARES: [Share; 2] = [Share::First, Share::Second];
const FLOOR: u64 = 10;

fn approval(release: u8) -> Approval {
    Approval {
        release,
        expires_at_millis: (NOW + 60) * 1_000,
        approved_by: "privacy-officer".into(),
        reason: "the ingestor was late".into(),
    }
}

fn processor(world: &World, share: Share) -> Processor {
    Processor {
        min_clients: FLOOR,
        ..world.processor(share)
    }
}

async fn outcome(processor: &Processor, window: &WindowId, approval: &Approval, now: i64) -> AggregateOutcome {
    aggregate_again(processor, window, approval, second(NOW), &|| second(now))
        .await
        .unwrap()
}

async fn again(processor: &Processor, window: &WindowId, release: u8) -> WindowResult {
    match outcome(processor, window, &approval(release), NOW).await {
        AggregateOutcome::Done { result, .. } => *result,
        other => panic!("no verdict: {other:?}"),
    }
}

/// Both parties have summed a window of 20 clients; then come batches of so many.
async fn released_then(late: &[usize]) -> World {
    let world = World::new();
    intake_both(&world, &world.sample(1, 20, &[]).id).await;
    for share in SHARES {
        assert_eq!(
            verdict(&processor(&world, share), &window()).await.verdict,
            Verdict::Summed
        );
    }
    for (n, packets) in (2..).zip(late) {
        intake_both(&world, &world.sample(n, *packets, &[]).id).await;
    }
    world
}

#[tokio::test]
async fn late_clients_at_the_floor_are_released_beside_the_first_sum() {
    let world = released_then(&[6, 4]).await;
    let (before, first) = (world.everything(), world.totals(&window()));
    for share in SHARES {
        let processor = processor(&world, share);
        let result = again(&processor, &window(), 2).await;
        assert_eq!(
            (result.verdict, result.batches, result.clients),
            (Verdict::Summed, 3, 30),
            "{}",
            result.message
        );
        let there = world.everything();
        assert!(
            before.iter().all(|(name, bytes)| there.get(name) == Some(bytes)),
            "nothing before it changes"
        );
        assert_eq!(again(&processor, &window(), 2).await, result);
        world.ledger[usize::from(share.index())].remove(&window().again(2).unwrap().ledger_key("results"));
        let rerun = again(&processor, &window(), 2).await;
        assert_eq!(rerun.sum_part_digest, result.sum_part_digest, "the same bytes");
    }
    let release = window().again(2).unwrap();
    let expected: Vec<u64> = [1, 2, 3]
        .into_iter()
        .zip([20, 6, 4])
        .map(|(n, packets)| World::new().sample(n, packets, &[]).totals)
        .reduce(|sum, totals| sum.iter().zip(&totals).map(|(a, b)| a + b).collect())
        .unwrap();
    assert_eq!(world.totals(&release), expected);
    assert_eq!(world.totals(&window()), first);
    let portal = world.portal[0].snapshot();
    assert!(portal.contains_key("us-ct-g-enpa.release-2/kittens-seen/202611200000-202611200300.sum_0.sig"));
    let plan = &world.ledger[0].snapshot()[release.ledger_key("plans").as_str()];
    let plan: Plan = serde_json::from_slice(plan).unwrap();
    assert_eq!(
        plan.approval,
        Some(approval(2)),
        "the ledger knows who approved it, and why"
    );
}

#[tokio::test]
async fn fewer_late_clients_than_the_floor_are_refused_by_name_and_bar_nothing_later() {
    let world = released_then(&[9]).await;
    let processor = processor(&world, Share::First);
    let result = again(&processor, &window(), 2).await;
    assert_eq!(
        (result.verdict, result.reason, result.clients),
        (Verdict::Failed, Some(FailedReason::SetsTooClose), 29)
    );
    assert!(
        result
            .message
            .starts_with("9 clients would be in kittens-seen/202611200000-202611200300.2 and"),
        "{}",
        result.message
    );
    let released_again = |world: &World| {
        let portal = world.portal[0].snapshot();
        portal.keys().filter(|name| name.contains("release-")).count()
    };
    assert_eq!(released_again(&world), 0);
    let before = world.everything();
    assert_eq!(again(&processor, &window(), 2).await, result);
    assert_eq!(world.everything(), before, "a rerun changes nothing");
    // What was withdrawn told nobody anything.
    intake_both(&world, &world.sample(9, 1, &[]).id).await;
    assert_eq!(again(&processor, &window(), 3).await.verdict, Verdict::Summed);
    assert_eq!(released_again(&world), 2);
    // And what was released counts from now on.
    intake_both(&world, &world.sample(10, 9, &[]).id).await;
    let result = again(&processor, &window(), 4).await;
    assert_eq!(result.reason, Some(FailedReason::SetsTooClose), "{}", result.message);
}

#[tokio::test]
async fn the_same_clients_may_be_released_again_and_no_floor_is_undercut() {
    // The peer had summed another set: its first sum part is worthless beside ours.
    let world = released_then(&[]).await;
    let result = again(&processor(&world, Share::First), &window(), 2).await;
    assert_eq!((result.verdict, result.clients), (Verdict::Summed, 20));
    let strict = Processor {
        min_clients: 21,
        ..world.processor(Share::First)
    };
    let result = again(&strict, &window(), 3).await;
    assert_eq!((result.verdict, result.clients), (Verdict::BelowFloor, 20));
    assert!(
        !world.ledger[0]
            .snapshot()
            .contains_key("released/kittens-seen/202611200000-202611200300.3")
    );
}

#[tokio::test]
async fn an_expired_override_freezes_nothing_and_what_it_froze_before_is_finished() {
    let world = released_then(&[10]).await;
    let processor = processor(&world, Share::First);
    let before = world.everything();
    for now in [NOW + 60, NOW + 61] {
        match outcome(&processor, &window(), &approval(2), now).await {
            AggregateOutcome::Blocked { reason, message, .. } => {
                assert_eq!(reason, BlockedReason::OverrideExpired);
                assert!(message.contains("2027-01-15T08:01:00Z"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    // It expires while the window is read.
    let looks = AtomicI64::new(0);
    let clock = || second(NOW + 60 * looks.fetch_add(1, Ordering::Relaxed));
    let expired = aggregate_again(&processor, &window(), &approval(2), second(NOW), &clock).await;
    assert!(
        matches!(
            expired.unwrap(),
            AggregateOutcome::Blocked {
                reason: BlockedReason::OverrideExpired,
                ..
            }
        ),
        "{looks:?}"
    );
    assert_eq!(world.everything(), before);
    // Frozen in its last second; the worker stopped right after.
    outcome(&processor, &window(), &approval(2), NOW + 59).await;
    for folder in ["results", "decisions", "released"] {
        assert!(world.ledger[0].remove(&window().again(2).unwrap().ledger_key(folder)));
    }
    let late = outcome(&processor, &window(), &approval(2), NOW + 9_999).await;
    assert!(
        matches!(&late, AggregateOutcome::Done { result, .. } if result.verdict == Verdict::Summed),
        "{late:?}"
    );
}

#[tokio::test]
async fn an_earlier_set_that_can_not_be_told_any_more_is_never_guessed() {
    type Change = fn(&World, &BatchId);
    let changes: [(&str, Change, Result<&str, BlockedReason>); 6] = [
        (
            "messages gone",
            |world, batch| {
                let key = batch.validation_key(Share::Second, ValidationPart::Signature);
                assert!(world.peer_validation[0].remove(&key));
            },
            Ok("they are gone"),
        ),
        (
            "record gone",
            |world, batch| assert!(world.ledger[0].remove(&batch.ledger_key("records"))),
            Ok("is gone"),
        ),
        (
            "plan gone",
            |world, _| assert!(world.ledger[0].remove(&window().ledger_key("plans"))),
            Ok("its plan is gone or another"),
        ),
        (
            "another plan",
            |world, _| {
                let key = window().ledger_key("plans");
                let there = String::from_utf8(world.ledger[0].snapshot()[key.as_str()].to_vec()).unwrap();
                world.ledger[0].replace(&key, there.replace("\"cutoffMillis\":1", "\"cutoffMillis\":2"));
            },
            Ok("its plan is gone or another"),
        ),
        (
            "another set announced",
            |world, _| {
                let key = window().ledger_key("released");
                let there = String::from_utf8(world.ledger[0].snapshot()[key.as_str()].to_vec()).unwrap();
                world.ledger[0].replace(&key, there.replace("\"clients\":20", "\"clients\":19"));
            },
            Ok("another set"),
        ),
        (
            "signed by a key that was taken off the list",
            sign_by_another,
            Err(BlockedReason::SignerUnknown),
        ),
    ];
    for (name, change, expected) in changes {
        let world = released_then(&[10]).await;
        let processor = processor(&world, Share::First);
        // The new set doesn't need what is lost: the first batch is late by now.
        let batch = World::new().sample(1, 20, &[]).id;
        let ours = batch.validation_key(Share::First, ValidationPart::Signature);
        assert!(world.peer_validation[1].set_modified(&ours, second(NOW + 1)));
        change(&world, &batch);
        let outcome = outcome(&processor, &window(), &approval(2), NOW).await;
        match (outcome, expected) {
            (AggregateOutcome::Done { result, .. }, Ok(detail)) => {
                assert_eq!(
                    result.reason,
                    Some(FailedReason::EarlierSetLost),
                    "{name}: {}",
                    result.message
                );
                assert!(result.message.contains(detail), "{name}: {}", result.message);
            }
            (AggregateOutcome::Blocked { reason, .. }, Err(expected)) => assert_eq!(reason, expected, "{name}"),
            (other, _) => panic!("{name}: {other:?}"),
        }
        let portal = world.portal[0].snapshot();
        assert!(!portal.keys().any(|key| key.contains("release-")), "{name}");
    }
}

/// The same messages under a signature that nobody trusts.
fn sign_by_another(world: &World, batch: &BatchId) {
    let key = |part| batch.validation_key(Share::Second, part);
    let header = world.peer_validation[0].snapshot()[key(ValidationPart::Header).as_str()].clone();
    let signer = BatchSigningKey::generate("old", &mut StdRng::seed_from_u64(1));
    let signature = BatchSignature::sign(&signer, &header).unwrap();
    world.peer_validation[0].replace(&key(ValidationPart::Signature), signature.write());
}

#[tokio::test]
async fn what_several_sums_tell_together_counts_also_across_windows() {
    let [early, late, both] = [
        "202611200000-202611200030",
        "202611200030-202611200100",
        "202611200000-202611200100",
    ]
    .map(|window| WindowId::parse(&format!("kittens-seen/{window}")).unwrap());
    for (more, expected) in [(0, None), (1, Some(FailedReason::SetsTooClose)), (10, None)] {
        let world = World::new();
        for n in [1, 50] {
            intake_both(&world, &world.sample(n, 20, &[]).id).await;
        }
        let processor = processor(&world, Share::First);
        for window in [&early, &late] {
            assert_eq!(verdict(&processor, window).await.verdict, Verdict::Summed);
        }
        // The settings changed to longer windows.
        assert_eq!(
            verdict(&processor, &both).await.reason,
            Some(FailedReason::WindowOverlaps)
        );
        if more > 0 {
            intake_both(&world, &world.sample(51, more, &[]).id).await;
        }
        let result = again(&processor, &both, 2).await;
        assert_eq!(result.reason, expected, "{more} more: {}", result.message);
        if expected.is_some() {
            // Beside each of the two alone there are 20 or more clients of difference.
            assert!(
                result
                    .message
                    .starts_with("1 clients would be in kittens-seen/202611200000-202611200100.2 and"),
                "{}",
                result.message
            );
            continue;
        }
        // A sum by override is in the way of others as any sum is.
        let other = WindowId::parse("kittens-seen/202611200045-202611200130").unwrap();
        assert_eq!(
            verdict(&processor, &other).await.reason,
            Some(FailedReason::WindowOverlaps)
        );
    }
}

/// The third sum shares no time with the first, but both share some with the second.
#[tokio::test]
async fn sums_that_are_joined_by_another_count_as_well() {
    let [early, long, late] = [
        "202611200000-202611200030",
        "202611200000-202611200100",
        "202611200030-202611200130",
    ]
    .map(|window| WindowId::parse(&format!("kittens-seen/{window}")).unwrap());
    for (extra, expected) in [(0, None), (1, Some(FailedReason::SetsTooClose))] {
        let world = World::new();
        intake_both(&world, &world.sample(1, 20, &[]).id).await;
        let processor = processor(&world, Share::First);
        assert_eq!(verdict(&processor, &early).await.verdict, Verdict::Summed);
        intake_both(&world, &world.sample(50, 20, &[]).id).await;
        if extra > 0 {
            // It will be late for the last sum, and is in the second alone.
            intake_both(&world, &world.sample(51, extra, &[]).id).await;
        }
        let second_sum = again(&processor, &long, 2).await;
        assert_eq!(second_sum.verdict, Verdict::Summed, "{}", second_sum.message);
        if extra > 0 {
            let late = World::new().sample(51, extra, &[]).id;
            let ours = late.validation_key(Share::First, ValidationPart::Signature);
            assert!(world.peer_validation[1].set_modified(&ours, second(NOW + 1)));
        }
        let result = again(&processor, &late, 2).await;
        assert_eq!(result.reason, expected, "{extra}: {}", result.message);
    }
}

#[tokio::test]
async fn invalid_packets_are_no_clients_of_a_difference() {
    let world = released_then(&[]).await;
    let faults = [(0, FaultKind::InvalidProof), (3, FaultKind::WrongDimension)];
    let sample = world.sample(2, 11, &faults);
    intake_both(&world, &sample.id).await;
    assert_eq!(sample.clients, 9);
    let result = again(&processor(&world, Share::First), &window(), 2).await;
    assert_eq!(result.reason, Some(FailedReason::SetsTooClose));
    assert!(result.message.starts_with("9 clients"), "{}", result.message);
}
