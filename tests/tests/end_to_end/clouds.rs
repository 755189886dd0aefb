//! Mailboxes in two clouds: First's in S3, Second's in GCS, and each party's validations in the other's. A bucket that denies or
//! isn't there is named in a condition and an Event, and what doesn't need it goes on.

use anyhow::{Context, Result, ensure};
use crds::conditions::{MAILBOXES_LISTED, reasons};
use crds::processor::PreflightStage::Intake;
use prio_operator_tests::images;
use prio_operator_tests::party::Party;
use serde_json::{Value, json};

use crate::preflight;
use crate::scenario::{LIMIT, MINUTE, Scenario, run_in_clouds, wait_blocked, wait_condition, wait_delivered_by};

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn two_parties_in_two_clouds() {
    run_in_clouds("clouds", |scenario| async move {
        let pair = &scenario.pair;
        let stores = pair.stores.clone().context("a scenario in clouds has stores")?;
        let programs = images::import_stores(&pair.cluster).await?;
        stores.start(&pair.cluster, &programs).await?;
        scenario.install().await?;
        let window = scenario.write_three()?;
        stores.upload(pair, &scenario.images.facilitator).await?;

        // First hasn't let Second's workers in yet.
        let [first, second] = &pair.parties;
        let mut objects = [pair.processor_object(first)?, pair.processor_object(second)?];
        objects[1]["spec"]["mailboxes"]["outgoing"]["peer"]["credentials"] = json!({"anonymous": {}});
        pair.cluster.apply(&objects).await?;
        let message = wait_blocked(second, "AccessDenied", LIMIT).await?;
        let bucket = stores.url(1, "outgoing-peer");
        ensure!(message.contains(&bucket), "it doesn't name {bucket}: {message}");
        wait_delivered_by(first, &window.truth, 3, LIMIT).await?;
        // A preflight names that right alone: First's store isn't Second's ledger's, so no probe with content may go there. That
        // it may not be listed, either, is no fault.
        let faults = [(Intake, "Write", Some("peer"))];
        let says = "ask the peer to give the intake workers' identity the right to put objects";
        preflight::names(second, "the peer's grant", json!({}), &faults, says).await?;

        // An operator that may not list, and a bucket that isn't there.
        let ingestion = |change: Value| json!({"spec": {"mailboxes": {"ingestion": change}}});
        first
            .patch(&ingestion(
                json!({"operatorCredentials": {"secretRef": null, "anonymous": {}}}),
            ))
            .await?;
        named(&scenario, first, reasons::ACCESS_DENIED, &stores.url(0, "ingestion")).await?;
        first
            .patch(&ingestion(
                json!({"operatorCredentials": {"anonymous": null, "secretRef": {"name": "s3-list"}}}),
            ))
            .await?;
        wait_condition(first, MAILBOXES_LISTED, "True", "", MINUTE).await?;
        second.patch(&ingestion(json!({"url": "gs://nobody-has-it"}))).await?;
        named(&scenario, second, reasons::NO_SUCH_MAILBOX, "gs://nobody-has-it").await?;
        second
            .patch(&ingestion(json!({"url": stores.url(1, "ingestion")})))
            .await?;

        let known = json!({"anonymous": null, "secretRef": {"name": "s3"}});
        second
            .patch(&json!({"spec": {"mailboxes": {"outgoing": {"peer": {"credentials": known}}}}}))
            .await?;
        scenario.sum(&window).await
    })
    .await;
}

/// Waits until the listing's condition has that reason and names the mailbox, and an Event says so.
async fn named(scenario: &Scenario, party: &Party, reason: &str, url: &str) -> Result<()> {
    let message = wait_condition(party, MAILBOXES_LISTED, "False", reason, MINUTE).await?;
    ensure!(message.contains(url), "{reason} doesn't name {url}: {message}");
    scenario.event(party, &party.name, reason, url).await
}
