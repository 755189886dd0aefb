//! Avro object containers: frames, metadata, schemas and codecs.

use facilitator_core::formats::avro::read_one;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use serde_json::json;

use crate::avro::{
    UUID, block, container, encoded, head, header_fields, long, one_of, packet_fields, read, schema, text,
};
use crate::{Case, case, said};

pub fn packets(name: &str, expected: &str, bytes: Vec<u8>) -> Case {
    case(name, expected, move || read::<DataSharePacket>(&bytes))
}

pub fn good_schema() -> String {
    schema(&packet_fields())
}

fn of_schema(name: &str, expected: &str, schema: &str) -> Case {
    packets(name, expected, container(schema, "null", 1, &[0; 64]))
}

/// A schema with one more field of this type.
fn with_field(name: &str, expected: &str, kind: serde_json::Value) -> Case {
    let mut fields = packet_fields();
    fields.push(("extra", kind, Vec::new()));
    packets(name, expected, one_of(&fields))
}

fn metadata() -> Vec<Case> {
    let begin = |rest: &[u8]| [b"Obj\x01".as_slice(), rest].concat();
    let entry = |length: i64| begin(&[long(1), long(length)].concat());
    let value = |length: i64| begin(&[long(1), encoded(|e| e.bytes(b"k")), long(length)].concat());
    let early = "ends too early";
    let many_empty = begin(&[long(1 << 20), vec![0; 2 << 20]].concat());
    let many: Vec<u8> = (0..10_000)
        .flat_map(|_| {
            encoded(|e| {
                e.bytes(b"key");
                e.bytes(b"value")
            })
        })
        .collect();
    let blocks: Vec<u8> = (0..100_000).flat_map(|_| [long(1), vec![0, 0]].concat()).collect();
    let metadata = "the container's metadata is beyond the bound";
    let schema = good_schema();
    vec![
        packets("another magic", "doesn't begin with `Obj1`", b"PAR1 and more".to_vec()),
        packets(
            "version 2 of the container",
            "doesn't begin with `Obj1`",
            b"Obj\x02 and more".to_vec(),
        ),
        packets("a ZIP archive", "doesn't begin with `Obj1`", b"PK\x03\x04....".to_vec()),
        packets("the magic alone", early, b"Obj\x01".to_vec()),
        packets("half the magic", early, b"Ob".to_vec()),
        packets("2^60 metadata entries", early, begin(&long(1 << 60))),
        packets(
            "-2^63 metadata entries",
            early,
            begin(&[long(i64::MIN), long(5)].concat()),
        ),
        packets("a count of 11 bytes", "longer than 64 bits", begin(&[0xff; 11])),
        packets("a metadata key of -1 bytes", "negative length", entry(-1)),
        packets("a metadata key of 4 GB", metadata, entry(4 << 30)),
        packets("a metadata value of 2^60 bytes", metadata, value(1 << 60)),
        packets("a metadata value of 60 KB that doesn't come", early, value(60_000)),
        packets("a million empty metadata entries", metadata, many_empty),
        packets(
            "ten thousand metadata entries",
            metadata,
            begin(&[long(10_000), many].concat()),
        ),
        packets("a hundred thousand metadata blocks", metadata, begin(&blocks)),
        packets(
            "a metadata key that isn't UTF-8",
            "a key that isn't UTF-8",
            begin(&[long(1), encoded(|e| e.bytes(&[0xff; 4])), encoded(|e| e.bytes(b"v"))].concat()),
        ),
        packets("no schema", "it holds no schema", head(&[("avro.codec", b"null")])),
        packets(
            "no end of the metadata",
            early,
            head(&[("avro.schema", schema.as_bytes())])[..300].to_vec(),
        ),
    ]
}

fn schemas() -> Vec<Case> {
    let list = |items: serde_json::Value| json!({"type": "array", "items": items});
    let no_json = "Failed to parse schema from JSON";
    let not_read = "lists of this type aren't read here";
    let many: Vec<_> = (0..65)
        .map(|n| json!({"name": format!("f{n}"), "type": "null"}))
        .collect();
    let most: Vec<_> = (0..20_000)
        .map(|n| json!({"name": format!("f{n}"), "type": "null"}))
        .collect();
    let record = |fields: serde_json::Value| json!({"type": "record", "name": "R", "fields": fields}).to_string();
    let nested = |depth: usize| {
        let inner = (0..depth).fold(
            json!("long"),
            |inner, n| json!({"type": "record", "name": format!("R{n}"), "fields": [{"name": "a", "type": inner}]}),
        );
        inner.to_string()
    };
    let recursive = json!([{"name": "next", "type": ["null", "R"]}]);
    let symbol = "S".repeat(30_000);
    vec![
        packets(
            "a schema that isn't UTF-8",
            "invalid utf-8 sequence",
            [head(&[("avro.schema", &[0xff, 0xfe])]), block(1, &[0])].concat(),
        ),
        of_schema("a schema that isn't JSON", no_json, "{"),
        of_schema("an empty schema", no_json, ""),
        of_schema("null for a schema", "Must be a JSON string, object or array", "null"),
        of_schema(
            "a schema of an unknown type",
            "Unknown primitive type: money",
            r#""money""#,
        ),
        of_schema("a schema of 20,000 opening brackets", no_json, &"[".repeat(20_000)),
        of_schema(
            "types in types, 5,000 deep",
            no_json,
            &format!("{}\"long\"{}", r#"{"type":"#.repeat(5_000), "}".repeat(5_000)),
        ),
        of_schema(
            "types in types, 10,000 deep",
            "the container's metadata is beyond the bound",
            &format!("{}\"long\"{}", r#"{"type":"#.repeat(10_000), "}".repeat(10_000)),
        ),
        of_schema(
            "records in records, 30 deep",
            "the field \"uuid\" is missing",
            &nested(30),
        ),
        of_schema("records in records, 100 deep", no_json, &nested(100)),
        of_schema("a string for a record", "it is no record", r#""string""#),
        of_schema(
            "a list for a record",
            "it is no record",
            &list(json!("long")).to_string(),
        ),
        of_schema("a union for a record", "it is no record", r#"["null","long"]"#),
        of_schema(
            "a record of no name",
            "No `name` field",
            r#"{"type":"record","fields":[]}"#,
        ),
        of_schema(
            "a record of no fields",
            "the field \"uuid\" is missing",
            &record(json!([])),
        ),
        of_schema(
            "two fields of one name",
            "Duplicate field name a",
            &record(json!([{"name": "a", "type": "long"}, {"name": "a", "type": "long"}])),
        ),
        of_schema(
            "a record that holds itself",
            "types that refer to other types",
            &record(recursive),
        ),
        of_schema("65 fields of no bytes", "more than 64 fields", &record(json!(many))),
        of_schema(
            "20,000 fields",
            "the container's metadata is beyond the bound",
            &record(json!(most)),
        ),
        with_field(
            "a map",
            "maps aren't read here",
            json!({"type": "map", "values": "long"}),
        ),
        with_field(
            "fixed bytes of 1 GB",
            "fixed bytes are longer than",
            json!({"type": "fixed", "name": "F", "size": 1_u64 << 30}),
        ),
        with_field(
            "fixed bytes of 2^63",
            "fixed bytes are longer than",
            json!({"type": "fixed", "name": "F", "size": u64::MAX}),
        ),
        with_field("a list of nulls", not_read, list(json!("null"))),
        with_field("a list of lists", not_read, list(list(json!("long")))),
        with_field(
            "a list of records",
            not_read,
            list(json!({"type": "record", "name": "E", "fields": []})),
        ),
        with_field(
            "a list of fixed bytes of no length",
            not_read,
            list(json!({"type": "fixed", "name": "F", "size": 0})),
        ),
        with_field(
            "a list of symbols of 30,000 bytes",
            not_read,
            list(json!({"type": "enum", "name": "E", "symbols": [symbol]})),
        ),
        with_field("a list of unions", not_read, list(json!(["null", "long"]))),
        with_field(
            "a decimal",
            "decimals and durations",
            json!({"type": "bytes", "logicalType": "decimal", "precision": 4}),
        ),
        with_field(
            "a decimal of any scale",
            "decimals and durations",
            json!({"type": "bytes", "logicalType": "big-decimal"}),
        ),
        with_field(
            "a duration",
            "decimals and durations",
            json!({"type": {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}}),
        ),
        with_field(
            "a union in which one type comes twice",
            "Unions cannot contain duplicate types",
            json!(["long", "long"]),
        ),
        case("times in microseconds", "times are in milliseconds here", || {
            let mut fields = header_fields();
            fields[8].1 = json!({"type": "long", "logicalType": "timestamp-micros"});
            let text = schema(&fields).replace(
                r#"{"logicalType":"timestamp-micros","type":"long"}"#,
                r#""long","logicalType":"timestamp-micros""#,
            );
            said(read_one::<IngestionHeader>(&container(&text, "null", 1, &[0; 64])))
        }),
    ]
}

fn codecs() -> Vec<Case> {
    let schema = good_schema();
    let of = |codec: &str, count: i64, content: &[u8]| container(&schema, codec, count, content);
    let mut cases: Vec<Case> = ["zstandard", "bzip2", "xz", "lz4", "NULL", "", "deflate "]
        .into_iter()
        .map(|codec| packets(&format!("codec {codec:?}"), "isn't read here", of(codec, 1, &[0])))
        .collect();
    let zeros = miniz_oxide::deflate::compress_to_vec(&vec![0; 64 << 20], 9);
    let small = miniz_oxide::deflate::compress_to_vec(&vec![0; 40 << 20], 9);
    let garbage: Vec<u8> = (0..200_u8).rev().collect();
    let snappy = |length: u64, rest: &[u8]| {
        let mut bytes = Vec::new();
        let mut left = length;
        while left > 0x7f {
            bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes.extend_from_slice(rest);
        bytes
    };
    let good: Vec<u8> = packet_fields().into_iter().flat_map(|(_, _, value)| value).collect();
    let deflated = |content: &[u8]| miniz_oxide::deflate::compress_to_vec(content, 9);
    let mut fields = packet_fields();
    fields[1].2 = encoded(|e| e.bytes(&[0; 1000]));
    let large: Vec<u8> = fields.into_iter().flat_map(|(_, _, value)| value).collect();
    let again_and_again = deflated(&large.repeat(40_000));
    let mut long_payload = [text(UUID), long(12 << 20)].concat();
    long_payload.resize(13 << 20, 0);
    let bomb = "a decompressed block is beyond the bound";
    let wrong = "can't be decompressed";
    cases.extend([
        packets(
            "a deflated block of 64 MB of zeros",
            "holds no UUID",
            of("deflate", 1, &zeros),
        )
        .within_kb(8 << 10),
        packets(
            "a deflated block of 40 MB of zeros",
            "holds no UUID",
            of("deflate", 1, &small),
        )
        .within_kb(8 << 10),
        packets(
            "a deflated block of the same packet 40,000 times",
            bomb,
            of("deflate", 40_000, &again_and_again),
        )
        .within_kb(8 << 10),
        packets(
            "a deflated payload of 12 MB of zeros",
            bomb,
            of("deflate", 1, &deflated(&long_payload)),
        )
        .within_kb(8 << 10),
        packets(
            "a deflated block that points before its beginning",
            wrong,
            // Fixed codes, and at once three bytes from one byte back.
            of("deflate", 1, &[0x03, 0x02, 0x00]),
        ),
        packets(
            "a deflated block that goes on after its record",
            "bytes after its last record",
            of("deflate", 1, &deflated(&[&good, good.as_slice()].concat())),
        ),
        packets(
            "a deflated block that ends in its record",
            "ends too early",
            of("deflate", 1, &deflated(&good[..good.len() - 1])),
        ),
        packets(
            "a deflated block of fewer records than it says",
            "ends too early",
            of("deflate", 2, &deflated(&good)),
        ),
        packets("a deflated block of garbage", wrong, of("deflate", 1, &garbage)),
        packets(
            "half a deflated block",
            wrong,
            of("deflate", 1, &deflated(&large)[..40]),
        ),
        packets("a deflated block of no bytes", wrong, of("deflate", 1, &[])),
        packets(
            "a snappy block of 4 GB",
            bomb,
            of("snappy", 1, &snappy(u64::from(u32::MAX), &[0; 8])),
        ),
        packets(
            "17 MB of snappy that are there",
            "a block of codec snappy is beyond the bound",
            of("snappy", 1, &snappy(17 << 20, &vec![0; 17 << 20])),
        ),
        packets(
            "a snappy block of 60 MB",
            bomb,
            of("snappy", 1, &snappy(60 << 20, &[0; 8])),
        ),
        packets(
            "a snappy block of more bytes than it says",
            wrong,
            of("snappy", 1, &snappy(1, &[0x0c, 1, 2, 3, 4, 0, 0, 0, 0])),
        ),
        packets(
            "a snappy block with another checksum",
            wrong,
            of("snappy", 1, &snappy(1, &[0, 9, 1, 2, 3, 4])),
        ),
        packets("a snappy block of three bytes", wrong, of("snappy", 1, &[1, 2, 3])),
        packets("a snappy block of no bytes", wrong, of("snappy", 1, &[])),
        packets("a snappy length that doesn't end", wrong, of("snappy", 1, &[0xff; 30])),
    ]);
    cases
}

pub fn cases() -> Vec<Case> {
    [metadata(), schemas(), codecs()].into_iter().flatten().collect()
}
