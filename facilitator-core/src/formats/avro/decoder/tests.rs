//! The quick reader against apache-avro.
#![allow(clippy::unwrap_used)]

use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;
use crate::formats::FormatError;
use crate::formats::avro::{Encoder, Fields, SYNC_MARKER, read_all, write_all};
use crate::formats::ingestion::{DataSharePacket, IngestionHeader};
use crate::formats::parameters::BatchParameters;
use crate::formats::signature::BatchSignature;
use crate::formats::sum_part::{InvalidPacket, SumPart};
use crate::formats::validation::{ValidationHeader, ValidationPacket};

/// The same record, read by apache-avro alone.
#[derive(Debug, PartialEq)]
struct Slow<T>(T);

impl<T: Record> Record for Slow<T> {
    const NAME: &'static str = T::NAME;
    const SCHEMA: &'static str = T::SCHEMA;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        T::from_fields(fields).map(Slow)
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        self.0.encode(encoder);
    }
}

fn bytes(rng: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..=most)];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn long(rng: &mut StdRng) -> i64 {
    rng.random::<i64>() >> rng.random_range(0..64)
}

fn text(rng: &mut StdRng) -> String {
    (0..rng.random_range(0..20))
        .map(|_| rng.random_range('a'..'\u{2ff}'))
        .collect()
}

fn uuid(rng: &mut StdRng) -> Uuid {
    Uuid::from_u128(rng.random())
}

fn option<T>(rng: &mut StdRng, value: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    rng.random::<bool>().then(|| value(rng))
}

fn parameters(rng: &mut StdRng) -> BatchParameters {
    BatchParameters {
        batch_uuid: uuid(rng),
        name: text(rng),
        bins: rng.random(),
        epsilon: rng.random(),
        prime: long(rng),
        number_of_servers: rng.random(),
        hamming_weight: option(rng, |rng| rng.random()),
    }
}

/// A container's head.
fn head(codec: &str, schema: &str) -> Vec<u8> {
    let mut object = b"Obj\x01".to_vec();
    let mut encoder = Encoder::new(&mut object);
    encoder.long(2);
    for text in ["avro.codec", codec, "avro.schema", schema] {
        encoder.bytes(text.as_bytes());
    }
    encoder.long(0);
    object.extend_from_slice(&SYNC_MARKER);
    object
}

/// A container of blocks of a few records each. Its frame is written here, its blocks are compressed by apache-avro.
fn container<T: Record>(records: &[T], codec: (&str, Codec), block_records: usize) -> Vec<u8> {
    let mut object = head(codec.0, T::SCHEMA);
    for records in records.chunks(block_records) {
        let mut block = Vec::new();
        records
            .iter()
            .for_each(|record| record.encode(&mut Encoder::new(&mut block)));
        codec.1.compress(&mut block).unwrap();
        let mut encoder = Encoder::new(&mut object);
        encoder.length(records.len());
        encoder.bytes(&block);
        object.extend_from_slice(&SYNC_MARKER);
    }
    object
}

/// All of it by apache-avro, the container too.
fn theirs<T: Record>(object: &[u8]) -> Vec<T> {
    let records = apache_avro::Reader::new(object)
        .unwrap()
        .map(|value| match value.unwrap() {
            Value::Record(values) => T::from_fields(&mut Fields::new(T::NAME, values)).unwrap(),
            other => panic!("no record: {other:?}"),
        });
    records.collect()
}

/// Reads all ways: what one reads the others do, and of what is refused ours say the same.
fn agree<T: Record + std::fmt::Debug + PartialEq>(records: &[T], rng: &mut StdRng, damages: usize) {
    assert_eq!(read_all::<T>(&write_all(records)).unwrap(), records);
    let codecs = [
        ("null", Codec::Null),
        ("deflate", Codec::Deflate(DeflateSettings::default())),
        ("snappy", Codec::Snappy),
    ];
    for codec in codecs {
        let object = container(records, codec, rng.random_range(1..4));
        let (quick, slow) = (read_all::<T>(&object).unwrap(), read_all::<Slow<T>>(&object).unwrap());
        assert_eq!(quick, records);
        assert!(slow.iter().map(|slow| &slow.0).eq(records));
        assert_eq!(theirs::<T>(&object), records);
        for _ in 0..damages {
            agree_on::<T>(&damaged(&object, rng));
        }
    }
}

fn damaged(object: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut damaged = object.to_vec();
    let block = object.len() - 200.min(object.len());
    for _ in 0..rng.random_range(1..4) {
        // Mostly in the records, sometimes in the header.
        let at = if rng.random_ratio(4, 5) {
            rng.random_range(block..object.len())
        } else {
            rng.random_range(0..object.len())
        };
        match rng.random_range(0..4) {
            0 => damaged[at] ^= 1 << rng.random_range(0..8),
            1 => damaged[at] = rng.random(),
            2 => damaged[at] = [0, 1, 2, 0x7f, 0x80, 0xff][rng.random_range(0..6)],
            _ => damaged.truncate(at.max(1)),
        }
        if damaged.len() < object.len() {
            break;
        }
    }
    damaged
}

fn agree_on<T: Record + std::fmt::Debug>(object: &[u8]) {
    match (read_all::<T>(object), read_all::<Slow<T>>(object)) {
        (Ok(quick), Ok(slow)) => {
            let slow: Vec<_> = slow.into_iter().map(|slow| slow.0).collect();
            // Not a number is unlike itself.
            assert_eq!(format!("{quick:?}"), format!("{slow:?}"));
        }
        (quick, slow) => assert_eq!(quick.unwrap_err().to_string(), slow.unwrap_err().to_string()),
    }
}

fn some<T>(rng: &mut StdRng, one: impl Fn(&mut StdRng) -> T) -> Vec<T> {
    (0..rng.random_range(1..9)).map(|_| one(rng)).collect()
}

#[test]
fn the_quick_way_and_apache_avro_agree() {
    // Of the others there is one way alone, which is apache-avro's.
    const {
        assert!(DataSharePacket::DECODES && ValidationPacket::DECODES && InvalidPacket::DECODES);
        assert!(IngestionHeader::DECODES && ValidationHeader::DECODES && BatchSignature::DECODES);
    }
    let mut rng = StdRng::seed_from_u64(31);
    for _ in 0..20 {
        let rng = &mut rng;
        let packets = some(rng, |rng| DataSharePacket {
            uuid: uuid(rng),
            encrypted_payload: bytes(rng, 300),
            encryption_key_id: option(rng, text),
            r_pit: long(rng),
            version_configuration: option(rng, text),
            device_nonce: option(rng, |rng| bytes(rng, 20)),
        });
        agree(&packets, rng, 30);
        let packets = some(rng, |rng| ValidationPacket {
            uuid: uuid(rng),
            f_r: long(rng),
            g_r: long(rng),
            h_r: long(rng),
        });
        agree(&packets, rng, 30);
        agree(&some(rng, |rng| InvalidPacket { uuid: uuid(rng) }), rng, 10);
        let headers = some(rng, |rng| IngestionHeader {
            parameters: parameters(rng),
            batch_start_time: long(rng),
            batch_end_time: long(rng),
            packet_file_digest: bytes(rng, 40),
        });
        agree(&headers, rng, 30);
        let headers = some(rng, |rng| ValidationHeader {
            parameters: parameters(rng),
            packet_file_digest: bytes(rng, 40),
        });
        agree(&headers, rng, 30);
        let signatures = some(rng, |rng| BatchSignature {
            batch_header_signature: bytes(rng, 80),
            key_identifier: text(rng),
            batch_header: option(rng, |rng| bytes(rng, 100)),
            packets: option(rng, |rng| bytes(rng, 100)),
        });
        agree(&signatures, rng, 30);
        let sums = some(rng, |rng| SumPart {
            batch_uuids: some(rng, uuid),
            name: text(rng),
            bins: rng.random(),
            epsilon: rng.random(),
            prime: long(rng),
            number_of_servers: rng.random(),
            hamming_weight: option(rng, |rng| rng.random()),
            sum: some(rng, long),
            aggregation_start_time: long(rng),
            aggregation_end_time: long(rng),
            packet_file_digest: bytes(rng, 40),
            total_individual_clients: long(rng),
        });
        agree(&sums, rng, 30);
    }
}

#[test]
fn they_agree_on_blocks_and_records_that_are_longer_than_what_is_read_at_a_time() {
    let mut rng = StdRng::seed_from_u64(32);
    let (few, many) = ([200_000, 0, 131_072, 300_000, 7], vec![113; 3_000]);
    for lengths in [few.as_slice(), &many] {
        let packet = |rng: &mut StdRng, length| DataSharePacket {
            uuid: uuid(rng),
            encrypted_payload: vec![rng.random(); length],
            encryption_key_id: option(rng, text),
            r_pit: long(rng),
            version_configuration: None,
            device_nonce: option(rng, |rng| bytes(rng, 20)),
        };
        let packets: Vec<_> = lengths.iter().map(|length| packet(&mut rng, *length)).collect();
        let codecs = [
            ("null", Codec::Null),
            ("deflate", Codec::Deflate(DeflateSettings::default())),
            ("snappy", Codec::Snappy),
        ];
        for codec in codecs {
            let object = container(&packets, codec, packets.len());
            assert_eq!(read_all::<DataSharePacket>(&object).unwrap(), packets);
            assert_eq!(theirs::<DataSharePacket>(&object), packets);
            assert!(
                read_all::<Slow<DataSharePacket>>(&object)
                    .unwrap()
                    .iter()
                    .map(|slow| &slow.0)
                    .eq(&packets)
            );
            for _ in 0..40 {
                let mut wrong = object.clone();
                match rng.random_range(0..3) {
                    0 => wrong.truncate(rng.random_range(1_000..object.len())),
                    _ => wrong[rng.random_range(0..object.len())] ^= 1 << rng.random_range(0..8),
                }
                agree_on::<DataSharePacket>(&wrong);
            }
        }
    }
}

#[test]
fn a_long_block_of_another_schema_is_read_piece_by_piece() {
    let schema = ValidationPacket::SCHEMA.replace(
        r#""fields":["#,
        r#""fields":[{"name":"more","type":{"type":"array","items":"long"}},"#,
    );
    let mut rng = StdRng::seed_from_u64(33);
    let packets: Vec<_> = (0..5_000)
        .map(|_| ValidationPacket {
            uuid: uuid(&mut rng),
            f_r: long(&mut rng),
            g_r: i64::MIN,
            h_r: 0,
        })
        .collect();
    let mut block = Vec::new();
    for packet in &packets {
        let more: Vec<i64> = (0..rng.random_range(0..40)).map(|_| long(&mut rng)).collect();
        Encoder::new(&mut block).list(&more, |encoder, number| encoder.long(*number));
        packet.encode(&mut Encoder::new(&mut block));
    }
    let mut object = head("null", &schema);
    let mut encoder = Encoder::new(&mut object);
    encoder.length(packets.len());
    encoder.bytes(&block);
    object.extend_from_slice(&SYNC_MARKER);
    assert_eq!(read_all::<ValidationPacket>(&object).unwrap(), packets);
    assert_eq!(theirs::<ValidationPacket>(&object), packets);
}

#[test]
fn only_schemas_that_are_encoded_as_ours_are_read_quickly() {
    let known = |text: &str| {
        schema_of::<ValidationPacket, apache_avro::Error>(text.as_bytes(), |text| {
            Schema::parse_str(std::str::from_utf8(text).unwrap())
        })
    };
    let ours = ValidationPacket::SCHEMA;
    let table = [
        (ours.to_owned(), true),
        (ours.replace("PrioValidityPacket", "Other"), true),
        (
            ours.replace(r#"{"type":"string","logicalType":"uuid"}"#, r#""string""#),
            true,
        ),
        (ours.replace(r#""f_r","type":"long""#, r#""f_r","type":"int""#), false),
        (ours.replace("f_r", "z_r"), false),
        (
            ours.replace("f_r", "x")
                .replace("g_r", "f_r")
                .replace("\"x\"", "\"g_r\""),
            false,
        ),
        (
            ours.replace(r#""h_r","type":"long""#, r#""h_r","type":["null","long"]"#),
            false,
        ),
    ];
    for (text, quick) in table {
        for _ in 0..2 {
            assert_eq!(known(&text).unwrap().ours, quick, "{text}");
        }
    }
    // More schemas than are remembered, none of them wrong.
    for i in 0..3 * REMEMBERED {
        assert!(
            known(&ours.replace("PrioValidityPacket", &format!("Name{i}")))
                .unwrap()
                .ours
        );
    }
    assert!(known("{}").is_err());
}
