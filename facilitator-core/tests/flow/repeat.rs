//! Running again changes nothing; a crash anywhere leaves nothing that a rerun doesn't complete to the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, aggregate};
use facilitator_core::crypto::sha256;
use facilitator_core::formats::ledger::FailedReason;
use facilitator_core::formats::names::ValidationPart;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{IntakeOutcome, take_in};
use facilitator_core::processor::{Processor, WorkError};
use facilitator_core::sample::FaultKind;

use crate::support::Keys;
use crate::windows::planned;
use crate::world::{Crash, Failing, NOW, World, intake, intake_both, second, verdict, window};

fn world() -> (World, Vec<facilitator_core::formats::names::BatchId>) {
    let world = World::new();
    let batches = vec![
        world
            .sample(1, 5, &[(1, FaultKind::InvalidProof), (3, FaultKind::WrongDimension)])
            .id,
        world.sample(2, 3, &[]).id,
    ];
    (world, batches)
}

#[tokio::test]
async fn running_twice_changes_nothing_and_says_so() {
    let (world, batches) = world();
    for batch in &batches {
        intake_both(&world, batch).await;
    }
    for share in [Share::First, Share::Second] {
        verdict(&world.processor(share), &window()).await;
    }
    let before = world.everything();
    for share in [Share::First, Share::Second] {
        let processor = world.processor(share);
        for batch in &batches {
            assert!(matches!(
                intake(&processor, batch).await,
                IntakeOutcome::Validated { already: true, .. }
            ));
        }
        let outcome = aggregate(&processor, &window(), &[second(NOW)]).await.unwrap();
        assert!(matches!(outcome, AggregateOutcome::Done { already: true, .. }));
    }
    assert_eq!(world.everything(), before);
}

#[tokio::test]
async fn a_damaged_seal_does_not_keep_a_finished_batch_from_being_said_finished() {
    let (world, batches) = world();
    let batch = &batches[0];
    intake_both(&world, batch).await;
    let key = batch.ledger_key("records");
    let whole = world.ledger[0].snapshot()[key.as_str()].clone();
    world.ledger[0].replace(&key, whole.slice(..whole.len() - 9));
    let processor = world.processor(Share::First);
    assert!(matches!(
        intake(&processor, batch).await,
        IntakeOutcome::Validated {
            packets: 5,
            already: true,
            ..
        }
    ));
    world.ledger[0].remove(&batch.ledger_key("delivered"));
    assert!(matches!(
        intake(&processor, batch).await,
        IntakeOutcome::Validated {
            packets: 5,
            already: false,
            ..
        }
    ));
    // Another batch's record under this name is nobody's to answer from.
    world.ledger[0].remove(&batch.ledger_key("delivered"));
    let other = World::new();
    intake_both(&other, &other.sample(9, 3, &[]).id).await;
    let record = other.ledger[0]
        .snapshot()
        .into_iter()
        .find(|(key, _)| key.starts_with("records/"))
        .unwrap()
        .1;
    world.ledger[0].replace(&key, record);
    assert!(matches!(
        take_in(&processor, batch, false).await,
        Err(WorkError::Foreign { .. })
    ));
}

/// `put` says whether this run or one before it stored the object: all that a crash may change.
fn but_put(everything: BTreeMap<String, Bytes>) -> BTreeMap<String, String> {
    everything
        .into_iter()
        .map(|(name, bytes)| {
            let text = bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
            (name, text.replace(r#""put":"SameBytes""#, r#""put":"Created""#))
        })
        .collect()
}

async fn run_first(
    processor: &Processor,
    batches: &[facilitator_core::formats::names::BatchId],
) -> Result<(), WorkError> {
    for batch in batches {
        take_in(processor, batch, false).await?;
    }
    aggregate(processor, &window(), &[second(NOW)]).await?;
    Ok(())
}

#[tokio::test]
async fn a_crash_at_any_put_is_completed_to_the_same_bytes() {
    let prepare = || async {
        let (world, batches) = world();
        for batch in &batches {
            intake(&world.processor(Share::Second), batch).await;
        }
        (world, batches)
    };
    let (undisturbed, batches) = prepare().await;
    run_first(&undisturbed.processor(Share::First), &batches).await.unwrap();
    let expected = but_put(undisturbed.everything());

    for crash in [Crash::Before, Crash::After] {
        let mut crashes = 0;
        loop {
            let (world, batches) = prepare().await;
            let puts = Arc::new(AtomicUsize::new(0));
            let failing = world.processor_through(Share::First, |inner| {
                Arc::new(Failing {
                    inner,
                    puts: Arc::clone(&puts),
                    at: crashes,
                    crash,
                })
            });
            let result = run_first(&failing, &batches).await;
            if puts.load(Ordering::SeqCst) <= crashes {
                result.unwrap();
                break;
            }
            assert!(result.unwrap_err().is_retryable());
            run_first(&world.processor(Share::First), &batches).await.unwrap();
            assert!(but_put(world.everything()) == expected, "put {crashes}, {crash:?}");
            crashes += 1;
        }
        // Two batches of claims, record, three objects and delivered; plan, released, decision, three objects of the sum part,
        // results.
        assert_eq!(crashes, 19, "{crash:?}");
    }
}

/// A legacy peer writes its three objects anew, in whatever bytes and order (ledger rule 12): what it says is pinned.
#[tokio::test]
async fn a_peer_that_writes_its_objects_again_after_the_plan_must_say_the_same() {
    type Rewrite = fn(&mut Vec<ValidationPacket>);
    let table: [(&str, Rewrite, Option<FailedReason>); 4] = [
        ("in another order", |packets| packets.reverse(), None),
        (
            "with a second message of a packet, which doesn't count",
            |packets| {
                let again = ValidationPacket {
                    f_r: packets[0].f_r ^ 1,
                    ..packets[0]
                };
                packets.push(again);
            },
            None,
        ),
        (
            "with one message changed",
            |packets| packets[0].f_r ^= 1,
            Some(FailedReason::PeerMessagesLost),
        ),
        (
            "with one message less",
            |packets| packets.truncate(packets.len() - 1),
            Some(FailedReason::PeerMessagesLost),
        ),
    ];
    for (name, rewrite, expected) in table {
        let world = World::new();
        let sample = world.sample(1, 10, &[(2, FaultKind::InvalidProof)]);
        intake_both(&world, &sample.id).await;
        let first = world.processor(Share::First);
        verdict(&first, &window()).await;
        let summed = world.portal[0].snapshot();
        planned(&world).await;

        let mailbox = &world.peer_validation[0];
        let key = |part| sample.id.validation_key(Share::Second, part);
        let there = mailbox.snapshot();
        let mut packets = ValidationPacket::read_all(&there[key(ValidationPart::Packets).as_str()]).unwrap();
        rewrite(&mut packets);
        let packets = ValidationPacket::write_all(&packets);
        let mut header = ValidationHeader::read(&there[key(ValidationPart::Header).as_str()]).unwrap();
        header.packet_file_digest = sha256(&packets).to_vec();
        let header = header.write();
        let signature = BatchSignature::sign(&Keys::read().second, &header).unwrap().write();
        let parts = [
            ValidationPart::Packets,
            ValidationPart::Header,
            ValidationPart::Signature,
        ];
        for (part, bytes) in parts.into_iter().zip([packets, header, signature]) {
            assert_ne!(there[key(part).as_str()], bytes, "{name}");
            mailbox.replace(&key(part), bytes);
        }

        let result = verdict(&first, &window()).await;
        assert_eq!(result.reason, expected, "{name}: {}", result.message);
        let portal = world.portal[0].snapshot();
        match expected {
            None => assert_eq!(portal, summed, "{name}"),
            Some(_) => {
                assert!(portal.is_empty(), "{name}");
                assert!(result.message.contains(&sample.id.path()), "{name}: {}", result.message);
            }
        }
    }
}
