//! What must be public, and what may be.

use crds::key_ring::{CertificateAuthority, KeyPurpose};

use super::Ring;
use crate::keys::version::{PublicKeys, Record, Version, key_id};

impl Ring<'_> {
    /// What must be public now.
    pub(super) fn wanted(&self, active: &[&Version]) -> PublicKeys {
        let in_use = active.iter().find(|version| version.is_in_use());
        let of = |version: &&Version| (version.id.clone(), version.public_text().to_owned());
        match self.settings.purpose {
            // All that partners may meet a signature of.
            KeyPurpose::BatchSigning => active
                .iter()
                .filter(|version| version.published.is_some() || self.may_be_public(version))
                .map(&of)
                .collect(),
            // Just one.
            KeyPurpose::PacketEncryption => {
                let may_be_next = |version: &&&Version| {
                    let is_younger = in_use.is_none_or(|in_use| in_use.number < version.number);
                    let is_old = self.after(version.created, self.settings.primary_min_age) <= self.now;
                    let certified =
                        self.settings.authority == CertificateAuthority::None || version.certified.is_some();
                    is_younger && certified && (is_old || in_use.is_none()) && self.may_be_public(version)
                };
                active
                    .iter()
                    .rfind(may_be_next)
                    .or(in_use)
                    .map(of)
                    .into_iter()
                    .collect()
            }
        }
    }

    /// Whether every worker has it: still, where nobody was told of it yet.
    fn may_be_public(&self, version: &Version) -> bool {
        version.loaded.is_some() && (self.is_written(version) || self.still_loaded(version).is_ok())
    }
}

/// What the original's rotator refuses to publish.
///
/// # Errors
/// What is wrong, for a person.
pub fn check_publication(
    purpose: KeyPurpose,
    before: Option<&PublicKeys>,
    after: &PublicKeys,
    record: &Record,
) -> Result<(), String> {
    if after.is_empty() {
        return Err("there would be no key in what is published".to_owned());
    }
    for (id, text) in after {
        let version = record.version(id).filter(|version| version.is_active());
        let version =
            version.ok_or_else(|| format!("{id} would be published and is no active version of this ring"))?;
        if version.loaded.is_none() && version.published.is_none() {
            return Err(format!("{id} would be published before every worker has it"));
        }
        if version.public_text() != text || key_id(&record.key_id_prefix, version.number) != *id {
            return Err(format!("another key would be published under the id {id}"));
        }
        if before
            .and_then(|before| before.get(id))
            .is_some_and(|before| before.trim() != text.trim())
        {
            return Err(format!(
                "the published text of {id} would change although its key doesn't"
            ));
        }
    }
    match purpose {
        KeyPurpose::PacketEncryption if after.len() != 1 => Err(format!(
            "{} packet keys would be published: a manifest holds just one",
            after.len()
        )),
        KeyPurpose::BatchSigning => {
            let known = record
                .versions
                .iter()
                .filter(|version| version.is_active() && version.published.is_some());
            let left_out: Vec<&str> = known
                .filter(|version| !after.contains_key(&version.id))
                .map(|version| version.id.as_str())
                .collect();
            if left_out.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "{} would vanish from what is published, and may still sign",
                    left_out.join(", ")
                ))
            }
        }
        KeyPurpose::PacketEncryption => Ok(()),
    }
}
