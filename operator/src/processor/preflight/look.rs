//! A look at a processor's preflight.

use crds::names::PREFLIGHT_ANNOTATION;
use crds::processor::PreflightStatus;
use facilitator_core::formats::work::Parameters;
use jiff::SignedDuration;
use kube::ResourceExt;
use snafu::ResultExt;

use super::{PreflightInput, decide};
use crate::digest::short_digest;
use crate::processor::look::Look;
use crate::processor::memory::{Memory, Usage};
use crate::processor::{ActSnafu, ReconcileError, parameters};
use crate::status::Verdict;
use crate::workload::{JobView, KeySet, PlannedJob};

/// Digits of the digest of a preflight's inputs.
const INPUTS_DIGITS: usize = 32;
/// The longest value of the annotation that is answered.
const MAX_ASKED: usize = 253;

impl Look<'_> {
    /// Begins what is due, and reads what came of it. What goes wrong here is no fault of the look: it is tried again.
    pub(in crate::processor) async fn preflight(
        &self,
        memory: &mut Memory,
        jobs: &[JobView],
        own: Usage,
    ) -> Option<(Option<PreflightStatus>, Verdict)> {
        let spec = &self.processor.spec;
        let status = self.processor.status.as_ref();
        let annotation = self.processor.annotations().get(PREFLIGHT_ANNOTATION);
        let asked = annotation.map(|value| value.chars().take(MAX_ASKED).collect::<String>());
        let before = status.and_then(|status| status.preflight.as_ref());
        let published = memory.published.as_ref();
        let manifest = published.and_then(|published| published.specific.clone());
        let start_at = match status.and_then(|status| status.start_at.as_ref()?.parse().ok()) {
            Some(start_at) => start_at,
            None => {
                let created = self.processor.creation_timestamp().map_or(self.now, |time| time.0);
                // A spec that says none is told as such.
                parameters::default_start(spec, created).ok()?
            }
        };
        let ledger_id = status.and_then(|status| status.ledger_id.as_ref()?.parse().ok());
        let parameters = |keys: &KeySet| parameters::parameters(self.processor, keys, ledger_id, start_at);
        let generation = self.processor.metadata.generation.unwrap_or_default();
        // What changes by itself, as the ledger's id and the mounted versions do, is no reason for another one.
        let rests_on = parameters::parameters(self.processor, &KeySet::default(), None, start_at);
        let inputs = short_digest(
            [
                generation.to_string().as_str(),
                &serde_json::to_string(&rests_on).unwrap_or_default(),
                manifest.as_deref().unwrap_or_default(),
                &self.context.settings.worker_image,
                asked.as_deref().unwrap_or_default(),
            ],
            INPUTS_DIGITS,
        );
        let is_new_wish = asked.is_some() && before.and_then(|before| before.asked.as_ref()) != asked.as_ref();
        let hold = if spec.manifest.is_some() && published.is_none() {
            Some("our own manifest hasn't been looked at yet")
        } else if spec.suspend && !is_new_wish && before.is_none_or(|before| before.inputs != inputs) {
            Some(
                "the processor is suspended, or a party isn't known; the annotation prio-operator.io/preflight asks for one all the same",
            )
        } else {
            None
        };
        let room = {
            let usages = self.context.memories.usages();
            let room = usages.room(self.key, own, &self.context.settings);
            room.jobs.min(room.pods)
        };
        let refused = std::mem::take(&mut memory.refused_preflights);
        let decision = decide(
            &PreflightInput {
                inputs: &inputs,
                asked: asked.as_deref(),
                manifest: manifest.as_deref(),
                before,
                conditions: status.map_or(&[][..], |status| &status.conditions),
                generation,
                jobs,
                hold,
                room,
                start_deadline: SignedDuration::from_secs(spec.workers.start_deadline_seconds.into()),
                refused: &refused,
            },
            self.now,
        );
        memory.preflights = memory.preflights.and(&decision.start);
        let acted = async {
            self.actor().remove_jobs(&decision.remove).await.context(ActSnafu)?;
            self.begin(memory, &decision.start, parameters).await
        };
        if let Err(error) = acted.await {
            tracing::warn!(%error, "a preflight can't be begun; it is tried again");
        }
        Some((decision.status, decision.verdict))
    }

    async fn begin(
        &self,
        memory: &mut Memory,
        planned: &[PlannedJob],
        parameters: impl Fn(&KeySet) -> Parameters,
    ) -> Result<(), ReconcileError> {
        if planned.is_empty() {
            return Ok(());
        }
        let keys = self.mounted_keys(memory).await?;
        let started = self
            .actor()
            .start(planned, &keys, &parameters(&keys))
            .await
            .context(ActSnafu)?;
        memory.refused_preflights = started.refused;
        Ok(())
    }
}
