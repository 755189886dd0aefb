//! What a look tells: our own manifests to partners, the status and Events to people.

use crds::conditions::{KEYS_LOADED, MANIFEST_PUBLISHED, PEERS_KNOWN, PREFLIGHT, READY, reasons};
use crds::{DataShareProcessor, DataShareProcessorStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use snafu::ResultExt;

use super::look::Look;
use super::manifest::Published;
use super::memory::Memory;
use super::report::{self, Findings};
use super::served::FOR_LONG;
use super::{ClusterSnafu, ReconcileError, WRITE_TIMEOUT, manifest, within};
use crate::inventory::Inventory;
use crate::status::{Verdict, apply_status, condition};
use crate::told::{Tidings, Told};

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

    pub(super) async fn report(&self, memory: &mut Memory, findings: &Findings) -> Result<(), ReconcileError> {
        let before = findings.written.as_ref().or(self.processor.status.as_ref());
        let generation = self.processor.metadata.generation.unwrap_or_default();
        let after = report::status(before, findings, generation, self.now);
        self.context.metrics.conditions(self.key, &after.conditions);
        self.write(memory, before, &after).await
    }

    /// Tells at once what a preflight found: the rest of the look waits for stores, which may not answer.
    pub(super) async fn report_preflight(&self, memory: &mut Memory, findings: &mut Findings) {
        let before = self.processor.status.as_ref();
        let generation = self.processor.metadata.generation.unwrap_or_default();
        let found = findings.preflight.as_ref();
        let Some(after) = found.and_then(|found| report::with_preflight(before, found, generation, self.now)) else {
            return;
        };
        match within(WRITE_TIMEOUT, self.write(memory, before, &after)).await {
            Ok(()) => findings.written = Some(after),
            Err(error) => tracing::warn!(%error, "what a preflight found can't be told yet; the look's end tells it"),
        }
    }

    async fn write(
        &self,
        memory: &mut Memory,
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
        // What couldn't be written isn't told, and is news the next time.
        let mut told = memory.told.clone();
        let news = news(&mut told, before, after);
        for (reason, message) in news.into_iter().filter(|_| written) {
            self.context
                .events
                .publish(self.processor, true, &reason, "Reconcile", &message)
                .await;
        }
        memory.told = told;
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

/// The conditions that Events tell of. What the others say, `Ready` says too where it keeps work from being done.
const HEARD: [&str; 5] = [READY, KEYS_LOADED, PEERS_KNOWN, MANIFEST_PUBLISHED, PREFLIGHT];

/// What Events should tell: reason and message of each condition that has a cause of trouble that wasn't told since it was
/// well last.
fn news(
    told: &mut Told,
    before: Option<&DataShareProcessorStatus>,
    after: &DataShareProcessorStatus,
) -> Vec<(String, String)> {
    let mut news = Vec::new();
    for kind in HEARD {
        let then = before.and_then(|before| condition(&before.conditions, kind));
        let now = condition(&after.conditions, kind);
        // Ready says one thing of many that may be wrong: what it says again after another was mended and came back.
        let is_another = kind == READY && then.map(|then| then.reason.as_str()) != now.map(|now| now.reason.as_str());
        let then = if is_another { Tidings::Over } else { tidings(then) };
        if told.note(kind, then, tidings(now)) {
            news.extend(now.map(|now| (now.reason.clone(), now.message.clone())));
        }
    }
    // Keys that no work can do without keep the processor from being ready, in the same words.
    news.dedup();
    news
}

/// What a condition says to those who hear Events.
fn tidings(condition: Option<&Condition>) -> Tidings {
    let Some(condition) = condition else {
        return Tidings::Over;
    };
    let (kind, reason) = (condition.type_.as_str(), condition.reason.as_str());
    match condition.status.as_str() {
        // It works: of what its text says besides, other conditions and other objects tell.
        "True" if reasons::TO_MEND.contains(&reason) => Tidings::Wrong(reason.to_owned()),
        // A person's wish.
        "False" if reason == reasons::SUSPENDED => Tidings::Over,
        "False" if waits(kind, reason, &condition.message) => Tidings::Waits,
        "False" => Tidings::wrong(reason, &condition.message),
        _ => Tidings::Over,
    }
}

/// Whether what a condition is False for ends by itself as a rule, or is told by another one.
fn waits(kind: &str, reason: &str, message: &str) -> bool {
    match kind {
        // What isn't known of a party is what Ready says.
        PEERS_KNOWN => true,
        KEYS_LOADED => [reasons::PROBING, reasons::NO_KEY_YET].contains(&reason),
        // So for a minute after each change, until the web server has it.
        MANIFEST_PUBLISHED => reason == reasons::NOT_SERVED && !message.contains(FOR_LONG),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::served::{self, Served};
    use crate::status::set_condition;
    use jiff::Timestamp;

    fn status(listed: Result<(), (&'static str, String)>) -> DataShareProcessorStatus {
        let findings = Findings {
            peers: Some(Verdict::new(PEERS_KNOWN, Some(true), reasons::OK, "")),
            listed: Some(listed),
            ..Findings::default()
        };
        report::status(None, &findings, 1, Timestamp::UNIX_EPOCH)
    }

    fn with(status: &DataShareProcessorStatus, verdict: &Verdict) -> DataShareProcessorStatus {
        let mut status = status.clone();
        set_condition(&mut status.conditions, verdict, Some(1), Timestamp::UNIX_EPOCH);
        status
    }

    /// The texts of what a process tells that has just begun.
    fn texts(before: Option<&DataShareProcessorStatus>, after: &DataShareProcessorStatus) -> Vec<String> {
        told(&mut Told::default(), before, after)
    }

    fn told(
        told: &mut Told,
        before: Option<&DataShareProcessorStatus>,
        after: &DataShareProcessorStatus,
    ) -> Vec<String> {
        news(told, before, after).into_iter().map(|(_, text)| text).collect()
    }

    /// One status after the other, from one in which nothing is wrong, and whether an Event tells of it.
    fn each_is_told_or_not(table: &[(DataShareProcessorStatus, bool)]) {
        let (mut memory, well) = (Told::default(), status(Ok(())));
        let mut before = &well;
        for (step, (after, is_told)) in table.iter().enumerate() {
            let texts = told(&mut memory, Some(before), after);
            assert_eq!(texts.len(), usize::from(*is_told), "{step}: {texts:?}");
            before = after;
        }
    }

    #[test]
    fn an_event_is_told_once_for_each_trouble() {
        let (bad, pending) = (status(Err((reasons::LISTING_FAILED, "no".into()))), status(Ok(())));
        assert_eq!(texts(None, &pending), [""; 0]);
        assert_eq!(texts(Some(&pending), &bad), ["no"]);
        assert_eq!(texts(Some(&bad), &bad), [""; 0]);
        type Row<'a> = (&'static str, bool, &'static str, &'a [&'a str]);
        let table: [Row; 16] = [
            (MANIFEST_PUBLISHED, false, reasons::PUBLISH_FAILED, &["why"]),
            (MANIFEST_PUBLISHED, false, reasons::MANIFEST_REFUSED, &["why"]),
            (MANIFEST_PUBLISHED, false, reasons::OTHER_KEY_SERVED, &["why"]),
            (MANIFEST_PUBLISHED, false, reasons::NOT_SERVED, &[]),
            (MANIFEST_PUBLISHED, true, reasons::CACHED_TOO_LONG, &["why"]),
            (MANIFEST_PUBLISHED, true, reasons::OK, &[]),
            (PEERS_KNOWN, true, reasons::IDENTITY_DIFFERS, &["why"]),
            (PEERS_KNOWN, false, reasons::PEER_MISSING, &[]),
            (KEYS_LOADED, false, reasons::PROBE_FAILED, &["why"]),
            (KEYS_LOADED, false, reasons::KEY_RING_MISSING, &["why"]),
            (KEYS_LOADED, false, reasons::KEY_RING_UNUSABLE, &["why"]),
            (KEYS_LOADED, false, reasons::PROBING, &[]),
            (KEYS_LOADED, false, reasons::NO_KEY_YET, &[]),
            (KEYS_LOADED, true, reasons::OK, &[]),
            (PREFLIGHT, false, reasons::FAILED, &["why"]),
            (READY, false, reasons::SUSPENDED, &[]),
        ];
        for (kind, is_so, reason, expected) in table {
            let said = with(&pending, &Verdict::new(kind, Some(is_so), reason, "why"));
            assert_eq!(texts(Some(&pending), &said), expected, "{kind} {reason}");
            assert_eq!(texts(Some(&said), &said), [""; 0], "{kind} {reason}");
        }
        // Two conditions that say one thing.
        let no_key = |kind| Verdict::new(kind, Some(false), reasons::KEY_RING_UNUSABLE, "why");
        let both = with(&with(&pending, &no_key(READY)), &no_key(KEYS_LOADED));
        assert_eq!(texts(Some(&pending), &both), ["why"]);
    }

    #[test]
    fn what_comes_back_after_ready_said_something_else_is_told_again() {
        let denied = status(Err((reasons::ACCESS_DENIED, "no".into())));
        let overdue = with(
            &status(Ok(())),
            &Verdict::new(READY, Some(false), reasons::WINDOW_OVERDUE, "late"),
        );
        let mut memory = Told::default();
        let mut before = status(Ok(()));
        for (after, expected) in [
            (&denied, &["no"][..]),
            (&denied, &[]),
            (&overdue, &["late"]),
            (&denied, &["no"]),
            (&denied, &[]),
        ] {
            assert_eq!(told(&mut memory, Some(&before), after), expected);
            before.clone_from(after);
        }
    }

    #[test]
    fn another_cause_is_told_under_the_same_reason_too() {
        let bad = |text: &str| status(Err((reasons::LISTING_FAILED, text.to_owned())));
        let probes = |reason: &'static str, text: &str| {
            with(&status(Ok(())), &Verdict::new(KEYS_LOADED, Some(false), reason, text))
        };
        let table = [
            (bad("no answer within 30 s"), true),
            (bad("no answer within 31 s"), false),
            (bad("connection refused"), true),
            // Two stores that take turns.
            (bad("no answer within 30 s"), false),
            (bad("connection refused"), false),
            (status(Ok(())), false),
            (bad("connection refused"), true),
            (status(Ok(())), false),
            (probes(reasons::PROBE_FAILED, "Job a-1: no Secret"), true),
            // A stage's probe passes, and the other one's doesn't.
            (probes(reasons::PROBING, "Jobs look for a-1."), false),
            (probes(reasons::PROBE_FAILED, "Job a-2: no Secret"), false),
            (probes(reasons::PROBE_FAILED, "Job a-3: another key"), true),
        ];
        each_is_told_or_not(&table);
    }

    #[test]
    fn a_manifest_that_partners_do_not_get_is_told_once_it_is_more_than_a_lag() {
        let not = |problem: &str| Served::Not(problem.to_owned());
        let published = |served: &Served, for_long| {
            let verdict = served::verdict(served, "ConfigMap m holds it", "https://m.example", for_long);
            with(&status(Ok(())), &verdict)
        };
        let table = [
            (published(&Served::Same, false), false),
            (published(&not("it is the one of before"), false), false),
            (published(&not("the server answers 503"), false), false),
            (published(&not("the server answers 503"), true), true),
            (published(&not("the server answers 503"), true), false),
            (published(&not("certificate expired"), true), true),
            (published(&not("the server answers 503"), true), false),
            (published(&Served::Same, false), false),
            (published(&not("the server answers 503"), false), false),
            (published(&not("the server answers 503"), true), true),
        ];
        each_is_told_or_not(&table);
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
