//! Which Batch objects there are, and what they tell.

use super::*;

#[test]
fn outcomes_are_told_once_when_the_job_is_over() {
    let ids = kittens(3);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let job = world.start("01:01");
    world.mailboxes =
        world
            .mailboxes
            .delivered(&ids[..1], "01:02")
            .rejected(&ids[1..2], RejectedReason::DigestMismatch, "01:02");
    let decision = world.step("01:02");
    assert!(
        decision.patch.is_empty() && decision.jobs.is_empty(),
        "the Job still runs"
    );
    assert_eq!(
        (
            decision.counts.validated,
            decision.counts.rejected,
            decision.counts.running
        ),
        (1, 1, 1)
    );
    let job = job
        .complete()
        .batch_report(&ids[0], BatchOutcome::Validated, "")
        .batch_report(&ids[1], BatchOutcome::Rejected, "DigestMismatch")
        .batch_report(&ids[2], BatchOutcome::Blocked, "PacketKeyNotMounted");
    world.jobs = vec![job.clone()];
    let decision = world.step("01:03");
    assert_eq!(decision.patch.len(), 3);
    let status = |n: usize| world.objects[n].status.as_ref().unwrap();
    assert_eq!(
        (status(0).packets, status(0).excluded, status(0).job.as_deref()),
        (Some(20), Some(1), Some(job.name()))
    );
    let told: Vec<_> = decision
        .events
        .iter()
        .map(|event| (event.warning, event.reason))
        .collect();
    assert_eq!(told, [(true, "Rejected"), (true, "Blocked")]);
    let why = &status(1).conditions[0].message;
    assert!(
        why.contains("the batch is bad") && why.contains("tell the ingestor"),
        "{why}"
    );
    assert_eq!(status(2).reason.as_deref(), Some("PacketKeyNotMounted"));
    assert_eq!(
        world.objects[2].metadata.labels.as_ref().unwrap()[OUTCOME_LABEL],
        "Blocked"
    );
    // Somebody adds a label; and a write was given up between status and labels.
    let labels = world.objects[2].metadata.labels.as_mut().unwrap();
    labels.insert("team".to_owned(), "statistics".to_owned());
    labels.insert(OUTCOME_LABEL.to_owned(), "Waiting".to_owned());
    let decision = world.step("01:03");
    assert_eq!((decision.patch.len(), decision.events.len()), (1, 0));
    assert_eq!(
        decision.patch[0].labels.as_ref().unwrap()[OUTCOME_LABEL],
        "Blocked",
        "it is put right"
    );
    let labels = world.objects[2].metadata.labels.as_mut().unwrap();
    labels.insert("team".to_owned(), "statistics".to_owned());
    for now in ["01:04", "01:12"] {
        let decision = world.step(now);
        assert!(decision.patch.is_empty() && decision.jobs.is_empty() && decision.events.is_empty());
    }
    world.jobs.clear();
    let decision = world.step("2026-11-20T01:12:59Z");
    assert!(
        decision.patch.is_empty(),
        "what the report told stays when the Job is gone: {:?}",
        decision.patch
    );
}

#[test]
fn an_empty_cluster_over_a_full_ledger_plans_nothing() {
    let ids = kittens(6);
    let mailboxes = Mailboxes::default()
        .ingested(&ids, "01:00")
        .delivered(&ids[..3], "01:10")
        .rejected(&ids[3..4], RejectedReason::Empty, "01:10")
        .finished(WINDOW, Verdict::Summed, "04:01");
    let mut world = World::new(mailboxes.clone());
    let decision = world.step("09:00");
    assert!(decision.jobs.is_empty() && decision.create.is_empty() && decision.events.is_empty());
    assert_eq!(decision.counts.late, 2);
    let tally = decision.windows[&window(WINDOW)];
    assert_eq!(
        (tally.seen, tally.delivered, tally.rejected, tally.empty, tally.late),
        (6, 3, 1, 1, 2)
    );
    let decision = World::new(mailboxes).step("02:00");
    assert_eq!(
        (decision.jobs.len(), decision.create.len()),
        (0, 6),
        "what is news is shown again"
    );
}

#[test]
fn batches_after_the_plan_are_late_and_never_taken_in() {
    let ids = kittens(2);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "04:30").planned(WINDOW, "04:00"));
    let decision = world.step("04:31");
    assert!(decision.jobs.is_empty());
    assert_eq!(
        (decision.create.len(), decision.counts.late, decision.events.len()),
        (2, 2, 2)
    );
    assert_eq!(world.outcomes(), [Some("Late".to_owned()), Some("Late".to_owned())]);
    assert!(world.step("04:32").patch.is_empty());
    assert_eq!(world.step("06:30").delete.len(), 2);
    assert!(world.step("06:31").create.is_empty(), "and not made again");
}

#[test]
fn objects_go_two_hours_after_the_end_and_are_at_most_so_many() {
    let ids = kittens(3);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.processor.spec.workers.max_batch_objects = 2;
    world.start("01:01");
    assert_eq!(world.objects.len(), 2);
    world.jobs.clear();
    world.mailboxes = world.mailboxes.delivered(&ids, "01:02");
    assert_eq!(world.step("01:03").patch.len(), 2);
    assert!(world.step("2026-11-20T03:01:59Z").delete.is_empty());
    assert_eq!(world.step("03:02").delete.len(), 2);
    assert!(world.step("03:03").create.is_empty());
    // Those whose names the mailboxes no longer show go two hours after they were made.
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.start("01:01");
    (world.jobs, world.mailboxes) = (Vec::new(), Mailboxes::default());
    assert!(world.step("03:00").delete.is_empty());
    assert_eq!(world.step("03:01").delete.len(), 3);
}

#[test]
fn exceptions_get_objects_before_all_others_and_are_told_even_without() {
    let ids = kittens(8);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.processor.spec.workers.max_batch_objects = 4;
    let job = world.start("01:01").complete();
    assert_eq!(world.objects.len(), 4);
    // Those with an object go well, and one is refused that has none.
    world.mailboxes = world
        .mailboxes
        .delivered(&ids[..2], "01:02")
        .delivered(&ids[2..7], "01:03")
        .rejected(&ids[7..], RejectedReason::DigestMismatch, "01:03");
    world.jobs = vec![job.clone()];
    let decision = world.step("01:04");
    let outcomes = |world: &World| {
        let mut outcomes: Vec<_> = world.outcomes().into_iter().flatten().collect();
        outcomes.sort();
        outcomes
    };
    assert_eq!(outcomes(&world), ["Rejected", "Validated", "Validated", "Validated"]);
    let gone = [object_name("pha", &ids[0]), object_name("pha", &ids[1])];
    assert!(
        decision.delete.len() == 1 && gone.contains(&decision.delete[0]),
        "the oldest makes room: {:?}",
        decision.delete
    );
    assert_eq!(decision.events.len(), 1);
    assert_eq!(decision.events[0].subject, Subject::Batch(object_name("pha", &ids[7])));
    let decision = world.step("01:05");
    assert!(
        decision.create.is_empty() && decision.delete.is_empty() && decision.events.is_empty(),
        "it stays so"
    );

    // More exceptions than objects: what has none is told of the processor, once.
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.processor.spec.workers.max_batch_objects = 3;
    world.start("01:01");
    world.mailboxes = world.mailboxes.rejected(&ids, RejectedReason::DigestMismatch, "01:03");
    world.jobs = vec![job];
    let decision = world.step("01:04");
    assert_eq!((world.objects.len(), decision.events.len()), (3, 4));
    let event = decision.events.last().unwrap();
    assert_eq!(
        (&event.subject, event.warning, event.reason),
        (&Subject::Processor, true, "Rejected")
    );
    assert!(event.message.starts_with("5 batches"), "{}", event.message);
    assert!(
        event.message.contains("maxBatchObjects is 3") && event.message.contains("the batch is bad"),
        "{}",
        event.message
    );
    assert!(world.step("01:05").events.is_empty());
}

#[test]
fn what_nothing_more_happens_to_is_stalled() {
    let table = [
        ("Validated", false, true),
        ("Rejected", true, false),
        ("Blocked", false, false),
        ("Late", true, false),
        ("CrashesWorker", true, false),
    ];
    let ids = kittens(5);
    let mut world = World::new(
        Mailboxes::default()
            .ingested(&ids, "01:00")
            .delivered(&ids[..1], "01:02")
            .rejected(&ids[1..2], RejectedReason::Empty, "01:02"),
    );
    let blocked = crate::workload::Blocked {
        reason: "SignerUnknown".to_owned(),
        message: "no key".to_owned(),
        at: at("01:02"),
        generation: 3,
        taken_anyway: false,
    };
    world.memory.entry(&ids[2]).blocked = Some(blocked);
    *world.memory.entry(&ids[4]) = crate::workload::Try::crashed();
    let mut late = World::new(
        Mailboxes::default()
            .ingested(&ids[3..4], "01:00")
            .planned(WINDOW, "00:30"),
    );
    world.room.jobs = 0;
    world.step("01:03");
    late.step("01:03");
    world.objects.append(&mut late.objects);
    for (outcome, stalled, ready) in table {
        let told = world.objects.iter().filter_map(|object| object.status.as_ref());
        let status = told
            .into_iter()
            .find(|status| status.outcome.as_deref() == Some(outcome))
            .unwrap();
        let is = |condition| crate::status::condition_is_true(&status.conditions, condition);
        assert_eq!((is("Stalled"), is("Ready")), (Some(stalled), Some(ready)), "{outcome}");
    }
}

#[test]
fn exceptions_alone_get_objects_where_that_is_asked_for() {
    let ids = kittens(3);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.processor.spec.workers.batch_objects = BatchObjects::Exceptions;
    let job = world.start("01:01");
    assert!(world.objects.is_empty());
    world.mailboxes =
        world
            .mailboxes
            .delivered(&ids[..1], "01:02")
            .rejected(&ids[1..2], RejectedReason::Empty, "01:02");
    world.jobs = vec![
        job.complete()
            .batch_report(&ids[2], BatchOutcome::Blocked, "SignerUnknown"),
    ];
    world.step("01:03");
    assert_eq!(
        world.outcomes(),
        [Some("Rejected".to_owned()), Some("Blocked".to_owned())]
    );
}
