//! Carries decisions out. Every create is of a name that follows from its meaning: what is there already was made before.

use std::fmt::Debug;

use crds::{AggregationWindow, Batch, DataShareProcessor};
use facilitator_core::formats::work::Parameters;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use snafu::{ResultExt, Snafu};

use super::parameters;
use super::watched::WatchedBatches;
use crate::batch::{BatchDecision, BatchPatch};
use crate::settings::Settings;
use crate::status::{Events, FIELD_MANAGER, apply_status, refusal};
use crate::window::WindowDecision;
use crate::workload::{self, KeySet, ObjectEvent, PlannedJob, Stage, Subject, Work, WorkerContext};

/// Writes to the API server at a time, of one processor.
const WRITES: usize = 8;
/// A Job is ended after six hours, whatever it does: a chunk takes minutes.
const ACTIVE_DEADLINE_SECONDS: i64 = 21_600;
/// A preflight is over a minute after its pod has started: so much longer than a pod may take to start it may last.
const PREFLIGHT_DEADLINE_SECONDS: i64 = 120;
/// A finished Job stays for five minutes, so that its end is seen by an operator that was away.
const TTL_SECONDS: i32 = 300;

/// Why a decision wasn't carried out.
#[derive(Debug, Snafu)]
pub enum ActError {
    /// The API server refused or didn't answer.
    #[snafu(display("{verb} {what}: {source}"))]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On which object.
        what: String,
        /// Why it failed.
        source: kube::Error,
    },
    /// An object of our name holds something else.
    #[snafu(display("ConfigMap {name} exists with another content: delete it, it is made anew"))]
    OtherContent {
        /// Its name.
        name: String,
    },
    /// Parameters aren't JSON: a fault of ours.
    #[snafu(display("parameters.json can't be written: {source}"))]
    Parameters {
        /// Why.
        source: serde_json::Error,
    },
}

impl ActError {
    /// Whether the API server said that it didn't do it, and would say so again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Api { source, .. } = self else { return false };
        refusal(source).is_some()
    }
}

/// What acting needs.
pub struct Actor<'a> {
    /// The API.
    pub client: &'a Client,
    /// Settings of the process.
    pub settings: &'a Settings,
    /// Events for people.
    pub events: &'a Events,
    /// Told of what is written of Batches, that the next look may wait for it.
    pub watched: &'a WatchedBatches,
    /// The processor.
    pub processor: &'a DataShareProcessor,
    /// Its namespace.
    pub namespace: &'a str,
}

impl Actor<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// Deletes Jobs that don't start, their pods with them.
    ///
    /// # Errors
    /// [`ActError::Api`].
    pub async fn remove_jobs(&self, names: &[String]) -> Result<(), ActError> {
        for name in names {
            delete::<Job>(&self.api(), name).await?;
        }
        Ok(())
    }

    /// Creates, patches and deletes Batches.
    ///
    /// # Errors
    /// [`ActError::Api`].
    pub async fn batches(&self, decision: &BatchDecision) -> Result<(), ActError> {
        let api: Api<Batch> = self.api();
        let wrote = |made: &Batch| self.wrote(made);
        let made = decision.create.iter();
        let made = made.map(|batch| create(&api, batch, batch.status.as_ref(), &wrote).boxed());
        let patched = decision.patch.iter().map(|patch| self.patch_batch(&api, patch).boxed());
        // Deletions first: they make room where a quota counts objects.
        all(removals(&api, &decision.delete).chain(made).chain(patched).collect()).await
    }

    /// Creates, patches and deletes AggregationWindows.
    ///
    /// # Errors
    /// [`ActError::Api`].
    pub async fn windows(&self, decision: &WindowDecision, known: &[AggregationWindow]) -> Result<(), ActError> {
        let api: &Api<AggregationWindow> = &self.api();
        let made = decision.create.iter();
        let made = made.map(|window| create(api, window, window.status.as_ref(), &|_| ()).boxed());
        let patched = decision.patch.iter().map(|patch| {
            let before = known.iter().find(|window| window.name_any() == patch.name);
            let before = before.and_then(|window| window.status.as_ref());
            write_status(api, &patch.name, before, &patch.status)
                .map_ok(drop)
                .boxed()
        });
        all(removals(api, &decision.delete).chain(made).chain(patched).collect()).await
    }

    /// Writes a Batch's status, and its labels where they are to change.
    async fn patch_batch(&self, api: &Api<Batch>, patch: &BatchPatch) -> Result<(), ActError> {
        if let Some(written) = write_status(api, &patch.name, None, &patch.status).await? {
            self.wrote(&written);
        }
        let Some(labels) = &patch.labels else { return Ok(()) };
        let labels = serde_json::json!({"metadata": {"labels": labels}});
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let labelled = api
            .patch_metadata(&patch.name, &parameters, &Patch::Merge(&labels))
            .await;
        let labelled = unless_gone(labelled).with_context(|_| ApiSnafu {
            verb: "label",
            what: &patch.name,
        })?;
        if let Some(labelled) = labelled {
            self.wrote(&labelled);
        }
        Ok(())
    }

    fn wrote(&self, batch: &impl ResourceExt) {
        self.watched.wrote(self.namespace, batch);
    }

    /// Publishes Events, some at a time. What can't be told isn't told again.
    pub async fn tell(&self, events: impl Iterator<Item = &ObjectEvent>) {
        let publish: Vec<BoxFuture<'_, ()>> = events.map(|event| self.tell_one(event).boxed()).collect();
        stream::iter(publish).buffer_unordered(WRITES).collect::<()>().await;
    }

    async fn tell_one(&self, event: &ObjectEvent) {
        // Only the reference of the object is needed, and that takes its UID for `kubectl describe`.
        match &event.subject {
            Subject::Batch(name) => self.tell_of::<Batch>(name, event).await,
            Subject::Window(name) => self.tell_of::<AggregationWindow>(name, event).await,
            Subject::Processor => {
                self.events
                    .publish(self.processor, event.warning, event.reason, "Reconcile", &event.message)
                    .await;
            }
        }
    }

    async fn tell_of<K>(&self, name: &str, event: &ObjectEvent)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        if let Ok(Some(object)) = self.api::<K>().get_metadata_opt(name).await {
            let mut reference = object.object_ref(&());
            // Partial metadata may come without its own kind.
            reference.kind = Some(K::kind(&()).into_owned());
            reference.api_version = Some(K::api_version(&()).into_owned());
            self.events
                .publish_on(&reference, event.warning, event.reason, "Reconcile", &event.message)
                .await;
        }
    }

    /// Starts Jobs. Returns the ones that the API server refused, by stage, with its message; their work is planned again.
    ///
    /// # Errors
    /// [`ActError`], for anything but the refusal of a Job.
    pub async fn start(
        &self,
        jobs: &[PlannedJob],
        keys: &KeySet,
        parameters: &Parameters,
    ) -> Result<Started, ActError> {
        let mut started = Started::default();
        if jobs.is_empty() {
            return Ok(started);
        }
        let parameters = self.ensure_parameters(parameters).await?;
        for planned in jobs {
            let stage = planned.stage();
            let (config_map, job) = self.build(planned, keys, &parameters);
            let name = job.name_any();
            let created = match self.api::<Job>().create(&PostParams::default(), &job).await {
                Ok(created) => created,
                // Made before, and seen by the next list.
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                Err(source) => {
                    let Some(message) = refusal(&source) else {
                        return Err(ActError::Api {
                            verb: "create Job",
                            what: name,
                            source,
                        });
                    };
                    tracing::warn!(job = name, message, "the API server refuses a worker Job");
                    started.refused.push((stage, message.to_owned()));
                    continue;
                }
            };
            let config_map = workload::owned_by(config_map, &created);
            ignore_existing(
                self.api::<ConfigMap>()
                    .create(&PostParams::default(), &config_map)
                    .await,
            )
            .with_context(|_| ApiSnafu {
                verb: "create ConfigMap",
                what: &name,
            })?;
            tracing::info!(
                job = name,
                stage = stage.label(),
                canary = planned.canary,
                "worker Job started"
            );
            started.stages.push(stage);
        }
        Ok(started)
    }

    /// The Job of a plan as this processor's.
    #[must_use]
    pub fn build(&self, planned: &PlannedJob, keys: &KeySet, parameters_config_map: &str) -> (ConfigMap, Job) {
        let (name, uid) = (self.processor.name_any(), self.processor.uid().unwrap_or_default());
        let context = WorkerContext {
            namespace: self.namespace,
            processor_name: &name,
            processor_uid: &uid,
            generation: self.processor.metadata.generation.unwrap_or_default(),
            spec: &self.processor.spec,
            keys,
            image: &self.settings.worker_image,
            image_pull_policy: self.settings.worker_image_pull_policy.as_deref(),
            parameters_config_map,
            active_deadline_seconds: match planned.work {
                Work::Preflight { .. } => {
                    i64::from(self.processor.spec.workers.start_deadline_seconds) + PREFLIGHT_DEADLINE_SECONDS
                }
                _ => ACTIVE_DEADLINE_SECONDS,
            },
            ttl_seconds: TTL_SECONDS,
        };
        let (config_map, mut job) = workload::build(planned, &context);
        job.metadata.owner_references = Some(vec![parameters::owner(self.processor)]);
        (config_map, job)
    }

    /// Creates the ConfigMap of the parameters if it isn't there; returns its name.
    async fn ensure_parameters(&self, parameters: &Parameters) -> Result<String, ActError> {
        let wanted = parameters::config_map(self.processor, parameters).context(ParametersSnafu)?;
        let (api, name) = (self.api::<ConfigMap>(), wanted.name_any());
        let context = |verb| ApiSnafu {
            verb,
            what: name.clone(),
        };
        let existing = match api.get_opt(&name).await.context(context("get ConfigMap"))? {
            Some(existing) => existing,
            None => match api.create(&PostParams::default(), &wanted).await {
                Ok(created) => created,
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    api.get(&name).await.context(context("get ConfigMap"))?
                }
                Err(source) => return Err(source).context(context("create ConfigMap")),
            },
        };
        snafu::ensure!(existing.data == wanted.data, OtherContentSnafu { name });
        Ok(existing.name_any())
    }
}

/// What became of Jobs to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The stage of each Job that was created.
    pub stages: Vec<Stage>,
    /// Each refused one, with the API server's message.
    pub refused: Vec<(Stage, String)>,
}

/// A write to the API server.
type Write<'a> = BoxFuture<'a, Result<(), ActError>>;

/// Some writes at a time, until one has no answer. Where the API server refuses one, as for a quota or by a policy, the others
/// are tried, and the first refusal is the result.
async fn all(writes: Vec<Write<'_>>) -> Result<(), ActError> {
    let mut writes = stream::iter(writes).buffer_unordered(WRITES);
    let mut result = Ok(());
    while let Some(written) = writes.next().await {
        match written {
            Err(error) if error.is_refusal() => result = result.and(Err(error)),
            written => written?,
        }
    }
    result
}

fn removals<'a, K>(api: &'a Api<K>, names: &'a [String]) -> impl Iterator<Item = Write<'a>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send,
{
    names.iter().map(|name| delete(api, name).boxed())
}

/// Creates an object and then writes its status, which a create leaves out.
async fn create<K, S>(api: &Api<K>, object: &K, status: Option<&S>, wrote: &(dyn Fn(&K) + Sync)) -> Result<(), ActError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Serialize + Clone + Debug,
    S: Serialize + PartialEq + Sync,
{
    let name = object.name_any();
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let created = api.create(&parameters, object).await;
    ignore_existing(created.map(|created| wrote(&created))).with_context(|_| ApiSnafu {
        verb: "create",
        what: &name,
    })?;
    if let Some(status) = status
        && let Some(written) = write_status(api, &name, None, status).await?
    {
        wrote(&written);
    }
    Ok(())
}

/// Writes a status where it differs from the one that is there, and returns the object where it was written.
async fn write_status<K, S>(api: &Api<K>, name: &str, before: Option<&S>, status: &S) -> Result<Option<K>, ActError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    S: Serialize + PartialEq,
{
    unless_gone(apply_status(api, name, before, status).await)
        .map(Option::flatten)
        .with_context(|_| ApiSnafu {
            verb: "patch the status of",
            what: name,
        })
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), ActError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    unless_gone(api.delete(name, &DeleteParams::background()).await)
        .map(drop)
        .with_context(|_| ApiSnafu {
            verb: "delete",
            what: name,
        })
}

/// Already there: made before, by us or by the operator before us.
fn ignore_existing<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        result => result.map(drop),
    }
}

/// `None`: somebody deleted it since it was seen; the next look makes it anew where it is still due.
fn unless_gone<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
#[path = "act_tests.rs"]
mod tests;
