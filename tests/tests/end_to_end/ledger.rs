//! A ledger that is swapped for an empty one must not make the processor sum everything again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use crds::conditions::STALLED;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, ListParams};
use prio_operator_tests::samples::Damage;
use prio_operator_tests::wait::holds;
use prio_operator_tests::{flow, samples};

use crate::scenario::{LIMIT, MINUTE, run, wait_condition};

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn a_ledger_swapped_for_an_empty_one_stalls_the_processor() {
    run("ledger", |scenario| async move {
        let pair = &scenario.pair;
        let first = &pair.parties[0];
        scenario.install().await?;
        let window = scenario.write_three()?;
        pair.apply_processors().await?;
        flow::wait_delivered(pair, std::slice::from_ref(&window), LIMIT).await?;

        // The folder itself stays: pods hold it mounted.
        let ledger = pair.mailbox(0, "ledger");
        let aside = pair.folder.join("aside");
        std::fs::create_dir(&aside)?;
        move_content(&ledger, &aside)?;
        let message = wait_condition(first, STALLED, "True", "LedgerGone", MINUTE).await?;
        ensure!(
            message.contains("ledger"),
            "the message should say what to do: {message}"
        );

        // A second window's batch is not planned meanwhile.
        let jobs: Api<Job> = Api::namespaced(pair.cluster.client.clone(), &first.worker_namespace);
        let works = ListParams::default().labels("prio-operator.io/stage in (intake,aggregate)");
        let before = jobs.list(&works).await?.items.len();
        let other = samples::write_window(pair, &[scenario.sample(4, 0, Damage::None)?])?;
        holds(
            "no Job starts and the ledger stays empty",
            Duration::from_secs(8),
            || async {
                let now = jobs.list(&works).await?.items.len();
                Ok(now <= before && std::fs::read_dir(&ledger)?.next().is_none())
            },
        )
        .await?;

        move_content(&aside, &ledger)?;
        wait_condition(first, STALLED, "False", "", MINUTE).await?;
        flow::wait_delivered(pair, &[other], LIMIT).await?;
        scenario.sum(&window).await
    })
    .await;
}

fn move_content(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
