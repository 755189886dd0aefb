//! From `spec.keys` and the KeyRings' statuses to Secrets to mount. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::conditions::reasons;
use crds::key_ring::{KeyPurpose, KeyVersion, VersionState};
use crds::processor::{KeyReference, KeyUse, Keys, KeysStatus, MAX_PACKET_KEYS};

use crate::workload::{KeySet, Mount};

/// The most signing Secrets of a pod. The admission policies of the cluster chart look at as many.
const MAX_SIGNING_KEYS: usize = 4;

/// A KeyRing as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// What its keys are for.
    pub purpose: KeyPurpose,
    /// Its versions, retired ones too.
    pub versions: Vec<KeyVersion>,
}

/// Why keys can't be mounted, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// A version of a ring that isn't retired.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionHere {
    /// What the processor's status holds of it.
    pub known: KeyUse,
    /// What its key is for.
    pub purpose: KeyPurpose,
    /// PEM `PUBLIC KEY`; `None` where the ring is gone.
    pub public_key: Option<String>,
}

impl VersionHere {
    fn mount(&self) -> Mount {
        Mount {
            secret: self.known.secret.clone(),
            id: Some(self.known.id.clone()),
            public_key: self.public_key.clone(),
        }
    }

    /// Whether work may mount it: a broken new version must not keep workers from starting.
    fn is_proven(&self, proven: &BTreeSet<String>) -> bool {
        self.known.loaded.is_some() || self.known.state != VersionState::Written || proven.contains(&self.known.id)
    }

    /// Whether it waits for workers of ours.
    #[must_use]
    pub fn waits_for_proof(&self) -> bool {
        self.known.state == VersionState::Written && self.known.loaded.is_none()
    }
}

/// What follows from a spec and its rings.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// What workers mount; or why none may start.
    pub work: Result<KeySet, Trouble>,
    /// Told although work goes on.
    pub trouble: Option<Trouble>,
    /// All versions of the rings that aren't retired.
    pub versions: Vec<VersionHere>,
    /// What probes mount: all of it.
    pub all: KeySet,
    /// Whether the spec refers to rings at all.
    pub has_rings: bool,
}

/// Resolves. `rings` holds what was found of each name that the spec refers to; `before` is what the status remembers, for
/// rings that are gone or forgot their versions; `proven` are ids of keys that probes of both stages found.
#[must_use]
pub fn resolve(
    keys: &Keys,
    rings: &BTreeMap<String, Ring>,
    before: Option<&KeysStatus>,
    proven: &BTreeSet<String>,
) -> Resolution {
    let signing = Part::of(
        std::slice::from_ref(&keys.batch_signing),
        KeyPurpose::BatchSigning,
        rings,
        before,
    );
    let packets = Part::of(&keys.packet_decryption, KeyPurpose::PacketEncryption, rings, before);
    let troubles = [&signing.trouble, &packets.trouble];
    let trouble = troubles.into_iter().flatten().next().cloned();
    let all = KeySet {
        signing: signing.mounts(|_| true),
        packets: packets.mounts(|_| true),
    };
    let work = KeySet {
        signing: signing.mounts(|version| version.is_proven(proven)),
        packets: packets.mounts(|version| version.is_proven(proven)),
    };
    let first = keys.batch_signing.key_ring_ref.as_ref();
    let signs = first.is_none_or(|_| {
        signing
            .versions()
            .any(|version| version.known.state == VersionState::InUse)
    });
    let no_key = |what: &str, advice: &str| Trouble {
        reason: reasons::NO_KEY_YET,
        message: format!("{what}: {advice}"),
    };
    let too_many = |count: usize, most: usize, field: &str| {
        (count > most).then(|| Trouble {
            reason: reasons::KEY_RING_UNUSABLE,
            message: format!(
                "keys.{field} comes to {count} Secrets, and a pod mounts at most {most}: retire old versions"
            ),
        })
    };
    let work = if let Some(unusable) = troubles
        .into_iter()
        .flatten()
        .find(|trouble| trouble.reason == reasons::KEY_RING_UNUSABLE)
    {
        Err(unusable.clone())
    } else if !signs || work.signing.is_empty() {
        Err(trouble.clone().unwrap_or_else(|| {
            no_key(
                "keys.batchSigning has no key that signs yet",
                "see what its KeyRing waits for",
            )
        }))
    } else if work.packets.is_empty() {
        let advice = "see what its KeyRing waits for";
        Err(trouble
            .clone()
            .unwrap_or_else(|| no_key("keys.packetDecryption has no key that workers have yet", advice)))
    } else if let Some(many) = too_many(all.signing.len(), MAX_SIGNING_KEYS, "batchSigning")
        .or_else(|| too_many(all.packets.len(), MAX_PACKET_KEYS, "packetDecryption"))
    {
        Err(many)
    } else {
        Ok(work)
    };
    Resolution {
        work,
        trouble,
        has_rings: signing.has_rings() || packets.has_rings(),
        all,
        versions: signing.versions().chain(packets.versions()).cloned().collect(),
    }
}

/// What one reference comes to.
enum Referred {
    Secret(String),
    Versions(Vec<VersionHere>),
}

/// The references of one purpose.
struct Part {
    referred: Vec<Referred>,
    trouble: Option<Trouble>,
}

impl Part {
    fn of(
        references: &[KeyReference],
        purpose: KeyPurpose,
        rings: &BTreeMap<String, Ring>,
        before: Option<&KeysStatus>,
    ) -> Self {
        let mut part = Self {
            referred: Vec::new(),
            trouble: None,
        };
        for reference in references {
            if let Some(secret) = &reference.secret_ref {
                part.referred.push(Referred::Secret(secret.name.clone()));
            }
            if let Some(ring) = &reference.key_ring_ref {
                let (versions, trouble) = of_ring(&ring.name, purpose, rings.get(&ring.name), before);
                part.referred.push(Referred::Versions(versions));
                part.trouble = part.trouble.or(trouble);
            }
        }
        part
    }

    fn versions(&self) -> impl Iterator<Item = &VersionHere> {
        self.referred.iter().flat_map(|referred| match referred {
            Referred::Secret(_) => &[][..],
            Referred::Versions(versions) => versions,
        })
    }

    fn has_rings(&self) -> bool {
        self.referred
            .iter()
            .any(|referred| matches!(referred, Referred::Versions(_)))
    }

    fn mounts(&self, is_wanted: impl Fn(&VersionHere) -> bool) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for referred in &self.referred {
            match referred {
                Referred::Secret(secret) => mounts.push(Mount {
                    secret: secret.clone(),
                    id: None,
                    public_key: None,
                }),
                Referred::Versions(versions) => {
                    mounts.extend(
                        versions
                            .iter()
                            .filter(|version| is_wanted(version))
                            .map(VersionHere::mount),
                    );
                }
            }
        }
        mounts
    }
}

/// The versions of a ring that aren't retired: the one in use first, then youngest first.
fn of_ring(
    name: &str,
    purpose: KeyPurpose,
    ring: Option<&Ring>,
    before: Option<&KeysStatus>,
) -> (Vec<VersionHere>, Option<Trouble>) {
    if let Some(ring) = ring
        && ring.purpose != purpose
    {
        let message = format!(
            "KeyRing {name} is for {:?}, and keys refers to it for {purpose:?}",
            ring.purpose
        );
        let trouble = Trouble {
            reason: reasons::KEY_RING_UNUSABLE,
            message,
        };
        return (Vec::new(), Some(trouble));
    }
    let remembered: Vec<&KeyUse> = before
        .iter()
        .flat_map(|before| &before.versions)
        .filter(|known| known.key_ring == name)
        .collect();
    let listed = ring.map_or(&[][..], |ring| &ring.versions);
    let mut versions: Vec<VersionHere> = listed
        .iter()
        .filter(|version| version.state != VersionState::Retired)
        .map(|version| {
            let known = remembered.iter().find(|known| known.id == version.id);
            VersionHere {
                known: KeyUse {
                    key_ring: name.to_owned(),
                    id: version.id.clone(),
                    secret: version.secret.clone(),
                    state: version.state,
                    loaded: known.and_then(|known| known.loaded.clone()),
                    published: known.and_then(|known| known.published.clone()),
                    observed_until: known.and_then(|known| known.observed_until.clone()),
                    last_used: known.and_then(|known| known.last_used.clone()),
                    needed_by: known.and_then(|known| known.needed_by.clone()),
                },
                purpose,
                public_key: Some(version.public_key.clone()),
            }
        })
        .collect();
    // A ring that is gone, or that lost its memory, must not take keys from workers that need them.
    let has_another = versions
        .iter()
        .any(|version| version.known.state == VersionState::InUse);
    let lost = remembered
        .into_iter()
        .filter(|known| listed.iter().all(|version| version.id != known.id));
    versions.extend(lost.map(|known| {
        let mut known = known.clone();
        if has_another && known.state == VersionState::InUse {
            known.state = VersionState::Superseded;
        }
        VersionHere {
            known,
            purpose,
            public_key: None,
        }
    }));
    versions.sort_by_key(|version| version.known.state != VersionState::InUse);
    let missing = ring.is_none().then(|| Trouble {
        reason: reasons::KEY_RING_MISSING,
        message: format!("there is no KeyRing {name}: apply it again, it finds its keys again"),
    });
    (versions, missing)
}
