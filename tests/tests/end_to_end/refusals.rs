//! What the API server refuses, and whether its message helps.

use anyhow::{Result, bail, ensure};
use prio_operator_tests::party::Pair;
use serde_json::{Value, json};

use crate::scenario::run;

/// Applies and gives the refusal.
async fn refused(pair: &Pair, object: &Value, user: Option<&str>) -> Result<String> {
    let impersonation = user.map(|user| format!("--as={user}"));
    let mut arguments = vec!["create", "--filename=-"];
    arguments.extend(impersonation.as_deref());
    match pair.cluster.kubectl_with_input(&arguments, &object.to_string()).await {
        Ok(_) => bail!("the API server took it"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn a_bad_spec_is_refused_with_a_message_that_helps() {
    run("spec", |scenario| async move {
        let pair = &scenario.pair;
        let party = &pair.parties[0];
        pair.apply_surroundings(party).await?;
        let cases: [(&str, Value, &str); 4] = [
            ("/spec/windows/periodSeconds", json!(61), "periodSeconds"),
            ("/spec/mailboxes/ledger/url", json!("ledger"), "file://"),
            (
                "/spec/workers/aggregate/serviceAccountName",
                json!("intake"),
                "service accounts of their own",
            ),
            ("/spec/share", json!("Third"), "First"),
        ];
        for (pointer, value, says) in cases {
            let mut object = pair.processor_object(party)?;
            if let Some(field) = object.pointer_mut(pointer) {
                *field = value;
            }
            let message = refused(pair, &object, None).await?;
            ensure!(
                message.contains(says),
                "{pointer}: the message doesn't name {says}: {message}"
            );
        }
        // What is fixed stays as it is.
        pair.cluster.apply(&[pair.processor_object(party)?]).await?;
        let Err(error) = party.patch(&json!({"spec": {"instance": "other"}})).await else {
            bail!("the instance could be changed");
        };
        ensure!(format!("{error:#}").contains("immutable"), "{error:#}");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a node: tests/run --only end-to-end"]
async fn an_author_without_rights_to_a_named_secret_is_refused() {
    run("author", |scenario| async move {
        let pair = &scenario.pair;
        let party = &pair.parties[0];
        pair.apply_surroundings(party).await?;
        let namespace = &party.worker_namespace;
        let rule = |groups: &str, resources: &str, verbs: &[&str]| {
            json!({"apiGroups": [groups], "resources": [resources], "verbs": verbs})
        };
        let role = |rules: Vec<Value>| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": {"name": "author", "namespace": namespace}, "rules": rules})
        };
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "author", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "author"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "author"}]});
        let create = rule("prio-operator.io", "datashareprocessors", &["create", "get"]);
        let impersonate = rule("", "serviceaccounts", &["impersonate"]);
        pair.cluster.apply(&[role(vec![create.clone(), impersonate.clone()]), binding]).await?;
        let object = pair.processor_object(party)?;
        let message = refused(pair, &object, Some("author")).await?;
        ensure!(message.contains("Secret") || message.contains("secret"), "it doesn't name the Secret: {message}");
        ensure!(message.contains("prio-operator-authors"), "refused by another than the policy: {message}");

        // With the rights it is taken.
        pair.cluster.apply(&[role(vec![create, impersonate, rule("", "secrets", &["get"])])]).await?;
        pair.cluster.kubectl_with_input(&["create", "--as=author", "--filename=-"], &object.to_string()).await?;
        Ok(())
    })
    .await;
}
