//! Preflights on a real node: what each stage's own pods may and can, and what is broken is named within a minute of the
//! question, which is promised to users.
//!
//! Grants, keys and URLs are broken here and in `denied`, one at a time; a store's clock and a rule by which it deletes there
//! alone, for folders have neither.

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

/// The stages whose pods check.
pub const BOTH: [PreflightStage; 2] = [Intake, Aggregate];

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

        for (what, broken, faults, says) in cases(pair) {
            let change = broken.turn(pair, first, true).await?;
            names(first, what, change, &faults, says).await?;
            broken.turn(pair, first, false).await?;
        }

        // All is mended.
        first.patch(&spec(pair, first)?).await?;
        let (code, said) = by_command(pair, first).await?;
        ensure!(code == Some(0) && !said.contains('✗'), "exit code {code:?}: {said}");
        Ok(())
    })
    .await;
}

/// Something of a party that can be broken and mended.
enum Broken<'a> {
    /// The rights on a mailbox's folder.
    Folder(&'a str, u32),
    /// The key in a Secret; the good one.
    Secret(&'a str, &'a str),
    /// A text of the spec, and what becomes of it.
    Spec(&'a str, fn(&str) -> String),
}

impl Broken<'_> {
    /// Breaks or mends it; gives what is to be written into the processor then.
    async fn turn(&self, pair: &Pair, party: &Party, broken: bool) -> Result<Value> {
        match self {
            Self::Folder(mailbox, mode) => {
                let mode = if broken { *mode } else { 0o755 };
                set_permissions(pair.mailbox(party.index, mailbox), Permissions::from_mode(mode))?;
            }
            Self::Secret(name, good) => set_key(pair, party, name, if broken { "bm8ga2V5" } else { good }).await?,
            Self::Spec(place, change) if broken => return spec_with(pair, party, place, change),
            Self::Spec(..) => {}
        }
        spec(pair, party)
    }
}

/// What is broken, the lines that must say so, and what the condition must say beside the first.
type Case<'a> = (&'a str, Broken<'a>, Vec<Fault<'a>>, &'a str);

fn cases(pair: &Pair) -> Vec<Case<'_>> {
    let of = |check, mailbox| BOTH.map(|stage| (stage, check, mailbox)).to_vec();
    let listed = (Operator, MAILBOXES_LISTED, None);
    let (keys, bad) = (&pair.keys.parties, "correct the Secret's `key`");
    vec![
        (
            "ingestion's folder",
            Broken::Folder("ingestion", 0o000),
            [vec![listed], of("List", Some("ingestion"))].concat(),
            "Permission denied",
        ),
        (
            "the folder of the peer's validations",
            Broken::Folder("peer-validation", 0o000),
            vec![listed, (Aggregate, "List", Some("peerValidation"))],
            "Permission denied",
        ),
        (
            "the peer's folder",
            Broken::Folder("outgoing-peer", 0o555),
            vec![(Intake, "Write", Some("peer"))],
            "ask the peer to give the intake workers' identity the right to put objects",
        ),
        (
            "the ledger's folder",
            Broken::Folder("ledger", 0o555),
            of("Write", Some("ledger")),
            "give the intake workers' identity the right to put objects",
        ),
        (
            "the key that signs",
            Broken::Secret("batch-signing", &keys[0].signing.secret),
            of("SigningKey", None),
            bad,
        ),
        (
            "the key that opens packets",
            Broken::Secret("packet-decryption", &keys[0].packet.secret),
            of("PacketKeys", None),
            bad,
        ),
        (
            "the ingestor's key",
            Broken::Spec("/ingestor/inline/batchSigningKeys/0/publicKey", no_point),
            of("IngestorKeys", None),
            pair.keys.ingestor.id.as_str(),
        ),
        (
            "the peer's key",
            Broken::Spec("/peer/inline/batchSigningKeys/0/publicKey", no_point),
            of("PeerKeys", None),
            keys[1].signing.id.as_str(),
        ),
        // Workers mount a claim wherever its URL says: that it is another folder than was agreed on only the operator sees,
        // whose folders the chart mounts.
        (
            "ingestion's URL",
            Broken::Spec("/mailboxes/ingestion/url", nowhere),
            vec![listed],
            "file:///mailboxes/ingestion-nowhere",
        ),
        (
            "the URL of the peer's validations",
            Broken::Spec("/mailboxes/peerValidation/url", nowhere),
            vec![listed],
            "file:///mailboxes/peer-validation-nowhere",
        ),
    ]
}

/// As long as the key was, and no point: an uncompressed one begins with a `B`.
fn no_point(key: &str) -> String {
    key.replacen('B', "A", 1)
}

/// Where nothing is.
pub fn nowhere(url: &str) -> String {
    format!("{url}-nowhere")
}

/// The party's spec as it should be: what was broken in it is mended.
fn spec(pair: &Pair, party: &Party) -> Result<Value> {
    let object = pair.processor_object(party)?;
    Ok(json!({"spec": object["spec"]}))
}

/// The same with another text at one place.
pub fn spec_with(pair: &Pair, party: &Party, place: &str, change: impl FnOnce(&str) -> String) -> Result<Value> {
    let mut object = spec(pair, party)?;
    let value = object["spec"].pointer_mut(place);
    let value = value.with_context(|| format!("the spec has no {place}"))?;
    let changed = change(value.as_str().with_context(|| format!("{place} is no text"))?);
    *value = json!(changed);
    Ok(object)
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
/// minute; the condition names the first, and says that.
pub async fn names(party: &Party, asked: &str, mut change: Value, faults: &[Fault<'_>], says: &str) -> Result<()> {
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
        message.starts_with(&format!("{stage:?} {check}{mailbox}: ")) && message.contains(says),
        "{what}: it doesn't say {says:?}: {message}"
    );
    Ok(())
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

/// Writes a key into a Secret.
async fn set_key(pair: &Pair, party: &Party, secret: &str, key: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(pair.cluster.client.clone(), &party.worker_namespace);
    let change = Patch::Merge(json!({"stringData": {"key": key}}));
    secrets.patch(secret, &PatchParams::default(), &change).await?;
    Ok(())
}
