//! The operator against a real API server (no node is needed: what pods would do is written by the tests) and against web
//! servers of other parties.
//!
//! Set `PRIO_OPERATOR_TEST_KUBECONFIG` to the path of an administrator's kubeconfig; without it nothing is tested here:
//! `tests/cluster/cluster --name test up control` starts one.
#![allow(clippy::unwrap_used)]

mod fetch;
mod keys;
mod manifests;
mod peers;
mod place;
mod preflight;
mod web;
mod wishes;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crds::{AggregationWindow, Batch, DataShareProcessor};
use facilitator_core::formats::ledger::{
    Delivered, DeliveredPut, LedgerIdentity, LedgerObject, Rejected, RejectedReason,
};
use facilitator_core::formats::work::{BatchOutcome, BatchReport, Parameters, Report, Share, WorkList};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use uuid::Uuid;

use place::{place, until, works};

fn identity(id: u128) -> Vec<u8> {
    let start_at = "2026-01-01T00:00:00Z".to_owned();
    LedgerIdentity {
        revision: 1,
        id: Uuid::from_u128(id),
        instance: "us-ct".into(),
        share: Share::First,
        start_at,
    }
    .to_bytes()
    .unwrap()
}

/// Three batches an hour ago, so that their window is open.
fn batch_names() -> Vec<(String, Uuid)> {
    let time = Timestamp::now()
        .checked_sub(SignedDuration::from_hours(1))
        .unwrap()
        .strftime("%Y/%m/%d/%H/%M")
        .to_string();
    (1..=3).map(|n| (time.clone(), Uuid::from_u128(n))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_become_jobs_and_reports_become_outcomes() {
    let Some(place) = place("batches").await else { return };
    let names = batch_names();
    for (time, uuid) in &names {
        place.put_batch(&format!("agg/{time}/{uuid}")).await;
    }
    let mut undecodable = place.spec();
    undecodable["share"] = json!("Third");
    for (field, folder) in [("ingestion", "a"), ("peerValidation", "b"), ("ledger", "c")] {
        undecodable["mailboxes"][field]["url"] = json!(format!("file:///mailboxes/{folder}"));
    }
    place.create_processor("unreadable", undecodable).await;
    place.create_processor("us-ct", place.spec()).await;
    let operator = place.start_operator();

    let job = place.first_job().await;
    let spec = job.spec.clone().unwrap();
    let pod = spec.template.spec.clone().unwrap();
    assert_eq!(
        (spec.completions, spec.completion_mode.as_deref()),
        (Some(2), Some("Indexed"))
    );
    assert_eq!(pod.service_account_name.as_deref(), Some("intake"));
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.containers[0].image.as_deref(), Some("registry.example/worker:1"));
    assert_eq!(job.metadata.owner_references.as_ref().unwrap()[0].name, "us-ct");

    let config_maps = place.api::<ConfigMap>();
    let list = until("the work list", async || {
        config_maps.get_opt(&job.name_any()).await.ok()?
    })
    .await;
    let Ok(WorkList::Intake { work, chunks, .. }) = serde_json::from_str(&list.data.as_ref().unwrap()["work.json"])
    else {
        panic!("{list:?}");
    };
    assert_eq!(
        (work, chunks.iter().map(Vec::len).collect::<Vec<_>>()),
        (job.name_any(), vec![2, 1])
    );
    assert_eq!(list.immutable, Some(true));
    let volumes: BTreeMap<_, _> = pod
        .volumes
        .unwrap()
        .into_iter()
        .map(|volume| (volume.name.clone(), volume))
        .collect();
    let parameters = volumes["parameters"].config_map.as_ref().unwrap().name.clone();
    let parameters = config_maps.get(&parameters).await.unwrap();
    let parameters: Parameters = serde_json::from_str(&parameters.data.unwrap()["parameters.json"]).unwrap();
    assert_eq!((parameters.instance.as_str(), parameters.ledger_id), ("us-ct", None));

    // Nothing can start here: there is no node, and no claim.
    let workers = until("the cause is named", async || {
        let processor = place.api::<DataShareProcessor>().get("us-ct").await.ok()?;
        processor
            .status?
            .conditions
            .into_iter()
            .find(|c| c.type_ == "WorkersReady" && c.status == "False")
    })
    .await;
    assert!(
        ["MountMissing", "Unschedulable"].contains(&workers.reason.as_str()),
        "{workers:?}"
    );
    place
        .condition("us-ct", "AdmissionGuarded", "False", "PolicyMissing")
        .await;
    // One that doesn't decode says so and doesn't keep the other from work.
    place.condition("unreadable", "Stalled", "True", "InvalidSpec").await;

    place.let_pods_run(&job).await;
    place.condition("us-ct", "WorkersReady", "True", "AsExpected").await;
    place.condition("us-ct", "Ready", "True", "AsExpected").await;

    // What a worker would leave behind.
    place.put("ledger", "ledger.json", identity(7)).await;
    let name = |n: usize| format!("agg/{}/{}", names[n].0, names[n].1);
    let delivered = Delivered {
        revision: 1,
        record_digest: "00".repeat(32),
        signature_object: format!("{}.validity_0.sig", name(0)),
        store_time_millis: None,
        put: DeliveredPut::Created,
    };
    place
        .put(
            "ledger",
            &format!("delivered/{}", name(0)),
            delivered.to_bytes().unwrap(),
        )
        .await;
    let rejected = Rejected {
        revision: 1,
        reason: RejectedReason::DigestMismatch,
        message: "the packets are not the header's".into(),
        header_digest: None,
        packet_digest: None,
    };
    place
        .put("ledger", &format!("rejected/{}", name(1)), rejected.to_bytes().unwrap())
        .await;
    let told = |n: usize, outcome, reason: &str| BatchReport {
        aggregation: "agg".into(),
        time: names[n].0.clone(),
        uuid: names[n].1,
        outcome,
        reason: reason.into(),
        message: format!("batch {n}"),
        packets: 10,
        excluded: 1,
    };
    let report = |index: u32, batches| Report {
        revision: 1,
        work: job.name_any(),
        index,
        pod_uid: "p".into(),
        batches,
        windows: vec![],
        keys: vec![],
    };
    let first = vec![
        told(0, BatchOutcome::Validated, ""),
        told(1, BatchOutcome::Rejected, "DigestMismatch"),
    ];
    let second = vec![told(2, BatchOutcome::Blocked, "SignerUnknown")];
    for (index, batches) in [(0, first), (1, second)] {
        let name = format!("reports/{}/{index}-p", job.name_any());
        place
            .put("ledger", &name, report(index, batches).to_bytes().unwrap())
            .await;
    }
    place.let_pods_exit(&job, 0, "").await;

    let outcomes = until("three outcomes", async || {
        let batches = place.api::<Batch>().list(&ListParams::default()).await.ok()?.items;
        let outcome = |batch: Batch| Some((batch.spec.uuid.clone(), batch.status?.outcome?));
        let outcomes: Vec<_> = batches.into_iter().filter_map(outcome).collect();
        (outcomes.len() == 3).then(|| outcomes.into_iter().collect::<BTreeMap<_, _>>())
    })
    .await;
    let of = |n: usize| outcomes[&names[n].1.to_string()].as_str();
    assert_eq!((of(0), of(1), of(2)), ("Validated", "Rejected", "Blocked"));
    let processor = until("the ledger is remembered", async || {
        let processor = place.api::<DataShareProcessor>().get("us-ct").await.ok()?;
        processor.status.as_ref()?.ledger_id.is_some().then_some(processor)
    })
    .await;
    assert_eq!(
        processor.status.unwrap().ledger_id,
        Some(Uuid::from_u128(7).to_string())
    );
    let windows = place
        .api::<AggregationWindow>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert_eq!((windows.len(), windows[0].spec.aggregation.as_str()), (1, "agg"));

    // What is done stays done: deleted Batches come back with their outcome, and no Job is started for them.
    place
        .api::<Batch>()
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    until("the Batches are back", async || {
        let batches = place.api::<Batch>().list(&ListParams::default()).await.ok()?.items;
        let ended = batches
            .iter()
            .filter(|b| b.status.as_ref().is_some_and(|s| s.outcome.is_some()))
            .count();
        (ended >= 2).then_some(())
    })
    .await;
    let jobs = place.api::<Job>().list(&works()).await.unwrap().items;
    assert_eq!(
        jobs.len(),
        1,
        "{:?}",
        jobs.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    );

    // A processor that is deleted takes its Job and its windows along by owner references, and its Batches by the operator,
    // even one that was away meanwhile.
    operator.stopped().await;
    place
        .api::<DataShareProcessor>()
        .delete("us-ct", &DeleteParams::default())
        .await
        .unwrap();
    let operator = place.start_operator();
    until("all that was made is gone", async || {
        let all = ListParams::default();
        let batches = place.api::<Batch>().list(&all).await.ok()?.items.len();
        let windows = place.api::<AggregationWindow>().list(&all).await.ok()?.items.len();
        let jobs = place.api::<Job>().list(&all).await.ok()?.items.len();
        (batches + windows + jobs == 0).then_some(())
    })
    .await;
    operator.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_swapped_or_gone_stalls_and_one_that_comes_back_heals() {
    let Some(place) = place("ledger").await else { return };
    place.put("ledger", "ledger.json", identity(1)).await;
    place.create_processor("us-ct", place.spec()).await;
    let operator = place.start_operator();
    place.condition("us-ct", "MailboxesListed", "True", "AsExpected").await;
    let ledger = place.folders.path().join("ledger/ledger.json");
    let swap = |path: &Path, id| std::fs::write(path, identity(id)).unwrap();

    std::fs::remove_file(&ledger).unwrap();
    place.condition("us-ct", "Stalled", "True", "LedgerGone").await;
    place.condition("us-ct", "Ready", "False", "LedgerGone").await;
    swap(&ledger, 2);
    place.condition("us-ct", "Stalled", "True", "LedgerMismatch").await;
    // Nothing is planned on another's ledger.
    let (time, uuid) = &batch_names()[0];
    place.put_batch(&format!("agg/{time}/{uuid}")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(place.jobs().await, 0);

    // A restart doesn't forget which ledger was ours.
    operator.stopped().await;
    let operator = place.start_operator();
    tokio::time::sleep(Duration::from_secs(3)).await;
    place.condition("us-ct", "Stalled", "True", "LedgerMismatch").await;
    swap(&ledger, 1);
    place.condition("us-ct", "Stalled", "False", "AsExpected").await;
    place.first_job().await;
    operator.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_is_told_in_the_workers_own_words() {
    let Some(place) = place("refused").await else { return };
    let (time, uuid) = &batch_names()[0];
    place.put_batch(&format!("agg/{time}/{uuid}")).await;
    place.create_processor("us-ct", place.spec()).await;
    let operator = place.start_operator();
    let job = place.first_job().await;
    place
        .let_pods_exit(&job, 78, "the signing key is not a P-256 key")
        .await;
    let condition = place
        .condition("us-ct", "WorkersReady", "False", "ConfigurationRefused")
        .await;
    assert!(
        condition.message.contains("the signing key is not a P-256 key"),
        "{}",
        condition.message
    );
    place.condition("us-ct", "Ready", "False", "ConfigurationRefused").await;
    operator.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_works_and_the_other_takes_over() {
    let Some(place) = place("lease").await else { return };
    let (one, two) = (place.start_operator(), place.start_operator());
    until("one leads", async || {
        (one.metrics.leader.get() + two.metrics.leader.get() == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(one.metrics.leader.get() + two.metrics.leader.get(), 1);
    let (leading, waiting) = if one.metrics.leader.get() == 1 {
        (one, two)
    } else {
        (two, one)
    };
    leading.stopped().await;
    until("the other leads", async || {
        (waiting.metrics.leader.get() == 1).then_some(())
    })
    .await;
    waiting.stopped().await;
    place.gone().await;
}
