//! Records: fields that lie, are missing or are of another type, and the values of good ones to build on.

use facilitator_core::formats::avro::{Encoder, Record, read_one};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use serde_json::{Value, json};

use crate::support::read_both_ways;
use crate::{Case, agreed, case, said};

const MARKER: [u8; 16] = [7; 16];

/// Avro's binary encoding.
pub fn encoded(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes));
    bytes
}

pub fn long(value: i64) -> Vec<u8> {
    encoded(|encoder| encoder.long(value))
}

pub fn text(value: &str) -> Vec<u8> {
    encoded(|encoder| encoder.bytes(value.as_bytes()))
}

/// A container's head.
pub fn head(metadata: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = encoded(|encoder| {
        encoder.long(metadata.len() as i64);
        for (key, value) in metadata {
            encoder.bytes(key.as_bytes());
            encoder.bytes(value);
        }
        encoder.long(0);
    });
    [b"Obj\x01".as_slice(), &entries, &MARKER].concat()
}

/// A block as it stands in a container, honest about its own length.
pub fn block(count: i64, content: &[u8]) -> Vec<u8> {
    [long(count), encoded(|encoder| encoder.bytes(content)), MARKER.to_vec()].concat()
}

pub fn container(schema: &str, codec: &str, count: i64, content: &[u8]) -> Vec<u8> {
    let metadata = [("avro.codec", codec.as_bytes()), ("avro.schema", schema.as_bytes())];
    [head(&metadata), block(count, content)].concat()
}

/// A field: its name, its type, a good value's encoding.
pub type Field = (&'static str, Value, Vec<u8>);

pub fn schema(fields: &[Field]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, kind, _)| json!({"name": name, "type": kind}))
        .collect();
    json!({"type": "record", "name": "Hostile", "fields": fields}).to_string()
}

/// A container with one record of these fields.
pub fn one_of(fields: &[Field]) -> Vec<u8> {
    let content: Vec<u8> = fields.iter().flat_map(|(_, _, value)| value.clone()).collect();
    container(&schema(fields), "null", 1, &content)
}

pub const UUID: &str = "5a3da7c8-bf33-45d0-bfc6-7ef267c821f2";

pub fn packet_fields() -> Vec<Field> {
    vec![
        ("uuid", json!("string"), text(UUID)),
        ("encrypted_payload", json!("bytes"), text("payload")),
        ("encryption_key_id", json!(["null", "string"]), long(0)),
        ("r_pit", json!("long"), long(5)),
        ("version_configuration", json!(["null", "string"]), long(0)),
        ("device_nonce", json!(["null", "bytes"]), long(0)),
    ]
}

pub fn validation_header_fields() -> Vec<Field> {
    vec![
        ("batch_uuid", json!("string"), text(UUID)),
        ("name", json!("string"), text("kittens-seen")),
        ("bins", json!("int"), long(8)),
        ("epsilon", json!("double"), 0.1_f64.to_le_bytes().to_vec()),
        ("prime", json!("long"), long(4_293_918_721)),
        ("number_of_servers", json!("int"), long(2)),
        ("hamming_weight", json!(["int", "null"]), long(1)),
        ("packet_file_digest", json!("bytes"), text("digest")),
    ]
}

pub fn header_fields() -> Vec<Field> {
    let mut fields = validation_header_fields();
    fields.push(("batch_start_time", json!("long"), long(1)));
    fields.push(("batch_end_time", json!("long"), long(2)));
    fields
}

fn signature_fields() -> Vec<Field> {
    vec![
        ("batch_header_signature", json!("bytes"), text("signature")),
        ("key_identifier", json!("string"), text("key")),
    ]
}

fn validation_packet_fields() -> Vec<Field> {
    let mut fields = vec![("uuid", json!("string"), text(UUID))];
    fields.extend(["f_r", "g_r", "h_r"].map(|name| (name, json!("long"), long(1))));
    fields
}

fn sum_part_fields() -> Vec<Field> {
    let mut fields = validation_header_fields();
    fields[0] = ("batch_uuids", json!({"type": "array", "items": "string"}), long(0));
    fields.push(("sum", json!({"type": "array", "items": "long"}), long(0)));
    fields.push(("aggregation_start_time", json!("long"), long(1)));
    fields.push(("aggregation_end_time", json!("long"), long(2)));
    fields.push(("total_individual_clients", json!("long"), long(2)));
    fields
}

/// What comes of records that are all there, and of the same as they stream in: workers read packets so.
pub fn read<T: Record + PartialEq>(bytes: &[u8]) -> String {
    agreed(read_both_ways::<T>(bytes, 1_000).map(|[whole, _]| said(whole)))
}

/// Every field missing, and of a type that isn't its own.
fn each_field<T: Record + PartialEq + 'static>(fields: &[Field], optional: &[&str]) -> Vec<Case> {
    let mut cases = Vec::new();
    assert_eq!(read::<T>(&one_of(fields)), "accepted", "{}", T::NAME);
    for (index, (name, ..)) in fields.iter().enumerate() {
        if !optional.contains(name) {
            let mut less = fields.to_vec();
            less.remove(index);
            let bytes = one_of(&less);
            let expected = format!("the field {name:?} is missing");
            let name = format!("{}: no {name}", T::NAME);
            cases.push(case(name, expected, move || read::<T>(&bytes)));
        }
        let mut other = fields.to_vec();
        other[index] = (name, json!("boolean"), vec![1]);
        let bytes = one_of(&other);
        let expected = format!("the field {name:?} holds no");
        let name = format!("{}: {name} is a boolean", T::NAME);
        cases.push(case(name, expected, move || read::<T>(&bytes)));
    }
    cases
}

/// A packet with one field of another type or value.
fn packet_with(name: &'static str, kind: Value, value: Vec<u8>) -> Vec<u8> {
    let mut fields = packet_fields();
    for field in fields.iter_mut().filter(|field| field.0 == name) {
        *field = (name, kind.clone(), value.clone());
    }
    one_of(&fields)
}

fn sum_part_with(name: &'static str, items: Vec<u8>) -> Vec<u8> {
    let mut fields = sum_part_fields();
    for field in fields.iter_mut().filter(|field| field.0 == name) {
        field.2.clone_from(&items);
    }
    one_of(&fields)
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let defaults = ["prime", "number_of_servers"];
    cases.extend(each_field::<DataSharePacket>(&packet_fields(), &[]));
    cases.extend(each_field::<IngestionHeader>(&header_fields(), &defaults));
    cases.extend(each_field::<ValidationHeader>(&validation_header_fields(), &defaults));
    cases.extend(each_field::<ValidationPacket>(&validation_packet_fields(), &[]));
    cases.extend(each_field::<BatchSignature>(&signature_fields(), &[]));
    cases.extend(each_field::<SumPart>(&sum_part_fields(), &defaults));
    cases.extend(each_field::<InvalidPacket>(
        &[("uuid", json!("string"), text(UUID))],
        &["uuid"],
    ));

    let mut packet = |name: &str, expected: &str, bytes: Vec<u8>| {
        cases.push(case(name, expected, move || read::<DataSharePacket>(&bytes)));
    };
    let promises = "promises more bytes than there are";
    let bytes = || json!("bytes");
    packet(
        "a payload of 4 GB",
        promises,
        packet_with("encrypted_payload", bytes(), long(4 << 30)),
    );
    packet(
        "a payload of 1 GiB less a byte",
        promises,
        packet_with("encrypted_payload", bytes(), long((1 << 30) - 1)),
    );
    packet(
        "a payload of 2^60 bytes",
        promises,
        packet_with("encrypted_payload", bytes(), long(1 << 60)),
    );
    packet(
        "a payload of 2^63 - 1 bytes",
        promises,
        packet_with("encrypted_payload", bytes(), long(i64::MAX)),
    );
    packet(
        "a payload of -1 bytes",
        "a length is negative",
        packet_with("encrypted_payload", bytes(), long(-1)),
    );
    packet(
        "a payload of -2^63 bytes",
        "a length is negative",
        packet_with("encrypted_payload", bytes(), long(i64::MIN)),
    );
    packet(
        "a UUID of 4 GB",
        promises,
        packet_with("uuid", json!("string"), long(4 << 30)),
    );
    packet(
        "a UUID that is none",
        "holds no UUID",
        packet_with("uuid", json!("string"), text("not a uuid")),
    );
    packet(
        "a UUID of no characters",
        "holds no UUID",
        packet_with("uuid", json!("string"), text("")),
    );
    packet(
        "a UUID that isn't UTF-8",
        "Invalid utf-8",
        packet_with("uuid", json!("string"), encoded(|e| e.bytes(&[0xff; 36]))),
    );
    let logical = json!({"type": "string", "logicalType": "uuid"});
    packet(
        "a logical UUID that is none",
        "Failed to convert &str to UUID",
        packet_with("uuid", logical, text("not a uuid")),
    );
    let fixed = json!({"type": "fixed", "name": "U", "size": 15, "logicalType": "uuid"});
    packet(
        "a UUID of 15 fixed bytes",
        "holds no UUID",
        packet_with("uuid", fixed, vec![1; 15]),
    );
    let key = || json!(["null", "string"]);
    let branch = "a union's branch isn't one";
    packet(
        "a union's branch 2 of 2",
        branch,
        packet_with("encryption_key_id", key(), long(2)),
    );
    packet(
        "a union's branch -1",
        branch,
        packet_with("encryption_key_id", key(), long(-1)),
    );
    packet(
        "a union's branch 2^60",
        branch,
        packet_with("encryption_key_id", key(), long(1 << 60)),
    );
    let large = [long(1), text(&"k".repeat(2_000))].concat();
    packet(
        "a key id of 2,000 bytes",
        "beyond the bound of 1024",
        packet_with("encryption_key_id", key(), large.clone()),
    );
    packet(
        "a configuration of 2,000 bytes",
        "beyond the bound of 1024",
        packet_with("version_configuration", key(), large.clone()),
    );
    let nonce = json!(["null", "bytes"]);
    packet(
        "a nonce of 2,000 bytes",
        "beyond the bound of 1024",
        packet_with("device_nonce", nonce, large),
    );
    packet(
        "a number of 11 bytes",
        "longer than 64 bits",
        packet_with("r_pit", json!("long"), vec![0xff; 11]),
    );
    packet(
        "a number that doesn't end",
        "ends too early",
        packet_with("r_pit", json!("long"), vec![0xff; 3]),
    );
    packet(
        "a list of 2^60 in an unknown field",
        "more items than there are bytes",
        {
            let mut fields = packet_fields();
            fields.push(("extra", json!({"type": "array", "items": "long"}), long(1 << 60)));
            one_of(&fields)
        },
    );
    packet(
        "a list of 2,000 in an unknown field",
        "its lists have too many items",
        {
            let mut fields = packet_fields();
            let items = [long(2_000), vec![2; 2_000], long(0)].concat();
            fields.push(("extra", json!({"type": "array", "items": "long"}), items));
            one_of(&fields)
        },
    );
    packet("a negative list's count of -2^63", "more items than there are bytes", {
        let mut fields = packet_fields();
        fields.push((
            "extra",
            json!({"type": "array", "items": "long"}),
            [long(i64::MIN), long(1)].concat(),
        ));
        one_of(&fields)
    });

    let mut sum = |name: &str, expected: &str, bytes: Vec<u8>| {
        cases.push(case(name, expected, move || said(read_one::<SumPart>(&bytes))).within_kb(8 << 10));
    };
    let more = "more items than there are bytes";
    sum("a sum of 2^60 bins", more, sum_part_with("sum", long(1 << 60)));
    sum("a sum of 2^31 bins", more, sum_part_with("sum", long(1 << 31)));
    let million = [long(2 << 20), vec![2; 2 << 20], long(0)].concat();
    sum(
        "a sum of 2^21 bins",
        "its lists have too many items",
        sum_part_with("sum", million),
    );
    sum("2^40 batches", more, sum_part_with("batch_uuids", long(1 << 40)));
    sum(
        "a batch that is no UUID",
        "holds no list of UUIDs",
        sum_part_with("batch_uuids", [long(1), text("x"), long(0)].concat()),
    );
    cases
}
