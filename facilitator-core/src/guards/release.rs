//! A batch is in at most one released sum of its aggregation, ever (ledger rule 6). There is no override yet.

use crate::formats::ledger::Released;
use crate::formats::names::WindowId;

/// Whether `other` is another window of the same aggregation that shares time with `window`.
#[must_use]
pub fn overlapping(window: &WindowId, other: &WindowId) -> bool {
    other != window && other.aggregation == window.aggregation && other.start < window.end && window.start < other.end
}

/// Whether what was released for a window is what would be released now: the same plan and the same packets.
#[must_use]
pub fn is_same_release(there: &Released, ours: &Released) -> bool {
    there == ours
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn window(path: &str) -> WindowId {
        WindowId::parse(path).unwrap()
    }

    #[test]
    fn another_window_that_shares_a_minute_is_in_the_way() {
        let mine = window("a/202611200300-202611200600");
        let table = [
            ("a/202611200300-202611200600", false),
            ("a/202611200000-202611200300", false),
            ("a/202611200600-202611200900", false),
            ("a/202611200000-202611200301", true),
            ("a/202611200559-202611200900", true),
            ("a/202611200000-202611210000", true),
            ("a/202611200400-202611200500", true),
            ("b/202611200400-202611200500", false),
        ];
        for (other, expected) in table {
            assert_eq!(overlapping(&mine, &window(other)), expected, "{other}");
        }
    }

    #[test]
    fn another_set_is_another_release_whatever_its_size() {
        let ours = Released {
            revision: 1,
            plan_digest: "a".into(),
            packet_set_digest: "b".into(),
            clients: 3,
        };
        assert!(is_same_release(&ours.clone(), &ours));
        assert!(!is_same_release(
            &Released {
                packet_set_digest: "c".into(),
                ..ours.clone()
            },
            &ours
        ));
        assert!(!is_same_release(
            &Released {
                plan_digest: "c".into(),
                ..ours.clone()
            },
            &ours
        ));
    }
}
