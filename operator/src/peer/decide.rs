//! What a look at a party's web server means: its new status, and what to tell. Pure.

use crds::conditions::{MANIFEST_CURRENT, READY, STALLED, reasons};
use crds::names::APPROVE_MANIFEST_ANNOTATION;
use crds::peer::{HeldChange, MAX_APPROVAL, MAX_APPROVALS, PeerManifest, PeerStatus, SuspiciousChanges};
use crds::{Peer, PeerSpec};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::difference::{Difference, removed_keys, shown};
use super::publication::Publication;
use crate::status::{Verdict, condition, set_condition};
use crate::told::{Tidings, Told};

/// For so long the original asks for a global manifest that its server doesn't give, before it asks for the specific one.
pub const FALLBACK_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What a look came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Sight {
    /// Good documents.
    Published(Publication),
    /// Documents that aren't good; why.
    Refused(String),
    /// No documents; why.
    Failed(String),
    /// The spec can't be followed; why.
    Invalid(String),
    /// `spec.suspend`.
    Suspended,
}

/// An Event to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Somebody should look.
    pub warning: bool,
    /// One of [`reasons`].
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// The status that follows, and what to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The new status.
    pub status: PeerStatus,
    /// Told once, when it is written.
    pub news: Vec<News>,
    /// For the next decision.
    pub told: Told,
}

/// Whether an ingestor's specific manifest is asked for, its global one not having come.
///
/// As with the original any failure to fetch leads there, a bad document doesn't. A server that only doesn't answer gets
/// some time first, unless the specific one is in use anyway: nobody should get us to another document by cutting a line.
#[must_use]
pub fn falls_back(missing: bool, in_use: Option<&PeerManifest>, global: &str, failing: SignedDuration) -> bool {
    let uses_specific =
        in_use.is_some_and(|manifest| manifest.documents.iter().all(|document| document.name != global));
    missing || uses_specific || failing >= FALLBACK_AFTER
}

/// Decides what is in use from now on. `told` is [`Decision::told`] of the last decision; default at start.
#[must_use]
pub fn decide(peer: &Peer, sight: &Sight, told: &Told, now: Timestamp) -> Decision {
    let mut status = peer.status.clone().unwrap_or_default();
    let mut changed = None;
    let (current, stalled) = match sight {
        Sight::Published(publication) => {
            let (current, news) = take(peer, &mut status, publication, now);
            changed = news;
            (current, None)
        }
        Sight::Refused(problems) => {
            status.held = None;
            let message = format!("What is published isn't good: {problems}.");
            (current(Some(false), reasons::MANIFEST_REFUSED, &status, message), None)
        }
        Sight::Failed(why) => {
            let message = format!("The manifest can't be fetched: {why}.");
            (current(Some(false), reasons::FETCH_FAILED, &status, message), None)
        }
        Sight::Invalid(why) => {
            let message = format!("spec: {why}.");
            let verdict = current(Some(false), reasons::INVALID_SPEC, &status, message);
            (verdict, Some(why))
        }
        Sight::Suspended => {
            let message = "spec.suspend is set: nothing is fetched.".to_owned();
            (current(Some(false), reasons::SUSPENDED, &status, message), None)
        }
    };
    let before = condition(&status.conditions, MANIFEST_CURRENT).cloned();
    let generation = peer.metadata.generation;
    let mut set = |verdict: &Verdict| set_condition(&mut status.conditions, verdict, generation, now);
    let ready = if status.manifest.is_some() {
        let message = "A good manifest is in use; ManifestCurrent says whether it is the newest.";
        Verdict::new(READY, Some(true), reasons::OK, message)
    } else {
        Verdict::new(READY, Some(false), &current.reason, &current.message)
    };
    set(&ready);
    set(&match stalled {
        Some(why) => Verdict::new(STALLED, Some(true), reasons::INVALID_SPEC, why),
        None => Verdict::new(STALLED, Some(false), reasons::OK, "Nothing needs to be changed."),
    });
    set(&current);
    status.observed_generation = generation;
    let mut told = told.clone();
    // As it is written: a long message is cut.
    let after = condition(&status.conditions, MANIFEST_CURRENT);
    // However many causes of other trouble were told: a held change is.
    let about = match after {
        Some(after) if after.reason == reasons::CHANGE_HELD => reasons::CHANGE_HELD,
        _ => MANIFEST_CURRENT,
    };
    let is_news = told.note(about, tidings(before.as_ref()), tidings(after));
    let turned = turned(before.as_ref(), &current, is_news);
    let news = changed.into_iter().chain(turned).collect();
    Decision { status, news, told }
}

/// Takes a good publication into use, or holds it back.
fn take(peer: &Peer, status: &mut PeerStatus, publication: &Publication, now: Timestamp) -> (Verdict, Option<News>) {
    let published = &publication.manifest;
    let is_same_place = is_same_place(&peer.spec, status.manifest.as_ref());
    if !is_same_place {
        status.removed_keys.clear();
    }
    let difference = match &status.manifest {
        Some(in_use) => Difference::between(in_use, published, &status.removed_keys),
        None => Difference::default(),
    };
    let is_suspicious = is_same_place && !difference.suspicious.is_empty();
    let approval = approval(peer).filter(|value| digest_of(value) == published.digest);
    let is_approved = approval
        .as_ref()
        .is_some_and(|value| !status.approvals_used.contains(value));
    if peer.spec.suspicious_changes == SuspiciousChanges::Hold && is_suspicious && !is_approved {
        let since = match &status.held {
            Some(held) if held.digest == published.digest => held.since.clone(),
            _ => second(now),
        };
        let approval = fresh(&published.digest, &status.approvals_used);
        let message = held_message(peer, &approval, &difference);
        status.held = Some(HeldChange {
            digest: published.digest.clone(),
            approval,
            since,
            suspicious: difference.suspicious,
            changes: difference.changes,
        });
        return (current(Some(false), reasons::CHANGE_HELD, status, message), None);
    }
    status.held = None;
    // Asked for or not: a server that goes back to this manifest later is no answer to a question of then.
    use_up(&mut status.approvals_used, approval);
    if let Some(in_use) = status.manifest.as_ref().filter(|_| is_same_place) {
        status.removed_keys = removed_keys(&status.removed_keys, in_use, published);
    }
    status.warnings.clone_from(&publication.warnings);
    let message = match &status.manifest {
        None => Some(format!("The first manifest is in use: {}.", summary(published))),
        Some(_) if difference.changes.is_empty() => None,
        Some(_) => Some(format!("The manifest changed: {}.", difference.changes.join("; "))),
    };
    // Another layout of the same content is no news, and no time of change either.
    let accepted_at = match (&status.manifest, &message) {
        (Some(in_use), None) => in_use.accepted_at.clone(),
        _ => second(now),
    };
    status.manifest = Some(PeerManifest {
        accepted_at,
        ..published.clone()
    });
    let news = message.map(|message| News {
        warning: false,
        reason: reasons::MANIFEST_CHANGED,
        message,
    });
    let message = if publication.warnings.is_empty() {
        "What is published is in use."
    } else {
        "What is published is in use; status.warnings says what is odd about it."
    };
    let current = Verdict::new(MANIFEST_CURRENT, Some(true), reasons::OK, message);
    (current, news)
}

/// As people read it.
fn second(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A manifest from another place was asked for by whoever may edit the Peer: that is an approval.
fn is_same_place(spec: &PeerSpec, in_use: Option<&PeerManifest>) -> bool {
    in_use.is_some_and(|manifest| manifest.base_url == spec.manifest_base_url && manifest.instance == spec.instance)
}

/// The annotation's value, as far as it is remembered.
fn approval(peer: &Peer) -> Option<String> {
    let value = peer.annotations().get(APPROVE_MANIFEST_ANNOTATION)?;
    Some(value.trim().chars().take(MAX_APPROVAL).collect())
}

/// What it approves: `DIGEST`, or `DIGEST:2` and so on, where that was approved before.
fn digest_of(approval: &str) -> &str {
    approval.split(':').next().unwrap_or_default()
}

/// The first approval of a digest that isn't used up.
fn fresh(digest: &str, used: &[String]) -> String {
    let numbered = (2..).map(|number: u32| format!("{digest}:{number}"));
    let mut all = std::iter::once(digest.to_owned()).chain(numbered);
    all.find(|value| !used.contains(value)).unwrap_or_default()
}

/// Remembers an approval, the last one as the last.
fn use_up(used: &mut Vec<String>, approval: Option<String>) {
    let Some(approval) = approval else { return };
    if !used.contains(&approval) {
        used.push(approval);
        let old = used.len().saturating_sub(MAX_APPROVALS);
        used.drain(..old);
    }
}

/// What to do comes before what it is: of a long list the end is cut.
fn held_message(peer: &Peer, approval: &str, difference: &Difference) -> String {
    format!(
        "A change waits, for it may be an attack or an accident. Ask the other party, by another way than its web server, \
         whether it means it; if so: kubectl -n {} annotate peer {} --overwrite {APPROVE_MANIFEST_ANNOTATION}={approval}. \
         It is: {}.",
        peer.namespace().unwrap_or_default(),
        peer.name_any(),
        difference.suspicious.join("; "),
    )
}

fn summary(manifest: &PeerManifest) -> String {
    let keys = manifest
        .batch_signing_keys
        .iter()
        .map(|key| format!("batch-signing key {:?} ({})", key.id, shown(&key.public_key)));
    let buckets = manifest
        .fields
        .iter()
        .filter(|(name, _)| name.ends_with("-bucket"))
        .map(|(name, value)| format!("{name} {value}"));
    keys.chain(buckets).collect::<Vec<_>>().join("; ")
}

/// `ManifestCurrent`, with what that means for those who use the manifest.
fn current(is_so: Option<bool>, reason: &str, status: &PeerStatus, message: String) -> Verdict {
    let in_use = match &status.manifest {
        Some(manifest) => format!(" In use stays the one of {}.", manifest.accepted_at),
        None => " Nothing is known of this party yet.".to_owned(),
    };
    Verdict::new(MANIFEST_CURRENT, is_so, reason, message + &in_use)
}

/// What `ManifestCurrent` says to those who hear Events: of a held change its digest counts, of other trouble the cause.
fn tidings(condition: Option<&Condition>) -> Tidings {
    let Some(Condition { reason, message, .. }) = condition else {
        return Tidings::Over;
    };
    match trouble(reason) {
        Some(reasons::CHANGE_HELD) => Tidings::Wrong(message.clone()),
        Some(reason) => Tidings::wrong(reason, message),
        None => Tidings::Over,
    }
}

/// The reason, where it is one of trouble.
fn trouble(reason: &str) -> Option<&'static str> {
    const TROUBLES: [&str; 4] = [
        reasons::FETCH_FAILED,
        reasons::MANIFEST_REFUSED,
        reasons::CHANGE_HELD,
        reasons::INVALID_SPEC,
    ];
    TROUBLES.into_iter().find(|known| *known == reason)
}

/// Trouble is told where it is news, and its end once.
fn turned(before: Option<&Condition>, now: &Verdict, is_news: bool) -> Option<News> {
    let Some(reason) = trouble(&now.reason) else {
        let mended = before.is_some_and(|before| before.status == "False" && now.status == Some(true));
        return mended.then(|| News {
            warning: false,
            reason: reasons::OK,
            message: now.message.clone(),
        });
    };
    is_news.then(|| News {
        warning: true,
        reason,
        message: now.message.clone(),
    })
}
