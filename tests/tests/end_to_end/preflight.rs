//! Preflights on a real node: what each stage's own pods may and can, and what is broken is named within a minute.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use crds::conditions::PREFLIGHT;
use crds::names::PREFLIGHT_ANNOTATION;
use prio_operator_tests::party::Party;
use serde_json::json;

use crate::scenario::{MINUTE, run, wait_condition};

/// Asks for a preflight whose condition has this reason, and gives its message.
async fn asked(party: &Party, value: &str, status: &str, reason: &str) -> Result<String> {
    let ask = json!({"metadata": {"annotations": {PREFLIGHT_ANNOTATION: value}}});
    party.patch(&ask).await?;
    wait_condition(party, PREFLIGHT, "Unknown", "Running", MINUTE).await?;
    wait_condition(party, PREFLIGHT, status, reason, MINUTE).await
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn what_a_stage_may_not_do_is_named_before_it_is_tried() {
    run("preflight", |scenario| async move {
        let pair = &scenario.pair;
        let first = &pair.parties[0];
        scenario.install_party(first).await?;
        pair.cluster.apply(&[pair.processor_object(first)?]).await?;
        wait_condition(first, PREFLIGHT, "True", "Passed", Duration::from_secs(120)).await?;

        let portal = pair.mailbox(0, "portal");
        set_permissions(&portal, Permissions::from_mode(0o555))?;
        let message = asked(first, "portal", "False", "Failed").await?;
        ensure!(message.starts_with("Aggregate Write portal: "), "{message}");
        set_permissions(&portal, Permissions::from_mode(0o755))?;

        let ingestion = pair.mailbox(0, "ingestion");
        set_permissions(&ingestion, Permissions::from_mode(0o000))?;
        let message = asked(first, "ingestion", "False", "Failed").await?;
        ensure!(
            message.contains("ingestion") && message.contains("Permission denied"),
            "{message}"
        );
        set_permissions(&ingestion, Permissions::from_mode(0o755))?;

        asked(first, "again", "True", "Passed").await?;
        Ok(())
    })
    .await;
}
