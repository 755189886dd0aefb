//! Parties that are known by what they publish: a web server that is down for the whole run, a manifest that is broken, a key
//! that is replaced under its id. What is known stays in use, work goes on, and condition and Event say why.

use anyhow::{Context, Result, ensure};
use crds::Peer;
use crds::conditions::{MANIFEST_CURRENT, PEERS_KNOWN, READY, reasons};
use crds::peer::PeerStatus;
use facilitator_core::crypto::BatchVerifyingKey;
use facilitator_core::formats::manifest::{GLOBAL_OBJECT, specific_object};
use futures::{AsyncReadExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::LogParams;
use prio_operator_tests::callers::{self, Pods};
use prio_operator_tests::flow;
use prio_operator_tests::keys::{SigningKey, fresh_signing_key};
use prio_operator_tests::party::{INSTANCE, Pair, Party};
use prio_operator_tests::samples::{self, Damage};
use prio_operator_tests::wait::{Seen, until};
use prio_operator_tests::web::{MANIFESTS, Web, Webs, way_out};
use prio_operator_tests::{fixtures, images};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::kills::kill_operator;
use crate::scenario::{LIMIT, MINUTE, Scenario, run, wait_blocked, wait_condition, wait_delivered_by};

const INGESTOR: &str = "ingestor";
const OTHER: &str = "other-party";
/// What is said of a manifest once all is well with it.
const WELL: &str = "What is published is in use";

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn what_is_known_of_parties_stays_in_use_whatever_they_publish() {
    run("manifests", |scenario| async move {
        let pair = &scenario.pair;
        let [first, second] = &pair.parties;
        let pods = Pods::watch(&pair.cluster);
        let webs = start(&scenario).await?;
        let server_of_second = webs.parties[1].base_url();

        // Down from now on, to the end of the run. An operator that begins meanwhile knows what the one before knew.
        let log = down(pair, &webs.parties[1]).await?;
        let message = told(&scenario, first, OTHER, reasons::FETCH_FAILED, &server_of_second).await?;
        let known = status(pair, first, OTHER).await?.manifest.context("no manifest")?;
        ensure!(
            message.contains(&format!("In use stays the one of {}", known.accepted_at)),
            "it doesn't say what is in use: {message}"
        );
        let since = since(pair, first, OTHER).await?;
        kill_operator(&scenario, first).await?;

        // Cut in the middle.
        let good = share_processor(pair, first)?;
        let broken = good.get(..good.len() / 2).context("a manifest is ASCII")?;
        publish(pair, &first.worker_namespace, &specific_object(INSTANCE), broken).await?;
        told(
            &scenario,
            second,
            OTHER,
            reasons::MANIFEST_REFUSED,
            &specific_object(INSTANCE),
        )
        .await?;
        let window = scenario.write_three()?;
        scenario.sum(&window).await?;

        // Another key under the same id: neither party believes it, and what the old one signed is taken in.
        let replaced = fresh_signing_key(&pair.keys.ingestor.id);
        let mut later = pair.clone();
        later.keys.ingestor = replaced;
        publish(pair, &webs.ingestor.namespace, GLOBAL_OBJECT, &ingestor(&later)?).await?;
        let mut held = Vec::new();
        for party in &pair.parties {
            held.push(
                told(
                    &scenario,
                    party,
                    INGESTOR,
                    reasons::CHANGE_HELD,
                    "replaced under its id",
                )
                .await?,
            );
        }
        let old = samples::write_window(pair, &[scenario.sample(3, 10, Damage::None)?])?;
        for party in &pair.parties {
            wait_delivered_by(party, &old.truth, 1, LIMIT).await?;
        }
        let new = samples::write_window(&later, &[scenario.sample(4, 20, Damage::None)?])?;
        for party in &pair.parties {
            let message = wait_blocked(party, "SignatureInvalid", LIMIT).await?;
            ensure!(
                message.contains(&pair.keys.ingestor.id),
                "it doesn't name the key: {message}"
            );
        }

        // Approved as the message says, it is taken, and what it signed with it.
        for (party, message) in pair.parties.iter().zip(&held) {
            pair.cluster.kubectl(&command_in(message)?).await?;
            told(&scenario, party, INGESTOR, reasons::OK, WELL).await?;
            let changed = "batch-signing key \"ingestor-fresh-1\" replaced";
            scenario
                .event(party, INGESTOR, reasons::MANIFEST_CHANGED, changed)
                .await?;
        }
        scenario.sum(&old.and(new)).await?;

        publish(pair, &first.worker_namespace, &specific_object(INSTANCE), &good).await?;
        told(&scenario, second, OTHER, reasons::OK, WELL).await?;
        // Still down, since then, and no reason to hold up anything.
        told(&scenario, first, OTHER, reasons::FETCH_FAILED, &server_of_second).await?;
        let now = self::since(pair, first, OTHER).await?;
        ensure!(now == since, "it says that it is down since {now:?}, and was {since:?}");
        let message = wait_condition(first, PEERS_KNOWN, "True", "", MINUTE).await?;
        ensure!(
            message.contains(reasons::FETCH_FAILED),
            "it doesn't say what is wrong: {message}"
        );
        for party in &pair.parties {
            wait_condition(party, READY, "True", "", MINUTE).await?;
        }
        // All that the workers did, they did without a word to any of the servers.
        let of_second = webs.parties[1].namespace.as_str();
        callers::no_worker_called(pair, &webs, &pods, &[(of_second, log)]).await?;
        let namespaces: Vec<String> = webs.namespaces().map(str::to_owned).collect();
        pair.cluster.delete_namespaces(&namespaces).await
    })
    .await;
}

/// Both parties and three web servers, until each party knows the ingestor and the other party by their manifests.
async fn start(scenario: &Scenario) -> Result<Webs> {
    let pair = &scenario.pair;
    let [first, second] = &pair.parties;
    scenario.install().await?;
    let webs = Webs::new(
        [&first.name, &second.name],
        [&first.worker_namespace, &second.worker_namespace],
        "manifests-ingestor",
    )?;
    let image = images::import_partner(&pair.cluster).await?;
    webs.start(&pair.cluster, &image).await?;
    publish(pair, &webs.ingestor.namespace, GLOBAL_OBJECT, &ingestor(pair)?).await?;
    for party in &pair.parties {
        let manifest = share_processor(pair, party)?;
        publish(pair, &party.worker_namespace, &specific_object(INSTANCE), &manifest).await?;
    }
    for party in &pair.parties {
        let namespace = &party.worker_namespace;
        let authorities = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authorities", "namespace": namespace},
            "data": {"ca.crt": webs.authority}});
        let peer = |name: &str, kind: &str, web: &Web| {
            json!({"apiVersion": "prio-operator.io/v1alpha1", "kind": "Peer", "metadata": {"name": name, "namespace": namespace},
                "spec": {"party": kind, "manifestBaseUrl": web.base_url(), "instance": INSTANCE,
                         "caBundleRef": {"name": "authorities"}, "refreshSeconds": 10}})
        };
        let mut processor = pair.processor_object(party)?;
        processor["spec"]["ingestor"] = json!({"peerRef": {"name": INGESTOR}});
        processor["spec"]["peer"] = json!({"peerRef": {"name": OTHER}});
        let objects = [
            authorities,
            way_out(&party.operator_namespace),
            // Workers could get there, too.
            way_out(namespace),
            peer(INGESTOR, "Ingestor", &webs.ingestor),
            peer(OTHER, "ShareProcessor", &webs.parties[1 - party.index]),
            processor,
        ];
        pair.cluster.apply(&objects).await?;
    }
    for party in &pair.parties {
        wait_condition(party, PEERS_KNOWN, "True", reasons::OK, MINUTE).await?;
    }
    Ok(webs)
}

/// Has a server serve one manifest from now on.
async fn publish(pair: &Pair, namespace: &str, name: &str, manifest: &str) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": MANIFESTS, "namespace": namespace},
        "data": {name: manifest}});
    pair.cluster.apply(&[object]).await
}

fn public_key(key: &SigningKey) -> Result<(String, Value)> {
    let pem = BatchVerifyingKey::parse(&key.public()?)?.to_pem();
    Ok((
        key.id.clone(),
        json!({"public-key": pem, "expiration": "2123-06-30T00:00:00Z"}),
    ))
}

fn ingestor(pair: &Pair) -> Result<String> {
    let keys = [&pair.keys.ingestor, &pair.keys.fixture_ingestor].map(public_key);
    let keys: Value = keys.into_iter().collect::<Result<_>>()?;
    Ok(json!({
        "format": 1,
        "server-identity": {"gcp-service-account-email": "ingestor@project.iam.gserviceaccount.com"},
        "batch-signing-public-keys": keys,
    })
    .to_string())
}

fn share_processor(pair: &Pair, party: &Party) -> Result<String> {
    let request = fixtures::folder(&pair.cluster.repository).join("manifests/csr.pem");
    let keys: Value = [public_key(&pair.keys.parties[party.index].signing)?]
        .into_iter()
        .collect();
    Ok(json!({
        "format": 2,
        "ingestion-bucket": format!("gs://{}-ingestion", party.name),
        "peer-validation-bucket": format!("gs://{}-peer-validation", party.name),
        "batch-signing-public-keys": keys,
        "packet-encryption-keys": {"packet": {"certificate-signing-request": std::fs::read_to_string(request)?}},
    })
    .to_string())
}

/// Ends a web server's pod and starts none; gives its log to the last line.
async fn down(pair: &Pair, web: &Web) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(pair.cluster.client.clone(), &web.namespace);
    let pod = pair.cluster.ready_pod(&web.namespace, "app=web", MINUTE).await?;
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let stream = pods.log_stream(&pod, &follow).await?;
    pin_mut!(stream);
    let scale = ["scale", "deployment/web", "--replicas=0", "--namespace", &web.namespace];
    pair.cluster.kubectl(&scale).await?;
    until("the web server is down", MINUTE, || async {
        let pods = pair.cluster.pods(&web.namespace, "").await?;
        Ok(if pods.is_empty() {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{} pods", pods.len()))
        })
    })
    .await?;
    let mut log = String::new();
    timeout(MINUTE, stream.read_to_string(&mut log))
        .await
        .context("its log has no end")??;
    Ok(log)
}

async fn status(pair: &Pair, party: &Party, name: &str) -> Result<PeerStatus> {
    let peers: Api<Peer> = Api::namespaced(pair.cluster.client.clone(), &party.worker_namespace);
    peers.get(name).await?.status.context("no status yet")
}

/// Since when a party's Peer says what it says of its manifest.
async fn since(pair: &Pair, party: &Party, name: &str) -> Result<Time> {
    let conditions = status(pair, party, name).await?.conditions;
    let current = conditions
        .into_iter()
        .find(|condition| condition.type_ == MANIFEST_CURRENT);
    Ok(current.context("no such condition")?.last_transition_time)
}

/// Waits until a party's Peer has that reason for what it says of its manifest and names its cause, and an Event says so too;
/// what is in use is good all the time. Gives the message.
async fn told(scenario: &Scenario, party: &Party, name: &str, reason: &str, cause: &str) -> Result<String> {
    let message = until(&format!("{name} of {}: {reason}", party.name), MINUTE, || async {
        let conditions = status(&scenario.pair, party, name).await?.conditions;
        let (ready, why) = flow::condition(&conditions, READY);
        if ready != "True" {
            return Ok(Seen::Never(format!("Ready={ready} {why}")));
        }
        let (now, why) = flow::condition(&conditions, MANIFEST_CURRENT);
        let message = flow::message(&conditions, MANIFEST_CURRENT);
        let there = why == reason && message.contains(cause);
        Ok(if there {
            Seen::Done(message.to_owned())
        } else {
            Seen::NotYet(format!("{now} {why}: {message}"))
        })
    })
    .await?;
    scenario.event(party, name, reason, cause).await?;
    Ok(message)
}

/// The arguments of the kubectl command that a message tells a person to give.
fn command_in(message: &str) -> Result<Vec<&str>> {
    let (_, rest) = message.split_once("kubectl ").context("no command")?;
    let (command, _) = rest.split_once(". ").context("no end of the command")?;
    Ok(command.split_whitespace().collect())
}
