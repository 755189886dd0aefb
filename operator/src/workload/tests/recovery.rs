//! Restarts of the operator, and Jobs that stall midway.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::*;

fn condition(health: &WorkersHealth, since: &str) -> Condition {
    let status = match health.condition.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    Condition {
        type_: "WorkersReady".to_owned(),
        status: status.to_owned(),
        reason: health.condition.reason.to_owned(),
        message: health.condition.message.clone(),
        observed_generation: Some(3),
        last_transition_time: Time(at(since)),
    }
}

#[test]
fn a_restart_does_not_forget_why_workers_do_not_start() {
    let new = Clock::new(HealthMemory::default()).step(&[], at("01:00"));
    assert_eq!(
        (new.condition.status, new.condition.reason, new.intake),
        (None, reasons::PENDING, Allowance::Free)
    );

    let mut clock = Clock::new(HealthMemory::default());
    let bad = clock.step(&[stuck("02:00")], at("02:06"));
    let mut after = Clock::new(HealthMemory::recall(Some(&condition(&bad, "02:00"))));
    let recalled = after.step(&[], at("02:07"));
    assert_eq!(recalled.condition, bad.condition);
    assert_eq!(
        (recalled.intake, recalled.aggregate),
        (Allowance::Canary, Allowance::Free)
    );
    let good = after.step(&[started(&intake(), &processor(), "02:07").running()], at("02:08"));
    assert_eq!((good.condition.status, good.intake), (Some(true), Allowance::Free));

    let mut after = Clock::new(HealthMemory::recall(Some(&condition(&good, "02:08"))));
    assert_eq!(
        after.step(&[], at("02:09")).condition.status,
        Some(true),
        "a worker ran, and nothing is known to be wrong"
    );
}

/// The first pod is done, and the next ones are refused.
fn stalled(refused: &str) -> JobView {
    let state = json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": at("02:10").to_string()}});
    let quota = "Error creating: pods \"x\" is forbidden: exceeded quota: pods";
    let mut view = started(&intake(), &processor(), "02:00")
        .status(json!({"succeeded": 1, "active": 0, "completedIndexes": "0"}))
        .pod("Succeeded", state, "02:00")
        .event(None, "FailedCreate", quota);
    view.events[0].first_timestamp = Some(Time(at(refused)));
    view.events[0].last_timestamp = Some(Time(at(refused)));
    view
}

#[test]
fn a_job_that_stalls_midway_is_told_and_removed_like_one_that_never_starts() {
    let mut clock = Clock::new(HealthMemory::default());
    let before = clock.step(&[stalled("02:05")], at("02:11"));
    assert_eq!(
        before.condition.status,
        Some(true),
        "a pod ran since: the refusal is history"
    );
    let jobs = [stalled("02:12")];
    let told = clock.step(&jobs, at("02:13"));
    assert_eq!((told.condition.reason, told.remove.len()), (reasons::QUOTA_EXCEEDED, 0));
    let late = clock.step(&jobs, at("02:17"));
    assert_eq!(
        (late.remove.as_slice(), late.intake),
        (&[jobs[0].name().to_owned()][..], Allowance::Wait)
    );
    assert_eq!(clock.step(&[], at("02:18")).intake, Allowance::Canary);
}
