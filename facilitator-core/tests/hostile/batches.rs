//! Whole batches: what intake says of a signed header, of a signature, and of objects that don't fit together.

use facilitator_core::crypto::sha256;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use uuid::Uuid;

use crate::avro::{container, header_fields, long, one_of, schema};
use crate::party::{Party, packet, parameters};
use crate::{Case, case};

/// Headers that are signed well and ask for what can't be.
fn headers() -> Vec<Case> {
    type Change = fn(&mut IngestionHeader);
    let table: [(&str, &str, Change); 21] = [
        ("bins 0", "Rejected ParametersUnsupported: bins is 0", |h| {
            h.parameters.bins = 0
        }),
        ("bins -1", "Rejected ParametersUnsupported: bins is -1", |h| {
            h.parameters.bins = -1
        }),
        ("bins 2^19", "Rejected ParametersUnsupported: bins is 524288", |h| {
            h.parameters.bins = 1 << 19
        }),
        (
            "bins 2^31 - 1",
            "Rejected ParametersUnsupported: bins is 2147483647",
            |h| h.parameters.bins = i32::MAX,
        ),
        (
            "bins -2^31",
            "Rejected ParametersUnsupported: bins is -2147483648",
            |h| h.parameters.bins = i32::MIN,
        ),
        ("a prime of 0", "Rejected ParametersUnsupported: prime is 0", |h| {
            h.parameters.prime = 0
        }),
        (
            "a prime of -4293918721",
            "Rejected ParametersUnsupported: prime is -4293918721",
            |h| h.parameters.prime = -4_293_918_721,
        ),
        ("another prime", "Rejected ParametersUnsupported: prime is 65537", |h| {
            h.parameters.prime = 65_537
        }),
        (
            "a prime of 2^63 - 1",
            "Rejected ParametersUnsupported: prime is 9223372036854775807",
            |h| h.parameters.prime = i64::MAX,
        ),
        (
            "three servers",
            "Rejected ParametersUnsupported: number_of_servers is 3",
            |h| h.parameters.number_of_servers = 3,
        ),
        (
            "no server",
            "Rejected ParametersUnsupported: number_of_servers is 0",
            |h| h.parameters.number_of_servers = 0,
        ),
        (
            "-2 servers",
            "Rejected ParametersUnsupported: number_of_servers is -2",
            |h| h.parameters.number_of_servers = -2,
        ),
        ("epsilon NaN", "Rejected ParametersUnsupported: epsilon is NaN", |h| {
            h.parameters.epsilon = f64::NAN
        }),
        (
            "epsilon infinite",
            "Rejected ParametersUnsupported: epsilon is inf",
            |h| h.parameters.epsilon = f64::INFINITY,
        ),
        (
            "epsilon -infinite",
            "Rejected ParametersUnsupported: epsilon is -inf",
            |h| h.parameters.epsilon = f64::NEG_INFINITY,
        ),
        (
            "another batch's UUID",
            "Rejected HeaderMismatch: the header is of batch",
            |h| h.parameters.batch_uuid = Uuid::from_u128(2),
        ),
        (
            "another aggregation's name",
            "Rejected HeaderMismatch: the header is of aggregation",
            |h| h.parameters.name = "dogs-seen".into(),
        ),
        (
            "a name of 2 KB",
            "PrioIngestionHeader: name is beyond the bound of 1024",
            |h| h.parameters.name = "n".repeat(2_000),
        ),
        (
            "a name of control characters",
            "Rejected HeaderMismatch: the header is of aggregation",
            |h| h.parameters.name = "\u{1b}[31m\n".into(),
        ),
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
    let invalid = "Blocked SignatureInvalid: the signature isn't one of these header bytes";
    let long_id =
        "Blocked SignatureInvalid: the signature object is malformed: PrioBatchSignature: key_identifier is beyond";
    type Change = fn(&mut BatchSignature, &Party, &[u8]);
    let table: [(&str, &str, Change); 14] = [
        ("by an unknown key", "Blocked SignerUnknown", |s, _, _| {
            s.key_identifier = "nobody".into()
        }),
        ("by a key of no name", "Blocked SignerUnknown", |s, _, _| {
            s.key_identifier.clear()
        }),
        ("by a key whose id is 2 KB", long_id, |s, _, _| {
            s.key_identifier = "k".repeat(2_000)
        }),
        ("by a key whose id is 900 KB", long_id, |s, _, _| {
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
        case("no header", "Blocked ObjectMissing: the header object", move || {
            let (party, header, packets) = good();
            let signature = BatchSignature::sign(&party.keys.ingestor, &header).unwrap().write();
            party.intake(None, Some(&signature), Some(&packets))
        }),
        case("no signature", "Blocked ObjectMissing: the signature object", move || {
            let (party, header, packets) = good();
            party.intake(Some(&header), None, Some(&packets))
        }),
        case(
            "no packets though the header has a digest",
            "Blocked ObjectMissing: the packet object",
            move || {
                let (party, header, _) = good();
                let signature = BatchSignature::sign(&party.keys.ingestor, &header).unwrap().write();
                party.intake(Some(&header), Some(&signature), None)
            },
        ),
        case(
            "a signed header object of 13,000 records",
            "Rejected HeaderMalformed: the header is malformed: PrioIngestionHeader: the object holds more than the one record",
            move || {
                let (party, _, packets) = good();
                let content: Vec<u8> = header_fields().iter().flat_map(|(_, _, value)| value.clone()).collect();
                let header = container(&schema(&header_fields()), "null", 13_000, &content.repeat(13_000));
                assert!(header.len() < 1 << 20, "as long as a header may be");
                party.signed(&header, &packets)
            },
        )
        .within_kb(8 << 10),
        case(
            "a signed header with bins = 2^31, an int of five bytes",
            "integer out of range for i32: 2147483648",
            move || {
                let (party, _, packets) = good();
                let mut fields = header_fields();
                for field in fields.iter_mut().filter(|field| field.0 == "bins") {
                    field.2 = long(1 << 31);
                    assert_eq!(field.2, [0x80, 0x80, 0x80, 0x80, 0x10]);
                }
                party.signed(&one_of(&fields), &packets)
            },
        ),
        case("a header of 1 MiB and a byte", "too large: 1048577 bytes or more", move || {
            let (party, _, packets) = good();
            party.signed(&vec![0; (1 << 20) + 1], &packets)
        })
        .within_kb(8 << 10),
        case(
            "a signature object of 1 MiB and a byte",
            "too large: 1048577 bytes or more",
            move || {
                let (party, header, packets) = good();
                party.intake(Some(&header), Some(&vec![0; (1 << 20) + 1]), Some(&packets))
            },
        )
        .within_kb(8 << 10),
        case("a signature object of nonsense", "Blocked SignatureInvalid: the signature object is malformed", move || {
            let (party, header, packets) = good();
            party.intake(Some(&header), Some(b"nonsense"), Some(&packets))
        }),
        case("signed nonsense for a header", "Rejected HeaderMalformed", move || {
            let (party, _, packets) = good();
            party.signed(b"nonsense", &packets)
        }),
        case(
            "a validation header for an ingestion header",
            "the field \"batch_start_time\" is missing",
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
            "Rejected PacketsMalformed: PrioDataSharePacket: the field \"encrypted_payload\" is missing",
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

pub fn cases() -> Vec<Case> {
    [headers(), trios()].into_iter().flatten().collect()
}
