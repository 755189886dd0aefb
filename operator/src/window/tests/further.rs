//! Windows that are released once more, by an override.

use crds::conditions::OVERRIDDEN;
use crds::window::Override as Given;
use facilitator_core::formats::work::Approval;

use super::*;

/// The release that an override makes.
const AGAIN: &str = "kittens-seen/202611200000-202611200300.2";

/// Summed long ago; both batches are listed.
fn summed() -> World {
    let mut world = World::new(in_time().finished(WINDOW, Verdict::Summed, "04:01"));
    world.step("04:02");
    world
}

fn given(cutoff: &str, expires_at: &str) -> Given {
    Given {
        release: 2,
        cutoff: at(cutoff).to_string(),
        expires_at: at(expires_at).to_string(),
        reason: "the ingestor was late".to_owned(),
        approved_by: Some("privacy-officer".to_owned()),
    }
}

impl World {
    fn overridden(&mut self, given: Option<Given>) {
        let object = &mut self.objects[0];
        object.spec.overriding = given;
        object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
    }

    /// Reason and status of the condition, if it is there.
    fn override_says(&self) -> Option<(&str, &str)> {
        let conditions = &self.status().conditions;
        let condition = conditions.iter().find(|condition| condition.type_ == OVERRIDDEN)?;
        Some((condition.reason.as_str(), condition.status.as_str()))
    }
}

#[test]
fn an_approved_override_is_planned_at_its_cutoff_once() {
    let mut world = summed();
    assert_eq!(world.override_says(), None);
    world.overridden(Some(given("12:00", "20:00")));
    let decision = world.step("05:00");
    assert_eq!(
        (decision.jobs.len(), world.override_says()),
        (0, Some(("Collecting", "False")))
    );
    assert_eq!(world.says().0, "Summed", "the first release stays what it was");
    let decision = world.step("12:09");
    assert!(
        decision.jobs.is_empty() && decision.patch.is_empty(),
        "until it has settled"
    );
    let job = world.start("12:10");
    let item = AggregateItem {
        aggregation: "kittens-seen".to_owned(),
        start: "202611200000".to_owned(),
        end: "202611200300".to_owned(),
        cutoffs: vec![at("12:00").as_millisecond()],
        part: None,
        approval: Some(Approval {
            release: 2,
            expires_at_millis: at("20:00").as_millisecond(),
            approved_by: "privacy-officer".to_owned(),
            reason: "the ingestor was late".to_owned(),
        }),
    };
    assert!(matches!(
        &job.work,
        Some(facilitator_core::formats::work::WorkList::Aggregate { chunks, .. }) if *chunks == [[item]]
    ));
    assert!(job.holds_window(&window(AGAIN)) && !job.holds_window(&window(WINDOW)));
    assert_eq!(world.override_says(), Some(("Summing", "False")));
    assert!(world.step("12:11").jobs.is_empty(), "one Job at a time");
    world.mailboxes = world.mailboxes.finished(AGAIN, Verdict::Summed, "12:12");
    world.jobs = vec![job.complete().window_report(AGAIN, WindowOutcome::Summed, "")];
    let decision = world.step("12:13");
    assert_eq!(world.override_says(), Some(("Summed", "True")));
    let event = &decision.events[0];
    assert_eq!((event.reason, event.warning), ("Summed", false));
    assert!(event.message.contains("Release 2, of 39 clients"), "{}", event.message);
    let status = world.status();
    assert_eq!(
        status.sum_part.as_ref().unwrap().name,
        format!("us-ct-g-enpa/{WINDOW}.sum_0")
    );
    let further = &status.further_releases[0];
    assert_eq!((further.release, further.clients), (2, 39));
    assert_eq!(further.sum_part.name, format!("us-ct-g-enpa/{AGAIN}.sum_0"));
    world.forget();
    let decision = world.step("2026-11-21T00:00:00Z");
    assert!(decision.jobs.is_empty() && decision.events.is_empty() && decision.patch.is_empty());
    // Taken out of the spec, what was released still is.
    world.overridden(None);
    assert!(world.step("2026-11-21T00:00:01Z").jobs.is_empty());
    assert_eq!(
        (world.override_says(), world.status().further_releases.len()),
        (None, 1)
    );
}

#[test]
fn what_an_override_waits_for_is_said() {
    type Change = fn(&mut World);
    let unapproved: Change = |world| {
        world.overridden(Some(Given {
            approved_by: None,
            ..given("12:00", "20:00")
        }));
    };
    let approved: Change = |world| world.overridden(Some(given("12:00", "20:00")));
    let frozen: Change = |world| {
        world.overridden(Some(given("12:00", "20:00")));
        world.mailboxes = world.mailboxes.clone().planned(AGAIN, "12:11");
    };
    let ended: [(&str, Change); 3] = [
        ("BelowFloor", |world| {
            world.overridden(Some(given("12:00", "20:00")));
            world.mailboxes = world.mailboxes.clone().finished(AGAIN, Verdict::BelowFloor, "12:12");
        }),
        ("Failed", |world| {
            world.overridden(Some(given("12:00", "20:00")));
            world.mailboxes = world.mailboxes.clone().finished(AGAIN, Verdict::Failed, "12:12");
        }),
        ("Summed", |world| {
            world.overridden(Some(given("12:00", "20:00")));
            world.mailboxes = world.mailboxes.clone().finished(AGAIN, Verdict::Summed, "12:12");
        }),
    ];
    // When, whether a Job starts, the reason, whether it is told.
    let table = [
        ("nobody approved it", unapproved, "13:00", 0, "NotApproved", 0),
        ("its cutoff is to come", approved, "11:59", 0, "Collecting", 0),
        ("it is due", approved, "12:10", 1, "Summing", 0),
        ("in its last second", approved, "2026-11-20T19:59:59Z", 1, "Summing", 0),
        ("it expired", approved, "20:00", 0, "OverrideExpired", 1),
        ("frozen before it expired", frozen, "23:00", 1, "Summing", 0),
        ("below the floor", ended[0].1, "23:00", 0, ended[0].0, 1),
        ("refused", ended[1].1, "23:00", 0, ended[1].0, 1),
        ("released", ended[2].1, "23:00", 0, ended[2].0, 1),
    ];
    for (name, change, now, jobs, reason, events) in table {
        let mut world = summed();
        change(&mut world);
        let decision = world.step(now);
        assert_eq!(
            (
                decision.jobs.len(),
                world.override_says().unwrap().0,
                decision.events.len()
            ),
            (jobs, reason, events),
            "{name}"
        );
        assert_eq!(world.says().0, "Summed", "{name}");
        world.jobs = decision
            .jobs
            .iter()
            .map(|job| started(job, &world.processor, now))
            .collect();
        let again = world.step(now);
        assert!(
            again.jobs.is_empty() && again.events.is_empty() && again.patch.is_empty(),
            "{name}: told once"
        );
    }
}

#[test]
fn a_window_that_is_not_over_is_not_released_again() {
    let mut world = World::new(in_time());
    world.step("01:00");
    world.overridden(Some(given("02:00", "20:00")));
    let decision = world.step("03:00");
    assert_eq!((decision.jobs.len(), world.override_says().unwrap().0), (0, "Waiting"));
    let decision = world.step("04:00");
    assert_eq!(
        items(&decision).concat()[0].approval,
        None,
        "its first release comes first"
    );
    // One that failed may be released by an override.
    let mut world = World::new(in_time().finished(WINDOW, Verdict::Failed, "04:01"));
    world.step("04:02");
    world.overridden(Some(given("05:00", "20:00")));
    assert_eq!(world.step("05:10").jobs.len(), 1);
    assert_eq!(world.says().0, "Failed");
}

#[test]
fn without_a_member_or_with_crashes_an_override_waits_for_a_person() {
    let mut world = summed();
    world.overridden(Some(given("12:00", "20:00")));
    world.step("12:00");
    let job = world.start("12:10");
    world.jobs = vec![job.complete().window_report(AGAIN, WindowOutcome::NoMembers, "")];
    let decision = world.step("12:12");
    assert_eq!((decision.jobs.len(), world.override_says().unwrap().0), (0, "Missed"));
    world.forget();
    assert!(world.step("12:13").jobs.is_empty(), "nor after a restart");
    world.overridden(Some(given("13:00", "20:00")));
    assert_eq!(world.step("13:10").jobs.len(), 1, "another cutoff is another try");

    let mut world = summed();
    world.overridden(Some(given("12:00", "20:00")));
    for now in ["12:10", "12:11", "12:12"] {
        world.jobs = vec![world.start(now).crashed()];
    }
    let decision = world.step("12:13");
    assert_eq!(
        (decision.jobs.len(), world.override_says().unwrap().0),
        (0, "CrashesWorker")
    );
    world.forget();
    assert!(world.step("12:14").jobs.is_empty());
    world.objects[0].metadata.annotations = Some([(RETRY_ANNOTATION.to_owned(), "1".to_owned())].into());
    let job = world.start("12:15");
    world.jobs = vec![
        job.complete()
            .window_report(AGAIN, WindowOutcome::Blocked, "SignerUnknown"),
    ];
    let decision = world.step("12:16");
    assert_eq!((decision.jobs.len(), world.override_says().unwrap().0), (0, "Blocked"));
    assert_eq!(world.step("12:26").jobs.len(), 1);
}

#[test]
fn batches_that_came_late_are_taken_in_until_the_overrides_cutoff() {
    let late = [batch("kittens-seen", "02/00", 9)];
    let with_late = |given: Option<Given>, now: &str| {
        let mut world = World::new(
            in_time()
                .finished(WINDOW, Verdict::Summed, "04:01")
                .ingested(&late, "04:30"),
        );
        world.step("04:40");
        assert_eq!(world.status().batches.as_ref().unwrap().late, 1);
        world.overridden(given);
        let mut schedule = schedule(&world.processor);
        schedule.overrides = overrides(&world.objects);
        let inventory = world.mailboxes.inventory(&schedule, at(now));
        let decision = batch::decide(
            &BatchInput {
                processor: &world.processor,
                schedule: &schedule,
                timing: &Timing::default(),
                inventory: &inventory,
                objects: &[],
                jobs: &[],
                allowance: Allowance::Free,
                room: Room { jobs: 10, pods: 10 },
                memory: &Retries::default(),
            },
            at(now),
        );
        let taken: Vec<_> = decision
            .jobs
            .into_iter()
            .flat_map(|job| match job.work {
                Work::Intake(chunks) => chunks.concat(),
                Work::Aggregate(_) | Work::CompactClaims(_) | Work::KeyProbe { .. } | Work::Preflight { .. } => {
                    Vec::new()
                }
            })
            .collect();
        taken
            .iter()
            .map(|item| (item.uuid, item.take_anyway))
            .collect::<Vec<_>>()
    };
    let id = late[0].uuid;
    let unapproved = Given {
        approved_by: None,
        ..given("12:00", "20:00")
    };
    assert_eq!(with_late(None, "05:00"), []);
    assert_eq!(with_late(Some(unapproved), "05:00"), []);
    assert_eq!(with_late(Some(given("12:00", "20:00")), "05:00"), [(id, false)]);
    assert_eq!(
        with_late(Some(given("12:00", "20:00")), "11:55"),
        [(id, true)],
        "the last chance"
    );
    assert_eq!(with_late(Some(given("12:00", "20:00")), "12:00"), [], "too late for it");
}

/// Listings leave out what has a result: an override has its window listed again, until it has one of its own.
#[test]
fn an_old_window_is_listed_again_for_its_override() {
    let mut world = summed();
    world.overridden(Some(given("2026-11-28T12:00:00Z", "2026-11-29T00:00:00Z")));
    let now = at("2026-11-28T10:30:00Z");
    let mut schedule = schedule(&world.processor);
    let kittens = AggregationId::parse("kittens-seen").unwrap();
    let starts = |schedule: &Schedule, results: &[&str]| -> Vec<Timestamp> {
        let results = results
            .iter()
            .map(|name| (window(name), at("2026-11-21T00:00:00Z")))
            .collect();
        let scope = Scope::new(schedule, &BTreeSet::new(), false, now);
        scope
            .ranges(&kittens, &results)
            .iter()
            .map(|range| range.start)
            .collect()
    };
    let recent = at("2026-11-28T03:00:00Z");
    assert_eq!(starts(&schedule, &[WINDOW]), [recent]);
    schedule.overrides = overrides(&world.objects);
    assert_eq!(starts(&schedule, &[WINDOW]), [at("00:00"), recent]);
    assert_eq!(starts(&schedule, &[WINDOW, AGAIN]), [recent]);
}
