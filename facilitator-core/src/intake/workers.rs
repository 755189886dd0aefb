//! The cores that decide a batch's packets: parts of it go in, what came of each comes out in the same order. No core waits
//! for another: whichever is free takes the next part.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{Scope, ScopedJoinHandle};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::accumulate::Pass;
use super::opener::Opener;
use crate::crypto::ecies::ephemeral_name;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::{Message, PacketExclusion};
use crate::guards::duplicates::Name;
use crate::proof::{self, ProofQuery, QueryBuffer};

/// A part ends at so many packets or payload bytes, whichever comes first. Fewer packets are not worth a thread; with many
/// more in the last parts, cores would be idle at the end.
const PART_PACKETS: usize = 32;
const PART_BYTES: usize = 256 << 10;
/// So many parts are under way for each core: memory stays flat, and reading is ahead of the cores.
const PARTS: usize = 4;

/// Packets read, each with why it is excluded before it is opened.
#[derive(Default)]
pub(super) struct Part {
    packets: Vec<(DataSharePacket, Option<PacketExclusion>)>,
    bytes: usize,
}

impl Part {
    pub fn push(&mut self, packet: DataSharePacket, excluded: Option<PacketExclusion>) {
        self.bytes += packet.encrypted_payload.len();
        self.packets.push((packet, excluded));
    }

    pub fn is_full(&self) -> bool {
        self.packets.len() >= PART_PACKETS || self.bytes >= PART_BYTES
    }
}

/// A packet decided, with the mounted key that opened it.
pub(super) struct Decision {
    pub uuid: Uuid,
    pub ephemeral: Option<Name>,
    pub outcome: Result<(usize, Message), PacketExclusion>,
}

/// What came of a part.
pub(super) struct Decided {
    /// Of its packets, in order.
    pub decisions: Vec<Decision>,
    /// A key id that an undecryptable packet names and that isn't mounted.
    pub unmounted_key: Option<String>,
}

/// For each mounted key the sum of the shares that it opened, if any.
pub(super) type Sums = Vec<Option<Zeroizing<Vec<u32>>>>;

/// One core at work, in the same buffers all along.
struct Worker<'a> {
    query: &'a ProofQuery,
    pass: &'a Pass<'a>,
    opener: Opener<'a>,
    buffer: QueryBuffer,
    sums: Sums,
}

/// A part, and where what comes of it goes.
struct Job {
    part: Part,
    done: mpsc::SyncSender<Decided>,
}

impl<'a> Worker<'a> {
    fn new(query: &'a ProofQuery, pass: &'a Pass<'a>) -> Self {
        Self {
            query,
            pass,
            opener: Opener::new(pass.bins, pass.share, pass.keys),
            buffer: query.buffer(),
            sums: pass.keys.iter().map(|_| None).collect(),
        }
    }

    fn work(&mut self, job: &Job) {
        let decided = self.decide(&job.part);
        // Nobody waits for it any more where the batch was given up.
        drop(job.done.send(decided));
    }

    fn decide(&mut self, part: &Part) -> Decided {
        let Pass { bins, share, keys, .. } = *self.pass;
        let mut decided = Decided {
            decisions: Vec::with_capacity(part.packets.len()),
            unmounted_key: None,
        };
        for (packet, excluded) in &part.packets {
            let opened = match excluded {
                Some(reason) => Err(*reason),
                None => self.opener.open(packet),
            };
            let outcome = opened.map(|opened| {
                let sum = self.sums[opened.mounted].get_or_insert_with(|| Zeroizing::new(vec![0; bins as usize]));
                proof::accumulate(sum, self.opener.values());
                let elements = self.opener.elements();
                let message = self.query.message_in(&mut self.buffer, elements, opened.r_pit, share);
                (opened.mounted, message)
            });
            if outcome == Err(PacketExclusion::Undecryptable) && decided.unmounted_key.is_none() {
                let id = packet
                    .encryption_key_id
                    .as_deref()
                    .filter(|id| keys.iter().all(|key| key.id != *id));
                decided.unmounted_key = id.map(str::to_owned);
            }
            decided.decisions.push(Decision {
                uuid: packet.uuid,
                ephemeral: ephemeral_name(&packet.encrypted_payload),
                outcome,
            });
        }
        decided
    }
}

/// All cores, at work on one batch.
pub(super) struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    cores: usize,
    query: &'env ProofQuery,
    pass: &'env Pass<'env>,
    /// This thread, where it has to work itself: on one core, or where there is too little for a thread.
    own: Option<Worker<'env>>,
    others: Vec<ScopedJoinHandle<'scope, Sums>>,
    /// Dropped, it ends the others.
    jobs: Option<mpsc::Sender<Job>>,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    /// What comes of the parts under way, in their order, and their bytes.
    under_way: VecDeque<(mpsc::Receiver<Decided>, usize)>,
    bytes: usize,
}

impl<'scope, 'env> Workers<'scope, 'env> {
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        cores: usize,
        query: &'env ProofQuery,
        pass: &'env Pass<'env>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel();
        Self {
            scope,
            cores,
            query,
            pass,
            own: None,
            others: Vec::new(),
            jobs: Some(jobs),
            queue: Arc::new(Mutex::new(queue)),
            under_way: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Gives a part away. Of the batch's only part, and on one core, it comes back decided.
    pub fn give(&mut self, part: Part) {
        if part.packets.is_empty() {
            return;
        }
        let (done, decided) = mpsc::sync_channel(1);
        self.bytes += part.bytes;
        self.under_way.push_back((decided, part.bytes));
        let alone = self.cores == 1 || (self.others.is_empty() && !part.is_full());
        let job = Job { part, done };
        match &self.jobs {
            Some(jobs) if !alone => {
                if self.others.len() < self.cores {
                    let (query, pass, queue) = (self.query, self.pass, Arc::clone(&self.queue));
                    self.others.push(self.scope.spawn(move || {
                        let mut worker = Worker::new(query, pass);
                        while let Some(job) = next(&queue) {
                            worker.work(&job);
                        }
                        worker.sums
                    }));
                }
                // The queue is there as long as we are.
                drop(jobs.send(job));
            }
            _ => self
                .own
                .get_or_insert_with(|| Worker::new(self.query, self.pass))
                .work(&job),
        }
    }

    /// Whether something has to be taken before more is given.
    pub fn are_full(&self) -> bool {
        self.under_way.len() >= PARTS * self.cores || self.bytes >= PARTS * PART_BYTES * self.cores
    }

    /// Waits for what comes of the part that was given first of those under way; nothing, where none is.
    ///
    /// # Panics
    /// Where a core did.
    pub fn take(&mut self) -> Option<Decided> {
        let (decided, bytes) = self.under_way.pop_front()?;
        self.bytes -= bytes;
        let decided = decided.recv().unwrap_or_else(|mpsc::RecvError| {
            self.end();
            unreachable!("a core that gives nothing back has panicked")
        });
        Some(decided)
    }

    /// Ends the work, once all was taken: the sums of each core.
    ///
    /// # Panics
    /// Where a core did.
    pub fn end(&mut self) -> Vec<Sums> {
        self.jobs = None;
        // A panic of one core is a panic of the whole, as without threads.
        let others = self.others.drain(..);
        let mut sums: Vec<_> = others
            .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect();
        sums.extend(self.own.take().map(|own| own.sums));
        sums
    }
}

fn next(queue: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
