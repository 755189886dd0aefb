//! Each rule again, on a real API server: `PRIO_OPERATOR_TEST_KUBECONFIG` names the kubeconfig of one for tests.
//! Without it, nothing is tried.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod cases;

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Client, Config};
use serde_json::{Value, json};

const NAMESPACE: &str = "prio-operator-crd-test";

async fn client() -> Option<Client> {
    let Ok(path) = std::env::var("PRIO_OPERATOR_TEST_KUBECONFIG") else {
        eprintln!("skipped: PRIO_OPERATOR_TEST_KUBECONFIG is not set");
        return None;
    };
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Some(Client::try_from(config).unwrap())
}

/// Applies the definitions and waits until they serve.
async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crds::definitions::definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let params = PatchParams::apply("prio-operator-crd-test").force();
        api.patch(&name, &params, &Patch::Apply(&definition)).await.unwrap();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established)
            .await
            .unwrap()
            .unwrap();
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
    let _ = namespaces.create(&PostParams::default(), &namespace).await;
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(crds::GROUP, crds::VERSION, object["kind"].as_str().unwrap());
    let plural = match object["kind"].as_str().unwrap() {
        "DataShareProcessor" => "datashareprocessors",
        "Batch" => "batches",
        "KeyRing" => "keyrings",
        "Peer" => "peers",
        _ => "aggregationwindows",
    };
    Api::namespaced_with(
        client.clone(),
        NAMESPACE,
        &ApiResource::from_gvk_with_plural(&kind, plural),
    )
}

fn object(value: &Value) -> DynamicObject {
    let mut value = value.clone();
    value["metadata"]["namespace"] = json!(NAMESPACE);
    serde_json::from_value(value).unwrap()
}

/// Tries a case without leaving anything behind; what the API server says where it refuses.
async fn attempt(client: &Client, case: &cases::Case) -> String {
    let new = case.object();
    let api = api(client, &new);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let Some(old) = case.old() else {
        return api
            .create(&dry, &object(&new))
            .await
            .err()
            .map_or_else(String::new, |error| error.to_string());
    };
    let name = old["metadata"]["name"].as_str().unwrap().to_owned();
    let created = api.create(&PostParams::default(), &object(&old)).await.unwrap();
    let mut changed = object(&new);
    changed.metadata.resource_version = created.metadata.resource_version;
    let result = api.replace(&name, &dry, &changed).await;
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    result.err().map_or_else(String::new, |error| error.to_string())
}

#[tokio::test]
async fn the_api_server_takes_and_refuses_the_same() {
    let Some(client) = client().await else { return };
    install(&client).await;
    let mut wrong = Vec::new();
    for case in cases::good() {
        let said = attempt(&client, &case).await;
        if !said.is_empty() {
            wrong.push(format!("{}: refused: {said}", case.name));
        }
    }
    for case in cases::refused_by_rule().into_iter().chain(cases::refused_by_schema()) {
        let said = attempt(&client, &case).await;
        if !said.contains(case.message) {
            wrong.push(format!("{}: {said:?} holds not {:?}", case.name, case.message));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    defaults(&client).await;
}

/// A new object is pending, not without a status: tools that wait for `Ready` wait.
async fn defaults(client: &Client) {
    let bases = [
        cases::processor(),
        cases::batch(),
        cases::window(),
        cases::peer(),
        cases::key_rings::key_ring(),
    ];
    for mut base in bases {
        base["metadata"]["name"] = json!("defaults");
        let api = api(client, &base);
        let created = api.create(&PostParams::default(), &object(&base)).await.unwrap();
        let read = api.get("defaults").await;
        api.delete("defaults", &DeleteParams::default()).await.unwrap();
        for found in [created, read.unwrap()] {
            let ready = &found.data["status"]["conditions"][0];
            assert_eq!(
                (&ready["type"], &ready["status"]),
                (&json!("Ready"), &json!("Unknown")),
                "{}",
                base["kind"]
            );
            assert_eq!(ready["reason"], json!("Pending"));
        }
    }
}
