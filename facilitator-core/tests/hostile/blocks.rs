//! Blocks of Avro object containers, and containers that are cut off.

use std::io::Read;
use std::rc::Rc;

use facilitator_core::formats::avro::{Record, read_one};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::IngestionPart;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::Share;
use serde_json::json;

use crate::avro::{block, container, encoded, head, header_fields, long, packet_fields, schema};
use crate::containers::{good_schema, packets};
use crate::support::{Truth, ingestion};
use crate::{Case, case, said};

fn blocks() -> Vec<Case> {
    let good = good_schema();
    let record: Vec<u8> = packet_fields().iter().flat_map(|(_, _, value)| value.clone()).collect();
    let begin = head(&[("avro.schema", good.as_bytes())]);
    let raw = |rest: &[u8]| [begin.as_slice(), rest].concat();
    let sized = |count: i64, size: i64| raw(&[long(count), long(size)].concat());
    let early = "ends too early";
    let mut other_marker = container(&good, "null", 1, &record);
    *other_marker.last_mut().unwrap() ^= 1;
    vec![
        packets(
            "a block of 2^60 records",
            "promises more records than it has bytes",
            raw(&block(1 << 60, &record)),
        ),
        packets(
            "a block of 2^31 records",
            "promises more records than it has bytes",
            raw(&block(1 << 31, &record)),
        ),
        packets(
            "a block of -1 records",
            "a block has a negative length",
            raw(&block(-1, &record)),
        ),
        packets(
            "a block of 2^60 bytes",
            "a block is beyond the bound",
            sized(1, 1 << 60),
        ),
        packets("a block of 4 GB", "a block is beyond the bound", sized(1, 4 << 30)),
        packets("a block of -1 bytes", "a block has a negative length", sized(1, -1)),
        packets(
            "a block longer than the object",
            "a block is beyond the bound",
            sized(1, 60 << 20),
        ),
        case("a block of 60 MB that doesn't come, in a stream", early, {
            let bytes = sized(1, 60 << 20);
            move || said(DataSharePacket::stream(bytes.as_slice()).collect::<Result<Vec<_>, _>>())
        }),
        case("a block of 65 MB in a stream", "a block is beyond the bound", {
            let bytes = sized(1, 65 << 20);
            move || said(DataSharePacket::stream(bytes.as_slice()).collect::<Result<Vec<_>, _>>())
        }),
        packets(
            "a block without its marker",
            early,
            raw(&[long(1), encoded(|e| e.bytes(&record))].concat()),
        ),
        packets(
            "a block with another marker",
            "doesn't end with the container's sync marker",
            other_marker,
        ),
        packets(
            "a block with bytes after its records",
            "bytes after its last record",
            raw(&block(1, &[record.as_slice(), &[0]].concat())),
        ),
        packets(
            "a block of no records with bytes",
            "bytes after its last record",
            raw(&block(0, &record)),
        ),
        packets(
            "a block of two records with one",
            "record 1 can't be decoded",
            raw(&block(2, &record)),
        ),
        packets(
            "a record cut off",
            "record 0 can't be decoded: it promises more bytes than there are",
            raw(&block(1, &record[..20])),
        ),
        packets("a million blocks of no records", early, {
            let empty = block(0, &[]);
            raw(&[empty.repeat(1_000_000), vec![0]].concat())
        })
        // 18 MB of them, each looked at, twice.
        .within_ms(400.0),
        in_a_stream(
            "60 MB whose first packet has a negative length",
            "record 0 can't be decoded: a length is negative",
            [sized(1, 60 << 20), long(-1)].concat(),
        ),
        in_a_stream(
            "60 MB with a string that is longer",
            "record 0 can't be decoded: it promises more bytes than there are",
            [sized(1, 60 << 20), long(61 << 20)].concat(),
        ),
        in_a_stream(
            "60 MB with a list of 50 million in an unknown field",
            "record 0 can't be decoded: its lists have too many items",
            {
                let mut fields = packet_fields();
                fields.insert(0, ("more", json!({"type": "array", "items": "long"}), long(50_000_000)));
                let begin = head(&[("avro.schema", schema(&fields).as_bytes())]);
                [begin, long(1), long(60 << 20), long(50_000_000)].concat()
            },
        ),
        in_a_stream("20,000 packets with another marker", "container's sync marker", {
            let mut bytes = raw(&block(20_000, &record.repeat(20_000)));
            let marker = bytes.len() - 16;
            bytes[marker] ^= 1;
            bytes
        }),
        in_a_stream(
            "20,000 packets with bytes after them",
            "bytes after its last record",
            raw(&block(20_000, &[&record.repeat(20_000), [0].as_slice()].concat())),
        ),
        in_a_stream(
            "20,000 packets of which one has a number of 11 bytes",
            "record 15000 can't be decoded: a number is longer than 64 bits",
            {
                let fields = packet_fields().into_iter().flat_map(|(name, _, value)| match name {
                    "r_pit" => vec![0xff; 11],
                    _ => value,
                });
                let wrong: Vec<u8> = fields.collect();
                raw(&block(
                    20_000,
                    &[record.repeat(15_000), wrong, record.repeat(4_999)].concat(),
                ))
            },
        ),
        header(
            "another marker",
            "doesn't end with the container's sync marker",
            |content| {
                let mut block = block(1, content);
                let marker = block.len() - 1;
                block[marker] ^= 1;
                block
            },
        ),
        header("bytes after its record", "bytes after its last record", |content| {
            block(1, &[content, &[0]].concat())
        }),
        case("a header object of no record", "holds no record", {
            let bytes = head(&[("avro.schema", IngestionHeader::SCHEMA.as_bytes())]);
            move || said(read_one::<IngestionHeader>(&bytes))
        }),
        case("a header object of no bytes", "holds no record", || {
            said(read_one::<IngestionHeader>(&[]))
        }),
        case("a header object of a million records", "more than the one record", {
            let content: Vec<u8> = header_fields().iter().flat_map(|(_, _, value)| value.clone()).collect();
            let bytes = container(&schema(&header_fields()), "null", 1_000_000, &content.repeat(1_000_000));
            move || said(read_one::<IngestionHeader>(&bytes))
        }),
        case(
            "a header object of a million records in as many blocks",
            "more than the one record",
            {
                let content: Vec<u8> = header_fields().iter().flat_map(|(_, _, value)| value.clone()).collect();
                let begin = head(&[("avro.schema", schema(&header_fields()).as_bytes())]);
                let bytes = [begin, block(1, &content).repeat(1_000_000)].concat();
                move || said(read_one::<IngestionHeader>(&bytes))
            },
        ),
        case("a header object of two records", "more than the one record", {
            let content: Vec<u8> = header_fields().iter().flat_map(|(_, _, value)| value.clone()).collect();
            let bytes = container(&schema(&header_fields()), "null", 2, &content.repeat(2));
            move || said(read_one::<IngestionHeader>(&bytes))
        }),
    ]
}

/// A block of packets that comes as a stream, with no end to it.
fn in_a_stream(name: &str, expected: &str, bytes: Vec<u8>) -> Case {
    case(format!("a block of {name}, in a stream"), expected, move || {
        let mut packets = DataSharePacket::stream(bytes.chain(std::io::repeat(0)));
        said(packets.try_for_each(|packet| packet.map(drop)))
    })
}

/// A header object of which its one block is wrong.
fn header(name: &str, expected: &str, block: impl Fn(&[u8]) -> Vec<u8>) -> Case {
    let content: Vec<u8> = header_fields().iter().flat_map(|(_, _, value)| value.clone()).collect();
    let begin = head(&[("avro.schema", schema(&header_fields()).as_bytes())]);
    let bytes = [begin, block(&content)].concat();
    case(format!("a header object with {name}"), expected, move || {
        said(read_one::<IngestionHeader>(&bytes))
    })
}

/// The original's objects, cut at every place where something begins.
fn cuts() -> Vec<Case> {
    let id = Truth::read()[0].batch_ids().remove(0);
    let mut cases = Vec::new();
    for (name, part) in [
        ("signature", IngestionPart::Signature),
        ("header", IngestionPart::Header),
        ("packets", IngestionPart::Packets),
    ] {
        let bytes = Rc::new(ingestion(Share::First, &id, part));
        let schema = bytes.windows(11).position(|window| window == b"avro.schema").unwrap();
        let places = [
            ("in the magic", 3),
            ("after the magic", 4),
            ("in the first metadata key", 7),
            ("before the schema", schema + 11),
            ("in the schema", schema + 100),
            ("a byte before the end", bytes.len() - 1),
            ("in the last marker", bytes.len() - 8),
            ("before the last marker", bytes.len() - 16),
            ("in the last block", bytes.len() - 20),
        ];
        for (place, length) in places {
            let bytes = Rc::clone(&bytes);
            cases.push(case(
                format!("the original's {name}, cut {place}"),
                "ends too early",
                move || match part {
                    IngestionPart::Signature => said(BatchSignature::read(&bytes[..length])),
                    IngestionPart::Header => said(IngestionHeader::read(&bytes[..length])),
                    IngestionPart::Packets => {
                        said(DataSharePacket::stream(&bytes[..length]).collect::<Result<Vec<_>, _>>())
                    }
                },
            ));
        }
    }
    cases
}

pub fn cases() -> Vec<Case> {
    [blocks(), cuts()].into_iter().flatten().collect()
}
