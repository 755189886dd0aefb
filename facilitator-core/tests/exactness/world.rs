//! Two parties on memory mailboxes, set back to a beginning as often as a test needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey, sha256};
use facilitator_core::formats::names::InstanceName;
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor, WorkError};
use facilitator_core::uses::UseMarks;
use jiff::Timestamp;
use mailbox::{Mailbox, MemoryMailbox};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::gate::{Gate, Gated};
use crate::support::Keys;
use crate::work::{Outcome, Task, run};
use crate::wrong::{Misread, Misreading, Reordering};

pub const SHARES: [Share; 2] = [Share::First, Share::Second];
/// When everything happens: seconds since 1970.
const NOW: i64 = 1_800_000_000;
/// Of [`crate::work::window`].
const PERIOD_SECONDS: u32 = 3_600;

pub fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

pub fn instance() -> InstanceName {
    InstanceName::parse("us-ct").unwrap()
}

/// A party's mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Ingestion,
    PeerValidation,
    Ledger,
    Portal,
}

pub fn place(share: Share, place: Place) -> usize {
    usize::from(share.index()) * 4 + place as usize
}

/// What a store holds, by mailbox.
pub type Content = Vec<BTreeMap<String, Bytes>>;

/// Tells contents apart.
pub fn digest_of(content: &Content) -> [u8; 32] {
    let mut bytes = Vec::new();
    for mailbox in content {
        bytes.extend(mailbox.len().to_le_bytes());
        for part in mailbox.iter().flat_map(|(name, object)| [name.as_bytes(), object]) {
            bytes.extend(part.len().to_le_bytes());
            bytes.extend(part);
        }
    }
    sha256(&bytes)
}

pub struct World {
    pub places: Vec<Arc<MemoryMailbox>>,
    pub keys: Keys,
    /// Values of a packet.
    pub bins: u32,
    /// The minute and the UUID of a batch's name, by its number.
    pub name: fn(u8) -> (u8, Uuid),
    packet_keys: [[Arc<[MountedPacketKey]>; 2]; 2],
}

/// Which packet keys are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounts {
    /// The first key alone.
    One,
    /// Both.
    Both,
}

/// How a worker is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Right,
    PutNotConditional,
    SignatureFirst,
    RecordAfterValidation,
    RecordBeforeMark,
    DecideBeforeAnnouncing,
    LookBeforeClaiming,
    /// A packet whose proof fails is summed.
    CountWithoutProof,
    /// A packet that is proven isn't summed, and is called invalid.
    DropClient,
}

/// Which key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    Own,
    /// A new one of ours, which everybody trusts already: the ingestor's stands in for it.
    New,
}

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub share: Share,
    pub mounts: Mounts,
    pub build: Build,
    pub format: ValidationFormat,
    pub min_clients: u64,
    pub in_memory: InMemory,
    pub signer: Signer,
    pub legacy_peer: bool,
    /// The keys are a ring's: what needs them is marked.
    pub marks: bool,
}

impl Setup {
    pub fn of(share: Share) -> Self {
        let format = ValidationFormat::ThreeObjects;
        Self {
            share,
            mounts: Mounts::Both,
            build: Build::Right,
            format,
            min_clients: 1,
            in_memory: InMemory::default(),
            signer: Signer::Own,
            legacy_peer: false,
            marks: false,
        }
    }
}

/// So little that batches are worked on as large ones are: in uploads, and looked at twice where a packet comes twice; and
/// several as many are: listed.
pub const TINY: InMemory = InMemory {
    packets: 1,
    object_bytes: 64,
    worth_listing: 2,
};

/// Short batches, several of them listed as many are.
pub fn listing() -> InMemory {
    InMemory {
        worth_listing: TINY.worth_listing,
        ..InMemory::default()
    }
}

pub fn second_key(share: Share) -> PacketDecryptionKey {
    PacketDecryptionKey::generate(&mut StdRng::seed_from_u64(77 + u64::from(share.index())))
}

fn copy_of(key: &BatchSigningKey) -> BatchSigningKey {
    BatchSigningKey::parse(key.id(), &key.to_base64().unwrap()).unwrap()
}

impl World {
    pub fn new() -> Self {
        let places = (0..8)
            .map(|n| Arc::new(MemoryMailbox::with_clock(&format!("place-{n}"), now)))
            .collect();
        let mounts = |share: Share| {
            let first = || {
                let keys = Keys::read();
                let key = if share == Share::First {
                    keys.first_packets
                } else {
                    keys.second_packets
                };
                MountedPacketKey { id: "one".into(), key }
            };
            let second = MountedPacketKey {
                id: "two".into(),
                key: second_key(share),
            };
            [Arc::from(vec![first()]), Arc::from(vec![first(), second])]
        };
        Self {
            places,
            keys: Keys::read(),
            bins: 2,
            name: |number| (number, Uuid::from_u128(number.into())),
            packet_keys: SHARES.map(mounts),
        }
    }

    pub fn content(&self) -> Content {
        self.places.iter().map(|mailbox| mailbox.snapshot()).collect()
    }

    /// Sets everything back.
    pub fn reset(&self, content: &Content) {
        for (mailbox, content) in self.places.iter().zip(content) {
            for name in mailbox.snapshot().keys().filter(|name| !content.contains_key(*name)) {
                mailbox.remove(&name.parse().unwrap());
            }
            for (name, bytes) in content {
                mailbox.replace(&name.parse().unwrap(), bytes.clone());
            }
        }
    }

    pub fn processor(&self, setup: &Setup, gate: &Arc<Gate>) -> Processor {
        let Setup {
            share,
            mounts,
            build,
            format,
            min_clients,
            in_memory,
            signer,
            legacy_peer,
            marks,
        } = *setup;
        let keys_of = |share| match share {
            Share::First => &self.keys.first,
            Share::Second => &self.keys.second,
        };
        let see = |owner: Share, which: Place| -> Arc<dyn Mailbox> {
            let number = place(owner, which);
            let store = &self.places[number];
            let inner = Arc::clone(store);
            let conditional = build != Build::PutNotConditional;
            let gated = Arc::new(Gated {
                inner,
                place: number,
                gate: Arc::clone(gate),
                conditional,
            });
            let reorder = |is_held: fn(&str) -> bool, releases: fn(&str) -> bool, first| -> Arc<dyn Mailbox> {
                let inner = Arc::clone(&gated) as Arc<dyn Mailbox>;
                Arc::new(Reordering {
                    inner,
                    is_held,
                    releases,
                    first,
                    held: Arc::default(),
                })
            };
            match (build, which) {
                (Build::SignatureFirst, Place::PeerValidation | Place::Portal) => {
                    reorder(|name| !name.ends_with(".sig"), |name| name.ends_with(".sig"), true)
                }
                (Build::RecordAfterValidation, Place::Ledger) => reorder(
                    |name| name.starts_with("records/"),
                    |name| name.starts_with("delivered/"),
                    false,
                ),
                (Build::RecordBeforeMark, Place::Ledger) => reorder(
                    |name| name.starts_with("uses/"),
                    |name| name.starts_with("delivered/"),
                    false,
                ),
                (Build::DecideBeforeAnnouncing, Place::Ledger) => reorder(
                    |name| name.starts_with("released/"),
                    |name| name.starts_with("decisions/"),
                    false,
                ),
                // What the worker sees of claims it sees before its own are there.
                (Build::LookBeforeClaiming, Place::Ledger) => reorder(
                    |name| name.starts_with("claims/"),
                    |name| name.starts_with("records/"),
                    false,
                ),
                (Build::CountWithoutProof | Build::DropClient, Place::PeerValidation) if owner == share => {
                    Arc::new(Misreading {
                        inner: gated,
                        how: match build {
                            Build::DropClient => Misread::OneLess,
                            _ => Misread::AllProven,
                        },
                        store: Arc::clone(store),
                        own_ledger: Arc::clone(&self.places[place(share, Place::Ledger)]),
                        peer_key: copy_of(keys_of(share.peer())),
                    })
                }
                _ => gated,
            }
        };
        let own = match signer {
            Signer::Own => keys_of(share),
            Signer::New => &self.keys.ingestor,
        };
        Processor {
            instance: instance(),
            share,
            legacy_peer,
            validation_format: format,
            min_clients,
            mailboxes: Mailboxes {
                ingestion: see(share, Place::Ingestion),
                peer_validation: see(share, Place::PeerValidation),
                ledger: see(share, Place::Ledger),
                peer: see(share.peer(), Place::PeerValidation),
                portal: see(share, Place::Portal),
            },
            ingestor_keys: self.keys.trusted.clone(),
            peer_keys: self.keys.trusted.clone(),
            signing_key: copy_of(own),
            other_signing_keys: Vec::new(),
            use_marks: marks.then(|| UseMarks::new(PERIOD_SECONDS)),
            packet_keys: Arc::clone(&self.packet_keys[usize::from(share.index())][usize::from(mounts == Mounts::Both)]),
            replay_guard: Some(ReplayGuard { horizon_days: 14 }),
            clock: || crate::work::window().start.timestamp(),
            reread_pause: std::time::Duration::ZERO,
            in_memory,
        }
    }

    /// Runs tasks to their end, with no gate.
    pub async fn run(&self, setup: &Setup, tasks: &[Task]) -> Result<Vec<Outcome>, WorkError> {
        run(&self.processor(setup, &Gate::open()), tasks).await
    }
}
