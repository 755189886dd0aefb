//! What is told of a step that is done. Pure.

use crds::conditions::reasons;
use crds::key_ring::KeyRingStatus;

use super::decide::{Decision, Step};
use super::status::short;
use super::version::{Record, backup_name, secret_name};

/// An Event to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Somebody should look.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// For a person.
    pub text: String,
}

/// What to tell of a step of a ring; `record` is the one after it.
#[must_use]
pub fn note(ring: &str, step: &Step, record: &Record) -> Note {
    let note = |reason, text| Note {
        warning: false,
        reason,
        text,
    };
    match step {
        Step::Create { number } => {
            let secret = secret_name(ring, *number);
            let version = record.versions.iter().find(|version| version.number == *number);
            let copy = if version.is_some_and(|version| version.backed_up.is_some()) {
                format!(
                    "its second copy was written before, into Secret {}",
                    backup_name(ring, *number)
                )
            } else {
                "there is no second copy, as spec.backup says".to_owned()
            };
            note("KeyCreated", format!("A new version is in Secret {secret}; {copy}."))
        }
        Step::Forget { id } => {
            let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
            let number = number.unwrap_or_default();
            let text = format!(
                "{id} was not written to its end and is forgotten: it was never used. If there is a Secret {} or {}, \
                 delete it.",
                secret_name(ring, number),
                backup_name(ring, number)
            );
            Note {
                warning: true,
                ..note("KeyForgotten", text)
            }
        }
        Step::NoteLoaded { id, .. } => note("KeyLoaded", format!("Every worker has {id}.")),
        Step::NoteCertified { id } => note("KeyCertified", format!("The certificate of {id} is issued.")),
        Step::Publish(keys) => {
            let ids: Vec<&str> = keys.keys().map(String::as_str).collect();
            note("KeysPublished", format!("Public are {}.", ids.join(" and ")))
        }
        Step::NotePublished { id } => note("KeyPublished", format!("{id} is seen in what is published.")),
        Step::Promote { id } => note("KeyInUse", format!("{id} is used for new work.")),
        Step::Retire { id } => note(
            "KeyRetired",
            format!("Workers don't mount {id} any more. Its Secret stays."),
        ),
    }
}

/// What people are asked to do that they weren't before, by the status that is there: once a version and a task.
#[must_use]
pub fn asked(before: Option<&KeyRingStatus>, decision: Option<&Decision>) -> Vec<Note> {
    let told = |id: Option<&str>, text: &str| {
        let mut versions = before.into_iter().flat_map(|status| &status.versions);
        versions.any(|version| Some(version.id.as_str()) == id && version.waits_for.as_deref() == Some(text))
    };
    let waits = decision.into_iter().flat_map(|decision| &decision.waits);
    waits
        .filter(|wait| wait.person && !told(wait.id.as_deref(), &short(&wait.text)))
        .map(|wait| Note {
            warning: true,
            reason: wait.reason.unwrap_or(reasons::OK),
            text: format!("It waits for {}", wait.text),
        })
        .collect()
}
