//! Whole batches: what intake says of a signed header, a packet, a signature, and what is made of a peer's messages.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::{TrustedKeys, encrypt, sha256};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart, InstanceName, ValidationPart};
use facilitator_core::formats::parameters::BatchParameters;
use facilitator_core::formats::record::PacketState;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::intake::{IntakeOutcome, take_in};
use facilitator_core::peer_messages::{PeerBatch, read_validation};
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor};
use facilitator_core::proof::{PRIME, ShareSplitter, proof_length};
use mailbox::{Mailbox, MemoryMailbox};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::{Keys, decide};
use crate::{Case, case, said};

const BINS: u32 = 8;

/// First, with an ingestion mailbox to put things into.
struct Party {
    runtime: Runtime,
    ingestion: Arc<MemoryMailbox>,
    processor: Processor,
    keys: Keys,
    id: BatchId,
}

impl Party {
    fn new() -> Self {
        let (keys, own) = (Keys::read(), Keys::read());
        let mailbox = |name: &str| Arc::new(MemoryMailbox::new(name));
        let ingestion = mailbox("ingestion");
        let processor = Processor {
            instance: InstanceName::parse("us-ct").unwrap(),
            share: Share::First,
            legacy_peer: false,
            validation_format: ValidationFormat::ThreeObjects,
            min_clients: 1,
            mailboxes: Mailboxes {
                ingestion: Arc::clone(&ingestion) as Arc<dyn Mailbox>,
                peer_validation: mailbox("peer-validation"),
                ledger: mailbox("ledger"),
                peer: mailbox("peer"),
                portal: mailbox("portal"),
            },
            ingestor_keys: own.trusted.clone(),
            peer_keys: own.trusted,
            signing_key: own.first,
            other_signing_keys: Vec::new(),
            use_marks: None,
            packet_keys: Arc::from(vec![MountedPacketKey {
                id: "one".into(),
                key: own.first_packets,
            }]),
            replay_guard: Some(ReplayGuard { horizon_days: 14 }),
            reread_pause: Duration::ZERO,
            in_memory: InMemory::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let id = BatchId::parse("kittens-seen/2026/11/20/00/00/00000000-0000-0000-0000-000000000001").unwrap();
        Self {
            runtime,
            ingestion,
            processor,
            keys,
            id,
        }
    }

    fn header(&self, packets: &[u8]) -> IngestionHeader {
        IngestionHeader {
            parameters: parameters(&self.id),
            batch_start_time: 1,
            batch_end_time: 2,
            packet_file_digest: sha256(packets).to_vec(),
        }
    }

    /// What intake says of these objects; `None`: not there. Nothing may be put but a refusal.
    fn intake(&self, header: Option<&[u8]>, signature: Option<&[u8]>, packets: Option<&[u8]>) -> String {
        let parts = [
            (IngestionPart::Header, header),
            (IngestionPart::Signature, signature),
            (IngestionPart::Packets, packets),
        ];
        for (part, bytes) in parts {
            let key = self.id.ingestion_key(part);
            match bytes {
                Some(bytes) => self.ingestion.replace(&key, bytes.to_vec()),
                None => {
                    self.ingestion.remove(&key);
                }
            }
        }
        match self.runtime.block_on(take_in(&self.processor, &self.id, true)) {
            Err(error) => format!("error: {error}"),
            Ok(IntakeOutcome::Validated { .. }) => "accepted".into(),
            Ok(IntakeOutcome::Rejected { reason, message, .. }) => format!("Rejected {reason}: {message}"),
            Ok(IntakeOutcome::Blocked { reason, message, .. }) => format!("Blocked {reason}: {message}"),
        }
    }

    /// What intake says of a well signed header and these packets.
    fn signed(&self, header: &[u8], packets: &[u8]) -> String {
        let signature = BatchSignature::sign(&self.keys.ingestor, header).unwrap().write();
        self.intake(Some(header), Some(&signature), Some(packets))
    }
}

fn parameters(id: &BatchId) -> BatchParameters {
    BatchParameters {
        batch_uuid: id.uuid,
        name: id.aggregation.to_string(),
        bins: BINS.cast_signed(),
        epsilon: 0.1,
        prime: i64::from(PRIME),
        number_of_servers: 2,
        hamming_weight: None,
    }
}

fn packet(payload: Vec<u8>) -> DataSharePacket {
    DataSharePacket {
        uuid: Uuid::from_u128(9),
        encrypted_payload: payload,
        encryption_key_id: None,
        r_pit: 5,
        version_configuration: None,
        device_nonce: None,
    }
}

/// Headers that are signed well and ask for what can't be.
fn headers() -> Vec<Case> {
    type Change = fn(&mut IngestionHeader);
    let table: [(&str, &str, Change); 21] = [
        ("bins 0", "Rejected ParametersUnsupported", |h| h.parameters.bins = 0),
        ("bins -1", "Rejected ParametersUnsupported", |h| h.parameters.bins = -1),
        ("bins 2^19", "Rejected ParametersUnsupported", |h| {
            h.parameters.bins = 1 << 19
        }),
        ("bins 2^31 - 1", "Rejected ParametersUnsupported", |h| {
            h.parameters.bins = i32::MAX
        }),
        ("bins -2^31", "Rejected ParametersUnsupported", |h| {
            h.parameters.bins = i32::MIN
        }),
        ("a prime of 0", "Rejected ParametersUnsupported", |h| {
            h.parameters.prime = 0
        }),
        ("a prime of -4293918721", "Rejected ParametersUnsupported", |h| {
            h.parameters.prime = -4_293_918_721
        }),
        ("another prime", "Rejected ParametersUnsupported", |h| {
            h.parameters.prime = 65_537
        }),
        ("a prime of 2^63 - 1", "Rejected ParametersUnsupported", |h| {
            h.parameters.prime = i64::MAX
        }),
        ("three servers", "Rejected ParametersUnsupported", |h| {
            h.parameters.number_of_servers = 3
        }),
        ("no server", "Rejected ParametersUnsupported", |h| {
            h.parameters.number_of_servers = 0
        }),
        ("-2 servers", "Rejected ParametersUnsupported", |h| {
            h.parameters.number_of_servers = -2
        }),
        ("epsilon NaN", "Rejected ParametersUnsupported", |h| {
            h.parameters.epsilon = f64::NAN
        }),
        ("epsilon infinite", "Rejected ParametersUnsupported", |h| {
            h.parameters.epsilon = f64::INFINITY
        }),
        ("epsilon -infinite", "Rejected ParametersUnsupported", |h| {
            h.parameters.epsilon = f64::NEG_INFINITY
        }),
        ("another batch's UUID", "Rejected HeaderMismatch", |h| {
            h.parameters.batch_uuid = Uuid::from_u128(2)
        }),
        ("another aggregation's name", "Rejected HeaderMismatch", |h| {
            h.parameters.name = "dogs-seen".into()
        }),
        ("a name of 2 KB", "Rejected HeaderMalformed", |h| {
            h.parameters.name = "n".repeat(2_000)
        }),
        ("a name of control characters", "Rejected HeaderMismatch", |h| {
            h.parameters.name = "\u{1b}[31m\n".into()
        }),
        ("a digest of 31 bytes", "Rejected DigestMismatch", |h| {
            h.packet_file_digest.truncate(31)
        }),
        ("no digest", "Rejected DigestMismatch", |h| h.packet_file_digest.clear()),
    ];
    let in_header = |(name, expected, change): (&str, &str, Change)| {
        case(format!("a signed header with {name}"), expected, move || {
            let party = Party::new();
            let packets = DataSharePacket::write_all(&[packet(vec![4; 100])]);
            let mut header = party.header(&packets);
            change(&mut header);
            party.signed(&header.write(), &packets)
        })
    };
    table.into_iter().map(in_header).collect()
}

/// Objects that don't fit together.
fn trios() -> Vec<Case> {
    let good = || {
        let party = Party::new();
        let packets = DataSharePacket::write_all(&[packet(vec![4; 100])]);
        let header = party.header(&packets).write();
        (party, header, packets)
    };
    let signed_by = move |change: fn(&mut BatchSignature, &Party, &[u8])| {
        let (party, header, packets) = good();
        let mut signature = BatchSignature::sign(&party.keys.ingestor, &header).unwrap();
        change(&mut signature, &party, &header);
        party.intake(Some(&header), Some(&signature.write()), Some(&packets))
    };
    let invalid = "Blocked SignatureInvalid";
    type Change = fn(&mut BatchSignature, &Party, &[u8]);
    let table: [(&str, &str, Change); 14] = [
        ("by an unknown key", "Blocked SignerUnknown", |s, _, _| {
            s.key_identifier = "nobody".into()
        }),
        ("by a key of no name", "Blocked SignerUnknown", |s, _, _| {
            s.key_identifier.clear()
        }),
        ("by a key whose id is 2 KB", invalid, |s, _, _| {
            s.key_identifier = "k".repeat(2_000)
        }),
        ("by a key whose id is 900 KB", invalid, |s, _, _| {
            s.key_identifier = "k".repeat(900_000)
        }),
        ("of no bytes", invalid, |s, _, _| s.batch_header_signature.clear()),
        ("of zeros", invalid, |s, _, _| s.batch_header_signature = vec![0; 70]),
        ("of 900 KB", invalid, |s, _, _| {
            s.batch_header_signature = vec![0x30; 900_000]
        }),
        ("cut off", invalid, |s, _, _| s.batch_header_signature.truncate(20)),
        ("with a byte more", invalid, |s, _, _| s.batch_header_signature.push(0)),
        ("with r = 0", invalid, |s, _, _| {
            s.batch_header_signature = vec![0x30, 6, 2, 1, 0, 2, 1, 1]
        }),
        ("with a length of 4 GB", invalid, |s, _, _| {
            s.batch_header_signature = vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]
        }),
        ("of another header", invalid, |s, p, _| {
            s.batch_header_signature = p.keys.ingestor.sign(b"other").unwrap()
        }),
        ("by the peer, in the ingestor's name", invalid, |s, p, h| {
            s.batch_header_signature = p.keys.second.sign(h).unwrap()
        }),
        ("over the header's digest alone", invalid, |s, p, h| {
            s.batch_header_signature = p.keys.ingestor.sign(&sha256(h)).unwrap()
        }),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, expected, change)| {
            case(format!("a signature {name}"), expected, move || signed_by(change)).within_kb(8 << 10)
        })
        .collect();
    cases.extend([
        case("no header", "Blocked ObjectMissing", move || {
            let (party, header, packets) = good();
            let signature = BatchSignature::sign(&party.keys.ingestor, &header).unwrap().write();
            party.intake(None, Some(&signature), Some(&packets))
        }),
        case("no signature", "Blocked ObjectMissing", move || {
            let (party, header, packets) = good();
            party.intake(Some(&header), None, Some(&packets))
        }),
        case(
            "no packets though the header has a digest",
            "Blocked ObjectMissing",
            move || {
                let (party, header, _) = good();
                let signature = BatchSignature::sign(&party.keys.ingestor, &header).unwrap().write();
                party.intake(Some(&header), Some(&signature), None)
            },
        ),
        case("a header of 1 MiB and a byte", "Blocked SignatureInvalid", move || {
            let (party, _, packets) = good();
            party.signed(&vec![0; (1 << 20) + 1], &packets)
        })
        .within_kb(8 << 10),
        case(
            "a signature object of 1 MiB and a byte",
            "Blocked SignatureInvalid",
            move || {
                let (party, header, packets) = good();
                party.intake(Some(&header), Some(&vec![0; (1 << 20) + 1]), Some(&packets))
            },
        )
        .within_kb(8 << 10),
        case("a signature object of nonsense", invalid, move || {
            let (party, header, packets) = good();
            party.intake(Some(&header), Some(b"nonsense"), Some(&packets))
        }),
        case("signed nonsense for a header", "Rejected HeaderMalformed", move || {
            let (party, _, packets) = good();
            party.signed(b"nonsense", &packets)
        }),
        case(
            "a validation header for an ingestion header",
            "Rejected HeaderMalformed",
            move || {
                let (party, _, packets) = good();
                let header = ValidationHeader {
                    parameters: parameters(&party.id),
                    packet_file_digest: sha256(&packets).to_vec(),
                };
                party.signed(&header.write(), &packets)
            },
        ),
        case("signed nonsense for packets", "Rejected PacketsMalformed", move || {
            let party = Party::new();
            party.signed(&party.header(b"nonsense").write(), b"nonsense")
        }),
        case(
            "validation packets for ingestion packets",
            "Rejected PacketsMalformed",
            move || {
                let party = Party::new();
                let packets = ValidationPacket::write_all(&[ValidationPacket {
                    uuid: Uuid::nil(),
                    f_r: 1,
                    g_r: 1,
                    h_r: 1,
                }]);
                party.signed(&party.header(&packets).write(), &packets)
            },
        ),
        case(
            "other packets than the header's",
            "Rejected DigestMismatch",
            move || {
                let party = Party::new();
                let packets = DataSharePacket::write_all(&[packet(vec![4; 100])]);
                party.signed(&party.header(b"other").write(), &packets)
            },
        ),
        case("no packet", "Rejected Empty", move || {
            let party = Party::new();
            party.signed(&party.header(&[]).write(), &[])
        }),
    ]);
    cases
}

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

fn packets() -> Vec<Case> {
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
    i64::from(facilitator_core::proof::pow(19, u64::from(PRIME - 1) / order))
}

/// What is made of the peer's validation batch.
fn peers() -> Vec<Case> {
    let read = |party: &Party, keys: &TrustedKeys| {
        let mailbox = &*party.ingestion;
        match party
            .runtime
            .block_on(read_validation(mailbox, &party.id, Share::Second, 1, keys))
        {
            Err(error) => format!("error: {error}"),
            Ok(PeerBatch::Read { messages, .. }) => format!("accepted: {} messages", messages.len()),
            Ok(PeerBatch::Absent) => "absent".into(),
            Ok(other) => format!("bad: {other:?}"),
        }
    };
    let put = |party: &Party, packets: &[u8], change: &dyn Fn(&mut ValidationHeader, &mut BatchSignature)| {
        let mut header = ValidationHeader {
            parameters: parameters(&party.id),
            packet_file_digest: sha256(packets).to_vec(),
        };
        let mut signature = BatchSignature::sign(&party.keys.second, &header.write()).unwrap();
        change(&mut header, &mut signature);
        let key = |part| party.id.validation_key(Share::Second, part);
        party.ingestion.replace(&key(ValidationPart::Packets), packets.to_vec());
        party.ingestion.replace(&key(ValidationPart::Header), header.write());
        party
            .ingestion
            .replace(&key(ValidationPart::Signature), signature.write());
    };
    let message = |n: u128, f_r: i64| ValidationPacket {
        uuid: Uuid::from_u128(n),
        f_r,
        g_r: 1,
        h_r: 1,
    };
    let table: Vec<(&str, &str, Vec<ValidationPacket>)> = vec![
        ("an element of 2^32", "accepted: 0 messages", vec![message(1, 1 << 32)]),
        ("an element of -1", "accepted: 0 messages", vec![message(1, -1)]),
        (
            "two messages for a packet, the first unusable",
            "accepted: 0 messages",
            vec![message(1, -1), message(1, 1)],
        ),
        (
            "two messages for a packet",
            "accepted: 1 messages",
            vec![message(1, 1), message(1, 2)],
        ),
        (
            "a hundred thousand messages for one packet",
            "beyond",
            (0..100_000).map(|n| message(n, 1)).collect(),
        ),
    ];
    let mut cases = Vec::new();
    for (name, expected, packets) in table {
        let bytes = Rc::new(ValidationPacket::write_all(&packets));
        let expected = if expected == "beyond" { "too large" } else { expected };
        cases.push(
            case(format!("the peer sends {name}"), expected, move || {
                let party = Party::new();
                put(&party, &bytes, &|_, _| {});
                read(&party, &party.processor.peer_keys)
            })
            .within_kb(16 << 10),
        );
    }
    type Change = fn(&mut ValidationHeader, &mut BatchSignature);
    let changes: [(&str, &str, Change); 6] = [
        ("a header changed after signing", "bad", |header, _| {
            header.parameters.bins = 9
        }),
        ("a signature of another key", "bad", |_, signature| {
            signature.key_identifier = "first-signing-key-1".into()
        }),
        ("a signature of nobody", "bad", |_, signature| {
            signature.key_identifier = "nobody".into()
        }),
        ("packets of another digest", "bad", |header, _| {
            header.packet_file_digest[0] ^= 1
        }),
        ("an inline header that isn't signed", "bad", |_, signature| {
            signature.batch_header = Some(b"nonsense".to_vec());
            signature.packets = Some(vec![]);
        }),
        (
            "inline packets of 1 MB for a batch of one packet",
            "bad",
            |_, signature| {
                signature.batch_header = Some(vec![]);
                signature.packets = Some(vec![0; 2 << 20]);
            },
        ),
    ];
    for (name, expected, change) in changes {
        cases.push(
            case(format!("the peer sends {name}"), expected, move || {
                let party = Party::new();
                put(&party, &ValidationPacket::write_all(&[message(1, 1)]), &change);
                read(&party, &party.processor.peer_keys)
            })
            .within_kb(16 << 10),
        );
    }
    cases.push(case(
        "a store that announces 4 GB and sends nothing",
        "too large",
        || {
            let party = Party::new();
            let runtime = &party.runtime;
            let key = party.id.ingestion_key(IngestionPart::Header);
            let lying = crate::documents::Lying {
                announced: (1 << 20) + 1,
                url: party.ingestion.url().clone(),
            };
            said(runtime.block_on(lying.read(&key, 1 << 20)))
        },
    ));
    cases.push(case(
        "a store that announces 1 GB, within the limit, and sends nothing",
        "accepted",
        || {
            let party = Party::new();
            let key = party.id.ingestion_key(IngestionPart::Header);
            let lying = crate::documents::Lying {
                announced: 1 << 30,
                url: party.ingestion.url().clone(),
            };
            said(party.runtime.block_on(lying.read(&key, 4 << 30)))
        },
    ));
    cases
}

pub fn cases() -> Vec<Case> {
    [headers(), trios(), packets(), peers()].into_iter().flatten().collect()
}
