//! The original's objects and ours are interchangeable.

use std::sync::Arc;

use facilitator_core::formats::ledger::Verdict;
use facilitator_core::formats::names::{BatchTime, IngestionPart, SumPartPart, ValidationPart, WindowId};
use facilitator_core::formats::sum_part::SumPart;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::{Share, ValidationFormat};

use crate::support::{Truth, ingestion, root, single_object, validation};
use crate::world::{World, intake, verdict};

const SHARES: [Share; 2] = [Share::First, Share::Second];

/// Whose validation batches a party finds in its mailbox.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Peer {
    Ours(ValidationFormat),
    Original,
    OriginalSingleObject,
}

fn window_of(truth: &Truth) -> WindowId {
    let time = |text: &str| BatchTime::parse_compact(text).unwrap();
    let id = truth.batch_ids()[0].clone();
    WindowId::new(id.aggregation, time(&truth.start), time(&truth.end)).unwrap()
}

fn with_ingestion(truth: &Truth) -> World {
    let world = World::new();
    for share in SHARES {
        for id in truth.batch_ids() {
            for part in [IngestionPart::Packets, IngestionPart::Header, IngestionPart::Signature] {
                world.ingestion[usize::from(share.index())]
                    .replace(&id.ingestion_key(part), ingestion(share, &id, part));
            }
        }
    }
    world
}

#[tokio::test]
async fn our_intake_gives_the_originals_messages() {
    for truth in Truth::read() {
        let world = with_ingestion(&truth);
        for share in SHARES {
            let processor = world.processor(share);
            for id in truth.batch_ids() {
                intake(&processor, &id).await;
                let there = world.peer_validation[usize::from(share.peer().index())].snapshot();
                let ours = |part| there[id.validation_key(share, part).as_str()].clone();
                let packets = ValidationPacket::read_all(&ours(ValidationPart::Packets)).unwrap();
                let original = ValidationPacket::read_all(&validation(share, &id, ValidationPart::Packets)).unwrap();
                assert_eq!(packets, original, "{} of {share:?}", id.path());
                let header = ValidationHeader::read(&ours(ValidationPart::Header)).unwrap();
                let original = ValidationHeader::read(&validation(share, &id, ValidationPart::Header)).unwrap();
                assert_eq!(header.parameters, original.parameters);
            }
        }
    }
}

#[tokio::test]
async fn sums_are_the_originals_whoever_wrote_the_messages() {
    use ValidationFormat::{SingleObject, ThreeObjects};
    let peers = [
        Peer::Ours(ThreeObjects),
        Peer::Ours(SingleObject),
        Peer::Original,
        Peer::OriginalSingleObject,
    ];
    for truth in Truth::read() {
        let window = window_of(&truth);
        for peer in peers {
            let world = with_ingestion(&truth);
            for share in SHARES {
                let mut processor = world.processor(share);
                if let Peer::Ours(format) = peer {
                    processor.validation_format = format;
                }
                for id in truth.batch_ids() {
                    intake(&processor, &id).await;
                }
            }
            if !matches!(peer, Peer::Ours(_)) {
                replace_by_originals(&world, &truth, peer);
            }
            for share in SHARES {
                let result = verdict(&world.processor(share), &window).await;
                assert_eq!(
                    (result.verdict, result.clients),
                    (Verdict::Summed, truth.clients),
                    "{peer:?}: {result:?}"
                );
                let ours = world.sum_part(share, &window).unwrap();
                let instance = facilitator_core::formats::names::InstanceName::parse("us-ct-g-enpa").unwrap();
                let key = window.sum_part_key(&instance, share, SumPartPart::Header);
                let original = std::fs::read(root().join("sums").join(key.as_str())).unwrap();
                let mut original = SumPart::read(&original).unwrap();
                // The original lists batches as its task did, and we by name.
                original
                    .batch_uuids
                    .sort_by_key(|uuid| ours.batch_uuids.iter().position(|ours| ours == uuid));
                assert_eq!(ours, original, "{peer:?} {share:?} {}", window.path());
            }
            assert_eq!(world.totals(&window), truth.totals);
        }
    }
}

/// A portal adds one party's part of ours to the other's of the original, either way.
#[tokio::test]
async fn our_sum_parts_and_the_originals_mixed_give_the_truth() {
    for truth in Truth::read() {
        let window = window_of(&truth);
        for ours in SHARES {
            let world = with_ingestion(&truth);
            for id in truth.batch_ids() {
                intake(&world.processor(ours), &id).await;
                // The peer is the original: its messages are what we count by.
                let mailbox = &world.peer_validation[usize::from(ours.index())];
                for part in [
                    ValidationPart::Packets,
                    ValidationPart::Header,
                    ValidationPart::Signature,
                ] {
                    mailbox.replace(
                        &id.validation_key(ours.peer(), part),
                        validation(ours.peer(), &id, part),
                    );
                }
            }
            let mut processor = world.processor(ours);
            processor.legacy_peer = true;
            let result = verdict(&processor, &window).await;
            assert_eq!(
                (result.verdict, result.clients),
                (Verdict::Summed, truth.clients),
                "{ours:?}: {result:?}"
            );
            let part = world.sum_part(ours, &window).unwrap();
            let instance = facilitator_core::formats::names::InstanceName::parse("us-ct-g-enpa").unwrap();
            let key = window.sum_part_key(&instance, ours.peer(), SumPartPart::Header);
            let original = SumPart::read(&std::fs::read(root().join("sums").join(key.as_str())).unwrap()).unwrap();
            let prime = i64::from(facilitator_core::proof::PRIME);
            let totals: Vec<u64> = part
                .sum
                .iter()
                .zip(&original.sum)
                .map(|(a, b)| ((a + b) % prime).cast_unsigned())
                .collect();
            assert_eq!(totals, truth.totals, "ours is {ours:?}'s");
        }
    }
}

/// The peers' validation batches become the original's; our own stay delivered.
fn replace_by_originals(world: &World, truth: &Truth, peer: Peer) {
    for writer in SHARES {
        let mailbox = Arc::clone(&world.peer_validation[usize::from(writer.peer().index())]);
        for id in truth.batch_ids() {
            let parts = [
                ValidationPart::Packets,
                ValidationPart::Header,
                ValidationPart::Signature,
            ];
            parts.iter().for_each(|part| {
                mailbox.remove(&id.validation_key(writer, *part));
            });
            if peer == Peer::OriginalSingleObject {
                mailbox.replace(
                    &id.validation_key(writer, ValidationPart::Signature),
                    single_object(writer, &id),
                );
            } else {
                for part in parts {
                    mailbox.replace(&id.validation_key(writer, part), validation(writer, &id, part));
                }
            }
        }
    }
}

#[tokio::test]
async fn messages_that_a_predecessor_left_are_kept_and_said_to_mean_the_same() {
    use facilitator_core::formats::ledger::DeliveredPut;
    use facilitator_core::intake::IntakeOutcome;
    let truth = Truth::read().remove(0);
    let world = with_ingestion(&truth);
    replace_by_originals(&world, &truth, Peer::Original);
    let before = world.peer_validation[1].snapshot();
    for id in truth.batch_ids() {
        let outcome = intake(&world.processor(Share::First), &id).await;
        assert!(
            matches!(
                outcome,
                IntakeOutcome::Validated {
                    put: DeliveredPut::SameMeaning,
                    ..
                }
            ),
            "{outcome:?}"
        );
    }
    assert_eq!(world.peer_validation[1].snapshot(), before);
}
