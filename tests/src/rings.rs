//! Keys that the parties' own KeyRings make and renew, manifests by which all find each other, and second copies that only
//! this harness can open.

use std::io::Read;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use anyhow::{Context, Result, ensure};
use crds::key_ring::{KeyVersion, VersionState};
use crds::names::KEY_RING_LABEL;
use facilitator_core::crypto::{BatchVerifyingKey, TrustedKeys};
use facilitator_core::formats::manifest::{BatchSigningPublicKey, GLOBAL_OBJECT, IngestorIdentity, IngestorManifest};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::keys::{KeySet, PacketKey, SigningKey};
use crate::party::{INSTANCE, Pair, Party};
use crate::web::{MANIFESTS, Webs};

/// The KeyRing of the keys that sign.
pub const SIGNING: &str = "signing";
/// The KeyRing of the keys that packets are encrypted to.
pub const PACKETS: &str = "packets";
/// Both.
pub const RINGS: [&str; 2] = [SIGNING, PACKETS];
/// The ConfigMap with the authority of all web servers.
const AUTHORITIES: &str = "authorities";
/// Seconds between two looks at a partner's manifest: the least that a Peer allows.
pub const REFRESH_SECONDS: u32 = 10;

/// Who opens second copies, and the web servers.
#[derive(Clone)]
pub struct Rings {
    identity: Identity,
    /// The web servers.
    pub webs: Webs,
}

impl Rings {
    /// A new identity, and web servers for these parties. Nothing is started yet.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new(parties: &[Party; 2], ingestor: &str) -> Result<Self> {
        let [first, second] = parties;
        Ok(Self {
            identity: Identity::generate(),
            webs: Webs::new(
                [&first.name, &second.name],
                [&first.worker_namespace, &second.worker_namespace],
                ingestor,
            )?,
        })
    }

    /// What the ingestor publishes: its own key, and the one that signed the fixtures.
    ///
    /// # Errors
    /// When a key isn't one.
    pub fn ingestor_manifest(&self, keys: &KeySet) -> Result<Value> {
        let published = |key: &SigningKey| -> Result<_> {
            let public_key = BatchVerifyingKey::parse(&key.public()?)?.to_pem();
            let expiration = "2123-01-01T00:00:00Z".to_owned();
            Ok((key.id.clone(), BatchSigningPublicKey { public_key, expiration }))
        };
        let manifest = IngestorManifest {
            format: 1,
            server_identity: IngestorIdentity {
                gcp_service_account_email: "ingestor@demo.iam.gserviceaccount.com".to_owned(),
                aws_iam_entity: None,
                gcp_service_account_id: None,
            },
            batch_signing_public_keys: [published(&keys.ingestor)?, published(&keys.fixture_ingestor)?].into(),
        };
        Ok(json!({"apiVersion": "v1", "kind": "ConfigMap",
                  "metadata": {"name": MANIFESTS, "namespace": self.webs.ingestor.namespace},
                  "data": {GLOBAL_OBJECT: manifest.to_json()}}))
    }

    /// A party's KeyRings, its Peers, and the authority that their web servers' certificates are of.
    pub fn objects(&self, party: &Party) -> Vec<Value> {
        let object = |kind: &str, name: &str, spec: Value| {
            json!({"apiVersion": "prio-operator.io/v1alpha1", "kind": kind,
                   "metadata": {"name": name, "namespace": party.worker_namespace}, "spec": spec})
        };
        let backup = json!({"method": "Age", "recipients": [self.identity.to_public().to_string()]});
        let peer = |party: &str, url: String| {
            json!({"party": party, "manifestBaseUrl": url, "caBundleRef": {"name": AUTHORITIES}, "refreshSeconds": REFRESH_SECONDS,
                   // A retired key leaves fewer than before: here nobody wants to be asked about that.
                   "suspiciousChanges": "Accept"})
        };
        let mut other = peer("ShareProcessor", self.webs.parties[1 - party.index].base_url());
        other["instance"] = json!(INSTANCE);
        vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap",
                   "metadata": {"name": AUTHORITIES, "namespace": party.worker_namespace},
                   "data": {"ca.crt": self.webs.authority}}),
            object(
                "KeyRing",
                SIGNING,
                json!({"purpose": "BatchSigning", "keyIdPrefix": format!("{}-signing", party.name), "backup": backup}),
            ),
            object(
                "KeyRing",
                PACKETS,
                json!({"purpose": "PacketEncryption", "keyIdPrefix": format!("{}-packets", party.name), "backup": backup,
                       "certificate": {"commonName": format!("{}.demo.certificates.example.org", party.name)}}),
            ),
            object("Peer", "ingestor", peer("Ingestor", self.webs.ingestor.base_url())),
            object("Peer", "other-party", other),
        ]
    }

    /// What a DataShareProcessor says of keys, partners and its own manifest. The original's packet key, which its fixtures
    /// are encrypted to, stays beside the ring's.
    pub fn add_to(&self, spec: &mut Value, party: &Party) {
        spec["ingestor"] = json!({"peerRef": {"name": "ingestor"}});
        spec["peer"] = json!({"peerRef": {"name": "other-party"}});
        spec["keys"] = json!({
            "batchSigning": {"keyRingRef": {"name": SIGNING}},
            "packetDecryption": [{"keyRingRef": {"name": PACKETS}}, {"secretRef": {"name": "packet-decryption-old"}}],
        });
        spec["manifest"] = json!({
            "publishTo": {"configMap": {"name": MANIFESTS}},
            "servedAt": {"baseUrl": self.webs.parties[party.index].base_url(), "caBundleRef": {"name": AUTHORITIES}},
            "serverIdentity": {"gcpServiceAccountEmail": format!("{}@demo.iam.gserviceaccount.com", party.name)},
        });
    }
}

/// A ring's versions, youngest first.
///
/// # Errors
/// When the ring can't be read.
pub async fn versions(party: &Party, ring: &str) -> Result<Vec<KeyVersion>> {
    let ring = party.key_rings().get(ring).await?;
    Ok(ring.status.map(|status| status.versions).unwrap_or_default())
}

/// The version of a ring that is in use.
///
/// # Errors
/// When there is none.
pub async fn in_use(party: &Party, ring: &str) -> Result<KeyVersion> {
    let versions = versions(party, ring).await?;
    let found = versions
        .into_iter()
        .find(|version| version.state == VersionState::InUse);
    found.with_context(|| format!("{}: {ring} has no key in use", party.name))
}

/// The keys whose signatures whoever has followed a party's manifests believes: all that were ever public.
///
/// # Errors
/// When the ring can't be read.
pub async fn signers(party: &Party) -> Result<TrustedKeys> {
    let versions = versions(party, SIGNING).await?;
    let public = versions.into_iter().filter(|version| version.published.is_some());
    public
        .map(|version| Ok((version.id, BatchVerifyingKey::from_pem(&version.public_key)?)))
        .collect()
}

impl Pair {
    /// Every private key of the pair, and what opens second copies: what no log, Event, object or argument may hold.
    ///
    /// # Errors
    /// When Secrets can't be read, or hold no keys.
    pub async fn private_keys(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let Some(rings) = &self.rings else {
            return self.keys.scalars();
        };
        let mut all = self.keys.scalars_beside_rings()?;
        let identity = rings.identity.to_string();
        all.push(("age identity".to_owned(), identity.expose_secret().as_bytes().to_vec()));
        for party in &self.parties {
            for ring in RINGS {
                for (id, secret) in keys_of(self, party, ring).await? {
                    let scalar = match ring {
                        SIGNING => SigningKey { id: id.clone(), secret }.scalar()?,
                        _ => PacketKey { id: id.clone(), secret }.scalar()?,
                    };
                    all.push((id, scalar));
                }
            }
        }
        Ok(all)
    }

    /// Opens the second copy of every key with the identity, and compares it with the key's Secret; gives their number.
    ///
    /// # Errors
    /// When a copy isn't there, can't be opened, or holds something else.
    pub async fn compare_second_copies(&self) -> Result<usize> {
        let rings = self.rings.as_ref().context("a pair without KeyRings")?;
        let mut compared = 0;
        for party in &self.parties {
            let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), &party.worker_namespace);
            for ring in RINGS {
                for version in versions(party, ring).await? {
                    let name = &version.secret;
                    let kept = secrets.get(name).await?;
                    let copy = secrets.get(&format!("{name}.backup")).await?;
                    let wrapped = copy.data.unwrap_or_default().remove("secret.json.age");
                    let wrapped = wrapped.with_context(|| format!("{name}.backup holds no copy"))?;
                    let decryptor = age::Decryptor::new(wrapped.0.as_slice())?;
                    let mut text = String::new();
                    decryptor
                        .decrypt(std::iter::once(&rings.identity as &dyn age::Identity))?
                        .read_to_string(&mut text)?;
                    let copied: Secret = serde_json::from_str(&text)?;
                    ensure!(copied.data == kept.data, "the second copy of {name} holds another key");
                    compared += 1;
                }
            }
        }
        Ok(compared)
    }
}

/// The ids and private halves of a ring's keys.
async fn keys_of(pair: &Pair, party: &Party, ring: &str) -> Result<Vec<(String, String)>> {
    let secrets: Api<Secret> = Api::namespaced(pair.cluster.client.clone(), &party.worker_namespace);
    let of_ring = ListParams::default().labels(&format!("{KEY_RING_LABEL}={ring}"));
    let mut keys = Vec::new();
    for secret in secrets.list(&of_ring).await?.items {
        let mut data = secret.data.unwrap_or_default();
        // Second copies have neither.
        if let (Some(id), Some(key)) = (data.remove("id"), data.remove("key")) {
            keys.push((String::from_utf8(id.0)?, String::from_utf8(key.0)?));
        }
    }
    ensure!(!keys.is_empty(), "{}: {ring} has no Secrets", party.name);
    Ok(keys)
}
