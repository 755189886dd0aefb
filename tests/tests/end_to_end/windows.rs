//! Every window right; objects deleted and rebuilt; suspend.

use std::time::Duration;

use anyhow::{Result, ensure};
use crds::conditions::READY;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, ListParams};
use prio_operator_tests::flow::{self, Expected};
use prio_operator_tests::objects::{added, changed, snapshot};
use prio_operator_tests::wait::{Seen, holds, until};
use prio_operator_tests::{fixtures, leaks};
use serde_json::json;

use crate::scenario::{LIMIT, MINUTE, Scenario, run, wait_condition};

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn every_window_of_both_parties_is_right_and_no_secret_shows() {
    run("windows", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let mailboxes = [pair.mailbox(0, "ingestion"), pair.mailbox(1, "ingestion")];
        let placed = fixtures::place(
            &pair.cluster.repository,
            pair.settings.day()?,
            [&mailboxes[0], &mailboxes[1]],
        )?;
        let mut windows: Vec<Expected> = placed.into_iter().map(Expected::from).collect();
        windows.push(scenario.write_three()?);
        pair.apply_processors().await?;
        flow::wait_delivered(pair, &windows, LIMIT).await?;
        let truths: Vec<_> = windows.iter().map(|window| &window.truth).collect();
        flow::set_cutoffs(pair, &truths, 10).await?;
        flow::wait_summed(pair, &truths, LIMIT).await?;
        for truth in &truths {
            scenario.is_right(truth)?;
        }
        for party in &pair.parties {
            wait_condition(party, READY, "True", "", MINUTE).await?;
        }
        let report = leaks::search(&pair.cluster, &pair.keys.scalars()?).await?;
        ensure!(report.finds.is_empty(), "private keys show: {:?}", report.finds);
        ensure!(
            report.searched.get("pod logs").is_some_and(|bytes| *bytes > 0),
            "no pod logs were searched"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn batches_deleted_by_hand_change_no_sum() {
    run("batches", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let window = scenario.write_three()?;
        pair.apply_processors().await?;
        flow::wait_delivered(pair, std::slice::from_ref(&window), LIMIT).await?;
        let before = snapshot(&pair.folder)?;
        for party in &pair.parties {
            let namespace = ["--namespace", &party.worker_namespace];
            pair.cluster
                .kubectl(&[&["delete", "batches", "--all", "--wait=true"], &namespace[..]].concat())
                .await?;
        }
        for party in &pair.parties {
            until(
                &format!("{}: Batches are back as Validated", party.name),
                MINUTE,
                || async {
                    let batches = party.batches().await?;
                    let outcome =
                        |b: &crds::Batch| b.status.as_ref().and_then(|s| s.outcome.clone()).unwrap_or_default();
                    let validated = batches.iter().filter(|b| outcome(b) == "Validated").count();
                    Ok(if validated == 3 {
                        Seen::Done(())
                    } else {
                        Seen::NotYet(format!("{validated} of 3"))
                    })
                },
            )
            .await?;
        }
        let after = snapshot(&pair.folder)?;
        ensure!(
            before == after,
            "objects changed: {:?}, added: {:?}",
            changed(&before, &after),
            added(&before, &after)
        );
        scenario.sum(&window).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn everything_deleted_and_applied_again_sums_nothing_twice() {
    run("reapplied", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let window = scenario.write_three()?;
        pair.apply_processors().await?;
        scenario.sum(&window).await?;
        let before = snapshot(&pair.folder)?;
        delete_everything(&scenario).await?;

        scenario.install().await?;
        pair.apply_processors().await?;
        // The old window is back, from the ledger alone: no cutoff is set this time.
        flow::wait_summed(pair, &[&window.truth], LIMIT).await?;
        for party in &pair.parties {
            let windows = party.windows().await?;
            let status = flow::find(&windows, &window.truth).and_then(|w| w.status.clone());
            let clients = status.and_then(|status| status.clients);
            ensure!(
                clients == i64::try_from(window.truth.clients).ok(),
                "{}: {clients:?} clients",
                party.name
            );
            wait_condition(party, READY, "True", "", MINUTE).await?;
        }
        holds("nothing is written again", Duration::from_secs(10), || async {
            Ok(snapshot(&pair.folder)? == before)
        })
        .await?;
        scenario.is_right(&window.truth)
    })
    .await;
}

async fn delete_everything(scenario: &Scenario) -> Result<()> {
    let cluster = &scenario.pair.cluster;
    let namespaces = scenario.pair.namespaces();
    let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    cluster
        .kubectl(&[&["delete", "namespace", "--wait=true", "--timeout=120s"], &names[..]].concat())
        .await?;
    // The volumes are kept for claims that are gone.
    let volumes = cluster.kubectl(&["get", "persistentvolumes", "--output=name"]).await?;
    let ours: Vec<&str> = volumes
        .lines()
        .filter(|name| {
            names
                .iter()
                .any(|ns| name.starts_with(&format!("persistentvolume/{ns}-")))
        })
        .collect();
    cluster
        .kubectl(&[&["delete", "--wait=true"], &ours[..]].concat())
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn a_window_that_one_party_sums_in_parts_and_the_other_does_not_is_right() {
    run("parts", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let window = scenario.write_three()?;
        let [first, second] = &pair.parties;
        let mut object = pair.processor_object(first)?;
        object["spec"]["workers"]["sumBatchesPerPod"] = json!(1);
        pair.cluster.apply(&[object, pair.processor_object(second)?]).await?;
        scenario.sum(&window).await?;
        let of_each = [(0, 3), (1, 0)];
        let there = snapshot(&pair.folder)?;
        for (party, parts) in of_each {
            let ledger = pair.mailbox(party, "ledger");
            for folder in ["shards", "partials"] {
                let folder = ledger.join(folder);
                let count = there
                    .keys()
                    .filter(|path| pair.folder.join(path).starts_with(&folder))
                    .count();
                // Of shards so many for each cutoff: the window's own, long past, may have been tried before the agreed one.
                let whole = count == parts || (parts > 0 && folder.ends_with("shards") && count == 2 * parts);
                ensure!(whole, "{}: {count} objects, {parts} expected", folder.display());
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn suspend_starts_no_job_until_it_is_taken_back() {
    run("suspend", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let window = scenario.write_three()?;
        for party in &pair.parties {
            let mut object = pair.processor_object(party)?;
            object["spec"]["suspend"] = json!(true);
            pair.cluster.apply(&[object]).await?;
        }
        let first = &pair.parties[0];
        wait_condition(first, READY, "False", "Suspended", MINUTE).await?;
        let jobs: Api<Job> = Api::namespaced(pair.cluster.client.clone(), &first.worker_namespace);
        let works = ListParams::default().labels("prio-operator.io/stage in (intake,aggregate)");
        holds("no Job starts", Duration::from_secs(8), || async {
            Ok(jobs.list(&works).await?.items.is_empty())
        })
        .await?;
        for party in &pair.parties {
            party.patch(&json!({"spec": {"suspend": false}})).await?;
        }
        scenario.sum(&window).await
    })
    .await;
}
