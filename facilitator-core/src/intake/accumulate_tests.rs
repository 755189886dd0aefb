#![allow(clippy::unwrap_used)]
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::*;
use crate::crypto::seal::seal;
use crate::crypto::{PacketDecryptionKey, encrypt};
use crate::formats::record::tests::record;
use crate::formats::record::{Record, RecordPlain};
use crate::intake::opener::tests::TRIES;
use crate::proof::ShareSplitter;

const BINS: u32 = 5;

struct Made {
    rng: StdRng,
    keys: Vec<MountedPacketKey>,
}

impl Made {
    fn new(keys: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(7);
        let key = |n| MountedPacketKey {
            id: format!("key-{n}"),
            key: PacketDecryptionKey::generate(&mut rng),
        };
        let keys = (0..keys).map(key).collect();
        Self { rng, keys }
    }

    fn packet(&mut self, uuid: u128, key: usize, plaintext: &[u8]) -> DataSharePacket {
        let point = *self.keys[key].key.public_point();
        DataSharePacket {
            uuid: Uuid::from_u128(uuid),
            encrypted_payload: encrypt(&point, plaintext, &mut self.rng).unwrap(),
            encryption_key_id: None,
            r_pit: 12_345,
            version_configuration: None,
            device_nonce: None,
        }
    }

    fn good(&mut self, uuid: u128, key: usize, share: Share) -> DataSharePacket {
        let shares = ShareSplitter::new(BINS).split(&[1, 0, 1, 0, 1], &mut self.rng);
        match share {
            Share::First => self.packet(uuid, key, &shares.first),
            Share::Second => self.packet(uuid, key, shares.second.as_slice()),
        }
    }
}

fn run_knowing(
    known: &Known,
    cores: usize,
    packets: &[DataSharePacket],
    share: Share,
    keys: &[MountedPacketKey],
) -> (Accumulated, Vec<DecidedPacket>) {
    let pass = Pass {
        bins: BINS,
        share,
        keys,
        remembered: 3,
        known,
    };
    let mut decided = Vec::new();
    let accumulated = accumulate_on(cores, packets.iter().cloned().map(Ok), &pass, |packet| {
        decided.push(*packet);
        Ok(())
    });
    (accumulated.unwrap(), decided)
}

/// As intake does: another pass where the first took a name for new that wasn't.
fn run(
    cores: usize,
    packets: &[DataSharePacket],
    share: Share,
    keys: &[MountedPacketKey],
) -> (Accumulated, Vec<DecidedPacket>) {
    let (first, decided) = run_knowing(&Known::default(), cores, packets, share, keys);
    if first.repeats.is_empty() {
        return (first, decided);
    }
    let known = Known {
        repeats: first.repeats,
        ..Known::default()
    };
    run_knowing(&known, cores, packets, share, keys)
}

fn reasons(decided: &[DecidedPacket]) -> Vec<Option<PacketExclusion>> {
    let reason = |packet: &DecidedPacket| match packet.packet.state {
        PacketState::In { .. } => None,
        PacketState::Excluded(reason) => Some(reason),
    };
    decided.iter().map(reason).collect()
}

#[test]
fn each_bad_packet_is_excluded_for_its_own_reason_and_the_rest_is_summed() {
    use PacketExclusion as E;
    let mut made = Made::new(1);
    let mut packets = vec![made.good(1, 0, Share::First)];
    packets.push(DataSharePacket {
        encrypted_payload: vec![4; 90],
        ..made.good(2, 0, Share::First)
    });
    packets.push(made.packet(3, 0, &[0; 60]));
    packets.push(made.packet(4, 0, &[0xff; (5 + 3 + 8) * 4]));
    packets.push(DataSharePacket {
        r_pit: -1,
        ..made.good(5, 0, Share::First)
    });
    packets.push(DataSharePacket {
        r_pit: 1 << 32,
        ..made.good(6, 0, Share::First)
    });
    packets.push(DataSharePacket {
        r_pit: 1,
        ..made.good(7, 0, Share::First)
    });
    packets.push(made.good(1, 0, Share::First));
    packets.push(DataSharePacket {
        uuid: Uuid::from_u128(9),
        ..packets[0].clone()
    });
    packets.push(made.good(10, 0, Share::First));

    let (result, decided) = run(1, &packets, Share::First, &made.keys);
    let expected = [
        None,
        Some(E::Undecryptable),
        Some(E::WrongDimension),
        Some(E::ElementOutOfField),
        Some(E::QueryPointOutOfRange),
        Some(E::QueryPointOutOfRange),
        Some(E::QueryPointRefused),
        Some(E::DuplicateUuid),
        Some(E::DuplicateEphemeralKey),
        None,
    ];
    assert_eq!(reasons(&decided), expected);
    assert!(!format!("{result:?}").contains("sum"), "sums stay out of logs");
    let (alone, _) = run(1, &[packets[0].clone(), packets[9].clone()], Share::First, &made.keys);
    assert_eq!(
        *result.keys[0].sum, *alone.keys[0].sum,
        "what is excluded was never added"
    );
}

#[test]
fn seconds_seeds_of_another_length_are_of_the_wrong_dimension() {
    let mut made = Made::new(1);
    let packets = [
        made.packet(1, 0, &[1; 31]),
        made.packet(2, 0, &[1; 33]),
        made.good(3, 0, Share::Second),
    ];
    let (result, _) = run(1, &packets, Share::Second, &made.keys);
    assert_eq!(result.excluded_as(PacketExclusion::WrongDimension), 2);
    assert_eq!(result.excluded(), 2);
}

#[test]
fn keys_are_numbered_by_first_use_and_the_number_of_cores_changes_nothing() {
    let mut made = Made::new(3);
    let packets: Vec<_> = (0..200)
        .map(|n| {
            let key = if n < 5 { 2 } else { n as usize % 3 };
            made.good(n, key, Share::Second)
        })
        .collect();
    let (one, decided) = run(1, &packets, Share::Second, &made.keys);
    assert_eq!(one.keys.iter().map(|key| key.mounted).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!(one.excluded(), 0);
    for cores in [2, 3, 7] {
        let (many, decided_by_many) = run(cores, &packets, Share::Second, &made.keys);
        assert_eq!(decided_by_many, decided);
        for (a, b) in many.keys.iter().zip(&one.keys) {
            assert_eq!((a.mounted, &*a.sum), (b.mounted, &*b.sum));
        }
    }
}

/// The record of what was decided.
fn record_of(result: &Accumulated, decided: &[DecidedPacket], keys: &[MountedPacketKey]) -> Vec<u8> {
    let of = |key: &KeySum| &keys[key.mounted].key;
    let plain = RecordPlain {
        head: record().plain.head,
        packets: decided.iter().map(|decided| decided.packet).collect(),
        packet_keys: result.keys.iter().map(|key| *of(key).public_point()).collect(),
    };
    let (head, digest) = (&plain.head, plain.digest());
    let seal = |key: &KeySum| seal(of(key), &head.header_digest, head.share, &digest, &key.sum);
    let sealed = result.keys.iter().map(seal).collect();
    Record { plain, sealed }.encode()
}

/// Asserts that any number of cores makes the same record of the packets, and says how often one core tries a key.
fn tries_of_the_one_record(packets: &[DataSharePacket], keys: &[MountedPacketKey]) -> (usize, Accumulated) {
    TRIES.set(0);
    let (one, decided) = run(1, packets, Share::Second, keys);
    let tries = TRIES.get();
    let record = record_of(&one, &decided, keys);
    for cores in [2, 3, 7] {
        // Which core gets which part differs from run to run.
        for _ in 0..3 {
            let (many, decided_by_many) = run(cores, packets, Share::Second, keys);
            assert_eq!(decided_by_many, decided, "{cores}");
            assert!(record_of(&many, &decided_by_many, keys) == record, "{cores}");
        }
    }
    (tries, one)
}

#[test]
fn without_a_name_the_key_that_opened_the_last_packet_is_tried_first() {
    let mut made = Made::new(4);
    let mut packets: Vec<_> = (0..50).map(|n| made.good(n, 3, Share::Second)).collect();
    packets.extend((50..250).map(|n| made.good(n, 1, Share::Second)));
    let (tries, result) = tries_of_the_one_record(&packets, &made.keys);
    assert_eq!(result.excluded(), 0);
    // All keys on the first packet, three where the key changes, one on each of the others.
    assert_eq!(tries, (4 + 49) + (3 + 199));

    // Packets that no key opens cost all of them, and nothing of the others.
    let mut packets: Vec<_> = (0..100).map(|n| made.good(n, 3, Share::Second)).collect();
    let closed = (0..20).chain([60]);
    closed.for_each(|n| *packets[n].encrypted_payload.last_mut().unwrap() ^= 1);
    let (tries, result) = tries_of_the_one_record(&packets, &made.keys);
    assert_eq!(result.excluded(), 21);
    assert_eq!(tries, 4 * 20 + (4 + 39) + 4 + 39);
}

#[test]
fn a_key_that_is_mounted_again_is_the_first_one_whatever_packets_name() {
    let mut made = Made::new(3);
    let text = made.keys[0].key.to_base64();
    made.keys[2].key = PacketDecryptionKey::parse(&text).unwrap();
    let mut packets: Vec<_> = (0..300).map(|n| made.good(n, 0, Share::Second)).collect();
    packets[0].encrypted_payload = vec![4; 90];
    for (n, packet) in packets.iter_mut().enumerate() {
        packet.encryption_key_id = (n % 7 == 1).then(|| format!("key-{}", n % 3));
    }
    packets[1].encryption_key_id = Some("key-2".into());
    let (_, result) = tries_of_the_one_record(&packets, &made.keys);
    assert_eq!(result.keys.iter().map(|key| key.mounted).collect::<Vec<_>>(), [0]);
    assert_eq!(result.excluded(), 1);
}

#[test]
fn a_key_that_is_not_mounted_is_named_by_the_packets_that_need_it() {
    let mut made = Made::new(2);
    let elsewhere = made.keys.pop().unwrap();
    made.keys.push(elsewhere);
    let mut lost = made.good(1, 1, Share::First);
    lost.encryption_key_id = Some("key-1".into());
    let mut misnamed = made.good(2, 0, Share::First);
    misnamed.encryption_key_id = Some("another".into());
    let keys = [made.keys.remove(0)];
    let (result, _) = run(1, &[lost, misnamed.clone()], Share::First, &keys);
    assert_eq!(result.unmounted_key.as_deref(), Some("key-1"));
    assert_eq!(
        run(1, &[misnamed], Share::First, &keys).0.unmounted_key,
        None,
        "a wrong hint costs nothing"
    );
}

#[test]
fn a_replay_is_excluded_unless_it_is_a_duplicate_and_takes_its_names() {
    let mut made = Made::new(1);
    let mut packets: Vec<_> = (0..8).map(|n| made.good(n, 0, Share::First)).collect();
    packets[4].uuid = packets[1].uuid;
    packets[6].uuid = packets[2].uuid;
    let known = Known {
        replays: vec![2, 4, 7],
        ..Known::default()
    };
    for cores in [1, 3] {
        let (result, decided) = run_knowing(&known, cores, &packets, Share::First, &made.keys);
        let (duplicate, replay) = (Some(PacketExclusion::DuplicateUuid), Some(PacketExclusion::Replay));
        let expected = [None, None, replay, None, duplicate, None, duplicate, replay];
        assert_eq!(reasons(&decided), expected);
        assert_eq!(result.excluded_as(PacketExclusion::Replay), 2);
    }
}

#[test]
fn packets_are_told_of_in_order_with_what_claims_need() {
    let mut made = Made::new(2);
    let mut packets: Vec<_> = (0..100).map(|n| made.good(n, n as usize % 2, Share::Second)).collect();
    packets[3].encrypted_payload.truncate(30);
    let (_, decided) = run(2, &packets, Share::Second, &made.keys);
    for (index, (decided, packet)) in decided.iter().zip(&packets).enumerate() {
        assert_eq!((decided.index as usize, decided.packet.uuid), (index, packet.uuid));
        if index == 3 {
            assert_eq!((decided.mounted, decided.ephemeral), (None, None));
        } else {
            assert_eq!(decided.mounted, Some(index % 2));
            assert_eq!(decided.ephemeral.unwrap(), packet.encrypted_payload[1..17]);
        }
    }
}

#[test]
fn a_batch_of_many_parts_comes_out_in_order_and_is_given_up_at_the_first_error() {
    let mut made = Made::new(1);
    // Dozens of parts.
    let packets: Vec<_> = (0..1500).map(|n| made.good(n, 0, Share::Second)).collect();
    let (one, decided) = run(1, &packets, Share::Second, &made.keys);
    assert!(
        decided
            .iter()
            .zip(0..)
            .all(|(packet, n)| packet.packet.uuid == Uuid::from_u128(n))
    );
    let (three, decided_by_three) = run(3, &packets, Share::Second, &made.keys);
    assert_eq!((decided_by_three, &*three.keys[0].sum), (decided, &*one.keys[0].sum));

    let unwritten = || FormatError::Write {
        record: "record",
        source: std::io::Error::other("full"),
    };
    let known = Known::default();
    let pass = Pass {
        bins: BINS,
        share: Share::Second,
        keys: &made.keys,
        remembered: 3,
        known: &known,
    };
    for cores in [1, 3] {
        for until in [0, 40, 1499] {
            let mut told = 0;
            let each = |_: &DecidedPacket| {
                told += 1;
                if told > until { Err(unwritten()) } else { Ok(()) }
            };
            let whole = packets.iter().cloned().map(Ok);
            assert!(accumulate_on(cores, whole, &pass, each).is_err());
            assert_eq!(told, until + 1, "{cores}");
        }
        let cut = packets.iter().cloned().map(Ok).chain([Err(unwritten())]);
        assert!(accumulate_on(cores, cut, &pass, |_| Ok(())).is_err());
    }
}
