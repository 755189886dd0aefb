//! Preflights: begun by themselves and when asked, under both accounts, told line by line, and no Job of work waits.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crds::DataShareProcessor;
use crds::processor::{PreflightOutcome, PreflightStage, PreflightStatus};
use facilitator_core::formats::preflight::{
    Check, Line, Outcome, Place as MailboxPlace, PreflightReport, PreflightStage as OfStage,
};
use facilitator_core::formats::work::WorkList;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::manifests::{POINTS, REQUEST};
use crate::place::{Place, place, until};

impl Place {
    /// The unfinished preflight Jobs, one for each stage, intake's first.
    async fn preflights(&self, known: &BTreeSet<String>) -> Vec<Job> {
        let preflights =
            ListParams::default().labels("prio-operator.io/stage in (intake-preflight,aggregate-preflight)");
        let mut jobs = until("preflight Jobs", async || {
            let mut jobs = self.api::<Job>().list(&preflights).await.ok()?.items;
            jobs.retain(|job| {
                !known.contains(&job.uid().unwrap_or_default()) && job.metadata.deletion_timestamp.is_none()
            });
            (jobs.len() == 2).then_some(jobs)
        })
        .await;
        jobs.sort_by_key(|job| job.labels()["prio-operator.io/stage"] == "aggregate-preflight");
        jobs
    }

    async fn preflight_of(&self, job: &Job) -> WorkList {
        let list = until("its work list", async || {
            self.api::<ConfigMap>().get_opt(&job.name_any()).await.ok()?
        })
        .await;
        serde_json::from_str(&list.data.unwrap()["work.json"]).unwrap()
    }

    async fn ask(&self, value: &str) {
        let ask = json!({"metadata": {"annotations": {"prio-operator.io/preflight": value}}});
        let api = self.api::<DataShareProcessor>();
        api.patch("us-ct", &PatchParams::default(), &Patch::Merge(&ask))
            .await
            .unwrap();
    }

    async fn finished_preflight(&self, asked: Option<&str>) -> PreflightStatus {
        until("the preflight is over", async || {
            let status = self
                .api::<DataShareProcessor>()
                .get("us-ct")
                .await
                .ok()?
                .status?
                .preflight?;
            (status.finished.is_some() && status.asked.as_deref() == asked).then_some(status)
        })
        .await
    }
}

fn told(lines: Vec<Line>) -> String {
    PreflightReport::new(lines).to_message()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_find_under_each_account_is_told_line_by_line_and_again_when_asked() {
    let Some(place) = place("preflight").await else { return };
    let batch = format!("agg/{}/{}", crate::batch_names()[0].0, crate::batch_names()[0].1);
    place.put_batch(&batch).await;
    let mut spec = place.spec();
    spec["manifest"] = json!({
        "publishTo": {"configMap": {"name": "manifests"}},
        "ingestionBucket": "gs://ours-ingestion", "peerValidationBucket": "gs://ours-peer-validation",
        "batchSigningPublicKeys": [{"id": "ours-1", "publicKey": POINTS[0]}],
        "packetEncryptionKey": {"id": "packet", "certificateSigningRequest": REQUEST},
    });
    place.create_processor("us-ct", spec).await;
    let operator = place.start_operator();
    let jobs = place.preflights(&BTreeSet::new()).await;
    place.condition("us-ct", "Preflight", "Unknown", "Running").await;

    // An operator that begins anew hasn't looked at our manifest yet: what runs goes on.
    operator.stopped().await;
    let operator = place.start_operator();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let uids = |jobs: &[Job]| jobs.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>();
    let still = place.preflights(&BTreeSet::new()).await;
    assert_eq!(uids(&still), uids(&jobs), "the restart began others");
    place.condition("us-ct", "Preflight", "Unknown", "Running").await;
    for (job, (account, of)) in jobs
        .iter()
        .zip([("intake", OfStage::Intake), ("aggregate", OfStage::Aggregate)])
    {
        let pod = job.spec.clone().unwrap().template.spec.unwrap();
        assert_eq!(pod.service_account_name.as_deref(), Some(account));
        assert_eq!(pod.containers[0].args.as_deref(), Some(&["work".to_owned()][..]));
        let WorkList::Preflight { of: found, .. } = place.preflight_of(job).await else {
            panic!("{account}: no preflight");
        };
        assert_eq!(found, of);
    }
    // Work goes on meanwhile.
    place.first_job().await;

    let passed = |check| Line::new(check, Outcome::Passed, "fine", "");
    place
        .let_pods_exit(&jobs[0], 0, &told(vec![passed(Check::SigningKey)]))
        .await;
    let denied = Line::new(
        Check::Write,
        Outcome::Failed,
        "access denied: HTTP 403",
        "ask the portal's owner",
    );
    let lines = vec![passed(Check::SigningKey), denied.of(MailboxPlace::Portal)];
    place.let_pods_exit(&jobs[1], 0, &told(lines)).await;
    let status = place.finished_preflight(None).await;
    let failed: Vec<_> = status
        .lines
        .iter()
        .filter(|line| line.outcome == PreflightOutcome::Failed)
        .collect();
    assert_eq!(failed.len(), 1, "{status:?}");
    assert_eq!(
        (failed[0].stage, failed[0].check.as_str(), failed[0].mailbox.as_deref()),
        (PreflightStage::Aggregate, "Write", Some("portal"))
    );
    assert!(
        status
            .lines
            .iter()
            .any(|line| line.stage == PreflightStage::Operator && line.check == "PeersKnown")
    );
    let condition = place.condition("us-ct", "Preflight", "False", "Failed").await;
    assert!(
        condition
            .message
            .starts_with("Aggregate Write portal: access denied: HTTP 403; ask the portal's owner."),
        "{condition:?}"
    );
    until("the Event", async || {
        let events = place.api::<Event>().list(&ListParams::default()).await.ok()?.items;
        let of_preflight = |event: &Event| {
            event
                .message
                .as_ref()
                .is_some_and(|text| text.contains("Aggregate Write portal"))
        };
        events.iter().any(of_preflight).then_some(())
    })
    .await;

    // A restart begins none anew; a person does.
    operator.stopped().await;
    let operator = place.start_operator();
    let known: BTreeSet<String> = jobs.iter().filter_map(ResourceExt::uid).collect();
    place.ask("once more").await;
    let jobs = place.preflights(&known).await;
    for job in &jobs {
        place
            .let_pods_exit(job, 0, &told(vec![passed(Check::SigningKey)]))
            .await;
    }
    place.finished_preflight(Some("once more")).await;
    place.condition("us-ct", "Preflight", "True", "Passed").await;
    let of_intake = ListParams::default().labels("prio-operator.io/stage=intake-preflight");
    let begun = place.api::<Job>().list(&of_intake).await.unwrap();
    let begun: BTreeSet<_> = begun.items.iter().filter_map(ResourceExt::uid).collect();
    let asked = jobs.iter().filter_map(ResourceExt::uid).collect();
    assert!(
        begun.len() == 1 && begun.is_subset(&asked),
        "those of before are taken away, and the restart began none"
    );
    operator.stopped().await;
    place.gone().await;
}

/// Connections come to be and nothing is ever answered: the rest of each look waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_is_named_soon_and_what_pods_found_does_not_wait_for_it() {
    let Some(place) = place("silent").await else { return };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut spec = place.spec();
    spec["mailboxes"]["ingestion"] = json!({
        "url": "s3://us-west-1/ingestion", "endpoint": endpoint, "pathStyle": true, "credentials": {"anonymous": {}},
    });
    place.create_processor("us-ct", spec).await;
    let operator = place.start_operator_with(1, &[&format!("--mailbox-endpoints={endpoint}")]);
    let begun = Instant::now();
    for job in place.preflights(&BTreeSet::new()).await {
        let passed = Line::new(Check::SigningKey, Outcome::Passed, "fine", "");
        place.let_pods_exit(&job, 0, &told(vec![passed])).await;
    }
    let status = place.finished_preflight(None).await;
    assert!(begun.elapsed() < Duration::from_secs(60), "after {:?}", begun.elapsed());
    let listed = status
        .lines
        .iter()
        .find(|line| line.check == "MailboxesListed")
        .unwrap();
    assert_eq!(
        (listed.stage, listed.outcome),
        (PreflightStage::Operator, PreflightOutcome::Failed),
        "{listed:?}"
    );
    assert!(listed.detail.contains("ingestion mailbox"), "{listed:?}");
    // Ends what the operator waits for.
    drop(silent);
    operator.stopped().await;
    place.gone().await;
}
