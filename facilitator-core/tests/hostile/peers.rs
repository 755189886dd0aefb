//! The peer's validation batch, and stores that lie about lengths.

use std::rc::Rc;

use facilitator_core::crypto::sha256;
use facilitator_core::formats::names::{IngestionPart, ValidationPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use facilitator_core::peer_messages::{PeerBatch, read_validation};
use mailbox::Mailbox;
use uuid::Uuid;

use crate::documents::Lying;
use crate::party::{Party, parameters};
use crate::{Case, case, harmless, said};

fn message(n: u128, f_r: i64) -> ValidationPacket {
    ValidationPacket {
        uuid: Uuid::from_u128(n),
        f_r,
        g_r: 1,
        h_r: 1,
    }
}

/// What is made of the peer's messages of a batch of one packet.
fn read(party: &Party) -> String {
    read_of(party, 1)
}

/// What is made of the peer's messages of a batch of so many packets.
fn read_of(party: &Party, packets: usize) -> String {
    let (mailbox, keys) = (&*party.ingestion, &party.processor.peer_keys);
    let read = read_validation(mailbox, &party.id, Share::Second, packets, keys);
    match party.runtime.block_on(read) {
        Err(error) => format!("error: {error}"),
        Ok(PeerBatch::Read { messages, .. }) => format!("accepted: {} messages", messages.len()),
        Ok(PeerBatch::Absent) => "absent".into(),
        Ok(PeerBatch::SignerUnknown { detail }) => format!("signer unknown: {detail}"),
        Ok(PeerBatch::Bad { detail }) => format!("bad: {detail}"),
    }
}

/// What the peer puts, to be changed.
struct Sent {
    header: ValidationHeader,
    /// Changed after the header was signed.
    signed: fn(&mut ValidationHeader, &mut BatchSignature),
    packets: Rc<Vec<u8>>,
}

impl Sent {
    fn new(party: &Party, packets: &Rc<Vec<u8>>) -> Self {
        Self {
            header: ValidationHeader {
                parameters: parameters(&party.id),
                packet_file_digest: sha256(packets).to_vec(),
            },
            signed: |_, _| {},
            packets: Rc::clone(packets),
        }
    }

    fn put(mut self, party: &Party) {
        let mut signature = BatchSignature::sign(&party.keys.second, &self.header.write()).unwrap();
        (self.signed)(&mut self.header, &mut signature);
        let put = |part, bytes: Vec<u8>| {
            party
                .ingestion
                .replace(&party.id.validation_key(Share::Second, part), bytes);
        };
        put(ValidationPart::Packets, self.packets.to_vec());
        put(ValidationPart::Header, self.header.write());
        put(ValidationPart::Signature, signature.write());
    }
}

fn messages() -> Vec<Case> {
    let sent = |packets: Vec<ValidationPacket>| {
        let bytes = Rc::new(ValidationPacket::write_all(&packets));
        move || {
            let party = Party::new();
            Sent::new(&party, &bytes).put(&party);
            read(&party)
        }
    };
    vec![
        harmless(
            "the peer sends an element of 2^32",
            "accepted: 0 messages",
            sent(vec![message(1, 1 << 32)]),
        ),
        harmless(
            "the peer sends an element of -1",
            "accepted: 0 messages",
            sent(vec![message(1, -1)]),
        ),
        harmless(
            "the peer sends two messages for a packet, the first unusable",
            "accepted: 0 messages",
            sent(vec![message(1, -1), message(1, 1)]),
        ),
        harmless(
            "the peer sends two messages for a packet",
            "accepted: 1 messages",
            sent(vec![message(1, 1), message(1, 2)]),
        ),
        case(
            "the peer sends a hundred thousand messages for one packet",
            "too large",
            sent((0..100_000).map(|n| message(n, 1)).collect()),
        )
        .within_kb(16 << 10),
    ]
}

/// A single object, in which so many bytes more than 1 MiB come inline for each of a batch's packets.
fn inline(bytes: usize) -> String {
    const PACKETS: usize = 20_000;
    let party = Party::new();
    let sent = Sent::new(&party, &Rc::new(vec![7; (1 << 20) + bytes * PACKETS]));
    let (header, packets) = (sent.header.write(), sent.packets.to_vec());
    let signature = BatchSignature::sign_inline(&party.keys.second, header, packets).unwrap();
    let key = party.id.validation_key(Share::Second, ValidationPart::Signature);
    party.ingestion.replace(&key, signature.into_object());
    read_of(&party, PACKETS)
}

fn inline_batches() -> Vec<Case> {
    // What the test itself makes of the object is in the bound as well.
    const KB: usize = 10 << 10;
    let messages = |party: &Party, count: u32| {
        let longest = |n: u32| ValidationPacket {
            g_r: u32::MAX.into(),
            h_r: u32::MAX.into(),
            ..message(n.into(), u32::MAX.into())
        };
        let all: Vec<_> = (0..count).map(longest).collect();
        let packets = Rc::new(ValidationPacket::write_all(&all));
        let header = Sent::new(party, &packets).header.write();
        let signature = BatchSignature::sign_inline(&party.keys.second, header, packets.to_vec()).unwrap();
        let key = party.id.validation_key(Share::Second, ValidationPart::Signature);
        party.ingestion.replace(&key, signature.into_object());
        read_of(party, 2_000)
    };
    vec![
        case(
            "the peer sends inline packets of 1 MiB and 97 bytes for each packet",
            "too large",
            || inline(97),
        )
        .within_kb(KB),
        case(
            "the peer sends inline packets of 1 MiB and 200 bytes for each packet",
            "too large",
            || inline(200),
        )
        .within_kb(2 * KB),
        harmless(
            "the peer sends every message inline, each as long as they can be",
            "accepted: 2000 messages",
            move || messages(&Party::new(), 2_000),
        ),
    ]
}

fn batches() -> Vec<Case> {
    type Change = fn(&mut Sent);
    let of_header = "the signature isn't one of these header bytes by key";
    let table: [(&str, &str, Change); 8] = [
        ("a header changed after signing", of_header, |sent| {
            sent.signed = |header, _| header.parameters.bins = 9;
        }),
        ("a digest changed after signing", of_header, |sent| {
            sent.signed = |header, _| header.packet_file_digest[0] ^= 1;
        }),
        (
            "a signature in another's name",
            "by key \"first-signing-key-1\"",
            |sent| sent.signed = |_, signature| signature.key_identifier = "first-signing-key-1".into(),
        ),
        (
            "a signature of nobody",
            "signer unknown: the batch is signed with key \"nobody\"",
            |sent| sent.signed = |_, signature| signature.key_identifier = "nobody".into(),
        ),
        (
            "other packets than the signed header's",
            "bad: the packet object's SHA-256 is",
            |sent| sent.header.packet_file_digest[0] ^= 1,
        ),
        ("a signed header without a digest", "the signed header says", |sent| {
            sent.header.packet_file_digest.clear()
        }),
        ("an inline header that isn't signed", of_header, |sent| {
            sent.signed = |_, signature| {
                signature.batch_header = Some(b"nonsense".to_vec());
                signature.packets = Some(vec![]);
            };
        }),
        (
            "inline packets of 1 MiB for a batch of one packet",
            "too large",
            |sent| {
                sent.signed = |header, signature| {
                    signature.batch_header = Some(header.write());
                    signature.packets = Some(vec![0; 1 << 20]);
                };
            },
        ),
    ];
    let packets = Rc::new(ValidationPacket::write_all(&[message(1, 1)]));
    let changed = |(name, expected, change): (&str, &str, Change)| {
        let packets = Rc::clone(&packets);
        let run = move || {
            let party = Party::new();
            let mut sent = Sent::new(&party, &packets);
            change(&mut sent);
            sent.put(&party);
            read(&party)
        };
        case(format!("the peer sends {name}"), expected, run).within_kb(6 << 10)
    };
    table.into_iter().map(changed).collect()
}

fn stores() -> Vec<Case> {
    let announced = |announced: u64, limit: u64| {
        move || {
            let party = Party::new();
            let lying = Lying {
                announced,
                url: party.ingestion.url().clone(),
            };
            let key = party.id.ingestion_key(IngestionPart::Header);
            said(party.runtime.block_on(lying.read(&key, limit)))
        }
    };
    vec![
        case(
            "a store that announces 4 GB, of an object of at most 1 MiB",
            "too large",
            announced(4 << 30, 1 << 20),
        ),
        case(
            "a store that announces a byte too many",
            "too large",
            announced((1 << 20) + 1, 1 << 20),
        ),
        harmless(
            "a store that announces 1 GB, within the limit, and sends nothing",
            "accepted",
            announced(1 << 30, 4 << 30),
        ),
    ]
}

pub fn cases() -> Vec<Case> {
    [messages(), batches(), inline_batches(), stores()]
        .into_iter()
        .flatten()
        .collect()
}
