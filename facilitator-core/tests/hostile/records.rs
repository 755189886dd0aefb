//! Records: a binary form, with lengths that can lie.

use facilitator_core::crypto::seal::sealed_length;
use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::record::{Message, PacketState, Record, RecordHead, RecordPacket, RecordPlain};
use facilitator_core::formats::work::{Share, ValidationFormat};
use uuid::Uuid;

use crate::support::Keys;
use crate::{Case, case, said};

fn record() -> Record {
    let state = PacketState::In {
        key: 0,
        message: Message { f: 1, g: 2, h: 3 },
    };
    Record {
        plain: RecordPlain {
            head: RecordHead {
                instance: "us-ct".into(),
                share: Share::First,
                batch: BatchId::parse("kittens-seen/2026/11/20/00/45/5a3da7c8-bf33-45d0-bfc6-7ef267c821f2").unwrap(),
                name: "kittens-seen".into(),
                bins: 2,
                epsilon: 0.23,
                prime: 4_293_918_721,
                number_of_servers: 2,
                hamming_weight: None,
                batch_start_time: 1,
                batch_end_time: 2,
                header_digest: [3; 32],
                packet_digest: [4; 32],
                validation_format: ValidationFormat::ThreeObjects,
                signer: "key".into(),
            },
            packet_keys: vec![[4; 65]],
            packets: vec![RecordPacket {
                uuid: Uuid::from_u128(7),
                state,
            }],
        },
        sealed: vec![vec![8; sealed_length(2)]],
    }
}

/// Where a field of the plain part begins, in the record of [`record`].
fn place(of: &str) -> usize {
    let (instance, aggregation, time, name) = (5, 12, 16, 12);
    let fields = [
        ("magic", 8),
        ("revision", 4),
        ("instance", 4 + instance),
        ("share", 1),
        ("aggregation", 4 + aggregation),
        ("time", 4 + time),
        ("batch uuid", 16),
        ("name", 4 + name),
        ("bins", 4),
        ("epsilon", 8),
        ("prime", 8),
        ("servers", 4),
        ("weight there", 1),
        ("weight", 4),
        ("start", 8),
        ("end", 8),
        ("header digest", 32),
        ("packet digest", 32),
        ("format", 1),
        ("signer", 4 + 3),
        ("packet state", 1),
        ("packet uuid", 16),
        ("packet key", 1),
        ("message", 12),
        ("end of packets", 1),
        ("keys", 4),
        ("key", 65),
        ("sealed parts", 4),
        ("sealed length", 4),
    ];
    fields
        .iter()
        .take_while(|(name, _)| *name != of)
        .map(|(_, length)| length)
        .sum()
}

/// A record with other bytes at a field.
fn with(name: &str, expected: &str, field: &str, bytes: &[u8]) -> Case {
    let mut record = record().encode();
    record[place(field)..place(field) + bytes.len()].copy_from_slice(bytes);
    case(format!("a record {name}"), expected, move || {
        said(Record::decode(&record))
    })
}

pub fn cases() -> Vec<Case> {
    assert_eq!(Record::decode(&record().encode()).unwrap(), record());
    let bytes = record().encode();
    let cut = |name: &str, expected: &str, length: usize| {
        let bytes = bytes[..length].to_vec();
        case(format!("a record {name}"), expected, move || {
            said(Record::decode(&bytes))
        })
    };
    let all = u32::MAX.to_le_bytes();
    let mut cases = vec![
        cut("of no bytes", "not a record", 0),
        cut("of half its mark", "not a record", 4),
        cut("of its mark alone", "ends before its revision", 8),
        cut("cut in its head", "ends before its name", place("name") + 5),
        cut("cut in a packet", "ends before its packets", place("message")),
        cut(
            "without the end of its packets",
            "ends before its packets",
            place("end of packets"),
        ),
        cut("without its packet keys", "ends before its packet keys", place("keys")),
        cut(
            "without its sealed parts",
            "ends before its sealed parts",
            place("sealed parts"),
        ),
        cut("cut in a sealed part", "ends before its sealed parts", bytes.len() - 1),
        with("of another mark", "not a record", "magic", b"PRIOREC2"),
        with("of a later revision", "has revision 2", "revision", &[2]),
        with(
            "whose instance has 2^32 - 1 bytes",
            "instance is out of bounds",
            "instance",
            &all,
        ),
        with(
            "whose instance has 1 MB that don't come",
            "ends before its instance",
            "instance",
            &(1_u32 << 20).to_le_bytes(),
        ),
        with(
            "whose instance isn't UTF-8",
            "instance is out of bounds",
            "instance",
            &[5, 0, 0, 0, 0xff],
        ),
        with("of a third share", "share is out of bounds", "share", &[2]),
        with(
            "of an aggregation with a slash",
            "aggregation is out of bounds",
            "aggregation",
            &[12, 0, 0, 0, b'/'],
        ),
        with("of month 99", "time is out of bounds", "time", b"\x10\0\0\x002026/99"),
        with("of no bins", "bins is out of bounds", "bins", &[0; 4]),
        with(
            "of 2^19 bins",
            "bins is out of bounds",
            "bins",
            &(1_u32 << 19).to_le_bytes(),
        ),
        with("of 2^32 - 1 bins", "bins is out of bounds", "bins", &all),
        with(
            "of 2^19 - 1 bins with two sealed",
            "sealed part's length is out of bounds",
            "bins",
            &((1_u32 << 19) - 1).to_le_bytes(),
        ),
        with(
            "with a weight that is there twice",
            "Hamming weight is out of bounds",
            "weight there",
            &[2],
        ),
        with(
            "with a weight that isn't there and is 1",
            "Hamming weight is out of bounds",
            "weight",
            &[1],
        ),
        with(
            "of a third validation format",
            "validation format is out of bounds",
            "format",
            &[2],
        ),
        with(
            "whose signer has 2^32 - 1 bytes",
            "signer is out of bounds",
            "signer",
            &all,
        ),
        with("of 2^32 - 1 keys", "packet keys is out of bounds", "keys", &all),
        with(
            "of 255 keys that don't come",
            "ends before its packet keys",
            "keys",
            &255_u32.to_le_bytes(),
        ),
        with(
            "whose packets end before the first",
            "goes on after its end",
            "packet state",
            &[255],
        ),
        with(
            "whose packets don't end",
            "ends before its packets",
            "end of packets",
            &[0],
        ),
        with(
            "of fewer keys than its packets name",
            "packet's key is out of bounds",
            "keys",
            &[0; 4],
        ),
        with(
            "with a packet of state 9",
            "packet's state is out of bounds",
            "packet state",
            &[9],
        ),
        with(
            "with a packet of state 254",
            "packet's state is out of bounds",
            "packet state",
            &[254],
        ),
        with(
            "with a packet of key 1 of one",
            "packet's key is out of bounds",
            "packet key",
            &[1],
        ),
        with(
            "of 2^32 - 1 sealed parts",
            "number of sealed parts is out of bounds",
            "sealed parts",
            &all,
        ),
        with(
            "of no sealed parts with one",
            "number of sealed parts is out of bounds",
            "sealed parts",
            &[0; 4],
        ),
        with(
            "with a sealed part of 2^32 - 1 bytes",
            "sealed part's length is out of bounds",
            "sealed length",
            &all,
        ),
        with(
            "with a sealed part of a byte less",
            "sealed part's length is out of bounds",
            "sealed length",
            &[23],
        ),
    ];
    let longer = [bytes.as_slice(), &[0]].concat();
    cases.push(case(
        "a record with a byte after its end",
        "goes on after its end",
        move || said(Record::decode(&longer)),
    ));
    let refused = "can't be opened";
    for (name, sealed) in [
        ("of no bytes", vec![]),
        ("of 15 bytes", vec![0; 15]),
        ("of zeros", vec![0; 24]),
    ] {
        cases.push(case(format!("a sealed part {name}"), refused, move || {
            let keys = Keys::read();
            said(facilitator_core::crypto::open(
                &keys.first_packets,
                &[0; 32],
                Share::First,
                &[0; 32],
                &sealed,
            ))
        }));
    }
    cases
}
