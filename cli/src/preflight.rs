//! `kubectl prio preflight`: asks the operator for a preflight, waits, and prints it.

use std::time::{Duration, Instant};

use crds::DataShareProcessor;
use crds::names::PREFLIGHT_ANNOTATION;
use crds::processor::{PreflightLine, PreflightOutcome, PreflightStatus};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::Failure;
use crate::connect::Connection;
use crate::output::line;

/// How often the status is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Shown below the arguments.
pub const AFTER: &str = "\
Jobs under the account of each stage check keys, manifests, clocks, formats, and
each mailbox as far as that stage's rights go. Nothing is put into a partner's
mailbox, and work goes on meanwhile. Each check is a line: ✓ passed, ✗ failed
with what to do, – not checkable from there.

  kubectl prio preflight us-ct -n us-ct-workers

Exit codes: 0 nothing failed, 78 a check failed, 69 no answer in time.
You need the right to get and patch datashareprocessors.";

/// Check that a processor could do its work: keys, rights, clocks, formats.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The DataShareProcessor.
    name: String,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 420, value_name = "SECONDS")]
    timeout: u64,
    /// Only print the last one, whatever has changed since.
    #[arg(long)]
    last: bool,
}

/// Runs it.
///
/// # Errors
/// The API server's; a processor that isn't there; a check that failed.
pub async fn run(connection: &Connection, args: Args) -> Result<(), Failure> {
    let (client, namespace) = connection.client().await?;
    let api: Api<DataShareProcessor> = Api::namespaced(client, &namespace);
    let asked = Timestamp::now().to_string();
    if !args.last {
        let patch = json!({"metadata": {"annotations": {PREFLIGHT_ANNOTATION: asked}}});
        match api
            .patch(&args.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(missing(&args.name, &namespace)),
            Err(error) => return Err(Failure::cluster("asking for a preflight", error)),
        }
    }
    let begun = Instant::now();
    loop {
        let read = api.get_opt(&args.name).await;
        let read = read.map_err(|error| Failure::cluster("reading the processor", error))?;
        let status = read
            .ok_or_else(|| missing(&args.name, &namespace))?
            .status
            .unwrap_or_default();
        let answered = |preflight: &&PreflightStatus| {
            args.last || (preflight.finished.is_some() && preflight.asked.as_deref() == Some(&asked))
        };
        if let Some(preflight) = status.preflight.as_ref().filter(answered) {
            return tell(preflight);
        }
        if args.last {
            return Err(Failure::missing(format!("{} has had no preflight yet", args.name)));
        }
        if begun.elapsed() >= Duration::from_secs(args.timeout) {
            let said = status
                .conditions
                .iter()
                .find(|condition| condition.type_ == crds::conditions::PREFLIGHT);
            let said = said.map_or("does an operator watch this namespace?", |condition| {
                condition.message.as_str()
            });
            let doing = format!("no preflight within {} s", args.timeout);
            return Err(Failure::cluster(&doing, said));
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn missing(name: &str, namespace: &str) -> Failure {
    Failure::missing(format!(
        "there is no DataShareProcessor {name} in namespace {namespace}"
    ))
}

fn tell(preflight: &PreflightStatus) -> Result<(), Failure> {
    for text in readable(preflight) {
        line(text);
    }
    match preflight
        .lines
        .iter()
        .filter(|line| line.outcome == PreflightOutcome::Failed)
        .count()
    {
        0 => Ok(()),
        1 => Err(Failure::configuration("1 check failed: the line above says what to do")),
        count => Err(Failure::configuration(format!(
            "{count} checks failed: the lines above say what to do"
        ))),
    }
}

/// The lines, the failed ones with what to do.
fn readable(preflight: &PreflightStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for PreflightLine {
        stage,
        check,
        mailbox,
        outcome,
        detail,
        remedy,
    } in &preflight.lines
    {
        let sign = match outcome {
            PreflightOutcome::Passed => '✓',
            PreflightOutcome::Failed => '✗',
            PreflightOutcome::NotCheckable => '–',
        };
        let stage = format!("{stage:?}");
        let what = [Some(check.as_str()), mailbox.as_deref()].into_iter().flatten();
        let what = what.collect::<Vec<_>>().join(" ");
        lines.push(format!("{sign} {stage:<9}  {what:<26}  {detail}").trim_end().to_owned());
        if !remedy.is_empty() {
            lines.push(format!("             → {remedy}"));
        }
    }
    if preflight.finished.is_none() {
        lines.push("It isn't over yet.".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_line_is_told_and_a_failed_one_ends_with_its_code() {
        let status = |outcome: &str| -> PreflightStatus {
            serde_json::from_value(json!({
                "inputs": "i", "started": "2026-11-20T00:00:00Z", "finished": "2026-11-20T00:00:09Z",
                "lines": [
                    {"stage": "Operator", "check": "PeersKnown", "outcome": "Passed"},
                    {"stage": "Intake", "check": "Write", "mailbox": "peer", "outcome": outcome, "detail": "access denied", "remedy": "ask the peer"},
                    {"stage": "Aggregate", "check": "Expiry", "mailbox": "ledger", "outcome": "NotCheckable", "detail": "may not look"},
                ],
            }))
            .unwrap()
        };
        assert_eq!(
            readable(&status("Failed")),
            [
                "✓ Operator   PeersKnown",
                "✗ Intake     Write peer                  access denied",
                "             → ask the peer",
                "– Aggregate  Expiry ledger               may not look",
            ]
        );
        assert_eq!(tell(&status("Failed")).unwrap_err().code, 78);
        assert!(tell(&status("Passed")).is_ok());
    }
}
