//! Peers against a real API server, and a web server of each party.

use std::time::Duration;

use crds::{DataShareProcessor, Peer};
use facilitator_core::formats::work::Parameters;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use uuid::Uuid;

use super::batch_names;
use super::manifests::{BOTH_IDS, POINTS, REQUEST, hold_to_the_originals_rules, ingestor, portal, share_processor};
use super::place::{Place, place, until, works};
use super::web::{Answer, Web};

const SPECIFIC: &str = "/us-ct-manifest.json";
const GLOBAL: &str = "/global-manifest.json";
const BUCKET: &str = "s3://us-west-1/theirs";

impl Place {
    async fn create_peer(&self, web: &Web, name: &str, party: &str) {
        let authorities =
            json!({"metadata": {"name": format!("{name}-authorities")}, "data": {"ca.crt": web.authority}});
        self.create::<ConfigMap>(authorities).await;
        let mut spec = json!({
            "party": party, "manifestBaseUrl": web.url(), "caBundleRef": {"name": format!("{name}-authorities")},
            "refreshSeconds": 10,
        });
        if party != "Portal" {
            spec["instance"] = json!("us-ct");
        }
        self.create::<Peer>(json!({"metadata": {"name": name}, "spec": spec}))
            .await;
    }

    async fn annotate(&self, name: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let api = self.api::<Peer>();
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Has a Peer looked at now, and waits for what is said of its manifest.
    async fn after_look(&self, name: &str, reason: &str) -> String {
        self.annotate(name, "prio-operator.io/retry", &Uuid::new_v4().to_string())
            .await;
        let status = if reason == "AsExpected" { "True" } else { "False" };
        self.condition_of::<Peer>(name, "ManifestCurrent", status, reason)
            .await
            .message
    }

    async fn peer(&self, name: &str) -> Peer {
        self.api::<Peer>().get(name).await.unwrap()
    }

    /// Ids and points of the keys in use.
    async fn keys_in_use(&self, name: &str) -> Vec<(String, String)> {
        let manifest = self.peer(name).await.status.unwrap().manifest.unwrap();
        let keys = manifest.batch_signing_keys.into_iter();
        keys.map(|key| (key.id, key.public_key)).collect()
    }

    pub async fn event(&self, about: &str, reason: &str, part: &str) -> Event {
        until(&format!("an Event {reason} that holds {part:?}"), async || {
            let events = self.api::<Event>().list(&ListParams::default()).await.ok()?.items;
            events.into_iter().find(|event| {
                event.regarding.as_ref().and_then(|of| of.name.as_deref()) == Some(about)
                    && event.reason.as_deref() == Some(reason)
                    && event.note.as_ref().is_some_and(|note| note.contains(part))
            })
        })
        .await
    }

    async fn parameters_of(&self, job: &Job) -> Parameters {
        let pod = job.spec.clone().unwrap().template.spec.unwrap();
        let volumes = pod.volumes.unwrap_or_default();
        let volume = volumes.into_iter().find(|volume| volume.name == "parameters").unwrap();
        let config_map = self
            .api::<ConfigMap>()
            .get(&volume.config_map.unwrap().name)
            .await
            .unwrap();
        serde_json::from_str(&config_map.data.unwrap()["parameters.json"]).unwrap()
    }
}

fn known(keys: &[(&str, usize)]) -> Vec<(String, String)> {
    keys.iter()
        .map(|(id, point)| ((*id).to_owned(), POINTS[*point].to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_manifest_is_kept_whatever_the_other_party_publishes() {
    let Some(place) = place("peers").await else { return };
    let mut web = Web::start().await;
    place.create_peer(&web, "other", "ShareProcessor").await;
    let operator = place.start_operator();
    let message = place
        .condition_of::<Peer>("other", "ManifestCurrent", "False", "FetchFailed")
        .await
        .message;
    assert!(message.contains("404"), "{message}");
    place
        .condition_of::<Peer>("other", "Ready", "False", "FetchFailed")
        .await;

    let good = [("k1", 0)];
    web.object(SPECIFIC, share_processor(&good, BUCKET));
    place.after_look("other", "AsExpected").await;
    assert_eq!(place.keys_in_use("other").await, known(&good));
    place
        .event(
            "other",
            "ManifestChanged",
            "The first manifest is in use: batch-signing key \"k1\"",
        )
        .await;

    // Nothing is written while nothing changes, and nothing is sent.
    let (before, unchanged) = (place.peer("other").await.resource_version(), web.unchanged());
    until("the next look", async || (web.unchanged() > unchanged).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(place.peer("other").await.resource_version(), before);

    let table = [
        (Answer::Object("{\"format\": 2".into()), "ManifestRefused", "EOF"),
        (
            Answer::Object(share_processor(&[], BUCKET)),
            "ManifestRefused",
            "no key",
        ),
        (
            Answer::Object(share_processor(&[("k1", 1)], BUCKET)),
            "ChangeHeld",
            "\"k1\" replaced under its id",
        ),
        (
            Answer::Object(share_processor(&good, "s3://us-west-1/evil")),
            "ChangeHeld",
            "peer-validation-bucket moved: s3://us-west-1/evil",
        ),
        (Answer::Status(500), "FetchFailed", "answers 500"),
        (Answer::Endless, "FetchFailed", "longer than 262144 bytes"),
        (Answer::Hanging, "FetchFailed", "no whole answer within 10 s"),
        (
            Answer::Redirect("https://localhost/x".into()),
            "FetchFailed",
            "redirected to \"https://localhost/x\"",
        ),
    ];
    for (answer, reason, part) in table {
        web.set(SPECIFIC, answer.clone());
        place
            .annotate("other", "prio-operator.io/retry", &Uuid::new_v4().to_string())
            .await;
        until(&format!("{answer:?}: {reason}: {part}"), async || {
            let conditions = place.peer("other").await.status?.conditions;
            let current = conditions.into_iter().find(|c| c.type_ == "ManifestCurrent")?;
            (current.reason == reason && current.message.contains(part)).then_some(())
        })
        .await;
        place.condition_of::<Peer>("other", "Ready", "True", "AsExpected").await;
        assert_eq!(place.keys_in_use("other").await, known(&good), "{answer:?}");
    }
    place.event("other", "ManifestRefused", "us-ct-manifest.json").await;
    place.event("other", "FetchFailed", "answers 500").await;

    // A restart while their server is down forgets nothing.
    web.down();
    let message = place.after_look("other", "FetchFailed").await;
    assert!(message.contains("In use stays the one of"), "{message}");
    operator.stopped().await;
    let operator = place.start_operator();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(place.keys_in_use("other").await, known(&good));
    web.object(SPECIFIC, share_processor(&good, BUCKET));
    web.up().await;
    place.after_look("other", "AsExpected").await;
    place.event("other", "AsExpected", "in use").await;

    // A global document that is odd, broken or doesn't come is told, and keeps no key from use.
    for (answer, part) in [
        (Answer::Status(500), "answers 500"),
        (
            Answer::Object(BOTH_IDS.into()),
            "it holds both aws-account-id and gcp-service-account-id",
        ),
        (Answer::Object("{".into()), "EOF"),
        (
            Answer::Hanging,
            "no whole answer within 10 s. Work needs nothing of it; what was known of it stays",
        ),
    ] {
        web.set(GLOBAL, answer.clone());
        place
            .annotate("other", "prio-operator.io/retry", &Uuid::new_v4().to_string())
            .await;
        until(&format!("{answer:?}: a warning {part}"), async || {
            let warnings = place.peer("other").await.status?.warnings;
            warnings.iter().any(|warning| warning.contains(part)).then_some(())
        })
        .await;
        place
            .condition_of::<Peer>("other", "ManifestCurrent", "True", "AsExpected")
            .await;
        assert_eq!(place.keys_in_use("other").await, known(&good), "{answer:?}");
    }
    web.set(GLOBAL, Answer::Status(503));

    // A key that is added is taken at once, even then; fewer than before wait for their digest.
    let both = [("k1", 0), ("k2", 1)];
    web.object(SPECIFIC, share_processor(&both, BUCKET));
    place.annotate("other", "prio-operator.io/retry", "both").await;
    place
        .event("other", "ManifestChanged", "batch-signing key \"k2\" added")
        .await;
    assert_eq!(place.keys_in_use("other").await, known(&both));
    web.object(SPECIFIC, share_processor(&good, BUCKET));
    place.after_look("other", "ChangeHeld").await;
    let held = place.peer("other").await.status.unwrap().held.unwrap();
    assert!(
        held.suspicious[0].contains("fewer batch-signing keys than before: 1, were 2"),
        "{held:?}"
    );
    place
        .event("other", "ChangeHeld", &format!("approve-manifest={}", held.digest))
        .await;
    place
        .annotate("other", "prio-operator.io/approve-manifest", &"0".repeat(64))
        .await;
    place.after_look("other", "ChangeHeld").await;
    assert_eq!(
        place.keys_in_use("other").await,
        known(&both),
        "another digest approves nothing"
    );
    place
        .annotate("other", "prio-operator.io/approve-manifest", &held.digest)
        .await;
    place
        .condition_of::<Peer>("other", "ManifestCurrent", "True", "AsExpected")
        .await;
    assert_eq!(place.keys_in_use("other").await, known(&good));
    assert_eq!(place.peer("other").await.status.unwrap().held, None);
    operator.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processors_follow_their_peers_and_pods_are_given_what_they_need() {
    let Some(place) = place("parties").await else { return };
    let (theirs, apples, portals) = (Web::start().await, Web::start().await, Web::start().await);
    theirs.object(SPECIFIC, share_processor(&[("theirs-1", 0)], BUCKET));
    // No global manifest of this ingestor: its specific one is asked for.
    apples.object(SPECIFIC, ingestor(&[("apple-1", 0)]));
    portals.object(GLOBAL, portal());
    place.create_peer(&theirs, "other", "ShareProcessor").await;
    place.create_peer(&portals, "portal", "Portal").await;
    let names = batch_names();
    let put = async |n: usize| place.put_batch(&format!("agg/{}/{}", names[n].0, names[n].1)).await;
    put(0).await;
    let mut spec = place.spec();
    spec["ingestor"] = json!({"peerRef": {"name": "apple"}});
    spec["peer"] = json!({"peerRef": {"name": "other"}});
    spec["portal"] = json!({"peerRef": {"name": "portal"}});
    spec["mailboxes"]["outgoing"]["portal"] = json!({});
    place.create_processor("us-ct", spec).await;
    let operator = place.start_operator();
    let unknown = place.condition("us-ct", "PeersKnown", "False", "PeerMissing").await;
    assert!(
        unknown.message.contains("there is no Peer apple"),
        "{}",
        unknown.message
    );
    place.condition("us-ct", "Ready", "False", "PeerMissing").await;
    assert_eq!(place.jobs().await, 0);

    place.create_peer(&apples, "apple", "Ingestor").await;
    place.condition("us-ct", "PeersKnown", "True", "AsExpected").await;
    let job = place.first_job().await;
    let parameters = place.parameters_of(&job).await;
    let ids = |keys: &[facilitator_core::formats::work::PublicKeyParameter]| {
        keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&parameters.ingestor_keys), ids(&parameters.peer_keys)),
        (vec!["apple-1".into()], vec!["theirs-1".into()])
    );
    assert_eq!(parameters.peer_keys[0].public_key, POINTS[0]);
    assert_eq!(
        parameters.mailboxes.portal.url, "gs://pha-sums",
        "the portal's bucket for First"
    );
    // Where the others' servers are is nothing that a pod is told.
    let told = format!(
        "{}{}",
        serde_json::to_string(&job).unwrap(),
        serde_json::to_string(&parameters).unwrap()
    );
    for web in [&theirs, &apples, &portals] {
        assert!(
            !told.contains(&web.address.port().to_string()) && !told.contains("manifest"),
            "{told}"
        );
    }

    // A new key reaches the next Job without a restart.
    let asked = apples.asked(GLOBAL);
    apples.object(SPECIFIC, ingestor(&[("apple-1", 0), ("apple-2", 1)]));
    place.annotate("apple", "prio-operator.io/retry", "now").await;
    until("the key is known", async || {
        (place.keys_in_use("apple").await.len() == 2).then_some(())
    })
    .await;
    assert!(apples.asked(GLOBAL) > asked, "the global one is asked for each time");
    put(1).await;
    place.let_pods_exit(&job, 0, "").await;
    until("a Job with the new key", async || {
        let jobs = place.api::<Job>().list(&works()).await.ok()?.items;
        for job in jobs {
            if ids(&place.parameters_of(&job).await.ingestor_keys) == ["apple-1", "apple-2"] {
                return Some(());
            }
        }
        None
    })
    .await;

    // One party gone: what runs goes on, nothing new begins.
    place
        .api::<Peer>()
        .delete("other", &DeleteParams::default())
        .await
        .unwrap();
    place.condition("us-ct", "PeersKnown", "False", "PeerMissing").await;
    place.condition("us-ct", "Ready", "False", "PeerMissing").await;
    let before = place.jobs().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(place.jobs().await, before);
    operator.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_manifests_are_published_once_and_read_back_where_partners_get_them() {
    let Some(place) = place("own").await else { return };
    let web = Web::start().await;
    place
        .create::<ConfigMap>(json!({"metadata": {"name": "authorities"}, "data": {"ca.crt": web.authority}}))
        .await;
    let mut spec = place.spec();
    spec["manifest"] = json!({
        "publishTo": {"configMap": {"name": "manifests"}},
        "servedAt": {"baseUrl": web.url(), "caBundleRef": {"name": "authorities"}},
        "serverIdentity": {"gcpServiceAccountEmail": "writer@project.iam.gserviceaccount.com"},
        "peerValidationBucket": "gs://ours-peer-validation",
        "batchSigningPublicKeys": [{"id": "ours-1", "publicKey": POINTS[0]}],
        "packetEncryptionKey": {"id": "packet", "certificateSigningRequest": REQUEST},
    });
    place.create_processor("us-ct", spec).await;
    let operator = place.start_operator();
    let kind = "ManifestPublished";
    let refused = place.condition("us-ct", kind, "False", "ManifestRefused").await;
    assert!(refused.message.contains("give ingestionBucket"), "{}", refused.message);

    let change = async |patch: Value| {
        let api = place.api::<DataShareProcessor>();
        api.patch(
            "us-ct",
            &PatchParams::default(),
            &Patch::Merge(&json!({"spec": {"manifest": patch}})),
        )
        .await
        .unwrap();
    };
    place
        .create::<ConfigMap>(json!({"metadata": {"name": "manifests"}}))
        .await;
    change(json!({"ingestionBucket": "gs://ours-ingestion"})).await;
    let foreign = place.condition("us-ct", kind, "False", "PublishFailed").await;
    assert!(
        foreign.message.contains("isn't this processor's"),
        "{}",
        foreign.message
    );
    place
        .api::<ConfigMap>()
        .delete("manifests", &DeleteParams::default())
        .await
        .unwrap();

    place.condition("us-ct", kind, "False", "NotServed").await;
    // What a web server does with the ConfigMap.
    let serve = async || {
        let data = place.api::<ConfigMap>().get("manifests").await.unwrap().data.unwrap();
        for (name, text) in &data {
            web.object(&format!("/{name}"), text.clone());
        }
        data
    };
    // By a web server that lets caches keep it for an hour: it is there, and that is no way to serve it.
    let data = place.api::<ConfigMap>().get("manifests").await.unwrap().data.unwrap();
    for (name, text) in data {
        web.set(&format!("/{name}"), Answer::Cached(text, "max-age=3600"));
    }
    let cached = place.condition("us-ct", kind, "True", "CachedTooLong").await;
    assert!(cached.message.contains("max-age=3600"), "{}", cached.message);
    place.event("us-ct", "CachedTooLong", "Cache-Control: no-cache").await;
    let first = serve().await;
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        ["global-manifest.json", "us-ct-manifest.json"]
    );
    place.condition("us-ct", kind, "True", "AsExpected").await;
    hold_to_the_originals_rules(&first);

    // Nothing is written while nothing changes; what others change is put right.
    let version = async || {
        place
            .api::<ConfigMap>()
            .get("manifests")
            .await
            .unwrap()
            .resource_version()
    };
    let before = version().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(version().await, before);
    let scribble = json!({"data": {"us-ct-manifest.json": "{}", "more": "x"}});
    let api = place.api::<ConfigMap>();
    api.patch("manifests", &PatchParams::default(), &Patch::Merge(&scribble))
        .await
        .unwrap();
    until("the ConfigMap is ours again", async || {
        (place.api::<ConfigMap>().get("manifests").await.ok()?.data? == first).then_some(())
    })
    .await;

    // A new key: the old manifest is still served until the web server has it.
    change(json!({"batchSigningPublicKeys": [
        {"id": "ours-1", "publicKey": POINTS[0]}, {"id": "ours-2", "publicKey": POINTS[1]},
    ]}))
    .await;
    let lagging = place.condition("us-ct", kind, "False", "NotServed").await;
    assert!(
        lagging.message.contains("there is still the one of before"),
        "{}",
        lagging.message
    );
    // Another key under an id of ours is no lag.
    let wrong = share_processor(&[("ours-1", 1), ("ours-2", 1)], "gs://ours-peer-validation");
    web.object(SPECIFIC, wrong);
    let wrong = place.condition("us-ct", kind, "False", "OtherKeyServed").await;
    assert!(
        wrong.message.contains("\"ours-1\" replaced under its id"),
        "{}",
        wrong.message
    );
    place.event("us-ct", "OtherKeyServed", "ours-1").await;
    let second = serve().await;
    assert!(second["us-ct-manifest.json"].contains("ours-2"));
    hold_to_the_originals_rules(&second);
    place.condition("us-ct", kind, "True", "AsExpected").await;
    operator.stopped().await;
    place.gone().await;
}
