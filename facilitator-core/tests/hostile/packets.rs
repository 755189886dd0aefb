//! Packets: what costs one packet and no other.

use facilitator_core::crypto::encrypt;
use facilitator_core::formats::ingestion::DataSharePacket;
use facilitator_core::formats::record::PacketState;
use facilitator_core::formats::work::Share;
use facilitator_core::processor::MountedPacketKey;
use facilitator_core::proof::{PRIME, ShareSplitter, pow, proof_length};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::party::{BINS, packet};
use crate::support::{Keys, decide};
use crate::{Case, case};

/// What is decided about a packet.
fn state(share: Share, bins: u32, packet: &DataSharePacket) -> String {
    let keys = Keys::read();
    let key = if share == Share::First {
        keys.first_packets
    } else {
        keys.second_packets
    };
    let keys = [MountedPacketKey { id: "one".into(), key }];
    let (_, state) = decide(packet.clone(), bins, share, &keys).unwrap();
    match state {
        PacketState::In { .. } => "accepted".into(),
        PacketState::Excluded(reason) => format!("excluded: {reason:?}"),
    }
}

/// A payload that holds `plaintext` for `share`.
fn sealed(share: Share, plaintext: &[u8]) -> Vec<u8> {
    let keys = Keys::read();
    encrypt(
        keys.packets(share).public_point(),
        plaintext,
        &mut StdRng::seed_from_u64(3),
    )
    .unwrap()
}

fn first_share(bins: u32) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(4);
    ShareSplitter::new(bins)
        .split(&vec![0; bins as usize], &mut rng)
        .first
        .to_vec()
}

pub fn cases() -> Vec<Case> {
    let undecryptable = "excluded: Undecryptable";
    let payload = |name: &str, payload: Vec<u8>| {
        let packet = packet(payload);
        case(format!("a payload {name}"), undecryptable, move || {
            state(Share::First, BINS, &packet)
        })
    };
    let good = || sealed(Share::First, &first_share(BINS));
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut payload = good();
        change(&mut payload);
        payload
    };
    let mut cases = vec![
        payload("of no bytes", vec![]),
        payload("of one byte", vec![4]),
        payload("of a point without its last byte", good()[..64].to_vec()),
        payload("of a point alone", good()[..65].to_vec()),
        payload("of a point and 15 bytes", good()[..80].to_vec()),
        payload("of 15 MB of zeros", vec![0; 15 << 20]).within_kb(20 << 10),
        payload("with a point that isn't on the curve", changed(|p| p[64] ^= 1)),
        payload("with the point at infinity", changed(|p| p[..65].fill(0))),
        payload("with a compressed point", changed(|p| p[0] = 2)),
        payload("with a hybrid point", changed(|p| p[0] = 6)),
        payload("with coordinates beyond the field", changed(|p| p[1..65].fill(0xff))),
        payload("with another ciphertext byte", changed(|p| p[70] ^= 1)),
        payload("with another tag", changed(|p| *p.last_mut().unwrap() ^= 1)),
        payload("for the peer", sealed(Share::Second, &first_share(BINS))),
    ];
    let plain = |share: Share, name: &str, expected: &str, plaintext: Vec<u8>| {
        let packet = packet(sealed(share, &plaintext));
        case(
            format!("{share:?}'s share {name}"),
            format!("excluded: {expected}"),
            move || state(share, BINS, &packet),
        )
    };
    let length = 4 * proof_length(BINS);
    let element = |index: usize, value: u32| {
        let mut share = first_share(BINS);
        share[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
        share
    };
    cases.extend([
        plain(Share::First, "of no bytes", "WrongDimension", vec![]),
        plain(Share::First, "of a byte less", "WrongDimension", vec![0; length - 1]),
        plain(Share::First, "of a byte more", "WrongDimension", vec![0; length + 1]),
        plain(
            Share::First,
            "of an element less",
            "WrongDimension",
            vec![0; length - 4],
        ),
        plain(Share::First, "of 9 bins", "WrongDimension", first_share(9)),
        plain(Share::First, "of 32 bytes", "WrongDimension", vec![1; 32]),
        plain(Share::First, "of 10 MB", "WrongDimension", vec![0; 10 << 20]).within_kb(24 << 10),
        plain(
            Share::First,
            "with p for its first element",
            "ElementOutOfField",
            element(0, PRIME),
        ),
        plain(
            Share::First,
            "with 2^32 - 1 for its last element",
            "ElementOutOfField",
            element(length / 4 - 1, u32::MAX),
        ),
        plain(Share::Second, "of no bytes", "WrongDimension", vec![]),
        plain(Share::Second, "of 31 bytes", "WrongDimension", vec![1; 31]),
        plain(Share::Second, "of 33 bytes", "WrongDimension", vec![1; 33]),
        plain(Share::Second, "as a whole vector", "WrongDimension", first_share(BINS)),
    ]);
    let roots: [(&str, i64, &str); 9] = [
        ("1", 1, "QueryPointRefused"),
        ("-1 mod p", i64::from(PRIME) - 1, "QueryPointRefused"),
        ("p + 1, which is 1", i64::from(PRIME) + 1, "QueryPointRefused"),
        ("2^32", 1 << 32, "QueryPointOutOfRange"),
        ("-1", -1, "QueryPointOutOfRange"),
        ("2^63 - 1", i64::MAX, "QueryPointOutOfRange"),
        ("-2^63", i64::MIN, "QueryPointOutOfRange"),
        ("a root of unity of order 16", root(16), "QueryPointRefused"),
        ("a root of unity of order 32", root(32), "QueryPointRefused"),
    ];
    for (name, r_pit, expected) in roots {
        let packet = DataSharePacket {
            r_pit,
            ..packet(good())
        };
        let expected = format!("excluded: {expected}");
        cases.push(case(format!("a query point of {name}"), expected, move || {
            state(Share::First, BINS, &packet)
        }));
    }
    let small = packet(vec![4; 100]);
    cases.push(
        case(
            "a small payload in a batch of 2^19 - 1 bins",
            undecryptable,
            move || state(Share::First, (1 << 19) - 1, &small),
        )
        .within_kb(32 << 10),
    );
    cases
}

fn root(order: u64) -> i64 {
    i64::from(pow(19, u64::from(PRIME - 1) / order))
}
