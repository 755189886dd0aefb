//! Samples are what their truth says, and each fault is the one asked for and no other.
#![allow(clippy::unwrap_used)]

use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey, TrustedKeys};
use facilitator_core::formats::batch::{read_header, read_packets, read_signature};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{AggregationId, BatchTime, IngestionPart};
use facilitator_core::formats::work::Share;
use facilitator_core::proof::{self, Message, ShareError, verification_message};
use facilitator_core::sample::{Fault, FaultKind, IngestionObjects, Recipient, Sample, SampleError, SampleSpec, make};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

struct Keys {
    ingestor: BatchSigningKey,
    packets: [PacketDecryptionKey; 2],
}

fn keys(seed: u64) -> Keys {
    let mut rng = StdRng::seed_from_u64(seed);
    Keys {
        ingestor: BatchSigningKey::generate("ingestor", &mut rng),
        packets: [
            PacketDecryptionKey::generate(&mut rng),
            PacketDecryptionKey::generate(&mut rng),
        ],
    }
}

fn spec(bins: u32, packets: usize) -> SampleSpec {
    SampleSpec {
        aggregation: AggregationId::parse("kittens-seen").unwrap(),
        time: BatchTime::parse_path("2026/11/20/00/00").unwrap(),
        batch_uuid: Uuid::from_u128(1),
        bins,
        packets,
        epsilon: 0.23,
        hamming_weight: None,
        batch_start_time: 0,
        batch_end_time: 60_000,
        seed: 1,
        faults: Vec::new(),
    }
}

fn sample(spec: &SampleSpec, keys: &Keys) -> Result<Sample, SampleError> {
    let recipient = |key: &PacketDecryptionKey| Recipient {
        public_point: *key.public_point(),
        key_id: Some("k".to_owned()),
    };
    make(
        spec,
        &[recipient(&keys.packets[0]), recipient(&keys.packets[1])],
        &keys.ingestor,
    )
}

fn packets(objects: &IngestionObjects, keys: &Keys) -> (IngestionHeader, Vec<DataSharePacket>) {
    let trusted: TrustedKeys = [("ingestor".to_owned(), keys.ingestor.verifying_key().clone())]
        .into_iter()
        .collect();
    let header: IngestionHeader =
        read_header(&read_signature(&objects.signature).unwrap(), &objects.header, &trusted).unwrap();
    let packets = read_packets(&header, &objects.packets).unwrap();
    (header, packets)
}

fn elements(packet: &DataSharePacket, keys: &Keys, share: Share, bins: u32) -> Option<Result<Vec<u32>, ShareError>> {
    let plaintext = keys.packets[usize::from(share.index())]
        .decrypt(&packet.encrypted_payload)
        .ok()?;
    let elements = match share {
        Share::First => proof::parse_first_share(&plaintext, bins),
        Share::Second => proof::parse_second_share(&plaintext, bins),
    };
    Some(elements.map(|elements| elements.to_vec()))
}

#[test]
fn shares_add_up_to_the_totals_and_every_proof_holds() {
    let keys = keys(1);
    for (bins, count) in [(1, 30), (16, 20), (123, 10), (4096, 2), (16, 0)] {
        let sample = sample(&spec(bins, count), &keys).unwrap();
        assert_eq!(sample.clients, count as u64);
        let mut sum = vec![0; bins as usize];
        let mut messages: [Vec<Message>; 2] = [Vec::new(), Vec::new()];
        for (share, objects) in [(Share::First, &sample.first), (Share::Second, &sample.second)] {
            let (header, packets) = packets(objects, &keys);
            assert_eq!(header.parameters.check(), Ok(bins));
            assert_eq!(packets.len(), count);
            for packet in packets {
                let elements = elements(&packet, &keys, share, bins).unwrap().unwrap();
                proof::accumulate(&mut sum, &elements[..bins as usize]);
                let message = verification_message(&elements, bins, packet.r_pit.try_into().unwrap(), share);
                messages[usize::from(share.index())].push(message);
            }
        }
        assert_eq!(sum.into_iter().map(u64::from).collect::<Vec<_>>(), sample.totals);
        let [first, second] = messages;
        assert!(
            first
                .into_iter()
                .zip(second)
                .all(|(first, second)| proof::proof_holds(first, second))
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_other_keys_the_same_values() {
    let keys = [keys(1), keys(2)];
    let first = sample(&spec(16, 20), &keys[0]).unwrap();
    assert_eq!(first, sample(&spec(16, 20), &keys[0]).unwrap());
    let others = sample(&spec(16, 20), &keys[1]).unwrap();
    assert_eq!(first.totals, others.totals);
    assert_ne!(first.first.packets, others.first.packets);
    let reseeded = sample(
        &SampleSpec {
            seed: 2,
            ..spec(16, 20)
        },
        &keys[0],
    )
    .unwrap();
    assert_ne!(first.totals, reseeded.totals);
    let parts: Vec<_> = first.first.in_put_order().map(|(part, _)| part).collect();
    assert_eq!(
        parts,
        [IngestionPart::Packets, IngestionPart::Header, IngestionPart::Signature]
    );
    let empty = sample(&spec(16, 0), &keys[0]).unwrap();
    assert_eq!(empty.second.in_put_order().count(), 2);
}

#[test]
fn each_fault_spoils_its_packet_alone() {
    use FaultKind::*;
    let keys = keys(3);
    let kinds = [
        Undecryptable,
        UndecryptableFor(Share::Second),
        WrongDimension,
        ElementOutOfField,
        InvalidProof,
        DuplicateUuid,
        DuplicatePayload,
        QueryPointRefused,
        QueryPointOutOfRange,
    ];
    for kind in kinds {
        let sample = sample(
            &SampleSpec {
                faults: vec![Fault { packet: 3, kind }],
                ..spec(16, 6)
            },
            &keys,
        )
        .unwrap();
        assert_eq!(sample.clients, 5);
        let (first, second) = (packets(&sample.first, &keys).1, packets(&sample.second, &keys).1);
        let mut bad = Vec::new();
        for (i, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!((first.uuid, first.r_pit), (second.uuid, second.r_pit));
            let shares = [
                elements(first, &keys, Share::First, 16),
                elements(second, &keys, Share::Second, 16),
            ];
            let finding = match (&shares, u32::try_from(first.r_pit)) {
                ([None, None], _) => Some(Undecryptable),
                ([Some(_), None], _) => Some(UndecryptableFor(Share::Second)),
                ([None, Some(_)], _) => Some(UndecryptableFor(Share::First)),
                ([Some(Err(ShareError::WrongDimension { .. })), _], _) => Some(WrongDimension),
                ([Some(Err(ShareError::ElementOutOfField { .. })), _], _) => Some(ElementOutOfField),
                (_, Err(_)) => Some(QueryPointOutOfRange),
                (_, Ok(point)) if proof::query_point_refused(point, 16) => Some(QueryPointRefused),
                ([Some(Ok(a)), Some(Ok(b))], Ok(point)) => {
                    let own = verification_message(a, 16, point, Share::First);
                    (!proof::proof_holds(own, verification_message(b, 16, point, Share::Second)))
                        .then_some(InvalidProof)
                }
                other => panic!("{other:?}"),
            };
            bad.extend(finding.map(|finding| (i, finding)));
        }
        match kind {
            DuplicateUuid => assert_eq!((first[3].uuid, &bad), (first[2].uuid, &vec![])),
            DuplicatePayload => assert_eq!(
                (&first[3].encrypted_payload, &bad),
                (&first[2].encrypted_payload, &vec![])
            ),
            kind => assert_eq!(bad, [(3, kind)]),
        }
    }
}

#[test]
fn refuses_what_it_cannot_make() {
    let keys = keys(4);
    for bins in [0, 4097, u32::MAX] {
        assert_eq!(sample(&spec(bins, 1), &keys).unwrap_err(), SampleError::Bins { bins });
    }
    for (packet, kind) in [(6, FaultKind::InvalidProof), (0, FaultKind::DuplicateUuid)] {
        let spec = SampleSpec {
            faults: vec![Fault { packet, kind }],
            ..spec(16, 6)
        };
        assert_eq!(sample(&spec, &keys).unwrap_err(), SampleError::Fault { packet });
    }
}
