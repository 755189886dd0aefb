//! What we write is frozen, and read by others; what others write is read with the tolerance of `docs/formats.md` §2.
#![allow(clippy::unwrap_used)]

mod support;

use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings, Reader, Schema, Writer};
use facilitator_core::crypto::sha256;
use facilitator_core::formats::FormatError;
use facilitator_core::formats::avro::{
    BLOCK_RECORDS, Record, RecordReader, RecordWriter, SYNC_MARKER, read_all, write_all, write_one,
};
use facilitator_core::formats::batch::hex;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{IngestionPart, ValidationPart};
use facilitator_core::formats::parameters::BatchParameters;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use serde_json::{Value as Json, json};
use support::{Truth, ingestion, root, validation};
use uuid::Uuid;

const UUID: Uuid = Uuid::from_u128(0x5a3d_a7c8_bf33_45d0_bfc6_7ef2_67c8_21f2);

fn parameters() -> BatchParameters {
    BatchParameters {
        batch_uuid: UUID,
        name: "kittens-seen".to_owned(),
        bins: 123,
        epsilon: 0.23,
        prime: 4_293_918_721,
        number_of_servers: 2,
        hamming_weight: None,
    }
}

fn header() -> IngestionHeader {
    IngestionHeader {
        parameters: BatchParameters {
            hamming_weight: Some(-5),
            ..parameters()
        },
        batch_start_time: 1_700_000_000_000,
        batch_end_time: -1,
        packet_file_digest: vec![7; 32],
    }
}

fn packet(number: u128) -> DataSharePacket {
    DataSharePacket {
        uuid: Uuid::from_u128(number),
        encrypted_payload: vec![1, 2, 3],
        encryption_key_id: Some("key".to_owned()),
        r_pit: 4_294_967_295,
        version_configuration: None,
        device_nonce: Some(vec![]),
    }
}

/// The schema in a container that the original wrote.
fn schema_of(container: &[u8]) -> String {
    let text = String::from_utf8_lossy(container);
    let start = text.find("{\"type\":\"record\"").unwrap();
    let end = text[start..].find("}]}").unwrap();
    text[start..start + end + 3].to_owned()
}

#[test]
fn schemas_are_the_originals_byte_for_byte() {
    let id = Truth::read()[0].batch_ids().remove(0);
    let sum = root().join("sums/us-ct-g-enpa/kittens-seen/202611200000-202611200300.sum_0");
    let pairs = [
        (
            IngestionHeader::SCHEMA,
            ingestion(Share::First, &id, IngestionPart::Header),
        ),
        (
            DataSharePacket::SCHEMA,
            ingestion(Share::First, &id, IngestionPart::Packets),
        ),
        (
            BatchSignature::SCHEMA,
            ingestion(Share::First, &id, IngestionPart::Signature),
        ),
        (
            ValidationHeader::SCHEMA,
            validation(Share::First, &id, ValidationPart::Header),
        ),
        (
            ValidationPacket::SCHEMA,
            validation(Share::First, &id, ValidationPart::Packets),
        ),
        (SumPart::SCHEMA, std::fs::read(sum).unwrap()),
    ];
    for (own, original) in pairs {
        assert_eq!(own, schema_of(&original));
    }
}

#[test]
fn written_bytes_are_frozen() {
    let sum_part = SumPart {
        batch_uuids: vec![UUID],
        name: "kittens-seen".to_owned(),
        bins: 2,
        epsilon: 0.23,
        prime: 4_293_918_721,
        number_of_servers: 2,
        hamming_weight: None,
        sum: vec![0, 4_293_918_720],
        aggregation_start_time: 0,
        aggregation_end_time: 1,
        packet_file_digest: vec![9; 32],
        total_individual_clients: 100,
    };
    let signature = BatchSignature {
        batch_header_signature: vec![3; 70],
        key_identifier: "key".to_owned(),
        batch_header: None,
        packets: Some(vec![4]),
    };
    let validation_header = ValidationHeader {
        parameters: parameters(),
        packet_file_digest: vec![8; 32],
    };
    let validation_packet = ValidationPacket {
        uuid: UUID,
        f_r: 0,
        g_r: 1,
        h_r: 4_293_918_720,
    };
    let objects = [
        header().write(),
        write_one(&packet(1)),
        signature.write(),
        validation_header.write(),
        write_one(&validation_packet),
        sum_part.write(),
        write_one(&InvalidPacket { uuid: UUID }),
    ];
    let digests: Vec<String> = objects.iter().map(|object| hex(&sha256(object))).collect();
    assert_eq!(digests, GOLDEN);
    // One of them in full: magic, two entries of metadata, marker, one block of one record, marker.
    let schema = InvalidPacket::SCHEMA.as_bytes();
    let length = [
        ((schema.len() * 2) & 0x7f) as u8 | 0x80,
        ((schema.len() * 2) >> 7) as u8,
    ];
    let expected: Vec<u8> = [
        b"Obj\x01\x04\x14avro.codec\x08null\x16avro.schema".as_slice(),
        &length,
        schema,
        b"\x00",
        &SYNC_MARKER,
        b"\x02\x4a\x48",
        UUID.to_string().as_bytes(),
        &SYNC_MARKER,
    ]
    .concat();
    assert_eq!(objects[6], expected);
}

const GOLDEN: [&str; 7] = [
    "46ee21c16dc34893ff452b550641dc965a19ae82faad1adf2a2f727e5905a1f2",
    "28f99a2dd0117ab1bab071a2c6e4a4d6208d1d7cc403c918c9cd5de21e03aa77",
    "90f2b303cf8e0c0710b653c0d232a660a4e1c327cbf30e3e22aa4256ee010687",
    "7ae2ddbd5507828a86e4eae42124255bc33a7cbddadae5dfc9625e493c9cf90f",
    "142f774841f0d59f2636174a9af55387205d0b602334ac5b425a3d0791269dac",
    "b3a0f5395e78096a23b134225a4e9458bded80eb427648500eb5559ffb0afa0e",
    "17f487ebeaab57e71bd729501feb1877e1be6d07964946c861925da777a3ff52",
];

#[test]
fn apache_avro_reads_what_we_write() {
    let bytes = header().write();
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    let Value::Record(fields) = reader.next().unwrap().unwrap() else {
        panic!("no record")
    };
    assert!(reader.next().is_none());
    assert_eq!(fields[0], ("batch_uuid".to_owned(), Value::Uuid(UUID)));
    assert_eq!(fields[2], ("bins".to_owned(), Value::Int(123)));
    assert_eq!(
        fields[6],
        ("hamming_weight".to_owned(), Value::Union(0, Box::new(Value::Int(-5))))
    );
    assert_eq!(fields[8], ("batch_end_time".to_owned(), Value::TimestampMillis(-1)));
    let packets: Vec<_> = (0..2_500).map(packet).collect();
    let bytes = write_all(&packets);
    assert_eq!(
        Reader::new(bytes.as_slice()).unwrap().map(Result::unwrap).count(),
        2_500
    );
}

#[test]
fn blocks_end_at_a_thousand_records_however_they_are_written() {
    let packets: Vec<_> = (0..2_500).map(packet).collect();
    let bytes = write_all(&packets);
    let markers = bytes.windows(16).filter(|window| *window == SYNC_MARKER).count();
    assert_eq!(markers, 1 + 2_500_usize.div_ceil(BLOCK_RECORDS));
    let mut writer = RecordWriter::new(Vec::new());
    packets.iter().for_each(|packet| writer.write(packet).unwrap());
    assert_eq!(writer.finish().unwrap(), bytes);
    assert_eq!(read_all::<DataSharePacket>(&bytes).unwrap(), packets);
    assert_eq!(write_all::<DataSharePacket>(&[]), b"");
    // Whatever pieces the bytes come in.
    struct Pieces<'a>(&'a [u8]);
    impl std::io::Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(7);
            self.0.read(&mut buffer[..end])
        }
    }
    let streamed: Result<Vec<_>, _> = RecordReader::<_, DataSharePacket>::new(Pieces(&bytes)).collect();
    assert_eq!(streamed.unwrap(), packets);
}

/// Our header, written by apache-avro with a changed schema.
fn written(change: impl Fn(&mut Json), codec: Codec, count: usize) -> Vec<u8> {
    let mut json: Json = serde_json::from_str(IngestionHeader::SCHEMA).unwrap();
    change(&mut json);
    let schema = Schema::parse(&json).unwrap();
    let bytes = header().write();
    let Value::Record(all) = Reader::new(bytes.as_slice()).unwrap().next().unwrap().unwrap() else {
        panic!("no record")
    };
    let fields = json["fields"].as_array().unwrap().iter().map(|field| {
        let name = field["name"].as_str().unwrap();
        let value = all
            .iter()
            .find(|(known, _)| known == name)
            .map_or(Value::Long(1), |(_, value)| value.clone());
        let value = match (&value, &field["type"]) {
            (Value::Uuid(uuid), Json::String(_)) => Value::String(uuid.to_string()),
            (Value::TimestampMillis(millis), Json::String(_)) => Value::Long(*millis),
            (Value::TimestampMillis(millis), _) if field["type"]["logicalType"] == "timestamp-micros" => {
                Value::TimestampMicros(*millis)
            }
            _ => value,
        };
        (name.to_owned(), value)
    });
    let record = Value::Record(fields.collect());
    let mut writer = Writer::with_codec(&schema, Vec::new(), codec).unwrap();
    for _ in 0..count {
        writer.append_value(record.clone()).unwrap();
    }
    writer.into_inner().unwrap()
}

fn fields(json: &mut Json) -> &mut Vec<Json> {
    json["fields"].as_array_mut().unwrap()
}

fn without(json: &mut Json, names: &[&str]) {
    fields(json).retain(|field| !names.iter().any(|name| field["name"] == *name));
}

fn set_type(json: &mut Json, name: &str, schema: &Json) {
    fields(json).iter_mut().find(|field| field["name"] == name).unwrap()["type"] = schema.clone();
}

#[test]
fn reads_what_others_may_write() {
    let deflate = || Codec::Deflate(DeflateSettings::default());
    let cases = [
        ("null", written(|_| {}, Codec::Null, 1)),
        ("deflate", written(|_| {}, deflate(), 1)),
        ("snappy", written(|_| {}, Codec::Snappy, 1)),
        (
            "no logical types",
            written(
                |json| {
                    set_type(json, "batch_uuid", &json!("string"));
                    set_type(json, "batch_start_time", &json!("long"));
                    set_type(json, "batch_end_time", &json!("long"));
                },
                Codec::Null,
                1,
            ),
        ),
        (
            "another name",
            written(
                |json| {
                    json["name"] = json!("Other");
                    json["namespace"] = json!("com.example");
                },
                Codec::Null,
                1,
            ),
        ),
        (
            "an extra field",
            written(
                |json| fields(json).insert(3, json!({"name": "extra", "type": "long"})),
                Codec::Null,
                1,
            ),
        ),
        (
            "no prime, no number of servers",
            written(|json| without(json, &["prime", "number_of_servers"]), deflate(), 1),
        ),
        ("another order", written(|json| fields(json).reverse(), Codec::Null, 1)),
    ];
    for (case, bytes) in cases {
        assert_eq!(
            IngestionHeader::read(&bytes).unwrap_or_else(|error| panic!("{case}: {error}")),
            header(),
            "{case}"
        );
    }
    // The non-standard form of the original's schema files: the logical type beside the type.
    let beside = written(
        |json| {
            set_type(json, "batch_uuid", &json!("string"));
            fields(json)[0]["logicalType"] = json!("uuid");
            set_type(json, "batch_end_time", &json!("long"));
            fields(json)[8]["logicalType"] = json!("timestamp-millis");
        },
        Codec::Null,
        1,
    );
    assert_eq!(IngestionHeader::read(&beside).unwrap(), header());
}

#[test]
fn refuses_what_would_mean_something_else() {
    let micros = json!({"type": "long", "logicalType": "timestamp-micros"});
    let cases = [
        (
            "MissingField",
            written(|json| without(json, &["hamming_weight"]), Codec::Null, 1),
        ),
        ("MissingField", written(|json| without(json, &["bins"]), Codec::Null, 1)),
        (
            "WrongType",
            written(|json| set_type(json, "batch_end_time", &micros), Codec::Null, 1),
        ),
        ("ExtraRecord", written(|_| {}, Codec::Null, 2)),
        ("NoRecord", Vec::new()),
        (
            "Schema",
            written(
                |json| {
                    set_type(json, "batch_end_time", &json!("long"));
                    fields(json)[8]["logicalType"] = json!("timestamp-micros");
                },
                Codec::Null,
                1,
            ),
        ),
    ];
    for (kind, bytes) in cases {
        let error = IngestionHeader::read(&bytes).unwrap_err();
        assert!(format!("{error:?}").starts_with(kind), "{kind}: {error:?}");
        assert!(!error.is_retryable());
    }
}

/// A container of any schema and codec, with a block of any length and count.
fn container(schema: &str, codec: &str, count: i64, size: i64, block: &[u8]) -> Vec<u8> {
    let mut bytes = b"Obj\x01".to_vec();
    let mut encoder = facilitator_core::formats::avro::Encoder::new(&mut bytes);
    encoder.long(2);
    for text in ["avro.codec", codec, "avro.schema", schema] {
        encoder.bytes(text.as_bytes());
    }
    encoder.long(0);
    bytes.extend_from_slice(&[0; 16]);
    let mut encoder = facilitator_core::formats::avro::Encoder::new(&mut bytes);
    encoder.long(count);
    encoder.long(size);
    bytes.extend_from_slice(block);
    bytes.extend_from_slice(&[0; 16]);
    bytes
}

#[test]
fn hostile_containers_cost_nothing() {
    let recursive = r#"{"type":"record","name":"R","fields":[{"name":"uuid","type":"string"},{"name":"next","type":["null","R"]}]}"#;
    let nulls = r#"{"type":"record","name":"R","fields":[{"name":"uuid","type":"string"},{"name":"list","type":{"type":"array","items":"null"}}]}"#;
    let own = InvalidPacket::SCHEMA;
    // A string of 64 MiB, of which nothing follows.
    let long_text = [0xfe, 0xff, 0xff, 0x3f];
    let cases = [
        ("Schema", container(recursive, "null", 1, 4, &[0, 2, 2, 0])),
        ("Schema", container(nulls, "null", 1, 4, &[0, 2, 2, 0])),
        ("Schema", container("\"string\"", "null", 1, 1, &[0])),
        ("Schema", container("{", "null", 1, 1, &[0])),
        ("Codec", container(own, "bzip2", 1, 1, &[0])),
        ("TooLarge", container(own, "null", 1, i64::MAX, &[0])),
        ("Container", container(own, "null", i64::MAX, 1, &[0])),
        ("Container", container(own, "null", -1, 1, &[0])),
        ("Container", container(own, "null", 1, -1, &[0])),
        // Refused by the length that it claims, before anything is decompressed.
        (
            "TooLarge",
            container(own, "snappy", 1, 5, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        ("Container", container(own, "deflate", 1, 2, &[0xff, 0xff])),
        ("Record", container(own, "null", 1, 4, &long_text)),
        ("Container", b"Obj\x01\x02".to_vec()),
        (
            "TooLarge",
            b"Obj\x01\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(),
        ),
        ("Container", b"PRIOREC1".to_vec()),
    ];
    for (kind, bytes) in cases {
        let error: FormatError = read_all::<InvalidPacket>(&bytes).unwrap_err();
        assert!(format!("{error:?}").starts_with(kind), "{kind}: {error:?}");
    }
}

#[test]
fn a_reader_that_fails_is_worth_trying_again() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("connection reset"))
        }
    }
    let mut reader = RecordReader::<_, InvalidPacket>::new(Broken);
    assert!(reader.next().unwrap().unwrap_err().is_retryable());
    assert!(reader.next().is_none());
}
