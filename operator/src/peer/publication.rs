//! What a party publishes: documents, and all that they say. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crds::PeerSpec;
use crds::peer::{ManifestDocument, PeerManifest, PublishedPacketKey, PublishedSigningKey};
use facilitator_core::crypto::BatchVerifyingKey;
use facilitator_core::crypto::csr::SigningRequest;
use facilitator_core::formats::manifest::{
    BatchSigningPublicKey, Finding, Manifest, ManifestKind, PacketEncryptionKey, validate,
};
use jiff::Timestamp;

use crate::digest::hex_digest;

/// The most findings that are told at once.
const MAX_TOLD: usize = 15;
/// The longest of them, in characters.
const MAX_TOLD_CHARACTERS: usize = 500;

/// One document as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name under the base URL.
    pub name: String,
    /// What it should be.
    pub kind: ManifestKind,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What good documents say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The content; `accepted_at` is empty.
    pub manifest: PeerManifest,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

impl Publication {
    /// Checks documents and gathers what they say.
    ///
    /// # Errors
    /// What is wrong, for a person, where a document isn't good. A publication is taken whole or not at all.
    pub fn read(spec: &PeerSpec, documents: &[Document], now: Timestamp) -> Result<Self, String> {
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        let mut manifest = PeerManifest {
            digest: digest(documents),
            base_url: spec.manifest_base_url.clone(),
            instance: spec.instance.clone(),
            ..PeerManifest::default()
        };
        for document in documents {
            match validate(document.kind, &document.bytes, now).accepted() {
                Ok((parsed, odd)) => {
                    warnings.extend(odd.iter().map(|finding| told(document, finding)));
                    let format = gather(&mut manifest, &parsed);
                    manifest.documents.push(ManifestDocument {
                        name: document.name.clone(),
                        format: i64::try_from(format).unwrap_or(i64::MAX),
                        sha256: hex_digest(&document.bytes),
                    });
                }
                Err(errors) => problems.extend(errors.iter().map(|finding| told(document, finding))),
            }
        }
        if problems.is_empty() {
            Ok(Self {
                manifest,
                warnings: at_most(warnings, MAX_TOLD),
            })
        } else {
            Err(at_most(problems, MAX_TOLD).join("; "))
        }
    }
}

/// So many entries, and a word on how many more there are.
pub(super) fn at_most(mut entries: Vec<String>, most: usize) -> Vec<String> {
    let more = entries.len().saturating_sub(most);
    entries.truncate(most);
    if more > 0 {
        entries.push(format!("and {more} more"));
    }
    entries
}

/// Cut at a character, with a sign that it was.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn told(document: &Document, finding: &Finding) -> String {
    let place = if finding.path.is_empty() { "" } else { ": " };
    let text = format!("{}{place}{}: {}", document.name, finding.path, finding.message);
    shortened(&text, MAX_TOLD_CHARACTERS)
}

/// SHA-256 of what `sha256sum` prints of the documents in the order of their names, so that a person can compare it.
fn digest(documents: &[Document]) -> String {
    let mut lines: Vec<String> = documents
        .iter()
        .map(|document| format!("{}  {}\n", hex_digest(&document.bytes), document.name))
        .collect();
    lines.sort_by(|a, b| {
        a.split_once("  ")
            .map(|(_, name)| name)
            .cmp(&b.split_once("  ").map(|(_, name)| name))
    });
    hex_digest(lines.concat().as_bytes())
}

/// Adds what a document says; returns its format version.
fn gather(manifest: &mut PeerManifest, parsed: &Manifest) -> u64 {
    let fields = &mut manifest.fields;
    match parsed {
        Manifest::DataShareProcessorGlobal(parsed) => {
            let identity = &parsed.server_identity;
            let account = identity.aws_account_id.map(|id| format!("{id:012}"));
            put(
                fields,
                "server-identity.gcp-service-account-email",
                Some(&identity.gcp_service_account_email),
            );
            put(fields, "server-identity.aws-account-id", account.as_ref());
            put(
                fields,
                "server-identity.gcp-service-account-id",
                identity.gcp_service_account_id.as_ref(),
            );
            parsed.format
        }
        Manifest::DataShareProcessorSpecific(parsed) => {
            put(fields, "ingestion-bucket", Some(&parsed.ingestion_bucket));
            put(fields, "ingestion-identity", parsed.ingestion_identity.as_ref());
            put(fields, "peer-validation-bucket", Some(&parsed.peer_validation_bucket));
            put(
                fields,
                "peer-validation-identity",
                parsed.peer_validation_identity.as_ref(),
            );
            manifest.batch_signing_keys = signing_keys(&parsed.batch_signing_public_keys);
            manifest.packet_encryption_keys = packet_keys(&parsed.packet_encryption_keys);
            parsed.format
        }
        Manifest::Ingestor(parsed) => {
            let identity = &parsed.server_identity;
            put(
                fields,
                "server-identity.gcp-service-account-email",
                Some(&identity.gcp_service_account_email),
            );
            put(
                fields,
                "server-identity.aws-iam-entity",
                identity.aws_iam_entity.as_ref(),
            );
            put(
                fields,
                "server-identity.gcp-service-account-id",
                identity.gcp_service_account_id.as_ref(),
            );
            manifest.batch_signing_keys = signing_keys(&parsed.batch_signing_public_keys);
            parsed.format
        }
        Manifest::Portal(parsed) => {
            put(
                fields,
                "facilitator-sum-part-bucket",
                Some(&parsed.facilitator_sum_part_bucket),
            );
            put(fields, "pha-sum-part-bucket", Some(&parsed.pha_sum_part_bucket));
            parsed.format
        }
    }
}

fn put(fields: &mut BTreeMap<String, String>, name: &str, value: Option<&String>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value.clone());
    }
}

/// All of them could be read: that was checked.
fn signing_keys(keys: &BTreeMap<String, BatchSigningPublicKey>) -> Vec<PublishedSigningKey> {
    let of = |(id, key): (&String, &BatchSigningPublicKey)| {
        let public = BatchVerifyingKey::from_pem(&key.public_key).ok()?;
        Some(PublishedSigningKey {
            id: id.clone(),
            public_key: STANDARD.encode(public.point()),
            expiration: key.expiration.clone(),
        })
    };
    keys.iter().filter_map(of).collect()
}

fn packet_keys(keys: &BTreeMap<String, PacketEncryptionKey>) -> Vec<PublishedPacketKey> {
    let of = |(id, key): (&String, &PacketEncryptionKey)| {
        let request = SigningRequest::parse(&key.certificate_signing_request).ok()?;
        Some(PublishedPacketKey {
            id: id.clone(),
            public_key: STANDARD.encode(request.public_point),
        })
    };
    keys.iter().filter_map(of).collect()
}
