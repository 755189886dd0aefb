//! One look at one processor: observe, decide, act, report.

use std::collections::BTreeSet;

use crds::conditions::{WORKERS_READY, reasons};
use crds::{AggregationWindow, Batch, DataShareProcessor};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use snafu::ResultExt;
use uuid::Uuid;

use super::act::{Actor, Started};
use super::ground::Ground;
use super::keys::KeyLook;
use super::memory::Memory;
use super::observe::{Mailboxes, ObserveError, Places};
use super::report::{Findings, Stall};
use super::usages::{Usage, less};
use super::{
    ActSnafu, ClusterSnafu, Context, LOOK_TIMEOUT, MailboxSnafu, ReconcileError, WRITE_TIMEOUT, WatchedSnafu, cluster,
    parameters, partners, within,
};
use crate::batch::{self, BatchInput};
use crate::claims::{self, ClaimsInput};
use crate::inventory::Inventory;
use crate::metrics::ProcessorKey;
use crate::status::{Verdict, condition};
use crate::window::{self, WindowInput};
use crate::workload::{self, Allowance, HealthInput, HealthMemory, JobView, PlannedJob, Stage, WorkersHealth};

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
            match &memory.published {
                None => keys.note_published(&BTreeSet::new(), self.now),
                Some(published) => {
                    if let Some(ids) = &published.keys {
                        keys.note_published(ids, self.now);
                    }
                }
            }
        }
        // What was found out is told even where the rest failed.
        let told = within(WRITE_TIMEOUT, self.report(memory, &findings)).await;
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
        memory.preflights = Usage::of_preflights(unfinished(&preflights));
        let own = usage(&jobs).plus(memory.preflights);
        context.memories.usages().found(self.key, own);
        findings.preflight = self.preflight(memory, &preflights, own).await;
        self.report_preflight(memory, findings).await;
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
                .reports(view.name(), &mut memory.seen)
                .await
                .context(MailboxSnafu)?;
        }
        memory.seen.keep_reports(&jobs.iter().map(JobView::name).collect());
        let windows = cluster::windows(client, namespace, name, &context.metrics)
            .await
            .context(ClusterSnafu)?;
        ground.schedule.overrides = window::overrides(&windows);
        memory.seen.seldom = unfinished(&jobs).next().is_some() || memory.failures > 0;
        let inventory = self.inventory(&mailboxes, &ground.schedule, memory).await?;
        findings.listed = Some(Ok(()));
        let keys = self
            .keys(
                memory,
                &mailboxes,
                &ground.schedule,
                &inventory,
                &jobs,
                &health,
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
            HealthMemory::recall(condition(conditions, WORKERS_READY))
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
        let context = self.context;
        let (processor, schedule, timing) = (self.processor, &ground.schedule, &context.timing);
        if std::mem::take(&mut memory.writes_unanswered) {
            context.batches.doubt(&self.key.0);
        }
        let guarded = context.batches.of(self.key).await.context(WatchedSnafu)?;
        let batches: Vec<&Batch> = guarded.iter().filter_map(|batch| batch.0.as_ref().ok()).collect();
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
            let mut room = less(room, &probes);
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
            room = less(room, &decided.jobs);
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
                room: less(room, &summed.jobs),
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
        // So it stays where this look is given up half-way.
        memory.writes_unanswered = true;
        let wrote_batches = actor.batches(&decided).await;
        memory.writes_unanswered = wrote_batches.as_ref().is_err_and(|error| !error.is_refusal());
        let wrote = [wrote_batches, actor.windows(&summed, windows).await];
        // Last, so that no number of them holds up what machines read.
        actor.tell(decided.events.iter().chain(&summed.events)).await;
        wrote.into_iter().collect::<Result<(), _>>().context(ActSnafu)?;
        started.and(probed).context(ActSnafu).map(drop)
    }

    pub(super) fn actor(&self) -> Actor<'_> {
        Actor {
            client: &self.context.client,
            settings: &self.context.settings,
            events: &self.context.events,
            watched: &self.context.batches,
            processor: self.processor,
            namespace: &self.key.0,
        }
    }
}

/// The Jobs that aren't over, and the pods that they want.
fn usage(jobs: &[JobView]) -> Usage {
    Usage::of(unfinished(jobs))
}

/// The pods that each Job wants that isn't over.
fn unfinished(jobs: &[JobView]) -> impl Iterator<Item = u32> {
    jobs.iter().filter(|view| !view.is_finished()).map(JobView::pods_wanted)
}
