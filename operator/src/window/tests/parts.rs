//! Large windows, in parts.

use facilitator_core::formats::work::WindowPart;

use super::*;

/// Nine batches a minute apart, of which one pod sums three: three parts.
fn large() -> (World, Vec<BatchId>) {
    let ids: Vec<_> = (0..9)
        .map(|n| batch("kittens-seen", &format!("01/{n:02}"), n))
        .collect();
    let mailboxes = Mailboxes::default()
        .ingested(&ids, "01:10")
        .delivered(&ids, "01:20")
        .answered(&ids, 1, "01:20");
    let mut world = World::new(mailboxes);
    world.processor.spec.workers.sum_batches_per_pod = 3;
    (world, ids)
}

const RANGES: [&str; 3] = [
    "202611200000-202611200103",
    "202611200103-202611200106",
    "202611200106-202611200300",
];

/// The part of each index: `look` or `sum` and the minutes of its range, or `all` for what one pod does.
fn parts(decision: &WindowDecision) -> Vec<String> {
    let text = |item: &AggregateItem| match &item.part {
        None => "all".to_owned(),
        Some(WindowPart::PlanShard(range)) => format!("look {}", range.replace("20261120", "")),
        Some(WindowPart::PartialSum(range)) => format!("sum {}", range.replace("20261120", "")),
    };
    items(decision).concat().iter().map(text).collect()
}

impl World {
    /// What is planned at `now`, then forgotten.
    fn would_start(&mut self, now: &str) -> Vec<String> {
        parts(&self.step(now))
    }

    fn have(&mut self, folder: &str, ranges: &[&str]) {
        let names: Vec<String> = match folder {
            "shards" => {
                let cutoff = at("03:50").as_millisecond();
                ranges
                    .iter()
                    .map(|range| format!("{WINDOW}/{cutoff}/{range}"))
                    .collect()
            }
            _ => ranges.iter().map(|range| format!("{WINDOW}/{range}")).collect(),
        };
        self.mailboxes = self.mailboxes.clone().in_ledger(folder, &names, "04:01");
    }
}

#[test]
fn a_large_window_is_looked_at_planned_summed_and_put_together() {
    let (mut world, _) = large();
    world.step("01:30");
    assert_eq!(world.would_start("03:59"), [""; 0]);
    let job = world.start("04:00");
    let decision = world.step("04:00");
    assert!(decision.jobs.is_empty(), "one Job at a time");
    assert_eq!(job.job.spec.as_ref().unwrap().completions, Some(3));
    let end = |job: JobView| {
        (0..3).fold(job.complete(), |job, index| {
            job.part_report(WINDOW, index, WindowOutcome::Part)
        })
    };
    world.jobs = vec![end(job)];
    world.have("shards", &RANGES);
    world.mailboxes = world.mailboxes.clone().planned(WINDOW, "04:02");
    let decision = world.step("04:03");
    assert_eq!(parts(&decision), ["sum 0000-0103", "sum 0103-0106", "sum 0106-0300"]);
    assert_eq!(world.says().0, "Summing");
    let job = started(&decision.jobs[0], &world.processor, "04:03");
    world.have("partials", &RANGES);
    world.jobs = vec![end(job)];
    let decision = world.step("04:05");
    assert_eq!(parts(&decision), ["all"]);
    world.jobs = vec![started(&decision.jobs[0], &world.processor, "04:05").complete()];
    world.mailboxes = world.mailboxes.clone().finished(WINDOW, Verdict::Summed, "04:06");
    assert!(world.step("04:07").jobs.is_empty());
    assert_eq!(world.says().0, "Summed");
}

/// What is next follows from names alone, whoever chose the ranges that are there.
#[test]
fn the_next_parts_fill_the_gaps_between_those_that_are_there() {
    let [one, two, three] = RANGES;
    let other = "202611200000-202611200105";
    let old = |world: &mut World| {
        let name = format!("{WINDOW}/{}/{one}", at("00:10").as_millisecond());
        world.mailboxes = world.mailboxes.clone().in_ledger("shards", &[name], "00:20");
    };
    type Change<'a> = &'a dyn Fn(&mut World);
    let planned = |world: &mut World| world.mailboxes = world.mailboxes.clone().planned(WINDOW, "04:01");
    let table: [(&str, Change<'_>, &[&str]); 12] = [
        (
            "nothing",
            &|_| {},
            &["look 0000-0103", "look 0103-0106", "look 0106-0300"],
        ),
        (
            "one",
            &|world| world.have("shards", &[two]),
            &["look 0000-0103", "look 0106-0300"],
        ),
        (
            "looked at for another cutoff",
            &old,
            &["look 0000-0103", "look 0103-0106", "look 0106-0300"],
        ),
        (
            "another's",
            &|world| world.have("shards", &[other]),
            &["look 0105-0107", "look 0107-0300"],
        ),
        (
            "all, and no plan",
            &|world| world.have("shards", &RANGES),
            &["look 0106-0300"],
        ),
        ("a plan", &planned, &["sum 0000-0103", "sum 0103-0106", "sum 0106-0300"]),
        (
            "a plan of one pod, one sum",
            &|world| {
                planned(world);
                world.have("partials", &[three]);
            },
            &["sum 0000-0103", "sum 0103-0106"],
        ),
        (
            "all sums",
            &|world| {
                planned(world);
                world.have("partials", &RANGES);
            },
            &["all"],
        ),
        (
            "announced",
            &|world| {
                planned(world);
                world.mailboxes = world.mailboxes.clone().in_ledger("released", &[WINDOW], "04:02");
            },
            &["all"],
        ),
        (
            "small enough",
            &|world| world.processor.spec.workers.sum_batches_per_pod = 9,
            &["all"],
        ),
        (
            "other sizes",
            &|world| world.processor.spec.workers.sum_batches_per_pod = 5,
            &["look 0000-0104", "look 0104-0300"],
        ),
        (
            "sums, and a size that was raised",
            &|world| {
                planned(world);
                world.have("partials", &[one]);
                world.processor.spec.workers.sum_batches_per_pod = 8;
            },
            &["sum 0103-0300"],
        ),
    ];
    for (name, change, expected) in table {
        let (mut world, _) = large();
        world.step("01:30");
        change(&mut world);
        assert_eq!(world.would_start("04:02"), expected, "{name}");
    }
}

#[test]
fn small_windows_go_beside_a_large_one_and_neither_waits_for_ever() {
    let (mut world, _) = large();
    let small = [batch("puppies-seen", "01/00", 1)];
    world.mailboxes = world
        .mailboxes
        .clone()
        .ingested(&small, "01:10")
        .delivered(&small, "01:20");
    world.step("01:30");
    let decision = world.step("04:00");
    assert_eq!(parts(&decision).len(), 3, "the large one is first by its name");
    world.jobs = vec![started(&decision.jobs[0], &world.processor, "04:00").running()];
    world.processor.spec.workers.max_pods = 10;
    let decision = world.step("04:01");
    assert_eq!(parts(&decision), ["all"]);
    assert_eq!(items(&decision)[0][0].aggregation, "puppies-seen");
}

#[test]
fn indexes_that_fail_together_are_one_failure_and_are_tried_in_halves() {
    let (mut world, _) = large();
    world.step("01:30");
    let failed = |world: &mut World, now: &str| {
        let job = world.start(now);
        let failed = serde_json::json!({
            "failed": 12, "active": 0, "failedIndexes": "0-1", "completedIndexes": "2", "startTime": "2026-11-20T04:00:00Z",
            "conditions": [{"type": "Failed", "status": "True", "reason": "FailedIndexes", "message": "Job has failed indexes"}],
        });
        job.status(failed)
    };
    let job = failed(&mut world, "04:00").part_report(WINDOW, 2, WindowOutcome::Part);
    world.have("shards", &RANGES[2..]);
    world.jobs = vec![job];
    assert_eq!(
        world.would_start("04:01"),
        [
            "look 0000-0101",
            "look 0101-0102",
            "look 0102-0103",
            "look 0103-0104",
            "look 0104-0105",
            "look 0105-0106"
        ]
    );
    world.jobs.clear();
    for now in ["04:02", "04:03"] {
        world.jobs = vec![failed(&mut world, now)];
    }
    assert!(world.step("04:04").jobs.is_empty());
    assert_eq!(world.says().0, "CrashesWorker");
    world.objects[0].metadata.annotations = Some([(RETRY_ANNOTATION.to_owned(), "1".to_owned())].into());
    assert_eq!(world.would_start("04:05"), ["look 0000-0103", "look 0103-0106"]);
}

#[test]
fn a_phase_that_succeeds_clears_what_failed_before() {
    let (mut world, _) = large();
    world.step("01:30");
    for now in ["04:00", "04:01"] {
        world.jobs = vec![world.start(now).crashed()];
    }
    let job = world.start("04:02");
    let completions = job.job.spec.as_ref().unwrap().completions.unwrap();
    let job = (0..completions).fold(job.complete(), |job, index| {
        job.part_report(WINDOW, u32::try_from(index).unwrap(), WindowOutcome::Part)
    });
    world.jobs = vec![job];
    world.mailboxes = world.mailboxes.clone().planned(WINDOW, "04:03");
    assert_eq!(
        world.would_start("04:04"),
        ["sum 0000-0103", "sum 0103-0106", "sum 0106-0300"]
    );
    world.jobs = vec![world.start("04:05").crashed()];
    assert_ne!(
        world.would_start("04:06"),
        [""; 0],
        "one failure of this phase, not three"
    );
}

#[test]
fn what_a_part_reports_is_the_windows() {
    let report = |outcome| {
        let (mut world, _) = large();
        world.step("01:30");
        let job = world.start("04:00").complete();
        let job = job
            .part_report(WINDOW, 0, WindowOutcome::Part)
            .part_report(WINDOW, 1, outcome)
            .part_report(WINDOW, 2, WindowOutcome::Part);
        world.jobs = vec![job];
        world.have("shards", &[RANGES[0], RANGES[2]]);
        let next = world.would_start("04:01");
        (world, next)
    };
    let (mut world, next) = report(WindowOutcome::Blocked);
    assert_eq!((world.says().0, next.len()), ("Blocked", 0));
    assert_eq!(
        world.would_start("04:11"),
        ["look 0103-0106"],
        "the rest, ten minutes later"
    );
    let (world, next) = report(WindowOutcome::NoMembers);
    assert_eq!((world.says(), next.len()), (("Deferred", "06:50", 1), 0));
    let (_, next) = report(WindowOutcome::PartFailed);
    assert_eq!(next, ["all"], "one pod says for good what a part can't");
}

#[test]
fn parts_of_a_window_that_is_nobodys_are_passed_over_and_strange_names_counted() {
    let (mut world, _) = large();
    let range = RANGES[0];
    world.mailboxes = world
        .mailboxes
        .clone()
        .in_ledger(
            "partials",
            &[format!("kittens-seen/202611180000-202611180300/{range}")],
            "01:00",
        )
        .in_ledger(
            "shards",
            &[format!("{WINDOW}/{range}"), format!("{WINDOW}/x/{range}")],
            "01:00",
        )
        .in_ledger("partials", &[WINDOW.to_owned()], "01:00");
    let inventory = world.mailboxes.inventory(&schedule(&world.processor), at("01:30"));
    assert_eq!((inventory.windows.len(), inventory.unknown_names), (1, 3));
    world.step("01:30");
    assert_eq!(world.would_start("04:00").len(), 3);
}
