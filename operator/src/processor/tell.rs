//! What a look tells: our own manifests to partners, the status and Events to people.

use crds::conditions::{MANIFEST_PUBLISHED, PEERS_KNOWN, PREFLIGHT, READY, reasons};
use crds::{DataShareProcessor, DataShareProcessorStatus};
use kube::Api;
use snafu::ResultExt;

use super::look::Look;
use super::manifest::Published;
use super::memory::Memory;
use super::report::{self, Findings};
use super::{ClusterSnafu, ReconcileError, WRITE_TIMEOUT, manifest, within};
use crate::inventory::Inventory;
use crate::status::{Verdict, apply_status};

impl Look<'_> {
    /// Publishes our own manifests; `None`: none are asked for.
    pub(super) async fn publish(&self, memory: &mut Memory) -> Result<Option<Verdict>, ReconcileError> {
        let publisher = manifest::Publisher {
            client: &self.context.client,
            processor: self.processor,
            namespace: &self.key.0,
            now: self.now,
        };
        // Where this fails, or is given up, what is known stays known.
        let after = publisher.publish(&mut memory.looked_for).await.context(ClusterSnafu)?;
        memory.published = with_former(after, memory.published.take());
        Ok(memory.published.as_ref().map(|published| published.verdict.clone()))
    }

    pub(super) async fn report(&self, findings: &Findings) -> Result<(), ReconcileError> {
        let before = findings.written.as_ref().or(self.processor.status.as_ref());
        let generation = self.processor.metadata.generation.unwrap_or_default();
        let after = report::status(before, findings, generation, self.now);
        self.context.metrics.conditions(self.key, &after.conditions);
        self.write(before, &after).await
    }

    /// Tells at once what a preflight found: the rest of the look waits for stores, which may not answer.
    pub(super) async fn report_preflight(&self, findings: &mut Findings) {
        let before = self.processor.status.as_ref();
        let generation = self.processor.metadata.generation.unwrap_or_default();
        let found = findings.preflight.as_ref();
        let Some(after) = found.and_then(|found| report::with_preflight(before, found, generation, self.now)) else {
            return;
        };
        match within(WRITE_TIMEOUT, self.write(before, &after)).await {
            Ok(()) => findings.written = Some(after),
            Err(error) => tracing::warn!(%error, "what a preflight found can't be told yet; the look's end tells it"),
        }
    }

    async fn write(
        &self,
        before: Option<&DataShareProcessorStatus>,
        after: &DataShareProcessorStatus,
    ) -> Result<(), ReconcileError> {
        let api: Api<DataShareProcessor> = Api::namespaced(self.context.client.clone(), &self.key.0);
        let written = match apply_status(&api, &self.key.1, before, after).await {
            Ok(written) => written.is_some(),
            // Deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(source) => return Err(ReconcileError::Cluster { source }),
        };
        for (reason, message) in news(before, after).into_iter().filter(|_| written) {
            self.context
                .events
                .publish(self.processor, true, &reason, "Reconcile", &message)
                .await;
        }
        Ok(())
    }

    pub(super) fn measure(&self, inventory: &Inventory, findings: &Findings) {
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
}

/// What came of publishing, with the manifest that was written before where none could be now: partners still get that.
fn with_former(after: Option<Published>, before: Option<Published>) -> Option<Published> {
    let mut after = after?;
    if after.specific.is_none() {
        after.specific = before.and_then(|before| before.specific);
    }
    Some(after)
}

/// What Events should tell: `Ready`, `ManifestPublished` or `Preflight` became False, or is False for another reason than
/// before; or a condition is True and there is something to mend.
fn news(before: Option<&DataShareProcessorStatus>, after: &DataShareProcessorStatus) -> Vec<(String, String)> {
    // The one is a person's wish; the other is so for a minute after each change, until the web server has it.
    const NO_NEWS: [&str; 2] = [reasons::SUSPENDED, reasons::NOT_SERVED];
    let of = |kind: &str| {
        let find = |status: &DataShareProcessorStatus| status.conditions.iter().find(|c| c.type_ == kind).cloned();
        let now = find(after).filter(|now| {
            let reason = now.reason.as_str();
            // What isn't known of a party is what Ready says.
            let is_false = now.status == "False" && kind != PEERS_KNOWN && !NO_NEWS.contains(&reason);
            is_false || reasons::TO_MEND.contains(&reason) && now.status == "True"
        })?;
        let same = before
            .and_then(find)
            .is_some_and(|then| then.status == now.status && then.reason == now.reason);
        (!same).then_some((now.reason, now.message))
    };
    [READY, PEERS_KNOWN, MANIFEST_PUBLISHED, PREFLIGHT]
        .into_iter()
        .filter_map(of)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

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
        let peers = |is_known, reason: &str| {
            let mut status = bad.clone();
            let verdict = Verdict::new(PEERS_KNOWN, Some(is_known), reason, "who");
            crate::status::set_condition(&mut status.conditions, &verdict, Some(1), Timestamp::UNIX_EPOCH);
            status
        };
        let differs = peers(true, reasons::IDENTITY_DIFFERS);
        assert_eq!(texts(Some(&bad), &differs), ["who"]);
        assert_eq!(texts(Some(&differs), &differs), [""; 0]);
        assert_eq!(texts(Some(&bad), &peers(false, reasons::PEER_MISSING)), [""; 0]);
    }

    #[test]
    fn a_manifest_that_cannot_be_written_now_leaves_what_partners_get() {
        let published = |specific: Option<&str>| Published {
            verdict: Verdict::new(MANIFEST_PUBLISHED, Some(specific.is_some()), reasons::OK, ""),
            keys: Some(std::collections::BTreeSet::new()),
            specific: specific.map(str::to_owned),
        };
        let specific = |after, before| with_former(after, before).and_then(|published| published.specific);
        let (one, two, none) = (published(Some("1")), published(Some("2")), published(None));
        assert_eq!(specific(Some(two.clone()), Some(one.clone())).as_deref(), Some("2"));
        assert_eq!(specific(Some(none.clone()), Some(one.clone())).as_deref(), Some("1"));
        assert_eq!(specific(Some(none), None), None);
        assert_eq!(with_former(None, Some(one)), None, "none is asked for");
    }
}
