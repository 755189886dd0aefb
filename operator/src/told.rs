//! Of which causes of trouble Events have told: of each once, as long as the trouble lasts. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Of so many causes of one condition is told as long as it isn't well: where there are more, it is the words that differ
/// from look to look.
const MAX_CAUSES: usize = 8;

/// What a condition says to those who hear Events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tidings {
    /// Something is wrong: what tells its cause from others.
    Wrong(String),
    /// Nothing to tell, and what was wrong before it may still be.
    Waits,
    /// Nothing is wrong, or any more.
    Over,
}

impl Tidings {
    /// Something is wrong for a reason, in words that may hold times and counts.
    #[must_use]
    pub fn wrong(reason: &str, message: &str) -> Self {
        Self::Wrong(format!("{reason}: {}", cause(message)))
    }
}

/// What was told of one object's conditions. Lost with the process; what a condition says then counts as told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told(BTreeMap<&'static str, BTreeSet<String>>);

impl Told {
    /// Takes in what a condition said and what it says now; whether that is to be told. Causes that take turns are told
    /// once each.
    pub fn note(&mut self, condition: &'static str, before: Tidings, now: Tidings) -> bool {
        let causes = self.0.entry(condition).or_default();
        match before {
            Tidings::Over => causes.clear(),
            Tidings::Wrong(before) if causes.is_empty() => {
                causes.insert(before);
            }
            Tidings::Wrong(_) | Tidings::Waits => {}
        }
        let Tidings::Wrong(now) = now else { return false };
        causes.len() < MAX_CAUSES && causes.insert(now)
    }
}

/// The words of a text, each once and in no order, but for those with a digit: times, ages, counts, names of pods and ids of
/// requests differ from look to look at one and the same cause.
fn cause(text: &str) -> String {
    // Of a text that was cut the last word may be cut, too.
    let whole = text.strip_suffix('…').map_or(text, |cut| {
        cut.rsplit_once(char::is_whitespace).map_or(cut, |(whole, _)| whole)
    });
    let words: BTreeSet<&str> = whole
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty() && !word.contains(char::is_numeric))
        .collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_known_whatever_times_and_counts_its_text_holds() {
        let expired =
            |seconds| format!("https://m.example/a.json: certificate expired: {seconds} (UNIX), {seconds} seconds ago");
        let (ten, twenty) = (expired(10), expired(20));
        let table = [
            ("no answer within 10 s", "no answer within 12 s.", true),
            (
                "the server answers 404 Not Found",
                "the server answers 403 Forbidden",
                false,
            ),
            (ten.as_str(), twenty.as_str(), true),
            (
                ten.as_str(),
                "https://m.example/a.json: Connection refused (os error 111)",
                false,
            ),
            (
                "Pod us-ct-intake-3f9a-x7k2p: secret \"a\" not found",
                "Pod us-ct-intake-8c01-9zq4d: secret \"a\" not found",
                true,
            ),
            (
                "Pod us-ct-intake-3f9a-x7k2p: secret \"a\" not found",
                "Pod us-ct-intake-3f9a-x7k2p: secret \"b\" not found",
                false,
            ),
            ("expired 2026-11-20T08:00:00Z", "expired 2026-11-21T09:30:00Z", true),
            ("a is wrong; b is wrong", "b is wrong; a is wrong", true),
            ("9 nodes: taint, and mem…", "10 nodes: taint, and me…", true),
        ];
        for (one, other, is_same) in table {
            assert_eq!(cause(one) == cause(other), is_same, "{one} / {other}");
        }
    }

    #[test]
    fn each_cause_is_told_once_until_nothing_is_wrong_any_more() {
        let wrong = |message| Tidings::wrong("FetchFailed", message);
        let table = [
            (wrong("refused"), true),
            (wrong("refused"), false),
            (wrong("no answer after 3 s"), true),
            (wrong("refused"), false),
            (wrong("no answer after 4 s"), false),
            (Tidings::Waits, false),
            (wrong("refused"), false),
            (Tidings::wrong("ManifestRefused", "refused"), true),
            (Tidings::Over, false),
            (Tidings::Waits, false),
            (wrong("refused"), true),
        ];
        let (mut told, mut before) = (Told::default(), Tidings::Over);
        for (step, (now, is_news)) in table.into_iter().enumerate() {
            assert_eq!(told.note("Ready", before, now.clone()), is_news, "{step}");
            before = now;
        }
        // Another process told of what the condition says, and of what else isn't known.
        let mut told = Told::default();
        assert!(!told.note("Ready", wrong("refused"), wrong("refused")));
        assert!(told.note("Ready", wrong("refused"), wrong("slow")));
        assert!(!told.note("Ready", wrong("slow"), wrong("refused")));
        assert!(told.note("Preflight", Tidings::Over, wrong("refused")));
        let mut told = Told::default();
        assert!(!told.note("KeysLoaded", wrong("refused"), Tidings::Waits));
        assert!(!told.note("KeysLoaded", Tidings::Waits, wrong("refused")));
    }

    #[test]
    fn words_that_differ_at_every_look_are_told_a_few_times_and_no_more() {
        let (mut told, mut before) = (Told::default(), Tidings::Over);
        let mut count = 0;
        for letter in 'a'..='z' {
            let now = Tidings::wrong("FetchFailed", &format!("request {letter}{letter}"));
            count += usize::from(told.note("Ready", before, now.clone()));
            before = now;
        }
        assert_eq!(count, MAX_CAUSES);
    }
}
