//! Leader election by Leases of `coordination.k8s.io`.
//!
//! Of all processes that want the same Lease, one holds it. Another's Lease counts as given up when its resource version
//! hasn't changed for its duration *as seen by our own clock*: the clocks of two nodes are never compared. Every write
//! carries the resource version that was read, so of two writers one fails. Give this module a client whose retries are
//! off: a renewal that is tried again for longer than the Lease lasts is worse than one that failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a Lease holds without a renewal.
pub const DURATION: Duration = Duration::from_secs(15);
/// A holder that couldn't renew for so long stops working, before others may begin.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks or renewals.
pub const RETRY: Duration = Duration::from_secs(2);

/// What we know of a Lease from looking at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The resource version read.
    pub version: String,
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// How long it holds, as its holder said.
    pub duration: Duration,
    /// When we first saw this resource version, by our own monotonic clock.
    pub since: Instant,
}

impl Sight {
    fn of(lease: &Lease, before: Option<&Self>, now: Instant) -> Self {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        let since = before
            .filter(|before| before.version == version)
            .map_or(now, |before| before.since);
        Self {
            version,
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(seconds),
            since,
        }
    }
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is ours: renew it.
    Renew,
    /// It is nobody's, or its holder is gone: take it.
    Take,
    /// Somebody holds it.
    Wait,
}

/// Decides from what was seen.
#[must_use]
pub fn decide(sight: &Sight, identity: &str, now: Instant) -> Step {
    if sight.holder == identity {
        Step::Renew
    } else if sight.holder.is_empty() || now.saturating_duration_since(sight.since) > sight.duration {
        Step::Take
    } else {
        Step::Wait
    }
}

/// The spec that a renewal or a take-over writes.
#[must_use]
pub fn held(previous: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let ours = previous.and_then(|spec| spec.holder_identity.as_deref()) == Some(identity);
    let transitions = previous.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: previous
            .filter(|_| ours)
            .and_then(|spec| spec.acquire_time.clone())
            .or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours || previous.is_none() {
            transitions
        } else {
            transitions + 1
        }),
        ..LeaseSpec::default()
    }
}

/// Leases of other installations, as an operator that watches all namespaces meets them: it leaves a namespace to who
/// holds its Lease, and takes none itself, because namespaces come and go.
#[derive(Debug, Default)]
pub struct Others(Mutex<BTreeMap<String, Sight>>);

impl Others {
    /// Who else works in a namespace, if anybody does.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn holder(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
        identity: &str,
    ) -> kube::Result<Option<String>> {
        let lease = Api::<Lease>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await?;
        Ok(self.seen(namespace, lease.as_ref(), identity, Instant::now()))
    }

    fn seen(&self, namespace: &str, lease: Option<&Lease>, identity: &str, now: Instant) -> Option<String> {
        let mut sights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sights.remove(namespace);
        let sight = Sight::of(lease?, before.as_ref(), now);
        let holder = (decide(&sight, identity, now) == Step::Wait).then(|| sight.holder.clone());
        if let Some(holder) = &holder
            && before.is_none_or(|before| before.holder != *holder)
        {
            info!(
                namespace,
                holder, "another installation holds this namespace's lease: it is left alone"
            );
        }
        sights.insert(namespace.to_owned(), sight);
        holder
    }
}

/// One Lease that we want.
struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    clock: fn() -> Timestamp,
    sight: Option<Sight>,
}

impl Candidate {
    /// Looks, and takes or renews where it can. `Ok(true)`: it is ours as of now.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(held(None, &self.identity, (self.clock)())),
            };
            return written(self.api.create(&PostParams::default(), &lease).await);
        };
        let now = Instant::now();
        let spec = lease.spec.clone().unwrap_or_default();
        let sight = Sight::of(&lease, self.sight.as_ref(), now);
        let step = decide(&sight, &self.identity, now);
        self.sight = Some(sight);
        if step == Step::Wait {
            return Ok(false);
        }
        lease.spec = Some(held(Some(&spec), &self.identity, (self.clock)()));
        written(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Gives the Lease back, so that the next one needn't wait.
    async fn release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        written(self.api.replace(&self.name, &PostParams::default(), &lease).await).map(drop)
    }
}

/// A conflict means that another was first.
fn written(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// The Leases that we hold; renewed in the background until [`Leadership::release`].
pub struct Leadership {
    lost: CancellationToken,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Vec<Candidate>>,
}

impl Leadership {
    /// Cancelled once a Lease couldn't be renewed in time: stop working at once.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Stops renewing and gives every Lease back.
    pub async fn release(self) {
        self.stop.cancel();
        let Ok(candidates) = self.task.await else { return };
        if self.lost.is_cancelled() {
            return;
        }
        for candidate in candidates {
            if let Err(error) = candidate.release().await {
                warn!(namespace = candidate.namespace, %error, "the lease could not be given back; it runs out by itself");
            }
        }
    }
}

/// Waits until all Leases are ours, in the order of `namespaces` (the same in every process, so that no two processes
/// wait for each other for ever), then renews them in the background. `None`: asked to stop before.
pub async fn acquire(
    client: &Client,
    namespaces: &[String],
    name: &str,
    identity: &str,
    clock: fn() -> Timestamp,
    stop: &CancellationToken,
) -> Option<Leadership> {
    let mut candidates: Vec<Candidate> = namespaces
        .iter()
        .map(|namespace| Candidate {
            api: Api::namespaced(client.clone(), namespace),
            namespace: namespace.clone(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            clock,
            sight: None,
        })
        .collect();
    let mut ours = 0;
    let mut told = None;
    while ours < candidates.len() {
        // Those that are ours already are renewed on the way to the rest.
        let mut held = 0;
        for candidate in candidates.iter_mut().take(ours + 1) {
            match candidate.attempt().await {
                Ok(true) => held += 1,
                Ok(false) => {
                    let holder = candidate.sight.as_ref().map(|sight| sight.holder.clone());
                    if told != holder {
                        info!(
                            namespace = candidate.namespace,
                            lease = candidate.name,
                            holder,
                            "waiting for the lease"
                        );
                        told = holder;
                    }
                    break;
                }
                Err(error) => {
                    warn!(namespace = candidate.namespace, lease = candidate.name, %error, "the lease can't be read or written");
                    break;
                }
            }
        }
        let progress = held > ours;
        ours = held;
        if !progress {
            tokio::select! {
                () = stop.cancelled() => {
                    for candidate in &candidates {
                        // Given back as far as it was taken; what fails here runs out by itself.
                        let _ = candidate.release().await;
                    }
                    return None;
                }
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
    info!(identity, "holding the lease");
    let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
    let task = tokio::spawn(renew(candidates, lost.clone(), stop.clone()));
    Some(Leadership { lost, stop, task })
}

async fn renew(mut candidates: Vec<Candidate>, lost: CancellationToken, stop: CancellationToken) -> Vec<Candidate> {
    let mut renewed = vec![Instant::now(); candidates.len()];
    loop {
        tokio::select! {
            () = stop.cancelled() => return candidates,
            () = tokio::time::sleep(RETRY) => {}
        }
        for (candidate, renewed) in candidates.iter_mut().zip(&mut renewed) {
            // Counted from before the request: its answer may be late.
            let begun = Instant::now();
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, candidate.attempt()).await {
                Ok(Ok(true)) => *renewed = begun,
                Ok(Ok(false))
                    if candidate
                        .sight
                        .as_ref()
                        .is_some_and(|sight| sight.holder != candidate.identity) =>
                {
                    warn!(namespace = candidate.namespace, "somebody else holds the lease now");
                    lost.cancel();
                    return candidates;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    warn!(namespace = candidate.namespace, %error, "the lease was not renewed; trying again")
                }
                Err(_) => warn!(namespace = candidate.namespace, "the lease was not renewed in time"),
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                lost.cancel();
                return candidates;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lease_is_taken_only_from_nobody_or_from_one_that_went_silent() {
        let since = Instant::now();
        let sight = |holder: &str| Sight {
            version: "1".into(),
            holder: holder.into(),
            duration: DURATION,
            since,
        };
        let table = [
            ("", 0, Step::Take),
            ("we", 0, Step::Renew),
            ("we", 60, Step::Renew),
            ("they", 0, Step::Wait),
            ("they", 15, Step::Wait),
            ("they", 16, Step::Take),
        ];
        for (holder, seconds, expected) in table {
            let now = since + Duration::from_secs(seconds);
            assert_eq!(
                decide(&sight(holder), "we", now),
                expected,
                "{holder} after {seconds} s"
            );
        }
    }

    #[test]
    fn a_namespace_is_left_to_another_installation_until_that_goes_silent() {
        let (others, begun) = (Others::default(), Instant::now());
        let seen = |version: &str, holder: &str, seconds| {
            let lease = Lease {
                metadata: ObjectMeta {
                    resource_version: Some(version.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(held(None, holder, Timestamp::UNIX_EPOCH)),
            };
            others.seen("a", Some(&lease), "we", begun + Duration::from_secs(seconds))
        };
        assert_eq!(others.seen("a", None, "we", begun), None);
        assert_eq!(seen("1", "we", 0), None);
        assert_eq!(seen("2", "they", 10).as_deref(), Some("they"));
        assert_eq!(seen("3", "they", 20).as_deref(), Some("they"), "renewed");
        assert_eq!(seen("3", "they", 30).as_deref(), Some("they"));
        assert_eq!(seen("3", "they", 36), None, "silent for longer than it lasts");
    }

    #[test]
    fn a_renewal_keeps_the_time_of_taking_and_a_take_over_counts() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = held(None, "we", at(1));
        assert_eq!(
            (first.acquire_time.clone(), first.lease_transitions),
            (Some(MicroTime(at(1))), Some(0))
        );
        let second = held(Some(&first), "we", at(3));
        assert_eq!(
            (second.acquire_time, second.renew_time),
            (Some(MicroTime(at(1))), Some(MicroTime(at(3))))
        );
        let third = held(Some(&first), "they", at(20));
        assert_eq!(
            (third.acquire_time, third.lease_transitions),
            (Some(MicroTime(at(20))), Some(1))
        );
    }

    #[test]
    fn a_holder_stops_before_another_may_begin() {
        assert!(RENEW_DEADLINE + RETRY < DURATION);
    }
}
