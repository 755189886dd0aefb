//! What is other in a new manifest, and what of that smells of attack or accident. Pure.

use std::collections::BTreeMap;

use crds::key_ring::KeyPurpose;
use crds::peer::{MAX_REMOVED_KEYS, PeerManifest, RemovedKey};

use super::publication::{at_most, shortened};
use crate::digest::hex_digest;

/// Digits of a key's digest in texts.
const SHOWN_DIGITS: usize = 16;
/// The most changes that are told at once.
const MAX_CHANGES: usize = 60;
/// The most that are told to be suspicious.
const MAX_SUSPICIOUS: usize = 15;
/// The longest of them, in characters.
const MAX_CHARACTERS: usize = 1_000;

/// What is other, one sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// All changes.
    pub changes: Vec<String>,
    /// Those of them that a person should look at first.
    pub suspicious: Vec<String>,
    /// Another key is under the id of one.
    pub replaced: bool,
    /// A key is under an id that had none.
    pub added: bool,
}

/// A manifest's keys by their ids.
type Keys = BTreeMap<String, String>;

/// A manifest's keys of a purpose.
fn keys(manifest: &PeerManifest, purpose: KeyPurpose) -> Keys {
    match purpose {
        KeyPurpose::BatchSigning => {
            let keys = manifest.batch_signing_keys.iter();
            keys.map(|key| (key.id.clone(), key.public_key.clone())).collect()
        }
        KeyPurpose::PacketEncryption => {
            let keys = manifest.packet_encryption_keys.iter();
            keys.map(|key| (key.id.clone(), key.public_key.clone())).collect()
        }
    }
}

/// The keys to remember once a manifest follows another, oldest first: those that it doesn't hold any more.
#[must_use]
pub fn removed_keys(known: &[RemovedKey], before: &PeerManifest, after: &PeerManifest) -> Vec<RemovedKey> {
    let mut removed = known.to_vec();
    for purpose in [KeyPurpose::BatchSigning, KeyPurpose::PacketEncryption] {
        let (before, after) = (keys(before, purpose), keys(after, purpose));
        removed.retain(|key| key.purpose != purpose || !after.contains_key(&key.id) && !before.contains_key(&key.id));
        let gone = before.into_iter().filter(|(id, _)| !after.contains_key(id));
        removed.extend(gone.map(|(id, key)| RemovedKey {
            purpose,
            id,
            sha256: hex_digest(key.as_bytes()),
        }));
    }
    let surplus = removed.len().saturating_sub(MAX_REMOVED_KEYS);
    removed.split_off(surplus)
}

impl Difference {
    /// Compares what was known with what is published now; `removed`: keys that were known before that.
    #[must_use]
    pub fn between(before: &PeerManifest, after: &PeerManifest, removed: &[RemovedKey]) -> Self {
        let mut difference = Self::default();
        let names = |manifest: &PeerManifest| {
            let names: Vec<&str> = manifest
                .documents
                .iter()
                .map(|document| document.name.as_str())
                .collect();
            names.join(" and ")
        };
        if names(before) != names(after) {
            difference.add(
                false,
                format!("read from {} instead of {}", names(after), names(before)),
            );
        }
        for purpose in [KeyPurpose::BatchSigning, KeyPurpose::PacketEncryption] {
            difference.keys(purpose, &keys(before, purpose), &keys(after, purpose), removed);
        }
        difference.expirations(before, after);
        difference.fields(&before.fields, &after.fields);
        difference.changes = at_most(difference.changes, MAX_CHANGES);
        difference.suspicious = at_most(difference.suspicious, MAX_SUSPICIOUS);
        difference
    }

    fn add(&mut self, suspicious: bool, text: String) {
        let text = shortened(&text, MAX_CHARACTERS);
        if suspicious {
            self.suspicious.push(text.clone());
        }
        self.changes.push(text);
    }

    fn keys(&mut self, purpose: KeyPurpose, before: &Keys, after: &Keys, removed: &[RemovedKey]) {
        let what = match purpose {
            KeyPurpose::BatchSigning => "batch-signing key",
            KeyPurpose::PacketEncryption => "packet encryption key",
        };
        for (id, key) in after {
            let digest = hex_digest(key.as_bytes());
            let other = |one: &&RemovedKey| one.purpose == purpose && one.id == *id && one.sha256 != digest;
            self.added |= !before.contains_key(id);
            match (before.get(id), removed.iter().find(other)) {
                (None, None) => self.add(false, format!("{what} {id:?} added ({})", shown(key))),
                (None, Some(old)) => {
                    let old = first_digits(&old.sha256);
                    let text = format!("{what} {id:?} comes back with another key ({}, was {old})", shown(key));
                    self.add(true, text);
                }
                (Some(old), _) if old != key => {
                    self.replaced = true;
                    let text = format!(
                        "{what} {id:?} replaced under its id ({}, was {})",
                        shown(key),
                        shown(old)
                    );
                    self.add(true, text);
                }
                (Some(_), _) => {}
            }
        }
        // Of packet keys one is published at a time, so that another one is the rule.
        let overlap = purpose == KeyPurpose::BatchSigning;
        for (id, key) in before.iter().filter(|(id, _)| !after.contains_key(*id)) {
            self.add(false, format!("{what} {id:?} removed ({})", shown(key)));
        }
        if after.len() < before.len() {
            self.add(
                true,
                format!("fewer {what}s than before: {}, were {}", after.len(), before.len()),
            );
        } else if overlap && !before.is_empty() && !before.values().any(|old| after.values().any(|key| key == old)) {
            self.add(true, format!("no {what} of before is left"));
        }
    }

    fn expirations(&mut self, before: &PeerManifest, after: &PeerManifest) {
        for key in &after.batch_signing_keys {
            let old = before.batch_signing_keys.iter().find(|old| old.id == key.id);
            if let Some(old) = old.filter(|old| old.expiration != key.expiration) {
                let text = format!(
                    "batch-signing key {:?} expires {}, was {}",
                    key.id, key.expiration, old.expiration
                );
                self.add(false, text);
            }
        }
    }

    fn fields(&mut self, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
        for (name, value) in after {
            match before.get(name) {
                None => self.add(false, format!("{name} added: {value}")),
                Some(old) if old != value => {
                    let verb = if name.ends_with("-bucket") { "moved" } else { "replaced" };
                    // A folder inside of the same bucket is still its owner's.
                    let suspicious = place(name, old) != place(name, value);
                    self.add(suspicious, format!("{name} {verb}: {value}, was {old}"));
                }
                Some(_) => {}
            }
        }
        for (name, value) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
            self.add(false, format!("{name} removed: was {value}"));
        }
    }
}

/// What of a field's value stands for its owner: of a bucket all but the prefix. Whose account a bucket is in can't be
/// seen from its name, so another bucket counts as another's.
fn place(name: &str, value: &str) -> String {
    if !name.ends_with("-bucket") {
        return value.to_owned();
    }
    let parts = if value.starts_with("s3://") { 4 } else { 3 };
    value.split('/').take(parts).collect::<Vec<_>>().join("/")
}

/// The first digits of a key's SHA-256.
pub(super) fn shown(key: &str) -> String {
    first_digits(&hex_digest(key.as_bytes()))
}

fn first_digits(digest: &str) -> String {
    digest.chars().take(SHOWN_DIGITS).collect()
}
