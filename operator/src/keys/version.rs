//! Versions of a ring's key, and the record of them: the ConfigMap `<ring>.versions`, `docs/formats.md` §7.

use std::collections::BTreeMap;

use crds::KeyRingSpec;
use crds::key_ring::{KeyPurpose, KeyRingStatus, KeyVersion, VersionState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use snafu::{Snafu, ensure};

/// The revision of the record.
pub const REVISION: u32 = 1;
/// Retired versions that are remembered.
const HISTORY: usize = 30;

/// One version. Times are when something became so; the step after another never has a time without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Version {
    /// Seconds since 1970 of its creation: part of its id and of its Secret's name. 0: older than such numbers.
    pub number: i64,
    /// The key's id in manifests and signatures.
    pub id: String,
    /// When the key was made.
    pub created: Timestamp,
    /// Its second copy is there.
    pub backed_up: Option<Timestamp>,
    /// Its Secret is there.
    pub written: Option<Timestamp>,
    /// Every worker has it.
    pub loaded: Option<Timestamp>,
    /// A person said that its certificate is issued.
    pub certified: Option<Timestamp>,
    /// It was seen in what is published.
    pub published: Option<Timestamp>,
    /// It is used for new work.
    pub promoted: Option<Timestamp>,
    /// Another is used for new work.
    pub superseded: Option<Timestamp>,
    /// Workers and manifest don't have it any more.
    pub retired: Option<Timestamp>,
    /// Its public half, PEM `PUBLIC KEY`.
    pub public_key: String,
    /// PEM `CERTIFICATE REQUEST`, of packet keys.
    pub certificate_signing_request: Option<String>,
}

impl Version {
    /// A version of which nothing but the key is made.
    #[must_use]
    pub fn new(number: i64, id: String, created: Timestamp, public_key: String, request: Option<String>) -> Self {
        Self {
            number,
            id,
            created,
            backed_up: None,
            written: None,
            loaded: None,
            certified: None,
            published: None,
            promoted: None,
            superseded: None,
            retired: None,
            public_key,
            certificate_signing_request: request,
        }
    }

    /// Whether workers mount it: it is written and not retired.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.written.is_some() && self.retired.is_none()
    }

    /// Whether it is used for new work.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.is_active() && self.promoted.is_some() && self.superseded.is_none()
    }

    /// Where it is; `None` before it is written.
    #[must_use]
    pub fn state(&self) -> Option<VersionState> {
        self.written?;
        Some(if self.retired.is_some() {
            VersionState::Retired
        } else if self.superseded.is_some() {
            VersionState::Superseded
        } else if self.promoted.is_some() {
            VersionState::InUse
        } else if self.published.is_some() {
            VersionState::Published
        } else if self.loaded.is_some() {
            VersionState::Loaded
        } else {
            VersionState::Written
        })
    }

    /// What manifests hold of it: the request of a packet key, the public key of a signing key.
    #[must_use]
    pub fn public_text(&self) -> &str {
        self.certificate_signing_request.as_deref().unwrap_or(&self.public_key)
    }
}

/// The name of a version's Secret.
#[must_use]
pub fn secret_name(ring: &str, number: i64) -> String {
    format!("{ring}.{number}")
}

/// The version whose Secret has this name; `None`: it is no Secret of the ring.
#[must_use]
pub fn number_of(ring: &str, secret: &str) -> Option<i64> {
    let digits = secret.strip_prefix(ring)?.strip_prefix('.')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    // One way to write it: no other Secret passes for the version's.
    digits
        .parse()
        .ok()
        .filter(|number| is_number && secret_name(ring, *number) == secret)
}

/// The name of its second copy.
#[must_use]
pub fn backup_name(ring: &str, number: i64) -> String {
    format!("{ring}.{number}.backup")
}

/// The name of the ConfigMap with the record.
#[must_use]
pub fn record_name(ring: &str) -> String {
    format!("{ring}.versions")
}

/// The name of the ConfigMap with what is public.
#[must_use]
pub fn public_name(ring: &str) -> String {
    format!("{ring}.public")
}

/// What the ids and names of a new version are made of.
#[must_use]
pub fn key_id(prefix: &str, number: i64) -> String {
    if number == 0 {
        prefix.to_owned()
    } else {
        format!("{prefix}-{number}")
    }
}

/// All that is known of a ring's versions. It outlives the KeyRing: nothing else remembers which Secrets are its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// [`REVISION`].
    pub revision: u32,
    /// What the keys are for.
    pub purpose: KeyPurpose,
    /// What their ids begin with.
    pub key_id_prefix: String,
    /// The value of the rotate annotation that was answered.
    #[serde(default)]
    pub rotation_answered: Option<String>,
    /// By number, oldest first.
    pub versions: Vec<Version>,
}

/// Why a record isn't believed. Nothing is done then.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
pub enum RecordError {
    /// Not our JSON.
    #[snafu(display(
        "ConfigMap {name} can't be read: {detail}; restore it from a backup, or delete it together with what is published if none of its keys was ever used"
    ))]
    Malformed {
        /// The ConfigMap.
        name: String,
        /// Why.
        detail: String,
    },
    /// It is about another kind of keys.
    #[snafu(display(
        "ConfigMap {name} is the record of keys for {purpose:?} whose ids begin with {prefix:?}, and spec says otherwise: give this KeyRing another name"
    ))]
    Other {
        /// The ConfigMap.
        name: String,
        /// Its purpose.
        purpose: KeyPurpose,
        /// Its prefix.
        prefix: String,
    },
    /// Versions contradict each other.
    #[snafu(display("ConfigMap {name}: {detail}; restore it from a backup"))]
    Inconsistent {
        /// The ConfigMap.
        name: String,
        /// What is wrong.
        detail: String,
    },
}

impl Record {
    /// Of a ring without versions.
    #[must_use]
    pub fn new(spec: &KeyRingSpec) -> Self {
        Self {
            revision: REVISION,
            purpose: spec.purpose,
            key_id_prefix: spec.key_id_prefix.clone(),
            rotation_answered: None,
            versions: Vec::new(),
        }
    }

    /// From what a status shows, where the record itself is gone.
    ///
    /// # Errors
    /// [`RecordError::Inconsistent`]: a version is left out of nothing silently.
    pub fn from_status(ring: &str, spec: &KeyRingSpec, status: Option<&KeyRingStatus>) -> Result<Self, RecordError> {
        let time = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
        let version = |known: &KeyVersion| {
            Some(Version {
                number: number_of(ring, &known.secret)?,
                id: known.id.clone(),
                created: known.created.parse().ok()?,
                backed_up: time(&known.backed_up),
                written: time(&known.written),
                loaded: time(&known.loaded),
                certified: time(&known.certified),
                published: time(&known.published),
                promoted: time(&known.promoted),
                superseded: time(&known.superseded),
                retired: time(&known.retired),
                public_key: known.public_key.clone(),
                certificate_signing_request: known.certificate_signing_request.clone(),
            })
        };
        let mut record = Self::new(spec);
        let Some(status) = status else { return Ok(record) };
        record.rotation_answered.clone_from(&status.rotation_answered);
        for known in status.versions.iter().rev() {
            let Some(version) = version(known) else {
                let name = record_name(ring);
                let detail = format!(
                    "it is gone, and status.versions says of {} what no version has",
                    known.id
                );
                return InconsistentSnafu { name, detail }.fail();
            };
            record.versions.push(version);
        }
        match record.inconsistency() {
            None => Ok(record),
            Some(detail) => {
                let detail = format!("it is gone, and status.versions can't stand in for it: {detail}");
                let name = record_name(ring);
                InconsistentSnafu { name, detail }.fail()
            }
        }
    }

    /// Reads a record, and checks that it is this ring's and whole.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(ring: &str, text: &str, spec: &KeyRingSpec) -> Result<Self, RecordError> {
        let name = record_name(ring);
        let record: Self = serde_json::from_str(text).map_err(|error| RecordError::Malformed {
            name: name.clone(),
            detail: error.to_string(),
        })?;
        let revision = record.revision;
        ensure!(
            revision == REVISION,
            MalformedSnafu {
                name,
                detail: format!("revision {revision} is another version's")
            }
        );
        ensure!(
            record.purpose == spec.purpose && record.key_id_prefix == spec.key_id_prefix,
            OtherSnafu {
                name,
                purpose: record.purpose,
                prefix: record.key_id_prefix.clone()
            }
        );
        if let Some(detail) = record.inconsistency() {
            return InconsistentSnafu { name, detail }.fail();
        }
        Ok(record)
    }

    /// The text of the ConfigMap.
    ///
    /// # Errors
    /// None in practice: it is JSON.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    fn inconsistency(&self) -> Option<String> {
        for pair in self.versions.windows(2) {
            if let [one, next] = pair
                && one.number >= next.number
            {
                return Some(format!("version {} comes after {}", next.number, one.number));
            }
        }
        let in_use: Vec<_> = self.versions.iter().filter(|version| version.is_in_use()).collect();
        if in_use.len() > 1 {
            return Some(format!("{} versions are in use", in_use.len()));
        }
        self.versions.iter().find_map(|version| {
            let expected = key_id(&self.key_id_prefix, version.number);
            let steps = [
                ("written", version.written),
                ("published", version.published),
                ("promoted", version.promoted),
                ("superseded", version.superseded),
            ];
            let gap = steps.windows(2).find(|two| two[0].1.is_none() && two[1].1.is_some());
            if version.id != expected {
                Some(format!(
                    "version {} has the id {:?}, not {expected:?}",
                    version.number, version.id
                ))
            } else if let Some(gap) = gap {
                Some(format!("{} is {} without being {}", version.id, gap[1].0, gap[0].0))
            } else if (self.purpose == KeyPurpose::PacketEncryption) != version.certificate_signing_request.is_some() {
                Some(format!(
                    "{}: a certificate signing request belongs to packet keys",
                    version.id
                ))
            } else {
                None
            }
        })
    }

    /// The version of an id.
    #[must_use]
    pub fn version(&self, id: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.id == id)
    }

    pub(super) fn version_mut(&mut self, id: &str) -> Option<&mut Version> {
        self.versions.iter_mut().find(|version| version.id == id)
    }

    /// Forgets the oldest retired versions beyond what is remembered.
    pub(super) fn prune(&mut self) {
        let retired = self.versions.iter().filter(|version| version.retired.is_some()).count();
        let mut surplus = retired.saturating_sub(HISTORY);
        self.versions.retain(|version| {
            let drop = surplus > 0 && version.retired.is_some();
            surplus -= usize::from(drop);
            !drop
        });
    }
}

/// Public keys by id, in the form that manifests hold: PEM `PUBLIC KEY`, or PEM `CERTIFICATE REQUEST` of packet keys.
pub type PublicKeys = BTreeMap<String, String>;
