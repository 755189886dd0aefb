//! Two parties on one node: namespaces, folders, claims, Secrets, charts and DataShareProcessors.
//!
//! The parties share only the folders that partners share in life; each has its operator and its workers in namespaces
//! of its own.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use crds::{AggregationWindow, Batch, DataShareProcessor};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::images::Images;
use crate::keys::{KeySet, PartyKeys};
use crate::stores::{Kind, Stores};

/// The user that all pods run as.
const USER: u32 = 65_532;
/// The mailboxes of a party, as its pods see them under `/mailboxes`, and as claims.
pub const MAILBOXES: [&str; 5] = ["ingestion", "peer-validation", "ledger", "outgoing-peer", "portal"];
/// The mailboxes that the operator itself lists.
pub const OPERATOR_MAILBOXES: [&str; 3] = ["ingestion", "peer-validation", "ledger"];
/// `workers.maxPods` of every party here.
pub const MAX_PODS: u32 = 2;
/// The name in sum-part paths of every party here.
pub const INSTANCE: &str = "demo";

/// `spec.windows` of both parties, and how their batches are cut.
#[derive(Clone, Debug)]
pub struct Settings {
    /// RFC 3339: the first window that is ours.
    pub start_at: String,
    /// Seconds; the fixtures were made for three hours.
    pub period_seconds: u32,
    /// Seconds between a cutoff and its planning.
    pub settle_seconds: u32,
    /// The floor.
    pub min_clients: u64,
    /// Batches that one pod takes in.
    pub batches_per_pod: u32,
    /// Batches that one pod sums.
    pub sum_batches_per_pod: u32,
    /// After so many seconds a Job that doesn't start is removed.
    pub start_deadline_seconds: u32,
    /// `All` or `Exceptions`.
    pub batch_objects: &'static str,
    /// At most so many Batches are kept.
    pub max_batch_objects: u32,
    /// `ThreeObjects` or `SingleObject`.
    pub validation_format: &'static str,
    /// Seconds between two looks of an operator.
    pub tick_seconds: u32,
}

impl Settings {
    /// Windows of three hours from a day on, summed soon after their cutoff.
    pub fn from_day(day: jiff::civil::Date) -> Self {
        Self {
            start_at: format!("{day}T00:00:00Z"),
            period_seconds: 10_800,
            settle_seconds: 5,
            min_clients: 10,
            batches_per_pod: 8,
            sum_batches_per_pod: 2_000,
            start_deadline_seconds: 60,
            batch_objects: "All",
            max_batch_objects: 5_000,
            validation_format: "ThreeObjects",
            // Nobody wants to wait for a clock here.
            tick_seconds: 2,
        }
    }

    /// The day on which the windows are.
    ///
    /// # Errors
    /// When `start_at` isn't a time.
    pub fn day(&self) -> Result<jiff::civil::Date> {
        Ok(self
            .start_at
            .parse::<jiff::Timestamp>()?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date())
    }
}

/// One party.
#[derive(Clone)]
pub struct Party {
    /// Its name: also its DataShareProcessor's.
    pub name: String,
    /// 0 First, 1 Second.
    pub index: usize,
    /// The namespace of its operator.
    pub operator_namespace: String,
    /// The namespace of its processor, Batches, windows, Jobs, Secrets.
    pub worker_namespace: String,
    client: kube::Client,
}

impl Party {
    fn new(cluster: &Cluster, name: String, index: usize) -> Self {
        Self {
            operator_namespace: format!("{name}-operator"),
            worker_namespace: format!("{name}-workers"),
            name,
            index,
            client: cluster.client.clone(),
        }
    }

    /// Its DataShareProcessors.
    pub fn processors(&self) -> Api<DataShareProcessor> {
        Api::namespaced(self.client.clone(), &self.worker_namespace)
    }

    /// Its processor as it is now.
    pub async fn processor(&self) -> Result<DataShareProcessor> {
        Ok(self.processors().get(&self.name).await?)
    }

    /// All its Batches.
    pub async fn batches(&self) -> Result<Vec<Batch>> {
        let api: Api<Batch> = Api::namespaced(self.client.clone(), &self.worker_namespace);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// All its windows.
    pub async fn windows(&self) -> Result<Vec<AggregationWindow>> {
        let api: Api<AggregationWindow> = Api::namespaced(self.client.clone(), &self.worker_namespace);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// Changes its processor by a merge patch.
    pub async fn patch(&self, patch: &Value) -> Result<()> {
        self.processors()
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }
}

/// Two parties and what lies between them.
#[derive(Clone)]
pub struct Pair {
    /// The cluster that they are on.
    pub cluster: Cluster,
    /// First and Second.
    pub parties: [Party; 2],
    /// Everybody's keys.
    pub keys: KeySet,
    /// The folder of all mailboxes.
    pub folder: PathBuf,
    /// What both agreed on.
    pub settings: Settings,
    /// The clouds that mailboxes are in; `None`: mailboxes are the folders.
    pub stores: Option<Stores>,
}

impl Pair {
    /// Names and keys; nothing is made yet. `names` are First's and Second's.
    pub fn new(cluster: &Cluster, names: [&str; 2], folder: &Path, keys: KeySet, settings: Settings) -> Self {
        let party = |index: usize| Party::new(cluster, names[index].to_owned(), index);
        Self {
            cluster: cluster.clone(),
            parties: [party(0), party(1)],
            keys,
            folder: folder.to_path_buf(),
            settings,
            stores: None,
        }
    }

    /// The same with mailboxes in two clouds; folders are then what is copied in and out.
    #[must_use]
    pub fn in_clouds(self, kinds: [Kind; 2]) -> Self {
        let stores = Stores::new([&self.parties[0].name, &self.parties[1].name], kinds);
        Self {
            stores: Some(stores),
            ..self
        }
    }

    /// The folder of a party's mailbox. What one party sends is what the other receives.
    pub fn mailbox(&self, index: usize, name: &str) -> PathBuf {
        let own = ["first", "second"][index];
        let other = ["second", "first"][index];
        self.folder.join(match name {
            "outgoing-peer" => format!("peer-validation-{other}"),
            _ => format!("{name}-{own}"),
        })
    }

    /// Makes the folders, which belong to the pods' user, as a bucket belongs to its party.
    pub fn make_folders(&self) -> Result<()> {
        for index in 0..2 {
            for name in MAILBOXES {
                make_folder(&self.mailbox(index, name))?;
            }
        }
        Ok(())
    }

    /// Makes namespaces, claims and Secrets of a party.
    pub async fn apply_surroundings(&self, party: &Party) -> Result<()> {
        let mut objects = Vec::new();
        for (namespace, mailboxes) in [
            (&party.worker_namespace, &MAILBOXES[..]),
            (&party.operator_namespace, &OPERATOR_MAILBOXES[..]),
        ] {
            objects.push(namespace_object(namespace));
            // Buckets need no claims.
            for name in mailboxes.iter().filter(|_| self.stores.is_none()) {
                objects.extend(volume_objects(namespace, name, &self.mailbox(party.index, name)));
            }
        }
        objects.extend(secret_objects(&party.worker_namespace, &self.keys.parties[party.index]));
        if let Some(stores) = &self.stores {
            objects.extend(stores.secret_objects(party.index, &party.worker_namespace, &party.operator_namespace));
        }
        self.cluster
            .apply(&objects)
            .await
            .with_context(|| format!("namespaces and Secrets of {}", party.name))?;
        if self.stores.is_some() {
            return Ok(());
        }
        // A pod that comes before its claims are bound waits for the scheduler's next try.
        for namespace in [&party.worker_namespace, &party.operator_namespace] {
            let bound = "--for=jsonpath={.status.phase}=Bound";
            let wait = [
                "wait",
                bound,
                "persistentvolumeclaims",
                "--all",
                "--timeout=60s",
                "--namespace",
                namespace,
            ];
            self.cluster.kubectl(&wait).await?;
        }
        Ok(())
    }

    /// Installs the party's chart.
    pub async fn install(&self, party: &Party, images: &Images) -> Result<()> {
        let chart = self
            .cluster
            .repository
            .join("charts/prio-operator")
            .display()
            .to_string();
        let arguments = [
            "upgrade",
            "--install",
            "prio-operator",
            &chart,
            "--namespace",
            &party.operator_namespace,
        ];
        self.cluster.helm(&arguments, &self.chart_values(party, images)).await?;
        Ok(())
    }

    /// The party's DataShareProcessor.
    pub fn processor_object(&self, party: &Party) -> Result<Value> {
        let other = &self.keys.parties[1 - party.index];
        let share = ["First", "Second"][party.index];
        let mailbox = |name: &str| match &self.stores {
            None => json!({"url": format!("file:///mailboxes/{name}"), "volume": {"claimName": name}}),
            Some(stores) => stores.mailbox_object(party.index, name),
        };
        let key = |id: &str, public: String| json!({"id": id, "publicKey": public});
        Ok(json!({
            "apiVersion": "prio-operator.io/v1alpha1",
            "kind": "DataShareProcessor",
            "metadata": {"name": party.name, "namespace": party.worker_namespace},
            "spec": {
                "share": share,
                "instance": INSTANCE,
                "ingestor": {"inline": {"batchSigningKeys": [
                    key(&self.keys.ingestor.id, self.keys.ingestor.public()?),
                    key(&self.keys.fixture_ingestor.id, self.keys.fixture_ingestor.public()?),
                ]}},
                "peer": {"inline": {"batchSigningKeys": [key(&other.signing.id, other.signing.public()?)]}},
                "portal": {"inline": {}},
                "mailboxes": {
                    "ingestion": mailbox("ingestion"),
                    "peerValidation": mailbox("peer-validation"),
                    "ledger": mailbox("ledger"),
                    "outgoing": {"peer": mailbox("outgoing-peer"), "portal": mailbox("portal")},
                },
                "validationFormat": self.settings.validation_format,
                "keys": {
                    "batchSigning": {"secretRef": {"name": "batch-signing"}},
                    "packetDecryption": [
                        {"secretRef": {"name": "packet-decryption"}},
                        {"secretRef": {"name": "packet-decryption-old"}},
                    ],
                },
                "windows": {
                    "startAt": self.settings.start_at,
                    "periodSeconds": self.settings.period_seconds,
                    "gracePeriodSeconds": 3600,
                    "settleSeconds": self.settings.settle_seconds,
                    "maxDefers": 0,
                    "minClients": self.settings.min_clients,
                },
                "workers": {
                    "intake": {"serviceAccountName": "intake"},
                    "aggregate": {"serviceAccountName": "aggregate"},
                    "batchesPerPod": self.settings.batches_per_pod,
                    "sumBatchesPerPod": self.settings.sum_batches_per_pod,
                    "maxPods": MAX_PODS,
                    "batchObjects": self.settings.batch_objects,
                    "maxBatchObjects": self.settings.max_batch_objects,
                    "startDeadlineSeconds": self.settings.start_deadline_seconds,
                },
            },
        }))
    }

    /// Applies both DataShareProcessors.
    pub async fn apply_processors(&self) -> Result<()> {
        let objects = self
            .parties
            .iter()
            .map(|party| self.processor_object(party))
            .collect::<Result<Vec<_>>>()?;
        self.cluster.apply(&objects).await.context("the DataShareProcessors")
    }

    /// All namespaces of both parties, and of their stores.
    pub fn namespaces(&self) -> Vec<String> {
        let of_stores = self
            .stores
            .iter()
            .flat_map(|stores| [0, 1].map(|index| stores.namespace(index)));
        self.parties
            .iter()
            .flat_map(|p| [p.operator_namespace.clone(), p.worker_namespace.clone()])
            .chain(of_stores)
            .collect()
    }

    fn chart_values(&self, party: &Party, images: &Images) -> Value {
        let mut secrets = vec!["batch-signing", "packet-decryption", "packet-decryption-old"];
        let mut values = json!({
            "image": images.operator.values(),
            "watchNamespaces": [party.worker_namespace],
            "settings": {"tickSeconds": self.settings.tick_seconds, "missingPacketSeconds": 10, "blockedRetrySeconds": 10},
        });
        if let Some(stores) = &self.stores {
            let (mailboxes, secret) = stores.chart_values(party.index);
            values["mailboxes"] = mailboxes;
            secrets.push(secret);
        } else {
            let volume =
                |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": true}});
            let mount =
                |name: &&str| json!({"name": name, "mountPath": format!("/mailboxes/{name}"), "readOnly": true});
            values["extraVolumes"] = OPERATOR_MAILBOXES.iter().map(volume).collect();
            values["extraVolumeMounts"] = OPERATOR_MAILBOXES.iter().map(mount).collect();
        }
        values["workers"] = json!({"image": images.facilitator.values(), "secrets": secrets});
        values
    }
}

/// Installs the chart that a cluster has once: API types and admission policies.
pub async fn install_cluster_chart(cluster: &Cluster) -> Result<()> {
    let chart = cluster
        .repository
        .join("charts/prio-operator-cluster")
        .display()
        .to_string();
    let release = "prio-operator-cluster";
    let arguments = [
        "upgrade",
        "--install",
        release,
        &chart,
        "--namespace",
        "prio-operator-system",
        "--create-namespace",
        "--wait",
    ];
    cluster.helm(&arguments, &json!({})).await?;
    Ok(())
}

fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{} can't be made", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o770))?;
    chown(path, Some(USER), Some(USER)).with_context(|| {
        format!(
            "{} can't be given to the pods' user {USER}: run as root",
            path.display()
        )
    })
}

pub(crate) fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted", "prio-operator.io/test": "true"},
    }})
}

/// A static volume on a folder of the node, and the claim that it is kept for.
pub(crate) fn volume_objects(namespace: &str, name: &str, folder: &Path) -> [Value; 2] {
    let volume = format!("{namespace}-{name}");
    let capacity = json!({"storage": "1Gi"});
    [
        json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": volume, "labels": {"prio-operator.io/test": "true"}},
        "spec": {
            "capacity": capacity, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "", "claimRef": {"namespace": namespace, "name": name},
            "hostPath": {"path": folder, "type": "Directory"},
        }}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume,
            "resources": {"requests": capacity},
        }}),
    ]
}

/// The keys; the old packet key in the original's form of a Secret.
fn secret_objects(namespace: &str, keys: &PartyKeys) -> [Value; 3] {
    let secret = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data});
    [
        secret(
            "batch-signing",
            json!({"key": keys.signing.secret, "id": keys.signing.id}),
        ),
        secret(
            "packet-decryption",
            json!({"key": keys.packet.secret, "id": keys.packet.id}),
        ),
        secret(
            "packet-decryption-old",
            json!({"secret_key": keys.fixture_packet.secret, "primary_kid": keys.fixture_packet.id}),
        ),
    ]
}
