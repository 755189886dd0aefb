//! Which AggregationWindow objects there are.

use super::*;

#[test]
fn old_windows_go_with_the_history_and_those_out_of_the_listing_still_count() {
    let mut world = World::new(in_time().finished(WINDOW, Verdict::Summed, "04:01"));
    world.step("04:02");
    world.mailboxes = Mailboxes::default();
    let decision = world.step("2026-12-20T00:00:00Z");
    assert_eq!((decision.counts.summed, decision.delete.len()), (1, 0));
    assert_eq!(world.step("2027-02-18T03:00:01Z").delete.len(), 1);
    world.mailboxes = in_time().finished(WINDOW, Verdict::Summed, "04:01");
    assert!(world.step("2027-02-18T03:00:02Z").create.is_empty());
}

#[test]
fn only_a_whole_batch_or_the_ledger_makes_a_window() {
    let id = batch("kittens-seen", "01/00", 1);
    let parts = |parts: &[&str]| {
        parts.iter().fold(Mailboxes::default(), |m, part| {
            m.named(&format!("{id}.batch{part}"), "01:00")
        })
    };
    let far = BatchId::parse(&format!("kittens-seen/2027/11/20/01/00/{}", id.uuid)).unwrap();
    let far = std::slice::from_ref(&far);
    let ids = std::slice::from_ref(&id);
    let table = [
        ("packets", parts(&[".avro"]), 0),
        ("a header", parts(&["", ".avro"]), 0),
        ("a signature", parts(&[".sig"]), 0),
        ("both", parts(&["", ".sig"]), 1),
        ("a wrong date", Mailboxes::default().ingested(far, "01:00"), 0),
        ("the peer's answer", Mailboxes::default().answered(ids, 1, "01:00"), 0),
        (
            "a refusal",
            Mailboxes::default().rejected(ids, RejectedReason::Empty, "01:00"),
            1,
        ),
        ("a plan", Mailboxes::default().planned(WINDOW, "01:00"), 1),
    ];
    for (name, mailboxes, windows) in table {
        let mut world = World::new(mailboxes);
        let decision = world.step("01:01");
        let counts = decision.counts;
        assert_eq!(
            (decision.create.len(), counts.open + counts.without_sum),
            (windows, windows as i64),
            "{name}"
        );
    }
    let inventory = Mailboxes::default()
        .ingested(far, "01:00")
        .inventory(&schedule(&processor()), at("01:01"));
    assert_eq!(
        (inventory.windows.len(), inventory.unknown_names),
        (0, 3),
        "a wrong date is told"
    );
}

#[test]
fn an_old_windows_stray_objects_are_looked_at_for_minutes_and_a_whole_batch_as_long_as_it_waits() {
    let id = batch("kittens-seen", "01/00", 1);
    let now = |time: &str| format!("2026-11-25T{time}:00Z");
    let parts = |parts: &[&str]| {
        parts.iter().fold(Mailboxes::default(), |m, part| {
            m.named(&format!("{id}.batch{part}"), &now("00:00"))
        })
    };
    let table = [
        ("half, just come", parts(&["", ".avro"]), "00:09", 1),
        ("half, and no more came", parts(&["", ".avro"]), "00:10", 0),
        ("whole but for the packets", parts(&["", ".sig"]), "00:09", 1),
        ("whole", parts(&["", ".avro", ".sig"]), "09:00", 1),
    ];
    for (name, mailboxes, time, open) in table {
        assert_eq!(World::new(mailboxes).step(&now(time)).open.len(), open, "{name}");
    }
}

#[test]
fn a_window_whose_batches_are_no_longer_listed_keeps_what_was_counted() {
    let mut world = World::new(in_time().finished(WINDOW, Verdict::BelowFloor, "04:01"));
    world.step("04:02");
    let before = world.status().clone();
    assert_eq!(before.batches.as_ref().unwrap().matched, 2);
    world.mailboxes = Mailboxes::default().finished(WINDOW, Verdict::BelowFloor, "04:01");
    let decision = world.step("2026-11-28T04:02:00Z");
    assert!(decision.patch.is_empty() && decision.jobs.is_empty() && decision.open.is_empty());
    assert_eq!(world.status(), &before);
    // Rebuilt without them, the result tells.
    world.objects.clear();
    assert_eq!(world.step("2026-11-28T04:03:00Z").create.len(), 1);
    let batches = world.status().batches.clone().unwrap();
    assert_eq!((batches.seen, batches.matched, batches.late), (3, 2, 1));
}

#[test]
fn objects_are_at_most_so_many_and_the_oldest_that_are_over_go_first() {
    let start = at("00:00");
    let name = |n: i64| {
        let minute = |n: i64| (start + minutes(n)).strftime("%Y%m%d%H%M").to_string();
        format!("kittens-seen/{}-{}", minute(n), minute(n + 1))
    };
    let most = i64::try_from(projection::MAX_OBJECTS).unwrap();
    let done = (1..=most).fold(Mailboxes::default(), |m, n| {
        m.finished(&name(n), Verdict::Summed, "2026-11-25T00:00:00Z")
    });
    let mut world = World::new(done.planned(&name(0), "04:00"));
    world.processor.spec.windows.period_seconds = 60;
    let now = "2026-11-25T00:00:00Z";
    let decision = world.step(now);
    assert_eq!(
        (decision.create.len(), decision.counts.summed, decision.counts.open),
        (projection::MAX_OBJECTS, most, 1)
    );
    let has = |world: &World, n: i64| {
        let name = object_name("pha", &window(&name(n)));
        world
            .objects
            .iter()
            .any(|object| object.metadata.name.as_ref() == Some(&name))
    };
    assert!(has(&world, 0), "the oldest, but open");
    assert!(!has(&world, 1) && has(&world, 2) && has(&world, most));
    let decision = world.step(now);
    assert_eq!((decision.create.len(), decision.delete.len()), (0, 0), "it stays so");
    world.mailboxes = world.mailboxes.finished(&name(most + 1), Verdict::Summed, now);
    world.step(now);
    assert!(
        !has(&world, 2) && has(&world, most + 1),
        "the newest in place of the oldest"
    );
    assert_eq!(world.objects.len(), projection::MAX_OBJECTS);
}
