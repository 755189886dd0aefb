//! Who is in a window: ledger rules 3 and 4 as a pure function of what was found.

use jiff::Timestamp;

use crate::formats::plan::{Exclusion, ExclusionReason, Member, Shape};
pub use crate::formats::shard::{Candidate, Content, OurTime, Pinned};

/// The set at one cutoff.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The cutoff.
    pub cutoff: Timestamp,
    /// What all members have in common.
    pub shape: Shape,
    /// The members, sorted by object name.
    pub members: Vec<Member>,
    /// The rest, sorted by object name.
    pub exclusions: Vec<Exclusion>,
}

/// Why the candidate's names and times keep it out at `cutoff`; `None`: they don't. A legacy peer's time doesn't count:
/// its messages need only be there now.
#[must_use]
pub fn by_times(candidate: &Candidate, cutoff: Timestamp, legacy_peer: bool) -> Option<ExclusionReason> {
    // What was delivered is answered, whatever another worker saw of a batch that was being replaced: the peer counts it.
    if candidate.rejected && candidate.ours.is_none() {
        return Some(ExclusionReason::Rejected);
    }
    if !candidate.recorded {
        return Some(ExclusionReason::NoRecord);
    }
    let cutoff = cutoff.as_millisecond();
    match (candidate.ours, candidate.theirs) {
        (None, _) => Some(ExclusionReason::NotDelivered),
        (Some(ours), _) if ours.millis > cutoff => Some(ExclusionReason::Late),
        (_, None) => Some(ExclusionReason::NoPeerMessages),
        (_, Some(theirs)) if theirs > cutoff && !legacy_peer => Some(ExclusionReason::PeerLate),
        _ => None,
    }
}

/// The set at the first of the cutoffs that has a member; `None`: none has. Candidates are sorted by name.
#[must_use]
pub fn first_set(candidates: &[Candidate], cutoffs: &[Timestamp], legacy_peer: bool) -> Option<Set> {
    cutoffs
        .iter()
        .find_map(|cutoff| set_at(candidates, *cutoff, legacy_peer))
}

fn set_at(candidates: &[Candidate], cutoff: Timestamp, legacy_peer: bool) -> Option<Set> {
    let mut shape: Option<Shape> = None;
    let mut members = Vec::new();
    let mut exclusions = Vec::new();
    for candidate in candidates {
        let verdict = match (by_times(candidate, cutoff, legacy_peer), &candidate.content) {
            (Some(reason), _) => Err(reason),
            (None, Some(Content::Bad(reason))) => Err(*reason),
            // Nobody looked inside: it came after the listing that this decision is made on.
            (None, None) => Err(ExclusionReason::NoRecord),
            (None, Some(Content::Good(pinned))) => {
                let first = shape.get_or_insert_with(|| pinned.shape.clone());
                if *first == pinned.shape {
                    Ok(pinned)
                } else {
                    Err(ExclusionReason::ShapeDiffers)
                }
            }
        };
        let (time, uuid) = (candidate.time.to_path(), candidate.uuid);
        match verdict {
            Ok(pinned) => members.push(Member {
                time,
                uuid,
                record_digest: pinned.record_digest.clone(),
                messages_digest: pinned.messages_digest.clone(),
                our_time_unread: candidate.ours.is_some_and(|ours| ours.unread),
            }),
            Err(reason) => exclusions.push(Exclusion { time, uuid, reason }),
        }
    }
    shape.map(|shape| Set {
        cutoff,
        shape,
        members,
        exclusions,
    })
}

/// How many candidates each reason keeps out at `cutoff`, in order of first appearance.
#[must_use]
pub fn tally(candidates: &[Candidate], cutoff: Timestamp, legacy_peer: bool) -> Vec<(ExclusionReason, u64)> {
    let mut tally: Vec<(ExclusionReason, u64)> = Vec::new();
    for candidate in candidates {
        let reason = match (by_times(candidate, cutoff, legacy_peer), &candidate.content) {
            (Some(reason), _) => reason,
            (None, Some(Content::Bad(reason))) => *reason,
            (None, _) => continue,
        };
        match tally.iter_mut().find(|(there, _)| *there == reason) {
            Some((_, count)) => *count += 1,
            None => tally.push((reason, 1)),
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use uuid::Uuid;

    use super::*;
    use crate::formats::names::BatchTime;

    fn second(n: i64) -> Timestamp {
        Timestamp::from_second(n).unwrap()
    }

    fn shape(bins: u32) -> Shape {
        Shape {
            name: "a".into(),
            bins,
            epsilon: 0.1,
            prime: 4_293_918_721,
            number_of_servers: 2,
            hamming_weight: None,
        }
    }

    fn candidate(n: u8, ours: Option<i64>, theirs: Option<i64>) -> Candidate {
        Candidate {
            time: BatchTime::parse_path(&format!("2026/11/20/00/0{n}")).unwrap(),
            uuid: Uuid::from_u128(n.into()),
            rejected: false,
            recorded: true,
            ours: ours.map(|n| OurTime {
                millis: 1_000 * n,
                unread: false,
            }),
            theirs: theirs.map(|n| 1_000 * n),
            content: Some(Content::Good(Box::new(Pinned {
                record_digest: format!("record {n}"),
                messages_digest: format!("messages {n}"),
                shape: shape(4),
            }))),
        }
    }

    #[test]
    fn both_times_decide_and_the_cutoff_is_inclusive() {
        use ExclusionReason as E;
        let rejected = Candidate {
            rejected: true,
            ..candidate(1, None, Some(1))
        };
        let answered = Candidate {
            rejected: true,
            ..candidate(1, Some(10), Some(10))
        };
        let unrecorded = Candidate {
            recorded: false,
            ..candidate(1, Some(1), Some(1))
        };
        let table = [
            (candidate(1, Some(10), Some(10)), None, None),
            (candidate(1, Some(11), Some(10)), Some(E::Late), Some(E::Late)),
            (candidate(1, Some(10), Some(11)), Some(E::PeerLate), None),
            (candidate(1, Some(11), Some(11)), Some(E::Late), Some(E::Late)),
            (
                candidate(1, None, Some(10)),
                Some(E::NotDelivered),
                Some(E::NotDelivered),
            ),
            (
                candidate(1, Some(10), None),
                Some(E::NoPeerMessages),
                Some(E::NoPeerMessages),
            ),
            (answered, None, None),
            (rejected, Some(E::Rejected), Some(E::Rejected)),
            (unrecorded, Some(E::NoRecord), Some(E::NoRecord)),
        ];
        for (candidate, ours, legacy) in table {
            assert_eq!(by_times(&candidate, second(10), false), ours, "{candidate:?}");
            assert_eq!(by_times(&candidate, second(10), true), legacy, "legacy: {candidate:?}");
        }
    }

    #[test]
    fn the_first_cutoff_with_a_member_is_planned() {
        let candidates = [candidate(1, Some(15), Some(12)), candidate(2, Some(25), Some(12))];
        let at = |cutoffs: &[i64]| {
            let cutoffs: Vec<_> = cutoffs.iter().copied().map(second).collect();
            first_set(&candidates, &cutoffs, false).map(|set| (set.cutoff.as_second(), set.members.len()))
        };
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[10]), None);
        assert_eq!(
            at(&[10, 20, 30]),
            Some((20, 1)),
            "later cutoffs don't make a planned window grow"
        );
        assert_eq!(at(&[30]), Some((30, 2)));
    }

    #[test]
    fn every_other_candidate_is_excluded_by_name_and_reason() {
        let mut other_shape = candidate(2, Some(1), Some(1));
        if let Some(Content::Good(pinned)) = &mut other_shape.content {
            pinned.shape = shape(5);
        }
        let overwritten = Candidate {
            content: Some(Content::Bad(ExclusionReason::Overwritten)),
            ..candidate(3, Some(1), Some(1))
        };
        let candidates = [
            candidate(1, Some(1), Some(1)),
            other_shape,
            overwritten,
            candidate(4, Some(99), Some(1)),
        ];
        let set = first_set(&candidates, &[second(10)], false).unwrap();
        assert_eq!(set.members.len(), 1);
        assert_eq!(set.shape, shape(4));
        assert!(!set.members[0].our_time_unread);
        let reasons: Vec<_> = set.exclusions.iter().map(|exclusion| exclusion.reason).collect();
        use ExclusionReason::{Late, Overwritten, ShapeDiffers};
        assert_eq!(reasons, [ShapeDiffers, Overwritten, Late]);
    }

    #[test]
    fn excluded_batches_alone_make_no_set() {
        let overwritten = Candidate {
            content: Some(Content::Bad(ExclusionReason::Overwritten)),
            ..candidate(3, Some(1), Some(1))
        };
        assert_eq!(first_set(&[overwritten], &[second(10)], false), None);
    }
}
