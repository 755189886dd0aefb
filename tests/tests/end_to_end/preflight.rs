//! Preflights on a real node: what each stage's own pods may and can, and what is broken is named within a minute of the
//! question, which is promised to users.
//!
//! A grant, a key and a mailbox's URL are broken one at a time, here and in `denied`. A clock isn't: all pods of a node have
//! the node's, and so have the stores here. What a preflight says of clocks is in tables: `facilitator-core/src/preflight/tests`.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crds::conditions::{MAILBOXES_LISTED, PREFLIGHT, reasons};
use crds::names::PREFLIGHT_ANNOTATION;
use crds::processor::PreflightStage::{self, Aggregate, Intake, Operator};
use crds::processor::{PreflightOutcome, PreflightStatus};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use prio_operator_tests::flow;
use prio_operator_tests::output::say;
use prio_operator_tests::party::{Pair, Party};
use prio_operator_tests::wait::{Seen, until};
use serde_json::{Value, json};

use crate::scenario::{MINUTE, run, wait_condition};

/// A line that fails: who checks, what, and of which mailbox.
pub type Fault<'a> = (PreflightStage, &'a str, Option<&'a str>);

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn what_a_stage_may_not_do_is_named_before_it_is_tried() {
    run("preflight", |scenario| async move {
        let pair = &scenario.pair;
        let first = &pair.parties[0];
        scenario.install_party(first).await?;
        pair.cluster.apply(&[pair.processor_object(first)?]).await?;
        wait_condition(first, PREFLIGHT, "True", reasons::PASSED, Duration::from_secs(120)).await?;

        // As a person asks.
        let portal = pair.mailbox(0, "portal");
        set_permissions(&portal, Permissions::from_mode(0o555))?;
        let (code, said) = by_command(pair, first).await?;
        ensure!(code == Some(78), "exit code {code:?}: {said}");
        let failed: Vec<_> = said.lines().filter(|line| line.starts_with('✗')).collect();
        ensure!(
            matches!(failed[..], [line] if line.starts_with("✗ Aggregate  Write portal ")),
            "{said}"
        );
        ensure!(said.contains("→ ask the portal's owner to give"), "{said}");
        set_permissions(&portal, Permissions::from_mode(0o755))?;

        let ingestion = pair.mailbox(0, "ingestion");
        set_permissions(&ingestion, Permissions::from_mode(0o000))?;
        // The operator sees it, too.
        wait_condition(first, MAILBOXES_LISTED, "False", "", MINUTE).await?;
        let of_mailbox = [Intake, Aggregate].map(|stage| (stage, "List", Some("ingestion")));
        let faults = [(Operator, MAILBOXES_LISTED, None), of_mailbox[0], of_mailbox[1]];
        let message = names(first, "ingestion", json!({}), &faults).await?;
        ensure!(message.contains("Permission denied"), "{message}");
        set_permissions(&ingestion, Permissions::from_mode(0o755))?;
        wait_condition(first, MAILBOXES_LISTED, "True", "", MINUTE).await?;

        set_signing_key(pair, first, "bm8ga2V5").await?;
        let faults = [Intake, Aggregate].map(|stage| (stage, "SigningKey", None));
        names(first, "signing key", json!({}), &faults).await?;
        set_signing_key(pair, first, &pair.keys.parties[0].signing.secret).await?;

        let before = pair.processor_object(first)?["spec"]["peer"].clone();
        let mut broken = before.clone();
        let key = &mut broken["inline"]["batchSigningKeys"][0]["publicKey"];
        // As long as it was, and no point.
        let rest = key
            .as_str()
            .and_then(|key| key.strip_prefix('B'))
            .context("no uncompressed point")?;
        *key = json!(format!("A{rest}"));
        let faults = [Intake, Aggregate].map(|stage| (stage, "PeerKeys", None));
        let message = names(first, "peer's key", json!({"spec": {"peer": broken}}), &faults).await?;
        let id = &pair.keys.parties[1].signing.id;
        ensure!(message.contains(id), "it doesn't name the key {id}: {message}");

        // All is mended.
        first.patch(&json!({"spec": {"peer": before}})).await?;
        let (code, said) = by_command(pair, first).await?;
        ensure!(code == Some(0) && !said.contains('✗'), "exit code {code:?}: {said}");
        Ok(())
    })
    .await;
}

/// Runs `kubectl prio preflight`; gives its exit code and what it prints, which must come within a minute.
async fn by_command(pair: &Pair, party: &Party) -> Result<(Option<i32>, String)> {
    let asked = Instant::now();
    let arguments = ["preflight", &party.name, "--namespace", &party.worker_namespace];
    let said = pair.cluster.kubectl_prio(&arguments).await?;
    in_time("kubectl prio preflight", asked)?;
    Ok(said)
}

/// Changes a processor, if at all, and asks for a preflight, whose failed lines must be these and no others, and come within a
/// minute; the condition names the first. Gives the condition's message.
pub async fn names(party: &Party, asked: &str, mut change: Value, faults: &[Fault<'_>]) -> Result<String> {
    change["metadata"]["annotations"][PREFLIGHT_ANNOTATION] = json!(asked);
    let begun = Instant::now();
    party.patch(&change).await?;
    let what = format!("a preflight of {} about {asked}", party.name);
    let (message, preflight) = until(&what, MINUTE, || async {
        let status = party.processor().await?.status.context("no status yet")?;
        let (now, reason) = flow::condition(&status.conditions, PREFLIGHT);
        let message = flow::message(&status.conditions, PREFLIGHT).to_owned();
        let of_this =
            |preflight: &PreflightStatus| preflight.finished.is_some() && preflight.asked.as_deref() == Some(asked);
        Ok(match status.preflight.filter(of_this) {
            Some(preflight) if reason == reasons::FAILED => Seen::Done((message, preflight)),
            Some(_) if reason == reasons::PASSED => Seen::Never(format!("it passed: {message}")),
            _ => Seen::NotYet(format!("{now} {reason}: {message}")),
        })
    })
    .await?;
    in_time(&what, begun)?;
    let failed = preflight
        .lines
        .iter()
        .filter(|line| line.outcome == PreflightOutcome::Failed);
    let failed: Vec<Fault> = failed
        .map(|line| (line.stage, line.check.as_str(), line.mailbox.as_deref()))
        .collect();
    ensure!(
        failed == faults,
        "{what}: {failed:?} failed, and not {faults:?} alone: {:?}",
        preflight.lines
    );
    let (stage, check, mailbox) = faults.first().context("no fault is expected")?;
    let mailbox = mailbox.map(|mailbox| format!(" {mailbox}")).unwrap_or_default();
    ensure!(
        message.starts_with(&format!("{stage:?} {check}{mailbox}: ")),
        "{what}: {message}"
    );
    Ok(message)
}

/// From the question to the answer.
fn in_time(what: &str, asked: Instant) -> Result<()> {
    let seconds = asked.elapsed().as_secs_f64();
    say(format!("   {seconds:5.1} s  {what}"));
    ensure!(
        asked.elapsed() < MINUTE,
        "{what}: {seconds:.1} s, and a minute is promised"
    );
    Ok(())
}

/// Writes something into the Secret of the key that signs.
async fn set_signing_key(pair: &Pair, party: &Party, key: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(pair.cluster.client.clone(), &party.worker_namespace);
    let change = Patch::Merge(json!({"stringData": {"key": key}}));
    secrets.patch("batch-signing", &PatchParams::default(), &change).await?;
    Ok(())
}
