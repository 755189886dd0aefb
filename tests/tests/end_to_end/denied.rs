//! A bucket that denies while all runs: whoever needs it says so, with the bucket, the operation and what to do; everybody
//! else goes on; and once it lets in again, everything is done. And what preflights say of the rest that can be broken of
//! buckets.

use anyhow::{Context, Result, ensure};
use crds::conditions::{MAILBOXES_LISTED, READY, WORKERS_READY, reasons};
use crds::processor::PreflightStage::{Aggregate, Intake, Operator};
use prio_operator_tests::flow::{self, Expected};
use prio_operator_tests::party::Party;
use prio_operator_tests::samples::{self, Damage};
use prio_operator_tests::wait::{Seen, until};
use prio_operator_tests::{fixtures::Truth, images};
use serde_json::json;

use crate::preflight::{BOTH, Fault, names, nowhere, spec_with};
use crate::scenario::{LIMIT, MINUTE, run_in_clouds, wait_condition, wait_delivered_by};

/// More than a preflight puts up with, and less than stores do.
const AHEAD_SECONDS: u32 = 120;

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn a_bucket_that_denies_holds_up_only_what_needs_it() {
    run_in_clouds("denied", |scenario| async move {
        let pair = &scenario.pair;
        let [first, second] = &pair.parties;
        let stores = pair.stores.clone().context("a scenario in clouds has stores")?;
        let programs = images::import_stores(&pair.cluster).await?;
        stores.start(&pair.cluster, &programs).await?;
        scenario.install().await?;
        let write = |hours: std::ops::Range<u32>| -> Result<Expected> {
            let batches = hours.map(|hour| scenario.sample(hour, 10, Damage::None));
            samples::write_window(pair, &batches.collect::<Result<Vec<_>>>()?)
        };
        let begun = write(0..1)?;
        stores.upload(pair, &scenario.images.facilitator).await?;
        pair.apply_processors().await?;
        for party in &pair.parties {
            wait_delivered_by(party, &begun.truth, 1, LIMIT).await?;
        }

        // First's workers may do nothing in their ledger any more.
        stores.keep_out_first_workers(&pair.cluster, Some("ledger")).await?;
        let window = begun.and(write(1..3)?);
        stores.upload(pair, &scenario.images.facilitator).await?;
        let message = wait_condition(first, WORKERS_READY, "False", reasons::CONFIGURATION_REFUSED, MINUTE).await?;
        says(&message, &stores.url(0, "ledger"))?;
        let ledger = stores.url(0, "ledger");
        scenario
            .event(first, &first.name, reasons::CONFIGURATION_REFUSED, &ledger)
            .await?;
        // A preflight names each right that each stage lacks there.
        let faults = [
            (Intake, "List", Some("ledger")),
            (Intake, "Write", Some("ledger")),
            (Aggregate, "List", Some("ledger")),
            (Aggregate, "Write", Some("ledger")),
        ];
        let grant = "give the intake workers' identity the right to list it";
        names(first, "ledger", json!({}), &faults, grant).await?;
        // Its operator lists all the same, and Second delivers what it has to First's other bucket.
        wait_condition(first, MAILBOXES_LISTED, "True", "", MINUTE).await?;
        wait_delivered_by(second, &window.truth, 3, LIMIT).await?;
        wait_condition(second, READY, "True", "", MINUTE).await?;
        stores.keep_out_first_workers(&pair.cluster, None).await?;
        wait_delivered_by(first, &window.truth, 3, LIMIT).await?;
        wait_condition(first, WORKERS_READY, "True", "", MINUTE).await?;

        // They may not reach the portal: Second's sum part gets there, First's waits.
        stores.keep_out_first_workers(&pair.cluster, Some("portal")).await?;
        flow::set_cutoffs(pair, &[&window.truth], 8).await?;
        let faults = [(Aggregate, "Write", Some("portal"))];
        let grant = "ask the portal's owner to give the aggregate workers' identity the right to put objects";
        names(first, "portal", json!({}), &faults, grant).await?;
        let (message, name) = wait_blocked_window(first, &window.truth).await?;
        says(&message, &stores.url(0, "portal"))?;
        let portal = stores.url(0, "portal");
        scenario.event(first, &name, reasons::BLOCKED, &portal).await?;
        wait_summed_by(second, &window.truth).await?;
        stores.keep_out_first_workers(&pair.cluster, None).await?;
        scenario.finish(&window.truth).await?;

        // A rule that deletes what sums rest on.
        let rule = Some(("records/", 90));
        stores.expire(&pair.cluster, 0, "ledger", rule).await?;
        let faults = BOTH.map(|stage| (stage, "Expiry", Some("ledger")));
        let told = "a rule of the bucket deletes records/* after 90 days";
        names(first, "what expires", json!({}), &faults, told).await?;
        stores.expire(&pair.cluster, 0, "ledger", None).await?;

        // The same store, with a clock that is ahead.
        let partner = images::import_partner(&pair.cluster).await?;
        stores.start_front(&pair.cluster, &partner, 0, AHEAD_SECONDS).await?;
        let change = spec_with(pair, first, "/mailboxes/ingestion/endpoint", |_| stores.front(0))?;
        let faults = BOTH.map(|stage| (stage, "Clock", Some("ingestion")));
        names(first, "the store's clock", change, &faults, "behind the store's").await?;

        // URLs that lead nowhere.
        for (place, mailbox, faults) in urls() {
            let change = spec_with(pair, first, place, nowhere)?;
            names(first, place, change, &faults, &nowhere(&stores.url(0, mailbox))).await?;
        }
        Ok(())
    })
    .await;
}

/// Places of URLs in the spec, whose they are, and what fails where there is no such bucket.
fn urls() -> [(&'static str, &'static str, Vec<Fault<'static>>); 4] {
    let listed = (Operator, MAILBOXES_LISTED, None);
    let list = |stage, mailbox| (stage, "List", Some(mailbox));
    [
        (
            "/mailboxes/outgoing/portal/url",
            "portal",
            vec![(Aggregate, "Write", Some("portal"))],
        ),
        (
            "/mailboxes/ingestion/url",
            "ingestion",
            vec![listed, list(Intake, "ingestion"), list(Aggregate, "ingestion")],
        ),
        (
            "/mailboxes/peerValidation/url",
            "peer-validation",
            vec![listed, list(Aggregate, "peerValidation")],
        ),
        // In another store than our ledger: an upload is begun there, and given up.
        (
            "/mailboxes/outgoing/peer/url",
            "outgoing-peer",
            vec![(Intake, "Write", Some("peer")), list(Aggregate, "peer")],
        ),
    ]
}

/// A message about a bucket that denies is of use.
fn says(message: &str, bucket: &str) -> Result<()> {
    for part in [bucket, "access denied", "Object: HTTP 403", "identity"] {
        ensure!(message.contains(part), "it doesn't say {part:?}: {message}");
    }
    Ok(())
}

/// Waits until a party can't finish a window for lack of a right; gives message and name.
async fn wait_blocked_window(party: &Party, truth: &Truth) -> Result<(String, String)> {
    until(
        &format!("{}: {} is blocked", party.name, truth.name()),
        LIMIT,
        || async {
            let windows = party.windows().await?;
            let window = flow::find(&windows, truth).context("no such window")?;
            let conditions = flow::window_conditions(window);
            let (status, reason) = flow::condition(conditions, READY);
            let message = flow::message(conditions, READY).to_owned();
            Ok(if reason == reasons::BLOCKED {
                Seen::Done((message, window.metadata.name.clone().unwrap_or_default()))
            } else {
                Seen::NotYet(format!("{status} {reason}: {message}"))
            })
        },
    )
    .await
}

async fn wait_summed_by(party: &Party, truth: &Truth) -> Result<()> {
    until(&format!("{} sums {}", party.name, truth.name()), LIMIT, || async {
        let windows = party.windows().await?;
        let window = flow::find(&windows, truth).context("no such window")?;
        let (status, reason) = flow::condition(flow::window_conditions(window), crds::conditions::AGGREGATED);
        Ok(if status == "True" {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{status} {reason}"))
        })
    })
    .await
}
