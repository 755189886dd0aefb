//! Pods that end at any moment, and pods that run twice; claims, which are compacted by the way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::conditions::AGGREGATED;
use crds::names::PROCESSOR_LABEL;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use prio_operator_tests::flow;
use prio_operator_tests::objects::{Snapshot, added, changed, snapshot};
use prio_operator_tests::output::say;
use prio_operator_tests::party::Party;
use prio_operator_tests::samples::{self, Damage};
use prio_operator_tests::wait::{Seen, until};
use serde_json::json;

use crate::scenario::{LIMIT, MINUTE, Scenario, run};

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn killed_operators_and_workers_leave_the_sums_right() {
    run("kills", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let mut batches = Vec::new();
        for hour in 0..3 {
            for minute in 0..6 {
                let mut sample = scenario.sample(hour, minute, Damage::None)?;
                (sample.bins, sample.packets) = (64, 30);
                batches.push(sample);
            }
        }
        let window = samples::write_window(pair, &batches)?;
        for party in &pair.parties {
            let mut object = pair.processor_object(party)?;
            object["spec"]["workers"]["batchesPerPod"] = json!(3);
            pair.cluster.apply(&[object]).await?;
        }
        let mut seen = Snapshot::new();
        // Intake: every worker pod that shows is ended, up to four a party; each operator once.
        for party in &pair.parties {
            kill_workers(&scenario, party, 4, &mut seen).await?;
            kill_operator(&scenario, party).await?;
        }
        flow::wait_delivered(pair, std::slice::from_ref(&window), LIMIT).await?;
        watch_rewrites(&scenario, &mut seen)?;
        flow::set_cutoffs(pair, &[&window.truth], 8).await?;
        // Aggregation: the same again.
        for party in &pair.parties {
            kill_operator(&scenario, party).await?;
            kill_workers(&scenario, party, 1, &mut seen).await?;
        }
        flow::wait_summed(pair, &[&window.truth], LIMIT).await?;
        watch_rewrites(&scenario, &mut seen)?;
        scenario.is_right(&window.truth).await
    })
    .await;
}

/// Ends worker pods that wait or run, until so many were ended or there is nothing more to do for them.
async fn kill_workers(scenario: &Scenario, party: &Party, count: usize, seen: &mut Snapshot) -> Result<()> {
    let mut killed: Vec<String> = Vec::new();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while killed.len() < count && std::time::Instant::now() < end {
        for pod in scenario
            .pair
            .cluster
            .pods(&party.worker_namespace, PROCESSOR_LABEL)
            .await?
        {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.clone())
                .unwrap_or_default();
            let name = pod.name_any();
            if killed.len() < count && !killed.contains(&name) && matches!(phase.as_str(), "Pending" | "Running") {
                scenario.pair.cluster.kill_pod(&party.worker_namespace, &name).await?;
                killed.push(name);
            }
        }
        watch_rewrites(scenario, seen)?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    say(format!("   {}: {} worker pods killed", party.name, killed.len()));
    Ok(())
}

pub async fn kill_operator(scenario: &Scenario, party: &Party) -> Result<()> {
    for pod in scenario.pair.cluster.pods(&party.operator_namespace, "").await? {
        scenario
            .pair
            .cluster
            .kill_pod(&party.operator_namespace, &pod.name_any())
            .await?;
        say(format!("   {} killed", pod.name_any()));
    }
    Ok(())
}

/// No object that was seen once may become another file.
fn watch_rewrites(scenario: &Scenario, seen: &mut Snapshot) -> Result<()> {
    let now = snapshot(&scenario.pair.folder)?;
    let rewritten = changed(seen, &now);
    ensure!(rewritten.is_empty(), "written twice: {rewritten:?}");
    *seen = now;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn a_jobs_pod_run_twice_changes_nothing() {
    run("twice", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let batches = (0..4)
            .map(|minute| scenario.sample(0, minute, Damage::None))
            .collect::<Result<Vec<_>>>()?;
        let window = samples::write_window(pair, &batches)?;
        for party in &pair.parties {
            let mut object = pair.processor_object(party)?;
            // Each batch has claims of its own: enough to compact.
            object["spec"]["workers"]["batchesPerPod"] = json!(1);
            pair.cluster.apply(&[object]).await?;
        }
        flow::wait_delivered(pair, std::slice::from_ref(&window), LIMIT).await?;
        run_again(&scenario, &pair.parties[0], "intake").await?;
        scenario.sum(&window).await?;
        for party in &pair.parties {
            wait_compacted(&scenario, party).await?;
        }
        run_again(&scenario, &pair.parties[1], "aggregate").await?;
        let windows = pair.parties[1].windows().await?;
        let again = flow::find(&windows, &window.truth).context("the window is gone")?;
        ensure!(
            flow::condition(flow::window_conditions(again), AGGREGATED).0 == "True",
            "no longer Aggregated"
        );
        scenario.is_right(&window.truth).await
    })
    .await;
}

/// Waits until a Job has compacted a party's claims. The cutoffs that were set are another spec, under which the operator
/// looks at claims at once.
async fn wait_compacted(scenario: &Scenario, party: &Party) -> Result<()> {
    let pair = &scenario.pair;
    let jobs: Api<Job> = Api::namespaced(pair.cluster.client.clone(), &party.worker_namespace);
    let intake = ListParams::default().labels("prio-operator.io/stage=intake");
    until(&format!("{}: claims are compacted", party.name), MINUTE, || async {
        let jobs = jobs.list(&intake).await?.items;
        let of_claims = jobs.iter().find(|job| job.name_any().contains("-claims-"));
        let succeeded = of_claims.map(|job| job.status.as_ref().and_then(|status| status.succeeded));
        Ok(match succeeded {
            Some(Some(1)) => Seen::Done(()),
            other => Seen::NotYet(format!("{} Jobs, of claims {other:?}", jobs.len())),
        })
    })
    .await?;
    let claims = pair.mailbox(party.index, "ledger").join("claims");
    let mut there = snapshot(&pair.folder)?;
    there.retain(|name, _| pair.folder.join(name).starts_with(&claims));
    let runs = there.keys().filter(|name| name.ends_with("-runs/000001")).count();
    ensure!((runs, there.len()) == (1, 5), "{}: {:?}", party.name, there.keys());
    Ok(())
}

/// Starts a copy of a finished worker pod, with the same index and mounts, and compares the mailboxes.
async fn run_again(scenario: &Scenario, party: &Party, stage: &str) -> Result<()> {
    let selector = format!("prio-operator.io/stage={stage}");
    let succeeded = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
    let original = until(
        &format!("{}: a finished pod of stage {stage}", party.name),
        MINUTE,
        || async {
            let pods = scenario.pair.cluster.pods(&party.worker_namespace, &selector).await?;
            let found = pods.into_iter().find(succeeded);
            Ok(found.map_or_else(|| Seen::NotYet("none yet".to_owned()), Seen::Done))
        },
    )
    .await?;
    let before = snapshot(&scenario.pair.folder)?;
    let mut copy = Pod::default();
    copy.metadata.name = Some(format!("again-{stage}"));
    copy.metadata.annotations = original.metadata.annotations.clone();
    // Without the Job's labels, or its controller would take the pod for its own.
    copy.metadata.labels = original.metadata.labels.clone().map(|mut labels| {
        labels.retain(|name, _| name.ends_with("job-completion-index"));
        labels
    });
    copy.spec = original.spec.clone().map(|mut spec| {
        spec.node_name = None;
        spec.hostname = None;
        spec
    });
    let api: Api<Pod> = Api::namespaced(scenario.pair.cluster.client.clone(), &party.worker_namespace);
    let name = api.create(&PostParams::default(), &copy).await?.name_any();
    until(
        &format!("the second run of {}", original.name_any()),
        Duration::from_secs(60),
        || async {
            let status = api.get(&name).await?.status.unwrap_or_default();
            let phase = status.phase.clone().unwrap_or_default();
            Ok(match phase.as_str() {
                "Succeeded" => Seen::Done(()),
                "Failed" => Seen::Never(format!("it failed: {:?}", status.container_statuses)),
                _ => Seen::NotYet(phase),
            })
        },
    )
    .await?;
    let after = snapshot(&scenario.pair.folder)?;
    ensure!(
        before == after,
        "changed: {:?}, added: {:?}",
        changed(&before, &after),
        added(&before, &after)
    );
    Ok(())
}
