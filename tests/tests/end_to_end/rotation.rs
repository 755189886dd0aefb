//! Keys of both kinds of both parties rotated under traffic, with parties that know each other by manifests on the web.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use prio_operator_tests::callers::{self, Pods};
use prio_operator_tests::flow;
use prio_operator_tests::images;
use prio_operator_tests::ingestor::Ingestor;
use prio_operator_tests::rotation;
use prio_operator_tests::sums;
use prio_operator_tests::web::way_out;

use crate::scenario::{LIMIT, Scenario, run_with_key_rings};

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn no_packet_is_lost_while_all_keys_are_rotated() {
    run_with_key_rings("rotation", |scenario| async move { rotate(&scenario).await }).await;
}

async fn rotate(scenario: &Scenario) -> Result<()> {
    let pair = &scenario.pair;
    let stores = pair.stores.as_ref().context("a scenario in clouds has stores")?;
    let rings = pair.rings.as_ref().context("a scenario with KeyRings has some")?;
    let pods = Pods::watch(&pair.cluster);
    stores
        .start(&pair.cluster, &images::import_stores(&pair.cluster).await?)
        .await?;
    scenario.install().await?;
    let partner = images::import_partner(&pair.cluster).await?;
    rings.webs.start(&pair.cluster, &partner).await?;
    // Workers could get there: that none does is looked at in the end.
    let ways = pair.parties.each_ref().map(|party| way_out(&party.worker_namespace));
    pair.cluster.apply(&ways).await?;
    let ingestor = Ingestor::set_up(pair, partner).await?;
    pair.apply_processors().await?;
    flow::wait_acquainted(pair, LIMIT).await?;
    let windows = rotation::under_traffic(pair, &ingestor, "steps").await?;
    stores.download(pair, &scenario.images.facilitator).await?;
    let (signers, mut signed) = (pair.signers().await?, [BTreeSet::new(), BTreeSet::new()]);
    for window in &windows {
        let sums = sums::reassemble(pair, &signers, &window.truth)?;
        ensure!(sums.matches(&window.truth), "{}: {sums:?}", window.truth.name());
        for (all, signer) in signed.iter_mut().zip(sums.signers) {
            all.insert(signer);
        }
    }
    ensure!(signed.iter().all(|ids| ids.len() > 1), "signed by {signed:?} alone");
    ensure!(pair.compare_second_copies().await? >= 8, "keys without second copies");
    callers::no_worker_called(pair, &rings.webs, &pods, &[]).await
}
