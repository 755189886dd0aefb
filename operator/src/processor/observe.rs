//! Looks at mailboxes: names only, and of the ledger what people and plans need to know. Opens no record, no packet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::conditions::reasons;
use facilitator_core::formats::claims::ClaimDay;
use facilitator_core::formats::ledger::{
    LEDGER_OBJECT, LedgerError, LedgerIdentity, LedgerObject, REJECTED, REPORTS, RESULTS, Rejected, USES, WindowResult,
};
use facilitator_core::formats::names::WindowId;
use facilitator_core::formats::work::{MAILBOX_SECRETS_DIRECTORY, Report};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use mailbox::{
    Access, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, ObjectKey, Patience, open_mailbox_with,
};
use snafu::{ResultExt, Snafu};

use super::access;
use super::listing::{Listing, Stretches, result_of};
use crate::inventory::{Listed, Listings};
use crate::metrics::{MailboxLabels, Metrics};
use crate::peer::observe::bundle;
use crate::settings::Settings;
use crate::window::Scope;

/// Objects of the ledger that are read at a time.
const READS: usize = 16;

/// Why mailboxes couldn't be looked at.
#[derive(Debug, Snafu)]
pub enum ObserveError {
    /// A mailbox can't be opened, listed or read.
    #[snafu(display("{mailbox} mailbox: {source}"))]
    Listing {
        /// `ingestion`, `peer-validation` or `ledger`.
        mailbox: &'static str,
        /// Why.
        source: MailboxError,
    },
    /// The API server refused a read or didn't answer.
    #[snafu(display("reading the cluster: {source}"))]
    Cluster {
        /// Why.
        source: kube::Error,
    },
    /// How a mailbox is to be reached can't be followed.
    #[snafu(display("mailboxes.{field}: {why}"))]
    Settings {
        /// The mailbox's field under `spec.mailboxes`.
        field: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// An object of the ledger is not what belongs there.
    #[snafu(display("{source}"))]
    Ledger {
        /// Why.
        source: LedgerError,
    },
}

impl ObserveError {
    /// One word for conditions, by what somebody has to do.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let Self::Listing { source, .. } = self else {
            return reasons::LISTING_FAILED;
        };
        match source.kind() {
            MailboxErrorKind::Denied => reasons::ACCESS_DENIED,
            MailboxErrorKind::NoSuchMailbox => reasons::NO_SUCH_MAILBOX,
            MailboxErrorKind::InvalidUrl | MailboxErrorKind::Configuration | MailboxErrorKind::Unsupported => {
                reasons::WRONG_SETTINGS
            }
            _ => reasons::LISTING_FAILED,
        }
    }
}

/// Where the three mailboxes are and how the operator reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places([(String, Access); 3]);

impl Places {
    /// Of a spec.
    ///
    /// # Errors
    /// [`ObserveError::Settings`] where the spec can't be followed, [`ObserveError::Cluster`].
    pub async fn of(
        mailboxes: &crds::processor::Mailboxes,
        config_maps: &Api<ConfigMap>,
        settings: &Settings,
    ) -> Result<Self, ObserveError> {
        let place = async |field, mailbox: &crds::processor::Mailbox| {
            let authorities = bundle(mailbox.ca_bundle_ref.as_ref(), config_maps)
                .await
                .context(ClusterSnafu)?
                .map_err(|why| ObserveError::Settings { field, why })?;
            let secrets = Path::new(MAILBOX_SECRETS_DIRECTORY);
            let access = access::of_operator(mailbox, authorities, secrets, &settings.mailbox_endpoints);
            let access = access.map_err(|error| ObserveError::Settings {
                field,
                why: error.to_string(),
            })?;
            Ok((mailbox.url.clone(), access))
        };
        Ok(Self([
            place("ingestion", &mailboxes.ingestion).await?,
            place("peerValidation", &mailboxes.peer_validation).await?,
            place("ledger", &mailboxes.ledger).await?,
        ]))
    }
}

/// The three mailboxes that the operator may list.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    ingestion: Arc<dyn Mailbox>,
    peer_validation: Arc<dyn Mailbox>,
    ledger: Arc<dyn Mailbox>,
}

/// What was listed and read before.
#[derive(Clone, Debug, Default)]
pub struct MailboxCache {
    /// Whether what partners write is to be listed seldom: Jobs work, or the last look failed, perhaps for want of time.
    pub seldom: bool,
    /// Of the ingestion mailbox.
    ingestion: Stretches,
    /// Of the mailbox for the peer's validations.
    peer_validation: Stretches,
    /// Of the ledger, whose objects never change.
    rejections: BTreeMap<String, Rejected>,
    results: BTreeMap<String, WindowResult>,
    reports: BTreeMap<String, Vec<Report>>,
}

impl MailboxCache {
    /// Has all names listed by the next look.
    pub fn list_anew(&mut self) {
        (self.ingestion, self.peer_validation) = Default::default();
    }

    /// Forgets the reports of Jobs that are gone.
    pub fn keep_reports(&mut self, jobs: &BTreeSet<&str>) {
        self.reports.retain(|job, _| jobs.contains(job.as_str()));
    }
}

/// Shorter than work's: a look is made again soon, and people wait for what it says of a store that doesn't answer.
fn patience() -> Patience {
    Patience {
        answer: Duration::from_secs(10),
        attempts: 3,
        ..Patience::default()
    }
}

impl Mailboxes {
    /// Opens those of these places.
    ///
    /// # Errors
    /// [`ObserveError::Listing`] for a URL that is malformed, and for settings that can't be used.
    pub fn open(places: &Places) -> Result<Self, ObserveError> {
        let open = |mailbox, (url, access): &(String, Access)| {
            MailboxUrl::parse(url)
                .and_then(|url| open_mailbox_with(&url, access, patience()))
                .context(ListingSnafu { mailbox })
        };
        let [ingestion, peer_validation, ledger] = &places.0;
        Ok(Self {
            ingestion: open("ingestion", ingestion)?,
            peer_validation: open("peer-validation", peer_validation)?,
            ledger: open("ledger", ledger)?,
        })
    }

    /// From mailboxes that are open.
    #[must_use]
    pub fn of(ingestion: Arc<dyn Mailbox>, peer_validation: Arc<dyn Mailbox>, ledger: Arc<dyn Mailbox>) -> Self {
        Self {
            ingestion,
            peer_validation,
            ledger,
        }
    }

    /// Reads `ledger.json`; `None` where it isn't there yet.
    ///
    /// # Errors
    /// [`ObserveError::Ledger`] where it is something else, [`ObserveError::Listing`] where it can't be read.
    pub async fn ledger_identity(&self) -> Result<Option<LedgerIdentity>, ObserveError> {
        let key = ObjectKey::parse(LEDGER_OBJECT).context(ListingSnafu { mailbox: "ledger" })?;
        let bytes = match self.ledger.read(&key, LedgerIdentity::MAX_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == MailboxErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ObserveError::Listing {
                    mailbox: "ledger",
                    source,
                });
            }
        };
        LedgerIdentity::from_bytes(&key, &bytes).map(Some).context(LedgerSnafu)
    }

    /// Reads the reports of a finished Job, once.
    ///
    /// # Errors
    /// [`ObserveError::Listing`]. A report that doesn't decode is logged and left out: the ledger decides anyway.
    pub async fn reports(&self, job: &str, cache: &mut MailboxCache) -> Result<Vec<Report>, ObserveError> {
        if let Some(reports) = cache.reports.get(job) {
            return Ok(reports.clone());
        }
        let request = ListRequest {
            prefix: format!("{REPORTS}/{job}/"),
            ..ListRequest::default()
        };
        let page = self
            .ledger
            .list_all(&request)
            .await
            .context(ListingSnafu { mailbox: "ledger" })?;
        let keys = page.objects.into_iter().map(|meta| meta.key);
        let reports: Vec<Report> = self
            .read_all(keys)
            .await?
            .into_iter()
            .map(|(_, report)| report)
            .collect();
        cache.reports.insert(job.to_owned(), reports.clone());
        Ok(reports)
    }

    /// The windows that have work under a key, with the time at which each was marked.
    ///
    /// # Errors
    /// [`ObserveError::Listing`].
    pub async fn key_uses(&self, key_id: &str) -> Result<Vec<(WindowId, Timestamp)>, ObserveError> {
        let prefix = format!("{USES}/{key_id}/");
        let request = ListRequest {
            prefix: prefix.clone(),
            ..ListRequest::default()
        };
        let page = self
            .ledger
            .list_all(&request)
            .await
            .context(ListingSnafu { mailbox: "ledger" })?;
        let mark = |meta: mailbox::ObjectMeta| {
            let name = meta.key.as_str().strip_prefix(&prefix)?;
            Some((WindowId::parse(name).ok()?, meta.modified))
        };
        Ok(page.objects.into_iter().filter_map(mark).collect())
    }

    /// Lists the claims of these days, of all packet keys.
    ///
    /// # Errors
    /// [`ObserveError::Listing`].
    pub async fn claims(&self, days: &BTreeSet<ClaimDay>) -> Result<Vec<Listed>, ObserveError> {
        super::listing::claims(self.ledger.as_ref(), days)
            .await
            .context(ListingSnafu { mailbox: "ledger" })
    }

    /// Lists what is in the scope, the ledger first: an answer that is in a mailbox after its ledger object was listed is
    /// only seen later, never the other way round. Of the ledger the results first: where there is one, the rest of its
    /// window isn't needed.
    ///
    /// # Errors
    /// [`ObserveError::Listing`].
    pub async fn listings(
        &self,
        scope: &Scope,
        aggregations: &BTreeSet<String>,
        cache: &mut MailboxCache,
        metrics: &Metrics,
        clock: fn() -> Timestamp,
    ) -> Result<Listings, ObserveError> {
        let seldom = cache.seldom;
        let listing = |mailbox| Listing {
            mailbox,
            scope,
            aggregations,
            seldom,
        };
        let ledger = measured("ledger", metrics, listing(self.ledger.as_ref()).ledger()).await?;
        let results = ledger.iter().filter_map(result_of).collect();
        let ingestion = listing(self.ingestion.as_ref());
        let ingestion = ingestion.batches(&results, &mut cache.ingestion, clock);
        let ingestion = measured("ingestion", metrics, ingestion).await?;
        let peer_validation = listing(self.peer_validation.as_ref());
        let peer_validation = peer_validation.batches(&results, &mut cache.peer_validation, clock);
        let peer_validation = measured("peer-validation", metrics, peer_validation).await?;
        self.read_new(&ledger, cache).await?;
        let names: BTreeSet<&str> = ledger.iter().map(|listed| listed.name.as_str()).collect();
        cache.rejections.retain(|name, _| names.contains(name.as_str()));
        cache.results.retain(|name, _| names.contains(name.as_str()));
        let (rejections, results) = (cache.rejections.clone(), cache.results.clone());
        Ok(Listings {
            ingestion,
            peer_validation,
            ledger,
            rejections,
            results,
        })
    }

    /// Reads refusals and results that weren't read before.
    async fn read_new(&self, ledger: &[Listed], cache: &mut MailboxCache) -> Result<(), ObserveError> {
        let unread = |folder: &str, known: &dyn Fn(&str) -> bool| {
            let prefix = format!("{folder}/");
            let names = ledger
                .iter()
                .filter(|listed| listed.name.starts_with(&prefix) && !known(&listed.name));
            names
                .filter_map(|listed| ObjectKey::parse(listed.name.clone()).ok())
                .collect::<Vec<_>>()
        };
        let rejected = unread(REJECTED, &|name| cache.rejections.contains_key(name));
        let results = unread(RESULTS, &|name| cache.results.contains_key(name));
        cache.rejections.extend(self.read_all(rejected).await?);
        cache.results.extend(self.read_all(results).await?);
        Ok(())
    }

    /// Reads some at a time; by name, those that are there and decode.
    async fn read_all<T: LedgerObject + Send>(
        &self,
        keys: impl IntoIterator<Item = ObjectKey>,
    ) -> Result<Vec<(String, T)>, ObserveError> {
        let reads: Vec<_> = keys.into_iter().map(|key| self.read::<T>(key).boxed()).collect();
        let read: Vec<(ObjectKey, Option<T>)> = stream::iter(reads).buffered(READS).try_collect().await?;
        Ok(read
            .into_iter()
            .filter_map(|(key, object)| Some((key.into_string(), object?)))
            .collect())
    }

    /// `None`: gone since it was listed, or not what belongs there, which is logged.
    async fn read<T: LedgerObject>(&self, key: ObjectKey) -> Result<(ObjectKey, Option<T>), ObserveError> {
        let read = match self.ledger.read(&key, T::MAX_BYTES).await {
            Ok(bytes) => T::from_bytes(&key, &bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == MailboxErrorKind::NotFound => return Ok((key, None)),
            Err(error) if error.kind() == MailboxErrorKind::TooLarge => Err(error.to_string()),
            Err(source) => {
                return Err(ObserveError::Listing {
                    mailbox: "ledger",
                    source,
                });
            }
        };
        match read {
            Ok(object) => Ok((key, Some(object))),
            Err(error) => {
                tracing::warn!(object = key.as_str(), error, "an object of the ledger can't be used");
                Ok((key, None))
            }
        }
    }
}

/// Times a listing and counts its failure.
async fn measured(
    mailbox: &'static str,
    metrics: &Metrics,
    listing: impl Future<Output = Result<Vec<Listed>, MailboxError>>,
) -> Result<Vec<Listed>, ObserveError> {
    let begun = Instant::now();
    let listed = listing.await;
    let labels = MailboxLabels { mailbox };
    metrics
        .listing_seconds
        .get_or_create(&labels)
        .observe(begun.elapsed().as_secs_f64());
    listed.context(ListingSnafu { mailbox }).inspect_err(|_| {
        metrics.listing_errors.get_or_create(&labels).inc();
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use crate::processor::listing::tests::{UUID, put, scope, three};

    #[tokio::test]
    async fn refusals_and_results_are_read_once_and_bad_ones_do_not_stop_the_rest() {
        let (_, _, ledger, mailboxes) = three();
        let good = Rejected {
            revision: 1,
            reason: facilitator_core::formats::ledger::RejectedReason::Empty,
            message: "no packets".into(),
            header_digest: None,
            packet_digest: None,
        };
        let name = format!("rejected/agg/2026/11/20/08/00/{UUID}");
        let key = ObjectKey::parse(name.clone()).unwrap();
        ledger.replace(&key, good.to_bytes().unwrap());
        put(
            &ledger,
            &["rejected/agg/2026/11/20/08/01/00000000-0000-0000-0000-000000000002"],
        );
        let (mut cache, metrics) = (MailboxCache::default(), Metrics::default());
        let listings = mailboxes
            .listings(&scope(false), &BTreeSet::new(), &mut cache, &metrics, Timestamp::now)
            .await
            .unwrap();
        assert_eq!(listings.rejections.len(), 1);
        assert_eq!(listings.rejections[&name], good);
        assert_eq!(listings.ledger.len(), 2);
        ledger.remove(&key);
        let listings = mailboxes
            .listings(&scope(false), &BTreeSet::new(), &mut cache, &metrics, Timestamp::now)
            .await
            .unwrap();
        assert!(listings.rejections.is_empty(), "what is gone is forgotten");
    }

    #[tokio::test]
    async fn a_mailbox_that_refuses_is_named_and_counted() {
        let (ingestion, _, _, mailboxes) = three();
        ingestion.fail_next(1);
        let metrics = Metrics::default();
        let listed = mailboxes
            .listings(
                &scope(false),
                &BTreeSet::new(),
                &mut MailboxCache::default(),
                &metrics,
                Timestamp::now,
            )
            .await;
        assert!(listed.unwrap_err().to_string().contains("ingestion"));
        let text = metrics.encode(jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert!(
            text.contains("mailbox_listing_errors_total{mailbox=\"ingestion\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn a_reason_says_whose_turn_it_is() {
        let url = MailboxUrl::parse("s3://us-west-1/bucket").unwrap();
        let table = [
            (MailboxErrorKind::Denied, "AccessDenied"),
            (MailboxErrorKind::NoSuchMailbox, "NoSuchMailbox"),
            (MailboxErrorKind::Configuration, "WrongSettings"),
            (MailboxErrorKind::Unsupported, "WrongSettings"),
            (MailboxErrorKind::Unavailable, "ListingFailed"),
            (MailboxErrorKind::Corrupt, "ListingFailed"),
        ];
        for (kind, reason) in table {
            let source = MailboxError::of_mailbox(kind, &url, "the store's own words");
            let mailbox = "ingestion";
            let error = ObserveError::Listing { mailbox, source };
            assert_eq!(error.reason(), reason);
            let said = error.to_string();
            assert!(
                said.contains("ingestion mailbox: mailbox s3://us-west-1/bucket") && said.contains("own words"),
                "{said}"
            );
        }
    }

    #[tokio::test]
    async fn the_identity_of_a_ledger_is_absent_right_or_wrong() {
        let (_, _, ledger, mailboxes) = three();
        assert_eq!(mailboxes.ledger_identity().await.unwrap(), None);
        put(&ledger, &["ledger.json"]);
        assert!(matches!(
            mailboxes.ledger_identity().await,
            Err(ObserveError::Ledger { .. })
        ));
    }
}
