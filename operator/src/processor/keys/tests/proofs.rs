//! What probes are made, and what follows from what they found.

use super::*;

/// The packets' second version, by what is known of it.
fn second(loaded: bool, state: VersionState) -> Vec<VersionHere> {
    let mut rings = in_use();
    rings
        .get_mut("packets")
        .unwrap()
        .versions
        .insert(0, version("packets", 2, state));
    resolved(&rings, &[known("packets", 2, state, loaded)], &[]).versions
}

/// `workers`: why pods don't start, if they don't.
fn asked_while(
    workers: Option<&str>,
    versions: &[VersionHere],
    jobs: &[JobView],
    memory: &ProbeMemory,
    now: Timestamp,
) -> Probes {
    let input = ProbeInput {
        versions,
        jobs,
        suspended: false,
        start_deadline: SignedDuration::from_mins(10),
        timing: &Timing::default(),
        refused: &[],
        workers,
        memory,
    };
    probes(&input, now)
}

fn ask(versions: &[VersionHere], jobs: &[JobView], memory: &ProbeMemory, now: Timestamp) -> Probes {
    asked_while(None, versions, jobs, memory, now)
}

/// The probes that were to start, over with what they found.
fn found(probes: &Probes, created: &str) -> Vec<JobView> {
    let processor = processor();
    let over = |planned| {
        let mut view = started(planned, &processor, created).complete();
        let Some(WorkList::KeyProbe { signing, packets, .. }) = &view.work else {
            panic!("no probe");
        };
        let keys = signing.iter().chain(packets).map(|key| key.id.clone()).collect();
        view.reports = vec![Report {
            revision: 1,
            work: view.name().to_owned(),
            index: 0,
            pod_uid: "p".into(),
            batches: vec![],
            windows: vec![],
            keys,
        }];
        view
    };
    probes.start.iter().map(over).collect()
}

fn name() -> KeyName {
    (PacketEncryption, "packets-key-2".to_owned())
}

#[test]
fn a_version_is_loaded_when_probes_of_both_stages_found_this_very_key() {
    let versions = second(false, Written);
    let mut memory = ProbeMemory::default();
    let begun = ask(&versions, &[], &memory, at("02:00"));
    assert_eq!((begun.start.len(), begun.loaded.len()), (2, 0));
    assert_eq!(begun.trouble.as_ref().unwrap().reason, reasons::PROBING);
    let jobs = found(&begun, "2026-11-20T02:00:00Z");
    memory.note(&jobs[..1]);
    let half = ask(&versions, &jobs[..1], &memory, at("02:01"));
    assert_eq!((half.start.len(), half.loaded.len()), (1, 0));
    assert!(memory.proven().is_empty());
    memory.note(&jobs);
    let whole = ask(&versions, &jobs, &memory, at("02:01"));
    assert_eq!((whole.start.len(), whole.loaded.clone()), (0, vec![name()]));
    assert!(memory.proven().contains(&name()));
    // Another key under the same id, or of the same id for another purpose.
    let mut others = versions.clone();
    others.iter_mut().find(|one| one.name() == name()).unwrap().public_key = Some("another".into());
    let other = ask(&others, &jobs, &memory, at("02:01"));
    assert!(other.loaded.is_empty() && other.start.len() == 2);
    assert!(!memory.proven().contains(&(BatchSigning, "packets-key-2".to_owned())));
}

#[test]
fn a_proof_grows_old_before_the_key_is_used_and_is_made_anew() {
    let versions = second(true, Loaded);
    // An operator that was started anew knows of no proof.
    let mut memory = ProbeMemory::default();
    let again = ask(&versions, &[], &memory, at("02:00"));
    assert_eq!(
        (again.start.len(), again.trouble.clone()),
        (2, None),
        "nothing is wrong meanwhile"
    );
    memory.note(&found(&again, "2026-11-20T02:00:00Z"));
    assert!(ask(&versions, &[], &memory, at("07:59")).start.is_empty());
    assert_eq!(ask(&versions, &[], &memory, at("08:00")).start.len(), 2);
    // One that is in use is asked for by all work.
    let used = second(true, InUse);
    assert!(ask(&used, &[], &ProbeMemory::default(), at("02:00")).start.is_empty());
}

#[test]
fn a_key_that_is_named_as_missing_counts_as_lost_until_probes_find_it_again() {
    let versions = second(true, Loaded);
    let mut memory = ProbeMemory::default();
    let first = ask(&versions, &[], &memory, at("02:00"));
    let old = found(&first, "2026-11-20T02:00:00Z");
    memory.note(&old);
    let said = "intake: Pod a-0: MountVolume.SetUp failed: secret \"packets.2\" not found";
    let other = "intake: Pod a-0: MountVolume.SetUp failed: secret \"packets.1\" not found";
    for (said, lost) in [(None, vec![]), (Some(other), vec![]), (Some(said), vec![name()])] {
        let asked = asked_while(said, &versions, &old, &memory, at("02:10"));
        assert_eq!(asked.lost, lost, "{said:?}");
    }
    let lost = asked_while(Some(said), &versions, &old, &memory, at("02:10"));
    memory = lost.memory;
    // What was found before doesn't count any more, whoever reads it again.
    memory.note(&old);
    assert!(!memory.proven().contains(&name()));
    let unproven = second(false, Loaded);
    let again = ask(&unproven, &old, &memory, at("02:11"));
    assert_eq!((again.start.len(), again.loaded.len()), (2, 0));
    let new = found(&again, "2026-11-20T02:11:00Z");
    memory.note(&new);
    let proven = ask(&unproven, &new, &memory, at("02:12"));
    assert_eq!(proven.loaded, [name()]);
}

#[test]
fn a_probe_that_fails_is_told_and_tried_later_and_takes_back_what_it_names() {
    let versions = second(true, Published);
    let first = ask(&versions, &[], &ProbeMemory::default(), at("02:00"));
    let processor = processor();
    let refused = |said: &str| {
        let view = started(&first.start[0], &processor, "2026-11-20T02:00:00Z").failed("PodFailurePolicy", "78");
        let pod = json!({
            "status": {"phase": "Failed", "containerStatuses": [{"name": "w", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 78, "message": said}}}]},
        });
        JobView {
            pods: vec![serde_json::from_value(pod).unwrap()],
            ..view
        }
    };
    for (said, lost) in [
        ("no mounted Secret holds the packet key \"packets-key-2\"", vec![name()]),
        ("no mounted Secret holds the packet key \"packets-key-1\"", vec![]),
    ] {
        let jobs = [refused(said)];
        let failed = ask(&versions, &jobs, &first.memory, at("02:01"));
        assert_eq!(failed.lost, lost, "{said}");
        let trouble = failed.trouble.clone().unwrap();
        assert!(
            trouble.reason == reasons::PROBE_FAILED && trouble.message.contains(said),
            "{trouble:?}"
        );
        assert!(failed.start.is_empty(), "later");
    }
}

#[test]
fn a_job_that_began_without_a_key_keeps_it_from_being_loaded() {
    let versions = second(false, Written);
    let mut memory = ProbeMemory::default();
    let begun = ask(&versions, &[], &memory, at("02:00"));
    let mut jobs = found(&begun, "2026-11-20T02:00:00Z");
    memory.note(&jobs);
    let work = crate::workload::PlannedJob {
        work: crate::workload::Work::Intake(vec![vec![]]),
        parallelism: 1,
        attempt: 0,
        canary: false,
    };
    jobs.push(started(&work, &processor(), "2026-11-20T01:00:00Z"));
    let waits = ask(&versions, &jobs, &memory, at("02:01"));
    assert!(waits.loaded.is_empty());
    assert!(waits.trouble.unwrap().message.contains("began without packets-key-2"));
}

#[test]
fn stages_are_asked_one_by_one() {
    let versions = second(false, Written);
    let begun = ask(&versions, &[], &ProbeMemory::default(), at("02:00"));
    let processor = processor();
    let views: Vec<JobView> = begun
        .start
        .iter()
        .map(|one| started(one, &processor, "2026-11-20T02:00:00Z"))
        .collect();
    let stages: BTreeSet<Stage> = views.iter().filter_map(JobView::probed_stage).collect();
    assert_eq!(stages.len(), 2);
    let meanwhile = ask(&versions, &views, &begun.memory, at("02:01"));
    assert!(meanwhile.start.is_empty(), "one of each at a time");
}
