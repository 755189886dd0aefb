//! A ring's settings, from its spec.

use crds::KeyRingSpec;
use crds::key_ring::{BackupMethod, CertificateAuthority, KeyPurpose, PublicationMethod, RotationMode};
use jiff::SignedDuration;

use crate::keys::objects;

/// A signing key is public for so long before it signs.
const SIGNING_PRIMARY_MIN_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A packet key is so old before clients are told to encrypt to it.
const PACKET_PRIMARY_MIN_AGE: SignedDuration = SignedDuration::from_hours(23);
/// Versions that workers mount at once: the policies look at so many Secrets, and a pod has so many volumes.
const MAX_SIGNING_VERSIONS: usize = 4;
const MAX_PACKET_VERSIONS: usize = 8;

/// A ring's settings, from its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the keys are for.
    pub purpose: KeyPurpose,
    /// Whether versions follow each other.
    pub mode: RotationMode,
    /// Age of the youngest at which another is made.
    pub create_min_age: SignedDuration,
    /// Age, and time since it is public, at which a version is used.
    pub primary_min_age: SignedDuration,
    /// Age at which a version may be retired.
    pub retire_min_age: SignedDuration,
    /// Versions that stay.
    pub retire_min_count: usize,
    /// How long no traffic under a version must have been seen before it is retired.
    pub no_traffic: SignedDuration,
    /// Who issues certificates.
    pub authority: CertificateAuthority,
    /// Who publishes.
    pub publication: PublicationMethod,
    /// Whether a second copy of a key is written.
    pub second_copy: bool,
    /// Why no second copy can be made.
    pub unusable_backup: Option<String>,
    /// What key ids begin with.
    pub key_id_prefix: String,
}

impl Settings {
    /// Of a spec.
    #[must_use]
    pub fn of(spec: &KeyRingSpec) -> Self {
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        let rotation = &spec.rotation;
        let create_min_age = seconds(rotation.create_min_age_seconds);
        let primary = match spec.purpose {
            KeyPurpose::BatchSigning => SIGNING_PRIMARY_MIN_AGE,
            KeyPurpose::PacketEncryption => PACKET_PRIMARY_MIN_AGE,
        };
        Self {
            purpose: spec.purpose,
            mode: rotation.mode,
            create_min_age,
            // A default never contradicts what is written.
            primary_min_age: rotation
                .primary_min_age_seconds
                .map_or(primary.min(create_min_age), seconds),
            retire_min_age: seconds(rotation.retire_min_age_seconds),
            retire_min_count: usize::try_from(rotation.retire_min_count).unwrap_or(usize::MAX),
            no_traffic: seconds(rotation.no_traffic_seconds),
            authority: spec
                .certificate
                .as_ref()
                .map_or(CertificateAuthority::None, |certificate| certificate.authority),
            publication: spec.publication.method,
            second_copy: spec.backup.method == BackupMethod::Age,
            unusable_backup: objects::recipients(&spec.backup.recipients)
                .err()
                .map(|error| error.to_string()),
            key_id_prefix: spec.key_id_prefix.clone(),
        }
    }

    pub(super) fn max_versions(&self) -> usize {
        match self.purpose {
            KeyPurpose::BatchSigning => MAX_SIGNING_VERSIONS,
            KeyPurpose::PacketEncryption => MAX_PACKET_VERSIONS,
        }
    }
}
