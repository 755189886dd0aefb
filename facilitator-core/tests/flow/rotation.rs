//! Keys that change between two runs: what was begun under one is finished under it, to the same bytes, and the marks of
//! what needs a key are there before anything needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use facilitator_core::aggregate::{AggregateOutcome, aggregate};
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey};
use facilitator_core::formats::ledger::BlockedReason;
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{IntakeOutcome, take_in};
use facilitator_core::processor::Processor;
use facilitator_core::uses::UseMarks;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::Keys;
use crate::world::{Crash, Failing, NOW, World, intake, intake_both, mounted, second, verdict, window};

/// Three hours, as the window that all samples are in.
const PERIOD: u32 = 10_800;

/// First before the rotation.
fn before(processor: Processor) -> Processor {
    Processor {
        use_marks: Some(UseMarks::new(PERIOD)),
        ..processor
    }
}

/// First after it: another key signs, another opens new packets, and the old ones are mounted still.
fn after(processor: Processor) -> Processor {
    let mut rng = StdRng::seed_from_u64(5);
    let keys = Keys::read();
    let packets = [
        mounted("packets-2", PacketDecryptionKey::generate(&mut rng)),
        mounted("packets", keys.first_packets),
    ];
    Processor {
        signing_key: BatchSigningKey::generate("signer-2", &mut rng),
        other_signing_keys: vec![keys.first],
        packet_keys: Arc::new(packets),
        ..before(processor)
    }
}

fn marks(world: &World) -> Vec<String> {
    let names = world.ledger[0].snapshot().into_keys().map(|key| key.to_string());
    names.filter(|name| name.starts_with("uses/")).collect()
}

/// Stops First at the `at`-th put and goes on after the rotation; everything that is there then.
async fn rotated_at(at: usize, crash: Crash) -> (World, bool) {
    let world = World::new();
    let batch = world.sample(1, 5, &[]).id;
    let puts = Arc::new(AtomicUsize::new(0));
    let through = |inner| {
        let puts = Arc::clone(&puts);
        Arc::new(Failing { inner, puts, at, crash }) as Arc<dyn mailbox::Mailbox>
    };
    let _ = take_in(&before(world.processor_through(Share::First, through)), &batch, false).await;
    let ledger = world.ledger[0].snapshot();
    if ledger.keys().any(|key| key.as_str().starts_with("records/")) {
        let signer = Keys::read().first.id().to_owned();
        let expected = [
            format!("uses/packets/{}", window()),
            format!("uses/{signer}/{}", window()),
        ];
        for mark in expected {
            assert!(ledger.keys().any(|key| key.as_str() == mark), "a record without {mark}");
        }
    }
    let outcome = intake(&after(world.processor(Share::First)), &batch).await;
    assert!(matches!(outcome, IntakeOutcome::Validated { .. }), "{outcome:?}");
    let stopped = puts.load(Ordering::SeqCst) > at;
    (world, stopped)
}

#[tokio::test]
async fn a_batch_that_was_recorded_before_a_rotation_is_answered_with_the_key_of_its_record() {
    let whole = World::new();
    let batch = whole.sample(1, 5, &[]).id;
    intake(&before(whole.processor(Share::First)), &batch).await;
    let whole = whole.peer_validation[1].snapshot();
    let (mut same, mut other) = (0, 0);
    for crash in [Crash::Before, Crash::After] {
        for at in 0.. {
            let (world, stopped) = rotated_at(at, crash).await;
            if !stopped {
                break;
            }
            let there = world.peer_validation[1].snapshot();
            let signature = there.keys().find(|key| key.as_str().ends_with(".sig")).unwrap();
            let signed_before = String::from_utf8_lossy(&there[signature]).contains(Keys::read().first.id());
            if signed_before {
                assert_eq!(there, whole, "{at} {crash:?}");
                same += 1;
            } else {
                // Nothing was recorded: the key of today signs.
                other += 1;
            }
        }
    }
    assert!(same > 5 && other > 2, "{same} {other}");
}

#[tokio::test]
async fn a_window_that_was_planned_before_a_rotation_is_signed_with_the_key_of_its_plan() {
    let sum = async |rotate: bool| {
        let world = World::new();
        let batch = world.sample(1, 5, &[]).id;
        intake_both(&world, &batch).await;
        let puts = Arc::new(AtomicUsize::new(0));
        // The plan, and then it stops.
        let through = |inner| {
            let puts = Arc::clone(&puts);
            Arc::new(Failing {
                inner,
                puts,
                at: 2,
                crash: Crash::Before,
            }) as Arc<dyn mailbox::Mailbox>
        };
        let first = before(world.processor_through(Share::First, through));
        aggregate(&first, &window(), &[second(NOW)]).await.unwrap_err();
        let planned = world.ledger[0]
            .snapshot()
            .keys()
            .any(|key| key.as_str().starts_with("plans/"));
        assert!(planned && !marks(&world).is_empty());
        let processor = world.processor(Share::First);
        verdict(&if rotate { after(processor) } else { before(processor) }, &window()).await;
        world.portal[0].snapshot()
    };
    assert_eq!(sum(true).await, sum(false).await);
}

#[tokio::test]
async fn without_the_key_of_a_record_its_batch_waits_and_says_which() {
    // The first put that is lost after the record is there.
    let mut at = 0;
    let (world, batch) = loop {
        let world = World::new();
        let batch = world.sample(1, 5, &[]).id;
        let puts = Arc::new(AtomicUsize::new(0));
        let through = |inner| {
            let (puts, crash) = (Arc::clone(&puts), Crash::Before);
            Arc::new(Failing { inner, puts, at, crash }) as Arc<dyn mailbox::Mailbox>
        };
        let stopped = take_in(&before(world.processor_through(Share::First, through)), &batch, false).await;
        assert!(stopped.is_err(), "no put is lost after the record");
        let ledger = world.ledger[0].snapshot();
        if ledger.keys().any(|key| key.as_str().starts_with("records/")) {
            break (world, batch);
        }
        at += 1;
    };
    let mut rotated = after(world.processor(Share::First));
    rotated.other_signing_keys.clear();
    let IntakeOutcome::Blocked { reason, message, .. } = intake(&rotated, &batch).await else {
        panic!("it must wait");
    };
    assert_eq!(reason, BlockedReason::SigningKeyNotMounted);
    assert!(
        message.contains("signer-2") && message.contains(Keys::read().first.id()),
        "{message}"
    );
}

#[tokio::test]
async fn a_key_that_is_mounted_again_is_marked_under_all_of_its_ids() {
    let world = World::new();
    let batch = world.sample(1, 5, &[]).id;
    let key = || Keys::read().first_packets;
    let first = Processor {
        packet_keys: Arc::new([mounted("", key()), mounted("packets", key()), mounted("again", key())]),
        ..before(world.processor(Share::First))
    };
    assert!(matches!(intake(&first, &batch).await, IntakeOutcome::Validated { .. }));
    let ids = ["again", Keys::read().first.id(), "packets"].map(|id| format!("uses/{id}/{}", window()));
    assert_eq!(marks(&world), ids);
}

#[tokio::test]
async fn keys_that_nobody_retires_leave_no_marks() {
    let world = World::new();
    let batch = world.sample(1, 5, &[]).id;
    intake_both(&world, &batch).await;
    for share in [Share::First, Share::Second] {
        let outcome = aggregate(&world.processor(share), &window(), &[second(NOW)])
            .await
            .unwrap();
        assert!(matches!(outcome, AggregateOutcome::Done { .. }));
    }
    assert_eq!(marks(&world), [""; 0]);
}
