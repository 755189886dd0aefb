//! The one controller: looks at a processor, decides, acts, reports.

pub mod act;
pub mod cluster;
#[cfg(test)]
pub mod example;
pub mod guard;
pub mod memory;
pub mod observe;
pub mod parameters;
pub mod report;
pub mod sweep;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::conditions::{READY, WORKERS_READY};
use crds::{DataShareProcessor, DataShareProcessorStatus};
use facilitator_core::formats::ledger::LedgerIdentity;
use facilitator_core::formats::work::IntakeItem;
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, Client, ResourceExt};
use snafu::{ResultExt, Snafu};
use uuid::Uuid;

use crate::batch::{self, BatchInput};
use crate::inventory::Inventory;
use crate::metrics::{ControllerLabels, ErrorLabels, Metrics, ProcessorKey};
use crate::settings::Settings;
use crate::status::{Events, Verdict, apply_status};
use crate::window::{self, Schedule, WindowInput};
use crate::workload::{self, HealthInput, JobView, PlannedJob, Stage, Timing, Work, WorkersHealth};

use act::{ActError, Actor};
use memory::{Memories, Memory};
use observe::{Mailboxes, ObserveError};
use report::{Findings, Stall};

/// The controller's name in metrics.
pub const CONTROLLER: ControllerLabels = ControllerLabels {
    controller: "processor",
};
/// A reconcile that takes longer is given up and tried again.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Names are listed over the whole history so often, so that what was deleted by hand comes back.
const REBUILD_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// The admission policies are tried so often while they stand.
const GUARD_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// And so often while they don't.
const GUARD_RETRY: SignedDuration = SignedDuration::from_mins(1);

/// A processor that may not decode.
pub type Guarded = DeserializeGuard<DataShareProcessor>;

/// Why a look at a processor failed.
#[derive(Debug, Snafu)]
pub enum ReconcileError {
    /// The API server refused a read or didn't answer.
    #[snafu(display("reading the cluster: {source}"))]
    Cluster {
        /// Why.
        source: kube::Error,
    },
    /// A mailbox couldn't be looked at. The status says so.
    #[snafu(display("{source}"))]
    Mailbox {
        /// Why.
        source: ObserveError,
    },
    /// A decision couldn't be carried out.
    #[snafu(display("{source}"))]
    Act {
        /// Why.
        source: ActError,
    },
    /// It took too long.
    #[snafu(display("not done after {} s; a mailbox or the API server hangs", RECONCILE_TIMEOUT.as_secs()))]
    TimedOut,
}

impl ReconcileError {
    /// A word of a closed set, for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Cluster { .. } => "cluster",
            Self::Mailbox {
                source: ObserveError::Listing { .. },
            } => "mailbox",
            Self::Mailbox {
                source: ObserveError::Ledger { .. },
            } => "ledger",
            Self::Act { .. } => "act",
            Self::TimedOut => "timeout",
        }
    }
}

/// What every reconcile shares.
pub struct Context {
    /// The API.
    pub client: Client,
    /// The process's settings.
    pub settings: Settings,
    /// Settings of time, for decisions.
    pub timing: Timing,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// Events for people.
    pub events: Events,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// What is remembered between reconciles; all of it may be lost.
    pub memories: Memories,
}

/// The settings of time that decisions rest on.
#[must_use]
pub fn timing(settings: &Settings) -> Timing {
    let blocked_retry = SignedDuration::from_secs(settings.blocked_retry_seconds.into());
    let standard = Timing::default();
    Timing {
        missing_packet: SignedDuration::from_secs(settings.missing_packet_seconds.into()),
        blocked_retry,
        // Who wants blocked work back sooner wants to know sooner that workers start again, too.
        canary_first: standard
            .canary_first
            .min(blocked_retry.max(SignedDuration::from_secs(1))),
        ..standard
    }
}

/// Namespace and name.
fn key_of(processor: &Guarded) -> ProcessorKey {
    (processor.namespace().unwrap_or_default(), processor.name_any())
}

/// One look at a processor.
///
/// # Errors
/// [`ReconcileError`]; tried again after [`on_error`].
pub async fn reconcile(processor: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let (key, begun, now) = (key_of(&processor), Instant::now(), (context.clock)());
    let metrics = &context.metrics;
    let delay = metrics.begun(key.clone(), now);
    metrics
        .reconcile_delay_seconds
        .get_or_create(&CONTROLLER)
        .observe(delay.as_secs_f64());
    let memory = context.memories.of(&key);
    let result = {
        let mut memory = memory.lock().await;
        // Boxed: the future is large, and its type unspeakable.
        let look = look(&context, &key, &mut memory).boxed();
        let result = tokio::time::timeout(RECONCILE_TIMEOUT, look)
            .await
            .unwrap_or(Err(ReconcileError::TimedOut));
        memory.failures = if result.is_ok() {
            0
        } else {
            memory.failures.saturating_add(1)
        };
        result
    };
    metrics.reconciles.get_or_create(&CONTROLLER).inc();
    metrics
        .reconcile_seconds
        .get_or_create(&CONTROLLER)
        .observe(begun.elapsed().as_secs_f64());
    let wait = context.settings.tick;
    metrics.queued(key, (context.clock)().checked_add(wait).unwrap_or(Timestamp::MAX));
    result.map(|()| Action::requeue(wait))
}

/// How long to wait after a failure: a tick, doubled with every failure, at most a minute (or a tick, if that is longer).
#[must_use]
pub fn backoff(tick: Duration, failures: u32) -> Duration {
    tick.saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LONGEST_BACKOFF.max(tick))
}

/// What to do after a failure.
pub fn on_error(processor: Arc<Guarded>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let key = key_of(&processor);
    let labels = ErrorLabels {
        controller: CONTROLLER.controller,
        class: error.class(),
    };
    context.metrics.reconcile_errors.get_or_create(&labels).inc();
    tracing::warn!(namespace = key.0, processor = key.1, class = error.class(), %error, "reconcile failed; it is tried again");
    let failures = context.memories.of(&key).try_lock().map_or(1, |memory| memory.failures);
    let wait = backoff(context.settings.tick, failures);
    context
        .metrics
        .queued(key, (context.clock)().checked_add(wait).unwrap_or(Timestamp::MAX));
    Action::requeue(wait)
}

/// Reads the processor as it is now: the watch may be behind our own last write, and the ledger's id in its status is what
/// keeps an emptied ledger from summing everything again.
async fn look(context: &Context, key: &ProcessorKey, memory: &mut Memory) -> Result<(), ReconcileError> {
    let (namespace, name) = key;
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    let Some(DeserializeGuard(read)) = api.get_opt(name).await.context(ClusterSnafu)? else {
        context.forget(key);
        return Ok(());
    };
    match read {
        Ok(processor) => {
            memory.belong_to(
                &processor.uid().unwrap_or_default(),
                processor.metadata.generation.unwrap_or_default(),
            );
            let look = Look {
                context,
                processor: &processor,
                key,
                now: (context.clock)(),
            };
            look.at(memory).await
        }
        Err(invalid) => {
            sweep::tell_undecodable(context, key, &invalid, memory).await;
            Ok(())
        }
    }
}

/// One look at one processor.
struct Look<'a> {
    context: &'a Context,
    processor: &'a DataShareProcessor,
    key: &'a ProcessorKey,
    now: Timestamp,
}

/// What of the ledger and the spec every plan rests on.
struct Ground {
    ledger: Option<LedgerIdentity>,
    start_at: Timestamp,
    schedule: Schedule,
}

impl Look<'_> {
    async fn at(&self, memory: &mut Memory) -> Result<(), ReconcileError> {
        let spec = &self.processor.spec;
        let mut findings = Findings {
            suspended: spec.suspend,
            agreement_digest: parameters::agreement_digest(spec),
            ..Findings::default()
        };
        findings.guarded = self.guard(memory).await;
        let result = self.work(memory, &mut findings).await;
        if let Err(ReconcileError::Mailbox { source }) = &result {
            findings.listed = Some(Err(source.to_string()));
        }
        // What was found out is told even where the rest failed.
        let told = self.report(&findings).await;
        result.and(told)
    }

    async fn work(&self, memory: &mut Memory, findings: &mut Findings) -> Result<(), ReconcileError> {
        let (context, (namespace, name)) = (self.context, self.key);
        let client = &context.client;
        // Jobs before the ledger: a Job that is seen as finished has all its objects in the listing.
        let mut jobs = cluster::jobs(client, namespace, name, &mut memory.work)
            .await
            .context(ClusterSnafu)?;
        let health = self.health(memory, &jobs);
        let condition = &health.condition;
        findings.workers = Some(Verdict::new(
            WORKERS_READY,
            Some(condition.status),
            condition.reason,
            &condition.message,
        ));
        let actor = self.actor();
        actor.remove_jobs(&health.remove).await.context(ActSnafu)?;
        jobs.retain(|view| !health.remove.iter().any(|removed| removed == view.name()));

        let mailboxes = match Mailboxes::open(&spec_of(self.processor).mailboxes) {
            Ok(mailboxes) => mailboxes,
            Err(error) => {
                findings.stall = Some(Stall {
                    reason: crds::conditions::reasons::INVALID_SPEC,
                    message: error.to_string(),
                });
                return Ok(());
            }
        };
        let ground = match self.ground(&mailboxes).await? {
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
        let inventory = self.inventory(&mailboxes, &ground.schedule, memory).await?;
        findings.listed = Some(Ok(()));
        self.decide(memory, &ground, &inventory, jobs, &health, findings).await
    }

    fn health(&self, memory: &mut Memory, jobs: &[JobView]) -> WorkersHealth {
        let refused = std::mem::take(&mut memory.refused);
        let input = HealthInput {
            jobs,
            generation: self.processor.metadata.generation.unwrap_or_default(),
            image: &self.context.settings.worker_image,
            start_deadline: SignedDuration::from_secs(self.processor.spec.workers.start_deadline_seconds.into()),
            timing: &self.context.timing,
            refused: &refused,
            memory: &memory.health,
        };
        let health = workload::health(&input, self.now);
        memory.health = health.memory.clone();
        health
    }

    /// What plans rest on, or why nothing is planned (with the ledger that was found).
    async fn ground(
        &self,
        mailboxes: &Mailboxes,
    ) -> Result<Result<Ground, (Stall, Option<LedgerIdentity>)>, ReconcileError> {
        use crds::conditions::reasons::{INVALID_SPEC, LEDGER_MISMATCH};
        let spec = &self.processor.spec;
        let ledger = match mailboxes.ledger_identity().await {
            Ok(ledger) => ledger,
            Err(error @ ObserveError::Ledger { .. }) => {
                return Ok(Err((
                    Stall {
                        reason: LEDGER_MISMATCH,
                        message: error.to_string(),
                    },
                    None,
                )));
            }
            Err(source) => return Err(ReconcileError::Mailbox { source }),
        };
        let remembered = self
            .processor
            .status
            .as_ref()
            .and_then(|status| status.ledger_id.as_deref());
        let stall = report::check_ledger(
            ledger.as_ref(),
            remembered,
            &spec.instance,
            parameters::share(spec.share),
        );
        if let Some(stall) = stall {
            return Ok(Err((stall, ledger)));
        }
        let created = self.processor.creation_timestamp().map_or(self.now, |time| time.0);
        let start_at = match &ledger {
            Some(ledger) => match ledger.start_at.parse() {
                Ok(start_at) => start_at,
                Err(error) => {
                    let message = format!("ledger.json: startAt: {error}");
                    return Ok(Err((
                        Stall {
                            reason: LEDGER_MISMATCH,
                            message,
                        },
                        None,
                    )));
                }
            },
            None => match parameters::default_start(spec, created) {
                Ok(start_at) => start_at,
                Err(error) => {
                    return Ok(Err((
                        Stall {
                            reason: INVALID_SPEC,
                            message: error.to_string(),
                        },
                        None,
                    )));
                }
            },
        };
        Ok(match Schedule::of(spec, start_at, &self.context.timing) {
            Ok(schedule) => Ok(Ground {
                ledger,
                start_at,
                schedule,
            }),
            Err(error) => Err((
                Stall {
                    reason: INVALID_SPEC,
                    message: error.to_string(),
                },
                ledger,
            )),
        })
    }

    async fn inventory(
        &self,
        mailboxes: &Mailboxes,
        schedule: &Schedule,
        memory: &mut Memory,
    ) -> Result<Inventory, ReconcileError> {
        let due = memory
            .rebuilt
            .is_none_or(|rebuilt| self.now.duration_since(rebuilt) >= REBUILD_EVERY);
        let oldest_open = memory.oldest_open.filter(|_| !due);
        let from = schedule.listing_start(oldest_open, self.now);
        let listings = mailboxes.listings(from, &schedule.aggregations, &mut memory.ledger, &self.context.metrics);
        let listings = listings.await.context(MailboxSnafu)?;
        if oldest_open.is_none() {
            memory.rebuilt = Some(self.now);
        }
        Ok(Inventory::build(listings, schedule))
    }

    async fn decide(
        &self,
        memory: &mut Memory,
        ground: &Ground,
        inventory: &Inventory,
        jobs: Vec<JobView>,
        health: &WorkersHealth,
        findings: &mut Findings,
    ) -> Result<(), ReconcileError> {
        let (context, (namespace, name)) = (self.context, self.key);
        let (processor, schedule, timing) = (self.processor, &ground.schedule, &context.timing);
        let batches = cluster::batches(&context.client, namespace, name, &context.metrics)
            .await
            .context(ClusterSnafu)?;
        let windows = cluster::windows(&context.client, namespace, name, &context.metrics)
            .await
            .context(ClusterSnafu)?;
        let unfinished: Vec<_> = jobs.iter().filter(|view| !view.is_finished()).collect();
        let own = memory::Usage::of(unfinished.iter().map(|view| view.pods_wanted()));
        let (intake_jobs, aggregate_jobs): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|view| view.stage() == Some(Stage::Intake));

        // Held until what is planned is counted: two processors must not plan into the same room.
        let mut usage = context.memories.usage().await;
        let mut room = usage.room(self.key, own, &context.settings);
        let decided = batch::decide(
            &BatchInput {
                processor,
                schedule,
                timing,
                inventory,
                objects: &batches,
                jobs: &intake_jobs,
                allowance: health.intake,
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
                objects: &windows,
                jobs: &aggregate_jobs,
                allowance: health.aggregate,
                room,
                memory: &memory.windows,
            },
            self.now,
        );
        let planned: Vec<PlannedJob> = decided.jobs.iter().chain(&summed.jobs).cloned().collect();
        usage.set(self.key, own.and(&planned), decided.counts.waiting > 0);
        drop(usage);

        memory.batches = decided.memory.clone();
        memory.windows = summed.memory.clone();
        memory.oldest_open = Some(summed.oldest_open.unwrap_or(self.now));
        findings.overdue = Some(summed.overdue.clone());
        findings.counts = Some((decided.counts.clone(), summed.counts.clone()));
        self.measure(inventory, findings);

        let actor = self.actor();
        let ledger_id: Option<Uuid> = ground.ledger.as_ref().map(|ledger| ledger.id);
        let parameters = parameters::parameters(processor, ledger_id, ground.start_at);
        // Jobs first: whatever the number of objects to write, work begins at once.
        let started = actor.start(&planned, &parameters).await;
        if let Ok(started) = &started {
            memory.refused.clone_from(&started.refused);
            for stage in &started.stages {
                context.metrics.job_started(self.key, stage.label());
            }
        }
        actor.batches(&decided, &batches).await.context(ActSnafu)?;
        actor.windows(&summed, &windows).await.context(ActSnafu)?;
        started.context(ActSnafu).map(drop)
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
            let (_, job) = self.actor().build(&planned, "prio-operator-guard-probe");
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
        if written && let Some((reason, message)) = news(before, &after) {
            self.context
                .events
                .publish(self.processor, true, &reason, "Reconcile", &message)
                .await;
        }
        Ok(())
    }

    fn actor(&self) -> Actor<'_> {
        Actor {
            client: &self.context.client,
            settings: &self.context.settings,
            events: &self.context.events,
            processor: self.processor,
            namespace: &self.key.0,
        }
    }
}

fn spec_of(processor: &DataShareProcessor) -> &crds::DataShareProcessorSpec {
    &processor.spec
}

/// What an Event should tell: `Ready` became False, or is False for another reason than before.
fn news(before: Option<&DataShareProcessorStatus>, after: &DataShareProcessorStatus) -> Option<(String, String)> {
    let ready = |status: &DataShareProcessorStatus| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == READY)
            .cloned()
    };
    let now = ready(after).filter(|ready| ready.status == "False")?;
    let same = before
        .and_then(ready)
        .is_some_and(|then| then.status == now.status && then.reason == now.reason);
    (!same && now.reason != crds::conditions::reasons::SUSPENDED).then_some((now.reason, now.message))
}

impl Context {
    /// A processor is gone.
    pub fn forget(&self, key: &ProcessorKey) {
        self.memories.forget(key);
        self.metrics.gone(key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let of = |tick, failures| backoff(Duration::from_secs(tick), failures).as_secs();
        assert_eq!(
            [of(10, 1), of(10, 2), of(10, 3), of(10, 4), of(10, 100)],
            [10, 20, 40, 60, 60]
        );
        assert_eq!([of(2, 1), of(2, 5), of(300, 9)], [2, 32, 300]);
    }

    #[test]
    fn an_event_is_told_once_for_each_trouble() {
        let status = |listed: Result<(), String>| {
            let findings = Findings {
                listed: Some(listed),
                ..Findings::default()
            };
            report::status(None, &findings, 1, Timestamp::UNIX_EPOCH)
        };
        let (bad, pending) = (status(Err("no".into())), status(Ok(())));
        assert_eq!(news(None, &pending), None);
        assert_eq!(news(Some(&pending), &bad).unwrap().1, "no");
        assert_eq!(news(Some(&bad), &bad), None);
    }
}
