//! The manifests by which partners find each other's mailboxes and keys: strict JSON, kebab-case (reference §4).
//!
//! Unknown fields, other format versions, `null` where a field may be left out, and a name given twice are refused.

mod strict;
mod url;
mod validate;

pub use url::{StorageUrl, check_base_url};
pub use validate::{
    Finding, MAX_KEY_ID_BYTES, MAX_KEYS, MAX_MANIFEST_BYTES, MAX_TEXT_BYTES, Purpose, Severity, Validation, validate,
};

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use snafu::{ResultExt, Snafu, ensure};

use crate::crypto::csr::SigningRequest;
use crate::crypto::{BatchVerifyingKey, KeyError, TrustedKeys};

/// A manifest that can't be used. Fetching it again may help, parsing it again doesn't.
#[derive(Debug, Snafu)]
pub enum ManifestError {
    /// Not the JSON expected.
    #[snafu(display("the {kind} manifest isn't what its format says: {source}"))]
    Json {
        /// What was expected.
        kind: ManifestKind,
        /// Field and place.
        source: serde_json::Error,
    },
    /// A format version that we don't know.
    #[snafu(display("the {kind} manifest has format {format}; {} can be read", versions(*kind)))]
    Format {
        /// What was expected.
        kind: ManifestKind,
        /// The version found.
        format: u64,
    },
    /// A key that can't be used.
    #[snafu(display("{field}.{id}: {source}"))]
    Key {
        /// `batch-signing-public-keys` or `packet-encryption-keys`.
        field: &'static str,
        /// The key's id.
        id: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A storage URL that can't be one.
    #[snafu(display("{url:?} is no storage URL: write gs://BUCKET[/PREFIX] or s3://REGION/BUCKET[/PREFIX]"))]
    StorageUrl {
        /// The text refused.
        url: String,
    },
    /// A base URL that isn't https.
    #[snafu(display(
        "{url:?} can't be the base URL of manifests: it must be https://HOST[/PATH], without user, query or fragment"
    ))]
    BaseUrl {
        /// The text refused.
        url: String,
    },
}

impl ManifestError {
    /// Whether the same bytes may parse later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

fn versions(kind: ManifestKind) -> String {
    kind.formats()
        .iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// The four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// Of a share processor's operator: `global-manifest.json`.
    DataShareProcessorGlobal,
    /// Of one share processor: `<instance>-manifest.json`.
    DataShareProcessorSpecific,
    /// Of an ingestor: `global-manifest.json` or `<instance>-manifest.json`.
    Ingestor,
    /// Of the portal: `global-manifest.json`.
    Portal,
}

impl ManifestKind {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 4] = [
        Self::DataShareProcessorGlobal,
        Self::DataShareProcessorSpecific,
        Self::Ingestor,
        Self::Portal,
    ];

    /// The name on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DataShareProcessorGlobal => "data-share-processor-global",
            Self::DataShareProcessorSpecific => "data-share-processor-specific",
            Self::Ingestor => "ingestor",
            Self::Portal => "portal",
        }
    }

    /// The format versions that are read.
    #[must_use]
    pub fn formats(self) -> &'static [u64] {
        match self {
            Self::DataShareProcessorGlobal => &[0, 1],
            Self::DataShareProcessorSpecific => &[1, 2],
            Self::Ingestor | Self::Portal => &[1],
        }
    }
}

impl std::fmt::Display for ManifestKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The name under a base URL of what a party says for all its instances.
pub const GLOBAL_OBJECT: &str = "global-manifest.json";

/// The name under a base URL of what a party says for one instance (or locality).
#[must_use]
pub fn specific_object(instance: &str) -> String {
    format!("{instance}-manifest.json")
}

/// A manifest of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// See [`DataShareProcessorGlobalManifest`].
    DataShareProcessorGlobal(DataShareProcessorGlobalManifest),
    /// See [`DataShareProcessorSpecificManifest`].
    DataShareProcessorSpecific(DataShareProcessorSpecificManifest),
    /// See [`IngestorManifest`].
    Ingestor(IngestorManifest),
    /// See [`PortalManifest`].
    Portal(PortalManifest),
}

impl Manifest {
    /// Parses a manifest of a kind, strictly.
    ///
    /// # Errors
    /// [`ManifestError`]. Keys are looked at by [`validate`].
    pub fn parse(kind: ManifestKind, bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(match kind {
            ManifestKind::DataShareProcessorGlobal => {
                Self::DataShareProcessorGlobal(DataShareProcessorGlobalManifest::parse(bytes)?)
            }
            ManifestKind::DataShareProcessorSpecific => {
                Self::DataShareProcessorSpecific(DataShareProcessorSpecificManifest::parse(bytes)?)
            }
            ManifestKind::Ingestor => Self::Ingestor(IngestorManifest::parse(bytes)?),
            ManifestKind::Portal => Self::Portal(PortalManifest::parse(bytes)?),
        })
    }
}

/// `global-manifest.json` of a share processor's operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataShareProcessorGlobalManifest {
    /// 0 or 1.
    pub format: u64,
    /// Who writes to partners' buckets.
    pub server_identity: DataShareProcessorIdentity,
}

/// Who a share processor is in clouds: at most one of the two ids. The original's set-up on GCP publishes both, so that
/// whoever reads them takes that; [`validate`] refuses it to whoever publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataShareProcessorIdentity {
    /// Of the account that writes sum parts and validations.
    pub gcp_service_account_email: String,
    /// The AWS account.
    #[serde(
        default,
        deserialize_with = "strict::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub aws_account_id: Option<u64>,
    /// The numeric id of the GCP account, as text.
    #[serde(
        default,
        deserialize_with = "strict::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub gcp_service_account_id: Option<String>,
}

/// `<instance>-manifest.json` of one share processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataShareProcessorSpecificManifest {
    /// 1 or 2.
    pub format: u64,
    /// Where the ingestor writes.
    pub ingestion_bucket: String,
    /// What the ingestor assumes to write there.
    #[serde(
        default,
        deserialize_with = "strict::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub ingestion_identity: Option<String>,
    /// Where the peer writes.
    pub peer_validation_bucket: String,
    /// What the peer assumes to write there.
    #[serde(
        default,
        deserialize_with = "strict::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub peer_validation_identity: Option<String>,
    /// Keys that sign validations and sum parts, by id.
    #[serde(deserialize_with = "strict::unique")]
    pub batch_signing_public_keys: BTreeMap<String, BatchSigningPublicKey>,
    /// Keys that ingestors encrypt packets to, by id.
    #[serde(deserialize_with = "strict::unique")]
    pub packet_encryption_keys: BTreeMap<String, PacketEncryptionKey>,
}

/// A batch-signing key as manifests hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BatchSigningPublicKey {
    /// PEM `PUBLIC KEY`.
    pub public_key: String,
    /// RFC 3339; the original never looks at it.
    pub expiration: String,
}

/// A packet encryption key as manifests hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PacketEncryptionKey {
    /// PEM `CERTIFICATE REQUEST`.
    pub certificate_signing_request: String,
}

/// `global-manifest.json` or `<instance>-manifest.json` of an ingestor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IngestorManifest {
    /// 1.
    pub format: u64,
    /// Who writes to our bucket.
    pub server_identity: IngestorIdentity,
    /// Keys that sign ingestion batches, by id.
    #[serde(deserialize_with = "strict::unique")]
    pub batch_signing_public_keys: BTreeMap<String, BatchSigningPublicKey>,
}

/// Who an ingestor is in clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IngestorIdentity {
    /// Of the account that writes ingestion batches.
    pub gcp_service_account_email: String,
    /// ARN of the AWS principal that writes.
    #[serde(
        default,
        deserialize_with = "strict::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub aws_iam_entity: Option<String>,
    /// The numeric id of the GCP account, as text.
    #[serde(
        default,
        deserialize_with = "strict::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub gcp_service_account_id: Option<String>,
}

/// `global-manifest.json` of the portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortalManifest {
    /// 1.
    pub format: u64,
    /// Where Second writes its sum parts.
    pub facilitator_sum_part_bucket: String,
    /// Where First writes its sum parts.
    pub pha_sum_part_bucket: String,
}

fn parse<T: DeserializeOwned>(
    kind: ManifestKind,
    bytes: &[u8],
    format: impl Fn(&T) -> u64,
) -> Result<T, ManifestError> {
    let manifest: T = serde_json::from_slice(bytes).context(JsonSnafu { kind })?;
    let format = format(&manifest);
    ensure!(kind.formats().contains(&format), FormatSnafu { kind, format });
    Ok(manifest)
}

macro_rules! json_manifest {
    ($type:ident, $kind:ident) => {
        impl $type {
            /// Parses the manifest, strictly.
            ///
            /// # Errors
            /// [`ManifestError`]. Keys are looked at when they are asked for.
            pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
                let manifest: Self = parse(ManifestKind::$kind, bytes, |manifest: &Self| manifest.format)?;
                manifest.check()?;
                Ok(manifest)
            }

            /// The manifest as JSON, indented, with a last newline.
            #[must_use]
            pub fn to_json(&self) -> String {
                let text = serde_json::to_string_pretty(self).expect("text keys and plain values are JSON");
                format!("{text}\n")
            }
        }
    };
}

json_manifest!(DataShareProcessorGlobalManifest, DataShareProcessorGlobal);
json_manifest!(DataShareProcessorSpecificManifest, DataShareProcessorSpecific);
json_manifest!(IngestorManifest, Ingestor);
json_manifest!(PortalManifest, Portal);

impl DataShareProcessorGlobalManifest {
    fn check(&self) -> Result<(), ManifestError> {
        Ok(())
    }
}

impl DataShareProcessorSpecificManifest {
    fn check(&self) -> Result<(), ManifestError> {
        StorageUrl::parse(&self.ingestion_bucket)?;
        StorageUrl::parse(&self.peer_validation_bucket)?;
        Ok(())
    }

    /// The keys that verify this share processor's batches.
    ///
    /// # Errors
    /// [`ManifestError::Key`] of the first that can't be used.
    pub fn trusted_keys(&self) -> Result<TrustedKeys, ManifestError> {
        trusted_keys(&self.batch_signing_public_keys)
    }

    /// The keys to encrypt packets to, by id.
    ///
    /// # Errors
    /// [`ManifestError::Key`] of the first that can't be used.
    pub fn packet_encryption_requests(&self) -> Result<BTreeMap<String, SigningRequest>, ManifestError> {
        let parse = |(id, key): (&String, &PacketEncryptionKey)| {
            let request = SigningRequest::parse(&key.certificate_signing_request);
            Ok((
                id.clone(),
                request.context(KeySnafu {
                    field: "packet-encryption-keys",
                    id,
                })?,
            ))
        };
        self.packet_encryption_keys.iter().map(parse).collect()
    }
}

impl IngestorManifest {
    fn check(&self) -> Result<(), ManifestError> {
        Ok(())
    }

    /// The keys that verify this ingestor's batches.
    ///
    /// # Errors
    /// [`ManifestError::Key`] of the first that can't be used.
    pub fn trusted_keys(&self) -> Result<TrustedKeys, ManifestError> {
        trusted_keys(&self.batch_signing_public_keys)
    }
}

impl PortalManifest {
    fn check(&self) -> Result<(), ManifestError> {
        StorageUrl::parse(&self.facilitator_sum_part_bucket)?;
        StorageUrl::parse(&self.pha_sum_part_bucket)?;
        Ok(())
    }
}

fn trusted_keys(keys: &BTreeMap<String, BatchSigningPublicKey>) -> Result<TrustedKeys, ManifestError> {
    let parse = |(id, key): (&String, &BatchSigningPublicKey)| {
        let public = BatchVerifyingKey::from_pem(&key.public_key);
        Ok((
            id.clone(),
            public.context(KeySnafu {
                field: "batch-signing-public-keys",
                id,
            })?,
        ))
    };
    keys.iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
