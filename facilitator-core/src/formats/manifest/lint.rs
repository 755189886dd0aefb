//! What is wrong with a manifest, all of it at once, for the people who publish it.

use std::collections::BTreeMap;

use jiff::{Span, Timestamp};

use super::{
    BatchSigningPublicKey, DataShareProcessorGlobalManifest, DataShareProcessorSpecificManifest, IngestorManifest,
    ManifestKind, PacketEncryptionKey, PortalManifest, StorageUrl,
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

/// Checks a manifest whole, every key included. Acceptable: no finding of [`Severity::Error`].
///
/// `now` is what expiration times are compared with.
#[must_use]
pub fn lint(kind: ManifestKind, bytes: &[u8], now: Timestamp) -> Vec<Finding> {
    let mut report = Report {
        findings: Vec::new(),
        now,
    };
    let checked = match kind {
        ManifestKind::DataShareProcessorGlobal => DataShareProcessorGlobalManifest::parse(bytes).map(|manifest| {
            let identity = &manifest.server_identity;
            report.email(
                "server-identity.gcp-service-account-email",
                &identity.gcp_service_account_email,
            );
            if identity
                .aws_account_id
                .is_some_and(|id| id == 0 || id > 999_999_999_999)
            {
                report.warn(
                    "server-identity.aws-account-id",
                    "AWS account ids have at most 12 digits",
                );
            }
            report.numeric_id(
                "server-identity.gcp-service-account-id",
                identity.gcp_service_account_id.as_deref(),
            );
        }),
        ManifestKind::DataShareProcessorSpecific => DataShareProcessorSpecificManifest::parse(bytes).map(|manifest| {
            report.bucket("ingestion-bucket", &manifest.ingestion_bucket);
            report.bucket("peer-validation-bucket", &manifest.peer_validation_bucket);
            report.role("ingestion-identity", manifest.ingestion_identity.as_deref());
            report.role("peer-validation-identity", manifest.peer_validation_identity.as_deref());
            report.signing_keys(&manifest.batch_signing_public_keys);
            report.packet_keys(&manifest.packet_encryption_keys);
        }),
        ManifestKind::Ingestor => IngestorManifest::parse(bytes).map(|manifest| {
            let identity = &manifest.server_identity;
            report.email(
                "server-identity.gcp-service-account-email",
                &identity.gcp_service_account_email,
            );
            report.role("server-identity.aws-iam-entity", identity.aws_iam_entity.as_deref());
            report.numeric_id(
                "server-identity.gcp-service-account-id",
                identity.gcp_service_account_id.as_deref(),
            );
            report.signing_keys(&manifest.batch_signing_public_keys);
        }),
        ManifestKind::Portal => PortalManifest::parse(bytes).map(|manifest| {
            report.bucket("facilitator-sum-part-bucket", &manifest.facilitator_sum_part_bucket);
            report.bucket("pha-sum-part-bucket", &manifest.pha_sum_part_bucket);
            if manifest.facilitator_sum_part_bucket == manifest.pha_sum_part_bucket {
                report.warn(
                    "pha-sum-part-bucket",
                    "both share processors write to one bucket: whoever reads it can add the shares",
                );
            }
        }),
    };
    if let Err(error) = checked {
        report.error("", &error.to_string());
    }
    report
        .findings
        .sort_by(|a, b| (b.severity, &a.path).cmp(&(a.severity, &b.path)));
    report.findings
}

struct Report {
    findings: Vec<Finding>,
    now: Timestamp,
}

impl Report {
    fn error(&mut self, path: &str, message: &str) {
        self.findings.push(Finding {
            severity: Severity::Error,
            path: path.to_owned(),
            message: message.to_owned(),
        });
    }

    fn warn(&mut self, path: &str, message: &str) {
        self.findings.push(Finding {
            severity: Severity::Warning,
            path: path.to_owned(),
            message: message.to_owned(),
        });
    }

    fn email(&mut self, path: &str, email: &str) {
        if !email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        {
            self.warn(path, "this is no e-mail address of a service account");
        }
    }

    fn numeric_id(&mut self, path: &str, id: Option<&str>) {
        if id.is_some_and(|id| id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit())) {
            self.warn(path, "GCP's ids of service accounts are decimal numbers");
        }
    }

    fn role(&mut self, path: &str, role: Option<&str>) {
        if role.is_some_and(|role| !role.starts_with("arn:aws") && !role.contains('@')) {
            self.warn(
                path,
                "this is neither an ARN nor the e-mail address of a service account",
            );
        }
    }

    fn bucket(&mut self, path: &str, url: &str) {
        if let Ok(StorageUrl::Local { .. }) = StorageUrl::parse(url) {
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
        let mut seen: BTreeMap<[u8; 65], &str> = BTreeMap::new();
        for (id, key) in keys {
            match BatchVerifyingKey::from_pem(&key.public_key) {
                Err(error) => self.error(&format!("{FIELD}.{id}.public-key"), &error.to_string()),
                Ok(public) => {
                    if let Some(other) = seen.insert(*public.point(), id) {
                        self.warn(
                            &format!("{FIELD}.{id}.public-key"),
                            &format!("the same key as {other:?}"),
                        );
                    }
                }
            }
            self.expiration(&format!("{FIELD}.{id}.expiration"), &key.expiration);
        }
    }

    fn expiration(&mut self, path: &str, expiration: &str) {
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
        for (id, key) in keys {
            let path = format!("{FIELD}.{id}.certificate-signing-request");
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
