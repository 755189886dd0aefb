//! `make demo`: two parties in two clouds on one node, from ingestion batches to totals.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use prio_operator_tests::cluster::{Cluster, NODE_VARIABLE};
use prio_operator_tests::fixtures::{self, Truth};
use prio_operator_tests::flow::{self, Expected};
use prio_operator_tests::keys::KeySet;
use prio_operator_tests::output::{hint, say, step};
use prio_operator_tests::party::{self, Pair, Settings};
use prio_operator_tests::samples::{self, Damage, Sample};
use prio_operator_tests::stores::{Kind, Stores};
use prio_operator_tests::wait::{Seen, until};
use prio_operator_tests::{images, leaks, tables};

/// Our own aggregation beside the two of the original.
const SAMPLES: &str = "steps-per-day";

#[tokio::main]
async fn main() -> ExitCode {
    let start = Instant::now();
    let name = std::env::var(NODE_VARIABLE).unwrap_or_else(|_| "demo".to_owned());
    let outcome = tokio::select! {
        outcome = demo(&name) => outcome,
        _ = tokio::signal::ctrl_c() => {
            say("\nStopped half-way; the node still runs. The next `make demo` begins afresh, `make demo-down` removes everything.");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(true) => {
            say(format!(
                "\nEvery window: match. The demo took {} s.",
                start.elapsed().as_secs()
            ));
            ExitCode::SUCCESS
        }
        Ok(false) => {
            say("\nNot every window matched: see the tables above and target/demo/result.json.");
            ExitCode::FAILURE
        }
        Err(error) => {
            say(format!("\nerror: {error:#}"));
            say(
                "The node still runs, to look around. `tests/cluster/cluster --name demo logs` shows its logs; `make demo-down` removes everything.",
            );
            ExitCode::FAILURE
        }
    }
}

async fn demo(name: &str) -> Result<bool> {
    let cluster = Cluster::attach(name).await?;
    let folder = cluster.repository.join("target/demo");
    let (pair, stores) = prepare(&cluster, folder.join("mailboxes"))?;

    step(
        1,
        "Install: a cloud for each party, the cluster's chart once, each party's chart in its own namespaces",
    );
    let images = images::import(&cluster).await?;
    let programs = images::import_stores(&cluster).await?;
    pair.make_folders()?;
    stores.start(&cluster, &programs).await?;
    say(format!(
        "   pha's cloud: SeaweedFS, which speaks S3, in {}; facilitator's: fake-gcs-server, which speaks GCS, in {}",
        stores.namespace(0),
        stores.namespace(1)
    ));
    party::install_cluster_chart(&cluster).await?;
    for party in &pair.parties {
        pair.apply_surroundings(party).await?;
        pair.install(party, &images).await?;
        say(format!(
            "   {}: operator in {}, workers and keys in {}",
            party.name, party.operator_namespace, party.worker_namespace
        ));
    }

    step(
        2,
        "The ingestor writes batches: every client's answer in two encrypted shares, one for each party",
    );
    let expected = write_batches(&pair)?;
    let truths: Vec<&Truth> = expected.iter().map(|window| &window.truth).collect();
    let clients: u64 = truths.iter().map(|truth| truth.clients).sum();
    let batches: usize = expected.iter().map(|window| window.truth.batches.len()).sum();
    say(format!(
        "   {clients} clients in {batches} batches, {} windows; `facilitator copy` uploads them to",
        truths.len()
    ));
    stores.upload(&pair, &images.facilitator).await?;
    say(format!(
        "   {} and {}",
        stores.url(0, "ingestion"),
        stores.url(1, "ingestion")
    ));
    say("   one more batch is damaged on its way to pha, on purpose");

    step(
        3,
        "Each party applies its DataShareProcessor: its own mailboxes in its own cloud, the peer's in the other",
    );
    pair.apply_processors().await?;
    let kubectl = cluster.kubectl_command();
    hint(format!(
        "{kubectl} get datashareprocessors,batches,aggregationwindows --all-namespaces"
    ));
    hint(format!("{kubectl} get jobs,pods --namespace pha-workers"));

    step(
        4,
        "Intake: the operators find the batches and start pods; the parties send each other their validations",
    );
    flow::wait_delivered(&pair, &expected, Duration::from_secs(420)).await?;
    say(cluster
        .kubectl(&["get", "datashareprocessors,aggregationwindows", "--all-namespaces"])
        .await?);
    show_rejected(&cluster, &pair).await?;

    step(
        5,
        "The windows are of the past: both parties agree on a cutoff for them, 15 seconds from now",
    );
    let cutoff = flow::set_cutoffs(&pair, &truths, 15).await?;
    say(format!(
        "   spec.windows.cutoffs of both: {cutoff} for each of {} windows",
        truths.len()
    ));

    step(
        6,
        "Aggregation: at the cutoff each party freezes its set, checks the proofs, sums, and hands its part to the portal",
    );
    flow::wait_summed(&pair, &truths, Duration::from_secs(300)).await?;
    say(cluster
        .kubectl(&["get", "aggregationwindows", "--all-namespaces"])
        .await?);

    step(
        7,
        "The portal fetches the two sum parts, one from each cloud, and adds them; beside them what the clients really answered",
    );
    stores.download(&pair, &images.facilitator).await?;
    let matched = tables::show(&pair, &truths, &folder.join("result.json"))?;

    step(
        8,
        "A search of all logs, Events, objects, arguments and environments for the private keys, and those to the buckets",
    );
    let secrets = [pair.keys.scalars()?, stores.secrets()].concat();
    let report = leaks::search(&cluster, &secrets).await?;
    for (kind, bytes) in &report.searched {
        say(format!("   {kind}: {} KiB searched", bytes / 1024));
    }
    for find in &report.finds {
        say(format!("   FOUND: a private key of {} in {}", find.key, find.place));
    }
    if report.finds.is_empty() {
        say("   nothing found");
    }

    say("\nThe node stays up, to look around:");
    hint(format!(
        "{kubectl} describe datashareprocessor pha --namespace pha-workers"
    ));
    hint(format!(
        "{kubectl} get aggregationwindows --all-namespaces --output wide"
    ));
    hint(format!(
        "{kubectl} logs --namespace pha-operator deployment/prio-operator"
    ));
    hint(format!(
        "{kubectl} get datashareprocessor pha --namespace pha-workers --output jsonpath='{{.spec.mailboxes}}'"
    ));
    say("Results as JSON: target/demo/result.json. To stop and remove everything: make demo-down");
    Ok(matched && report.finds.is_empty())
}

fn prepare(cluster: &Cluster, folder: PathBuf) -> Result<(Pair, Stores)> {
    let keys = fixtures::folder(&cluster.repository).join("keys.json");
    let keys = std::fs::read_to_string(&keys).with_context(|| format!("{} can't be read", keys.display()))?;
    // Two days ago, so that every window is over.
    let day = Timestamp::now().to_zoned(TimeZone::UTC).date().checked_sub(2.days())?;
    let pair = Pair::new(
        cluster,
        ["pha", "facilitator"],
        &folder,
        KeySet::make(&keys)?,
        Settings::from_day(day),
    );
    let pair = pair.in_clouds([Kind::S3, Kind::Gcs]);
    let stores = pair.stores.clone().context("a pair in clouds has stores")?;
    Ok((pair, stores))
}

fn write_batches(pair: &Pair) -> Result<Vec<Expected>> {
    let day = pair.settings.day()?;
    let mailboxes = [pair.mailbox(0, "ingestion"), pair.mailbox(1, "ingestion")];
    let placed = fixtures::place(&pair.cluster.repository, day, [&mailboxes[0], &mailboxes[1]])?;
    let mut expected: Vec<Expected> = placed.into_iter().map(Expected::from).collect();
    for window in 0..3 {
        let batches = (0..2).map(|batch| Sample {
            aggregation: SAMPLES.to_owned(),
            time: format!("{}/{:02}/{:02}", day.strftime("%Y/%m/%d"), window * 3 + batch, 20),
            bins: 32,
            packets: 25 + 10 * window,
            damage: Damage::None,
        });
        let mut batches: Vec<Sample> = batches.collect();
        if window == 0 {
            let mut damaged = batches[0].clone();
            damaged.damage = Damage::DigestAt(0);
            batches.push(damaged);
        }
        expected.push(samples::write_window(pair, &batches)?);
    }
    Ok(expected)
}

/// Shows why a batch was rejected, as a person would look it up.
async fn show_rejected(cluster: &Cluster, pair: &Pair) -> Result<()> {
    let party = &pair.parties[0];
    let name = until(
        "the damaged batch is shown as Rejected",
        Duration::from_secs(60),
        || async {
            let batches = party.batches().await?;
            let rejected = batches
                .iter()
                .find(|b| b.status.as_ref().and_then(|s| s.outcome.as_deref()) == Some("Rejected"));
            let name = rejected.and_then(|batch| batch.metadata.name.clone());
            Ok(name.map_or_else(|| Seen::NotYet("not yet".to_owned()), Seen::Done))
        },
    )
    .await?;
    say("Why was a batch rejected?");
    hint(format!(
        "{} describe batch {name} --namespace {}",
        cluster.kubectl_command(),
        party.worker_namespace
    ));
    say(cluster
        .kubectl(&["describe", "batch", &name, "--namespace", &party.worker_namespace])
        .await?);
    Ok(())
}
