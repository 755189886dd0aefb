//! Claims on packets at 10,000 batches of 20 packets an hour: what the look of a chunk of batches takes behind fourteen days
//! of history, in a folder, and what compaction takes. Requests are counted as a store with pages of 1,000 names sees them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::claims::{ClaimedPacket, Claims, ReplayGuard, compact};
use facilitator_core::crypto::{ClaimKey, PacketDecryptionKey};
use facilitator_core::formats::claims::{Chunk, Claim, ClaimDay, ClaimsObject};
use facilitator_core::formats::names::{BatchId, BatchTime};
use mailbox::{
    FileMailbox, ListPage, ListRequest, Mailbox, MailboxError, MailboxUrl, ObjectBody, ObjectKey, ObjectMeta,
    PutOutcome, Upload,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::measure::{Row, process_time, status_kib};

const BATCHES_AN_HOUR: usize = 10_000;
/// What looks may ask of a store in an hour: as much as it takes to read each batch's three objects.
const HOURLY_REQUESTS: f64 = 30_000.0;
/// What they may read in an hour: some 50 Mbit/s.
const HOURLY_GIGABYTES: f64 = 20.0;
const PACKETS: usize = 20;
/// The day of which batches are taken in.
const TODAY: &str = "20261120";
const HORIZON: u16 = 14;
/// Compactions of an hour: the operator plans one every quarter of an hour.
const COMPACTIONS: usize = 4;
/// Names of a page of S3 and GCS.
const PAGE: usize = 1_000;
const LOOKS: usize = 5;
/// Of a batch of 400 MB.
const LARGE_PACKETS: u32 = 2_400_000;

/// Counts what a store is asked for.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    /// Content read, and 100 bytes for each name listed.
    read: AtomicU64,
    written: AtomicU64,
}

impl Counts {
    fn take(&self) -> [f64; 3] {
        [&self.requests, &self.read, &self.written].map(|count| count.swap(0, Ordering::Relaxed) as f64)
    }
}

#[derive(Debug)]
struct Counting {
    inner: FileMailbox,
    counts: Arc<Counts>,
}

impl Counting {
    fn asked(&self, read: u64, written: u64) {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.counts.read.fetch_add(read, Ordering::Relaxed);
        self.counts.written.fetch_add(written, Ordering::Relaxed);
    }
}

#[async_trait]
impl Mailbox for Counting {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let body = self.inner.open(key).await?;
        self.asked(body.meta.size, 0);
        Ok(body)
    }

    async fn read_range(&self, key: &ObjectKey, offset: u64, length: u64) -> Result<Bytes, MailboxError> {
        let bytes = self.inner.read_range(key, offset, length).await?;
        self.asked(bytes.len() as u64, 0);
        Ok(bytes)
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.asked(0, 0);
        self.inner.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.asked(0, 0);
        self.inner.begin_upload(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.asked(0, content.len() as u64);
        self.inner.put_if_absent(key, content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        let limit = Some(request.limit.unwrap_or(PAGE).min(PAGE));
        let page = self
            .inner
            .list(&ListRequest {
                limit,
                ..request.clone()
            })
            .await?;
        self.asked(100 * (page.objects.len() + page.folders.len()) as u64, 0);
        // The history is made up: its days aren't the store's.
        Ok(ListPage { time: None, ..page })
    }
}

/// Claims of one key, and where they are.
struct Ledger<'a> {
    folder: &'a Path,
    key: ClaimKey,
    rng: StdRng,
}

impl Ledger<'_> {
    /// Puts the chunk of a pod's batches, without the care that a mailbox takes: only the look is measured.
    fn chunk(&mut self, day: ClaimDay, hour: u8, batches: usize) -> anyhow::Result<ClaimsObject> {
        let mut claims: Vec<Claim> = (0..batches)
            .flat_map(|_| {
                let owner = self.rng.random();
                let claim = |fingerprint| Claim { fingerprint, owner };
                self.rng.random::<[u64; PACKETS]>().map(claim)
            })
            .collect();
        claims.sort_unstable();
        let chunk = Chunk::encode(day, hour, &claims);
        let object = ClaimsObject::Chunk(chunk.name);
        let path = self.path(object);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, &chunk.bytes)?;
        Ok(object)
    }

    fn path(&self, object: ClaimsObject) -> std::path::PathBuf {
        self.folder.join(object.key(self.key.name()).as_str())
    }

    /// Keeps a compacted chunk's name and length, which are all that is looked at, and gives its blocks back.
    fn hollow(&self, object: ClaimsObject) -> anyhow::Result<()> {
        let file = fs::File::options().write(true).open(self.path(object))?;
        let length = file.metadata()?.len();
        file.set_len(0)?;
        Ok(file.set_len(length)?)
    }
}

/// One figure of each of some looks, or of some compactions.
fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}

/// Looks behind a full history, and the compaction of the day before.
pub fn rows(batches_per_pod: usize) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let counts = Arc::new(Counts::default());
    let mailbox = Counting {
        inner: FileMailbox::in_folder(folder.path())?,
        counts: Arc::clone(&counts),
    };
    let mut rng = StdRng::seed_from_u64(1);
    let key = ClaimKey::of(&PacketDecryptionKey::generate(&mut rng));
    let mut ledger = Ledger {
        folder: folder.path(),
        key,
        rng,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let today = ClaimDay::parse(TODAY).context("a day")?;
    let chunks_an_hour = BATCHES_AN_HOUR / batches_per_pod;
    let claims_a_day = (24 * BATCHES_AN_HOUR * PACKETS) as f64;

    // Every day of the horizon as its compactions leave it; today's last chunks wait for the next one.
    let (mut compactions, mut written) = (Vec::new(), 0.0);
    // A look reaches a day beyond the horizon.
    let oldest = i32::from(HORIZON) + 1;
    for day in (0..=oldest).map(|later| today.plus(later - oldest)) {
        let mut chunks = Vec::new();
        for turn in 0..24 * COMPACTIONS {
            let hour = u8::try_from(turn / COMPACTIONS)?;
            let share = |turn: usize| (turn % COMPACTIONS) * chunks_an_hour / COMPACTIONS;
            let end = if (turn + 1) % COMPACTIONS == 0 {
                chunks_an_hour
            } else {
                share(turn + 1)
            };
            for _ in share(turn)..end {
                chunks.push(ledger.chunk(day, hour, batches_per_pod)?);
            }
            // Of the older days only what is left of them counts: they are compacted a few times, to the same.
            let last = turn + 1 == 24 * COMPACTIONS;
            let due = if day == today {
                !last
            } else {
                (turn + 1) % (6 * COMPACTIONS) == 0
            };
            if due {
                counts.take();
                let (cpu, done) = process_time(|| runtime.block_on(compact(&mailbox, ledger.key.name(), day)));
                done?;
                let [requests, read, put] = counts.take();
                if day == today {
                    compactions.push([cpu / 1e6, requests, read / 1e6]);
                    written += put / 1e6;
                }
            }
        }
        if day != today {
            chunks.into_iter().try_for_each(|chunk| ledger.hollow(chunk))?;
        }
    }

    let guard = ReplayGuard { horizon_days: HORIZON };
    let now = BatchTime::parse_compact(&format!("{TODAY}2359"))?.timestamp();
    let mut looks = Vec::new();
    for pod in 0..LOOKS {
        let mut claims = Claims::default();
        let time = BatchTime::parse_compact(&format!("{TODAY}2359"))?;
        for batch in 0..batches_per_pod {
            let uuid = uuid::Uuid::from_u128((pod * batches_per_pod + batch) as u128);
            let id = BatchId::parse(&format!("bench/{}/{uuid}", time.to_path()))?;
            let packets = (0..PACKETS as u32).map(|packet| ClaimedPacket {
                fingerprint: ledger.rng.random(),
                packet,
                key: 0,
            });
            claims.add(&id, packets.collect());
        }
        counts.take();
        let begun = Instant::now();
        let (cpu, replays) = process_time(|| {
            runtime.block_on(claims.find_replays(&mailbox, std::slice::from_ref(&ledger.key), guard, now))
        });
        let seconds = begun.elapsed().as_secs_f64();
        anyhow::ensure!(replays?.iter().all(Vec::is_empty), "a replay where none is");
        let [requests, read, _] = counts.take();
        looks.push([requests, read / 1e6, seconds, cpu / 1e6]);
    }

    // One batch of a size that must not be in memory whole.
    fs::write("/proc/self/clear_refs", "5")?;
    let kib = |field| -> anyhow::Result<u64> {
        let [figure] = status_kib("self", [field]).context("no figure of memory")?;
        Ok(figure)
    };
    let before = kib("VmRSS")?;
    let mut packets = Vec::new();
    for packet in 0..LARGE_PACKETS {
        packets.push(ClaimedPacket {
            fingerprint: ledger.rng.random(),
            packet,
            key: 0,
        });
    }
    let id = BatchId::parse(&format!("bench/2026/11/20/12/00/{}", uuid::Uuid::max()))?;
    let mut claims = Claims::default();
    claims.add(&id, packets);
    let replays = runtime.block_on(claims.find_replays(&mailbox, std::slice::from_ref(&ledger.key), guard, now))?;
    anyhow::ensure!(replays[0].is_empty(), "a replay where none is");
    let large = kib("VmHWM")?.saturating_sub(before);

    let of_looks = |figure: usize| mean(&looks.iter().map(|look| look[figure]).collect::<Vec<_>>());
    let name = |what: &str| format!("claims, {batches_per_pod} batches a pod, {what}");
    let [requests, read, seconds, cpu] = [0, 1, 2, 3].map(of_looks);
    let pods = chunks_an_hour as f64;
    let of_compactions = |figure: usize| compactions.iter().map(|took| took[figure]).sum::<f64>() / 24.0;
    Ok(vec![
        Row::plain(
            name("requests a batch"),
            "requests",
            requests / batches_per_pod as f64,
            Some(3.0),
        ),
        Row::plain(name("requests a pod"), "requests", requests, None),
        Row::plain(name("read a pod"), "MB", read, Some(200.0)),
        Row::plain(name("seconds a pod"), "s", seconds, None),
        Row::plain(name("CPU a pod"), "s", cpu, Some(1.0)),
        Row::plain(
            name("requests an hour"),
            "requests",
            requests * pods,
            Some(HOURLY_REQUESTS),
        ),
        Row::plain(name("read an hour"), "GB", read * pods / 1e3, Some(HOURLY_GIGABYTES)),
        Row::plain(name("compaction, CPU an hour"), "s", of_compactions(0), None),
        Row::plain(
            name("compaction, requests an hour"),
            "requests",
            of_compactions(1),
            None,
        ),
        Row::plain(name("compaction, read an hour"), "MB", of_compactions(2), None),
        Row::plain(
            name("compaction, written for each byte of claims"),
            "bytes",
            written * 1e6 / (claims_a_day * 16.0),
            Some(8.0),
        ),
        Row::plain(
            name("memory of a batch of 2.4 million packets"),
            "MB",
            large as f64 * 1024.0 / 1e6,
            Some(90.0),
        ),
    ])
}
