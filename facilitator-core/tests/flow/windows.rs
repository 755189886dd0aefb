//! Who is in a window's sum, and which sums are withheld.

use std::time::Duration;

use facilitator_core::aggregate::{AggregateOutcome, aggregate};
use facilitator_core::formats::ledger::{BlockedReason, FailedReason, Verdict};
use facilitator_core::formats::names::{IngestionPart, ValidationPart, WindowId};
use facilitator_core::formats::plan::{ExclusionReason, Plan};
use facilitator_core::formats::record::Record;
use facilitator_core::formats::work::Share;
use facilitator_core::sample::FaultKind;
use mailbox::Mailbox as _;

use crate::world::{NOW, World, intake, intake_both, second, verdict, window};

pub fn plan(world: &World, share: Share) -> Plan {
    let there = world.ledger[usize::from(share.index())].snapshot();
    serde_json::from_slice(&there[window().ledger_key("plans").as_str()]).unwrap()
}

#[tokio::test]
async fn each_batch_that_is_not_in_is_named_with_its_reason() {
    let world = World::new();
    let good = world.sample(1, 10, &[]);
    let late = world.sample(2, 3, &[]);
    let peer_late = world.sample(3, 3, &[]);
    let overwritten = world.sample(4, 3, &[]);
    let shape = world.sample_of(5, 3, 9, &[]);
    let unanswered = world.sample(6, 3, &[]);
    let rejected = world.sample(7, 0, &[]);
    let unrecorded = world.sample(8, 3, &[]);
    let bad = world.sample(9, 3, &[]);
    for sample in [&good, &late, &peer_late, &overwritten, &shape, &bad] {
        intake_both(&world, &sample.id).await;
    }
    let first = world.processor(Share::First);
    intake(&first, &unanswered.id).await;
    intake(&first, &rejected.id).await;
    let signature = |sample: &facilitator_core::sample::Sample, writer: Share| {
        sample.id.validation_key(writer, ValidationPart::Signature)
    };
    assert!(world.peer_validation[1].set_modified(&signature(&late, Share::First), second(NOW + 1)));
    assert!(world.peer_validation[0].set_modified(&signature(&peer_late, Share::Second), second(NOW + 1)));
    world.ingestion[0].replace(&overwritten.id.ingestion_key(IngestionPart::Header), b"other".to_vec());
    world.peer_validation[0].replace(
        &bad.id.validation_key(Share::Second, ValidationPart::Packets),
        b"other".to_vec(),
    );

    let result = verdict(&first, &window()).await;
    assert_eq!(
        (result.verdict, result.clients, result.late_batches),
        (Verdict::Summed, 10, 2)
    );
    let plan = plan(&world, Share::First);
    assert_eq!(
        plan.members.iter().map(|member| member.uuid).collect::<Vec<_>>(),
        [good.id.uuid]
    );
    use ExclusionReason as E;
    let expected = [
        (&late, E::Late),
        (&peer_late, E::PeerLate),
        (&overwritten, E::Overwritten),
        (&shape, E::ShapeDiffers),
        (&unanswered, E::NoPeerMessages),
        (&rejected, E::Rejected),
        (&unrecorded, E::NoRecord),
        (&bad, E::PeerBad),
    ];
    let excluded: Vec<_> = plan
        .exclusions
        .iter()
        .map(|exclusion| (exclusion.uuid, exclusion.reason))
        .collect();
    assert_eq!(excluded, expected.map(|(sample, reason)| (sample.id.uuid, reason)));
}

#[tokio::test]
async fn without_a_member_nothing_is_written_and_a_later_cutoff_can_have_one() {
    let world = World::new();
    let sample = world.sample(1, 10, &[]);
    intake_both(&world, &sample.id).await;
    let processor = world.processor(Share::First);
    let before = world.everything();
    let outcome = aggregate(&processor, &window(), &[second(NOW - 20), second(NOW - 10)])
        .await
        .unwrap();
    assert_eq!(
        outcome,
        AggregateOutcome::NoMembers {
            excluded: vec![(ExclusionReason::Late, 1)]
        }
    );
    assert_eq!(world.everything(), before);
    let outcome = aggregate(&processor, &window(), &[second(NOW - 10), second(NOW)])
        .await
        .unwrap();
    assert!(matches!(outcome, AggregateOutcome::Done { cutoff_millis: Some(millis), .. } if millis == NOW * 1000));
}

#[tokio::test]
async fn below_the_floor_nothing_is_released() {
    let world = World::new();
    let sample = world.sample(1, 10, &[(2, FaultKind::InvalidProof)]);
    intake_both(&world, &sample.id).await;
    let mut processor = world.processor(Share::First);
    processor.min_clients = 10;
    let result = verdict(&processor, &window()).await;
    assert_eq!(
        (result.verdict, result.clients, result.invalid_proofs),
        (Verdict::BelowFloor, 9, 1)
    );
    assert!(world.portal[0].snapshot().is_empty());
    assert!(
        !world.ledger[0]
            .snapshot()
            .keys()
            .any(|key| key.starts_with("released/"))
    );
}

#[tokio::test]
async fn a_window_that_overlaps_a_released_one_fails() {
    let world = World::new();
    let sample = world.sample(1, 10, &[]);
    intake_both(&world, &sample.id).await;
    let processor = world.processor(Share::First);
    verdict(&processor, &window()).await;
    let longer = WindowId::parse("kittens-seen/202611200000-202611200800").unwrap();
    let result = verdict(&processor, &longer).await;
    assert_eq!(
        (result.verdict, result.reason),
        (Verdict::Failed, Some(FailedReason::WindowOverlaps))
    );
    assert_eq!(world.sum_part(Share::First, &longer), None);
}

#[tokio::test]
async fn a_window_that_was_withdrawn_is_in_nobodys_way() {
    let world = World::new();
    for n in [1, 50] {
        intake_both(&world, &world.sample(n, 10, &[]).id).await;
    }
    let processor = world.processor(Share::First);
    let [early, both, late] = [
        "202611200000-202611200030",
        "202611200000-202611200100",
        "202611200030-202611200100",
    ]
    .map(|window| WindowId::parse(&format!("kittens-seen/{window}")).unwrap());
    assert_eq!(verdict(&processor, &early).await.verdict, Verdict::Summed);
    // It had announced itself before it found the other in its way.
    let announced = world.ledger[0].snapshot()[early.ledger_key("released").as_str()].clone();
    world.ledger[0].replace(&both.ledger_key("released"), announced);
    assert_eq!(
        verdict(&processor, &both).await.reason,
        Some(FailedReason::WindowOverlaps)
    );
    assert_eq!(verdict(&processor, &late).await.verdict, Verdict::Summed);
}

#[tokio::test]
async fn a_floor_that_is_raised_after_the_release_does_not_deny_it() {
    let world = World::new();
    intake_both(&world, &world.sample(1, 10, &[]).id).await;
    let mut processor = world.processor(Share::First);
    let before = verdict(&processor, &window()).await;
    let portal = world.portal[0].snapshot();
    world.ledger[0].remove(&window().ledger_key("results"));
    processor.min_clients = 11;
    let after = verdict(&processor, &window()).await;
    assert_eq!(
        (after.verdict, after.sum_part_digest),
        (Verdict::Summed, before.sum_part_digest)
    );
    assert_eq!(world.portal[0].snapshot(), portal);
}

/// What a crash between plan and results leaves, with something changed in between.
pub async fn planned(world: &World) {
    let processor = world.processor(Share::First);
    verdict(&processor, &window()).await;
    for folder in ["results", "released"] {
        world.ledger[0].remove(&window().ledger_key(folder));
    }
    for key in world.portal[0].snapshot().keys() {
        world.portal[0].remove(&mailbox::ObjectKey::parse(key.as_str()).unwrap());
    }
}

#[tokio::test]
async fn what_a_plan_pinned_must_still_be_there() {
    type Change = fn(&World, &facilitator_core::sample::Sample);
    let changes: [(&str, Change, Option<FailedReason>); 6] = [
        ("nothing", |_, _| {}, None),
        (
            "messages gone",
            |world, sample| {
                world.peer_validation[0].remove(&sample.id.validation_key(Share::Second, ValidationPart::Signature));
            },
            Some(FailedReason::PeerMessagesLost),
        ),
        (
            "record gone",
            |world, sample| {
                world.ledger[0].remove(&sample.id.ledger_key("records"));
            },
            Some(FailedReason::RecordLost),
        ),
        (
            "packets changed where they must be opened",
            |world, sample| world.ingestion[0].replace(&sample.id.ingestion_key(IngestionPart::Packets), b"x".to_vec()),
            Some(FailedReason::IngestionChanged),
        ),
        (
            "another release",
            |world, _| {
                let other = r#"{"revision":1,"planDigest":"x","packetSetDigest":"y","clients":9}"#;
                world.ledger[0].replace(&window().ledger_key("released"), other);
            },
            Some(FailedReason::ReleasedDiffers),
        ),
        ("a damaged seal", damage_seal, None),
    ];
    for (name, change, expected) in changes {
        let world = World::new();
        let sample = world.sample(1, 10, &[(2, FaultKind::InvalidProof)]);
        intake_both(&world, &sample.id).await;
        planned(&world).await;
        change(&world, &sample);
        let result = verdict(&world.processor(Share::First), &window()).await;
        assert_eq!(result.reason, expected, "{name}: {result:?}");
        if expected.is_none() {
            verdict(&world.processor(Share::Second), &window()).await;
            assert_eq!(world.totals(&window()), sample.totals, "{name}");
        } else {
            assert!(world.portal[0].snapshot().is_empty(), "{name}");
        }
    }
}

/// One object of a batch is replaced between its intake and the plan. The header says which batch it is: with another one
/// our messages are of a batch that is no more. The rest is damage to the same batch: our record and the peer's still are
/// of what was signed, and only where packets must be opened it matters; those are looked at before the set is frozen.
#[tokio::test]
async fn an_object_that_is_replaced_before_the_plan_is_named_wherever_it_matters() {
    use ExclusionReason::Overwritten;
    let table = [
        (IngestionPart::Header, false, Some(Overwritten)),
        (IngestionPart::Header, true, Some(Overwritten)),
        (IngestionPart::Packets, false, None),
        (IngestionPart::Packets, true, Some(Overwritten)),
        (IngestionPart::Signature, false, None),
        // The record has the digest of what was signed.
        (IngestionPart::Signature, true, None),
    ];
    for (part, must_be_opened, excluded) in table {
        let name = format!("{part:?}, to be opened: {must_be_opened}");
        let world = World::new();
        let faults: &[_] = if must_be_opened {
            &[(2, FaultKind::InvalidProof)]
        } else {
            &[]
        };
        let (sample, other) = (world.sample(1, 10, faults), world.sample(2, 10, &[]));
        for sample in [&sample, &other] {
            intake_both(&world, &sample.id).await;
        }
        world.ingestion[0].replace(&sample.id.ingestion_key(part), b"other".to_vec());
        let result = verdict(&world.processor(Share::First), &window()).await;
        let plan = plan(&world, Share::First);
        let named: Vec<_> = plan.exclusions.iter().map(|one| (one.uuid, one.reason)).collect();
        let expected: Vec<_> = excluded.into_iter().map(|reason| (sample.id.uuid, reason)).collect();
        assert_eq!(named, expected, "{name}");
        let clients = 10 + if excluded.is_some() { 0 } else { sample.clients };
        assert_eq!((result.verdict, result.clients), (Verdict::Summed, clients), "{name}");
    }
}

/// Whoever planned has a clock that is ahead of a store's: what the store shows later may still be in time.
#[tokio::test]
async fn no_set_is_frozen_before_every_store_is_past_the_cutoff() {
    let world = World::new();
    let sample = world.sample(1, 10, &[]);
    intake_both(&world, &sample.id).await;
    let first = world.processor(Share::First);
    for (name, store, behinds) in [
        // The cutoff's own second counts, for store times are of whole seconds; so much is waited for.
        (
            "our peer-validation mailbox",
            &world.peer_validation[0],
            &[0, 6, 3_600][..],
        ),
        ("the peer's", &world.peer_validation[1], &[6]),
        ("our ledger", &world.ledger[0], &[6]),
    ] {
        for behind in behinds {
            store.tell_time(second(NOW - behind));
            let before = world.everything();
            match aggregate(&first, &window(), &[second(NOW)]).await.unwrap() {
                AggregateOutcome::Blocked { reason, message, .. } => {
                    assert_eq!(reason, BlockedReason::ClockAhead, "{name}");
                    assert!(message.contains(&store.url().to_string()), "{name}: {message}");
                }
                other => panic!("{name}, {behind} s behind: {other:?}"),
            }
            assert_eq!(world.everything(), before, "{name}");
        }
        store.tell_time(second(NOW + 1));
    }
    // A small difference is waited for, and what comes in meanwhile is in.
    let other = world.sample(2, 10, &[]);
    intake(&world.processor(Share::Second), &other.id).await;
    world.peer_validation[1].tell_time(second(NOW));
    let later = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        intake(&first, &other.id).await;
        world.peer_validation[1].tell_time(second(NOW + 1));
    };
    let (cutoffs, window) = ([second(NOW)], window());
    let (outcome, ()) = tokio::join!(aggregate(&first, &window, &cutoffs), later);
    let AggregateOutcome::Done { result, .. } = outcome.unwrap() else {
        panic!("no verdict");
    };
    assert_eq!((result.verdict, result.clients), (Verdict::Summed, 20));
}

/// Damages what is sealed of a record of First's.
pub fn damage_seal(world: &World, sample: &facilitator_core::sample::Sample) {
    let key = sample.id.ledger_key("records");
    let mut record = Record::decode(&world.ledger[0].snapshot()[key.as_str()]).unwrap();
    record.sealed[0][0] ^= 1;
    world.ledger[0].replace(&key, record.encode());
}

#[tokio::test]
async fn another_sum_part_in_the_portal_is_not_overwritten() {
    let world = World::new();
    let sample = world.sample(1, 10, &[]);
    intake_both(&world, &sample.id).await;
    let processor = world.processor(Share::First);
    let key = window().sum_part_key(
        &processor.instance,
        Share::First,
        facilitator_core::formats::names::SumPartPart::Header,
    );
    world.portal[0].replace(&key, b"other".to_vec());
    let result = verdict(&processor, &window()).await;
    assert_eq!(result.reason, Some(FailedReason::PortalHasOther));
    assert_eq!(world.portal[0].snapshot().len(), 1);
}

#[tokio::test]
async fn a_legacy_peers_time_does_not_count_but_ours_does() {
    let world = World::new();
    let (late_peer, late_ours) = (world.sample(1, 10, &[]), world.sample(2, 10, &[]));
    for sample in [&late_peer, &late_ours] {
        intake_both(&world, &sample.id).await;
    }
    let signature =
        |sample: &facilitator_core::sample::Sample, writer| sample.id.validation_key(writer, ValidationPart::Signature);
    world.peer_validation[1].set_modified(&signature(&late_peer, Share::Second), second(NOW + 1));
    world.peer_validation[0].set_modified(&signature(&late_peer, Share::First), second(NOW - 1));
    world.peer_validation[1].set_modified(&signature(&late_ours, Share::First), second(NOW + 1));
    world.peer_validation[0].set_modified(&signature(&late_ours, Share::Second), second(NOW + 1));
    world.peer_validation[0].set_modified(&signature(&late_peer, Share::Second), second(NOW + 1));
    let mut processor = world.processor(Share::First);
    processor.legacy_peer = true;
    let result = verdict(&processor, &window()).await;
    assert_eq!((result.batches, result.late_batches), (1, 1));
    assert_eq!(plan(&world, Share::First).members[0].uuid, late_peer.id.uuid);
}
