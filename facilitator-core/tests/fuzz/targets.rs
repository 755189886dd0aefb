//! What reads something from outside.

use bytes::Bytes;
use facilitator_core::crypto::csr::SigningRequest;
use facilitator_core::crypto::{BatchSigningKey, BatchVerifyingKey, PacketDecryptionKey, encrypt, open, seal, sha256};
use facilitator_core::formats::avro::{Record, read_all, write_all};
use facilitator_core::formats::claims::{
    Chunk, ChunkName, Claim, ClaimDay, ClaimsError, RUN_PREFIX_BYTES, RunHeader, RunIndex, encode_run, entries_of,
    header_length, parse_claims_name,
};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::ledger::{
    Decided, Delivered, LedgerIdentity, LedgerObject, Rejected, Released, WindowResult,
};
use facilitator_core::formats::manifest::{
    DataShareProcessorGlobalManifest, DataShareProcessorSpecificManifest, IngestorManifest, ManifestKind,
    PortalManifest, StorageUrl, check_base_url, validate,
};
use facilitator_core::formats::names::{
    BatchId, BatchRange, IngestionPart, ValidationPart, WindowId, parse_ingestion_name, parse_partial_name,
    parse_shard_name, parse_sum_part_name, parse_validation_name,
};
use facilitator_core::formats::partial::Partial;
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::record::Record as LedgerRecord;
use facilitator_core::formats::shard::PlanShard;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::{Parameters, Report, Share, WorkList};

use facilitator_core::processor::MountedPacketKey;
use facilitator_core::proof::{PRIME, ShareSplitter, parse_first_share, parse_second_share};
use mailbox::{MailboxUrl, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::OnceCell;

use crate::support::{Keys, Truth, decide, ingestion, names, root, single_object, validation};

/// Something to fuzz.
pub struct Target {
    pub name: &'static str,
    /// Inputs besides those of the corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How an input ends; `Err`: what must not be.
    pub run: fn(&[u8]) -> Result<String, String>,
}

fn said<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "accepted".into())
}

/// Reads records, and those that are read again from what we write of them; compared as bytes, because NaN isn't itself.
fn avro<T: Record>(input: &[u8]) -> Result<String, String> {
    let read = match read_all::<T>(input) {
        Ok(read) => read,
        Err(error) => return Ok(error.to_string()),
    };
    let written = write_all(&read);
    let again = read_all::<T>(&written).map_err(|error| format!("what we write isn't read: {error}"))?;
    if again.len() != read.len() || write_all(&again) != written {
        return Err("what we write reads as something else".into());
    }
    Ok(format!("accepted {}", read.len().min(3)))
}

fn json<T: LedgerObject>(input: &[u8]) -> Result<String, String> {
    let key = ObjectKey::parse("fuzz").unwrap();
    let value = match T::from_bytes(&key, input) {
        Ok(value) => value,
        Err(error) => return Ok(error.to_string()),
    };
    let written = value
        .to_bytes()
        .map_err(|error| format!("what is read can't be written: {error}"))?;
    let again = T::from_bytes(&key, &written).map_err(|error| format!("what we write isn't read: {error}"))?;
    if again.to_bytes().ok() != Some(written) {
        return Err("what we write reads as something else".into());
    }
    Ok("accepted".into())
}

fn document<T: serde::Serialize + serde::de::DeserializeOwned>(input: &[u8]) -> Result<String, String> {
    match serde_json::from_slice::<T>(input) {
        Err(error) => Ok(error.to_string()),
        Ok(value) => {
            let written = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
            serde_json::from_slice::<T>(&written)
                .map(|_| "accepted".into())
                .map_err(|error| format!("not read again: {error}"))
        }
    }
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
        let mut encoder = facilitator_core::formats::avro::Encoder::new(&mut bytes);
        encoder.long(2);
        for (key, value) in [("avro.codec", codec), ("avro.schema", DataSharePacket::SCHEMA)] {
            encoder.bytes(key.as_bytes());
            encoder.bytes(value.as_bytes());
        }
        encoder.long(0);
        bytes.extend_from_slice(&[7; 16]);
        let mut encoder = facilitator_core::formats::avro::Encoder::new(&mut bytes);
        encoder.long(1);
        encoder.bytes(content);
        bytes.extend_from_slice(&[7; 16]);
        bytes
    };
    let mut record = Vec::new();
    let packet = DataSharePacket::read_all(&written[0]).unwrap().remove(0);
    packet.encode(&mut facilitator_core::formats::avro::Encoder::new(&mut record));
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

fn manifest_files() -> Vec<Vec<u8>> {
    let files = ["dsp-global.json", "dsp-specific.json", "ingestor.json", "portal.json"];
    files
        .map(|name| std::fs::read(root().join("manifests").join(name)).unwrap())
        .to_vec()
}

fn manifests(input: &[u8]) -> Result<String, String> {
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    for kind in ManifestKind::ALL {
        drop(validate(kind, input, now));
    }
    let processor = DataShareProcessorSpecificManifest::parse(input);
    if let Ok(manifest) = &processor {
        let again = DataShareProcessorSpecificManifest::parse(manifest.to_json().as_bytes());
        if again.ok().as_ref() != Some(manifest) {
            return Err("a manifest that we write reads as something else".into());
        }
    }
    let keys = processor.and_then(|manifest| {
        manifest.trusted_keys()?;
        manifest.packet_encryption_requests()
    });
    let others = [
        said(DataShareProcessorGlobalManifest::parse(input)),
        said(IngestorManifest::parse(input).and_then(|manifest| manifest.trusted_keys())),
        said(PortalManifest::parse(input)),
    ];
    Ok(format!("{} {}", said(keys), others.join(" ")))
}

fn keys(input: &[u8]) -> Result<String, String> {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok("not text".into());
    };
    if let Ok(keys) = PacketDecryptionKey::parse_list(text) {
        for key in &keys {
            let again =
                PacketDecryptionKey::parse(&key.to_base64()).map_err(|error| format!("not read again: {error}"))?;
            if again.public_point() != key.public_point() {
                return Err("another key".into());
            }
        }
    }
    let packet = said(PacketDecryptionKey::parse_list(text));
    let signing = said(BatchSigningKey::parse("id", text));
    let public = said(BatchVerifyingKey::parse(text));
    Ok(format!("{packet} {signing} {public}"))
}

fn key_texts() -> Vec<Vec<u8>> {
    let keys = Keys::read();
    let packet = keys.first_packets.to_base64().to_string();
    let signing = keys.first.to_base64().unwrap().to_string();
    vec![
        format!("{packet},{packet}").into(),
        packet.into(),
        signing.into(),
        keys.first.verifying_key().to_pem().into(),
    ]
}

fn requests() -> Vec<Vec<u8>> {
    let manifest = std::fs::read(root().join("manifests/dsp-specific.json")).unwrap();
    let manifest = DataShareProcessorSpecificManifest::parse(&manifest).unwrap();
    let der = |text: &str| {
        use base64::Engine;
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(body).unwrap()
    };
    manifest
        .packet_encryption_keys
        .values()
        .map(|key| der(&key.certificate_signing_request))
        .collect()
}

/// The DER, so that mutations get behind base64.
fn request(input: &[u8]) -> Result<String, String> {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(input);
    let text = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----");
    Ok(SigningRequest::parse(&text).map_or_else(
        |error| error.to_string(),
        |request| format!("{}", request.signature_verifies),
    ))
}

fn object_names(input: &[u8]) -> Result<String, String> {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok("not text".into());
    };
    if let Some((id, part)) = parse_ingestion_name(text)
        && id.ingestion_key(part).as_str() != text
    {
        return Err("an ingestion object has two names".into());
    }
    if let Some((id, share, part)) = parse_validation_name(text)
        && id.validation_key(share, part).as_str() != text
    {
        return Err("a validation object has two names".into());
    }
    if let Some((instance, window, share, part)) = parse_sum_part_name(text)
        && window.sum_part_key(&instance, share, part).as_str() != text
    {
        return Err("a sum part's object has two names".into());
    }
    if let Some((window, range)) = parse_partial_name(text)
        && window.partial_key(&range).as_str() != text
    {
        return Err("a partial sum has two names".into());
    }
    if let Some((window, cutoff, range)) = parse_shard_name(text)
        && window.shard_key(cutoff, &range).as_str() != text
    {
        return Err("a plan shard has two names".into());
    }
    if let Ok(window) = WindowId::parse(text)
        && window.path() != text
    {
        return Err("a window has two names".into());
    }
    if let Ok(url) = MailboxUrl::parse(text)
        && MailboxUrl::parse(&url.to_string()).as_ref() != Ok(&url)
    {
        return Err("a mailbox's URL reads as another's".into());
    }
    if let Some((key, object)) = parse_claims_name(text)
        && object.key(key).as_str() != text
    {
        return Err("an object of claims has two names".into());
    }
    let kinds = [
        parse_claims_name(text).is_some(),
        parse_ingestion_name(text).is_some(),
        parse_validation_name(text).is_some(),
        parse_sum_part_name(text).is_some(),
        parse_partial_name(text).is_some(),
        parse_shard_name(text).is_some(),
        BatchRange::parse(text).is_ok(),
        StorageUrl::parse(text).is_ok(),
        check_base_url(text).is_ok(),
    ];
    let others = [
        said(ObjectKey::parse(text)),
        said(MailboxUrl::parse(text)),
        said(BatchId::parse(text)),
        said(WindowId::parse(text)),
    ];
    // Errors quote the text: only their ends tell them apart.
    let ends: Vec<String> = others
        .iter()
        .map(|said| said.chars().rev().take(40).collect())
        .collect();
    Ok(format!("{kinds:?} {ends:?}"))
}

fn name_seeds() -> Vec<Vec<u8>> {
    let id = &Truth::read()[0].batch_ids()[0];
    let window = "us-ct/kittens-seen/202611200000-202611200300";
    let texts = [
        id.ingestion_key(IngestionPart::Signature).into_string(),
        id.validation_key(Share::Second, ValidationPart::Packets).into_string(),
        format!("{window}.sum_0"),
        format!("{window}.invalid_uuid_1.avro"),
        "us-ct.release-2/kittens-seen/202611200000-202611200300.sum_1.sig".into(),
        "kittens-seen/202611200000-202611200300".into(),
        "partials/kittens-seen/202611200000-202611200300/2026112001008f-202611200300".into(),
        "shards/kittens-seen/202611200000-202611200300/1795146600000/202611200000-2026112001008f".into(),
        "202611200000-2026112001008f".into(),
        "kittens-seen/202611200000-202611200300.9".into(),
        id.path(),
        "file:///var/mailbox".into(),
        "s3://region/bucket/prefix".into(),
        "https://manifests.example/path".into(),
        format!("claims/{}/2026112003/{}", "0a".repeat(16), "9f".repeat(16)),
        format!("claims/{}/20261120-runs/000001", "0a".repeat(16)),
    ];
    texts.map(String::into_bytes).to_vec()
}

const BINS: u32 = 8;

thread_local! {
    static MOUNTED: OnceCell<[[MountedPacketKey; 1]; 2]> = const { OnceCell::new() };
}

/// A payload as a packet carries it, for First or Second.
fn ciphertexts(input: &[u8]) -> Result<String, String> {
    MOUNTED.with(|mounted| {
        let mounted = mounted.get_or_init(|| {
            let keys = Keys::read();
            [keys.first_packets, keys.second_packets].map(|key| [MountedPacketKey { id: "one".into(), key }])
        });
        let packet = DataSharePacket {
            uuid: uuid::Uuid::from_u128(1),
            encrypted_payload: input.to_vec(),
            encryption_key_id: None,
            r_pit: 7,
            version_configuration: None,
            device_nonce: None,
        };
        let state = |share: Share| {
            let keys = &mounted[usize::from(share.index())];
            decide(packet.clone(), BINS, share, keys).map(|(_, state)| state)
        };
        Ok(format!("{:?} {:?}", state(Share::First), state(Share::Second)))
    })
}

fn payloads() -> Vec<Vec<u8>> {
    let keys = Keys::read();
    let mut rng = StdRng::seed_from_u64(5);
    let shares = ShareSplitter::new(BINS).split(&[1; BINS as usize], &mut rng);
    let first = encrypt(keys.first_packets.public_point(), &shares.first, &mut rng).unwrap();
    let second = encrypt(keys.second_packets.public_point(), &*shares.second, &mut rng).unwrap();
    vec![first, second, vec![4; 81]]
}

/// A decrypted share, and a sealed accumulator.
fn shares(input: &[u8]) -> Result<String, String> {
    if let Ok(elements) = parse_first_share(input, BINS)
        && elements.iter().any(|element| *element >= PRIME)
    {
        return Err("an element is beyond the field".into());
    }
    let key = PacketDecryptionKey::generate(&mut StdRng::seed_from_u64(6));
    let opened = open(&key, &[1; 32], Share::First, &[2; 32], input);
    Ok(format!(
        "{} {} {}",
        said(parse_first_share(input, BINS)),
        said(parse_second_share(input, BINS)),
        said(opened)
    ))
}

fn share_seeds() -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(5);
    let shares = ShareSplitter::new(BINS).split(&[1; BINS as usize], &mut rng);
    let key = PacketDecryptionKey::generate(&mut StdRng::seed_from_u64(6));
    vec![
        shares.first.to_vec(),
        shares.second.to_vec(),
        seal(&key, &[1; 32], Share::First, &[2; 32], &[1, 2, 3]),
    ]
}

fn record(input: &[u8]) -> Result<String, String> {
    if let Ok(record) = LedgerRecord::decode(input)
        && record.encode() != input
    {
        return Err("a record has two forms".into());
    }
    let despite = said(LedgerRecord::decode_despite_seals(input));
    Ok(format!("{} {despite}", said(LedgerRecord::decode(input))))
}

/// The bytes as a chunk of the name that they ask for, and as a run, read as a look does.
fn claims(input: &[u8]) -> Result<String, String> {
    let mut digest = [0; 16];
    digest.copy_from_slice(&sha256(input)[..16]);
    let day = ClaimDay::parse("20261120").unwrap();
    let name = ChunkName { day, hour: 3, digest };
    let chunk = Chunk::decode(&name, input);
    if let Ok(claims) = &chunk
        && Chunk::encode(day, 3, claims).bytes != input
    {
        return Err("a chunk has two forms".into());
    }
    Ok(format!("{} {}", said(chunk), said(run(input))))
}

fn run(input: &[u8]) -> Result<(), ClaimsError> {
    let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(input.len());
    let end = within(RUN_PREFIX_BYTES.saturating_add(header_length(input)?));
    let header = RunHeader::decode(1, &input[within(RUN_PREFIX_BYTES).min(end)..end])?;
    for run in &header.runs {
        let index = Bytes::copy_from_slice(&input[within(run.index_at)..within(run.claim_at(0))]);
        let index = RunIndex::decode(run, &index)?;
        for fingerprint in (0..64).map(|bit| u64::MAX << bit) {
            assert!(index.may_be_at(fingerprint).end <= run.entries);
        }
        entries_of(&input[within(run.claim_at(0))..], run.entries as usize)?;
    }
    Ok(())
}

fn claim_seeds() -> Vec<Vec<u8>> {
    let claims: Vec<Claim> = (1..40)
        .map(|n| Claim {
            fingerprint: n << 57,
            owner: n,
        })
        .collect();
    let chunk = Chunk::encode(ClaimDay::parse("20261120").unwrap(), 3, &claims[..2]);
    let run = encode_run(1, Vec::new(), vec![(3, chunk.name.digest)], &claims).unwrap();
    vec![chunk.bytes.to_vec(), run.to_vec()]
}

/// Seeds that the corpus holds.
fn none() -> Vec<Vec<u8>> {
    vec![Vec::new()]
}

fn ledger(input: &[u8]) -> Result<String, String> {
    let ways = [
        json::<LedgerIdentity>(input)?,
        json::<Delivered>(input)?,
        json::<Rejected>(input)?,
        json::<Released>(input)?,
        json::<Decided>(input)?,
        json::<WindowResult>(input)?,
        json::<Report>(input)?,
        json::<Plan>(input)?,
        json::<PlanShard>(input)?,
        json::<Partial>(input)?,
    ];
    Ok(ways.join(" "))
}

fn work(input: &[u8]) -> Result<String, String> {
    Ok(format!(
        "{} {}",
        document::<WorkList>(input)?,
        document::<Parameters>(input)?
    ))
}

pub fn all() -> Vec<Target> {
    let target = |name, seeds, run| Target { name, seeds, run };
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
        target(
            "signature",
            || {
                let single = Truth::read()
                    .iter()
                    .map(|truth| single_object(Share::First, &truth.batch_ids()[0]))
                    .collect();
                [fixtures(IngestionPart::Signature), single].concat()
            },
            avro::<BatchSignature>,
        ),
        target("sum-part", sum_parts, avro::<SumPart>),
        target(
            "invalid-list",
            || {
                vec![InvalidPacket::write_all(
                    &[InvalidPacket {
                        uuid: uuid::Uuid::from_u128(1),
                    }; 3],
                )]
            },
            avro::<InvalidPacket>,
        ),
        target("ciphertext", payloads, ciphertexts),
        target("share", share_seeds, shares),
        target("manifest", manifest_files, manifests),
        target("key", key_texts, keys),
        target("signing-request", requests, request),
        target("name", name_seeds, object_names),
        target("work", none, work),
        target("ledger", none, ledger),
        target("record", none, record),
        target("claims", claim_seeds, claims),
    ]
}
