//! Workers that can't start: the cause is named within a minute, and healed when mended.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::conditions::{WORKERS_READY, reasons};
use prio_operator_tests::flow::Expected;
use prio_operator_tests::images::Images;
use prio_operator_tests::party::Party;
use serde_json::json;

use crate::scenario::{MINUTE, Scenario, run, wait_condition, wait_delivered_by};

/// Mended causes are tried again within one to two minutes.
const HEALED: Duration = Duration::from_secs(240);

/// One party with three batches, a cause that isn't mended yet, and what its condition must say.
async fn named(scenario: &Scenario, reason: &str, says: &str) -> Result<(Party, Expected)> {
    let party = scenario.pair.parties[0].clone();
    let window = scenario.write_three()?;
    let mut object = scenario.pair.processor_object(&party)?;
    object["spec"]["workers"]["startDeadlineSeconds"] = json!(30);
    scenario.pair.cluster.apply(&[object]).await?;
    let message = wait_condition(&party, WORKERS_READY, "False", reason, MINUTE).await?;
    ensure!(message.contains(says), "{reason} doesn't name {says}: {message}");
    Ok((party, window))
}

async fn healed(party: &Party, window: &Expected) -> Result<()> {
    wait_delivered_by(party, &window.truth, 3, HEALED).await?;
    wait_condition(party, WORKERS_READY, "True", "", MINUTE).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn an_image_that_cannot_be_pulled() {
    run("image", |mut scenario| async move {
        let good = scenario.images.clone();
        let mut bad: Images = good.clone();
        bad.facilitator.tag = "missing".into();
        scenario.images = bad;
        let party = scenario.pair.parties[0].clone();
        scenario.install_party(&party).await?;
        let (party, window) = named(&scenario, reasons::IMAGE_NOT_PULLED, "missing").await?;
        scenario.pair.install(&party, &good).await?;
        healed(&party, &window).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn a_quota_that_is_full() {
    run("quota", |scenario| async move {
        let party = scenario.pair.parties[0].clone();
        scenario.install_party(&party).await?;
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "full", "namespace": party.worker_namespace}, "spec": {"hard": {"pods": "0"}}});
        scenario.pair.cluster.apply(&[quota]).await?;
        let (party, window) = named(&scenario, reasons::QUOTA_EXCEEDED, "full").await?;
        let delete = [
            "delete",
            "resourcequota",
            "full",
            "--namespace",
            &party.worker_namespace,
        ];
        scenario.pair.cluster.kubectl(&delete).await?;
        healed(&party, &window).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn a_missing_secret() {
    run("secret", |scenario| async move {
        let party = scenario.pair.parties[0].clone();
        scenario.install_party(&party).await?;
        let secret = ["secret", "packet-decryption", "--namespace", &party.worker_namespace];
        let text = scenario
            .pair
            .cluster
            .kubectl(&[&["get", "--output=json"], &secret[..]].concat())
            .await?;
        let mut kept: serde_json::Value = serde_json::from_str(&text)?;
        let metadata = json!({"name": "packet-decryption", "namespace": party.worker_namespace});
        *kept.get_mut("metadata").context("a Secret without metadata")? = metadata;
        scenario
            .pair
            .cluster
            .kubectl(&[&["delete"], &secret[..]].concat())
            .await?;
        let (party, window) = named(&scenario, reasons::MOUNT_MISSING, "packet-decryption").await?;
        scenario.pair.cluster.apply(&[kept]).await?;
        healed(&party, &window).await
    })
    .await;
}
