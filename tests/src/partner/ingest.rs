//! The ingestor: writes batches at their times into the buckets that the parties' manifests name, encrypted to the keys that
//! these hold. It asks for the manifests by https as often as it is told to, and follows them as they change.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use facilitator_core::crypto::BatchSigningKey;
use facilitator_core::formats::manifest::{DataShareProcessorSpecificManifest, MAX_MANIFEST_BYTES, specific_object};
use jiff::Timestamp;
use mailbox::{Access, Mailbox, MailboxUrl, ObjectKey, open_mailbox};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::say;
use crate::samples::{self, Recipient, Sample};

/// How long one manifest may take.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
/// Before a manifest that never came yet is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// What an ingestor is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Orders {
    /// PEM: the authorities that vouch for the parties' web servers.
    pub authorities: String,
    /// First and Second.
    pub parties: [PartyOrders; 2],
    /// The id of the key that signs batches.
    pub signer: String,
    /// A manifest is asked for again when it is so old, in seconds.
    pub refresh_seconds: u32,
    /// What to write, in order.
    pub batches: Vec<Order>,
}

/// Where a party is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartyOrders {
    /// The folder of its manifests.
    pub manifest_base_url: String,
    /// `<instance>-manifest.json` is its specific manifest.
    pub instance: String,
    /// How its bucket is reached; which one it is says its manifest.
    pub access: Access,
}

/// One batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Not before; absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What.
    pub sample: Sample,
}

/// Writes all batches, or those until SIGTERM; of each that is written whole, a line of JSON is added to the journal.
///
/// # Errors
/// When orders or key can't be used, or a store refuses a batch.
pub async fn ingest(orders: &Path, key: &Path, journal: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()));
    let orders: Orders = serde_json::from_str(&read(orders)?).context("the orders")?;
    let signer = BatchSigningKey::parse(&orders.signer, &read(key)?)?;
    let mut journal = OpenOptions::new().create(true).append(true).open(journal)?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut books = Books::new(&orders)?;
    for order in &orders.batches {
        tokio::select! {
            biased;
            _ = stop.recv() => {
                say("asked to stop");
                return Ok(());
            }
            recipients = async {
                wait_for(order.at).await;
                books.recipients().await
            } => {
                let made = samples::make(&order.sample, &signer, &recipients?)?;
                // Not in this select: a batch that is begun is written whole.
                books.put(&made.objects).await?;
                writeln!(journal, "{}", serde_json::to_string(&made.written)?)?;
                let [first, second] = &made.written.packet_keys;
                say(format!("{}/{} under {first} and {second}", order.sample.time, made.written.id));
            }
        }
    }
    Ok(())
}

async fn wait_for(time: Option<Timestamp>) {
    let left = time.map(|time| time.duration_since(Timestamp::now()));
    if let Some(left) = left.and_then(|left| Duration::try_from(left).ok()) {
        tokio::time::sleep(left).await;
    }
}

/// What the ingestor knows of the parties.
struct Books<'a> {
    client: reqwest::Client,
    refresh: Duration,
    parties: [(&'a PartyOrders, Option<Known>); 2],
}

struct Known {
    fetched: Instant,
    recipient: Recipient,
    mailbox: Arc<dyn Mailbox>,
}

impl<'a> Books<'a> {
    fn new(orders: &'a Orders) -> Result<Self> {
        let authorities = reqwest::Certificate::from_pem_bundle(orders.authorities.as_bytes())?;
        ensure!(!authorities.is_empty(), "the orders name no authority");
        let client = reqwest::Client::builder()
            .tls_certs_only(authorities)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(FETCH_LIMIT)
            .build()?;
        Ok(Self {
            client,
            refresh: Duration::from_secs(orders.refresh_seconds.into()),
            parties: orders.parties.each_ref().map(|party| (party, None)),
        })
    }

    /// The keys to encrypt to. A manifest that doesn't come is taken as it was; the first one is waited for.
    async fn recipients(&mut self) -> Result<[Recipient; 2]> {
        let mut recipients = Vec::new();
        for (party, known) in &mut self.parties {
            loop {
                let is_fresh = known
                    .as_ref()
                    .is_some_and(|known| known.fetched.elapsed() < self.refresh);
                if !is_fresh {
                    match look(&self.client, party).await {
                        Ok(found) => *known = Some(found),
                        Err(error) => say(format!("{}: {error:#}", party.manifest_base_url)),
                    }
                }
                if let Some(known) = known {
                    recipients.push(known.recipient.clone());
                    break;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
        recipients.try_into().ok().context("two parties")
    }

    /// Puts a batch's objects into both buckets, in order.
    async fn put(&self, objects: &[Vec<(String, Vec<u8>)>; 2]) -> Result<()> {
        for ((_, known), objects) in self.parties.iter().zip(objects) {
            let known = known.as_ref().context("a party that isn't known")?;
            for (name, bytes) in objects {
                let key = ObjectKey::parse(name.clone())?;
                known.mailbox.put_if_absent(&key, Bytes::from(bytes.clone())).await?;
            }
        }
        Ok(())
    }
}

/// Fetches a party's manifest, and takes from it the bucket and the key to encrypt to.
async fn look(client: &reqwest::Client, party: &PartyOrders) -> Result<Known> {
    let url = format!("{}/{}", party.manifest_base_url, specific_object(&party.instance));
    let answer = client.get(url).send().await?.error_for_status()?;
    let bytes = answer.bytes().await?;
    ensure!(bytes.len() <= MAX_MANIFEST_BYTES, "longer than any manifest");
    let manifest = DataShareProcessorSpecificManifest::parse(&bytes)?;
    let requests = manifest.packet_encryption_requests()?;
    let (key_id, request) = requests.into_iter().next().context("no packet encryption key")?;
    ensure!(
        request.signature_verifies,
        "the request for {key_id} isn't signed by the key that it holds"
    );
    Ok(Known {
        fetched: Instant::now(),
        recipient: Recipient {
            key_id,
            point: request.public_point,
        },
        mailbox: open_mailbox(&MailboxUrl::parse(&manifest.ingestion_bucket)?, &party.access)?,
    })
}
