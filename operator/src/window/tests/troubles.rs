//! Crashes, suspension, silent peers, wrong entries.

use super::*;

#[test]
fn crashes_are_told_after_three_and_blocked_windows_tried_again() {
    let mut world = World::new(in_time());
    world.step("01:00");
    for now in ["04:00", "04:01", "04:02"] {
        world.jobs = vec![world.start(now).crashed()];
    }
    let decision = world.step("04:03");
    assert_eq!(
        (decision.jobs.len(), world.says().0, decision.counts.failed),
        (0, "CrashesWorker", 1)
    );
    world.forget();
    assert!(world.step("04:04").jobs.is_empty());
    world.objects[0].metadata.annotations = Some([(RETRY_ANNOTATION.to_owned(), "1".to_owned())].into());
    world.report("04:05", WindowOutcome::Blocked);
    let decision = world.step("04:06");
    assert_eq!((decision.jobs.len(), world.says().0), (0, "Blocked"));
    assert_eq!(world.step("04:15").jobs.len(), 0);
    assert_eq!(world.step("04:16").jobs.len(), 1);
}

#[test]
fn a_due_window_that_is_not_summed_is_overdue_after_an_hour() {
    let mut world = World::new(in_time());
    world.step("01:00");
    world.processor.spec.suspend = true;
    assert!(world.step("2026-11-20T04:59:59Z").overdue.is_empty());
    let decision = world.step("05:00");
    assert!(decision.jobs.is_empty());
    assert_eq!((decision.overdue, decision.counts.overdue), (vec![window(WINDOW)], 1));
}

#[test]
fn a_legacy_peers_answers_are_waited_for_one_period() {
    let ids = kittens(2);
    let mailboxes = Mailboxes::default().ingested(&ids, "01:00").delivered(&ids, "01:10");
    let table = [("none", 0, "07:00"), ("one", 1, "07:00"), ("both", 2, "04:00")];
    for (answers, count, planned) in table {
        let mut world = World::new(mailboxes.clone().answered(&ids[..count], 1, "01:20"));
        world.processor.spec.peer.legacy = true;
        world.step("01:30");
        let before = at(planned) - minutes(1);
        assert!(world.step(&before.to_string()).jobs.is_empty(), "{answers}");
        assert_eq!(world.step(planned).jobs.len(), 1, "{answers}");
    }
}

#[test]
fn small_windows_share_a_pod_and_failed_ones_are_parted() {
    let mut mailboxes = Mailboxes::default();
    for (aggregation, count) in [("a", 1), ("b", 2), ("c", 1), ("d", 9)] {
        let ids: Vec<_> = (0..count).map(|n| batch(aggregation, "01/00", n)).collect();
        mailboxes = mailboxes.ingested(&ids, "01:00").delivered(&ids, "01:10");
    }
    let mut world = World::new(mailboxes);
    world.step("01:11");
    let decision = world.step("04:00");
    let names = |decision: &WindowDecision| -> Vec<String> {
        items(decision)
            .iter()
            .map(|chunk| chunk.iter().map(|item| item.aggregation.as_str()).collect())
            .collect()
    };
    assert_eq!(names(&decision), ["abc", "d"]);
    world.jobs = vec![started(&decision.jobs[0], &world.processor, "04:00").crashed()];
    assert_eq!(names(&world.step("04:02")), ["ab", "c", "d"]);
}

#[test]
fn a_wrong_entry_is_named() {
    let mut processor = processor();
    let entry = |aggregation: &str, start: &str, cutoff: &str| {
        vec![Cutoff {
            aggregation: aggregation.to_owned(),
            start: start.to_owned(),
            cutoff: cutoff.to_owned(),
        }]
    };
    for (cutoffs, field) in [
        (
            entry("-", "202611210000", "2026-12-20T12:00:00Z"),
            "cutoffs[0].aggregation",
        ),
        (entry("a", "20261121", "2026-12-20T12:00:00Z"), "cutoffs[0].start"),
        (entry("a", "202611210000", "noon"), "cutoffs[0].cutoff"),
    ] {
        processor.spec.windows.cutoffs = cutoffs;
        let error = Schedule::of(&processor.spec, at("00:00"), &Timing::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(field), "{error}");
    }
    processor.spec.windows.cutoffs.clear();
    processor.spec.windows.period_seconds = 61;
    assert!(
        Schedule::of(&processor.spec, at("00:00"), &Timing::default())
            .unwrap_err()
            .to_string()
            .contains("periodSeconds")
    );
}
