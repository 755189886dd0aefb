//! What a ring's status says. Pure.

use std::collections::BTreeMap;

use crds::conditions::{PROGRESSING, READY, STALLED, WAITS_FOR_PERSON, reasons};
use crds::key_ring::{KeyRingStatus, KeyVersion, MAX_VERSIONS, NextStep, RotationPlan};
use jiff::Timestamp;

use super::decide::{Decision, Refusal, Wait};
use super::version::{Record, Version, secret_name};
use crate::status::{Verdict, set_condition};

/// The longest text of what is waited for, in characters.
const MAX_WAIT: usize = 1_000;

/// What one look at a ring found out.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The record, where it could be read.
    pub record: Option<Record>,
    /// What was decided last.
    pub decision: Option<Decision>,
    /// Why the record can't be used.
    pub unusable: Option<Refusal>,
    /// Why the look wasn't finished.
    pub failed: Option<String>,
    /// Whether the admission policy stands.
    pub guarded: Option<Verdict>,
    /// The answer to the plan annotation, where it asks anew.
    pub plan: Option<RotationPlan>,
}

/// The status that follows; `before` is the one that is there.
#[must_use]
pub fn status(
    ring: &str,
    before: Option<&KeyRingStatus>,
    findings: &Findings,
    generation: i64,
    now: Timestamp,
) -> KeyRingStatus {
    let mut status = before.cloned().unwrap_or_default();
    let decision = findings.decision.clone().unwrap_or_default();
    // One whose step wasn't done says nothing of what is waited for.
    let is_settled = findings.decision.is_some() && decision.step.is_none();
    if let Some(record) = &findings.record {
        let in_use = record.versions.iter().find(|version| version.is_in_use());
        status.in_use = in_use.map(|version| version.id.clone());
        let active = record.versions.iter().filter(|version| version.is_active()).count();
        status.active_versions = i64::try_from(active).ok();
        let known = std::mem::replace(&mut status.versions, versions(ring, record, &decision.waits));
        if !is_settled {
            keep_waits(&mut status.versions, &known);
        }
        status.rotation_answered.clone_from(&record.rotation_answered);
    }
    if is_settled {
        status.next = decision.waits.first().map(next);
    }
    if let Some(plan) = &findings.plan {
        status.plan = Some(plan.clone());
    }
    let refusal = findings.unusable.as_ref().or(decision.refusal.as_ref());
    let mut verdicts = Vec::new();
    match refusal {
        Some(refusal) => {
            verdicts.push(Verdict::new(STALLED, Some(true), refusal.reason, &refusal.message));
            verdicts.push(Verdict::new(READY, Some(false), refusal.reason, &refusal.message));
        }
        None if findings.decision.is_some() => {
            verdicts.push(Verdict::new(
                STALLED,
                Some(false),
                reasons::OK,
                "Nothing needs to be changed.",
            ));
            verdicts.push(readiness(&status));
            if is_settled {
                verdicts.push(progress(&decision));
                verdicts.push(person(&decision));
            }
        }
        None => {}
    }
    if let (Some(failed), None) = (&findings.failed, refusal) {
        let message = format!("The last look at the ring was not finished: {failed}. It is tried again.");
        verdicts.retain(|verdict| verdict.condition != READY);
        verdicts.push(Verdict::new(READY, Some(false), reasons::LOOK_FAILED, message));
    }
    verdicts.extend(findings.guarded.clone());
    for verdict in &verdicts {
        set_condition(&mut status.conditions, verdict, Some(generation), now);
    }
    status
        .conditions
        .sort_by_key(|condition| (condition.type_ != READY, condition.type_ != STALLED));
    status.observed_generation = Some(generation);
    status
}

fn keep_waits(versions: &mut [KeyVersion], known: &[KeyVersion]) {
    for version in versions {
        let known = known.iter().find(|known| known.id == version.id);
        version.waits_for = known.and_then(|known| known.waits_for.clone());
    }
}

fn readiness(status: &KeyRingStatus) -> Verdict {
    match (&status.in_use, &status.next) {
        (Some(id), _) => Verdict::new(READY, Some(true), reasons::OK, format!("{id} is in use.")),
        (None, next) => {
            let waits = next
                .as_ref()
                .map_or("nothing is known yet", |next| next.waits_for.as_str());
            let message = format!("No version is used yet. The first one waits for {waits}");
            Verdict::new(READY, Some(false), reasons::NO_KEY_IN_USE, message)
        }
    }
}

fn progress(decision: &Decision) -> Verdict {
    let wait = decision.waits.iter().find_map(|wait| Some((wait.reason?, wait)));
    match wait {
        Some((reason, wait)) => Verdict::new(PROGRESSING, Some(true), reason, format!("It waits for {}", wait.text)),
        None => Verdict::new(PROGRESSING, Some(false), reasons::OK, "No version is on its way."),
    }
}

fn person(decision: &Decision) -> Verdict {
    let waits: Vec<&Wait> = decision.waits.iter().filter(|wait| wait.person).collect();
    match waits.first() {
        Some(first) => {
            let texts: Vec<&str> = waits.iter().map(|wait| wait.text.as_str()).collect();
            let message = format!("It waits for {}", texts.join("; and for "));
            Verdict::new(
                WAITS_FOR_PERSON,
                Some(true),
                first.reason.unwrap_or(reasons::OK),
                message,
            )
        }
        None => Verdict::new(WAITS_FOR_PERSON, Some(false), reasons::OK, "Nobody is waited for."),
    }
}

fn next(wait: &Wait) -> NextStep {
    NextStep {
        step: wait.step.to_owned(),
        id: wait.id.clone(),
        at: wait.at.map(|at| at.to_string()),
        waits_for: short(&wait.text),
    }
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(MAX_WAIT).collect()
}

/// The written versions, youngest first.
#[must_use]
pub fn versions(ring: &str, record: &Record, waits: &[Wait]) -> Vec<KeyVersion> {
    let waits: BTreeMap<&str, &Wait> = waits
        .iter()
        .filter_map(|wait| Some((wait.id.as_deref()?, wait)))
        .collect();
    let written = record
        .versions
        .iter()
        .rev()
        .filter_map(|version| written(ring, version, waits.get(version.id.as_str()).copied()));
    written.take(MAX_VERSIONS).collect()
}

fn written(ring: &str, version: &Version, wait: Option<&Wait>) -> Option<KeyVersion> {
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let until = |wait: &Wait| match wait.at {
        Some(at) => short(&format!("{at}: {}", wait.text)),
        None => short(&wait.text),
    };
    Some(KeyVersion {
        id: version.id.clone(),
        secret: secret_name(ring, version.number),
        state: version.state()?,
        waits_for: wait.map(until),
        created: version.created.to_string(),
        backed_up: text(version.backed_up),
        written: text(version.written),
        loaded: text(version.loaded),
        certified: text(version.certified),
        published: text(version.published),
        promoted: text(version.promoted),
        superseded: text(version.superseded),
        retired: text(version.retired),
        public_key: version.public_key.clone(),
        certificate_signing_request: version.certificate_signing_request.clone(),
    })
}
