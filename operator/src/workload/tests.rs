#![allow(clippy::unwrap_used)]

mod recovery;

use crds::conditions::reasons;
use facilitator_core::formats::work::{AggregateItem, IntakeItem};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::fixtures::*;
use super::*;

fn intake() -> PlannedJob {
    let item = |n| IntakeItem {
        aggregation: "kittens-seen".to_owned(),
        time: "2026/11/20/01/00".to_owned(),
        uuid: uuid::Uuid::from_u128(n),
        take_anyway: n == 3,
    };
    PlannedJob {
        work: Work::Intake(vec![vec![item(1), item(2)], vec![item(3)]]),
        parallelism: 2,
        attempt: 0,
        canary: false,
    }
}

fn aggregate() -> PlannedJob {
    let item = AggregateItem {
        aggregation: "kittens-seen".to_owned(),
        start: "202611200000".to_owned(),
        end: "202611200300".to_owned(),
        cutoffs: vec![at("03:50").as_millisecond()],
        part: None,
        approval: None,
    };
    PlannedJob {
        work: Work::Aggregate(vec![vec![item]]),
        parallelism: 1,
        attempt: 2,
        canary: true,
    }
}

/// What reaches the API server, whole. `GOLDEN=write cargo test -p operator` writes the files anew.
#[test]
fn jobs_are_as_the_golden_files_have_them() {
    let processor = processor();
    for (name, planned) in [("intake", intake()), ("aggregate", aggregate())] {
        let (config_map, job) = build(&planned, &context(&processor));
        let mut created = job.clone();
        created.metadata.uid = Some("9f0c8f2e-1c7b-4c0c-8d4e-2b8b1f1c0a11".to_owned());
        let objects = json!([owned_by(config_map, &created), job]);
        let text = serde_json::to_string_pretty(&objects).unwrap() + "\n";
        let path = format!("{}/tests/golden/job-{name}.json", env!("CARGO_MANIFEST_DIR"));
        if std::env::var("GOLDEN").is_ok() {
            std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{path}");
    }
}

#[test]
fn the_name_says_which_work_and_which_try_and_leaves_room_for_an_index() {
    let mut processor = processor();
    let name = |planned: &PlannedJob, context: &WorkerContext<'_>| build(planned, context).1.metadata.name.unwrap();
    let base = name(&intake(), &context(&processor));
    assert_eq!(base, name(&intake(), &context(&processor)));
    let other = WorkerContext {
        processor_uid: "another",
        ..context(&processor)
    };
    let mut chunked = intake();
    if let Work::Intake(chunks) = &mut chunked.work {
        let all = chunks.concat();
        *chunks = vec![all];
    }
    for changed in [
        name(&PlannedJob { attempt: 1, ..intake() }, &context(&processor)),
        name(
            &PlannedJob {
                canary: true,
                ..intake()
            },
            &context(&processor),
        ),
        name(&chunked, &context(&processor)),
        name(&intake(), &other),
    ] {
        assert_ne!(changed, base);
    }
    processor.metadata.generation = Some(4);
    assert_ne!(name(&intake(), &context(&processor)), base);
    let long = "a-very-long-name-of-forty-characters-abc";
    let named = name(
        &aggregate(),
        &WorkerContext {
            processor_name: long,
            ..context(&processor)
        },
    );
    assert!(named.len() + "-1999".len() <= 63, "{named}");
}

fn judge<'a>(jobs: &'a [JobView], memory: &'a HealthMemory, timing: &'a Timing) -> HealthInput<'a> {
    let start_deadline = SignedDuration::from_secs(300);
    HealthInput {
        jobs,
        generation: 3,
        image: IMAGE,
        start_deadline,
        timing,
        refused: &[],
        memory,
    }
}

fn is_well(health: &WorkersHealth) -> bool {
    health.condition.status != Some(false) && health.intake == Allowance::Free && health.aggregate == Allowance::Free
}

#[test]
fn the_cause_is_named_as_soon_as_kubernetes_names_it() {
    let new = || started(&intake(), &processor(), "02:00");
    let name = new().name().to_owned();
    let waiting = |reason: &str, message: &str| {
        new().pod(
            "Pending",
            json!({"waiting": {"reason": reason, "message": message}}),
            "02:00",
        )
    };
    let image = "failed to pull and unpack image \"registry.example/facilitator:0.1.0\": not found";
    let table = [
        (reasons::IMAGE_NOT_PULLED, waiting("ErrImagePull", image), "not found"),
        (reasons::IMAGE_NOT_PULLED, waiting("ImagePullBackOff", "Back-off pulling image"), "Back-off"),
        (reasons::IMAGE_NOT_PULLED, waiting("InvalidImageName", "couldn't parse image name"), "couldn't parse"),
        (reasons::MOUNT_MISSING, waiting("CreateContainerConfigError", "secret \"packet-new\" not found"), "packet-new"),
        (reasons::NOT_STARTED, waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), "runAsNonRoot"),
        (
            reasons::MOUNT_MISSING,
            new().creating().event(Some(0), "FailedMount", "MountVolume.SetUp failed for volume \"batch-signing\" : secret \"batch-signing\" not found"),
            "secret \"batch-signing\" not found",
        ),
        (
            reasons::UNSCHEDULABLE,
            new().unscheduled("0/1 nodes are available: 1 Insufficient memory. preemption: not eligible"),
            "Insufficient memory",
        ),
        (
            reasons::MOUNT_MISSING,
            new().unscheduled("0/1 nodes are available: persistentvolumeclaim \"ledger\" not found. not found"),
            "ledger",
        ),
        (
            reasons::QUOTA_EXCEEDED,
            new().event(None, "FailedCreate", "Error creating: pods \"pha-intake-1-0-abcde\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=2, limited: pods=2"),
            "exceeded quota: pods",
        ),
        (
            reasons::SERVICE_ACCOUNT_MISSING,
            new().event(None, "FailedCreate", "Error creating: pods \"pha-intake-1-0-\" is forbidden: error looking up service account pha-workers/intake: serviceaccount \"intake\" not found"),
            "serviceaccount \"intake\" not found",
        ),
        (
            reasons::ADMISSION_REFUSED,
            new().event(None, "FailedCreate", "Error creating: pods \"pha-intake-1-0-abcde\" is forbidden: violates PodSecurity \"restricted:latest\": seccompProfile"),
            "violates PodSecurity",
        ),
    ];
    let (memory, timing) = (HealthMemory::default(), Timing::default());
    for (reason, view, said) in table {
        let jobs = [view];
        let health = health(&judge(&jobs, &memory, &timing), at("2026-11-20T02:00:02Z"));
        assert_eq!(
            (health.condition.status, health.condition.reason),
            (Some(false), reason),
            "{said}"
        );
        assert!(health.condition.message.contains(said), "{}", health.condition.message);
        assert_eq!(
            (health.remove.as_slice(), health.intake),
            (&[][..], Allowance::Wait),
            "{said}: it may still start"
        );
        assert_eq!(health.aggregate, Allowance::Free, "the other stage's workers start");
        let later = super::health(&judge(&jobs, &health.memory, &timing), at("2026-11-20T02:05:00Z"));
        assert_eq!(
            later.remove,
            std::slice::from_ref(&name),
            "{said}: removed at the deadline"
        );
    }
}

#[test]
fn nothing_is_wrong_while_a_pod_is_made_or_runs_or_one_of_several_waits() {
    let new = || started(&intake(), &processor(), "02:00");
    let backoff = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}});
    let about_work = format!(
        "MountVolume.SetUp failed for volume \"work\" : configmap \"{}\" not found",
        new().name()
    );
    let lag = "MountVolume.SetUp failed for volume \"work\" : failed to sync configmap cache: timed out waiting for the condition";
    let quota = "Error creating: pods \"x\" is forbidden: exceeded quota: pods";
    let views = [
        new(),
        new().creating(),
        new().creating().event(Some(0), "FailedMount", &about_work),
        new().creating().event(Some(0), "FailedMount", lag),
        new().running(),
        new().running().pod("Pending", backoff, "02:00"),
        new().running().event(None, "FailedCreate", quota),
        new().complete(),
    ];
    let (memory, timing) = (HealthMemory::default(), Timing::default());
    for view in views {
        let jobs = [view];
        assert!(
            health(&judge(&jobs, &memory, &timing), at("2026-11-20T02:00:09Z"))
                .condition
                .status
                != Some(false),
            "{:?}",
            jobs[0].pods
        );
    }
    let jobs = [new().running()];
    assert!(
        is_well(&health(&judge(&jobs, &memory, &timing), at("09:00"))),
        "a long run is none of ours"
    );
}

#[test]
fn a_job_without_a_cause_is_removed_at_the_deadline_and_one_without_its_work_list_soon() {
    let (memory, timing) = (HealthMemory::default(), Timing::default());
    let jobs = [started(&intake(), &processor(), "02:00").creating()];
    let health = super::health(&judge(&jobs, &memory, &timing), at("02:05"));
    assert_eq!(
        (health.condition.reason, health.remove.len()),
        (reasons::NOT_STARTED, 1)
    );
    let jobs = [JobView {
        work: None,
        ..jobs[0].clone()
    }];
    assert!(
        super::health(&judge(&jobs, &memory, &timing), at("2026-11-20T02:00:30Z"))
            .remove
            .is_empty()
    );
    let health = super::health(&judge(&jobs, &memory, &timing), at("02:01"));
    assert_eq!(
        (health.condition.reason, health.remove.len()),
        (reasons::MOUNT_MISSING, 1)
    );
}

/// Steps through time with one memory.
struct Clock {
    memory: HealthMemory,
    generation: i64,
}

impl Clock {
    fn new(memory: HealthMemory) -> Self {
        Self { memory, generation: 3 }
    }

    fn step(&mut self, jobs: &[JobView], now: Timestamp) -> WorkersHealth {
        let timing = Timing::default();
        let input = HealthInput {
            generation: self.generation,
            ..judge(jobs, &self.memory, &timing)
        };
        let health = health(&input, now);
        self.memory = health.memory.clone();
        health
    }
}

fn stuck(created: &str) -> JobView {
    let state = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
    started(&intake(), &processor(), created).pod("Pending", state, created)
}

#[test]
fn a_canary_is_tried_after_one_two_four_up_to_fifteen_minutes_until_one_starts() {
    let mut clock = Clock::new(HealthMemory::default());
    let mut now = at("02:00");
    for wait in [1, 2, 4, 8, 15, 15] {
        let job = stuck(&now.to_string());
        assert!(clock.step(std::slice::from_ref(&job), now).remove.is_empty());
        now += minutes(5);
        let health = clock.step(std::slice::from_ref(&job), now);
        assert_eq!((health.remove.len(), health.intake), (1, Allowance::Wait));
        assert_eq!(
            clock
                .step(&[], now + minutes(wait) - SignedDuration::from_secs(1))
                .intake,
            Allowance::Wait
        );
        now += minutes(wait);
        let health = clock.step(&[], now);
        assert_eq!(
            (health.intake, health.condition.reason),
            (Allowance::Canary, reasons::IMAGE_NOT_PULLED)
        );
    }
    let canary = started(&intake(), &processor(), &now.to_string()).running();
    assert!(is_well(&clock.step(&[canary], now + minutes(1))));
    assert!(is_well(&clock.step(&[], now + minutes(9))));
}

#[test]
fn a_job_that_starts_late_heals_at_once() {
    let mut clock = Clock::new(HealthMemory::default());
    assert_eq!(clock.step(&[stuck("02:00")], at("02:01")).condition.status, Some(false));
    assert!(is_well(
        &clock.step(&[started(&intake(), &processor(), "02:00").running()], at("02:02"))
    ));
}

#[test]
fn a_changed_spec_is_tried_at_once() {
    let mut clock = Clock::new(HealthMemory::default());
    clock.step(&[stuck("02:00")], at("02:01"));
    clock.generation = 4;
    let health = clock.step(&[stuck("02:00")], at("2026-11-20T02:01:02Z"));
    assert_eq!(
        (health.remove.len(), health.condition.status),
        (1, Some(false)),
        "what hangs was made for the old spec"
    );
    assert_eq!(clock.step(&[], at("2026-11-20T02:01:04Z")).intake, Allowance::Canary);
}

#[test]
fn another_image_replaces_what_hangs_at_once() {
    let (memory, timing) = (HealthMemory::default(), Timing::default());
    let jobs = [stuck("02:00"), started(&aggregate(), &processor(), "02:00").running()];
    let input = HealthInput {
        image: "registry.example/facilitator:0.1.1",
        ..judge(&jobs, &memory, &timing)
    };
    assert_eq!(
        health(&input, at("02:01")).remove,
        [jobs[0].name()],
        "what runs, runs on"
    );
}

#[test]
fn a_refused_configuration_is_told_in_the_workers_words_and_healed_by_a_job_that_gets_further() {
    let mut clock = Clock::new(HealthMemory::default());
    let refused = started(&intake(), &processor(), "02:00").refused("the signing key is no P-256 key");
    let health = clock.step(std::slice::from_ref(&refused), at("02:01"));
    assert_eq!(health.condition.reason, reasons::CONFIGURATION_REFUSED);
    assert!(health.condition.message.contains("the signing key is no P-256 key"));
    assert_eq!((health.remove.len(), health.intake), (0, Allowance::Wait));
    assert_eq!(
        clock.step(std::slice::from_ref(&refused), at("02:02")).intake,
        Allowance::Canary,
        "counted once"
    );
    let canary = started(&aggregate(), &processor(), "02:02");
    assert_eq!(canary.stage().map(label), Some("aggregate"));
    let canary = started(
        &PlannedJob {
            canary: true,
            ..intake()
        },
        &processor(),
        "02:02",
    );
    let health = clock.step(&[refused.clone(), canary.clone().running()], at("02:03"));
    assert_eq!(
        (health.condition.status, health.intake),
        (Some(false), Allowance::Wait),
        "to run is not enough"
    );
    assert!(is_well(
        &clock.step(&[refused.clone(), canary.clone().complete()], at("02:04"))
    ));
    assert!(
        is_well(&clock.step(&[refused, canary.complete()], at("02:05"))),
        "what is older than a good Job is history"
    );
}

#[test]
fn a_refused_creation_is_told_too() {
    let (memory, timing) = (HealthMemory::default(), Timing::default());
    let policy = "jobs.batch \"pha-intake-1\" is forbidden: ValidatingAdmissionPolicy 'prio-operator-workloads' denied request: image";
    let refused = [(Stage::Intake, policy.to_owned())];
    let health = health(
        &HealthInput {
            refused: &refused,
            ..judge(&[], &memory, &timing)
        },
        at("02:00"),
    );
    assert_eq!(
        (health.condition.reason, health.intake),
        (reasons::ADMISSION_REFUSED, Allowance::Wait)
    );
    assert_eq!(health.aggregate, Allowance::Free);
}

#[test]
fn the_operators_own_missing_right_is_not_called_a_policy() {
    let said = "jobs.batch is forbidden: User \"system:serviceaccount:prio:op\" cannot create resource \"jobs\" in API group \"batch\"";
    assert_eq!(cause_of_refusal(said).reason, reasons::RIGHTS_MISSING);
}
