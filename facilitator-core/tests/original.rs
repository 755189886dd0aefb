//! Everything that the original wrote reads as it meant it, and our computations give what it computed.
#![allow(clippy::unwrap_used)]

mod support;

use facilitator_core::formats::batch::{read_header, read_packets, read_signature};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{
    IngestionPart, InstanceName, SumPartPart, ValidationPart, WindowId, parse_ingestion_name, parse_sum_part_name,
    parse_validation_name,
};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use facilitator_core::proof::{self, Message, ProofQuery};
use support::{Keys, Truth, ingestion, names, root, single_object, validation};

const SHARES: [Share; 2] = [Share::First, Share::Second];

#[test]
fn every_name_is_one_of_ours() {
    let mut seen = 0;
    for party in ["first", "second"] {
        for name in names(&root().join(party).join("ingestion")) {
            let (id, part) = parse_ingestion_name(&name).unwrap();
            assert_eq!(id.ingestion_key(part).as_str(), name);
            seen += 1;
        }
        for mailbox in [root().join(party), root().join("single-object").join(party)] {
            for name in names(&mailbox.join("peer-validation")) {
                let (id, share, part) = parse_validation_name(&name).unwrap();
                assert_eq!(id.validation_key(share, part).as_str(), name);
                seen += 1;
            }
        }
    }
    for name in names(&root().join("sums")) {
        let (instance, window, share, part) = parse_sum_part_name(&name).unwrap();
        assert_eq!(window.sum_part_key(&instance, share, part).as_str(), name);
        seen += 1;
    }
    assert!(seen > 200, "{seen}");
}

/// Ingestion of both parties: signature, header, packets.
fn read_ingestion(
    keys: &Keys,
    share: Share,
    id: &facilitator_core::formats::names::BatchId,
) -> (IngestionHeader, Vec<DataSharePacket>) {
    let signature = read_signature(&ingestion(share, id, IngestionPart::Signature)).unwrap();
    assert_eq!(signature.inline(), None);
    let header: IngestionHeader =
        read_header(&signature, &ingestion(share, id, IngestionPart::Header), &keys.trusted).unwrap();
    let packets = read_packets(&header, &ingestion(share, id, IngestionPart::Packets)).unwrap();
    (header, packets)
}

#[test]
fn messages_are_the_originals_for_every_packet_of_both_parties() {
    let keys = Keys::read();
    let mut checked = 0;
    for window in Truth::read() {
        let query = ProofQuery::new(window.bins);
        for (id, truth) in window.batch_ids().iter().zip(&window.batches) {
            let mut messages: [Vec<Message>; 2] = [Vec::new(), Vec::new()];
            for share in SHARES {
                let (header, packets) = read_ingestion(&keys, share, id);
                assert_eq!(header.parameters.check(), Ok(window.bins));
                assert_eq!(header.parameters.batch_uuid, id.uuid);
                assert_eq!(packets.len(), truth.packets);

                let signature = read_signature(&validation(share, id, ValidationPart::Signature)).unwrap();
                let validation_header: ValidationHeader = read_header(
                    &signature,
                    &validation(share, id, ValidationPart::Header),
                    &keys.trusted,
                )
                .unwrap();
                assert_eq!(validation_header.parameters.difference(&header.parameters), None);
                let written: Vec<ValidationPacket> =
                    read_packets(&validation_header, &validation(share, id, ValidationPart::Packets)).unwrap();

                let single = read_signature(&single_object(share, id)).unwrap();
                let (inline_header, inline_packets) = single.inline().unwrap();
                let inline_header: ValidationHeader = read_header(&single, inline_header, &keys.trusted).unwrap();
                assert_eq!(inline_header.parameters, validation_header.parameters);
                assert_eq!(
                    read_packets::<ValidationPacket>(&inline_header, inline_packets).unwrap(),
                    written
                );

                assert_eq!(packets.len(), written.len());
                for (packet, written) in packets.iter().zip(&written) {
                    let plaintext = keys.packets(share).decrypt(&packet.encrypted_payload).unwrap();
                    assert!(keys.packets(share.peer()).decrypt(&packet.encrypted_payload).is_err());
                    let elements = match share {
                        Share::First => proof::parse_first_share(&plaintext, window.bins).unwrap(),
                        Share::Second => proof::parse_second_share(&plaintext, window.bins).unwrap(),
                    };
                    let r_pit = u32::try_from(packet.r_pit).unwrap();
                    assert!(!proof::query_point_refused(r_pit, window.bins));
                    let message = query.message(&elements, r_pit, share);
                    assert_eq!(ValidationPacket::new(packet.uuid, message), *written);
                    assert_eq!(written.message(), Some(message));
                    messages[usize::from(share.index())].push(message);
                    checked += 1;
                }
            }
            let [first, second] = messages;
            assert!(
                first
                    .into_iter()
                    .zip(second)
                    .all(|(first, second)| proof::proof_holds(first, second))
            );
        }
    }
    assert!(checked > 1000, "{checked}");
}

#[test]
fn the_originals_sum_parts_and_our_sums_of_shares_give_the_truth() {
    let keys = Keys::read();
    let instance = InstanceName::parse("us-ct-g-enpa").unwrap();
    for truth in Truth::read() {
        let window = WindowId::parse(&format!("{}/{}-{}", truth.aggregation, truth.start, truth.end)).unwrap();
        let mut totals = vec![0; truth.bins as usize];
        for share in SHARES {
            let read = |part| {
                std::fs::read(
                    root()
                        .join("sums")
                        .join(window.sum_part_key(&instance, share, part).as_str()),
                )
                .unwrap()
            };
            let signature = read_signature(&read(SumPartPart::Signature)).unwrap();
            let part: SumPart = read_header(&signature, &read(SumPartPart::Header), &keys.trusted).unwrap();
            let invalid: Vec<InvalidPacket> = read_packets(&part, &read(SumPartPart::InvalidPackets)).unwrap();
            assert_eq!(invalid, []);
            assert_eq!(part.total_individual_clients.cast_unsigned(), truth.clients);
            assert_eq!(part.name, truth.aggregation);
            assert_eq!((part.bins.cast_unsigned(), part.epsilon), (truth.bins, truth.epsilon));
            assert_eq!(
                (part.aggregation_start_time, part.aggregation_end_time),
                (window.start.as_millis(), window.end.as_millis())
            );
            let mut batches = part.batch_uuids.clone();
            batches.sort();
            let mut expected: Vec<_> = truth.batches.iter().map(|batch| batch.id).collect();
            expected.sort();
            assert_eq!(batches, expected);

            // Our own sum of this party's shares is the original's.
            let mut own = vec![0; truth.bins as usize];
            for id in truth.batch_ids() {
                for packet in read_ingestion(&keys, share, &id).1 {
                    let plaintext = keys.packets(share).decrypt(&packet.encrypted_payload).unwrap();
                    let elements = match share {
                        Share::First => proof::parse_first_share(&plaintext, truth.bins).unwrap(),
                        Share::Second => proof::parse_second_share(&plaintext, truth.bins).unwrap(),
                    };
                    proof::accumulate(&mut own, &elements[..truth.bins as usize]);
                }
            }
            let theirs: Vec<u32> = part.sum.iter().map(|value| u32::try_from(*value).unwrap()).collect();
            assert_eq!(own, theirs);
            proof::accumulate(&mut totals, &theirs);
        }
        let totals: Vec<u64> = totals.into_iter().map(u64::from).collect();
        assert_eq!(totals, truth.totals);
    }
}

/// The original's own writer and ours give the same records: what differs is the sync marker and the map's order.
#[test]
fn our_bytes_of_its_records_read_as_its_own() {
    for window in Truth::read() {
        for id in window.batch_ids() {
            for share in SHARES {
                let header = IngestionHeader::read(&ingestion(share, &id, IngestionPart::Header)).unwrap();
                assert_eq!(IngestionHeader::read(&header.write()).unwrap(), header);
                let packets = DataSharePacket::read_all(&ingestion(share, &id, IngestionPart::Packets)).unwrap();
                let bytes = DataSharePacket::write_all(&packets);
                assert_eq!(DataSharePacket::read_all(&bytes).unwrap(), packets);
                let streamed: Vec<_> = DataSharePacket::stream(bytes.as_slice()).map(Result::unwrap).collect();
                assert_eq!(streamed, packets);
                let signature = BatchSignature::read(&single_object(share, &id)).unwrap();
                assert_eq!(BatchSignature::read(&signature.write()).unwrap(), signature);
            }
        }
    }
}
