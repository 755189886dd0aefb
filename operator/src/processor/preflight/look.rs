//! A look at a processor's preflight.

use crds::DataShareProcessorSpec;
use crds::conditions::{PREFLIGHT, reasons};
use crds::names::PREFLIGHT_ANNOTATION;
use crds::processor::PreflightStatus;
use facilitator_core::formats::work::Parameters;
use jiff::SignedDuration;
use kube::ResourceExt;
use snafu::ResultExt;

use super::{PreflightInput, decide};
use crate::digest::short_digest;
use crate::processor::look::Look;
use crate::processor::memory::Memory;
use crate::processor::usages::Usage;
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
        if spec.manifest.is_some() && published.is_none() {
            // What a preflight rests on isn't known: what is there stays.
            let message = "No preflight of what is so now: our own manifest hasn't been looked at yet.";
            let unknown = || (None, Verdict::new(PREFLIGHT, None, reasons::UNKNOWN, message));
            return before.is_none().then(unknown);
        }
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
                &lasting(spec),
                &serde_json::to_string(&rests_on).unwrap_or_default(),
                manifest.as_deref().unwrap_or_default(),
                &self.context.settings.worker_image,
                asked.as_deref().unwrap_or_default(),
            ],
            INPUTS_DIGITS,
        );
        let is_new_wish = asked.is_some() && before.and_then(|before| before.asked.as_ref()) != asked.as_ref();
        let hold = if spec.suspend && !is_new_wish && before.is_none_or(|before| before.inputs != inputs) {
            Some(
                "the processor is suspended, or a party isn't known; the annotation prio-operator.io/preflight asks for one all the same",
            )
        } else {
            None
        };
        // A refusal of what rested on something else says nothing of this.
        let refused = memory.refused_preflights.take().filter(|(of, _)| *of == inputs);
        let refused = refused.map(|(_, refused)| refused).unwrap_or_default();
        let decision = {
            // Held until what is begun is counted, as where work is planned.
            let mut usages = self.context.memories.usages();
            let decision = decide(
                &PreflightInput {
                    inputs: &inputs,
                    asked: asked.as_deref(),
                    manifest: manifest.as_deref(),
                    has_served_at: spec.manifest.as_ref().is_some_and(|ours| ours.served_at.is_some()),
                    before,
                    conditions: status.map_or(&[][..], |status| &status.conditions),
                    generation,
                    jobs,
                    hold,
                    room: usages.room_for_preflights(self.key, own, &self.context.settings),
                    start_deadline: SignedDuration::from_secs(spec.workers.start_deadline_seconds.into()),
                    refused: &refused,
                },
                self.now,
            );
            usages.found(self.key, own.and(&decision.start));
            decision
        };
        memory.preflights = memory.preflights.and(&decision.start);
        let acted = async {
            self.actor().remove_jobs(&decision.remove).await.context(ActSnafu)?;
            self.begin(memory, &inputs, &decision.start, parameters).await
        };
        if let Err(error) = acted.await {
            tracing::warn!(%error, "a preflight can't be begun; it is tried again");
        }
        Some((decision.status, decision.verdict))
    }

    async fn begin(
        &self,
        memory: &mut Memory,
        inputs: &str,
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
        memory.refused_preflights = Some((inputs.to_owned(), started.refused));
        Ok(())
    }
}

/// What of a spec a preflight rests on. Windows' cutoffs are agreed on one after the other, and nothing that it checks
/// changes with them.
fn lasting(spec: &DataShareProcessorSpec) -> String {
    let mut spec = spec.clone();
    spec.windows.cutoffs.clear();
    serde_json::to_string(&spec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::lasting;
    use crate::processor::example::processor;

    #[test]
    fn cutoffs_that_are_agreed_on_are_no_reason_for_another_preflight_and_all_else_is() {
        let mut spec = processor().spec;
        let before = lasting(&spec);
        spec.windows.cutoffs = serde_json::from_value(serde_json::json!([
            {"aggregation": "agg", "start": "202611200000", "cutoff": "2026-11-20T12:00:00Z"},
        ]))
        .unwrap_or_default();
        assert!(!spec.windows.cutoffs.is_empty());
        assert_eq!(lasting(&spec), before);
        spec.workers.intake.service_account_name = "another".into();
        assert_ne!(lasting(&spec), before);
    }
}
