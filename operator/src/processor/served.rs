//! What partners get in place of our own manifests, and what to say of it. Pure.

use std::collections::BTreeMap;

use crds::conditions::{MANIFEST_PUBLISHED, reasons};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::manifest::kind_of;
use crate::peer;
use crate::status::{Verdict, condition};

/// After so long a web server lags no more: what else is served then is somebody else's.
pub(super) const SERVED_LAG: SignedDuration = SignedDuration::from_mins(3);
/// What is said of partners who don't get what they should for so long. Until then it is as usual, and no Event tells it.
pub(super) const FOR_LONG: &str = "no web server lags for so long";

/// Caches that keep a manifest for longer than so many seconds keep partners from a new key.
const MAX_CACHED_SECONDS: u64 = 300;
/// So much of a header is told, in characters.
const MAX_SHOWN_HEADER: usize = 100;

/// Whether caches ask again soon.
pub(super) fn is_fresh(cache_control: Option<&str>) -> bool {
    let directives = cache_control.unwrap_or_default().split(',').map(str::trim);
    directives.into_iter().any(|directive| {
        let age = directive
            .strip_prefix("max-age=")
            .and_then(|age| age.parse::<u64>().ok());
        ["no-cache", "no-store"].contains(&directive) || age.is_some_and(|age| age <= MAX_CACHED_SECONDS)
    })
}

/// Documents by their names under the base URL.
pub(super) type Documents = BTreeMap<String, String>;

/// What partners should get, and what was found where they fetch it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LookedFor {
    pub documents: Documents,
    /// What they should have got before: web servers lag.
    pub former: Documents,
    /// Since when they should get these documents, as far as is known.
    pub since: Timestamp,
    /// Since when they are seen not to get these, there.
    pub missed: Option<Timestamp>,
    /// When it was looked for, and what came out.
    pub found: Option<(Timestamp, Verdict)>,
}

impl LookedFor {
    /// What they should get from now on.
    pub fn follow(before: Option<Self>, documents: Documents, now: Timestamp) -> Self {
        match before {
            Some(before) if before.documents == documents => before,
            before => Self {
                documents,
                former: before.map(|before| before.documents).unwrap_or_default(),
                since: now,
                missed: None,
                found: None,
            },
        }
    }

    /// Takes in what partners get; whether they don't get what they should for longer than web servers lag.
    pub fn note(&mut self, served: &Served, now: Timestamp) -> bool {
        let is_missed = matches!(served, Served::Not(_));
        self.missed = is_missed.then(|| self.missed.unwrap_or(now));
        self.missed.is_some_and(|since| now.duration_since(since) >= SERVED_LAG)
    }

    /// Another spec may say another place.
    pub fn forget_found(&mut self) {
        (self.found, self.missed) = (None, None);
    }
}

/// Since when partners don't get what they should, as the process before this one saw it. Pure.
pub(super) fn missed_before(conditions: &[Condition]) -> Option<Timestamp> {
    let found = condition(conditions, MANIFEST_PUBLISHED)?;
    // The condition may have been False for another reason before.
    let is_missed = found.reason == reasons::NOT_SERVED && found.message.contains(FOR_LONG);
    is_missed.then_some(found.last_transition_time.0)
}

/// What partners get, for a person; the worst is the greatest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Served {
    /// What was written.
    Same,
    /// That, and caches may keep it.
    Cached(String),
    /// Something else, or nothing.
    Not(String),
    /// A key that isn't ours.
    OtherKey(String),
}

/// What partners should get of one document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// Its name.
    pub name: &'a str,
    /// What was written.
    pub ours: &'a str,
    /// What they got before: a web server that lags serves no other's key.
    pub former: Option<&'a str>,
    /// Whether the web server had the time to take over what was written.
    pub had_time: bool,
}

/// What a document is that partners get. Pure.
pub(super) fn served(expected: &Expected<'_>, bytes: &[u8], cache_control: Option<&str>) -> Served {
    let Expected {
        name,
        ours,
        former,
        had_time,
    } = *expected;
    if bytes == ours.as_bytes() {
        return match cache_control {
            header if is_fresh(header) => Served::Same,
            None => Served::Cached(format!("{name} comes without Cache-Control")),
            Some(header) => {
                let header: String = header.chars().take(MAX_SHOWN_HEADER).collect();
                Served::Cached(format!("{name} comes with Cache-Control: {header}"))
            }
        };
    }
    if former.is_some_and(|former| bytes == former.as_bytes()) {
        return Served::Not(format!("{name} there is still the one of before"));
    }
    let before = format!("{name} there is another one, perhaps the one of before");
    match peer::compare(kind_of(name), ours.as_bytes(), bytes) {
        Err(error) => Served::Not(format!("{name} there is another one, which can't be read: {error}")),
        Ok(difference) if difference.changes.is_empty() => {
            Served::Not(format!("{before}; it says the same in another form"))
        }
        Ok(difference) => {
            let text = format!("{before}. Beside ours: {}", difference.changes.join("; "));
            // Partners take a key that is added without a question.
            if difference.replaced || difference.added && had_time {
                Served::OtherKey(text)
            } else {
                Served::Not(text)
            }
        }
    }
}

/// `ManifestPublished`; `for_long` is what [`LookedFor::note`] says. Pure.
pub(super) fn verdict(served: &Served, written: &str, base_url: &str, for_long: bool) -> Verdict {
    let (is_served, reason, message) = match served {
        Served::Same => (
            true,
            reasons::OK,
            format!("{written}; partners get that at {base_url}."),
        ),
        Served::Cached(how) => {
            let message = format!(
                "{written}; partners get that at {base_url}, but {how}: caches on the way may keep it, and a new key from \
                 partners, for long. Serve it with Cache-Control: no-cache."
            );
            (true, reasons::CACHED_TOO_LONG, message)
        }
        Served::Not(problem) => {
            let how_long = if for_long {
                format!(", and {FOR_LONG}")
            } else {
                String::new()
            };
            let message = format!("{written}, but partners don't get that{how_long}: {problem}.");
            (false, reasons::NOT_SERVED, message)
        }
        Served::OtherKey(problem) => {
            let message = format!("{written}, but partners get a key that isn't ours: {problem}.");
            (false, reasons::OTHER_KEY_SERVED, message)
        }
    };
    Verdict::new(MANIFEST_PUBLISHED, Some(is_served), reason, message)
}
