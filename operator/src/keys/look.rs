//! One look at one ring: observe, decide, act, report; as many steps as go well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::key_ring::{KeyPurpose, KeyRingStatus, RotationPlan};
use crds::names::{PLAN_ANNOTATION, PLAN_ROTATION_PREFIX};
use crds::{DataShareProcessor, KeyRing};
use facilitator_core::crypto::new_key::NewKey;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, Client, ResourceExt};
use snafu::{ResultExt, Snafu};

use super::act::{ActError, Vault, act};
use super::cluster::{ClusterVault, VaultError};
use super::decide::{Decision, Observed, Refusal, Settings, Step, Wait, decide};
use super::forecast::{as_if_asked, forecast, horizon};
use super::guard::Guard;
use super::note::{Note, asked, note};
use super::observe::{Undecodable, bounded, decoded, observed};
use super::settings::KeysSettings;
use super::status::{Findings, status};
use super::tries::{Failed, RingKey, Tries};
use super::version::{Record, RecordError};
use crate::metrics::{ControllerLabels, ErrorLabels, Metrics};
use crate::processor::backoff;
use crate::status::{Events, apply_status};

/// The controller's name in metrics.
pub const CONTROLLER: ControllerLabels = ControllerLabels { controller: "keys" };
/// Steps of one look: a new version takes six.
const STEPS: usize = 12;
/// A look that takes longer is given up, told, and tried again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Steps that a plan shows.
const PLAN_STEPS: usize = 40;

/// A ring that may not decode.
pub type Guarded = DeserializeGuard<KeyRing>;

/// What every look shares.
pub struct Context {
    /// The API.
    pub client: Client,
    /// The process's settings.
    pub settings: KeysSettings,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// Events for people.
    pub events: Events,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// Whether the admission policy stands.
    pub guard: Guard,
    /// Keys that couldn't be made.
    pub tries: Tries,
}

/// Why a look at a ring failed. The status says so.
#[derive(Debug, Snafu)]
pub enum LookError {
    /// The API server refused a read or a write of the status, or didn't answer.
    #[snafu(display("{source}"))]
    Cluster {
        /// Why.
        source: kube::Error,
    },
    /// What is kept can't be read.
    #[snafu(display("{source}"))]
    Vault {
        /// Why.
        source: VaultError,
    },
    /// A step wasn't done.
    #[snafu(display("{source}"))]
    Act {
        /// Why.
        source: ActError<VaultError>,
    },
    /// A processor can't be read: it may refer to the ring, and its workers may need any of its keys.
    #[snafu(display(
        "DataShareProcessor {name} doesn't decode, and may refer to this KeyRing ({detail}): apply it anew, in the form of \
         this version"
    ))]
    Undecodable {
        /// Its name.
        name: String,
        /// Why.
        detail: String,
    },
    /// It took too long.
    #[snafu(display("not done after {} s; the API server hangs", LOOK_TIMEOUT.as_secs()))]
    TimedOut,
}

impl LookError {
    /// A word of a closed set, for metrics.
    fn class(&self) -> &'static str {
        match self {
            Self::Cluster { .. } | Self::Vault { .. } => "cluster",
            Self::Act { .. } => "act",
            Self::Undecodable { .. } => "undecodable",
            Self::TimedOut => "timeout",
        }
    }
}

/// One look at a ring.
///
/// # Errors
/// [`LookError`]; tried again after [`on_error`].
pub async fn reconcile(ring: Arc<Guarded>, context: Arc<Context>) -> Result<Action, LookError> {
    let begun = Instant::now();
    let (namespace, name) = (ring.namespace().unwrap_or_default(), ring.name_any());
    let result = tokio::time::timeout(LOOK_TIMEOUT, at(&context, &namespace, &name)).await;
    context.metrics.reconciles.get_or_create(&CONTROLLER).inc();
    context
        .metrics
        .reconcile_seconds
        .get_or_create(&CONTROLLER)
        .observe(begun.elapsed().as_secs_f64());
    result.unwrap_or(Err(LookError::TimedOut))
}

/// What to do after a failure.
pub fn on_error(ring: Arc<Guarded>, error: &LookError, context: Arc<Context>) -> Action {
    let labels = ErrorLabels {
        controller: CONTROLLER.controller,
        class: error.class(),
    };
    context.metrics.reconcile_errors.get_or_create(&labels).inc();
    tracing::warn!(namespace = ring.namespace(), key_ring = ring.name_any(), %error, "a look at a KeyRing failed; it is tried again");
    Action::requeue(backoff(context.settings.tick, 1))
}

/// Reads the ring as it is now: the watch may be behind.
async fn at(context: &Context, namespace: &str, name: &str) -> Result<Action, LookError> {
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    let Some(DeserializeGuard(read)) = api.get_opt(name).await.context(ClusterSnafu)? else {
        context.metrics.ring_gone(namespace, name);
        context.tries.forget(&(namespace.to_owned(), name.to_owned()));
        return Ok(Action::await_change());
    };
    let ring = match read {
        Ok(ring) => ring,
        Err(invalid) => {
            tracing::warn!(
                namespace,
                key_ring = name,
                error = invalid.error,
                "a KeyRing doesn't decode; the others go on"
            );
            return Ok(Action::requeue(context.settings.tick));
        }
    };
    if ring.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = (context.clock)();
    let mut findings = Findings::default();
    let look = Look {
        context,
        ring: &ring,
        name,
        now,
    };
    let result = look.work(&mut findings).await;
    findings.failed = result.as_ref().err().map(ToString::to_string);
    let told = look.report(&findings).await;
    result.and(told)?;
    Ok(Action::requeue(wait(
        findings.decision.as_ref(),
        now,
        context.settings.tick,
    )))
}

/// Until the next thing happens by itself, a tick at most: processors' statuses and annotations come as events.
fn wait(decision: Option<&Decision>, now: Timestamp, tick: Duration) -> Duration {
    let next = decision.and_then(Decision::wake);
    let left = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
    left.map_or(tick, |left| left.clamp(Duration::from_secs(1), tick))
}

/// No key is made before it is time to try again.
fn held(failed: Failed) -> Decision {
    Decision {
        waits: vec![Wait {
            step: "Create",
            id: None,
            reason: None,
            text: format!("the next try at making a key, as the last one failed: {}", failed.error),
            at: Some(failed.next),
            person: false,
        }],
        ..Decision::default()
    }
}

struct Look<'a> {
    context: &'a Context,
    ring: &'a KeyRing,
    name: &'a str,
    now: Timestamp,
}

impl Look<'_> {
    async fn work(&self, findings: &mut Findings) -> Result<(), LookError> {
        let namespace = self.ring.namespace().unwrap_or_default();
        let policy = &self.context.settings.policy;
        let guard = &self.context.guard;
        findings.guarded = guard.verdict(&self.context.client, &namespace, policy, self.now).await;
        let mut vault = ClusterVault::new(&self.context.client, self.ring);
        let mut record = match self.record(&mut vault).await? {
            Ok(record) => record,
            Err(error) => {
                findings.unusable = Some(Refusal {
                    reason: crds::conditions::reasons::RECORD_UNUSABLE,
                    message: error.to_string(),
                });
                return Ok(());
            }
        };
        vault.know(&record);
        findings.record = Some(record.clone());
        let key: RingKey = (namespace, self.name.to_owned());
        let processors = self.processors().await?;
        let settings = Settings::of(&self.ring.spec);
        for _ in 0..STEPS {
            let published = vault.read_public().await.context(VaultSnafu)?;
            let observed = observed(self.ring, &record, &processors, published);
            let decision = decide(&settings, &record, &observed, self.now);
            findings.decision = Some(decision.clone());
            let Some(step) = decision.step else {
                findings.plan = self.plan(&settings, &record, &observed);
                return Ok(());
            };
            let creates = matches!(step, Step::Create { .. });
            if creates && let Some(failed) = self.context.tries.held(&key, self.now) {
                findings.decision = Some(held(failed));
                findings.plan = self.plan(&settings, &record, &observed);
                return Ok(());
            }
            let spec = &self.ring.spec;
            let make = |id: &str| match (&spec.purpose, &spec.certificate) {
                (KeyPurpose::PacketEncryption, Some(certificate)) => {
                    NewKey::packet_encryption(id, &certificate.common_name, &mut rand::rng())
                }
                _ => NewKey::batch_signing(id, &mut rand::rng()),
            };
            let done = act(&mut vault, &mut record, &step, &observed, make, self.now).await;
            findings.record = Some(record.clone());
            if creates {
                match &done {
                    Ok(()) => self.context.tries.forget(&key),
                    Err(error) => {
                        let tick = self.context.settings.tick;
                        self.context.tries.failed(&key, tick, self.now, &error.to_string());
                    }
                }
            }
            done.context(ActSnafu)?;
            self.tell(&step, &record).await;
        }
        Ok(())
    }

    /// Where the record is gone and the status isn't, the status is the record: written at once, as either may be lost.
    async fn record(&self, vault: &mut ClusterVault<'_>) -> Result<Result<Record, RecordError>, LookError> {
        let record = match vault.read_record().await.context(VaultSnafu)? {
            Ok(Some(record)) => return Ok(Ok(record)),
            Ok(None) => Record::from_status(self.name, &self.ring.spec, self.ring.status.as_ref()),
            Err(error) => Err(error),
        };
        if let Ok(record) = &record
            && !record.versions.is_empty()
        {
            vault.write_record(record).await.context(VaultSnafu)?;
            tracing::warn!(
                key_ring = self.name,
                "the record of versions was gone and is written again from the status"
            );
        }
        Ok(record)
    }

    async fn processors(&self) -> Result<Vec<DataShareProcessor>, LookError> {
        let namespace = self.ring.namespace().unwrap_or_default();
        let api: Api<DeserializeGuard<DataShareProcessor>> = Api::namespaced(self.context.client.clone(), &namespace);
        let list = api.list(&ListParams::default()).await.context(ClusterSnafu)?;
        decoded(list.items).map_err(|Undecodable { name, detail }| LookError::Undecodable { name, detail })
    }

    /// The answer to the annotation, once for each of its values.
    fn plan(&self, settings: &Settings, record: &Record, observed: &Observed) -> Option<RotationPlan> {
        let requested = bounded(self.ring.annotations().get(PLAN_ANNOTATION)?);
        let answered = self.ring.status.as_ref().and_then(|status| status.plan.as_ref());
        if answered.is_some_and(|plan| plan.requested == requested) {
            return None;
        }
        let asked = requested
            .starts_with(PLAN_ROTATION_PREFIX)
            .then(|| as_if_asked(record, observed));
        let steps = forecast(
            settings,
            record,
            asked.as_ref().unwrap_or(observed),
            self.now,
            horizon(settings, self.now),
            PLAN_STEPS,
        );
        let line = |step: &dyn ToString| step.to_string().chars().take(500).collect();
        Some(RotationPlan {
            requested,
            made: self.now.to_string(),
            lines: steps.iter().map(|step| line(step)).collect(),
        })
    }

    async fn tell(&self, step: &Step, record: &Record) {
        let Note { warning, reason, text } = note(self.name, step, record);
        tracing::info!(key_ring = self.name, reason, note = text, "a step is done");
        self.context
            .events
            .publish(self.ring, warning, reason, "Rotate", &text)
            .await;
    }

    async fn report(&self, findings: &Findings) -> Result<(), LookError> {
        let before: Option<&KeyRingStatus> = self.ring.status.as_ref();
        let generation = self.ring.metadata.generation.unwrap_or_default();
        let after = status(self.name, before, findings, generation, self.now);
        let namespace = self.ring.namespace().unwrap_or_default();
        self.context.metrics.ring(&namespace, self.name, &after.conditions);
        let api: Api<KeyRing> = Api::namespaced(self.context.client.clone(), &namespace);
        match apply_status(&api, self.name, before, &after).await {
            Ok(_) => {}
            // Deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(source) => return Err(LookError::Cluster { source }),
        }
        if let Some(plan) = &findings.plan {
            let note = format!(
                "status.plan has {} lines; the first: {}",
                plan.lines.len(),
                plan.lines.first().map_or("nothing", String::as_str)
            );
            self.context
                .events
                .publish(self.ring, false, "Planned", "Rotate", &note)
                .await;
        }
        for Note { warning, reason, text } in asked(before, findings.decision.as_ref()) {
            self.context
                .events
                .publish(self.ring, warning, reason, "Rotate", &text)
                .await;
        }
        let refused = |status: &KeyRingStatus| {
            status
                .conditions
                .iter()
                .find(|c| c.type_ == "Stalled" && c.status == "True")
                .cloned()
        };
        if let Some(refusal) = refused(&after)
            && before
                .and_then(refused)
                .is_none_or(|before| before.reason != refusal.reason)
        {
            self.context
                .events
                .publish(self.ring, true, &refusal.reason, "Rotate", &refusal.message)
                .await;
        }
        Ok(())
    }
}
