//! `make demo`: two parties in two clouds on one node, from ingestion batches to totals.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use prio_operator_tests::cluster::{Cluster, NODE_VARIABLE};
use prio_operator_tests::fixtures::{self, Truth};
use prio_operator_tests::flow::{self, Expected};
use prio_operator_tests::images::{self, Images};
use prio_operator_tests::ingestor::Ingestor;
use prio_operator_tests::keys::KeySet;
use prio_operator_tests::output::{hint, say, step};
use prio_operator_tests::partner::ingest::Order;
use prio_operator_tests::party::{self, Pair, Settings};
use prio_operator_tests::samples::{self, Damage, Sample};
use prio_operator_tests::stores::{Kind, Stores};
use prio_operator_tests::wait::{Seen, until};
use prio_operator_tests::{leaks, rotation, tables};

/// Our own aggregations beside the two of the original: one that is there at the beginning, and one that comes in while keys
/// are rotated.
const SAMPLES: &str = "steps-per-day";
const TRAFFIC: &str = "heart-rate";
/// The pod that writes the first.
const HISTORY: &str = "ingestor-history";

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
    let rings = pair.rings.clone().context("the demo's keys are of KeyRings")?;
    let kubectl = cluster.kubectl_command();

    step(
        1,
        "Install: a cloud and a web server for each party, the cluster's chart once, each party's chart in its own namespaces",
    );
    let images = images::import(&cluster).await?;
    let programs = images::import_stores(&cluster).await?;
    let partner = images::import_partner(&cluster).await?;
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
            "   {}: operator and keys controller in {}, workers and keys in {}",
            party.name, party.operator_namespace, party.worker_namespace
        ));
    }
    rings.webs.start(&cluster, &partner).await?;
    let ingestor = Ingestor::set_up(&pair, partner).await?;

    step(
        2,
        "Each party applies its KeyRings, its Peers and its DataShareProcessor: keys are made, proven loaded, and told in manifests",
    );
    pair.apply_processors().await?;
    hint(format!(
        "{kubectl} get keyrings,peers,datashareprocessors --all-namespaces"
    ));
    flow::wait_acquainted(&pair, Duration::from_secs(240)).await?;
    say(cluster.kubectl(&["get", "keyrings,peers", "--all-namespaces"]).await?);

    step(
        3,
        "The ingestor reads both manifests by https and writes batches: every client's answer in two shares, encrypted to the key of each party",
    );
    let mut expected = write_batches(&pair, &stores, &ingestor, &images).await?;
    let clients: u64 = expected.iter().map(|window| window.truth.clients).sum();
    let batches: usize = expected.iter().map(|window| window.truth.batches.len()).sum();
    say(format!(
        "   {clients} clients in {batches} batches of {} windows are in {} and {}",
        expected.len(),
        stores.url(0, "ingestion"),
        stores.url(1, "ingestion")
    ));
    say("   one more batch is damaged on its way to pha, on purpose");

    step(
        4,
        "Intake: the operators find the batches and start pods; the parties send each other their validations",
    );
    hint(format!("{kubectl} get jobs,pods --namespace pha-workers"));
    flow::wait_delivered(&pair, &expected, Duration::from_secs(420)).await?;
    say(cluster
        .kubectl(&["get", "datashareprocessors,aggregationwindows", "--all-namespaces"])
        .await?);
    show_rejected(&cluster, &pair).await?;

    step(
        5,
        "Aggregation: both agree on a cutoff for the windows of the past; at it each freezes its set, sums, and hands its part to the portal",
    );
    let truths: Vec<&Truth> = expected.iter().map(|window| &window.truth).collect();
    let cutoff = flow::set_cutoffs(&pair, &truths, 10).await?;
    say(format!(
        "   spec.windows.cutoffs of both: {cutoff} for each of {} windows",
        truths.len()
    ));
    flow::wait_summed(&pair, &truths, Duration::from_secs(300)).await?;
    say(cluster
        .kubectl(&["get", "aggregationwindows", "--all-namespaces"])
        .await?);

    step(
        6,
        &format!(
            "Rotation under traffic: a batch every {} seconds, windows that close one after the other, and new keys of both kinds at both parties",
            rotation::EVERY_SECONDS
        ),
    );
    expected.extend(rotation::under_traffic(&pair, &ingestor, TRAFFIC).await?);

    step(
        7,
        "The portal fetches the two sum parts, one from each cloud, and adds them; beside them what the clients really answered",
    );
    stores.download(&pair, &images.facilitator).await?;
    let truths: Vec<&Truth> = expected.iter().map(|window| &window.truth).collect();
    let shown = tables::show(&pair, &truths, &folder.join("result.json")).await?;
    for (party, signers) in pair.parties.iter().zip(&shown.signers) {
        let ids: Vec<&str> = signers.iter().map(String::as_str).collect();
        say(format!(
            "   {} signed its sum parts by {}",
            party.name,
            ids.join(" and ")
        ));
        ensure!(ids.len() > 1, "the key that signs for {} wasn't followed", party.name);
    }

    step(8, "The history of the keys, as anybody may read it");
    for party in &pair.parties {
        let namespace = &party.worker_namespace;
        say(cluster
            .kubectl(&["get", "keyrings", "--output=wide", "--namespace", namespace])
            .await?);
    }
    hint(format!("{kubectl} describe keyring signing --namespace pha-workers"));
    say(cluster
        .kubectl(&["describe", "keyring", "signing", "--namespace", "pha-workers"])
        .await?);
    say(format!(
        "   {} keys, old ones too: each second copy, opened by who has the identity, holds the key",
        pair.compare_second_copies().await?
    ));

    step(
        9,
        "A search of all logs, Events, objects, arguments and environments for the private keys, and those to the buckets",
    );
    let secrets = [pair.private_keys().await?, stores.secrets()].concat();
    let report = leaks::search(&cluster, &secrets).await?;
    for (kind, bytes) in &report.searched {
        say(format!("   {kind}: {} KiB searched", bytes / 1024));
    }
    for find in &report.finds {
        say(format!("   FOUND: a private key of {} in {}", find.key, find.place));
    }
    if report.finds.is_empty() {
        say(format!("   nothing found of {} keys", secrets.len()));
    }

    say("\nThe node stays up, to look around:");
    hint(format!(
        "{kubectl} describe datashareprocessor pha --namespace pha-workers"
    ));
    hint(format!(
        "{kubectl} get aggregationwindows --all-namespaces --output wide"
    ));
    hint(format!("{kubectl} describe keyrings --namespace facilitator-workers"));
    hint(format!(
        "{kubectl} get configmap manifests --namespace pha-workers --output yaml"
    ));
    hint(format!(
        "{kubectl} logs --namespace pha-operator deployment/prio-operator-keys"
    ));
    say("Results as JSON: target/demo/result.json. To stop and remove everything: make demo-down");
    Ok(shown.matched && report.finds.is_empty())
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
    let pair = pair.in_clouds([Kind::S3, Kind::Gcs]).with_key_rings("ingestor")?;
    let stores = pair.stores.clone().context("a pair in clouds has stores")?;
    Ok((pair, stores))
}

/// The original's batches are copied as they are, encrypted to a key that the parties have from it; ours are the ingestor's.
async fn write_batches(pair: &Pair, stores: &Stores, ingestor: &Ingestor, images: &Images) -> Result<Vec<Expected>> {
    let day = pair.settings.day()?;
    let mailboxes = [pair.mailbox(0, "ingestion"), pair.mailbox(1, "ingestion")];
    let placed = fixtures::place(&pair.cluster.repository, day, [&mailboxes[0], &mailboxes[1]])?;
    let mut batches = Vec::new();
    for window in 0..3 {
        let sample = |batch: usize, damage| Order {
            at: None,
            sample: Sample {
                aggregation: SAMPLES.to_owned(),
                time: format!("{}/{:02}/{:02}", day.strftime("%Y/%m/%d"), window * 3 + batch, 20),
                bins: 32,
                packets: 25 + 10 * window,
                damage,
            },
        };
        batches.extend((0..2).map(|batch| sample(batch, Damage::None)));
        if window == 0 {
            batches.push(sample(0, Damage::DigestAt(0)));
        }
    }
    ingestor.start(HISTORY, batches).await?;
    stores.upload(pair, &images.facilitator).await?;
    ingestor.finished(HISTORY, Duration::from_secs(120)).await?;
    let written = ingestor.written(HISTORY)?;
    let mut expected: Vec<Expected> = placed.into_iter().map(Expected::from).collect();
    expected.extend(samples::expected(&written, pair.settings.period_seconds)?);
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
