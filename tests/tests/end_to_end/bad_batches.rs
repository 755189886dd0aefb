//! Batches that are bad, at one side or both; and one that comes too late.

use anyhow::{Context, Result};
use prio_operator_tests::flow;
use prio_operator_tests::party::Party;
use prio_operator_tests::samples::{self, Damage};
use prio_operator_tests::wait::{Seen, until};

use crate::scenario::{MINUTE, run};

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn bad_batches_cost_only_themselves() {
    run("bad", |scenario| async move {
        let pair = &scenario.pair;
        scenario.install().await?;
        let batches = [
            scenario.sample(0, 1, Damage::None)?,
            scenario.sample(0, 2, Damage::None)?,
            // Corrupt at First: refused there, and taken in for nothing at Second.
            scenario.sample(0, 3, Damage::DigestAt(0))?,
            // One packet that nobody can decrypt: only it is left out.
            scenario.sample(0, 4, Damage::JunkPacket)?,
            // Only Second has it.
            scenario.sample(0, 5, Damage::OnlyAt(1))?,
        ];
        let window = samples::write_window(pair, &batches)?;
        pair.apply_processors().await?;
        scenario.sum(&window).await?;
        outcome(&pair.parties[0], "Rejected", "DigestMismatch").await?;
        late(&scenario, &window.truth).await
    })
    .await;
}

/// A batch that comes when its window is planned is reported, never merged.
async fn late(scenario: &crate::scenario::Scenario, truth: &prio_operator_tests::fixtures::Truth) -> Result<()> {
    let pair = &scenario.pair;
    samples::write_window(pair, &[scenario.sample(0, 50, Damage::None)?])?;
    for party in &pair.parties {
        until(&format!("{} reports the late batch", party.name), MINUTE, || async {
            let windows = party.windows().await?;
            let status = flow::find(&windows, truth)
                .and_then(|w| w.status.clone())
                .context("the window is gone")?;
            let late = status.batches.unwrap_or_default().late;
            Ok(if late == 1 {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{late} late"))
            })
        })
        .await?;
    }
    scenario.is_right(truth).await
}

/// A Batch of a party ended so, with a message that tells a person why.
async fn outcome(party: &Party, outcome: &str, reason: &str) -> Result<()> {
    until(
        &format!("{}: a Batch is {outcome}, {reason}", party.name),
        MINUTE,
        || async {
            let batches = party.batches().await?;
            let found = batches.iter().find_map(|b| {
                let status = b.status.as_ref()?;
                (status.outcome.as_deref() == Some(outcome)).then(|| status.clone())
            });
            Ok(match found {
                Some(status) if status.reason.as_deref() == Some(reason) => Seen::Done(()),
                other => Seen::NotYet(format!("{other:?}")),
            })
        },
    )
    .await
}
