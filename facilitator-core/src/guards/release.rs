//! A batch is in at most one released sum of its aggregation, ever (ledger rule 6), unless an approved override releases a
//! window once more: then what all sums together tell is of nobody, or of as many clients as the floor asks for.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::formats::ledger::{FailedReason, Refusal};
use crate::formats::names::WindowId;

/// Whether `other` is another window of the same aggregation that shares time with `window`, or another release of it.
#[must_use]
pub fn overlapping(window: &WindowId, other: &WindowId) -> bool {
    other != window && other.aggregation == window.aggregation && other.start < window.end && window.start < other.end
}

/// A sum that was released, or is to be: what it counts, batch by batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedSum {
    /// Which.
    pub window: WindowId,
    /// Its batches.
    pub batches: Vec<CountedBatch>,
}

/// A batch of a sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedBatch {
    /// The batch, by the time of its path and its UUID.
    pub batch: (String, Uuid),
    /// The digests of the record and of the peer's messages: together they say which of its packets count.
    pub pinned: (String, String),
    /// How many do.
    pub clients: u64,
}

/// Why the first of `sums` must not be released beside the others; `None`: it may.
///
/// Clients are sorted into groups by the sums that count them. Whoever adds and subtracts sums sees no less than a whole
/// group, so each must be of `floor` clients or of none. With one sum beside it these groups are the two set differences
/// and what both count; with several, differences of two alone would let three sums tell of one client.
#[must_use]
pub fn refusal(sums: &[CountedSum], floor: u64) -> Option<Refusal> {
    let mut batches: BTreeMap<&(String, Uuid), (&CountedBatch, Vec<usize>)> = BTreeMap::new();
    for (index, sum) in sums.iter().enumerate() {
        for batch in &sum.batches {
            let (first, counted_by) = batches.entry(&batch.batch).or_insert((batch, Vec::new()));
            if *first != batch {
                let (time, uuid) = &batch.batch;
                let message = format!(
                    "the batch {time}/{uuid} has other packets or answers in {} than in {}: nobody can tell by which packets they differ",
                    sum.window, sums[counted_by[0]].window
                );
                return Some(Refusal {
                    reason: FailedReason::EarlierSetLost,
                    message,
                });
            }
            counted_by.push(index);
        }
    }
    let mut groups: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
    for (batch, counted_by) in batches.into_values() {
        *groups.entry(counted_by).or_default() += batch.clients;
    }
    let (counted_by, clients) = groups
        .into_iter()
        .find(|(_, clients)| (1..floor.max(1)).contains(clients))?;
    let named: Vec<_> = counted_by.iter().map(|index| sums[*index].window.path()).collect();
    let message = format!(
        "{clients} clients would be in {} and in no other sum that was released for this time, fewer than the floor of {floor}: \
         whoever compares the sums would learn of so few",
        named.join(" and ")
    );
    Some(Refusal {
        reason: FailedReason::SetsTooClose,
        message,
    })
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
            ("a/202611200300-202611200600.2", true),
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

    /// Sums of batches, each of so many clients. The first is to be released.
    fn sums(sums: &[&[(u8, u64)]]) -> Vec<CountedSum> {
        let of = |(index, batches): (usize, &&[(u8, u64)])| CountedSum {
            window: match index {
                0 => window("a/202611200300-202611200600.2"),
                n => window(&format!("a/202611200300-20261120060{n}")),
            },
            batches: batches
                .iter()
                .map(|(batch, clients)| CountedBatch {
                    batch: ("2026/11/20/03/00".into(), Uuid::from_u128((*batch).into())),
                    pinned: (format!("record {batch}"), "messages".into()),
                    clients: *clients,
                })
                .collect(),
        };
        sums.iter().enumerate().map(of).collect()
    }

    #[test]
    fn every_group_is_empty_or_at_least_the_floor() {
        const A: (u8, u64) = (1, 100);
        const B: (u8, u64) = (2, 100);
        type Sums<'a> = &'a [&'a [(u8, u64)]];
        let table: [(&str, Sums, Option<u64>); 20] = [
            ("nothing before", &[&[A]], None),
            ("the same set", &[&[A, B], &[A, B]], None),
            ("more, at the floor", &[&[A, (3, 10)], &[A]], None),
            ("more, in two batches", &[&[A, (3, 9), (4, 1)], &[A]], None),
            ("more, below the floor", &[&[A, (3, 9)], &[A]], Some(9)),
            ("one client more", &[&[A, (3, 1)], &[A]], Some(1)),
            ("batches without clients", &[&[A, (3, 0)], &[A, (4, 0)]], None),
            ("fewer, at the floor", &[&[A], &[A, (3, 10)]], None),
            ("fewer, below the floor", &[&[A], &[A, (3, 9)]], Some(9)),
            ("one for another", &[&[A, (3, 10)], &[A, (4, 1)]], Some(1)),
            ("the other for one", &[&[A, (3, 1)], &[A, (4, 10)]], Some(1)),
            ("both at the floor", &[&[A, (3, 10)], &[A, (4, 10)]], None),
            ("others altogether", &[&[A], &[B]], None),
            ("little in common", &[&[A, (3, 9)], &[B, (3, 9)]], Some(9)),
            ("two before, one too close", &[&[A, B], &[A], &[A, B, (3, 1)]], Some(1)),
            (
                "two before, neither too close",
                &[&[A, B], &[A], &[A, B, (3, 10)]],
                None,
            ),
            // Each difference of two is of 100 or more; the first less both others is one client.
            (
                "the union of two, and one client",
                &[&[A, B, (3, 1)], &[A], &[B]],
                Some(1),
            ),
            ("the union of two", &[&[A, B], &[A], &[B]], None),
            // The first less what the second has beyond the third.
            ("a difference, less one", &[&[B], &[A, B, (3, 1)], &[A]], Some(1)),
            ("a difference", &[&[B], &[A, B], &[A]], None),
        ];
        for (name, given, expected) in table {
            let refused = refusal(&sums(given), 10);
            match expected {
                None => assert_eq!(refused, None, "{name}"),
                Some(clients) => {
                    let refused = refused.unwrap_or_else(|| panic!("{name} passes"));
                    assert_eq!(refused.reason, FailedReason::SetsTooClose, "{name}");
                    let begin = format!("{clients} clients would be in a/202611200300-2026112006");
                    assert!(refused.message.starts_with(&begin), "{name}: {}", refused.message);
                }
            }
        }
        assert_eq!(refusal(&sums(&[&[A, (3, 1)], &[A]]), 0), None, "a floor of nobody");
        assert_eq!(refusal(&sums(&[&[A, (3, 1)], &[A]]), 1), None, "a floor of one");
    }

    #[test]
    fn a_batch_that_counts_otherwise_can_not_be_compared() {
        type Change = fn(&mut CountedBatch);
        let changes: [Change; 3] = [
            |batch| batch.pinned.0 = "another record".into(),
            |batch| batch.pinned.1 = "other messages".into(),
            |batch| batch.clients += 1,
        ];
        for change in changes {
            let mut sums = sums(&[&[(1, 100)], &[(1, 100)]]);
            change(&mut sums[1].batches[0]);
            let refused = refusal(&sums, 1).unwrap();
            assert_eq!(refused.reason, FailedReason::EarlierSetLost);
            assert!(refused.message.contains("00000001"), "{}", refused.message);
        }
    }
}
