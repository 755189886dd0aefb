//! What is blocked, fails or crashes its worker.

use super::*;

/// A world whose only batch is blocked since 01:03.
fn blocked() -> World {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let job = world
        .start("01:01")
        .complete()
        .batch_report(&ids[0], BatchOutcome::Blocked, "SignerUnknown");
    world.jobs = vec![job];
    assert!(world.step("01:03").jobs.is_empty());
    assert_eq!(world.outcomes(), [Some("Blocked".to_owned())]);
    world
}

#[test]
fn blocked_batches_are_tried_again_when_something_may_have_changed() {
    let nothing: Change = |_| {};
    let table: [(&str, Change, &str, Option<bool>); 6] = [
        ("too early", nothing, "2026-11-20T01:12:59Z", None),
        ("after ten minutes", nothing, "01:13", Some(false)),
        (
            "the spec has changed",
            |w| w.processor.metadata.generation = Some(4),
            "01:04",
            Some(false),
        ),
        (
            "asked for",
            |w| annotate(&mut w.objects[0], "now"),
            "01:04",
            Some(false),
        ),
        ("the last planning before the cutoff", nothing, "03:40", Some(true)),
        ("after the last cutoff", nothing, "09:00", Some(false)),
    ];
    for (name, change, now, expected) in table {
        let mut world = blocked();
        change(&mut world);
        let decision = world.step(now);
        assert_eq!(
            items(&decision).concat().first().map(|item| item.take_anyway),
            expected,
            "{name}"
        );
        if expected.is_some() {
            assert_eq!(decision.jobs[0].attempt, 1, "{name}: another Job than before");
            assert_eq!(
                world.outcomes(),
                [Some("Blocked".to_owned())],
                "{name}: no write until there is news"
            );
        }
    }
    let mut world = blocked();
    annotate(&mut world.objects[0], "now");
    let job = world
        .start("01:04")
        .complete()
        .batch_report(&kittens(1)[0], BatchOutcome::Blocked, "SignerUnknown");
    world.jobs = vec![job];
    assert!(world.step("01:05").jobs.is_empty(), "an annotation is answered once");
    annotate(&mut world.objects[0], "again");
    assert_eq!(world.step("01:06").jobs.len(), 1);
}

#[test]
fn what_was_blocked_just_before_the_cutoff_is_taken_anyway_once() {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "03:35"));
    let job = world
        .start("03:38")
        .complete()
        .batch_report(&ids[0], BatchOutcome::Blocked, "PacketKeyNotMounted");
    world.jobs = vec![job];
    assert!(world.step("03:39").jobs.is_empty());
    let decision = world.step("03:41");
    assert!(items(&decision)[0][0].take_anyway);
    let job = started(&decision.jobs[0], &world.processor, "03:41").complete();
    world.jobs = vec![job.batch_report(&ids[0], BatchOutcome::Blocked, "AccessDenied")];
    assert!(world.step("03:42").jobs.is_empty(), "then every ten minutes again");
}

#[test]
fn a_failed_index_is_planned_in_halves_and_a_batch_that_fails_alone_three_times_crashes_its_worker() {
    let ids = kittens(4);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let mut names = BTreeSet::new();
    let mut fail = |world: &mut World, now: &str| {
        let job = world.start(now);
        assert!(names.insert(job.name().to_owned()), "each try is another Job");
        world.jobs = vec![job.crashed()];
        match &world.jobs[0].work {
            Some(facilitator_core::formats::work::WorkList::Intake { chunks, .. }) => {
                chunks.iter().map(Vec::len).collect()
            }
            _ => Vec::new(),
        }
    };
    assert_eq!(fail(&mut world, "01:01"), [4]);
    assert_eq!(fail(&mut world, "01:02"), [2, 2]);
    // Three of the four turn out to be good.
    world.mailboxes = world.mailboxes.delivered(&ids[..3], "01:03");
    assert_eq!(fail(&mut world, "01:04"), [1]);
    assert_eq!(fail(&mut world, "01:05"), [1]);
    assert_eq!(fail(&mut world, "01:06"), [1]);
    let decision = world.step("01:07");
    assert!(decision.jobs.is_empty());
    assert_eq!(decision.events.last().unwrap().reason, reasons::CRASHES_WORKER);
    assert_eq!(world.outcomes()[3].as_deref(), Some("CrashesWorker"));
    assert_eq!(decision.windows[&window(WINDOW)].blocked, 1);

    world.jobs.clear();
    world.memory = Retries::default();
    assert!(world.step("05:00").jobs.is_empty(), "a restarted operator leaves it");
    annotate(
        world
            .objects
            .iter_mut()
            .find(|o| o.status.as_ref().unwrap().outcome.as_deref() == Some("CrashesWorker"))
            .unwrap(),
        "1",
    );
    assert_eq!(sizes(&world.step("05:01")), [1], "until somebody asks");
}

#[test]
fn a_report_that_never_came_and_a_removed_job_are_read_from_the_ledger_first() {
    let ids = kittens(2);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let job = world.start("01:01");
    world.mailboxes = world.mailboxes.delivered(&ids[..1], "01:02");
    world.jobs.clear();
    let decision = world.decide(at("01:03"));
    assert_eq!(
        (sizes(&decision), decision.jobs[0].attempt),
        (vec![1], 0),
        "a Job that is gone was no attempt"
    );
    world.jobs = vec![job.complete()];
    let decision = world.decide(at("01:03"));
    assert_eq!((sizes(&decision), decision.jobs[0].attempt), (vec![1], 1));
}

#[test]
fn a_job_that_was_refused_costs_no_attempt_alone() {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    for now in ["01:01", "01:02", "01:03", "01:04"] {
        let job = world.start(now);
        world.jobs = vec![job.refused("bad key")];
    }
    assert_eq!(world.step("01:05").jobs[0].attempt, 4);
}
