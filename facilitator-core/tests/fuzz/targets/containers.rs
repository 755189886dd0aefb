//! Avro object containers.

use std::fmt::Debug;

use apache_avro::types::Value;
use facilitator_core::formats::FormatError;
use facilitator_core::formats::avro::{Encoder, Fields, Record, read_all, write_all};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{IngestionPart, ValidationPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use uuid::Uuid;

use super::{ACCEPTED, Target, said};
use crate::support::{Truth, ingestion, names, read_both_ways, root, single_object, validation};

/// Reads records, and those that are read again from what we write of them; compared as bytes, because NaN isn't itself.
fn avro<T: Record>(input: &[u8]) -> Result<Vec<String>, String> {
    let read = match read_all::<T>(input) {
        Ok(read) => read,
        Err(error) => return Ok(vec![error.to_string()]),
    };
    let written = write_all(&read);
    let again = read_all::<T>(&written).map_err(|error| format!("what we write isn't read: {error}"))?;
    if again.len() != read.len() || write_all(&again) != written {
        return Err("what we write reads as something else".into());
    }
    Ok(vec![format!("{ACCEPTED} {}", read.len().min(3))])
}

/// Whatever pieces the bytes come in, and whether they are there at once or not, the same is read. The first byte says how
/// long the pieces are.
fn streamed(input: &[u8]) -> Result<Vec<String>, String> {
    let (length, bytes) = input.split_first().unwrap_or((&0, &[]));
    let [_, streamed] = read_both_ways::<DataSharePacket>(bytes, usize::from(*length) + 1)?;
    Ok(vec![said(streamed)])
}

/// The same record, read by apache-avro alone.
#[derive(Debug)]
struct Slow<T>(T);

impl<T: Record> Record for Slow<T> {
    const NAME: &'static str = T::NAME;
    const SCHEMA: &'static str = T::SCHEMA;
    const MAX_ITEMS: usize = T::MAX_ITEMS;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        T::from_fields(fields).map(Slow)
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        self.0.encode(encoder);
    }
}

/// The quick way, apache-avro's records in our container, and apache-avro's own container read the same; compared as
/// text, because NaN isn't itself.
fn both_ways<T: Record + Debug>(input: &[u8]) -> Result<String, String> {
    let shown = |of: &dyn Debug| format!("{of:?}");
    let (quick, slow) = match (read_all::<T>(input), read_all::<Slow<T>>(input)) {
        (Ok(quick), Ok(slow)) => (quick, slow.into_iter().map(|slow| slow.0).collect::<Vec<_>>()),
        (Err(quick), Err(slow)) if quick.to_string() == slow.to_string() => return Ok(quick.to_string()),
        (quick, slow) => return Err(format!("quickly {}, slowly {}", said(quick), said(slow))),
    };
    if shown(&quick) != shown(&slow) {
        return Err("the quick way reads something else".into());
    }
    if input.is_empty() {
        return Ok("no records".into());
    }
    let theirs = apache_avro::Reader::new(input).map_err(|error| format!("apache-avro refuses it: {error}"))?;
    let theirs: Result<Vec<T>, String> = theirs
        .map(|value| match value {
            Ok(Value::Record(values)) => {
                T::from_fields(&mut Fields::new(T::NAME, values)).map_err(|error| error.to_string())
            }
            other => Err(format!("{other:?}")),
        })
        .collect();
    match theirs {
        Ok(theirs) if shown(&theirs) == shown(&quick) => Ok(ACCEPTED.into()),
        Ok(_) => Err("apache-avro reads something else".into()),
        Err(error) => Err(format!("apache-avro refuses it: {error}")),
    }
}

const KINDS: [&str; 7] = [
    "ingestion header",
    "ingestion packets",
    "validation header",
    "validation packets",
    "signature",
    "sum part",
    "invalid list",
];

/// The first byte says which kind of records it is.
fn quick(input: &[u8]) -> Result<Vec<String>, String> {
    let (kind, bytes) = input.split_first().unwrap_or((&0, &[]));
    let kind = usize::from(*kind) % KINDS.len();
    let ways = [
        both_ways::<IngestionHeader>,
        both_ways::<DataSharePacket>,
        both_ways::<ValidationHeader>,
        both_ways::<ValidationPacket>,
        both_ways::<BatchSignature>,
        both_ways::<SumPart>,
        both_ways::<InvalidPacket>,
    ];
    let mut ended = vec![String::new(); KINDS.len()];
    ended[kind] = ways[kind](bytes)?;
    Ok(ended)
}

fn fixtures(part: IngestionPart) -> Vec<Vec<u8>> {
    Truth::read()
        .iter()
        .map(|truth| ingestion(Share::First, &truth.batch_ids()[0], part))
        .collect()
}

fn validations(part: ValidationPart) -> Vec<Vec<u8>> {
    Truth::read()
        .iter()
        .map(|truth| validation(Share::First, &truth.batch_ids()[0], part))
        .collect()
}

/// A short packet object: mutations of long ones hit ciphertext.
fn packets() -> Vec<Vec<u8>> {
    let few = |bytes: Vec<u8>| {
        let mut packets = DataSharePacket::read_all(&bytes).unwrap();
        packets.truncate(2);
        packets
            .iter_mut()
            .for_each(|packet| packet.encrypted_payload.truncate(40));
        DataSharePacket::write_all(&packets)
    };
    let written: Vec<_> = fixtures(IngestionPart::Packets).into_iter().map(few).collect();
    let compressed = |codec: &str, content: &[u8]| {
        let mut bytes = b"Obj\x01".to_vec();
        let mut encoder = Encoder::new(&mut bytes);
        encoder.long(2);
        for (key, value) in [("avro.codec", codec), ("avro.schema", DataSharePacket::SCHEMA)] {
            encoder.bytes(key.as_bytes());
            encoder.bytes(value.as_bytes());
        }
        encoder.long(0);
        bytes.extend_from_slice(&[7; 16]);
        let mut encoder = Encoder::new(&mut bytes);
        encoder.long(1);
        encoder.bytes(content);
        bytes.extend_from_slice(&[7; 16]);
        bytes
    };
    let mut record = Vec::new();
    let packet = DataSharePacket::read_all(&written[0]).unwrap().remove(0);
    packet.encode(&mut Encoder::new(&mut record));
    let deflated = compressed("deflate", &miniz_oxide::deflate::compress_to_vec(&record, 6));
    let plain = compressed("null", &record);
    let snappy = compressed(
        "snappy",
        &[
            &[record.len() as u8 & 0x7f | 0x80, (record.len() >> 7) as u8],
            record.as_slice(),
            &[0; 4],
        ]
        .concat(),
    );
    written.into_iter().chain([deflated, plain, snappy]).collect()
}

fn sum_parts() -> Vec<Vec<u8>> {
    let folder = root().join("sums");
    let parts = names(&folder)
        .into_iter()
        .filter(|name| name.ends_with(".sum_0") || name.ends_with(".sum_1"));
    parts.map(|name| std::fs::read(folder.join(name)).unwrap()).collect()
}

fn signatures() -> Vec<Vec<u8>> {
    let single = Truth::read()
        .iter()
        .map(|truth| single_object(Share::First, &truth.batch_ids()[0]))
        .collect();
    [fixtures(IngestionPart::Signature), single].concat()
}

fn invalid_lists() -> Vec<Vec<u8>> {
    let invalid = InvalidPacket {
        uuid: Uuid::from_u128(1),
    };
    vec![InvalidPacket::write_all(&[invalid; 3])]
}

fn after(byte: usize, inputs: Vec<Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
    inputs
        .into_iter()
        .map(move |input| [&[byte as u8], input.as_slice()].concat())
}

fn quick_seeds() -> Vec<Vec<u8>> {
    let of_kinds = [
        fixtures(IngestionPart::Header),
        packets(),
        validations(ValidationPart::Header),
        validations(ValidationPart::Packets),
        signatures(),
        sum_parts(),
        invalid_lists(),
    ];
    let of_kinds = of_kinds.into_iter().enumerate();
    of_kinds.flat_map(|(kind, inputs)| after(kind, inputs)).collect()
}

pub fn targets() -> Vec<Target> {
    let target = |name, seeds, run| Target {
        name,
        parts: &["records"],
        seeds,
        run,
    };
    vec![
        target(
            "ingestion-header",
            || fixtures(IngestionPart::Header),
            avro::<IngestionHeader>,
        ),
        target("ingestion-packets", packets, avro::<DataSharePacket>),
        target(
            "validation-header",
            || validations(ValidationPart::Header),
            avro::<ValidationHeader>,
        ),
        target(
            "validation-packets",
            || validations(ValidationPart::Packets),
            avro::<ValidationPacket>,
        ),
        target("signature", signatures, avro::<BatchSignature>),
        target("sum-part", sum_parts, avro::<SumPart>),
        target("invalid-list", invalid_lists, avro::<InvalidPacket>),
        target("streamed", || after(6, packets()).collect(), streamed),
        Target {
            name: "quick-avro",
            parts: &KINDS,
            seeds: quick_seeds,
            run: quick,
        },
    ]
}
