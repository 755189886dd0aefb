//! Keys, shares and sums don't outlive their use in memory, `Debug` shows none of them, and no key is compared by `==`.
#![allow(clippy::unwrap_used)]

#[path = "../support/scanning.rs"]
mod scanning;
#[path = "../support/mod.rs"]
mod support;
mod types;
mod work;
#[allow(dead_code, reason = "the other tests of it use the rest")]
#[path = "../flow/world.rs"]
mod world;

use std::fmt::Debug;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use facilitator_core::crypto::new_key::NewKey;
use facilitator_core::crypto::original::read_versions;
use facilitator_core::crypto::{BatchSigningKey, ClaimKey, PacketDecryptionKey, encrypt, open, seal};
use facilitator_core::formats::ingestion::DataSharePacket;
use facilitator_core::formats::work::Share;

use facilitator_core::processor::MountedPacketKey;
use facilitator_core::proof::{ProofQuery, ShareSplitter, parse_first_share, parse_second_share};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::scanning::{left_behind_of, turn};
use crate::support::{Keys, decide};
use crate::world::World;

const BINS: u32 = 8;

/// As [`left_behind_of`], of one secret.
fn left_behind(secret: &[u8], work: impl FnOnce()) -> usize {
    left_behind_of(&[secret], work)
}

fn packet(payload: Vec<u8>) -> DataSharePacket {
    DataSharePacket {
        uuid: Uuid::from_u128(1),
        encrypted_payload: payload,
        encryption_key_id: None,
        r_pit: 7,
        version_configuration: None,
        device_nonce: None,
    }
}

fn bytes_of(elements: &[u32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

#[test]
fn what_is_not_wiped_is_found() {
    let _turn = turn();
    let secret = [0xa5; 32];
    assert_eq!(left_behind(&secret, || drop(secret.to_vec())), 1);
    let mut wiped = secret.to_vec();
    assert_eq!(
        left_behind(&secret, || {
            zeroize::Zeroize::zeroize(&mut wiped);
            drop(wiped)
        }),
        0
    );
}

/// Six versions in the original's form, youngest first, with an escape in each key; and the keys, as bytes and as text.
fn originals() -> (String, Vec<Vec<u8>>) {
    let mut secrets = Vec::new();
    let entry = |created: u8| {
        let scalar: [u8; 32] = std::array::from_fn(|at| 7 * u8::try_from(at).unwrap() + created);
        let key = PacketDecryptionKey::from_scalar(scalar.into()).unwrap();
        let (x, y) = key.public_point()[1..].split_at(32);
        let text = STANDARD.encode([&[1, 2 + (y[31] & 1)], x, &scalar].concat());
        secrets.extend([scalar.to_vec(), text.as_bytes()[48..].to_vec()]);
        let escaped = text.replacen('A', r"\u0041", 1);
        let primary = created == 6;
        format!(r#"{{"key":"{escaped}","creation_time":"{created}","primary":{primary}}}"#)
    };
    let entries: Vec<_> = (1..=6).rev().map(entry).collect();
    (format!("[{}]", entries.join(",")), secrets)
}

#[test]
fn versions_of_the_original_leave_nothing_behind() {
    let _turn = turn();
    let (versions, secrets) = originals();
    assert!(versions.matches(r"\u0041").count() == 6 && read_versions(&versions).unwrap().len() == 6);
    let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let read = |text: &str| left_behind_of(&secrets, || drop(read_versions(text)));
    assert_eq!(read(&versions), 0, "read");
    let refused = versions.replace(r#""creation_time":"1""#, r#""creation_time":"2""#);
    assert!(read_versions(&refused).is_err());
    assert_eq!(read(&refused), 0, "refused");
}

#[test]
fn keys_leave_nothing_behind() {
    let _turn = turn();
    let keys = Keys::read();
    let text = keys.first_packets.to_base64();
    let bytes = STANDARD.decode(&*text).unwrap();
    let scalar = &bytes[65..];
    assert_eq!(
        left_behind(scalar, || drop(PacketDecryptionKey::parse(&text))),
        0,
        "parsed"
    );
    assert_eq!(
        left_behind(scalar, || drop(PacketDecryptionKey::parse_list(&text))),
        0,
        "parsed in a list"
    );
    assert_eq!(
        left_behind(scalar, || drop(PacketDecryptionKey::parse(&format!("{}AAAA", &*text)))),
        0,
        "refused"
    );
    assert_eq!(left_behind(scalar, || drop(keys.first_packets.to_base64())), 0, "shown");
    let end = text.as_bytes()[text.len() - 40..].to_vec();
    assert_eq!(
        left_behind(&end, || drop(keys.first_packets.to_base64())),
        0,
        "shown, as text"
    );

    let key = &keys.first_packets;
    let claimed = |secret: &[u8]| {
        left_behind(secret, || {
            let moved = vec![ClaimKey::of(key)];
            let keys: Arc<[ClaimKey]> = moved.into();
            assert_ne!(keys[0].fingerprint(&[7; 16]), 0);
        })
    };
    let mut derived = [0; 16];
    let info: [&[u8]; 2] = [b"prio-operator claims v1 fingerprint", key.public_point()];
    let hkdf = hkdf::Hkdf::<sha2::Sha256>::new(None, scalar);
    hkdf.expand_multi_info(&info, &mut derived).unwrap();
    assert_eq!([claimed(scalar), claimed(&derived)], [0; 2], "claimed with");

    let text = keys.first.to_base64().unwrap();
    let der = STANDARD.decode(&*text).unwrap();
    // PKCS#8: the scalar follows its tag and length, OCTET STRING of 32 bytes.
    let at = der.windows(2).position(|window| window == [0x04, 0x20]).unwrap() + 2;
    let scalar = &der[at..at + 32];
    assert_eq!(
        left_behind(scalar, || drop(BatchSigningKey::parse("id", &text))),
        0,
        "signing key"
    );
    assert_eq!(left_behind(scalar, || drop(keys.first.sign(b"header"))), 0, "signed");
    assert_eq!(
        left_behind(scalar, || drop(keys.first.to_base64())),
        0,
        "signing key shown"
    );
}

#[test]
fn shares_and_sums_leave_nothing_behind() {
    let _turn = turn();
    let mut rng = StdRng::seed_from_u64(9);
    let shares = ShareSplitter::new(BINS).split(&[1; BINS as usize], &mut rng);
    let keys = Keys::read();
    let first = encrypt(keys.first_packets.public_point(), &shares.first, &mut rng).unwrap();
    let second = encrypt(keys.second_packets.public_point(), &*shares.second, &mut rng).unwrap();
    let expanded = bytes_of(&parse_second_share(&*shares.second, BINS).unwrap());

    assert_eq!(
        left_behind(&shares.first, || drop(keys.first_packets.decrypt(&first))),
        0,
        "decrypted"
    );
    assert_eq!(
        left_behind(&shares.first, || drop(parse_first_share(&shares.first, BINS))),
        0,
        "First's share"
    );
    assert_eq!(
        left_behind(&expanded, || drop(parse_second_share(&*shares.second, BINS))),
        0,
        "Second's share"
    );
    let mut damaged = first.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(
        left_behind(&shares.first, || drop(keys.first_packets.decrypt(&damaged))),
        0,
        "decrypted, and refused"
    );

    let mounted = |key| [MountedPacketKey { id: "one".into(), key }];
    let (first_keys, second_keys) = (mounted(keys.first_packets), mounted(keys.second_packets));
    let intake = |payload: &[u8], share, keys: &[MountedPacketKey]| {
        drop(decide(packet(payload.to_vec()), BINS, share, keys).unwrap());
    };
    // A single packet's sum is the packet's values.
    assert_eq!(
        left_behind(&shares.first, || intake(&first, Share::First, &first_keys)),
        0,
        "First's sum"
    );
    assert_eq!(
        left_behind(&*shares.second, || intake(&second, Share::Second, &second_keys)),
        0,
        "Second's seed"
    );
    assert_eq!(
        left_behind(&expanded, || intake(&second, Share::Second, &second_keys)),
        0,
        "Second's sum"
    );

    let key = &first_keys[0].key;
    let sum = [0x0102_0304, 0x0506_0708, 0x090a_0b0c, 0x0d0e_0f10];
    let sealed = seal(key, &[1; 32], Share::First, &[2; 32], &sum);
    assert_eq!(
        left_behind(&bytes_of(&sum), || drop(seal(
            key,
            &[1; 32],
            Share::First,
            &[2; 32],
            &sum
        ))),
        0,
        "sealed"
    );
    assert_eq!(
        left_behind(&bytes_of(&sum), || drop(open(
            key,
            &[1; 32],
            Share::First,
            &[2; 32],
            &sealed
        ))),
        0,
        "opened"
    );
    assert_eq!(
        left_behind(&bytes_of(&sum), || drop(open(
            key,
            &[1; 32],
            Share::First,
            &[3; 32],
            &sealed
        ))),
        0,
        "refused"
    );
}

/// Whether a text shows bytes in any way that `Debug` and logs know.
fn shows(value: &dyn Debug, secret: &[u8]) -> bool {
    let piece = &secret[..8];
    let elements: Vec<u32> = piece
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .collect();
    let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
    let inside = |list: String| list[1..list.len() - 1].to_owned();
    let forms = [
        hex,
        inside(format!("{piece:?}")),
        inside(format!("{piece:x?}")),
        inside(format!("{elements:?}")),
        STANDARD.encode(&secret[..6]),
    ];
    [
        format!("{value:?}"),
        format!("{value:#?}").split_whitespace().collect::<Vec<_>>().join(" "),
    ]
    .iter()
    .any(|text| {
        forms
            .iter()
            .any(|form| text.to_lowercase().contains(&form.to_lowercase()))
    })
}

#[test]
fn debug_shows_no_secret() {
    let _turn = turn();
    let mut rng = StdRng::seed_from_u64(10);
    assert!(
        shows(&[1_u8, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 3, 4, 5, 6, 7, 8]),
        "what is shown is found"
    );
    // What holds wiped memory may derive `Debug` for this alone.
    let wiped = Zeroizing::new([1_u8, 2, 3, 4, 5, 6, 7, 8]);
    assert!(!shows(&wiped, &*wiped), "wiped memory");
    let keys = Keys::read();
    let scalar = STANDARD.decode(&*keys.first_packets.to_base64()).unwrap()[65..].to_vec();
    let signing = STANDARD.decode(&*keys.first.to_base64().unwrap()).unwrap();
    let at = signing.windows(2).position(|window| window == [0x04, 0x20]).unwrap() + 2;
    assert!(!shows(&keys.first_packets, &scalar), "packet key");
    assert!(!shows(&keys.first, &signing[at..]), "signing key");
    let new = [
        (NewKey::batch_signing("s-1", &mut rng), 36),
        (NewKey::packet_encryption("p-1", "a.example", &mut rng), 66),
    ];
    // Their secret halves are texts, which from these bytes on tell private ones: multiples of three, as base64 groups them.
    for (key, at) in new {
        let key = key.unwrap();
        let bytes = STANDARD.decode(key.secret()).unwrap();
        assert!(shows(&key.secret(), &bytes[at..]), "the text itself is found");
        assert!(!shows(&key, &bytes[at..]), "new key");
    }
    for version in read_versions(&originals().0).unwrap() {
        assert!(!shows(&version, version.scalar.as_slice()), "a version of the original");
    }
    let claims = format!("{:?}", ClaimKey::of(&keys.first_packets));
    assert!(
        claims.starts_with("ClaimKey { name: ") && claims.ends_with(", .. }"),
        "{claims}"
    );

    let shares = ShareSplitter::new(BINS).split(&[1; BINS as usize], &mut rng);
    // Shares of a sample have no `Debug` at all.
    let payload = encrypt(keys.first_packets.public_point(), &shares.first, &mut rng).unwrap();
    let mounted: Arc<[_]> = Arc::from(vec![MountedPacketKey {
        id: "one".into(),
        key: keys.first_packets,
    }]);
    assert!(!shows(&mounted, &scalar), "mounted keys");
    let (accumulated, _) = decide(packet(payload), BINS, Share::First, &mounted).unwrap();
    assert!(!shows(&accumulated, &shares.first), "an accumulated sum");
    assert!(!shows(&accumulated.keys, &shares.first), "a key's sum");

    for share in [Share::First, Share::Second] {
        let processor = World::new().processor(share);
        let scalar = STANDARD.decode(&*processor.packet_keys[0].key.to_base64()).unwrap()[65..].to_vec();
        let signing = STANDARD.decode(&*processor.signing_key.to_base64().unwrap()).unwrap();
        let at = signing.windows(2).position(|window| window == [0x04, 0x20]).unwrap() + 2;
        assert!(
            format!("{processor:?}").contains("PacketDecryptionKey"),
            "keys are among what is shown"
        );
        assert!(!shows(&processor, &scalar), "a processor's packet key");
        assert!(!shows(&processor, &signing[at..]), "a processor's signing key");
    }

    let splitter = ShareSplitter::new(BINS);
    let shares = splitter.split(&[1; BINS as usize], &mut rng);
    let elements = parse_first_share(&shares.first, BINS).unwrap();
    assert!(!shows(&splitter, &shares.first), "what splits");
    let query = ProofQuery::new(BINS);
    let mut buffer = query.buffer();
    // What stays in the buffer is of the proof, or folded: nothing of it may be shown.
    let _ = query.message_in(&mut buffer, &elements, 5, Share::Second);
    let shown = format!("{buffer:?}");
    assert!(!shown.contains(|c: char| c.is_ascii_digit()), "{shown}");
    assert!(!shows(&query, &shares.first), "what queries");
}

#[test]
fn errors_of_keys_quote_nothing_of_them() {
    let _turn = turn();
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA==";
    for text in [
        secret.to_owned(),
        format!("{secret}!"),
        format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----"),
    ] {
        let errors = [
            PacketDecryptionKey::parse(&text)
                .err()
                .map(|error| format!("{error} {error:?}")),
            BatchSigningKey::parse("id", &text)
                .err()
                .map(|error| format!("{error} {error:?}")),
        ];
        for error in errors {
            assert!(!error.unwrap().contains("c2Vj"), "{text}");
        }
    }
}
