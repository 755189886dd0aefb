//! Ledger rule 8. A packet's query point comes from outside. f has the client's values at the n-th roots of unity: asked
//! there, both parties' honest messages add up to one of them. At the other 2n-th roots any packet passes for a good one.

use facilitator_core::formats::record::{PacketExclusion, PacketState, Record};
use facilitator_core::formats::work::Share;
use facilitator_core::proof::{domain, pow, proof_holds};

use crate::observer::{Client, SHARES, answered, f, root, tamper};
use crate::world::{World, intake_both, verdict, window};

const BINS: u32 = 8;

#[test]
fn two_honest_messages_at_a_root_of_unity_are_a_clients_bit() {
    for bins in [1, 2, 7, 8, 123] {
        let client = Client::new(bins, 7);
        for (bin, value) in client.values.iter().enumerate() {
            let r = pow(root(domain(bins)), bin as u64 + 1);
            let messages = client.messages(r);
            assert_eq!(f(messages), *value, "bin {bin} of {bins}");
            assert!(proof_holds(messages[0], messages[1]), "and nobody notices");
        }
        // Elsewhere a random element of the field that nobody knows hides it.
        assert!(f(client.messages(12_345)) > 1);
    }
}

#[test]
fn at_the_other_roots_a_client_may_count_as_often_as_it_likes() {
    let cheat = Client::with(vec![1_000, 0, 0, 1, 0, 0, 0, 0], 3);
    let n = domain(BINS);
    let holds = |r| {
        let [first, second] = cheat.messages(r);
        proof_holds(first, second)
    };
    assert!((0..n as u64).all(|i| holds(pow(root(2 * n), 2 * i + 1))));
    assert!(!holds(12_345), "an ordinary point shows it");
}

/// The same, by an ingestor who writes such points into a batch.
#[tokio::test]
async fn neither_party_answers_such_a_point_and_nobody_counts_it() {
    let n = domain(BINS);
    // Roots of either kind; the last is p + 1, which is 1 in the field.
    let points: Vec<i64> = [root(n), pow(root(n), 5), root(2 * n), pow(root(2 * n), 3)]
        .map(i64::from)
        .into_iter()
        .chain([4_293_918_722])
        .collect();
    let world = World::new();
    let sample = world.sample_of(1, 12, BINS, &[]);
    tamper(&world, &sample.id, |packets| {
        for (packet, point) in packets.iter_mut().zip(&points) {
            packet.r_pit = *point;
        }
    });
    intake_both(&world, &sample.id).await;
    let mut asked = Vec::new();
    for share in SHARES {
        let answered = answered(&world.peer_validation, &sample.id, share);
        assert_eq!(answered.len(), 12 - points.len());
        let record = &world.ledger[usize::from(share.index())].snapshot()[sample.id.ledger_key("records").as_str()];
        let packets = Record::decode(record).unwrap().plain.packets;
        for packet in &packets[..points.len()] {
            assert_eq!(packet.state, PacketState::Excluded(PacketExclusion::QueryPointRefused));
            assert!(!answered.contains(&packet.uuid));
            asked.push(packet.uuid);
        }
    }
    for share in SHARES {
        assert_eq!(verdict(&world.processor(share), &window()).await.clients, 7);
    }
    let invalid =
        &world.portal[0].snapshot()["us-ct-g-enpa/kittens-seen/202611200000-202611200300.invalid_uuid_0.avro"];
    let invalid = facilitator_core::formats::sum_part::InvalidPacket::read_all(invalid).unwrap();
    assert!(
        asked
            .iter()
            .all(|uuid| invalid.iter().any(|packet| packet.uuid == *uuid))
    );
}

/// A peer without the guard answers; its message is met with nothing.
#[tokio::test]
async fn a_peers_message_at_such_a_point_is_never_combined() {
    use facilitator_core::crypto::sha256;
    use facilitator_core::formats::names::ValidationPart;
    use facilitator_core::formats::signature::BatchSignature;
    use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};

    let world = World::new();
    let sample = world.sample_of(1, 12, BINS, &[]);
    let uuids = std::cell::RefCell::new(Vec::new());
    tamper(&world, &sample.id, |packets| {
        packets[0].r_pit = i64::from(root(domain(BINS)));
        uuids.borrow_mut().push(packets[0].uuid);
    });
    intake_both(&world, &sample.id).await;
    let key = |part| sample.id.validation_key(Share::Second, part);
    let there = world.peer_validation[0].snapshot();
    let mut packets = ValidationPacket::read_all(&there[key(ValidationPart::Packets).as_str()]).unwrap();
    packets.insert(
        0,
        ValidationPacket {
            uuid: uuids.borrow()[0],
            ..packets[0]
        },
    );
    let packets = ValidationPacket::write_all(&packets);
    let mut header = ValidationHeader::read(&there[key(ValidationPart::Header).as_str()]).unwrap();
    header.packet_file_digest = sha256(&packets).to_vec();
    let header = header.write();
    let signer = crate::support::Keys::read().second;
    let signature = BatchSignature::sign(&signer, &header).unwrap().write();
    world.peer_validation[0].replace(&key(ValidationPart::Packets), packets);
    world.peer_validation[0].replace(&key(ValidationPart::Header), header);
    world.peer_validation[0].replace(&key(ValidationPart::Signature), signature);
    let result = verdict(&world.processor(Share::First), &window()).await;
    assert_eq!(
        (result.clients, result.excluded_packets, result.invalid_proofs),
        (11, 1, 0)
    );
}
