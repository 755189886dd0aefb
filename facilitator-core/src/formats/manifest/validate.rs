//! The one validator of manifests: all that is wrong at once, for the people who publish one and for whoever reads one.

use std::collections::BTreeMap;

use jiff::{Span, Timestamp};

use super::{
    BatchSigningPublicKey, DataShareProcessorGlobalManifest, DataShareProcessorSpecificManifest, IngestorManifest,
    Manifest, ManifestKind, PacketEncryptionKey, PortalManifest, StorageUrl,
};
use crate::crypto::BatchVerifyingKey;
use crate::crypto::csr::SigningRequest;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, and is probably not meant.
    Warning,
    /// Partners can't use the manifest, or a part of it.
    Error,
}

/// What a manifest is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is to be published: what others refuse is an error.
    Publish,
    /// Somebody else published it: what can be read without doubt is taken.
    Read,
}

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: names of fields joined by dots, empty for the whole manifest.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Expiry that is nearer is worth a warning.
const SOON_DAYS: i64 = 30;
/// The longest manifest that is read; the original's have some kilobytes.
pub const MAX_MANIFEST_BYTES: usize = 256 * 1024;
/// The most keys of a kind in one manifest.
pub const MAX_KEYS: usize = 64;
/// The longest id of a key.
pub const MAX_KEY_ID_BYTES: usize = 253;
/// The longest bucket URL, e-mail address, role or account id.
pub const MAX_TEXT_BYTES: usize = 512;
/// The longest expiration time.
const MAX_TIME_BYTES: usize = 64;

/// What came of checking a manifest.
#[derive(Clone, Debug)]
pub struct Validation {
    /// The manifest, where it could be parsed; usable only without a finding of [`Severity::Error`].
    pub manifest: Option<Manifest>,
    /// All that is to mend, errors first.
    pub findings: Vec<Finding>,
}

impl Validation {
    /// The manifest with its warnings.
    ///
    /// # Errors
    /// The errors, where there is one: nobody should use such a manifest, or a part of it.
    pub fn accepted(self) -> Result<(Manifest, Vec<Finding>), Vec<Finding>> {
        let (errors, warnings): (Vec<_>, Vec<_>) = self
            .findings
            .into_iter()
            .partition(|finding| finding.severity == Severity::Error);
        match self.manifest {
            Some(manifest) if errors.is_empty() => Ok((manifest, warnings)),
            _ => Err(errors),
        }
    }
}

/// Checks a manifest whole, every key included, for all who read one: the operator, and `facilitator lint-manifest`.
///
/// `now` is what expiration times are compared with.
#[must_use]
pub fn validate(kind: ManifestKind, bytes: &[u8], purpose: Purpose, now: Timestamp) -> Validation {
    let mut report = Report {
        findings: Vec::new(),
        purpose,
        now,
    };
    let parsed = if bytes.len() > MAX_MANIFEST_BYTES {
        Err(format!(
            "it has {} bytes; {MAX_MANIFEST_BYTES} are read at most",
            bytes.len()
        ))
    } else {
        Manifest::parse(kind, bytes).map_err(|error| error.to_string())
    };
    let manifest = match parsed {
        Ok(manifest) => {
            report.manifest(&manifest);
            Some(manifest)
        }
        Err(error) => {
            report.error("", &error);
            None
        }
    };
    let mut findings = report.findings;
    findings.sort_by(|a, b| (b.severity, &a.path).cmp(&(a.severity, &b.path)));
    Validation { manifest, findings }
}

struct Report {
    findings: Vec<Finding>,
    purpose: Purpose,
    now: Timestamp,
}

impl Report {
    fn manifest(&mut self, manifest: &Manifest) {
        match manifest {
            Manifest::DataShareProcessorGlobal(manifest) => self.processor_global(manifest),
            Manifest::DataShareProcessorSpecific(manifest) => self.processor_specific(manifest),
            Manifest::Ingestor(manifest) => self.ingestor(manifest),
            Manifest::Portal(manifest) => self.portal(manifest),
        }
    }

    fn processor_global(&mut self, manifest: &DataShareProcessorGlobalManifest) {
        let identity = &manifest.server_identity;
        self.email(
            "server-identity.gcp-service-account-email",
            &identity.gcp_service_account_email,
        );
        if identity
            .aws_account_id
            .is_some_and(|id| id == 0 || id > 999_999_999_999)
        {
            self.warn(
                "server-identity.aws-account-id",
                "AWS account ids have at most 12 digits",
            );
        }
        self.numeric_id(
            "server-identity.gcp-service-account-id",
            identity.gcp_service_account_id.as_deref(),
        );
        if identity.aws_account_id.is_some() && identity.gcp_service_account_id.is_some() {
            let severity = match self.purpose {
                Purpose::Publish => Severity::Error,
                Purpose::Read => Severity::Warning,
            };
            self.find(
                severity,
                "server-identity",
                "it holds both aws-account-id and gcp-service-account-id: give at most one",
            );
        }
    }

    fn processor_specific(&mut self, manifest: &DataShareProcessorSpecificManifest) {
        self.bucket("ingestion-bucket", &manifest.ingestion_bucket);
        self.bucket("peer-validation-bucket", &manifest.peer_validation_bucket);
        self.role("ingestion-identity", manifest.ingestion_identity.as_deref());
        self.role("peer-validation-identity", manifest.peer_validation_identity.as_deref());
        self.signing_keys(&manifest.batch_signing_public_keys);
        self.packet_keys(&manifest.packet_encryption_keys);
    }

    fn ingestor(&mut self, manifest: &IngestorManifest) {
        let identity = &manifest.server_identity;
        self.email(
            "server-identity.gcp-service-account-email",
            &identity.gcp_service_account_email,
        );
        self.role("server-identity.aws-iam-entity", identity.aws_iam_entity.as_deref());
        self.numeric_id(
            "server-identity.gcp-service-account-id",
            identity.gcp_service_account_id.as_deref(),
        );
        self.signing_keys(&manifest.batch_signing_public_keys);
    }

    fn portal(&mut self, manifest: &PortalManifest) {
        self.bucket("facilitator-sum-part-bucket", &manifest.facilitator_sum_part_bucket);
        self.bucket("pha-sum-part-bucket", &manifest.pha_sum_part_bucket);
        if manifest.facilitator_sum_part_bucket == manifest.pha_sum_part_bucket {
            self.warn(
                "pha-sum-part-bucket",
                "both share processors write to one bucket: whoever reads it can add the shares",
            );
        }
    }

    fn error(&mut self, path: &str, message: &str) {
        self.find(Severity::Error, path, message);
    }

    fn warn(&mut self, path: &str, message: &str) {
        self.find(Severity::Warning, path, message);
    }

    fn find(&mut self, severity: Severity, path: &str, message: &str) {
        self.findings.push(Finding {
            severity,
            path: path.to_owned(),
            message: message.to_owned(),
        });
    }

    /// Text that ends up in statuses, logs and requests. Whether it can be used at all.
    fn text(&mut self, path: &str, text: &str, most: usize) -> bool {
        let problem = if text.is_empty() {
            "it is empty".to_owned()
        } else if text.len() > most {
            format!("it has {} bytes; {most} are read at most", text.len())
        } else if text.chars().any(char::is_control) {
            "it holds a control character".to_owned()
        } else {
            return true;
        };
        self.error(path, &problem);
        false
    }

    /// Whether an id of a key can be used; its path for findings.
    fn key_id(&mut self, field: &str, id: &str) -> Option<String> {
        // A path with an unreadable id in it would be no help.
        let shown: String = id.escape_debug().take(MAX_KEY_ID_BYTES).collect();
        let path = format!("{field}.{shown}");
        self.text(&path, id, MAX_KEY_ID_BYTES).then_some(path)
    }

    fn key_count(&mut self, field: &str, count: usize) {
        if count > MAX_KEYS {
            self.error(field, &format!("{count} keys; {MAX_KEYS} are read at most"));
        }
    }

    fn email(&mut self, path: &str, email: &str) {
        if !self.text(path, email, MAX_TEXT_BYTES) {
            return;
        }
        if !email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        {
            self.warn(path, "this is no e-mail address of a service account");
        }
    }

    fn numeric_id(&mut self, path: &str, id: Option<&str>) {
        let Some(id) = id else { return };
        if self.text(path, id, MAX_TEXT_BYTES) && !id.bytes().all(|b| b.is_ascii_digit()) {
            self.warn(path, "GCP's ids of service accounts are decimal numbers");
        }
    }

    fn role(&mut self, path: &str, role: Option<&str>) {
        let Some(role) = role else { return };
        if self.text(path, role, MAX_TEXT_BYTES) && !role.starts_with("arn:aws") && !role.contains('@') {
            self.warn(
                path,
                "this is neither an ARN nor the e-mail address of a service account",
            );
        }
    }

    fn bucket(&mut self, path: &str, url: &str) {
        if self.text(path, url, MAX_TEXT_BYTES)
            && let Ok(StorageUrl::Local { .. }) = StorageUrl::parse(url)
        {
            self.warn(
                path,
                "this is a path on the reader's own disk: write gs://BUCKET[/PREFIX] or s3://REGION/BUCKET[/PREFIX]",
            );
        }
    }

    fn signing_keys(&mut self, keys: &BTreeMap<String, BatchSigningPublicKey>) {
        const FIELD: &str = "batch-signing-public-keys";
        if keys.is_empty() {
            self.error(FIELD, "no key: nobody can verify these batches");
        }
        self.key_count(FIELD, keys.len());
        let mut seen: BTreeMap<[u8; 65], &str> = BTreeMap::new();
        for (id, key) in keys {
            let Some(path) = self.key_id(FIELD, id) else { continue };
            match BatchVerifyingKey::from_pem(&key.public_key) {
                Err(error) => self.error(&format!("{path}.public-key"), &error.to_string()),
                Ok(public) => {
                    if let Some(other) = seen.insert(*public.point(), id) {
                        self.warn(&format!("{path}.public-key"), &format!("the same key as {other:?}"));
                    }
                }
            }
            self.expiration(&format!("{path}.expiration"), &key.expiration);
        }
    }

    fn expiration(&mut self, path: &str, expiration: &str) {
        if !self.text(path, expiration, MAX_TIME_BYTES) {
            return;
        }
        let Ok(expires) = expiration.parse::<Timestamp>() else {
            return self.warn(path, "this is no RFC 3339 time, such as 2123-06-30T00:00:00Z");
        };
        let soon = self
            .now
            .checked_add(Span::new().hours(24 * SOON_DAYS))
            .unwrap_or(Timestamp::MAX);
        if expires <= self.now {
            self.warn(path, "the key has expired: partners may refuse it");
        } else if expires <= soon {
            self.warn(path, &format!("the key expires within {SOON_DAYS} days"));
        }
    }

    fn packet_keys(&mut self, keys: &BTreeMap<String, PacketEncryptionKey>) {
        const FIELD: &str = "packet-encryption-keys";
        match keys.len() {
            0 => self.error(FIELD, "no key: ingestors can't encrypt packets"),
            1 => {}
            _ => self.warn(FIELD, "more than one key: publish the one that ingestors shall use"),
        }
        self.key_count(FIELD, keys.len());
        for (id, key) in keys {
            let Some(path) = self.key_id(FIELD, id) else { continue };
            let path = format!("{path}.certificate-signing-request");
            match SigningRequest::parse(&key.certificate_signing_request) {
                Err(error) => self.error(&path, &error.to_string()),
                Ok(request) => {
                    if !request.signature_verifies {
                        self.error(&path, "the request isn't signed by the key that it holds");
                    }
                    if !request.common_name.is_some_and(|name| name.contains(".certificates.")) {
                        self.warn(
                            &path,
                            "its common name isn't of the form NAMESPACE.ENVIRONMENT.certificates.DOMAIN",
                        );
                    }
                }
            }
        }
    }
}
