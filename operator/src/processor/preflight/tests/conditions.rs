//! What the operator itself says, and which lines come of it.

use crds::conditions::{KEYS_LOADED, MAILBOXES_LISTED, MANIFEST_PUBLISHED};

use super::*;
use crate::processor::preflight::remedy::remedy;

#[test]
fn what_passes_by_itself_is_waited_for_and_then_told() {
    let mut world = World::begun();
    world.ended(0, vec![passed()]);
    world.ended(1, vec![passed()]);
    let lags = Verdict::new(
        MANIFEST_PUBLISHED,
        Some(false),
        reasons::NOT_SERVED,
        "the one of before.",
    );
    set_condition(&mut world.conditions, &lags, Some(3), Timestamp::UNIX_EPOCH);
    assert_eq!(told(&world.look("02:01")).1, reasons::RUNNING);
    let decision = world.look("02:03");
    assert_eq!(told(&decision).1, reasons::FAILED);
    assert!(
        told(&decision)
            .2
            .starts_with("Operator ManifestPublished: the one of before;"),
        "{decision:?}"
    );
}

#[test]
fn what_the_operator_says_of_the_spec_of_before_is_waited_out() {
    for (seen, at, expected) in [
        (Some(2), "02:01", reasons::RUNNING),
        (None, "02:01", reasons::RUNNING),
        (Some(3), "02:01", reasons::PASSED),
        (Some(2), "02:03", reasons::PASSED),
    ] {
        let mut world = World::begun();
        world.ended(0, vec![passed()]);
        world.ended(1, vec![passed()]);
        let published = Verdict::new(MANIFEST_PUBLISHED, Some(true), reasons::OK, "it is.");
        set_condition(&mut world.conditions, &published, seen, Timestamp::UNIX_EPOCH);
        assert_eq!(told(&world.look(at)).1, expected, "{seen:?} {at}");
    }
}

#[test]
fn keys_that_a_look_does_not_come_to_are_not_waited_for() {
    for (listed, expected) in [
        (None, reasons::RUNNING),
        (Some(true), reasons::RUNNING),
        (Some(false), reasons::FAILED),
    ] {
        let mut world = World::begun();
        world.ended(0, vec![passed()]);
        world.ended(1, vec![passed()]);
        let loaded = Verdict::new(KEYS_LOADED, Some(true), reasons::OK, "of the spec of before.");
        set_condition(&mut world.conditions, &loaded, Some(2), Timestamp::UNIX_EPOCH);
        if listed.is_some() {
            let listed = Verdict::new(MAILBOXES_LISTED, listed, reasons::LISTING_FAILED, "no answer.");
            set_condition(&mut world.conditions, &listed, Some(3), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(told(&world.look("02:01")).1, expected, "{listed:?}");
    }
}

#[test]
fn what_is_so_and_should_be_mended_is_no_line_that_passed() {
    let mut world = World::begun();
    world.ended(0, vec![passed()]);
    world.ended(1, vec![passed()]);
    let differs = Verdict::new(PEERS_KNOWN, Some(true), reasons::IDENTITY_DIFFERS, "another role.");
    set_condition(&mut world.conditions, &differs, Some(3), Timestamp::UNIX_EPOCH);
    let decision = world.look("02:01");
    assert_eq!(told(&decision).1, reasons::FAILED);
    assert!(
        told(&decision).2.starts_with("Operator PeersKnown: another role;"),
        "{decision:?}"
    );
}

#[test]
fn a_manifest_that_nobody_reads_as_partners_do_is_no_line_that_passed() {
    use crds::processor::PreflightOutcome::{Failed, NotCheckable, Passed};
    let say_where = "set manifest.servedAt to the URL that partners read, and the operator looks";
    let unwritten = remedy(reasons::PUBLISH_FAILED);
    let cached = remedy(reasons::CACHED_TOO_LONG);
    // Is it True, why, of which spec, whether the spec says where partners read; the line.
    let table = [
        (true, reasons::OK, 3, true, Passed, ""),
        (true, reasons::OK, 3, false, NotCheckable, say_where),
        (true, reasons::OK, 2, false, NotCheckable, ""),
        (true, reasons::CACHED_TOO_LONG, 3, true, Failed, cached),
        (false, reasons::PUBLISH_FAILED, 3, true, Failed, unwritten),
        (false, reasons::PUBLISH_FAILED, 3, false, Failed, unwritten),
    ];
    for (is_true, reason, seen, has_served_at, outcome, what_to_do) in table {
        let case = format!("{is_true} {reason} {seen} {has_served_at}");
        let mut world = World::begun();
        world.has_served_at = has_served_at;
        world.ended(0, vec![passed()]);
        world.ended(1, vec![passed()]);
        let published = Verdict::new(MANIFEST_PUBLISHED, Some(is_true), reason, "as it is.");
        set_condition(&mut world.conditions, &published, Some(seen), Timestamp::UNIX_EPOCH);
        let decision = world.look("02:03");
        let lines = &decision.status.as_ref().unwrap().lines;
        let found: Vec<_> = lines
            .iter()
            .filter(|line| line.stage == PreflightStage::Operator)
            .map(|line| (line.check.as_str(), line.outcome, line.remedy.as_str()))
            .collect();
        let expected = [(PEERS_KNOWN, Passed, ""), (MANIFEST_PUBLISHED, outcome, what_to_do)];
        assert_eq!(found, expected, "{case}");
        assert_eq!(told(&decision).0, Some(outcome != Failed), "{case}");
    }
}
