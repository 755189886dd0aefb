//! What a person does to a Batch is looked at at once, and not a tick later.

use std::time::Duration;

use crds::Batch;
use crds::names::RETRY_ANNOTATION;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use operator::processor::CONTROLLER;
use serde_json::json;

use crate::batch_names;
use crate::place::{Place, Running, place, until};

/// Once nothing moves any more: the number of looks.
async fn quiet(running: &Running) -> u64 {
    let mut before = 0;
    until("looks come to rest", async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let looks = running.metrics.reconciles.get_or_create(&CONTROLLER).get();
        let rests = looks > 0 && looks == before;
        before = looks;
        rests.then_some(looks)
    })
    .await
}

async fn batches(place: &Place) -> Vec<Batch> {
    place.api::<Batch>().list(&ListParams::default()).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_does_to_a_batch_is_looked_at_at_once() {
    let Some(place) = place("wishes").await else { return };
    for (time, uuid) in batch_names() {
        place.put_batch(&format!("agg/{time}/{uuid}")).await;
    }
    let mut spec = place.spec();
    spec["workers"]["batchObjects"] = json!("All");
    place.create_processor("us-ct", spec).await;
    let operator = place.start_operator_every(3_600);
    until("all Batches are there", async || {
        (batches(&place).await.len() == 3).then_some(())
    })
    .await;

    let looks = quiet(&operator).await;
    let asked = batches(&place).await[0].name_any();
    let retry = json!({"metadata": {"annotations": {RETRY_ANNOTATION: "now"}}});
    place
        .api::<Batch>()
        .patch(&asked, &PatchParams::default(), &Patch::Merge(&retry))
        .await
        .unwrap();
    until("a look at what was asked", async || {
        (operator.metrics.reconciles.get_or_create(&CONTROLLER).get() > looks).then_some(())
    })
    .await;

    quiet(&operator).await;
    let before = place.api::<Batch>().get(&asked).await.unwrap().uid();
    place
        .api::<Batch>()
        .delete(&asked, &DeleteParams::default())
        .await
        .unwrap();
    until("a deleted Batch is made anew", async || {
        let made = place.api::<Batch>().get_opt(&asked).await.unwrap()?;
        (made.uid() != before).then_some(())
    })
    .await;
    operator.stopped().await;
    place.gone().await;
}
