//! Each kind of damage to a batch gives its own error, and none is worth trying again.
#![allow(clippy::unwrap_used)]

mod support;

use facilitator_core::crypto::{SignatureError, TrustedKeys, sha256};
use facilitator_core::formats::batch::{check_digest, read_header, read_packets, read_signature};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::Share;
use facilitator_core::formats::{BatchError, FormatError};
use support::{Keys, Truth, ingestion, single_object};

struct Objects {
    header: Vec<u8>,
    signature: Vec<u8>,
    packets: Vec<u8>,
}

fn objects() -> (Keys, BatchId, Objects) {
    let id = Truth::read()[0].batch_ids().remove(0);
    let read = |part| ingestion(Share::First, &id, part);
    let objects = Objects {
        header: read(IngestionPart::Header),
        signature: read(IngestionPart::Signature),
        packets: read(IngestionPart::Packets),
    };
    (Keys::read(), id, objects)
}

fn read(objects: &Objects, keys: &TrustedKeys) -> Result<Vec<DataSharePacket>, BatchError> {
    let signature = read_signature(&objects.signature)?;
    let header: IngestionHeader = read_header(&signature, &objects.header, keys)?;
    read_packets(&header, &objects.packets)
}

#[test]
fn a_flipped_byte_is_found_where_it_is() {
    let (keys, _, mut objects) = objects();
    assert_eq!(read(&objects, &keys.trusted).unwrap().len(), 20);

    for i in 0..objects.header.len() {
        objects.header[i] ^= 1;
        let error = read(&objects, &keys.trusted).unwrap_err();
        assert!(
            matches!(
                error,
                BatchError::Signature {
                    source: SignatureError::Invalid { .. }
                }
            ),
            "byte {i}: {error}"
        );
        assert!(!error.is_retryable());
        objects.header[i] ^= 1;
    }
    for i in (0..objects.packets.len()).step_by(97) {
        objects.packets[i] ^= 1;
        let error = read(&objects, &keys.trusted).unwrap_err();
        assert!(matches!(error, BatchError::DigestMismatch { .. }), "byte {i}: {error}");
        assert!(!error.is_retryable());
        objects.packets[i] ^= 1;
    }
    for i in 0..objects.signature.len() {
        objects.signature[i] ^= 1;
        match read(&objects, &keys.trusted) {
            // Names of the schema's record and unused metadata may change and nothing else does.
            Ok(packets) => assert_eq!(packets.len(), 20),
            Err(error) => {
                let expected = matches!(
                    error,
                    BatchError::MalformedSignature { .. } | BatchError::Signature { .. }
                );
                assert!(expected && !error.is_retryable(), "byte {i}: {error}");
            }
        }
        objects.signature[i] ^= 1;
    }
}

#[test]
fn cuts_are_errors_and_never_panic() {
    let (keys, _, objects) = objects();
    for length in 0..objects.signature.len() {
        assert!(BatchSignature::read(&objects.signature[..length]).is_err(), "{length}");
    }
    for length in 1..objects.header.len() {
        assert!(IngestionHeader::read(&objects.header[..length]).is_err(), "{length}");
    }
    for length in (1..objects.packets.len()).step_by(53) {
        assert!(
            DataSharePacket::read_all(&objects.packets[..length]).is_err(),
            "{length}"
        );
    }
    assert_eq!(DataSharePacket::read_all(&[]).unwrap(), []);
    assert!(matches!(
        IngestionHeader::read(&[]).unwrap_err(),
        FormatError::NoRecord { .. }
    ));
    drop(keys);
}

#[test]
fn an_unknown_key_is_told_from_a_wrong_one() {
    let (keys, _, objects) = objects();
    let mut others = TrustedKeys::default();
    let error = read(&objects, &others).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"ingestor-key-1\", which isn't among the trusted keys (none)"),
        "{error}"
    );
    others.insert("ingestor-key-1", keys.first.verifying_key().clone());
    let error = read(&objects, &others).unwrap_err();
    assert!(
        matches!(
            error,
            BatchError::Signature {
                source: SignatureError::Invalid { .. }
            }
        ),
        "{error}"
    );
}

#[test]
fn a_missing_packet_object_is_no_bytes_and_the_digest_decides() {
    let (keys, _, mut objects) = objects();
    let mut header = IngestionHeader::read(&objects.header).unwrap();
    assert!(matches!(
        check_digest(&header, &sha256(&[])),
        Err(BatchError::DigestMismatch { .. })
    ));
    header.packet_file_digest = sha256(&[]).to_vec();
    objects.header = header.write();
    objects.signature = BatchSignature::sign(&keys.ingestor, &objects.header).unwrap().write();
    objects.packets.clear();
    assert_eq!(read(&objects, &keys.trusted).unwrap(), []);
}

#[test]
fn inline_objects_count_only_together() {
    let (_, id, _) = objects();
    let whole = BatchSignature::read(&single_object(Share::Second, &id)).unwrap();
    assert!(whole.inline().is_some());
    let without_packets = BatchSignature {
        packets: None,
        ..whole.clone()
    };
    let without_header = BatchSignature {
        batch_header: None,
        ..whole
    };
    for signature in [without_packets, without_header] {
        assert_eq!(BatchSignature::read(&signature.write()).unwrap().inline(), None);
    }
}

#[test]
fn well_signed_nonsense_is_malformed() {
    let (keys, _, mut objects) = objects();
    let header = objects.header.clone();
    objects.header = b"nonsense".to_vec();
    objects.signature = BatchSignature::sign(&keys.ingestor, &objects.header).unwrap().write();
    assert!(matches!(
        read(&objects, &keys.trusted),
        Err(BatchError::MalformedHeader { .. })
    ));
    let mut header = IngestionHeader::read(&header).unwrap();
    objects.packets = b"nonsense".to_vec();
    header.packet_file_digest = sha256(&objects.packets).to_vec();
    objects.header = header.write();
    objects.signature = BatchSignature::sign(&keys.ingestor, &objects.header).unwrap().write();
    assert!(matches!(
        read(&objects, &keys.trusted),
        Err(BatchError::MalformedPackets { .. })
    ));
}
