//! What is where: names listed in the mailboxes, sorted into windows and batches. Pure; opens nothing.

use std::collections::{BTreeMap, BTreeSet};

use facilitator_core::formats::ledger::{
    DELIVERED, PARTIALS, PLANS, REJECTED, RELEASED, RESULTS, Rejected, RejectedReason, SHARDS, WindowResult,
};
use facilitator_core::formats::names::{
    BatchId, BatchRange, BatchTime, IngestionPart, ValidationPart, WindowId, parse_ingestion_name, parse_partial_name,
    parse_shard_name, parse_validation_name,
};
use facilitator_core::window::Window;
use jiff::{SignedDuration, Timestamp};

use crate::window::Schedule;

/// A listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its whole name in its mailbox.
    pub name: String,
    /// When the store made it visible, by the store's clock.
    pub stored: Timestamp,
}

/// What one observation found, all of it in one [`crate::window::Scope`]. Jobs are listed **before** the ledger: a
/// Job that was seen as finished has then all its objects in the listing.
#[derive(Clone, Debug, Default)]
pub struct Listings {
    /// The ingestion mailbox.
    pub ingestion: Vec<Listed>,
    /// The mailbox for the peer's validations.
    pub peer_validation: Vec<Listed>,
    /// The ledger's `delivered/`, `rejected/`, `shards/`, `plans/`, `partials/`, `released/` and `results/`, in one list.
    pub ledger: Vec<Listed>,
    /// What objects of `rejected/` hold, by whole name, as far as they were read.
    pub rejections: BTreeMap<String, Rejected>,
    /// What objects of `results/` hold, by whole name, as far as they were read.
    pub results: BTreeMap<String, WindowResult>,
}

/// Everything known of the open range, by window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Windows that hold a batch or were planned, in the order of their names.
    pub windows: BTreeMap<WindowId, WindowInventory>,
    /// Names that are no batch's, no validation's and not the ledger's, and batches of a time that is still to come.
    pub unknown_names: u64,
}

/// One window's share of the listings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowInventory {
    /// The ranges that `shards/` has, by the last cutoff that they were looked at for, in milliseconds since 1970.
    pub shards: BTreeMap<i64, BTreeSet<BatchRange>>,
    /// The ranges that `partials/` has.
    pub partials: BTreeSet<BatchRange>,
    /// When `plans/` got its object: the set is frozen.
    pub planned: Option<Timestamp>,
    /// `released/` has its object: a sum went out or is about to.
    pub released: bool,
    /// `results/` has its object: the window is over.
    pub finished: Option<Timestamp>,
    /// What that object says, once read.
    pub result: Option<WindowResult>,
    /// Its releases after the first, by number.
    pub further: BTreeMap<u8, FurtherInventory>,
    /// Its batches, in the order of their names.
    pub batches: BTreeMap<BatchId, BatchInventory>,
}

/// A further release's share of the listings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FurtherInventory {
    /// `plans/` or `released/` has its object: the set is frozen.
    pub planned: bool,
    /// When `results/` got its object: it is over.
    pub finished: Option<Timestamp>,
    /// What that object says, once read.
    pub result: Option<WindowResult>,
}

impl FurtherInventory {
    /// Whether its set is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.planned || self.finished.is_some()
    }
}

/// One batch's share of the listings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchInventory {
    /// When the ingestor's signature object came: the commit of the batch.
    pub signed: Option<Timestamp>,
    /// When the newest of its ingestion objects came.
    pub newest: Option<Timestamp>,
    /// The header object is there.
    pub header: bool,
    /// The packet object is there; a batch without packets has none.
    pub packets: bool,
    /// The peer's signature object is there.
    pub peer: bool,
    /// When `delivered/` got its object.
    pub delivered: Option<Timestamp>,
    /// When `rejected/` got its object.
    pub rejected: Option<Timestamp>,
    /// What that object says, once read.
    pub rejection: Option<Rejected>,
}

impl WindowInventory {
    /// Whether its set is frozen: what comes now is late.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.planned.is_some() || self.released || self.finished.is_some()
    }

    /// Whether it is more than stray names: the ledger knows of it, or a whole batch came.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.is_frozen()
            || self
                .batches
                .values()
                .any(|batch| batch.is_committed() || batch.is_done())
    }
}

impl BatchInventory {
    /// Whether intake is through with it.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.delivered.is_some() || self.rejected.is_some()
    }

    /// Whether it is refused because it holds no packets.
    #[must_use]
    pub fn is_empty_batch(&self) -> bool {
        self.rejection
            .as_ref()
            .is_some_and(|rejection| rejection.reason == RejectedReason::Empty)
    }

    /// Whether its ingestor is through with it: header and signature are there.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.signed.is_some() && self.header
    }

    /// Whether more of it is to be expected: it is committed, or its last object came only minutes ago.
    #[must_use]
    pub fn is_arriving(&self, schedule: &Schedule, now: Timestamp) -> bool {
        self.is_committed()
            || self
                .newest
                .is_some_and(|newest| now.duration_since(newest) < schedule.missing_packet)
    }

    /// Whether intake may have it: signature and header are there, the packets too or for long enough not, and a legacy
    /// First has answered where we must let it go ahead (ledger rule 13).
    #[must_use]
    pub fn is_ready(&self, schedule: &Schedule, now: Timestamp) -> bool {
        let Some(signed) = self.signed.filter(|_| self.header) else {
            return false;
        };
        let packets = self.packets || now.duration_since(signed) >= schedule.missing_packet;
        packets && (self.peer || !schedule.waits_for_first())
    }
}

impl Inventory {
    /// Sorts the listings. Names outside the schedule (before `startAt`, of other aggregations) are left out silently,
    /// names that nobody knows are counted, and so are batches whose window begins more than a period from now: a wrong
    /// date makes no window.
    #[must_use]
    pub fn build(listings: Listings, schedule: &Schedule, now: Timestamp) -> Self {
        let mut inventory = Self::default();
        let period = SignedDuration::from_secs(schedule.settings.period_seconds.into());
        let latest = now.checked_add(period).unwrap_or(Timestamp::MAX);
        for Listed { name, stored } in listings.ingestion {
            let Some((id, part)) = parse_ingestion_name(&name) else {
                inventory.unknown_names += u64::from(!is_foreign_folder(&name));
                continue;
            };
            let Some(window) = window_of(&id, schedule) else {
                continue;
            };
            if window.start.timestamp() > latest {
                inventory.unknown_names += 1;
                continue;
            }
            if let Some(batch) = inventory.batch(id, schedule) {
                batch.newest = batch.newest.max(Some(stored));
                match part {
                    IngestionPart::Header => batch.header = true,
                    IngestionPart::Signature => batch.signed = Some(stored),
                    IngestionPart::Packets => batch.packets = true,
                }
            }
        }
        for Listed { name, stored } in listings.ledger {
            let rejection = listings.rejections.get(&name);
            let result = listings.results.get(&name);
            inventory.add_ledger_name(&name, stored, rejection, result, schedule);
        }
        for Listed { name, .. } in listings.peer_validation {
            match parse_validation_name(&name) {
                // A validation without an ingestion batch of ours makes no window: it only answers one.
                Some((id, share, ValidationPart::Signature)) if share == schedule.share.peer() => {
                    if let Some(batch) = inventory.known_batch(&id, schedule) {
                        batch.peer = true;
                    }
                }
                Some(_) => {}
                None => inventory.unknown_names += u64::from(!is_foreign_folder(&name)),
            }
        }
        inventory
    }

    fn add_ledger_name(
        &mut self,
        name: &str,
        stored: Timestamp,
        rejection: Option<&Rejected>,
        result: Option<&WindowResult>,
        schedule: &Schedule,
    ) {
        let (folder, rest) = name.split_once('/').unwrap_or((name, ""));
        match folder {
            DELIVERED | REJECTED => {
                let Ok(id) = BatchId::parse(rest) else {
                    self.unknown_names += 1;
                    return;
                };
                let Some(batch) = self.batch(id, schedule) else { return };
                if folder == DELIVERED {
                    batch.delivered = Some(stored);
                } else {
                    batch.rejected = Some(stored);
                    batch.rejection = rejection.cloned();
                }
            }
            PLANS | RELEASED | RESULTS => {
                let Ok(id) = WindowId::parse(rest) else {
                    self.unknown_names += 1;
                    return;
                };
                if !schedule.takes(&id) {
                    return;
                }
                let window = self.windows.entry(id.first()).or_default();
                match (folder, id.release()) {
                    (PLANS, 1) => window.planned = Some(stored),
                    (RELEASED, 1) => window.released = true,
                    (_, 1) => {
                        window.finished = Some(stored);
                        window.result = result.cloned();
                    }
                    (_, release) => {
                        let further = window.further.entry(release).or_default();
                        if folder == RESULTS {
                            further.finished = Some(stored);
                            further.result = result.cloned();
                        } else {
                            further.planned = true;
                        }
                    }
                }
            }
            SHARDS => match parse_shard_name(name) {
                Some((id, _, _)) if !schedule.takes(&id) => {}
                Some((id, cutoff, range)) => {
                    let shards = &mut self.windows.entry(id).or_default().shards;
                    shards.entry(cutoff).or_default().insert(range);
                }
                None => self.unknown_names += 1,
            },
            PARTIALS => match parse_partial_name(name) {
                Some((id, _)) if !schedule.takes(&id) => {}
                Some((id, range)) => {
                    self.windows.entry(id).or_default().partials.insert(range);
                }
                None => self.unknown_names += 1,
            },
            _ => self.unknown_names += 1,
        }
    }

    fn batch(&mut self, id: BatchId, schedule: &Schedule) -> Option<&mut BatchInventory> {
        let window = window_of(&id, schedule)?;
        Some(self.windows.entry(window).or_default().batches.entry(id).or_default())
    }

    fn known_batch(&mut self, id: &BatchId, schedule: &Schedule) -> Option<&mut BatchInventory> {
        self.windows.get_mut(&window_of(id, schedule)?)?.batches.get_mut(id)
    }

    /// Whether this release of a window is over; `None` for a window that the listings don't hold.
    #[must_use]
    pub fn is_over(&self, id: &WindowId) -> Option<bool> {
        let window = self.windows.get(&id.first())?;
        Some(match id.release() {
            1 => window.finished.is_some(),
            release => window
                .further
                .get(&release)
                .is_some_and(|further| further.finished.is_some()),
        })
    }

    /// The batch and its window, if the listings hold it.
    #[must_use]
    pub fn find(&self, id: &BatchId, schedule: &Schedule) -> Option<(&WindowInventory, &BatchInventory)> {
        let window = self.windows.get(&window_of(id, schedule)?)?;
        Some((window, window.batches.get(id)?))
    }
}

/// The window that holds the batch, if it is ours to process.
#[must_use]
pub fn window_of(id: &BatchId, schedule: &Schedule) -> Option<WindowId> {
    let window = Window::holding(id.time.timestamp(), schedule.settings.period_seconds).ok()?;
    let (start, end) = (
        BatchTime::from_timestamp(window.start())?,
        BatchTime::from_timestamp(window.end())?,
    );
    let window = WindowId::new(id.aggregation.clone(), start, end).ok()?;
    schedule.takes(&window).then_some(window)
}

/// The original's task markers and our reserved prefix share the mailboxes with batches.
fn is_foreign_folder(name: &str) -> bool {
    let folder = name.split('/').next().unwrap_or_default();
    facilitator_core::formats::names::RESERVED_AGGREGATIONS.contains(&folder)
}
