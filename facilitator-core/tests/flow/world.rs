//! Two parties on memory mailboxes, with the original's keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, aggregate};
use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::PacketDecryptionKey;
use facilitator_core::formats::ledger::WindowResult;
use facilitator_core::formats::names::{AggregationId, BatchId, BatchTime, InstanceName, SumPartPart, WindowId};
use facilitator_core::formats::sum_part::SumPart;
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::intake::{IntakeOutcome, take_in};
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor};
use facilitator_core::sample::{Fault, FaultKind, Recipient, Sample, SampleSpec, make};
use jiff::Timestamp;
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey,
    ObjectMeta, PutOutcome, Upload,
};
use uuid::Uuid;

use crate::support::Keys;

/// When everything happens, unless a test says otherwise: seconds since 1970.
pub const NOW: i64 = 1_800_000_000;

pub fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The mailboxes of both parties.
pub struct World {
    /// By share: what the ingestor writes, what the peer writes, own ledger, portal.
    pub ingestion: [Arc<MemoryMailbox>; 2],
    pub peer_validation: [Arc<MemoryMailbox>; 2],
    pub ledger: [Arc<MemoryMailbox>; 2],
    pub portal: [Arc<MemoryMailbox>; 2],
}

impl World {
    pub fn new() -> Self {
        let mailboxes =
            |name: &str| [0, 1].map(|n| Arc::new(MemoryMailbox::with_clock(&format!("{name}-{n}"), || second(NOW))));
        Self {
            ingestion: mailboxes("ingestion"),
            peer_validation: mailboxes("peer"),
            ledger: mailboxes("ledger"),
            portal: mailboxes("portal"),
        }
    }

    pub fn processor(&self, share: Share) -> Processor {
        self.processor_through(share, |mailbox| mailbox)
    }

    /// A processor that sees its mailboxes through `wrap`.
    pub fn processor_through(&self, share: Share, wrap: impl Fn(Arc<dyn Mailbox>) -> Arc<dyn Mailbox>) -> Processor {
        let keys = Keys::read();
        let (own, peer) = (usize::from(share.index()), usize::from(share.peer().index()));
        let see = |mailbox: &Arc<MemoryMailbox>| wrap(Arc::clone(mailbox) as Arc<dyn Mailbox>);
        let (signing_key, packet_key) = match share {
            Share::First => (keys.first, keys.first_packets),
            Share::Second => (keys.second, keys.second_packets),
        };
        Processor {
            instance: InstanceName::parse("us-ct-g-enpa").unwrap(),
            share,
            legacy_peer: false,
            validation_format: ValidationFormat::ThreeObjects,
            min_clients: 1,
            mailboxes: Mailboxes {
                ingestion: see(&self.ingestion[own]),
                peer_validation: see(&self.peer_validation[own]),
                ledger: see(&self.ledger[own]),
                peer: see(&self.peer_validation[peer]),
                portal: see(&self.portal[own]),
            },
            ingestor_keys: keys.trusted.clone(),
            peer_keys: keys.trusted,
            signing_key,
            other_signing_keys: Vec::new(),
            use_marks: None,
            packet_keys: Arc::new([mounted("packets", packet_key)]),
            replay_guard: Some(ReplayGuard { horizon_days: 14 }),
            clock: || second(NOW),
            reread_pause: std::time::Duration::ZERO,
            in_memory: InMemory::default(),
        }
    }

    /// Puts a sample batch of `packets` into both ingestion mailboxes.
    pub fn sample(&self, n: u8, packets: usize, faults: &[(usize, FaultKind)]) -> Sample {
        self.sample_of(n, packets, 8, faults)
    }

    pub fn sample_of(&self, n: u8, packets: usize, bins: u32, faults: &[(usize, FaultKind)]) -> Sample {
        self.sample_with(n, packets, bins, 0.23, faults)
    }

    pub fn sample_with(&self, n: u8, packets: usize, bins: u32, epsilon: f64, faults: &[(usize, FaultKind)]) -> Sample {
        let keys = Keys::read();
        let spec = SampleSpec {
            aggregation: AggregationId::parse("kittens-seen").unwrap(),
            time: BatchTime::parse_path(&format!("2026/11/20/00/{n:02}")).unwrap(),
            batch_uuid: Uuid::from_u128(u128::from(n)),
            bins,
            packets,
            epsilon,
            hamming_weight: None,
            batch_start_time: 1,
            batch_end_time: 2,
            seed: 1,
            faults: faults
                .iter()
                .map(|(packet, kind)| Fault {
                    packet: *packet,
                    kind: *kind,
                })
                .collect(),
        };
        let recipient = |key: &PacketDecryptionKey| Recipient {
            public_point: *key.public_point(),
            key_id: Some("packets".into()),
        };
        let recipients = [recipient(&keys.first_packets), recipient(&keys.second_packets)];
        let sample = make(&spec, &recipients, &keys.ingestor).unwrap();
        for (mailbox, objects) in self.ingestion.iter().zip([&sample.first, &sample.second]) {
            for (part, bytes) in objects.in_put_order() {
                mailbox.replace(&sample.id.ingestion_key(part), bytes.to_vec());
            }
        }
        sample
    }

    /// Every object of every mailbox.
    pub fn everything(&self) -> BTreeMap<String, Bytes> {
        let groups = [&self.ingestion, &self.peer_validation, &self.ledger, &self.portal];
        let mailboxes = groups.into_iter().enumerate().flat_map(|(group, pair)| {
            pair.iter()
                .enumerate()
                .map(move |(share, mailbox)| (format!("{group}-{share}"), mailbox))
        });
        mailboxes
            .flat_map(|(name, mailbox)| {
                mailbox
                    .snapshot()
                    .into_iter()
                    .map(move |(key, bytes)| (format!("{name}/{key}"), bytes))
            })
            .collect()
    }

    pub fn sum_part(&self, share: Share, window: &WindowId) -> Option<SumPart> {
        let instance = InstanceName::parse("us-ct-g-enpa").unwrap();
        let key = window.sum_part_key(&instance, share, SumPartPart::Header);
        let there = self.portal[usize::from(share.index())].snapshot();
        there.get(key.as_str()).map(|bytes| SumPart::read(bytes).unwrap())
    }

    /// The two sum parts added up.
    pub fn totals(&self, window: &WindowId) -> Vec<u64> {
        let [first, second] = [Share::First, Share::Second].map(|share| self.sum_part(share, window).unwrap());
        let sums = first.sum.iter().zip(&second.sum);
        sums.map(|(a, b)| (a + b).unsigned_abs() % u64::from(facilitator_core::proof::PRIME))
            .collect()
    }
}

pub fn mounted(id: &str, key: PacketDecryptionKey) -> MountedPacketKey {
    MountedPacketKey { id: id.into(), key }
}

/// The window that holds all samples.
pub fn window() -> WindowId {
    WindowId::parse("kittens-seen/202611200000-202611200300").unwrap()
}

pub async fn intake(processor: &Processor, batch: &BatchId) -> IntakeOutcome {
    take_in(processor, batch, false).await.unwrap()
}

pub async fn intake_both(world: &World, batch: &BatchId) {
    for share in [Share::First, Share::Second] {
        let outcome = intake(&world.processor(share), batch).await;
        assert!(matches!(outcome, IntakeOutcome::Validated { .. }), "{outcome:?}");
    }
}

/// Aggregates with one cutoff, at [`NOW`], to a verdict.
pub async fn verdict(processor: &Processor, window: &WindowId) -> WindowResult {
    match aggregate(processor, window, &[second(NOW)]).await.unwrap() {
        AggregateOutcome::Done { result, .. } => *result,
        other => panic!("no verdict: {other:?}"),
    }
}

/// When a put fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing was stored.
    Before,
    /// It was stored, the answer was lost.
    After,
}

/// A mailbox whose puts fail once, at the `at`-th put of all that share the counter.
#[derive(Debug)]
pub struct Failing {
    pub inner: Arc<dyn Mailbox>,
    pub puts: Arc<AtomicUsize>,
    pub at: usize,
    pub crash: Crash,
}

#[async_trait]
impl Mailbox for Failing {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        self.inner.open(key).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.inner.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.inner.begin_upload(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        if self.puts.fetch_add(1, Ordering::SeqCst) != self.at {
            return self.inner.put_if_absent(key, content).await;
        }
        if self.crash == Crash::After {
            self.inner.put_if_absent(key, content).await?;
        }
        Err(MailboxError::of_object(
            MailboxErrorKind::Unavailable,
            self.url(),
            key,
            "the test crashed here",
        ))
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        self.inner.list(request).await
    }
}
