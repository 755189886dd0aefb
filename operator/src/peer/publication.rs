//! What a party publishes: documents, and all that they say. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crds::Peer;
use crds::peer::{ManifestDocument, PeerManifest, PublishedPacketKey, PublishedSigningKey};
use facilitator_core::crypto::BatchVerifyingKey;
use facilitator_core::crypto::csr::SigningRequest;
use facilitator_core::formats::manifest::{
    BatchSigningPublicKey, Finding, GLOBAL_OBJECT, Manifest, ManifestError, ManifestKind, PacketEncryptionKey, Purpose,
    validate,
};
use jiff::Timestamp;

use super::difference::Difference;
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

/// Why a share processor's global document isn't among its documents. It says who the party is, which people want to know
/// and no work needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithoutGlobal {
    /// The party has none; else it has one that can't be used now.
    pub is_gone: bool,
    /// Why, for a person.
    pub why: String,
}

/// What of a share processor's fields is its global document's alone.
const OF_GLOBAL: &str = "server-identity.";

/// What good documents say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The content; `accepted_at` is empty.
    pub manifest: PeerManifest,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

impl Publication {
    /// Checks documents and gathers what they say. Where a share processor's global one is bad or didn't come, what was
    /// known of it stays.
    ///
    /// # Errors
    /// What is wrong, for a person, where another document isn't good. A publication is taken whole or not at all.
    pub fn read(
        peer: &Peer,
        documents: &[Document],
        mut without: Option<WithoutGlobal>,
        now: Timestamp,
    ) -> Result<Self, String> {
        let spec = &peer.spec;
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        let mut manifest = PeerManifest {
            base_url: spec.manifest_base_url.clone(),
            instance: spec.instance.clone(),
            ..PeerManifest::default()
        };
        for document in documents {
            match validate(document.kind, &document.bytes, Purpose::Read, now).accepted() {
                Ok((parsed, odd)) => {
                    warnings.extend(odd.iter().map(|finding| told(document, finding)));
                    let format = gather(&mut manifest, &parsed);
                    manifest.documents.push(ManifestDocument {
                        name: document.name.clone(),
                        format: i64::try_from(format).unwrap_or(i64::MAX),
                        sha256: hex_digest(&document.bytes),
                    });
                }
                Err(errors) => {
                    let errors = errors.iter().map(|finding| told(document, finding));
                    if document.kind == ManifestKind::DataShareProcessorGlobal {
                        let why = at_most(errors.collect(), MAX_TOLD).join("; ");
                        without = Some(WithoutGlobal { is_gone: false, why });
                    } else {
                        problems.extend(errors);
                    }
                }
            }
        }
        if let Some(without) = without {
            let is_kept = !without.is_gone && keep_global(&mut manifest, peer);
            let then = if is_kept {
                "what was known of it stays"
            } else {
                "who the party is isn't known from it"
            };
            let text = format!("{}. Work needs nothing of it; {then}", without.why);
            warnings.insert(0, shortened(&text, MAX_TOLD_CHARACTERS));
        }
        manifest.digest = digest(&manifest.documents);
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

/// What is other in a document that should be another one.
///
/// # Errors
/// One of them can't be read.
pub(crate) fn compare(kind: ManifestKind, wanted: &[u8], found: &[u8]) -> Result<Difference, ManifestError> {
    let read = |bytes: &[u8]| -> Result<PeerManifest, ManifestError> {
        let mut manifest = PeerManifest::default();
        gather(&mut manifest, &Manifest::parse(kind, bytes)?);
        Ok(manifest)
    };
    Ok(Difference::between(&read(wanted)?, &read(found)?, &[]))
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
fn digest(documents: &[ManifestDocument]) -> String {
    let mut documents: Vec<_> = documents.iter().collect();
    documents.sort_by(|a, b| a.name.cmp(&b.name));
    let lines: String = documents
        .iter()
        .map(|document| format!("{}  {}\n", document.sha256, document.name))
        .collect();
    hex_digest(lines.as_bytes())
}

/// Adds what was known before of the party's global document; `false`: nothing was, at this address. So a server that fails
/// now and then makes no change, and no other identity passes for a first one after it.
fn keep_global(manifest: &mut PeerManifest, peer: &Peer) -> bool {
    let before = peer.status.as_ref().and_then(|status| status.manifest.as_ref());
    let Some(before) = before.filter(|before| before.base_url == manifest.base_url) else {
        return false;
    };
    let Some(document) = before.documents.iter().find(|document| document.name == GLOBAL_OBJECT) else {
        return false;
    };
    manifest.documents.insert(0, document.clone());
    let fields = before.fields.iter().filter(|(name, _)| name.starts_with(OF_GLOBAL));
    let fields = fields.map(|(name, value)| (name.clone(), value.clone()));
    manifest.fields.extend(fields);
    true
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
