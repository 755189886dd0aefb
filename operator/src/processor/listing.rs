//! Lists names: of each aggregation the stretches of time that are in the scope.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use facilitator_core::formats::claims::{CLAIMS, ClaimDay};
use facilitator_core::formats::ledger::{
    DELIVERED, LEDGER_OBJECT, PARTIALS, PLANS, REJECTED, RELEASED, RESULTS, SHARDS,
};
use facilitator_core::formats::names::{AggregationId, BatchTime, WindowId};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use mailbox::{ListRequest, Mailbox, MailboxError};

use crate::inventory::Listed;
use crate::window::Scope;

/// Stretches of names that are listed at a time.
const LISTINGS: usize = 8;

/// A stretch that is to be listed seldom isn't listed again before so many times as long as that took: listing then takes a
/// tenth of the time of stores that have other things to do.
const SELDOM: i32 = 9;
/// Where no Job works, all that can be done is to wait for what partners write.
const OFTEN: i32 = 1;
/// A stretch that takes longer is listed seldom, so that a look ends in time that lists all of them.
const LONG: SignedDuration = SignedDuration::from_secs(30);
/// And not later than so long after.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// What would be listed again so soon is always listed.
const SHORTEST_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// A prefix, after which name, and before which.
type Stretch = (String, Option<String>, Option<String>);

/// What stretches of a mailbox held when they were listed last. Looks follow each other closely while Jobs and pods change;
/// what partners write is listed again in each only where that costs little.
#[derive(Clone, Debug, Default)]
pub struct Stretches(BTreeMap<Stretch, Held>);

#[derive(Clone, Debug)]
struct Held {
    ended: Timestamp,
    took: SignedDuration,
    names: Arc<Vec<Listed>>,
}

impl Held {
    fn is_fresh(&self, seldom: bool, now: Timestamp) -> bool {
        let age = now.duration_since(self.ended);
        // Nothing is fresh that was listed later than now: the clock was set back.
        !age.is_negative() && age < pause_after(self.took, seldom)
    }

    /// Whether a later look may do with it.
    fn may_stay_fresh(&self) -> bool {
        !pause_after(self.took, true).is_zero()
    }
}

/// How long what took so long to list isn't listed again.
fn pause_after(took: SignedDuration, seldom: bool) -> SignedDuration {
    let times = if seldom || took > LONG { SELDOM } else { OFTEN };
    let pause = took.checked_mul(times).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
    if pause < SHORTEST_PAUSE {
        SignedDuration::ZERO
    } else {
        pause
    }
}

/// The listing of one mailbox.
pub(super) struct Listing<'a> {
    pub(super) mailbox: &'a dyn Mailbox,
    pub(super) scope: &'a Scope,
    /// Empty: all.
    pub(super) aggregations: &'a BTreeSet<String>,
    /// As [`MailboxCache::seldom`](super::observe::MailboxCache::seldom).
    pub(super) seldom: bool,
}

impl Listing<'_> {
    /// `<agg>/<time>/…` of ingestion and validation mailboxes. What is no aggregation's is listed as it is, to be counted.
    pub(super) async fn batches(
        &self,
        results: &BTreeMap<WindowId, Timestamp>,
        known: &mut Stretches,
        clock: fn() -> Timestamp,
    ) -> Result<Vec<Listed>, MailboxError> {
        let mut listed = Vec::new();
        let mut requests = Vec::new();
        for folder in self.folders("", &mut listed).await? {
            requests.extend(folder.batches(self.scope, results));
        }
        let now = clock();
        let stretches: BTreeSet<Stretch> = requests.iter().map(stretch).collect();
        known.0.retain(|stretch, _| stretches.contains(stretch));
        let held: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let fresh = known
                    .0
                    .get(&stretch(&request))
                    .filter(|held| held.is_fresh(self.seldom, now))
                    .cloned();
                self.held(request, fresh, clock).boxed()
            })
            .collect();
        let mut held = stream::iter(held).buffered(LISTINGS);
        while let Some((stretch, held)) = held.try_next().await? {
            if held.may_stay_fresh() {
                listed.extend_from_slice(&held.names);
                known.0.insert(stretch, held);
            } else {
                known.0.remove(&stretch);
                listed.extend(Arc::unwrap_or_clone(held.names));
            }
        }
        Ok(listed)
    }

    /// What a stretch holds, listed now where it isn't fresh.
    async fn held(
        &self,
        request: ListRequest,
        fresh: Option<Held>,
        clock: fn() -> Timestamp,
    ) -> Result<(Stretch, Held), MailboxError> {
        let stretch = stretch(&request);
        if let Some(held) = fresh {
            return Ok((stretch, held));
        }
        let begun = clock();
        let page = self.mailbox.list_all(&request).await?;
        let ended = clock();
        let held = Held {
            ended,
            took: ended.duration_since(begun),
            names: Arc::new(page.objects.into_iter().map(of).collect()),
        };
        Ok((stretch, held))
    }

    /// The folders of the ledger that plans rest on.
    pub(super) async fn ledger(&self) -> Result<Vec<Listed>, MailboxError> {
        let mut listed = Vec::new();
        let folders = self.folders(&format!("{RESULTS}/"), &mut listed).await?;
        let requests = folders
            .iter()
            .map(|folder| folder.windows(self.scope.results_from))
            .collect();
        self.names(requests, &mut listed).await?;
        let results: BTreeMap<WindowId, Timestamp> = listed.iter().filter_map(result_of).collect();
        let mut requests = Vec::new();
        for kind in [DELIVERED, REJECTED, SHARDS, PLANS, PARTIALS, RELEASED] {
            for folder in self.folders(&format!("{kind}/"), &mut listed).await? {
                if matches!(kind, DELIVERED | REJECTED) {
                    requests.extend(folder.batches(self.scope, &results));
                } else {
                    let ranges = self.scope.ranges(&folder.aggregation, &results);
                    requests.extend(ranges.first().map(|range| folder.windows(range.start)));
                }
            }
        }
        self.names(requests, &mut listed).await?;
        Ok(listed)
    }

    /// The aggregations' folders under `prefix`; objects beside them go to `listed`.
    async fn folders(&self, prefix: &str, listed: &mut Vec<Listed>) -> Result<Vec<Folder>, MailboxError> {
        let request = ListRequest {
            prefix: prefix.to_owned(),
            folders: true,
            ..ListRequest::default()
        };
        let page = self.mailbox.list_all(&request).await?;
        listed.extend(
            page.objects
                .into_iter()
                .filter(|meta| meta.key.as_str() != LEDGER_OBJECT)
                .map(of),
        );
        let folder = |path: String| {
            let name = path.strip_prefix(prefix).unwrap_or(&path).trim_end_matches('/');
            let aggregation = AggregationId::parse(name).ok()?;
            let wanted = self.aggregations.is_empty() || self.aggregations.contains(name);
            wanted.then_some(Folder { path, aggregation })
        };
        Ok(page.folders.into_iter().filter_map(folder).collect())
    }

    /// Some listings at a time, in their order.
    async fn names(&self, requests: Vec<ListRequest>, listed: &mut Vec<Listed>) -> Result<(), MailboxError> {
        let pages: Vec<_> = requests
            .into_iter()
            .map(|request| async move { self.mailbox.list_all(&request).await }.boxed())
            .collect();
        let mut pages = stream::iter(pages).buffered(LISTINGS);
        while let Some(page) = pages.try_next().await? {
            listed.extend(page.objects.into_iter().map(of));
        }
        Ok(())
    }
}

/// The names of these days' claims, of all packet keys.
pub(super) async fn claims(ledger: &dyn Mailbox, days: &BTreeSet<ClaimDay>) -> Result<Vec<Listed>, MailboxError> {
    let keys = ListRequest {
        prefix: format!("{CLAIMS}/"),
        folders: true,
        ..ListRequest::default()
    };
    let keys = ledger.list_all(&keys).await?.folders;
    let requests = keys.iter().flat_map(|key| {
        days.iter().map(move |day| ListRequest {
            prefix: format!("{key}{day}"),
            ..ListRequest::default()
        })
    });
    let pages: Vec<_> = requests
        .map(|request| async move { ledger.list_all(&request).await }.boxed())
        .collect();
    let pages: Vec<_> = stream::iter(pages).buffered(LISTINGS).try_collect().await?;
    Ok(pages.into_iter().flat_map(|page| page.objects).map(of).collect())
}

/// One aggregation's folder.
struct Folder {
    /// With the `/` at its end.
    path: String,
    aggregation: AggregationId,
}

impl Folder {
    /// Names of batches.
    fn batches(&self, scope: &Scope, results: &BTreeMap<WindowId, Timestamp>) -> Vec<ListRequest> {
        let ranges = scope.ranges(&self.aggregation, results);
        let label = |time| self.label(time, BatchTime::to_path);
        ranges
            .iter()
            .map(|range| self.request(label(range.start), range.end.and_then(label)))
            .collect()
    }

    /// Names of windows that begin at `from` or later.
    fn windows(&self, from: Timestamp) -> ListRequest {
        self.request(self.label(from, BatchTime::to_compact), None)
    }

    /// No name, but where those of a time begin. `None`: outside the years that names can hold, so no bound.
    fn label(&self, time: Timestamp, write: fn(BatchTime) -> String) -> Option<String> {
        Some(format!("{}{}", self.path, write(BatchTime::from_timestamp(time)?)))
    }

    fn request(&self, start_after: Option<String>, end_before: Option<String>) -> ListRequest {
        ListRequest {
            prefix: self.path.clone(),
            start_after,
            end_before,
            ..ListRequest::default()
        }
    }
}

fn stretch(request: &ListRequest) -> Stretch {
    let ListRequest {
        prefix,
        start_after,
        end_before,
        ..
    } = request.clone();
    (prefix, start_after, end_before)
}

/// The window of a result, and when it got that.
pub(super) fn result_of(listed: &Listed) -> Option<(WindowId, Timestamp)> {
    let name = listed.name.strip_prefix(RESULTS)?.strip_prefix('/')?;
    Some((WindowId::parse(name).ok()?, listed.stored))
}

fn of(meta: mailbox::ObjectMeta) -> Listed {
    Listed {
        name: meta.key.into_string(),
        stored: meta.modified,
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use std::sync::atomic::{AtomicI64, Ordering};

    use mailbox::{MemoryMailbox, ObjectKey};

    use crate::inventory::Listings;
    use crate::metrics::Metrics;
    use crate::processor::observe::{MailboxCache, Mailboxes};

    pub(in crate::processor) fn put(mailbox: &MemoryMailbox, names: &[&str]) {
        for name in names {
            mailbox.replace(&ObjectKey::parse(*name).unwrap(), &b"{}\n"[..]);
        }
    }

    #[tokio::test]
    async fn claims_of_some_days_are_listed_of_every_key() {
        let (_, _, ledger, mailboxes) = three();
        let name = |key: &str, rest: &str| format!("claims/{}/{rest}", key.repeat(32));
        let wanted = [
            name("0", "20261120-runs/000001"),
            name("0", "2026112003/x"),
            name("1", "2026112023/x"),
        ];
        for name in wanted
            .iter()
            .chain(&[name("0", "2026111923/x"), name("1", "2026112100/x")])
        {
            put(&ledger, &[name]);
        }
        let days = ["20261120", "20261122"].map(|day| ClaimDay::parse(day).unwrap());
        let listed = mailboxes.claims(&days.into()).await.unwrap();
        assert_eq!(names(&listed), wanted);
    }

    fn names(listed: &[Listed]) -> Vec<&str> {
        listed.iter().map(|listed| listed.name.as_str()).collect()
    }

    pub(in crate::processor) const UUID: &str = "00000000-0000-0000-0000-000000000001";

    pub(in crate::processor) fn three() -> (Arc<MemoryMailbox>, Arc<MemoryMailbox>, Arc<MemoryMailbox>, Mailboxes) {
        let of = |name| Arc::new(MemoryMailbox::new(name));
        let (ingestion, peer, ledger) = (of("ingestion"), of("peer"), of("ledger"));
        let mailboxes = Mailboxes::of(ingestion.clone(), peer.clone(), ledger.clone());
        (ingestion, peer, ledger, mailboxes)
    }

    #[tokio::test]
    async fn only_what_is_from_the_oldest_open_window_on_is_listed() {
        let (ingestion, _, ledger, mailboxes) = three();
        let (old, first, later) = ("2026/11/20/07/59", "2026/11/20/08/00", "2026/11/21/00/00");
        let batch = |time: &str| format!("agg/{time}/{UUID}.batch");
        put(
            &ingestion,
            &[
                &batch(old),
                &batch(first),
                &batch(later),
                "stray",
                &format!("other/{first}/{UUID}.batch"),
            ],
        );
        let delivered = |time: &str| format!("delivered/agg/{time}/{UUID}");
        put(
            &ledger,
            &[
                "ledger.json",
                &delivered(old),
                &delivered(later),
                "plans/agg/202611200000-202611200800",
            ],
        );
        put(
            &ledger,
            &[
                "plans/agg/202611200800-202611201600",
                &format!("records/agg/{first}/{UUID}"),
            ],
        );
        let metrics = Metrics::default();
        let only = BTreeSet::from(["agg".to_owned()]);
        let listings = mailboxes
            .listings(
                &scope(false),
                &only,
                &mut MailboxCache::default(),
                &metrics,
                Timestamp::now,
            )
            .await
            .unwrap();
        assert_eq!(names(&listings.ingestion), ["stray", &batch(first), &batch(later)]);
        assert_eq!(
            names(&listings.ledger),
            [&delivered(later), "plans/agg/202611200800-202611201600"]
        );
        let all = mailboxes
            .listings(
                &scope(false),
                &BTreeSet::new(),
                &mut MailboxCache::default(),
                &metrics,
                Timestamp::now,
            )
            .await
            .unwrap();
        assert_eq!(all.ingestion.len(), 4);
    }

    #[tokio::test]
    async fn old_windows_are_listed_as_far_as_they_have_no_result() {
        let (ingestion, peer, ledger, mailboxes) = three();
        let [one, two, three] =
            ["2026/11/19/01/00", "2026/11/19/09/00", "2026/11/19/17/00"].map(|time| format!("agg/{time}/{UUID}.batch"));
        for mailbox in [&ingestion, &peer] {
            put(mailbox, &[&one, &two, &three]);
        }
        let over = "agg/202611190800-202611191600";
        put(&ledger, &[&format!("plans/{over}"), &format!("results/{over}")]);
        let (mut cache, metrics) = (MailboxCache::default(), Metrics::default());
        let mut listed = async |everything| {
            mailboxes
                .listings(
                    &scope(everything),
                    &BTreeSet::new(),
                    &mut cache,
                    &metrics,
                    Timestamp::now,
                )
                .await
                .unwrap()
        };
        let look = listed(true).await;
        assert_eq!(
            names(&look.ingestion),
            [&one, &two, &three],
            "a result of now: late batches count"
        );
        let look = listed(false).await;
        assert!(look.ingestion.is_empty() && look.peer_validation.is_empty());
        assert_eq!(
            names(&look.ledger),
            [format!("results/{over}")],
            "results over the history, always"
        );
        let later = |everything| {
            let schedule = crate::window::Schedule {
                history: jiff::SignedDuration::from_hours(1_000_000),
                ..schedule()
            };
            Scope::new(
                &schedule,
                &BTreeSet::new(),
                everything,
                Timestamp::now() + jiff::SignedDuration::from_hours(25),
            )
        };
        let look = mailboxes
            .listings(&later(true), &BTreeSet::new(), &mut cache, &metrics, Timestamp::now)
            .await
            .unwrap();
        assert_eq!(names(&look.ingestion), [&one, &three]);
        assert_eq!(names(&look.peer_validation), [&one, &three]);
    }

    #[test]
    fn a_listing_is_fresh_for_nine_times_as_long_as_it_took_or_for_once_where_that_is_a_second() {
        let second = |seconds: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let table = [
            // Milliseconds that it took, seconds since then, fresh where it is to be listed seldom, and where often.
            (100, 0, false, false),
            (112, 1, true, false),
            (112, 2, false, false),
            (999, 0, true, false),
            (2_000, 1, true, true),
            (2_000, 2, true, false),
            (2_000, 17, true, false),
            (2_000, 18, false, false),
            (30_000, 29, true, true),
            (30_000, 30, true, false),
            (30_001, 269, true, true),
            (60_000, 299, true, true),
            (60_000, 300, false, false),
            (600_000, 299, true, true),
            (600_000, 300, false, false),
            (60_000, -1, false, false),
        ];
        for (took, age, seldom, often) in table {
            let held = Held {
                ended: second(1_000),
                took: SignedDuration::from_millis(took),
                names: Arc::default(),
            };
            let now = second(1_000 + age);
            let fresh = (held.is_fresh(true, now), held.is_fresh(false, now));
            assert_eq!(fresh, (seldom, often), "{took} ms, {age} s ago");
            assert!(held.may_stay_fresh() || fresh == (false, false));
        }
    }

    /// Half a second later at each look.
    fn slow() -> Timestamp {
        static HALF_SECONDS: AtomicI64 = AtomicI64::new(0);
        let halves = HALF_SECONDS.fetch_add(1, Ordering::Relaxed);
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(500 * halves)
    }

    #[tokio::test]
    async fn what_takes_long_to_list_is_not_listed_at_every_look() {
        let (ingestion, _, ledger, mailboxes) = three();
        let (mut cache, metrics) = (MailboxCache::default(), Metrics::default());
        let (scope, all) = (scope(false), BTreeSet::new());
        let mut listed = async |seldom| {
            cache.seldom = seldom;
            let listings = mailboxes.listings(&scope, &all, &mut cache, &metrics, slow);
            let Listings { ingestion, ledger, .. } = listings.await.unwrap();
            (ingestion.len(), ledger.len())
        };
        let time = "2026/11/20/08/00";
        put(&ingestion, &[&format!("agg/{time}/{UUID}.batch")]);
        assert_eq!(listed(true).await, (1, 0));
        put(&ingestion, &[&format!("agg/{time}/{UUID}.batch.sig")]);
        put(&ledger, &[&format!("delivered/agg/{time}/{UUID}")]);
        assert_eq!(
            listed(true).await,
            (1, 1),
            "it took half a second, and nine times that hasn't passed; the ledger is listed always"
        );
        for _ in 0..3 {
            assert_eq!(listed(true).await, (1, 1));
        }
        assert_eq!(listed(true).await, (2, 1));
        put(&ingestion, &[&format!("agg/{time}/{UUID}.batch.avro")]);
        assert_eq!(listed(true).await, (2, 1));
        assert_eq!(listed(false).await, (3, 1), "often now");
    }

    /// Windows of eight hours from the beginning of time.
    fn schedule() -> crate::window::Schedule {
        let mut processor = crate::workload::fixtures::processor();
        let windows = &mut processor.spec.windows;
        (windows.period_seconds, windows.max_defers) = (28_800, 0);
        let timing = crate::workload::Timing::default();
        crate::window::Schedule::of(&processor.spec, "2000-01-01T00:00:00Z".parse().unwrap(), &timing).unwrap()
    }

    /// At 2026-11-20 20:00 nothing is open that began before 08:00.
    pub(in crate::processor) fn scope(everything: bool) -> Scope {
        Scope::new(
            &schedule(),
            &BTreeSet::new(),
            everything,
            "2026-11-20T20:00:00Z".parse().unwrap(),
        )
    }
}
