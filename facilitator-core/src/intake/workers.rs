//! The cores that decide a batch's packets. Whichever is free reads a part and decides one; what comes of the parts is put
//! together in their order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::accumulate::Pass;
use super::opener::Opener;
use crate::crypto::ecies::ephemeral_name;
use crate::formats::FormatError;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::{Message, PacketExclusion};
use crate::guards::duplicates::Name;
use crate::proof::{self, ProofQuery, QueryBuffer};

/// A part ends at so many packets or payload bytes, whichever comes first. Fewer packets are not worth a thread; with many
/// more in the last parts, cores would be idle at the end.
const PART_PACKETS: usize = 32;
const PART_BYTES: usize = 256 << 10;
/// No core is so many parts ahead of the slowest: what comes of them waits in memory, some 2.5 KB each.
const PARTS_AHEAD: usize = 256;

/// A packet that was read, with why it is excluded before it is opened.
pub(super) type Marked = (DataSharePacket, Option<PacketExclusion>);

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

    fn decide(&mut self, part: &[Marked]) -> Decided {
        let Pass { bins, share, keys, .. } = *self.pass;
        let mut decided = Decided {
            decisions: Vec::with_capacity(part.len()),
            unmounted_key: None,
        };
        for (packet, excluded) in part {
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

/// What the cores share.
struct Shared<'a, P, F> {
    cores: usize,
    query: &'a ProofQuery,
    pass: &'a Pass<'a>,
    input: Mutex<Input<P>>,
    /// Parts that were read and that no core has taken: newer ones than any that a core has.
    ready: Mutex<VecDeque<Part>>,
    output: Mutex<Output<F>>,
    /// Told when `output` went on.
    gone_on: Condvar,
}

struct Input<P> {
    packets: P,
    /// The number of the next part.
    next: usize,
    at_work: usize,
    is_over: bool,
    failed: Option<FormatError>,
}

struct Output<F> {
    put: F,
    /// The number of the part that comes next.
    next: usize,
    /// Those after it, by number.
    waiting: BTreeMap<usize, Decided>,
    is_over: bool,
    failed: Option<FormatError>,
    /// Of the cores that are done.
    sums: Vec<Sums>,
}

/// Packets that one core decides.
struct Part {
    number: usize,
    packets: Vec<Marked>,
    /// There may be work for another core.
    calls_another: bool,
}

/// Decides all packets on so many cores, and gives what came of them to `put`, in their order. What each core summed up.
///
/// # Errors
/// [`FormatError`] of the first packet that can't be read, or of `put`, which isn't called again then.
///
/// # Panics
/// Where a core did.
pub(super) fn decide_all(
    cores: usize,
    query: &ProofQuery,
    pass: &Pass<'_>,
    packets: impl Iterator<Item = Result<Marked, FormatError>> + Send,
    put: impl FnMut(Decided) -> Result<(), FormatError> + Send,
) -> Result<Vec<Sums>, FormatError> {
    let shared = Shared {
        cores,
        query,
        pass,
        input: Mutex::new(Input {
            packets,
            next: 0,
            at_work: 1,
            is_over: false,
            failed: None,
        }),
        ready: Mutex::default(),
        output: Mutex::new(Output {
            put,
            next: 0,
            waiting: BTreeMap::new(),
            is_over: false,
            failed: None,
            sums: Vec::new(),
        }),
        gone_on: Condvar::new(),
    };
    thread::scope(|scope| shared.work(scope));
    let input = shared.input.into_inner().unwrap_or_else(PoisonError::into_inner);
    let output = shared.output.into_inner().unwrap_or_else(PoisonError::into_inner);
    match input.failed.or(output.failed) {
        None => Ok(output.sums),
        Some(error) => Err(error),
    }
}

impl<P, F> Shared<'_, P, F>
where
    P: Iterator<Item = Result<Marked, FormatError>> + Send,
    F: FnMut(Decided) -> Result<(), FormatError> + Send,
{
    /// One core's work. Whoever took a whole part calls another core, so that there is none for a part that isn't there.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let _unless_panicked = EndsOthers(self);
        let mut worker = None;
        while let Some(part) = self.take() {
            if part.calls_another {
                scope.spawn(|| self.work(scope));
            }
            let worker = worker.get_or_insert_with(|| Worker::new(self.query, self.pass));
            let decided = worker.decide(&part.packets);
            drop(part.packets);
            if !self.put(part.number, decided) {
                break;
            }
        }
        lock(&self.output).sums.extend(worker.map(|worker| worker.sums));
    }

    /// The next part. Some are read before they are needed: who reads may lose its core to another thread, as to the one that
    /// brings the bytes, and nobody is to wait for that.
    fn take(&self) -> Option<Part> {
        if let Ok(mut input) = self.input.try_lock() {
            // One for itself, and one more.
            for _ in 0..2 {
                if lock(&self.ready).len() >= self.cores {
                    break;
                }
                let Some(next) = self.read(&mut input) else { break };
                lock(&self.ready).push_back(next);
            }
        }
        if let Some(ready) = lock(&self.ready).pop_front() {
            return Some(ready);
        }
        let mut input = lock(&self.input);
        let ready = lock(&self.ready).pop_front();
        ready.or_else(|| self.read(&mut input))
    }

    fn read(&self, input: &mut Input<P>) -> Option<Part> {
        let (mut packets, mut bytes) = (Vec::new(), 0);
        while !input.is_over && packets.len() < PART_PACKETS && bytes < PART_BYTES {
            match input.packets.next() {
                Some(Ok(marked)) => {
                    bytes += marked.0.encrypted_payload.len();
                    packets.push(marked);
                }
                Some(Err(error)) => {
                    (input.failed, input.is_over) = (Some(error), true);
                    return None;
                }
                None => input.is_over = true,
            }
        }
        if packets.is_empty() {
            return None;
        }
        let calls_another = !input.is_over && input.at_work < self.cores;
        input.at_work += usize::from(calls_another);
        input.next += 1;
        Some(Part {
            number: input.next - 1,
            packets,
            calls_another,
        })
    }

    /// Puts what came of a part after what came before it, which may have to be waited for. Whether there is any use in more.
    fn put(&self, number: usize, decided: Decided) -> bool {
        let mut output = lock(&self.output);
        while number >= output.next + PARTS_AHEAD && !output.is_over {
            output = self.gone_on.wait(output).unwrap_or_else(PoisonError::into_inner);
        }
        if output.is_over {
            return false;
        }
        output.waiting.insert(number, decided);
        let output = &mut *output;
        while let Some(decided) = output.waiting.remove(&output.next) {
            output.next += 1;
            if let Err(error) = (output.put)(decided) {
                (output.failed, output.is_over) = (Some(error), true);
                break;
            }
        }
        self.gone_on.notify_all();
        !output.is_over
    }
}

/// Ends the work of the other cores where one panics: they would wait for its part.
struct EndsOthers<'a, 'b, P, F>(&'a Shared<'b, P, F>);

impl<P, F> Drop for EndsOthers<'_, '_, P, F> {
    fn drop(&mut self) {
        if thread::panicking() {
            lock(&self.0.output).is_over = true;
            self.0.gone_on.notify_all();
            lock(&self.0.input).is_over = true;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
