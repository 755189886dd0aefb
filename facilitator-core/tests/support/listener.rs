//! What First makes of whatever is there in Second's name: as a worker does, in memory and as it streams in.

use std::collections::BTreeMap;

use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, aggregate, partial_sum, plan_shard};
use facilitator_core::formats::ledger::{BlockedReason, FailedReason, Verdict};
use facilitator_core::formats::names::{BatchId, BatchRange, ValidationPart};
use facilitator_core::formats::work::Share;
use facilitator_core::processor::{InMemory, Processor};
use mailbox::{MemoryMailbox, ObjectKey};
use tokio::runtime::Runtime;

use crate::world::{NOW, World, intake_both, second, window};

/// So little that record and packets are never held: they are read from the store for each step.
const STREAMED: InMemory = InMemory {
    packets: 1,
    object_bytes: 64,
    worth_listing: 2,
};

/// First, with a window of one batch that both took in.
pub struct Listener {
    runtime: Runtime,
    world: World,
    batch: BatchId,
    /// One that holds what is short, and one that holds nothing.
    processors: [Processor; 2],
    /// What Second says.
    honest: BTreeMap<String, Bytes>,
    /// First's ledger, after intake and with a plan that pins what Second says.
    ledgers: [BTreeMap<String, Bytes>; 2],
}

/// Where the window is when First reads what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Window {
    Unplanned,
    Planned,
}

/// How the window ended.
#[derive(PartialEq)]
pub struct Heard {
    outcome: AggregateOutcome,
    /// The objects of First's ledger and portal.
    left: [BTreeMap<String, Bytes>; 2],
}

impl Heard {
    /// It in few words.
    pub fn said(&self) -> String {
        match &self.outcome {
            AggregateOutcome::Done { result, .. } => {
                let heard = result.packets - result.excluded_packets - result.missing_peer_messages;
                format!(
                    "accepted: {heard} of {} packets have a message, {} count",
                    result.packets, result.clients
                )
            }
            AggregateOutcome::Blocked { reason, message, .. } => format!("{reason}: {}", after_batch(message)),
            other => format!("{other:?}"),
        }
    }
}

/// What a message says of the batch that it names first.
fn after_batch(message: &str) -> &str {
    message.split_once(": ").map_or(message, |(_, detail)| detail)
}

impl Listener {
    /// With a batch of so many packets.
    pub fn new(packets: usize) -> Self {
        let world = World::new();
        let batch = world.sample_of(1, packets, 2, &[]).id;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(intake_both(&world, &batch));
        let processors = [InMemory::default(), STREAMED].map(|in_memory| {
            let mut processor = world.processor(Share::First);
            processor.in_memory = in_memory;
            processor
        });
        let taken_in = world.ledger[0].snapshot();
        let whole = BatchRange::whole(&window());
        let planned = runtime.block_on(plan_shard(&processors[0], &window(), &[second(NOW)], &whole));
        assert_eq!(planned.unwrap(), AggregateOutcome::Part);
        Self {
            honest: world.peer_validation[0].snapshot(),
            ledgers: [taken_in, world.ledger[0].snapshot()],
            runtime,
            world,
            batch,
            processors,
        }
    }

    /// An object that Second put.
    pub fn honest(&self, part: ValidationPart) -> Bytes {
        self.honest[&self.name(part)].clone()
    }

    /// Plans and sums the window with these objects in Second's name. `Err`: not the same in memory and streamed, or what must
    /// not come of any.
    pub fn aggregated(&self, objects: &[(ValidationPart, Bytes)]) -> Result<Heard, String> {
        let heard = self.both_ways(Window::Unplanned, objects)?;
        match &heard.outcome {
            AggregateOutcome::Done { result, .. } if result.verdict != Verdict::Failed => Ok(heard),
            AggregateOutcome::NoMembers { .. }
            | AggregateOutcome::Blocked {
                reason: BlockedReason::SignerUnknown,
                ..
            } => Ok(heard),
            other => Err(format!("{other:?}")),
        }
    }

    /// What is said of the window, and what is wrong with the objects. Where these keep the batch out, that is in the plan step's
    /// log alone: then one tells it who finds them behind a plan.
    pub fn explained(&self, heard: &Heard, objects: &[(ValidationPart, Bytes)]) -> Result<String, String> {
        let AggregateOutcome::NoMembers { excluded } = &heard.outcome else {
            return Ok(heard.said());
        };
        match (excluded.as_slice(), self.both_ways(Window::Planned, objects)?.outcome) {
            (
                [(excluded, 1)],
                AggregateOutcome::PartFailed {
                    reason: FailedReason::PeerMessagesLost,
                    message,
                },
            ) if !message.ends_with("that the plan pinned") => Ok(format!("{excluded:?}: {}", after_batch(&message))),
            (excluded, other) => Err(format!("without a plan {excluded:?}, behind one {other:?}")),
        }
    }

    fn both_ways(&self, begun: Window, objects: &[(ValidationPart, Bytes)]) -> Result<Heard, String> {
        let [held, streamed] = &self.processors;
        let (held, streamed) = (self.run(held, begun, objects)?, self.run(streamed, begun, objects)?);
        if held.outcome != streamed.outcome {
            return Err(format!("in memory {:?}, streamed {:?}", held.outcome, streamed.outcome));
        }
        match held.left == streamed.left {
            true => Ok(held),
            false => Err(format!("in memory and streamed {:?}, with other objects", held.outcome)),
        }
    }

    fn run(&self, processor: &Processor, begun: Window, objects: &[(ValidationPart, Bytes)]) -> Result<Heard, String> {
        let before = &self.ledgers[usize::from(begun == Window::Planned)];
        let (ledger, portal) = (&self.world.ledger[0], &self.world.portal[0]);
        set(ledger, before);
        set(portal, &BTreeMap::new());
        let named = objects.iter().map(|(part, bytes)| (self.name(*part), bytes.clone()));
        set(&self.world.peer_validation[0], &named.collect());
        let window = window();
        let work = async {
            match begun {
                Window::Unplanned => aggregate(processor, &window, &[second(NOW)]).await,
                Window::Planned => partial_sum(processor, &window, &BatchRange::whole(&window)).await,
            }
        };
        let outcome = self.runtime.block_on(work);
        let outcome = outcome.map_err(|error| format!("no outcome: {error}"))?;
        let left = [ledger.snapshot(), portal.snapshot()];
        let is_done = matches!(outcome, AggregateOutcome::Done { .. } | AggregateOutcome::Part);
        if !is_done && (left[0] != *before || !left[1].is_empty()) {
            return Err(format!("{outcome:?}, and something was put"));
        }
        Ok(Heard { outcome, left })
    }

    fn name(&self, part: ValidationPart) -> String {
        self.batch.validation_key(Share::Second, part).into_string()
    }
}

/// Makes these all the objects of a mailbox.
fn set(mailbox: &MemoryMailbox, objects: &BTreeMap<String, Bytes>) {
    let key = |name: &str| ObjectKey::parse(name).unwrap();
    for name in mailbox.snapshot().keys() {
        mailbox.remove(&key(name));
    }
    for (name, bytes) in objects {
        mailbox.replace(&key(name), bytes.clone());
    }
}
