//! Two processors in memory, and batches for them.

use std::sync::Arc;

use anyhow::Context;
use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey, TrustedKeys};
use facilitator_core::formats::names::{AggregationId, BatchId, BatchTime, InstanceName, WindowId};
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor};
use facilitator_core::sample::{self, Fault, IngestionObjects, Recipient, Sample, SampleSpec};
use mailbox::{Mailbox, MemoryMailbox};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The keys of all who take part, as texts: each processor parses its own.
pub struct Keys {
    ingestor: BatchSigningKey,
    signing: [String; 2],
    packets: [String; 2],
}

impl Keys {
    pub fn new() -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(1);
        let signing =
            |rng: &mut StdRng| Ok::<_, anyhow::Error>(BatchSigningKey::generate("s", rng).to_base64()?.to_string());
        Ok(Self {
            ingestor: BatchSigningKey::generate("ingestor", &mut rng),
            signing: [signing(&mut rng)?, signing(&mut rng)?],
            packets: std::array::from_fn(|_| PacketDecryptionKey::generate(&mut rng).to_base64().to_string()),
        })
    }

    pub fn packet_key(&self, share: Share) -> anyhow::Result<PacketDecryptionKey> {
        Ok(PacketDecryptionKey::parse(&self.packets[usize::from(share.index())])?)
    }

    /// Batch `number` of `packets`: one a minute, and the next after a day at the first minute again.
    pub fn sample(&self, bins: u32, packets: usize, number: u32, faults: Vec<Fault>) -> anyhow::Result<Sample> {
        let minute = number % (24 * 60);
        let recipient = |share| {
            let key = self.packet_key(share)?;
            Ok::<_, anyhow::Error>(Recipient {
                public_point: *key.public_point(),
                key_id: Some("p".to_owned()),
            })
        };
        let spec = SampleSpec {
            aggregation: AggregationId::parse("bench")?,
            time: BatchTime::parse_path(&format!("2026/11/20/{:02}/{:02}", minute / 60, minute % 60))?,
            batch_uuid: uuid::Uuid::from_u128(u128::from(bins) << 32 | u128::from(number)),
            bins,
            packets,
            epsilon: 0.1,
            hamming_weight: None,
            batch_start_time: 0,
            batch_end_time: 1,
            seed: 3,
            faults,
        };
        Ok(sample::make(
            &spec,
            &[recipient(Share::First)?, recipient(Share::Second)?],
            &self.ingestor,
        )?)
    }
}

/// Both parties' mailboxes.
pub struct World<'a> {
    keys: &'a Keys,
    ingestion: [MemoryMailbox; 2],
    peer: [MemoryMailbox; 2],
    pub ledger: [MemoryMailbox; 2],
    portal: [MemoryMailbox; 2],
}

impl<'a> World<'a> {
    pub fn new(keys: &'a Keys) -> Self {
        let four = |name: &str| [MemoryMailbox::new(name), MemoryMailbox::new(name)];
        Self {
            keys,
            ingestion: four("ingestion"),
            peer: four("peer"),
            ledger: four("ledger"),
            portal: four("portal"),
        }
    }

    /// Puts a batch before one party.
    pub async fn put(&self, share: Share, id: &BatchId, objects: &IngestionObjects) -> anyhow::Result<()> {
        for (part, bytes) in objects.in_put_order() {
            let mailbox = &self.ingestion[usize::from(share.index())];
            mailbox.replace(&id.ingestion_key(part), bytes.to_vec());
        }
        Ok(())
    }

    /// A party that goes on from what is there; where `fresh`, with an empty ledger and nothing delivered.
    pub fn processor(&self, share: Share, fresh: bool) -> anyhow::Result<Processor> {
        let (own, other) = (usize::from(share.index()), usize::from(share.peer().index()));
        let empty = |name: &str| -> Arc<dyn Mailbox> { Arc::new(MemoryMailbox::new(name)) };
        let there = |mailbox: &MemoryMailbox| -> Arc<dyn Mailbox> { Arc::new(mailbox.clone()) };
        let signing_key = BatchSigningKey::parse("s", &self.keys.signing[own])?;
        let peer_key = BatchSigningKey::parse("s", &self.keys.signing[other])?;
        let trusted =
            |key: &BatchSigningKey| TrustedKeys::from_iter([(key.id().to_owned(), key.verifying_key().clone())]);
        Ok(Processor {
            instance: InstanceName::parse("bench")?,
            share,
            legacy_peer: false,
            validation_format: ValidationFormat::ThreeObjects,
            min_clients: 1,
            mailboxes: Mailboxes {
                ingestion: there(&self.ingestion[own]),
                peer_validation: there(&self.peer[own]),
                ledger: if fresh {
                    empty("ledger")
                } else {
                    there(&self.ledger[own])
                },
                peer: if fresh { empty("peer") } else { there(&self.peer[other]) },
                portal: if fresh {
                    empty("portal")
                } else {
                    there(&self.portal[own])
                },
            },
            ingestor_keys: trusted(&self.keys.ingestor),
            peer_keys: trusted(&peer_key),
            signing_key,
            other_signing_keys: Vec::new(),
            use_marks: None,
            packet_keys: Arc::new([MountedPacketKey {
                id: "p".to_owned(),
                key: self.keys.packet_key(share)?,
            }]),
            replay_guard: Some(ReplayGuard { horizon_days: 14 }),
            clock: jiff::Timestamp::now,
            reread_pause: std::time::Duration::ZERO,
            in_memory: InMemory::default(),
        })
    }

    /// A party that sums again: everything there, but no plan, release or sum of an earlier round.
    pub fn summing(&self, share: Share) -> anyhow::Result<Processor> {
        let mut processor = self.processor(share, false)?;
        let ledger = MemoryMailbox::new("ledger");
        for (name, bytes) in self.ledger[usize::from(share.index())].snapshot() {
            if name.starts_with("records/") || name.starts_with("delivered/") {
                ledger.replace(&mailbox::ObjectKey::parse(&name)?, bytes);
            }
        }
        processor.mailboxes.ledger = Arc::new(ledger);
        processor.mailboxes.portal = Arc::new(MemoryMailbox::new("portal"));
        Ok(processor)
    }

    /// The window that holds every sample.
    pub fn window() -> anyhow::Result<WindowId> {
        WindowId::parse("bench/202611200000-202611210000").context("the window")
    }
}
