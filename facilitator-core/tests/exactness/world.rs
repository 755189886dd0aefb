//! Two parties on memory mailboxes, set back to a beginning as often as a test needs, and workers driven call by call.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, aggregate, aggregate_again, partial_sum, plan_shard};
use facilitator_core::claims::{ReplayGuard, compact};
use facilitator_core::crypto::{ClaimKey, PacketDecryptionKey, sha256};
use facilitator_core::formats::claims::ClaimDay;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{
    AggregationId, BatchId, BatchRange, BatchTime, IngestionPart, InstanceName, WindowId,
};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::{Approval, Share, ValidationFormat};
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in, take_in_all};
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor, WorkError};
use facilitator_core::sample::{Fault as SampleFault, FaultKind, Recipient, Sample, SampleSpec, make};
use jiff::{SignedDuration, Timestamp};
use mailbox::{Mailbox, MemoryMailbox};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::gate::{Fault, Gate, Gated, Op, Reordering};
use crate::support::Keys;

pub const SHARES: [Share; 2] = [Share::First, Share::Second];
/// When everything happens: seconds since 1970.
const NOW: i64 = 1_800_000_000;

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

pub struct World {
    pub places: Vec<Arc<MemoryMailbox>>,
    pub keys: Keys,
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
    DecideBeforeAnnouncing,
    LookBeforeClaiming,
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
        }
    }
}

/// So little that every batch is worked on as large ones are: in uploads, and looked at twice where a packet comes twice.
pub const TINY: InMemory = InMemory {
    packets: 1,
    object_bytes: 64,
};

fn second_key(share: Share) -> PacketDecryptionKey {
    PacketDecryptionKey::generate(&mut StdRng::seed_from_u64(77 + u64::from(share.index())))
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
        } = *setup;
        let see = |owner: Share, which: Place| -> Arc<dyn Mailbox> {
            let place = place(owner, which);
            let inner = Arc::clone(&self.places[place]);
            let conditional = build != Build::PutNotConditional;
            let gated = Arc::new(Gated {
                inner,
                place,
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
                _ => gated,
            }
        };
        let own = if share == Share::First {
            &self.keys.first
        } else {
            &self.keys.second
        };
        let text = own.to_base64().unwrap();
        Processor {
            instance: instance(),
            share,
            legacy_peer: false,
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
            signing_key: facilitator_core::crypto::BatchSigningKey::parse(own.id(), &text).unwrap(),
            other_signing_keys: Vec::new(),
            use_marks: None,
            packet_keys: Arc::clone(&self.packet_keys[usize::from(share.index())][usize::from(mounts == Mounts::Both)]),
            replay_guard: Some(ReplayGuard { horizon_days: 14 }),
            reread_pause: std::time::Duration::ZERO,
            in_memory,
        }
    }

    fn recipients(&self, second: bool) -> [Recipient; 2] {
        SHARES.map(|share| {
            let (point, id) = if second {
                (*second_key(share).public_point(), "two")
            } else {
                (*self.keys.packets(share).public_point(), "one")
            };
            Recipient {
                public_point: point,
                key_id: Some(id.into()),
            }
        })
    }

    fn made(&self, minute: u8, packets: usize, second_key: bool, faults: &[(usize, FaultKind)]) -> Sample {
        let spec = SampleSpec {
            aggregation: AggregationId::parse("kittens-seen").unwrap(),
            time: BatchTime::parse_path(&format!("2026/11/20/00/{minute:02}")).unwrap(),
            batch_uuid: Uuid::from_u128(u128::from(minute)),
            bins: 2,
            packets,
            epsilon: 0.23,
            hamming_weight: None,
            batch_start_time: 1,
            batch_end_time: 2,
            seed: 1 + u64::from(second_key),
            faults: faults
                .iter()
                .map(|(packet, kind)| SampleFault {
                    packet: *packet,
                    kind: *kind,
                })
                .collect(),
        };
        make(&spec, &self.recipients(second_key), &self.keys.ingestor).unwrap()
    }

    pub fn put_ingestion(&self, share: Share, id: &BatchId, header: &[u8], signature: &[u8], packets: &[u8]) {
        let mailbox = &self.places[place(share, Place::Ingestion)];
        for (part, bytes) in [
            (IngestionPart::Packets, packets),
            (IngestionPart::Header, header),
            (IngestionPart::Signature, signature),
        ] {
            mailbox.replace(&id.ingestion_key(part), bytes.to_vec());
        }
    }

    /// An ingestion batch for both parties.
    pub fn batch(&self, minute: u8, packets: usize, faults: &[(usize, FaultKind)]) -> BatchId {
        let sample = self.made(minute, packets, false, faults);
        for (share, objects) in SHARES.into_iter().zip([&sample.first, &sample.second]) {
            self.put_ingestion(share, &sample.id, &objects.header, &objects.signature, &objects.packets);
        }
        sample.id
    }

    /// An ingestion batch of which `packets` are for the first packet key and as many for the second.
    pub fn batch_of_two_keys(&self, minute: u8, packets: usize) -> BatchId {
        let halves = [
            self.made(minute, packets, false, &[]),
            self.made(minute, packets, true, &[]),
        ];
        for share in SHARES {
            let of = |sample: &Sample| {
                if share == Share::First {
                    sample.first.clone()
                } else {
                    sample.second.clone()
                }
            };
            let [one, two] = halves.each_ref().map(of);
            let packets = [one.packets, two.packets]
                .map(|bytes| DataSharePacket::read_all(&bytes).unwrap())
                .concat();
            let packets = DataSharePacket::write_all(&packets);
            let mut header = IngestionHeader::read(&one.header).unwrap();
            header.packet_file_digest = sha256(&packets).to_vec();
            let header = header.write();
            let signature = BatchSignature::sign(&self.keys.ingestor, &header).unwrap().write();
            self.put_ingestion(share, &halves[0].id, &header, &signature, &packets);
        }
        halves[0].id.clone()
    }

    /// Another signed batch in place of the one that is there, as a careless ingestor writes it: the same packets in
    /// another order.
    pub fn overwrite(&self, share: Share, id: &BatchId) {
        let there = self.places[place(share, Place::Ingestion)].snapshot();
        let read = |part| there[id.ingestion_key(part).as_str()].clone();
        let mut packets = DataSharePacket::read_all(&read(IngestionPart::Packets)).unwrap();
        packets.reverse();
        let packets = DataSharePacket::write_all(&packets);
        let mut header = IngestionHeader::read(&read(IngestionPart::Header)).unwrap();
        header.packet_file_digest = sha256(&packets).to_vec();
        let header = header.write();
        let signature = BatchSignature::sign(&self.keys.ingestor, &header).unwrap().write();
        self.put_ingestion(share, id, &header, &signature, &packets);
    }

    /// Runs tasks to their end, with no gate.
    pub async fn run(&self, setup: &Setup, tasks: &[Task]) -> Result<Vec<Outcome>, WorkError> {
        run(&self.processor(setup, &Gate::open()), tasks).await
    }
}

pub fn window() -> WindowId {
    WindowId::parse("kittens-seen/202611200000-202611200100").unwrap()
}

/// A window that shares time with [`window`].
pub fn other_window() -> WindowId {
    WindowId::parse("kittens-seen/202611200000-202611200030").unwrap()
}

/// What a worker does.
#[derive(Clone, Debug)]
pub enum Task {
    Intake(BatchId),
    /// The last planning before the cutoff.
    IntakeAnyway(BatchId),
    /// Claimed together.
    IntakeAll(Vec<BatchId>),
    /// The claims of the day and of every mounted key.
    Compact,
    Aggregate(WindowId),
    PlanShard(WindowId, BatchRange),
    PartialSum(WindowId, BatchRange),
    /// Under an override that hasn't expired.
    Again(WindowId, u8),
    /// The same, by a worker that begins when it has.
    AgainTooLate(WindowId, u8),
}

/// The ranges that a window's work is parted into by cuts before these minutes.
pub fn ranges(cuts: &[u8]) -> Vec<BatchRange> {
    let window = window();
    let minute = |minute: &u8| format!("2026112000{minute:02}");
    let bounds: Vec<String> = [window.start.to_compact()]
        .into_iter()
        .chain(cuts.iter().map(minute))
        .chain([window.end.to_compact()])
        .collect();
    let range = |pair: &[String]| BatchRange::parse(&format!("{}-{}", pair[0], pair[1])).unwrap();
    bounds.windows(2).map(range).collect()
}

/// The window summed in parts: every shard, every partial sum, then all together.
pub fn in_parts(cuts: &[u8]) -> Vec<Task> {
    let ranges = ranges(cuts);
    let shards = ranges.iter().map(|range| Task::PlanShard(window(), *range));
    let sums = ranges.iter().map(|range| Task::PartialSum(window(), *range));
    shards.chain(sums).chain([Task::Aggregate(window())]).collect()
}

/// How long the overrides of the tests are good for.
const OVERRIDE: SignedDuration = SignedDuration::from_secs(60);

fn approval(release: u8) -> Approval {
    Approval {
        release,
        expires_at_millis: (now() + OVERRIDE).as_millisecond(),
        approved_by: "somebody".into(),
        reason: "late batches".into(),
    }
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Intake(IntakeOutcome),
    Aggregate(AggregateOutcome),
}

impl Outcome {
    /// Whether another run may end otherwise.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Intake(outcome) => !matches!(outcome, IntakeOutcome::Blocked { .. }),
            Self::Aggregate(outcome) => matches!(outcome, AggregateOutcome::Done { .. } | AggregateOutcome::Part),
        }
    }
}

pub async fn run(processor: &Processor, tasks: &[Task]) -> Result<Vec<Outcome>, WorkError> {
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(match task {
            Task::Intake(batch) => Outcome::Intake(take_in(processor, batch, false).await?),
            Task::IntakeAnyway(batch) => Outcome::Intake(take_in(processor, batch, true).await?),
            Task::IntakeAll(batches) => {
                let wanted = |batch: &BatchId| Wanted {
                    batch: batch.clone(),
                    take_anyway: false,
                };
                let wanted: Vec<_> = batches.iter().map(wanted).collect();
                for result in take_in_all(processor, &wanted).await {
                    outcomes.push(Outcome::Intake(result?));
                }
                continue;
            }
            Task::Compact => {
                for mounted in processor.packet_keys.iter() {
                    let day = ClaimDay::of(window().start);
                    compact(&*processor.mailboxes.ledger, ClaimKey::of(&mounted.key).name(), day).await?;
                }
                continue;
            }
            Task::Aggregate(window) => Outcome::Aggregate(aggregate(processor, window, &[now()]).await?),
            Task::PlanShard(window, range) => Outcome::Aggregate(plan_shard(processor, window, &[now()], range).await?),
            Task::PartialSum(window, range) => Outcome::Aggregate(partial_sum(processor, window, range).await?),
            Task::Again(window, release) => {
                let approval = approval(*release);
                Outcome::Aggregate(aggregate_again(processor, window, &approval, now(), &now).await?)
            }
            Task::AgainTooLate(window, release) => {
                let approval = approval(*release);
                Outcome::Aggregate(aggregate_again(processor, window, &approval, now(), &|| now() + OVERRIDE).await?)
            }
        });
    }
    Ok(outcomes)
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Vec<Outcome>, WorkError>> + 'a>>;

/// A worker on its way, stopped before its next call. Dropping it is a crash.
pub struct Worker<'a> {
    gate: Arc<Gate>,
    running: Running<'a>,
    pub ended: Option<Result<Vec<Outcome>, WorkError>>,
}

impl<'a> Worker<'a> {
    /// Begins, up to before the first call.
    pub async fn begin(gate: Arc<Gate>, processor: &'a Processor, tasks: &'a [Task]) -> Self {
        let mut worker = Self {
            gate,
            running: Box::pin(run(processor, tasks)),
            ended: None,
        };
        worker.settle().await;
        worker
    }

    /// The call before which it stands; `None`: it ended.
    pub fn next(&self) -> Option<Op> {
        if self.ended.is_some() { None } else { self.gate.front() }
    }

    /// Lets that call pass and goes on up to before the next.
    pub async fn step(&mut self, fault: Fault) {
        self.gate.grant(fault);
        self.settle().await;
    }

    async fn settle(&mut self) {
        let Self { gate, running, ended } = self;
        poll_fn(|context| {
            if ended.is_some() {
                return Poll::Ready(());
            }
            match running.as_mut().poll(context) {
                Poll::Ready(result) => {
                    *ended = Some(result);
                    Poll::Ready(())
                }
                Poll::Pending if gate.front().is_some() => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }
}
