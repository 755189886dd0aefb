#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::task::noop_waker;
use mailbox::{
    ListPage, ListRequest, MailboxError, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey, ObjectMeta, PutOutcome,
    Upload,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::*;
use crate::crypto::PacketDecryptionKey;
use crate::formats::claims::{ClaimsObject, parse_claims_name};

const HORIZON: ReplayGuard = ReplayGuard { horizon_days: 14 };

fn keys(count: u8) -> Vec<ClaimKey> {
    let key = |n| {
        let mut scalar = Zeroizing::new([0; 32]);
        scalar[31] = n;
        ClaimKey::of(&PacketDecryptionKey::from_scalar(scalar).unwrap())
    };
    (1..=count).map(key).collect()
}

/// A batch and its packets by fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Batch {
    id: BatchId,
    packets: Vec<(u8, u64)>,
}

/// Of the first key, at a time `DD/HH` of November 2026.
fn batch(time: &str, uuid: u128, packets: &[u64]) -> Batch {
    let id = BatchId::parse(&format!("agg/2026/11/{time}/00/{}", uuid::Uuid::from_u128(uuid))).unwrap();
    let packets = packets.iter().map(|packet| (0, *packet)).collect();
    Batch { id, packets }
}

/// A time `DD/HH` of November 2026.
fn at(time: &str) -> Timestamp {
    let (day, hour) = time.split_once('/').unwrap();
    format!("2026-11-{day}T{hour}:30:00Z").parse().unwrap()
}

/// The packets of each batch that may be answered, claimed on one day.
async fn kept(ledger: &dyn Mailbox, keys: &[ClaimKey], batches: &[Batch]) -> Result<Vec<Vec<(u8, u64)>>, ClaimsFault> {
    kept_at(at("20/03"), ledger, keys, batches).await
}

async fn kept_at(
    now: Timestamp,
    ledger: &dyn Mailbox,
    keys: &[ClaimKey],
    batches: &[Batch],
) -> Result<Vec<Vec<(u8, u64)>>, ClaimsFault> {
    let mut claims = Claims::default();
    for batch in batches {
        let packets = (0..)
            .zip(&batch.packets)
            .map(|(packet, (key, fingerprint))| ClaimedPacket {
                fingerprint: *fingerprint,
                packet,
                key: *key,
            });
        claims.add(&batch.id, packets.collect());
    }
    let replays = claims.find_replays(ledger, keys, HORIZON, now).await?;
    let kept = |(batch, replays): (&Batch, &Vec<u32>)| {
        let packets = (0..)
            .zip(&batch.packets)
            .filter(|(packet, _)| !replays.contains(packet));
        packets.map(|(_, packet)| *packet).collect()
    };
    Ok(batches.iter().zip(&replays).map(kept).collect())
}

fn in_memory() -> MemoryMailbox {
    MemoryMailbox::new("ledger")
}

#[tokio::test]
async fn a_packet_stays_with_the_batch_that_claims_it_first() {
    let (ledger, keys) = (in_memory(), keys(1));
    let first = batch("20/03", 1, &[5, 7]);
    let keeps = async |batches: &[Batch]| kept(&ledger, &keys, batches).await.unwrap();
    for _ in 0..2 {
        let kept = keeps(std::slice::from_ref(&first)).await;
        assert_eq!(kept, [[(0, 5), (0, 7)]], "its own claims aren't in its way");
    }
    // The same packet in another batch, and in two of a group.
    assert_eq!(keeps(&[batch("20/03", 2, &[7, 8])]).await, [[(0, 8)]]);
    let both = [batch("20/04", 4, &[11]), batch("20/03", 5, &[10, 11])];
    assert_eq!(
        keeps(&both).await,
        [vec![], vec![(0, 10), (0, 11)]],
        "the earlier by path"
    );
    // Without a record by now, the first batch loses what others claimed since: whether they looked before it claimed can't
    // be told.
    assert_eq!(keeps(&[first]).await, [[(0, 5)]]);
}

#[tokio::test]
async fn claims_are_looked_for_as_long_as_the_horizon_whatever_the_paths() {
    let keys = keys(1);
    for (first, second, seen) in [
        ("15/00", "15/00", true),
        ("15/00", "29/23", true),
        // A clock that differs.
        ("14/23", "29/23", true),
        ("29/23", "15/00", true),
        ("13/23", "29/00", false),
    ] {
        for (path, other) in [("01/00", "01/00"), ("01/00", "30/00"), ("30/00", "01/00")] {
            let ledger = in_memory();
            let claimed = kept_at(at(first), &ledger, &keys, &[batch(path, 1, &[5])]).await;
            assert_eq!(claimed.unwrap(), [[(0, 5)]]);
            let group = [batch(other, 2, &[5]), batch("22/00", 3, &[6])];
            let kept = kept_at(at(second), &ledger, &keys, &group).await.unwrap();
            assert_eq!(
                kept[0].is_empty(),
                seen,
                "{first} {second}, paths of {path} and {other}"
            );
        }
    }
}

#[tokio::test]
async fn a_clock_that_the_ledgers_store_contradicts_answers_nothing() {
    let (ledger, keys) = (in_memory(), keys(1));
    for (stores, right) in [("20/10", true), ("19/16", true), ("20/16", false), ("19/14", false)] {
        ledger.tell_time(at(stores));
        let kept = kept(&ledger, &keys, &[batch("20/03", 1, &[5])]).await;
        match kept {
            Ok(kept) => assert!(right && kept == [[(0, 5)]], "{stores}"),
            Err(fault) => assert!(
                !right && matches!(fault, ClaimsFault::Clock { .. }),
                "{stores}: {fault}"
            ),
        }
    }
}

/// Lets others go first before every call.
#[derive(Debug)]
struct Stepping(Arc<MemoryMailbox>);

/// Not ready once.
#[derive(Default)]
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut self.0, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[async_trait]
impl Mailbox for Stepping {
    fn url(&self) -> &MailboxUrl {
        self.0.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        Turn::default().await;
        self.0.open(key).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        Turn::default().await;
        self.0.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.0.begin_upload(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        Turn::default().await;
        self.0.put_if_absent(key, content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        Turn::default().await;
        self.0.list(request).await
    }
}

/// What a worker does: its batches, or a compaction.
type Work<'a> = Pin<Box<dyn Future<Output = Vec<Vec<(u8, u64)>>> + 'a>>;

fn claims_of<'a>(ledger: &'a dyn Mailbox, keys: &'a [ClaimKey], batches: &'a [Batch]) -> Work<'a> {
    Box::pin(async move { kept(ledger, keys, batches).await.unwrap() })
}

/// Compacts the day as long as anything can be.
fn compaction<'a>(ledger: &'a dyn Mailbox, key: &'a ClaimKey) -> Work<'a> {
    Box::pin(async move {
        compact(ledger, key.name(), ClaimDay::parse("20261120").unwrap())
            .await
            .unwrap();
        Vec::new()
    })
}

/// Runs work in the order that `choose` says, of those that aren't done; a call or more a turn.
fn run(mut work: Vec<Work<'_>>, mut choose: impl FnMut(&[usize]) -> usize) -> Vec<Vec<Vec<(u8, u64)>>> {
    let waker = noop_waker();
    let mut done = vec![None; work.len()];
    loop {
        let open: Vec<usize> = (0..work.len()).filter(|n| done[*n].is_none()).collect();
        if open.is_empty() {
            return done.into_iter().flatten().collect();
        }
        let n = choose(&open);
        if let Poll::Ready(kept) = pin!(&mut work[n]).poll(&mut Context::from_waker(&waker)) {
            done[n] = Some(kept);
        }
    }
}

/// Nobody answers what another batch answers.
fn check(groups: &[&[Batch]], kept: &[Vec<Vec<(u8, u64)>>]) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for (batches, kept) in groups.iter().zip(kept) {
        for (batch, kept) in batches.iter().zip(kept) {
            for packet in kept {
                let owner = &batch.id;
                let first = *owners.entry(packet).or_insert(owner);
                if first != owner {
                    return Err(format!("{packet:?} is answered in {first:?} and {owner:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn no_order_of_two_workers_lets_a_replay_pass() {
    let keys = keys(1);
    let (a, b, c) = (
        batch("20/03", 1, &[5, 6]),
        batch("20/04", 2, &[5, 7]),
        batch("20/04", 3, &[5, 8]),
    );
    let (ab, ba, bc) = ([a.clone(), b.clone()], [b.clone(), a.clone()], [b.clone(), c]);
    let one = std::slice::from_ref;
    let cases: [(&[Batch], &[Batch]); 5] = [
        (one(&a), one(&b)),
        (&ab, one(&b)),
        (&ab, one(&a)),
        (&ab, &ba),
        (&ab, &bc),
    ];
    for (first, second) in cases {
        // Every order, one after another: a choice is 0 or 1, the last that was 0 becomes 1.
        let mut path: Vec<(usize, usize)> = Vec::new();
        let mut orders = 0;
        loop {
            let memory = Arc::new(in_memory());
            let ledger = Stepping(Arc::clone(&memory));
            let mut depth = 0;
            let kept = run(
                vec![claims_of(&ledger, &keys, first), claims_of(&ledger, &keys, second)],
                |open| {
                    if depth == path.len() {
                        path.push((0, open.len()));
                    }
                    depth += 1;
                    open[path[depth - 1].0]
                },
            );
            check(&[first, second], &kept).unwrap();
            orders += 1;
            while path.last().is_some_and(|(chosen, of)| chosen + 1 == *of) {
                path.pop();
            }
            match path.last_mut() {
                Some((chosen, _)) => *chosen += 1,
                None => break,
            }
        }
        assert!(orders > 60, "{orders} orders tried");
    }
}

#[test]
fn no_order_of_workers_crashes_and_compactions_lets_a_replay_pass() {
    let keys = keys(1);
    let groups: Vec<Vec<Batch>> = [1, 2, 3]
        .map(|n| vec![batch("20/03", n, &[5, 6]), batch("20/04", 9 - n, &[5, 7])])
        .into();
    for seed in 0..3_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let memory = Arc::new(in_memory());
        let ledger = Stepping(Arc::clone(&memory));
        let others: Vec<Batch> = (10..10 + rng.random_range(2..5))
            .map(|n| batch("20/05", n, &[n as u64]))
            .collect();
        for other in &others {
            run(vec![claims_of(&*memory, &keys, std::slice::from_ref(other))], |open| {
                open[0]
            });
        }
        // Workers that stop somewhere leave their claims.
        for group in &groups {
            let mut work = claims_of(&ledger, &keys, group);
            for _ in 0..[0, 0, 0, 1, 2, 3].choose(&mut rng).copied().unwrap_or_default() {
                let _ = work.as_mut().poll(&mut Context::from_waker(&noop_waker()));
            }
        }
        let mut work: Vec<Work<'_>> = groups.iter().map(|group| claims_of(&ledger, &keys, group)).collect();
        work.extend([compaction(&ledger, &keys[0]), compaction(&ledger, &keys[0])]);
        let kept = run(work, |open| *open.choose(&mut rng).unwrap());
        let of: Vec<&[Batch]> = groups.iter().map(Vec::as_slice).collect();
        check(&of, &kept).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        // Whoever comes later finds nothing left, however much was compacted.
        let late = run(
            vec![claims_of(&*memory, &keys, &[batch("20/06", 20, &[5, 6, 7])])],
            |open| open[0],
        );
        assert_eq!(late, [[[]]], "seed {seed}");
    }
}

/// What one worker after another must find, from all claims that were ever made.
#[derive(Default)]
struct Model(Vec<(u8, u64, BatchId, ClaimDay)>);

impl Model {
    fn kept(&mut self, keys: &[ClaimKey], batch: &Batch, day: ClaimDay) -> Vec<(u8, u64)> {
        let is_others = |(key, fingerprint): &(u8, u64)| {
            self.0
                .iter()
                .any(|(k, f, id, claimed)| (k, f) == (key, fingerprint) && *id != batch.id && *claimed >= day.plus(-15))
        };
        let opened = batch.packets.iter().filter(|(key, _)| usize::from(*key) < keys.len());
        let kept = opened.clone().filter(|packet| !is_others(packet)).copied().collect();
        let claimed = opened.map(|(key, fingerprint)| (*key, *fingerprint, batch.id.clone(), day));
        self.0.extend(claimed.collect::<Vec<_>>());
        kept
    }
}

#[test]
fn whatever_is_compacted_when_the_same_is_found() {
    let keys = keys(2);
    let mut total = 0;
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (ledger, mut model) = (in_memory(), Model::default());
        let mut runs = 0;
        for step in 0..200 {
            // Time goes on, paths are any.
            let now = at(&format!("{:02}/{:02}", 1 + step / 8, rng.random_range(0..24)));
            let path = format!("{:02}/{:02}", rng.random_range(1..29), rng.random_range(0..24));
            let packets: BTreeSet<(u8, u64)> = (0..rng.random_range(1..6))
                .map(|_| (rng.random_range(0..2), rng.random_range(0..100)))
                .collect();
            let mut batch = batch(&path, rng.random_range(1..40), &[]);
            batch.packets = packets.into_iter().collect();
            let expected = model.kept(&keys, &batch, ClaimDay::of(now));
            // A lost answer makes a worker begin again.
            for _ in 0..rng.random_range(1..3) {
                let batches = std::slice::from_ref(&batch);
                let work: Work<'_> = Box::pin(async { kept_at(now, &ledger, &keys, batches).await.unwrap() });
                let kept = run(vec![work], |open| open[0]);
                assert_eq!(kept, [[expected.clone()]], "seed {seed}: {batch:?}");
            }
            if rng.random_ratio(1, 3) {
                let key = keys.choose(&mut rng).unwrap().name();
                let waker = noop_waker();
                let day = ClaimDay::of(now).plus(-rng.random_range(0..3));
                let compacted = pin!(compact(&ledger, key, day)).poll(&mut Context::from_waker(&waker));
                let Poll::Ready(compacted) = compacted else {
                    panic!("memory waits for nobody")
                };
                runs += compacted.unwrap().runs;
            }
        }
        total += runs;
    }
    assert!(total > 60, "{total} runs");
}

#[tokio::test]
async fn a_compaction_is_done_once_and_leaves_what_came_late() {
    let (ledger, keys) = (in_memory(), keys(1));
    let day = ClaimDay::parse("20261120").unwrap();
    let put = async |n: u128| {
        kept(&ledger, &keys, &[batch("20/03", n, &[n as u64])]).await.unwrap();
    };
    for n in 1..=3 {
        put(n).await;
    }
    assert_eq!(
        compact(&ledger, keys[0].name(), day).await.unwrap(),
        Compacted::default()
    );
    put(4).await;
    let done = compact(&ledger, keys[0].name(), day).await.unwrap();
    assert_eq!((done.runs, done.chunks, done.claims), (1, 4, 4));
    assert_eq!(
        compact(&ledger, keys[0].name(), day).await.unwrap(),
        Compacted::default()
    );
    put(5).await;
    let late = kept(&ledger, &keys, &[batch("20/09", 9, &[1, 5, 6])]).await.unwrap();
    assert_eq!(late, [[(0, 6)]]);
    let names = ledger.snapshot();
    let objects: Vec<ClaimsObject> = names.keys().map(|name| parse_claims_name(name).unwrap().1).collect();
    let runs = objects
        .iter()
        .filter(|object| matches!(object, ClaimsObject::Run { .. }))
        .count();
    assert_eq!((runs, objects.len()), (1, 7), "nothing is deleted");
}

#[tokio::test]
async fn what_is_damaged_stops_the_look_and_is_named() {
    let (ledger, keys) = (in_memory(), keys(1));
    kept(&ledger, &keys, &[batch("20/03", 1, &[5])]).await.unwrap();
    let name = ledger.snapshot().into_keys().next().unwrap();
    ledger.replace(&name.parse().unwrap(), "something else");
    let error = kept(&ledger, &keys, &[batch("20/03", 2, &[6])]).await.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    assert!(matches!(error, ClaimsFault::Object { .. }));
}

#[tokio::test]
async fn chunks_stand_in_for_a_run_that_is_missing_or_damaged() {
    for damage in [true, false] {
        let (ledger, keys) = (in_memory(), keys(1));
        let day = ClaimDay::parse("20261120").unwrap();
        let put = async |n: u128| {
            let kept = kept(&ledger, &keys, &[batch("20/03", n, &[n as u64])]).await;
            kept.map(|kept| kept[0].len())
        };
        for n in 1..=8 {
            put(n).await.unwrap();
            if n % 4 == 0 {
                compact(&ledger, keys[0].name(), day).await.unwrap();
            }
        }
        let named = |part: &str| {
            let names = ledger.snapshot();
            let name = names.keys().find(|name| name.contains(part)).unwrap();
            name.parse::<ObjectKey>().unwrap()
        };
        let chunk = named("2026112003/");
        // The second run holds all: its header still says so. Of the first nothing is read any more.
        ledger.remove(&named("runs/000001"));
        let second = named("runs/000002");
        let bytes = ledger.snapshot()[second.as_str()].to_vec();
        ledger.replace(&second, bytes[..bytes.len() - 8].to_vec());
        let again = kept(&ledger, &keys, &[batch("20/09", 20, &[1, 8, 20])]).await.unwrap();
        assert_eq!(again, [[(0, 20)]]);
        // Without one of the chunks nobody knows.
        ledger.remove(&chunk);
        if damage {
            ledger.replace(&chunk, "something else");
        }
        let fault = put(21).await.unwrap_err();
        let object = if damage { &chunk } else { &second };
        assert!(fault.is_of_an_object(), "{fault}");
        assert!(fault.to_string().contains(object.as_str()), "{fault} {object}");
        ledger.replace(&second, bytes);
        assert_eq!(put(21).await.unwrap(), 1, "once it is restored");
    }
}
