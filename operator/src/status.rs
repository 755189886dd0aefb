//! Conditions and Events: told once when something changes, never once a tick; and what a refused write says.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::short_digest;

/// The one field manager of all that the operator applies.
pub const FIELD_MANAGER: &str = "prio-operator";

/// A condition's message is at most so long: the API's bound is 32,768, a person's is lower.
const MESSAGE_CHARACTERS: usize = 1_024;

/// What the API server said where it refused, and would refuse again: any 4xx but 429, which is "later".
#[must_use]
pub fn refusal(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => Some(&status.message),
        _ => None,
    }
}

/// What a condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's type.
    pub condition: &'static str,
    /// `Some(true)` is True, `Some(false)` False, `None` Unknown.
    pub status: Option<bool>,
    /// Why, one word of `crds::conditions::reasons`.
    pub reason: String,
    /// Why, and what to do, for a person.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(
        condition: &'static str,
        status: Option<bool>,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            condition,
            status,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Sets a condition in its place; the time of transition changes only with the status.
pub fn set_condition(conditions: &mut Vec<Condition>, verdict: &Verdict, generation: Option<i64>, now: Timestamp) {
    let status = match verdict.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let before = conditions
        .iter()
        .position(|condition| condition.type_ == verdict.condition);
    let since = before
        .and_then(|place| conditions.get(place))
        .filter(|condition| condition.status == status)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: verdict.condition.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.clone(),
        message: shortened(&verdict.message),
        observed_generation: generation,
        last_transition_time: since,
    };
    match before.and_then(|place| conditions.get_mut(place)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// The condition of a type.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is True; `None` where it is absent or Unknown.
#[must_use]
pub fn condition_is_true(conditions: &[Condition], kind: &str) -> Option<bool> {
    match condition(conditions, kind)?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

/// Cut at a character, with a sign that it was.
fn shortened(message: &str) -> String {
    if message.chars().count() <= MESSAGE_CHARACTERS {
        return message.to_owned();
    }
    let kept: String = message.chars().take(MESSAGE_CHARACTERS - 1).collect();
    kept + "…"
}

/// Applies a status where it differs from the one that is there, and returns the object where that was written.
///
/// # Errors
/// Those of the API server.
pub async fn apply_status<K, S>(api: &Api<K>, name: &str, before: Option<&S>, after: &S) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    S: Serialize + PartialEq,
{
    if before == Some(after) {
        return Ok(None);
    }
    let patch = serde_json::json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "status": after,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(name, &parameters, &Patch::Apply(&patch))
        .await
        .map(Some)
}

/// Publishes Events: the same told again becomes a series of one Event.
///
/// A series keeps its first note, and what differs by its note alone would join it: so the action ends in the note's digest.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Events by this process.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = kube::runtime::events::Reporter {
            controller: FIELD_MANAGER.into(),
            instance: Some(instance),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Tells of an object.
    pub async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        of: &K,
        warning: bool,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        self.publish_on(&of.object_ref(&()), warning, reason, action, note)
            .await;
    }

    /// Tells of the object of a reference; an Event that can't be written is logged, since nothing depends on it.
    pub async fn publish_on(&self, of: &ObjectReference, warning: bool, reason: &str, action: &str, note: &str) {
        let note = shortened(note);
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            action: format!("{action}-{}", short_digest([note.as_str()], 8)),
            note: Some(note),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, of).await {
            tracing::warn!(object = of.name, reason, %error, "an event could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_would_be_refused_again_is_a_refusal() {
        let table = [
            (400, true),
            (401, true),
            (403, true),
            (404, true),
            (413, true),
            (422, true),
            (429, false),
            (431, true),
            (500, false),
            (504, false),
        ];
        for (code, is_refusal) in table {
            let status = serde_json::json!({"code": code, "message": "no"});
            let error = kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()));
            assert_eq!(refusal(&error), is_refusal.then_some("no"), "{code}");
        }
        assert_eq!(refusal(&kube::Error::LinesCodecMaxLineLengthExceeded), None);
    }

    #[test]
    fn the_time_of_transition_changes_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        let table = [
            (1, Some(false), "ListingFailed", 1),
            (2, Some(false), "Suspended", 1),
            (3, Some(true), "AsExpected", 3),
            (4, Some(true), "AsExpected", 3),
            (5, None, "Pending", 5),
        ];
        for (second, status, reason, since) in table {
            set_condition(
                &mut conditions,
                &Verdict::new("Ready", status, reason, "why"),
                Some(second),
                at(second),
            );
            assert_eq!(conditions.len(), 1);
            let condition = &conditions[0];
            assert_eq!(
                (condition.last_transition_time.0, condition.observed_generation),
                (at(since), Some(second))
            );
            assert_eq!(
                (condition.reason.as_str(), condition_is_true(&conditions, "Ready")),
                (reason, status)
            );
        }
        assert_eq!(condition_is_true(&conditions, "Stalled"), None);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let long = "ä".repeat(2_000);
        let short = shortened(&long);
        assert_eq!(short.chars().count(), MESSAGE_CHARACTERS);
        assert!(short.ends_with('…'));
        assert_eq!(shortened("short"), "short");
    }
}
