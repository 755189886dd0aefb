//! Who calls S3, and what they may do there, as in life.

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};

use super::{BUCKETS, FILER_PORT, Kind, START_LIMIT, Stores, bucket};
use crate::cluster::{Cluster, pod_proxy};
use crate::party::OPERATOR_MAILBOXES;

const ALL: &[&str] = &["Read", "Write", "List"];

/// Who calls S3.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) secret: String,
}

impl Caller {
    pub(super) fn new(name: &str) -> Self {
        let secret = rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect();
        Self {
            name: name.to_owned(),
            secret,
        }
    }

    pub(super) fn secret_object(&self, namespace: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
               "stringData": {"accessKeyId": self.name, "secretAccessKey": self.secret}})
    }
}

/// What a caller may do in which mailboxes of a party.
struct Rights<'a> {
    caller: &'a Caller,
    actions: &'static [&'static str],
    mailboxes: &'static [&'static str],
}

impl Rights<'_> {
    /// As the SeaweedFS of a party of that name keeps it, without the rights in `closed`, a mailbox.
    fn identity(&self, owner: &str, closed: Option<&str>) -> Value {
        let Caller { name, secret } = self.caller;
        let open = self.mailboxes.iter().filter(|mailbox| Some(**mailbox) != closed);
        let actions: Vec<String> = open
            .map(|mailbox| bucket(owner, mailbox))
            .flat_map(|bucket| self.actions.iter().map(move |action| format!("{action}:{bucket}")))
            .collect();
        json!({"name": name, "credentials": [{"access_key": name, "secret_key": secret}], "actions": actions})
    }
}

impl Stores {
    /// Takes every right in one of their own buckets from First's workers, while all runs; `None`: they have them all again.
    ///
    /// # Errors
    /// When the store can't be told, or lets everybody do everything.
    pub async fn keep_out_first_workers(&self, cluster: &Cluster, mailbox: Option<&str>) -> Result<()> {
        ensure!(self.kinds[0] == Kind::S3, "fake-gcs-server denies nobody anything");
        self.permit(cluster, 0, &self.own_workers(0), mailbox).await
    }

    /// Tells a party's SeaweedFS of everybody whom it is to know; fake-gcs-server doesn't ask.
    pub(super) async fn permit_all(&self, cluster: &Cluster, owner: usize) -> Result<()> {
        if self.kinds[owner] == Kind::Gcs {
            return Ok(());
        }
        let everybody = [
            self.own_workers(owner),
            Rights {
                caller: &self.workers[1 - owner],
                actions: ALL,
                mailboxes: &["peer-validation"],
            },
            Rights {
                caller: &self.operators[owner],
                actions: &["Read", "List"],
                mailboxes: &OPERATOR_MAILBOXES,
            },
            Rights {
                caller: &self.partner,
                actions: ALL,
                mailboxes: &["ingestion", "portal"],
            },
        ];
        for rights in &everybody {
            self.permit(cluster, owner, rights, None).await?;
        }
        Ok(())
    }

    fn own_workers(&self, owner: usize) -> Rights<'_> {
        Rights {
            caller: &self.workers[owner],
            actions: ALL,
            mailboxes: &BUCKETS,
        }
    }

    /// Tells SeaweedFS who a caller is and what it may do; that is so within a moment.
    async fn permit(&self, cluster: &Cluster, owner: usize, rights: &Rights<'_>, closed: Option<&str>) -> Result<()> {
        let (namespace, name) = (self.namespace(owner), &rights.caller.name);
        let pod = cluster.ready_pod(&namespace, "app=store", START_LIMIT).await?;
        let identity = rights.identity(&self.names[owner], closed).to_string();
        let path = format!(
            "{}/etc/iam/identities/{name}.json",
            pod_proxy(&namespace, &pod, FILER_PORT)
        );
        let request = http::Request::put(path).body(identity.into_bytes())?;
        let told = cluster.client.request_text(request).await;
        told.with_context(|| format!("the rights of {name}"))?;
        Ok(())
    }
}
