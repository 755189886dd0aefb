//! The same encrypted packet in another batch, under another UUID and query point (ledger rule 1).

use std::sync::Arc;

use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::batch::read_packets;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::ledger::{BlockedReason, RejectedReason, Verdict};
use facilitator_core::formats::names::{BatchId, BatchTime, IngestionPart, SumPartPart, ValidationPart};
use facilitator_core::formats::record::{PacketExclusion, PacketState, Record};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::InvalidPacket;
use facilitator_core::formats::validation::ValidationPacket;
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in_all};
use facilitator_core::processor::Processor;
use facilitator_core::sample::{FaultKind, Sample};
use mailbox::{Mailbox, ObjectKey};
use prio::field::{FieldElement, FieldElementWithInteger, FieldPrio2, NttFriendlyFieldElement};
use uuid::Uuid;

use crate::support::Keys;
use crate::world::{Crash, Failing, World, intake, verdict, window};

const SHARES: [Share; 2] = [Share::First, Share::Second];
/// The replayed packet's new name.
const RENAMED: Uuid = Uuid::from_u128(0xabcdef);

/// Adds `packets` to a batch of both parties and signs it anew, as its ingestor can.
fn add(world: &World, id: &BatchId, packets: [Vec<DataSharePacket>; 2]) {
    for (mailbox, packets) in world.ingestion.iter().zip(packets) {
        let there = mailbox.snapshot();
        let read = |part| there.get(id.ingestion_key(part).as_str());
        // An empty batch has no packet object.
        let packets_there = read(IngestionPart::Packets).map(|bytes| DataSharePacket::read_all(bytes).unwrap());
        let mut all = packets_there.unwrap_or_default();
        all.extend(packets);
        let packets = DataSharePacket::write_all(&all);
        let mut header = IngestionHeader::read(read(IngestionPart::Header).unwrap()).unwrap();
        header.packet_file_digest = sha256(&packets).to_vec();
        let header = header.write();
        let signature = BatchSignature::sign(&Keys::read().ingestor, &header).unwrap().write();
        for (part, bytes) in [
            (IngestionPart::Packets, packets),
            (IngestionPart::Header, header),
            (IngestionPart::Signature, signature),
        ] {
            mailbox.replace(&id.ingestion_key(part), bytes);
        }
    }
}

/// The first packet of a sample, renamed, with another query point.
fn replayed(sample: &Sample) -> [Vec<DataSharePacket>; 2] {
    [&sample.first, &sample.second].map(|objects| {
        let packet = DataSharePacket::read_all(&objects.packets).unwrap().remove(0);
        vec![DataSharePacket {
            uuid: RENAMED,
            r_pit: packet.r_pit ^ 1_000,
            ..packet
        }]
    })
}

fn guarded(world: &World, share: Share, guard: bool) -> Processor {
    Processor {
        replay_guard: guard.then_some(ReplayGuard { horizon_days: 14 }),
        ..world.processor(share)
    }
}

fn record(world: &World, share: Share, id: &BatchId) -> Record {
    let there = world.ledger[usize::from(share.index())].snapshot();
    Record::decode(&there[id.ledger_key("records").as_str()]).unwrap()
}

#[tokio::test]
async fn a_replayed_packet_is_left_out_and_the_sums_stay_right_whoever_guards() {
    for guards in [[true, true], [true, false], [false, true]] {
        let world = World::new();
        let (first, second) = (world.sample(1, 3, &[]), world.sample(2, 2, &[]));
        add(&world, &second.id, replayed(&first));
        for (share, guard) in SHARES.into_iter().zip(guards) {
            let processor = guarded(&world, share, guard);
            for id in [&first.id, &second.id] {
                intake(&processor, id).await;
            }
            let states: Vec<_> = record(&world, share, &second.id).plain.packets;
            let replay = PacketState::Excluded(PacketExclusion::Replay);
            assert_eq!((states[2].uuid, states[2].state == replay), (RENAMED, guard));
            assert!(
                states[..2]
                    .iter()
                    .all(|packet| matches!(packet.state, PacketState::In { .. }))
            );
        }
        for share in SHARES {
            let result = verdict(&guarded(&world, share, true), &window()).await;
            assert_eq!(
                (result.verdict, result.clients),
                (Verdict::Summed, 5),
                "{guards:?} {share:?}"
            );
            let part = world.sum_part(share, &window()).unwrap();
            let instance = guarded(&world, share, true).instance;
            let name = window().sum_part_key(&instance, share, SumPartPart::InvalidPackets);
            let there = world.portal[usize::from(share.index())].snapshot();
            let invalid: Vec<InvalidPacket> = read_packets(&part, &there[name.as_str()]).unwrap();
            assert_eq!(invalid.iter().map(|packet| packet.uuid).collect::<Vec<_>>(), [RENAMED]);
        }
        let expected: Vec<u64> = first.totals.iter().zip(&second.totals).map(|(a, b)| a + b).collect();
        assert_eq!(world.totals(&window()), expected, "{guards:?}");
    }
}

#[tokio::test]
async fn of_two_batches_taken_in_together_the_first_keeps_the_packet() {
    let world = World::new();
    let (first, second) = (world.sample(1, 1, &[]), world.sample(2, 1, &[]));
    add(&world, &second.id, replayed(&first));
    let wanted = [&second.id, &first.id].map(|id| Wanted {
        batch: id.clone(),
        take_anyway: false,
    });
    let processor = guarded(&world, Share::First, true);
    let excluded: Vec<u64> = take_in_all(&processor, &wanted)
        .await
        .into_iter()
        .map(|result| match result.unwrap() {
            IntakeOutcome::Validated { excluded, .. } => excluded,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(excluded, [1, 0]);
    let chunks = |name: &&String| name.starts_with("claims/");
    let names = world.ledger[0].snapshot();
    assert_eq!(names.keys().filter(chunks).count(), 1, "claimed together");
}

#[tokio::test]
async fn a_batch_of_replays_alone_is_refused_and_what_was_recorded_is_not_looked_for() {
    let world = World::new();
    let (first, second) = (world.sample(1, 2, &[]), world.sample(2, 0, &[]));
    add(&world, &second.id, replayed(&first));
    let processor = guarded(&world, Share::First, true);
    intake(&processor, &first.id).await;
    let outcome = intake(&processor, &second.id).await;
    let IntakeOutcome::Rejected { reason, message, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(reason, RejectedReason::NoUsablePackets, "{message}");
    // The replay's claim doesn't take from the first batch what is recorded.
    world.ledger[0].remove(&first.id.ledger_key("delivered"));
    let again = intake(&processor, &first.id).await;
    assert!(
        matches!(again, IntakeOutcome::Validated { excluded: 0, .. }),
        "{again:?}"
    );
}

/// A sample's objects under a path of another time, for both parties.
fn moved(world: &World, sample: &Sample, time: &str) -> BatchId {
    let time = BatchTime::parse_path(time).unwrap();
    let id = BatchId {
        time,
        ..sample.id.clone()
    };
    for (mailbox, objects) in world.ingestion.iter().zip([&sample.first, &sample.second]) {
        for (part, bytes) in objects.in_put_order() {
            mailbox.remove(&sample.id.ingestion_key(part));
            mailbox.replace(&id.ingestion_key(part), bytes.to_vec());
        }
    }
    id
}

#[tokio::test]
async fn a_path_far_away_hides_no_replay_that_is_taken_in_at_the_same_time() {
    // A day beyond the horizon, as old as batches are looked for, and to come.
    for time in ["2026/11/05/00/02", "2026/08/22/00/02", "2026/12/06/00/02"] {
        for far_first in [false, true] {
            let world = World::new();
            let (near, far) = (world.sample(1, 1, &[]), world.sample(2, 1, &[]));
            let far_id = moved(&world, &far, time);
            let (first, second) = match far_first {
                true => {
                    add(&world, &near.id, replayed(&far));
                    (&far_id, &near.id)
                }
                false => {
                    add(&world, &far_id, replayed(&near));
                    (&near.id, &far_id)
                }
            };
            let processor = guarded(&world, Share::First, true);
            intake(&processor, first).await;
            intake(&processor, second).await;
            let states = record(&world, Share::First, second).plain.packets;
            let replay = PacketState::Excluded(PacketExclusion::Replay);
            assert_eq!(
                (states[1].uuid, states[1].state),
                (RENAMED, replay),
                "{time} {far_first}"
            );
            assert!(matches!(states[0].state, PacketState::In { .. }));
        }
    }
}

#[tokio::test]
async fn a_batch_written_again_after_its_worker_stopped_is_not_its_own_replay() {
    let world = World::new();
    let sample = world.sample(1, 3, &[]);
    let stops = |mailbox: Arc<dyn Mailbox>| -> Arc<dyn Mailbox> {
        let is_ledger = mailbox.url() == world.ledger[0].url();
        let failing = Failing {
            inner: Arc::clone(&mailbox),
            puts: Arc::default(),
            // The first put is of claims, the second of the record.
            at: 1,
            crash: Crash::Before,
        };
        if is_ledger { Arc::new(failing) } else { mailbox }
    };
    let wanted = [Wanted {
        batch: sample.id.clone(),
        take_anyway: false,
    }];
    let stopped = take_in_all(&world.processor_through(Share::First, stops), &wanted).await;
    assert!(stopped[0].is_err());
    let names: Vec<String> = world.ledger[0].snapshot().into_keys().collect();
    assert!(names.len() == 1 && names[0].starts_with("claims/"), "{names:?}");

    // The same packets under another header.
    let key = sample.id.ingestion_key(IngestionPart::Header);
    let mut header = IngestionHeader::read(&world.ingestion[0].snapshot()[key.as_str()]).unwrap();
    header.batch_end_time += 1;
    let header = header.write();
    let signature = BatchSignature::sign(&Keys::read().ingestor, &header).unwrap();
    world.ingestion[0].replace(&key, header);
    world.ingestion[0].replace(&sample.id.ingestion_key(IngestionPart::Signature), signature.write());
    let outcome = intake(&guarded(&world, Share::First, true), &sample.id).await;
    assert!(
        matches!(outcome, IntakeOutcome::Validated { excluded: 0, .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn replays_beside_a_packet_that_no_key_opens_are_refused_rather_than_waited_for() {
    let world = World::new();
    let first = world.sample(1, 3, &[]);
    let second = world.sample(2, 1, &[(0, FaultKind::Undecryptable)]);
    add(&world, &second.id, replayed(&first));
    let processor = guarded(&world, Share::First, true);
    intake(&processor, &first.id).await;
    let outcome = intake(&processor, &second.id).await;
    assert!(
        matches!(
            outcome,
            IntakeOutcome::Rejected {
                reason: RejectedReason::NoUsablePackets,
                ..
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn without_its_claims_nothing_is_answered_until_they_are_restored() {
    let world = World::new();
    let sample = world.sample(1, 2, &[]);
    let processor = guarded(&world, Share::First, true);
    intake(&processor, &sample.id).await;
    let names = world.ledger[0].snapshot();
    let (claims, good) = names.iter().find(|(name, _)| name.starts_with("claims/")).unwrap();
    let claims: ObjectKey = claims.parse().unwrap();
    world.ledger[0].replace(&claims, "damaged");
    let other = world.sample(2, 2, &[]);
    let outcome = intake(&processor, &other.id).await;
    let IntakeOutcome::Blocked {
        reason,
        message,
        packets,
        excluded,
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (reason, packets, excluded),
        (BlockedReason::ClaimsUnreadable, 2, 0),
        "{message}"
    );
    assert!(message.contains(claims.as_str()), "{message}");
    let there = world.ledger[0].snapshot();
    assert!(!there.contains_key(other.id.ledger_key("records").as_str()));
    assert!(
        world.peer_validation[1]
            .snapshot()
            .keys()
            .all(|name| !name.contains(&other.id.uuid.to_string()))
    );
    world.ledger[0].replace(&claims, good.clone());
    let outcome = intake(&processor, &other.id).await;
    assert!(
        matches!(outcome, IntakeOutcome::Validated { excluded: 0, .. }),
        "{outcome:?}"
    );
}

/// What both parties answered for a packet, added: f and g at the packet's query point. Whoever holds both has it.
fn answers(world: &World, id: &BatchId, uuid: Uuid) -> Option<[FieldPrio2; 2]> {
    let mut sum = [FieldPrio2::zero(); 2];
    for share in SHARES {
        let there = world.peer_validation[usize::from(share.peer().index())].snapshot();
        let packets = there.get(id.validation_key(share, ValidationPart::Packets).as_str())?;
        let packets = ValidationPacket::read_all(packets).unwrap();
        let message = packets.iter().find(|packet| packet.uuid == uuid)?.message()?;
        for (sum, share) in sum.iter_mut().zip([message.f, message.g]) {
            *sum += FieldPrio2::from(share);
        }
    }
    Some(sum)
}

/// What each bin adds to f at `r`, the proof's own random value first: the Lagrange polynomials of the n-th roots of unity.
fn lagrange(r: u32, bins: usize) -> Vec<FieldPrio2> {
    let (one, r) = (FieldPrio2::one(), FieldPrio2::from(r));
    let n = (bins + 1).next_power_of_two();
    let root = FieldPrio2::root(n.ilog2() as usize).unwrap();
    let count = u32::try_from(n).unwrap();
    let scale = (r.pow(count) - one) * FieldPrio2::from(count).inv();
    let powers = std::iter::successors(Some(one), |power| Some(*power * root));
    powers.take(bins + 1).map(|at| scale * at * (r - at).inv()).collect()
}

/// All values of a client that agree with the answers, each with its query point.
fn possible(bins: usize, answers: &[(u32, [FieldPrio2; 2])]) -> Vec<Vec<u64>> {
    let known: Vec<_> = answers.iter().map(|(r, answer)| (lagrange(*r, bins), answer)).collect();
    let values = (0..1_u32 << bins).map(|bits| (0..bins).map(|bin| u64::from(bits >> bin & 1)).collect::<Vec<_>>());
    // f has the values at its points, and at 1 a random one of the proof. One answer is explained by any values and one such
    // random each, all as likely (g and h follow from f); two are only where both need the same.
    let random = |(lagrange, [f, _]): &(Vec<FieldPrio2>, &[FieldPrio2; 2]), values: &[u64]| {
        let of_values =
            lagrange[1..].iter().zip(values).fold(
                FieldPrio2::zero(),
                |sum, (weight, value)| {
                    if *value == 1 { sum + *weight } else { sum }
                },
            );
        (*f - of_values) * lagrange[0].inv()
    };
    values
        .filter(|values| {
            known
                .windows(2)
                .all(|two| random(&two[0], values) == random(&two[1], values))
        })
        .collect()
}

#[tokio::test]
async fn one_packet_under_two_query_points_would_tell_a_clients_values_and_under_one_tells_nothing() {
    const BINS: u32 = 8;
    for guard in [false, true] {
        let world = World::new();
        // A batch of one client: its totals are the client's values.
        let (client, other) = (world.sample_of(1, 1, BINS, &[]), world.sample_of(2, 1, BINS, &[]));
        add(&world, &other.id, replayed(&client));
        for share in SHARES {
            for id in [&client.id, &other.id] {
                intake(&guarded(&world, share, guard), id).await;
            }
        }
        let packet = DataSharePacket::read_all(&client.first.packets).unwrap().remove(0);
        let asked = |id, uuid, r_pit: i64| Some((u32::try_from(r_pit).unwrap(), answers(&world, id, uuid)?));
        let seen: Vec<_> = [
            asked(&client.id, packet.uuid, packet.r_pit),
            asked(&other.id, RENAMED, packet.r_pit ^ 1_000),
        ]
        .into_iter()
        .flatten()
        .collect();
        let possible = possible(BINS as usize, &seen);
        assert!(possible.contains(&client.totals), "the arithmetic is right");
        if guard {
            assert_eq!((seen.len(), possible.len()), (1, 256), "all values remain possible");
        } else {
            assert_eq!((seen.len(), possible.len()), (2, 1), "the client's values are out");
        }
    }
}
