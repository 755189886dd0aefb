//! A namespace of its own with five folders, an operator in this process, and what a kubelet would do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use crds::DataShareProcessor;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, TypeMeta};
use kube::{Api, Client, Config, ResourceExt};
use mailbox::{FileMailbox, Mailbox, ObjectKey};
use operator::keys::settings::{KeysFlags, KeysSettings};
use operator::metrics::Metrics;
use operator::run::{Parts, RunError, run};
use operator::settings::{Flags, Settings};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const FOLDERS: [&str; 5] = ["ingestion", "peer-validation", "ledger", "outgoing-peer", "portal"];

/// A namespace of its own, five folders, and an API.
pub struct Place {
    client: Client,
    pub namespace: String,
    pub folders: tempfile::TempDir,
}

/// `None`, with a line, where no cluster is given.
pub async fn place(name: &str) -> Option<Place> {
    let Ok(path) = std::env::var("PRIO_OPERATOR_TEST_KUBECONFIG") else {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: PRIO_OPERATOR_TEST_KUBECONFIG isn't set");
        }
        return None;
    };
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    apply_definitions(&client).await;
    let namespace = format!("{name}-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let object = json!({"metadata": {"name": namespace}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    for account in ["intake", "aggregate"] {
        let object = serde_json::from_value(json!({"metadata": {"name": account}})).unwrap();
        accounts.create(&PostParams::default(), &object).await.unwrap();
    }
    // The API refuses folders of the system and names that begin with a dot.
    let folders = tempfile::Builder::new()
        .prefix("mailboxes-")
        // Not below /tmp, which no mailbox may be in.
        .tempdir_in("/var/tmp")
        .unwrap();
    for folder in FOLDERS {
        std::fs::create_dir(folders.path().join(folder)).unwrap();
    }
    Some(Place {
        client,
        namespace,
        folders,
    })
}

/// As generated, but for a share that this operator doesn't know: what a later version may have added.
async fn apply_definitions(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crds::definitions::definitions() {
        let mut value = serde_json::to_value(&definition).unwrap();
        let share = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/share/enum";
        if let Some(Value::Array(shares)) = value.pointer_mut(share) {
            shares.push(json!("Third"));
        }
        let parameters = PatchParams::apply("test").force();
        api.patch(&definition.name_any(), &parameters, &Patch::Apply(&value))
            .await
            .unwrap();
    }
    for definition in crds::definitions::definitions() {
        until("the definitions are served", async || {
            let conditions = api.get(&definition.name_any()).await.ok()?.status?.conditions?;
            conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
                .then_some(())
        })
        .await;
    }
}

const WORKS: &str = "prio-operator.io/stage in (intake,aggregate)";

/// Jobs that work: neither probes nor preflights.
pub fn works() -> ListParams {
    ListParams::default().labels(WORKS)
}

/// Waits until something is so, a minute and a half at most: the garbage collector looks for new kinds every 30 s only.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "still not so after 90 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A running operator.
pub struct Running {
    stop: CancellationToken,
    pub metrics: Arc<Metrics>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub async fn stopped(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(15), self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

impl Place {
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn start_operator(&self) -> Running {
        self.start_operator_every(1)
    }

    /// One that looks at a processor every so many seconds where nothing happens.
    pub fn start_operator_every(&self, seconds: u32) -> Running {
        self.start_operator_with(seconds, &[])
    }

    /// The same with further flags.
    pub fn start_operator_with(&self, seconds: u32, further: &[&str]) -> Running {
        let tick = format!("--tick-seconds={seconds}");
        let flags = [
            "operator",
            "--namespaces",
            &self.namespace,
            "--lease-namespace",
            &self.namespace,
            "--worker-image=registry.example/worker:1",
            &tick,
            "--missing-packet-seconds=1",
            "--blocked-retry-seconds=600",
            "--http-address=127.0.0.1:0",
        ];
        let flags = Flags::try_parse_from(flags.iter().chain(further)).unwrap();
        self.start(Settings::try_from(flags).unwrap(), run)
    }

    /// The keys controller, for the same namespace.
    pub fn start_keys_controller(&self) -> Running {
        let flags = [
            "operator keys",
            "--namespaces",
            &self.namespace,
            "--lease-namespace",
            &self.namespace,
            "--tick-seconds=1",
            "--http-address=127.0.0.1:0",
        ];
        let settings = KeysSettings::try_from(KeysFlags::try_parse_from(flags).unwrap()).unwrap();
        self.start(settings, operator::keys::run::run)
    }

    fn start<S, F>(&self, settings: S, run: impl FnOnce(Parts<S>) -> F) -> Running
    where
        F: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        let (stop, metrics) = (CancellationToken::new(), Arc::new(Metrics::default()));
        let parts = Parts {
            client: self.client.clone(),
            lease_client: self.client.clone(),
            settings,
            metrics: metrics.clone(),
            clock: Timestamp::now,
            stop: stop.clone(),
        };
        Running {
            stop,
            metrics,
            task: tokio::spawn(run(parts)),
        }
    }

    pub fn mailbox(&self, folder: &str) -> FileMailbox {
        FileMailbox::in_folder(&self.folders.path().join(folder)).unwrap()
    }

    pub async fn put(&self, folder: &str, name: &str, content: Vec<u8>) {
        self.mailbox(folder)
            .put_if_absent(&ObjectKey::parse(name).unwrap(), content.into())
            .await
            .unwrap();
    }

    /// Names are all that discovery reads.
    pub async fn put_batch(&self, id: &str) {
        for part in ["batch.avro", "batch", "batch.sig"] {
            self.put("ingestion", &format!("{id}.{part}"), b"x".to_vec()).await;
        }
    }

    pub fn spec(&self) -> Value {
        let mailbox = |name: &str| json!({"url": format!("file://{}", self.folders.path().join(name).display()), "volume": {"claimName": name}});
        let party = |id: &str| {
            let point = "BIl6j+J6dYttxALdjISDv6ZI4/VWVEhUzaS05LgrsfswmbLOgNt9HUC2E0w+9RqZx3XMkdEHBHfNuCSMpOwofVQ=";
            json!({"inline": {"batchSigningKeys": [{"id": id, "publicKey": point}]}})
        };
        json!({
            "share": "First",
            "instance": "us-ct",
            "ingestor": party("ingestor"),
            "peer": party("peer"),
            "portal": {"inline": {}},
            "mailboxes": {
                "ingestion": mailbox("ingestion"),
                "peerValidation": mailbox("peer-validation"),
                "ledger": mailbox("ledger"),
                "outgoing": {"peer": mailbox("outgoing-peer"), "portal": mailbox("portal")},
            },
            "keys": {
                "batchSigning": {"secretRef": {"name": "signing"}},
                "packetDecryption": [{"secretRef": {"name": "packet"}}],
            },
            "windows": {"startAt": "2026-01-01T00:00:00Z", "minClients": 1},
            "workers": {
                "intake": {"serviceAccountName": "intake"},
                "aggregate": {"serviceAccountName": "aggregate"},
                "batchesPerPod": 2,
                "startDeadlineSeconds": 600,
            },
        })
    }

    pub async fn create_processor(&self, name: &str, spec: Value) {
        self.create::<DataShareProcessor>(json!({"metadata": {"name": name}, "spec": spec}))
            .await;
    }

    fn dynamic<K>(&self) -> Api<DynamicObject>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        let resource = ApiResource::erase::<K>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Creates an object that need not be one of this operator's version.
    pub async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        let mut object: DynamicObject = serde_json::from_value(object).unwrap();
        object.types = Some(TypeMeta::resource::<K>());
        self.dynamic::<K>()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    /// Waits until a condition of a processor has a status and a reason.
    pub async fn condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> Condition {
        self.condition_of::<DataShareProcessor>(name, kind, status, reason)
            .await
    }

    /// The same of any kind.
    pub async fn condition_of<K>(&self, name: &str, kind: &str, status: &str, reason: &str) -> Condition
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        let api = self.dynamic::<K>();
        until(&format!("{name}: {kind}={status} ({reason})"), async || {
            let object = api.get(name).await.ok()?;
            let conditions: Vec<Condition> =
                serde_json::from_value(object.data.pointer("/status/conditions")?.clone()).ok()?;
            conditions
                .into_iter()
                .find(|c| c.type_ == kind && c.status == status && c.reason == reason)
        })
        .await
    }

    /// How many Jobs of work there are.
    pub async fn jobs(&self) -> usize {
        self.api::<Job>().list(&works()).await.unwrap().items.len()
    }

    pub async fn first_job(&self) -> Job {
        self.first_job_of(WORKS).await
    }

    /// The first Job whose labels are as that selector says.
    pub async fn first_job_of(&self, labels: &str) -> Job {
        let jobs = ListParams::default().labels(labels);
        until(&format!("a Job of {labels}"), async || {
            self.api::<Job>().list(&jobs).await.ok()?.items.into_iter().next()
        })
        .await
    }

    /// As a kubelet would: writes the status of the Job's pods.
    pub async fn set_pods(&self, job: &Job, phase: &str, ready: bool, state: Value) {
        let api = self.api::<Pod>();
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", job.name_any()));
        let wanted = usize::try_from(job.spec.as_ref().unwrap().parallelism.unwrap()).unwrap();
        let pods = until("the Job's pods", async || {
            let pods = api.list(&of_job).await.ok()?.items;
            (pods.len() >= wanted).then_some(pods)
        })
        .await;
        for pod in pods {
            let container = json!({"name": "worker", "image": "w", "imageID": "w", "ready": ready, "restartCount": 0, "state": state});
            let status = json!({"status": {"phase": phase, "containerStatuses": [container]}});
            api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status))
                .await
                .unwrap();
        }
    }

    pub async fn let_pods_run(&self, job: &Job) {
        self.set_pods(
            job,
            "Running",
            true,
            json!({"running": {"startedAt": Timestamp::now().to_string()}}),
        )
        .await;
    }

    /// The Job's pods end with a code, and the Job controller draws its conclusions from the Job's failure policy.
    pub async fn let_pods_exit(&self, job: &Job, code: i32, message: &str) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let terminated = json!({"terminated": {"exitCode": code, "message": message, "reason": "Ended"}});
        self.set_pods(job, phase, false, terminated).await;
    }

    pub async fn gone(self) {
        let _ = Api::<Namespace>::all(self.client.clone())
            .delete(&self.namespace, &DeleteParams::default())
            .await;
    }
}
