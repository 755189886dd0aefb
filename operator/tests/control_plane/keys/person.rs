//! Rings whose versions wait for people: an authority's certificate, and a manifest that somebody else publishes.

use crds::key_ring::VersionState;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::json;

use super::help::{is, ring};
use crate::place::{Place, place};

impl Place {
    /// Events of a reason about a ring.
    async fn told(&self, ring: &str, reason: &str) -> Vec<Event> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let about = |event: &Event| event.regarding.as_ref().and_then(|of| of.name.as_deref()) == Some(ring);
        events
            .into_iter()
            .filter(|event| about(event) && event.reason.as_deref() == Some(reason))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_are_waited_for_are_told_and_their_annotations_end_it() {
    let Some(place) = place("person").await else { return };
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    // Without a manifest of its own: nobody but a person knows what partners get.
    let mut spec = place.spec();
    spec["keys"] = json!({
        "batchSigning": {"keyRingRef": {"name": "signing"}},
        "packetDecryption": [{"keyRingRef": {"name": "packets"}}],
    });
    place.create_processor("us-ct", spec).await;
    for (name, purpose) in [("signing", "BatchSigning"), ("packets", "PacketEncryption")] {
        let mut ring = ring(purpose, &format!("{name}-key"), &recipient);
        ring["rotation"] = json!({"createMinAgeSeconds": 90_000, "retireMinAgeSeconds": 90_000});
        if name == "packets" {
            ring["certificate"]["authority"] = json!("External");
            ring["publication"] = json!({"method": "Manual"});
        }
        place.create_ring(name, &ring).await;
    }
    let (operator, keys) = (place.start_operator(), place.start_keys_controller());
    let waits = |ring: &'static str, reason: &'static str| place.ring_says(ring, "WaitsForPerson", "True", reason);
    place
        .while_probes_find_the_keys(async {
            waits("packets", "WaitsForCertificate").await;
            waits("signing", "WaitsForPublication").await;
        })
        .await;
    let id = async |ring: &str| {
        place
            .versions(ring, "one", |versions| versions.len() == 1)
            .await
            .remove(0)
            .id
    };
    let (packet, signing) = (id("packets").await, id("signing").await);
    for (ring, reason, id) in [
        ("packets", "WaitsForCertificate", &packet),
        ("signing", "WaitsForPublication", &signing),
    ] {
        let event = place.event(ring, reason, id).await;
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        let metrics = keys.metrics.encode(Timestamp::now()).unwrap();
        let series = format!("key_ring=\"{ring}\",state=\"WaitsForPerson\"}} 1");
        assert!(metrics.contains(&series), "{metrics}");
    }
    assert_eq!(
        place.public("packets").await,
        None,
        "nothing is public without a certificate"
    );

    // Another key's certificate ends nothing; then it is among several.
    place
        .annotate_ring("packets", "prio-operator.io/certificate-issued", "packets-key-1")
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    waits("packets", "WaitsForCertificate").await;
    let ids = format!("packets-key-1, {packet} ,");
    place
        .annotate_ring("packets", "prio-operator.io/certificate-issued", &ids)
        .await;
    let message = waits("packets", "WaitsForPublication").await;
    assert!(
        message.contains(&format!("prio-operator.io/published={packet}")),
        "{message}"
    );
    place.event("packets", "KeyCertified", &packet).await;
    place.event("packets", "WaitsForPublication", &packet).await;
    assert!(place.public("packets").await.unwrap().get(&packet).is_some());
    for reason in ["WaitsForCertificate", "WaitsForPublication"] {
        let told = place.told("packets", reason).await;
        assert!(told.len() == 1 && told[0].series.is_none(), "told once: {told:?}");
    }

    for (ring, id) in [("packets", &packet), ("signing", &signing)] {
        place.annotate_ring(ring, "prio-operator.io/published", id).await;
        place
            .versions(ring, "in use", |versions| versions.iter().any(is(VersionState::InUse)))
            .await;
        place.ring_says(ring, "WaitsForPerson", "False", "AsExpected").await;
        place.ring_says(ring, "Ready", "True", "AsExpected").await;
    }
    operator.stopped().await;
    keys.stopped().await;
    place.gone().await;
}
