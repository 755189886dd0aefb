//! From `spec.keys` and the KeyRings' statuses to Secrets to mount. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::conditions::reasons;
use crds::key_ring::{KeyPurpose, KeyVersion, VersionState};
use crds::processor::{KeyReference, KeyUse, Keys, KeysStatus, MAX_PACKET_KEYS};

use crate::keys::version::number_of;
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

/// What a key is for, and its id: of two purposes, ids may be equal by a mistake.
pub type KeyName = (KeyPurpose, String);

/// A version of a ring that isn't retired.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionHere {
    /// What the processor's status holds of it.
    pub known: KeyUse,
    /// What its key is for.
    pub purpose: KeyPurpose,
    /// PEM `PUBLIC KEY`; `None` where the ring is gone.
    pub public_key: Option<String>,
    /// Nobody mounts it, for a reason that is told: it is new, and work needs it not yet.
    pub left_out: bool,
}

impl VersionHere {
    fn mount(&self) -> Mount {
        Mount {
            secret: self.known.secret.clone(),
            id: Some(self.known.id.clone()),
            public_key: self.public_key.clone(),
        }
    }

    /// Its purpose and id.
    #[must_use]
    pub fn name(&self) -> KeyName {
        (self.purpose, self.known.id.clone())
    }

    /// Whether it isn't used for new work yet, and never was.
    #[must_use]
    pub fn is_new(&self) -> bool {
        use VersionState::{Loaded, Published, Written};
        matches!(self.known.state, Written | Loaded | Published)
    }

    /// Whether work may mount it: a broken new version must not keep workers from starting.
    fn is_proven(&self, proven: &BTreeSet<KeyName>) -> bool {
        !self.is_new() || self.known.loaded.is_some() || proven.contains(&self.name())
    }

    /// Whether workers of ours are to look for it. Of one whose ring is gone nobody knows the public half.
    #[must_use]
    pub fn can_be_probed(&self) -> bool {
        self.is_new() && !self.left_out && self.public_key.is_some()
    }

    /// Whether it waits for workers of ours.
    #[must_use]
    pub fn waits_for_proof(&self) -> bool {
        self.can_be_probed() && self.known.loaded.is_none()
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
/// rings that are gone or forgot their versions; `proven` are keys that probes of both stages found.
#[must_use]
pub fn resolve(
    keys: &Keys,
    rings: &BTreeMap<String, Ring>,
    before: Option<&KeysStatus>,
    proven: &BTreeSet<KeyName>,
) -> Resolution {
    let mut signing = Part::of(
        std::slice::from_ref(&keys.batch_signing),
        KeyPurpose::BatchSigning,
        rings,
        before,
    );
    let mut packets = Part::of(&keys.packet_decryption, KeyPurpose::PacketEncryption, rings, before);
    refuse_equal_ids([&mut signing, &mut packets], proven);
    signing.keep_within(MAX_SIGNING_KEYS, "batchSigning", proven);
    packets.keep_within(MAX_PACKET_KEYS, "packetDecryption", proven);
    let refused = signing.refused.take().or(packets.refused.take());
    let trouble = signing.trouble.take().or(packets.trouble.take());
    // What may be missing and can't be asked for keeps a probe from starting.
    let can_be_asked = |version: &VersionHere| version.is_proven(proven) || version.can_be_probed();
    let all = KeySet {
        signing: signing.mounts(can_be_asked),
        packets: packets.mounts(can_be_asked),
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
    let work = if let Some(unusable) = refused {
        Err(unusable)
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
    /// Told although work goes on.
    trouble: Option<Trouble>,
    /// Why no work may start.
    refused: Option<Trouble>,
}

fn unusable(message: String) -> Trouble {
    Trouble {
        reason: reasons::KEY_RING_UNUSABLE,
        message,
    }
}

/// Marks of use, manifests and pins know keys by their ids. A new version with the id of another isn't mounted.
fn refuse_equal_ids(parts: [&mut Part; 2], proven: &BTreeSet<KeyName>) {
    let mut rings: BTreeMap<String, (Vec<String>, usize)> = BTreeMap::new();
    for version in parts.iter().flat_map(|part| part.versions()) {
        let (rings, proved) = rings.entry(version.known.id.clone()).or_default();
        rings.push(version.known.key_ring.clone());
        *proved += usize::from(version.is_proven(proven));
    }
    rings.retain(|_, (rings, _)| rings.len() > 1);
    for part in parts {
        let mut told = None;
        for version in part.versions_mut() {
            let Some((rings, proved)) = rings.get(&version.known.id) else {
                continue;
            };
            let message = format!(
                "KeyRings {} have both a key of the id {}: make one of them anew, with another name and keyIdPrefix",
                rings.join(" and "),
                version.known.id
            );
            version.left_out = !version.is_proven(proven);
            told = Some((*proved > 1, unusable(message)));
        }
        match told {
            Some((true, trouble)) => part.refused = part.refused.take().or(Some(trouble)),
            Some((false, trouble)) => part.trouble = part.trouble.take().or(Some(trouble)),
            None => {}
        }
    }
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
            refused: None,
        };
        for reference in references {
            if let Some(secret) = &reference.secret_ref {
                part.referred.push(Referred::Secret(secret.name.clone()));
            }
            if let Some(ring) = &reference.key_ring_ref {
                let found = rings.get(&ring.name);
                part.trouble = part.trouble.or(found.is_none().then(|| missing(&ring.name)));
                match of_ring(&ring.name, purpose, found, before) {
                    Ok(versions) => part.referred.push(Referred::Versions(versions)),
                    Err(refused) => {
                        part.referred.push(Referred::Versions(Vec::new()));
                        part.refused = part.refused.or(Some(refused));
                    }
                }
            }
        }
        part
    }

    /// New versions that no pod has room for aren't mounted: work doesn't need them yet.
    fn keep_within(&mut self, most: usize, field: &str, proven: &BTreeSet<KeyName>) {
        let count = self.mounts(|version| version.is_proven(proven)).len();
        if count > most {
            let message =
                format!("keys.{field} comes to {count} Secrets, and a pod mounts at most {most}: retire old versions");
            self.refused = self.refused.take().or(Some(unusable(message)));
        }
        let mut room = most.saturating_sub(count);
        let mut surplus = Vec::new();
        for version in self
            .versions_mut()
            .filter(|version| !version.is_proven(proven) && version.can_be_probed())
        {
            match room.checked_sub(1) {
                Some(left) => room = left,
                None => {
                    version.left_out = true;
                    surplus.push(version.known.id.clone());
                }
            }
        }
        if !surplus.is_empty() {
            let message = format!(
                "keys.{field} comes to more than {most} Secrets with {}, and a pod mounts no more: it waits until old \
                 versions are retired, or fewer keys are named",
                surplus.join(", ")
            );
            self.trouble = self.trouble.take().or(Some(unusable(message)));
        }
    }

    fn versions(&self) -> impl Iterator<Item = &VersionHere> {
        self.referred.iter().flat_map(|referred| match referred {
            Referred::Secret(_) => &[][..],
            Referred::Versions(versions) => versions,
        })
    }

    fn versions_mut(&mut self) -> impl Iterator<Item = &mut VersionHere> {
        self.referred.iter_mut().flat_map(|referred| match referred {
            Referred::Secret(_) => <&mut [VersionHere]>::default(),
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
                            .filter(|version| !version.left_out && is_wanted(version))
                            .map(VersionHere::mount),
                    );
                }
            }
        }
        mounts
    }
}

fn missing(name: &str) -> Trouble {
    Trouble {
        reason: reasons::KEY_RING_MISSING,
        message: format!("there is no KeyRing {name}: apply it again, it finds its keys again"),
    }
}

/// The versions of a ring that aren't retired: the one in use first, then youngest first. Or why none of it is mounted.
fn of_ring(
    name: &str,
    purpose: KeyPurpose,
    ring: Option<&Ring>,
    before: Option<&KeysStatus>,
) -> Result<Vec<VersionHere>, Trouble> {
    if let Some(ring) = ring
        && ring.purpose != purpose
    {
        return Err(unusable(format!(
            "KeyRing {name} is for {:?}, and keys refers to it for {purpose:?}",
            ring.purpose
        )));
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
                left_out: false,
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
            left_out: false,
        }
    }));
    versions.sort_by_key(|version| version.known.state != VersionState::InUse);
    // Whoever may write a status must not choose what pods mount.
    let foreign = versions
        .iter()
        .find(|version| number_of(name, &version.known.secret).is_none());
    match foreign {
        None => Ok(versions),
        Some(version) => Err(unusable(format!(
            "the status of KeyRing {name} names Secret {} for {}, which is none of the ring's: find out who wrote it",
            version.known.secret, version.known.id
        ))),
    }
}
