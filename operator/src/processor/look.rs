//! One look at one processor: observe, decide, act, report.

use crds::conditions::{MANIFEST_PUBLISHED, PREFLIGHT, READY, WORKERS_READY, reasons};
use crds::{AggregationWindow, DataShareProcessor, DataShareProcessorStatus};
use facilitator_core::formats::work::IntakeItem;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use snafu::ResultExt;
use uuid::Uuid;

use super::act::{Actor, Started};
use super::ground::Ground;
use super::keys::KeyLook;
use super::memory::{self, Memory};
use super::observe::{Mailboxes, ObserveError, Places};
use super::report::{self, Findings, Stall};
use super::{
    ActSnafu, ClusterSnafu, Context, LOOK_TIMEOUT, MailboxSnafu, ReconcileError, WRITE_TIMEOUT, cluster, guard,
    manifest, parameters, partners, within,
};
use crate::batch::{self, BatchInput};
use crate::claims::{self, ClaimsInput};
use crate::inventory::Inventory;
use crate::metrics::ProcessorKey;
use crate::status::{Verdict, apply_status};
use crate::window::{self, Schedule, Scope, WindowInput};
use crate::workload::{
    self, Allowance, HealthInput, HealthMemory, JobView, KeySet, PlannedJob, Stage, Work, WorkersHealth,
};

/// All old windows without a result are listed at least so often, so that what was deleted by hand comes back.
pub(super) const REBUILD_LATEST: SignedDuration = SignedDuration::from_hours(1);
/// And not before so many ticks: a batch of an old date that comes late is found then.
pub(super) const REBUILD_TICKS: i32 = 30;
/// Of the time, such listings take a hundredth at most.
const REBUILD_SHARE: i32 = 100;
/// The admission policies are tried so often while they stand.
const GUARD_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// And so often while they don't.
const GUARD_RETRY: SignedDuration = SignedDuration::from_mins(1);

/// One look at one processor.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) context: &'a Context,
    pub(super) processor: &'a DataShareProcessor,
    pub(super) key: &'a ProcessorKey,
    pub(super) now: Timestamp,
}

impl Look<'_> {
    /// Observes, decides, acts and reports.
    pub(super) async fn at(&self, memory: &mut Memory) -> Result<(), ReconcileError> {
        let spec = &self.processor.spec;
        let mut findings = Findings {
            suspended: spec.suspend,
            agreement_digest: parameters::agreement_digest(spec),
            ..Findings::default()
        };
        let result = within(LOOK_TIMEOUT, self.work(memory, &mut findings)).await;
        match &result {
            Ok(()) => {}
            Err(ReconcileError::Mailbox { source }) => {
                findings.listed = Some(Err((source.reason(), source.to_string())));
            }
            Err(error) => findings.failed = Some(error.to_string()),
        }
        if findings.counts.is_none() {
            self.context.memories.usages().gave_up(self.key);
        }
        // Partners read our manifests whatever else goes wrong here.
        findings.published = within(WRITE_TIMEOUT, self.publish(memory)).await.ok();
        if let (Some(keys), Some(_)) = (&mut findings.keys, &findings.published) {
            let published = memory.published.as_ref().map(|published| &published.keys);
            keys.note_published(published, self.now);
        }
        // What was found out is told even where the rest failed.
        let told = within(WRITE_TIMEOUT, self.report(&findings)).await;
        result.and(told)
    }

    async fn work(&self, memory: &mut Memory, findings: &mut Findings) -> Result<(), ReconcileError> {
        findings.guarded = self.guard(memory).await;
        let peers = partners::find(&self.context.client, &self.key.0, &self.processor.spec).await;
        let resolved = partners::resolve(self.processor, &peers.context(ClusterSnafu)?);
        findings.peers = Some(resolved.verdict);
        memory.rests_on(resolved.parties.as_ref());
        // The rest works with a spec that leaves nothing to Peers.
        let whole = Look {
            processor: &resolved.processor,
            ..*self
        };
        whole.work_on(memory, findings).await
    }

    async fn work_on(&self, memory: &mut Memory, findings: &mut Findings) -> Result<(), ReconcileError> {
        let (context, (namespace, name)) = (self.context, self.key);
        let client = &context.client;
        // Jobs before the ledger: a Job that is seen as finished has all its objects in the listing.
        let jobs = cluster::jobs(client, namespace, name, &mut memory.work)
            .await
            .context(ClusterSnafu)?;
        // Apart from all other Jobs, and before anything that it is to find out about can fail.
        let (preflights, mut jobs): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|view| view.preflight_stage().is_some());
        memory.preflights = usage(&preflights);
        let own = usage(&jobs).plus(memory.preflights);
        context.memories.usages().found(self.key, own);
        findings.preflight = self.preflight(memory, &preflights, own).await;
        let health = self.health(memory, &jobs);
        let condition = &health.condition;
        findings.workers = Some(Verdict::new(
            WORKERS_READY,
            condition.status,
            condition.reason,
            &condition.message,
        ));
        let actor = self.actor();
        actor.remove_jobs(&health.remove).await.context(ActSnafu)?;
        jobs.retain(|view| !health.remove.iter().any(|removed| removed == view.name()));

        let mailboxes = match self.mailboxes(memory).await {
            Ok(mailboxes) => mailboxes,
            Err(ObserveError::Cluster { source }) => return Err(ReconcileError::Cluster { source }),
            Err(error) => {
                findings.stall = Some(Stall {
                    reason: reasons::INVALID_SPEC,
                    message: error.to_string(),
                });
                return Ok(());
            }
        };
        let mut ground = match Ground::find(&mailboxes, self.processor, &context.timing, self.now).await? {
            Ok(ground) => ground,
            Err((stall, ledger)) => {
                (findings.stall, findings.ledger) = (Some(stall), ledger);
                return Ok(());
            }
        };
        (findings.ledger, findings.start_at) = (ground.ledger.clone(), Some(ground.start_at));

        for view in jobs.iter_mut().filter(|view| view.is_finished()) {
            view.reports = mailboxes
                .reports(view.name(), &mut memory.ledger)
                .await
                .context(MailboxSnafu)?;
        }
        memory.ledger.keep_reports(&jobs.iter().map(JobView::name).collect());
        let windows = cluster::windows(client, namespace, name, &context.metrics)
            .await
            .context(ClusterSnafu)?;
        ground.schedule.overrides = window::overrides(&windows);
        let inventory = self.inventory(&mailboxes, &ground.schedule, memory).await?;
        findings.listed = Some(Ok(()));
        let keys = self
            .keys(
                memory,
                &mailboxes,
                &ground.schedule,
                &inventory,
                &jobs,
                findings.suspended,
            )
            .await?;
        findings.keys = Some(keys.findings.clone());
        actor.remove_jobs(&keys.remove).await.context(ActSnafu)?;
        jobs.retain(|view| !keys.remove.iter().any(|removed| removed == view.name()));
        self.claims(&mailboxes, memory).await;
        self.decide(memory, &ground, &inventory, jobs, &windows, &health, &keys, findings)
            .await
    }

    /// Opened once and kept: what is known of a store and of who we are to it holds for more than one look.
    async fn mailboxes(&self, memory: &mut Memory) -> Result<Mailboxes, ObserveError> {
        let config_maps = Api::namespaced(self.context.client.clone(), &self.key.0);
        let places = Places::of(&self.processor.spec.mailboxes, &config_maps, &self.context.settings).await?;
        match &memory.mailboxes {
            Some((of, mailboxes)) if *of == places => Ok(mailboxes.clone()),
            _ => {
                let mailboxes = Mailboxes::open(&places)?;
                memory.mailboxes = Some((places, mailboxes.clone()));
                Ok(mailboxes)
            }
        }
    }

    fn health(&self, memory: &mut Memory, jobs: &[JobView]) -> WorkersHealth {
        let refused = std::mem::take(&mut memory.refused);
        let remembered = memory.health.get_or_insert_with(|| {
            let status = self.processor.status.as_ref();
            let conditions = status.map_or(&[][..], |status| &status.conditions);
            HealthMemory::recall(conditions.iter().find(|condition| condition.type_ == WORKERS_READY))
        });
        let input = HealthInput {
            jobs,
            generation: self.processor.metadata.generation.unwrap_or_default(),
            image: &self.context.settings.worker_image,
            start_deadline: SignedDuration::from_secs(self.processor.spec.workers.start_deadline_seconds.into()),
            timing: &self.context.timing,
            refused: &refused,
            memory: remembered,
        };
        let health = workload::health(&input, self.now);
        memory.health = Some(health.memory.clone());
        health
    }

    async fn inventory(
        &self,
        mailboxes: &Mailboxes,
        schedule: &Schedule,
        memory: &mut Memory,
    ) -> Result<Inventory, ReconcileError> {
        let tick = SignedDuration::try_from(self.context.settings.tick).unwrap_or(REBUILD_LATEST);
        let due = |(rebuilt, took): (Timestamp, SignedDuration)| {
            self.now.duration_since(rebuilt) >= rebuild_every(tick, took)
        };
        let everything = memory.open.is_none() || memory.rebuilt.is_none_or(due);
        let open = memory.open.clone().unwrap_or_default();
        let scope = Scope::new(schedule, &open, everything, self.now);
        let (begun, before) = ((self.context.clock)(), (memory.open.clone(), memory.rebuilt));
        if everything {
            // Where a look is given up for taking too long, the next ones go on with what is known to be open.
            (memory.open, memory.rebuilt) = (Some(open), Some((self.now, REBUILD_LATEST)));
        }
        let listings = mailboxes.listings(
            &scope,
            &schedule.aggregations,
            &mut memory.ledger,
            &self.context.metrics,
        );
        let listings = listings.await;
        if everything {
            (memory.open, memory.rebuilt) = before;
        }
        let listings = listings.context(MailboxSnafu)?;
        if everything {
            memory.rebuilt = Some((self.now, (self.context.clock)().duration_since(begun)));
        }
        Ok(Inventory::build(listings, schedule, self.now))
    }

    /// Lists claims from time to time. A look doesn't fail over it: what isn't compacted is read all the same.
    async fn claims(&self, mailboxes: &Mailboxes, memory: &mut Memory) {
        let due = memory
            .claims_looked
            .is_none_or(|looked| self.now.duration_since(looked) >= claims::LOOK_EVERY);
        if !due || !self.processor.spec.replay_guard.enabled {
            return;
        }
        memory.claims_looked = Some(self.now);
        match mailboxes.claims(&claims::days(self.now)).await {
            Ok(listed) => memory.claims = listed,
            Err(error) => tracing::warn!(%error, "claims can't be listed; they aren't compacted"),
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn decide(
        &self,
        memory: &mut Memory,
        ground: &Ground,
        inventory: &Inventory,
        jobs: Vec<JobView>,
        windows: &[AggregationWindow],
        health: &WorkersHealth,
        keys: &KeyLook,
        findings: &mut Findings,
    ) -> Result<(), ReconcileError> {
        let (context, (namespace, name)) = (self.context, self.key);
        let (processor, schedule, timing) = (self.processor, &ground.schedule, &context.timing);
        let batches = cluster::batches(&context.client, namespace, name, &context.metrics)
            .await
            .context(ClusterSnafu)?;
        let own = usage(&jobs).plus(memory.preflights);
        let (jobs, _): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|view| view.probed_stage().is_none());
        let allowed = |allowance| {
            if keys.work.is_some() {
                allowance
            } else {
                Allowance::Wait
            }
        };
        let (intake_jobs, aggregate_jobs): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|view| view.stage() == Some(Stage::Intake));

        let (decided, summed, planned, probes) = {
            // Held until what is planned is counted: two processors must not plan into the same room.
            let mut usages = context.memories.usages();
            let room = usages.room(self.key, own, &context.settings);
            let probes: Vec<_> = keys
                .start
                .iter()
                .take(room.jobs.min(room.pods) as usize)
                .cloned()
                .collect();
            let mut room = memory::less(room, &probes);
            let decided = batch::decide(
                &BatchInput {
                    processor,
                    schedule,
                    timing,
                    inventory,
                    objects: &batches,
                    jobs: &intake_jobs,
                    allowance: allowed(health.intake),
                    room,
                    memory: &memory.batches,
                },
                self.now,
            );
            room = memory::less(room, &decided.jobs);
            let summed = window::decide(
                &WindowInput {
                    processor,
                    schedule,
                    timing,
                    inventory,
                    tallies: &decided.windows,
                    objects: windows,
                    jobs: &aggregate_jobs,
                    allowance: allowed(health.aggregate),
                    room,
                    memory: &memory.windows,
                },
                self.now,
            );
            let compaction = claims::decide(&ClaimsInput {
                processor,
                listed: &std::mem::take(&mut memory.claims),
                jobs: &intake_jobs,
                allowance: health.intake,
                room: memory::less(room, &summed.jobs),
            });
            let planned: Vec<PlannedJob> = decided
                .jobs
                .iter()
                .chain(&summed.jobs)
                .cloned()
                .chain(compaction)
                .collect();
            usages.set(
                self.key,
                own.and(&planned).and(&probes),
                decided.short_of_room || summed.short_of_room,
            );
            (decided, summed, planned, probes)
        };

        memory.batches = decided.memory.clone();
        memory.windows = summed.memory.clone();
        memory.open = Some(summed.open.clone());
        findings.next_cutoff = summed.next_cutoff;
        findings.overdue = Some(summed.overdue.clone());
        findings.counts = Some((decided.counts.clone(), summed.counts.clone()));
        self.measure(inventory, findings);

        let actor = self.actor();
        let ledger_id: Option<Uuid> = ground.ledger.as_ref().map(|ledger| ledger.id);
        let parameters = |keys| parameters::parameters(processor, keys, ledger_id, ground.start_at);
        // Jobs first: whatever the number of objects to write, work begins at once.
        let started = match &keys.work {
            Some(work) => actor.start(&planned, work, &parameters(work)).await,
            None => Ok(Started::default()),
        };
        if let Ok(started) = &started {
            memory.refused.clone_from(&started.refused);
            for stage in &started.stages {
                context.metrics.job_started(self.key, stage.label());
            }
        }
        let probed = actor.start(&probes, &keys.all, &parameters(&keys.all)).await;
        if let Ok(probed) = &probed {
            memory.refused_probes = probed.refused.iter().map(|(_, message)| message.clone()).collect();
        }
        let wrote = [
            actor.batches(&decided, &batches).await,
            actor.windows(&summed, windows).await,
        ];
        // Last, so that no number of them holds up what machines read.
        actor.tell(decided.events.iter().chain(&summed.events)).await;
        wrote.into_iter().collect::<Result<(), _>>().context(ActSnafu)?;
        started.and(probed).context(ActSnafu).map(drop)
    }

    fn measure(&self, inventory: &Inventory, findings: &Findings) {
        let open = inventory
            .windows
            .values()
            .filter(|window| window.planned.is_none() && window.finished.is_none());
        let waiting = open
            .flat_map(|window| window.batches.values())
            .filter(|batch| !batch.is_done());
        let oldest = waiting.filter_map(|batch| batch.signed).min();
        let age = oldest.map_or(0, |signed| self.now.duration_since(signed).as_secs().max(0));
        self.context.metrics.counted(self.key, age, findings.counts.as_ref());
    }

    /// Tries the admission policies from time to time; `None`: not known.
    async fn guard(&self, memory: &mut Memory) -> Option<Verdict> {
        let due = memory.guard.as_ref().is_none_or(|(tried, verdict)| {
            let every = if verdict.status == Some(true) {
                GUARD_EVERY
            } else {
                GUARD_RETRY
            };
            self.now.duration_since(*tried) >= every
        });
        if due {
            let item = IntakeItem {
                aggregation: "probe".into(),
                time: "2000/01/01/00/00".into(),
                uuid: Uuid::nil(),
                take_anyway: false,
            };
            let planned = PlannedJob {
                work: Work::Intake(vec![vec![item]]),
                parallelism: 1,
                attempt: 0,
                canary: false,
            };
            let (_, job) = self
                .actor()
                .build(&planned, &KeySet::default(), "prio-operator-guard-probe");
            match guard::probe(
                &self.context.client,
                &self.context.settings.policies,
                self.processor,
                &job,
            )
            .await
            {
                Ok(verdict) => memory.guard = Some((self.now, verdict)),
                Err(error) => tracing::warn!(%error, "the admission policies could not be tried"),
            }
        }
        memory.guard.as_ref().map(|(_, verdict)| verdict.clone())
    }

    /// Publishes our own manifests; `None`: none are asked for.
    async fn publish(&self, memory: &mut Memory) -> Result<Option<Verdict>, ReconcileError> {
        let publisher = manifest::Publisher {
            client: &self.context.client,
            processor: self.processor,
            namespace: &self.key.0,
            now: self.now,
        };
        let before = memory.published.take();
        memory.published = publisher.publish(before).await.context(ClusterSnafu)?;
        Ok(memory.published.as_ref().map(|published| published.verdict.clone()))
    }

    async fn report(&self, findings: &Findings) -> Result<(), ReconcileError> {
        let before = self.processor.status.as_ref();
        let generation = self.processor.metadata.generation.unwrap_or_default();
        let after = report::status(before, findings, generation, self.now);
        self.context.metrics.conditions(self.key, &after.conditions);
        let api: Api<DataShareProcessor> = Api::namespaced(self.context.client.clone(), &self.key.0);
        let written = match apply_status(&api, &self.key.1, before, &after).await {
            Ok(written) => written,
            // Deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(source) => return Err(ReconcileError::Cluster { source }),
        };
        for (reason, message) in news(before, &after).into_iter().filter(|_| written) {
            self.context
                .events
                .publish(self.processor, true, &reason, "Reconcile", &message)
                .await;
        }
        Ok(())
    }

    pub(super) fn actor(&self) -> Actor<'_> {
        Actor {
            client: &self.context.client,
            settings: &self.context.settings,
            events: &self.context.events,
            processor: self.processor,
            namespace: &self.key.0,
        }
    }
}

/// The Jobs that aren't over, and the pods that they want.
fn usage(jobs: &[JobView]) -> memory::Usage {
    memory::Usage::of(jobs.iter().filter(|view| !view.is_finished()).map(JobView::pods_wanted))
}

/// How long after a listing of all old windows, which took `took`, comes the next.
fn rebuild_every(tick: SignedDuration, took: SignedDuration) -> SignedDuration {
    let of = |time: SignedDuration, factor| time.checked_mul(factor).unwrap_or(REBUILD_LATEST);
    of(tick, REBUILD_TICKS).max(of(took, REBUILD_SHARE)).min(REBUILD_LATEST)
}

/// What Events should tell: `Ready`, `ManifestPublished` or `Preflight` became False, or is False for another reason than before.
fn news(before: Option<&DataShareProcessorStatus>, after: &DataShareProcessorStatus) -> Vec<(String, String)> {
    // The one is a person's wish; the other is so for a minute after each change, until the web server has it.
    const NO_NEWS: [&str; 2] = [reasons::SUSPENDED, reasons::NOT_SERVED];
    let of = |kind: &str| {
        let find = |status: &DataShareProcessorStatus| status.conditions.iter().find(|c| c.type_ == kind).cloned();
        let now = find(after).filter(|now| now.status == "False" && !NO_NEWS.contains(&now.reason.as_str()))?;
        let same = before
            .and_then(find)
            .is_some_and(|then| then.status == now.status && then.reason == now.reason);
        (!same).then_some((now.reason, now.message))
    };
    [READY, MANIFEST_PUBLISHED, PREFLIGHT]
        .into_iter()
        .filter_map(of)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crds::conditions::PEERS_KNOWN;

    #[test]
    fn old_windows_are_looked_for_often_where_that_is_cheap() {
        let of =
            |tick, took| rebuild_every(SignedDuration::from_secs(tick), SignedDuration::from_millis(took)).as_secs();
        assert_eq!(
            [of(2, 10), of(10, 10), of(10, 9_000), of(10, 90_000)],
            [60, 300, 900, 3_600]
        );
    }

    #[test]
    fn an_event_is_told_once_for_each_trouble() {
        let status = |listed: Result<(), (&'static str, String)>| {
            let findings = Findings {
                peers: Some(Verdict::new(PEERS_KNOWN, Some(true), reasons::OK, "")),
                listed: Some(listed),
                ..Findings::default()
            };
            report::status(None, &findings, 1, Timestamp::UNIX_EPOCH)
        };
        let (bad, pending) = (status(Err((reasons::LISTING_FAILED, "no".into()))), status(Ok(())));
        fn texts(before: Option<&DataShareProcessorStatus>, after: &DataShareProcessorStatus) -> Vec<String> {
            news(before, after).into_iter().map(|(_, text)| text).collect()
        }
        assert_eq!(texts(None, &pending), [""; 0]);
        assert_eq!(texts(Some(&pending), &bad), ["no"]);
        assert_eq!(texts(Some(&bad), &bad), [""; 0]);
        let published = |reason: &str| {
            let mut status = bad.clone();
            let verdict = Verdict::new(MANIFEST_PUBLISHED, Some(false), reason, "why");
            crate::status::set_condition(&mut status.conditions, &verdict, Some(1), Timestamp::UNIX_EPOCH);
            status
        };
        assert_eq!(texts(Some(&bad), &published(reasons::PUBLISH_FAILED)), ["why"]);
        assert_eq!(texts(Some(&bad), &published(reasons::NOT_SERVED)), [""; 0]);
    }
}
