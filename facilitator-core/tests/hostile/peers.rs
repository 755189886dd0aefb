//! The peer's validation batch, as workers of the other party read it, and stores that lie about lengths.

use std::rc::Rc;

use bytes::Bytes;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::names::{IngestionPart, ValidationPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use mailbox::Mailbox;
use uuid::Uuid;

use crate::documents::Lying;
use crate::listener::Listener;
use crate::party::Party;
use crate::support::Keys;
use crate::{Case, agreed, case, harmless, said};

type Objects = Vec<(ValidationPart, Bytes)>;

/// What the peer puts, to be changed.
struct Sent {
    header: ValidationHeader,
    /// Changed after the header was signed.
    signed: fn(&mut ValidationHeader, &mut BatchSignature),
    packets: Vec<u8>,
}

impl Sent {
    /// These packets.
    fn new(listener: &Listener, packets: Vec<u8>) -> Self {
        let mut sent = Self {
            header: ValidationHeader::read(&listener.honest(ValidationPart::Header)).unwrap(),
            signed: |_, _| {},
            packets: Vec::new(),
        };
        sent.say(packets);
        sent
    }

    /// Takes these packets, and their digest into the header.
    fn say(&mut self, packets: Vec<u8>) {
        self.header.packet_file_digest = sha256(&packets).to_vec();
        self.packets = packets;
    }

    fn three(mut self) -> Objects {
        let mut signature = BatchSignature::sign(&Keys::read().second, &self.header.write()).unwrap();
        (self.signed)(&mut self.header, &mut signature);
        vec![
            (ValidationPart::Packets, self.packets.into()),
            (ValidationPart::Header, self.header.write().into()),
            (ValidationPart::Signature, signature.write().into()),
        ]
    }

    fn one(self) -> Objects {
        let signature = BatchSignature::sign_inline(&Keys::read().second, self.header.write(), self.packets).unwrap();
        vec![(ValidationPart::Signature, signature.into_object().into())]
    }
}

/// What aggregation makes of these objects.
fn heard(listener: &Rc<Listener>, objects: Objects) -> impl Fn() -> String + use<> {
    let listener = Rc::clone(listener);
    move || {
        let heard = listener.aggregated(&objects);
        agreed(heard.and_then(|heard| listener.explained(&heard, &objects)))
    }
}

fn honest(listener: &Listener) -> Vec<ValidationPacket> {
    ValidationPacket::read_all(&listener.honest(ValidationPart::Packets)).unwrap()
}

fn messages(listener: &Rc<Listener>) -> Vec<Case> {
    let honest = honest(listener);
    let one = honest[0];
    let element = |f_r: i64| ValidationPacket { f_r, ..one };
    let wrong = element(one.f_r ^ 1);
    let stranger = ValidationPacket {
        uuid: Uuid::nil(),
        ..one
    };
    let sent = |packets: &[ValidationPacket]| {
        let packets = ValidationPacket::write_all(packets);
        heard(listener, Sent::new(listener, packets).three())
    };
    // In place of the first packet's message.
    let first = |packets: &[ValidationPacket]| sent(&[packets, &honest[1..]].concat());
    let reversed: Vec<_> = honest.iter().rev().copied().collect();
    let all = "accepted: 3 of 3 packets have a message, 3 count";
    let two = "accepted: 2 of 3 packets have a message, 2 count";
    let one_wrong = "accepted: 3 of 3 packets have a message, 2 count";
    vec![
        harmless("the peer sends an element of 2^32", two, first(&[element(1 << 32)])),
        harmless("the peer sends an element of -1", two, first(&[element(-1)])),
        harmless("the peer sends no message for a packet", two, first(&[])),
        harmless(
            "the peer sends two messages for a packet, the first unusable",
            two,
            first(&[element(-1), one]),
        ),
        harmless(
            "the peer sends two messages for a packet, the first wrong",
            one_wrong,
            first(&[wrong, one]),
        ),
        harmless("the peer sends two messages for a packet", all, first(&[one, wrong])),
        harmless(
            "the peer sends a message for a packet that isn't there",
            all,
            first(&[stranger, one]),
        ),
        harmless("the peer sends its messages from last to first", all, sent(&reversed)),
        case(
            "the peer sends a hundred thousand messages for one packet",
            "too large",
            sent(&vec![one; 100_000]),
        ),
    ]
}

/// Single objects.
fn inline_batches() -> Vec<Case> {
    const PACKETS: usize = 500;
    let listener = Rc::new(Listener::new(PACKETS));
    let sent = |packets| heard(&listener, Sent::new(&listener, packets).one());
    let beyond = |bytes: usize| sent(vec![7; (1 << 20) + bytes * PACKETS]);
    let longest = |packet: ValidationPacket| ValidationPacket {
        f_r: u32::MAX.into(),
        g_r: u32::MAX.into(),
        h_r: u32::MAX.into(),
        ..packet
    };
    let longest: Vec<_> = honest(&listener).into_iter().map(longest).collect();
    vec![
        case(
            "the peer sends inline packets of 1 MiB and 97 bytes for each packet",
            "too large",
            beyond(97),
        ),
        case(
            "the peer sends inline packets of 1 MiB and 200 bytes for each packet",
            "too large",
            beyond(200),
        ),
        harmless(
            "the peer sends every message inline, each as long as they can be",
            "accepted: 500 of 500 packets have a message, 0 count",
            sent(ValidationPacket::write_all(&longest)),
        ),
    ]
}

fn batches(listener: &Rc<Listener>) -> Vec<Case> {
    type Change = fn(&mut Sent);
    let of_header = "PeerBad: the signature isn't one of these header bytes by key";
    let table: [(&str, &str, Change); 12] = [
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
            "SignerUnknown: the batch is signed with key \"nobody\"",
            |sent| sent.signed = |_, signature| signature.key_identifier = "nobody".into(),
        ),
        (
            "a header of another batch",
            "PeerBad: it is of another batch or shape, by its batch_uuid",
            |sent| sent.header.parameters.batch_uuid = Uuid::nil(),
        ),
        (
            "a header of other bins",
            "PeerBad: it is of another batch or shape, by its bins",
            |sent| sent.header.parameters.bins = 9,
        ),
        (
            "other packets than the signed header's",
            "PeerBad: the packet object's SHA-256 is",
            |sent| sent.header.packet_file_digest[0] ^= 1,
        ),
        ("a signed header without a digest", "the signed header says", |sent| {
            sent.header.packet_file_digest.clear()
        }),
        (
            "packets that are none, as their header says",
            "PeerBad: the packet object is malformed",
            |sent| sent.say(b"nonsense".to_vec()),
        ),
        ("packets cut off, as their header says", "ends too early", |sent| {
            sent.say(sent.packets[..sent.packets.len() - 20].to_vec());
        }),
        ("an inline header that isn't signed", of_header, |sent| {
            sent.signed = |_, signature| {
                signature.batch_header = Some(b"nonsense".to_vec());
                signature.packets = Some(vec![]);
            };
        }),
        (
            "inline packets of 1 MiB for a batch of three packets",
            "too large",
            |sent| {
                sent.signed = |header, signature| {
                    signature.batch_header = Some(header.write());
                    signature.packets = Some(vec![0; 1 << 20]);
                };
            },
        ),
    ];
    let changed = |(name, expected, change): (&str, &str, Change)| {
        let mut sent = Sent::new(listener, listener.honest(ValidationPart::Packets).to_vec());
        change(&mut sent);
        case(
            format!("the peer sends {name}"),
            expected,
            heard(listener, sent.three()),
        )
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
    let listener = Rc::new(Listener::new(3));
    [messages(&listener), batches(&listener), inline_batches(), stores()]
        .into_iter()
        .flatten()
        .collect()
}
