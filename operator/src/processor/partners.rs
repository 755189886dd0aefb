//! The parties that a processor works with: what its spec leaves to their manifests is filled in from its Peers. Pure but
//! for [`find`].

use std::collections::BTreeMap;

use crds::conditions::{MANIFEST_CURRENT, PEERS_KNOWN, reasons};
use crds::peer::{Party, PeerManifest};
use crds::processor::{InlineParty, InlinePortal, PeerReference, PublicKey, Share};
use crds::{DataShareProcessor, DataShareProcessorSpec, Peer};
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use mailbox::MailboxUrl;

use crate::status::Verdict;

/// What is known of the Peers that a spec names; one that isn't there is left out.
pub type Peers = BTreeMap<String, Result<Peer, String>>;

/// A processor whose spec leaves nothing to its Peers, and what to say of them.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The processor. Where something isn't known it is suspended: what runs goes on, and nothing begins.
    pub processor: DataShareProcessor,
    /// `PeersKnown`.
    pub verdict: Verdict,
    /// What was filled in; `None` where something isn't known.
    pub parties: Option<Parties>,
}

/// What work depends on of other parties.
#[derive(Clone, Debug, PartialEq)]
pub struct Parties {
    ingestor: InlineParty,
    peer: InlineParty,
    peer_url: String,
    portal_url: String,
}

/// Why a party isn't known.
struct Unknown {
    reason: &'static str,
    message: String,
}

/// The Peers that a spec names.
pub fn names(spec: &DataShareProcessorSpec) -> impl Iterator<Item = &str> {
    let named = [&spec.ingestor.peer_ref, &spec.peer.peer_ref, &spec.portal.peer_ref];
    named.into_iter().flatten().map(|reference| reference.name.as_str())
}

/// Reads the Peers that a spec names.
///
/// # Errors
/// Those of the API server.
pub async fn find(client: &Client, namespace: &str, spec: &DataShareProcessorSpec) -> kube::Result<Peers> {
    let api: Api<DeserializeGuard<Peer>> = Api::namespaced(client.clone(), namespace);
    let mut peers = Peers::new();
    for name in names(spec) {
        if let Some(DeserializeGuard(peer)) = api.get_opt(name).await? {
            peers.insert(name.to_owned(), peer.map_err(|invalid| invalid.error));
        }
    }
    Ok(peers)
}

/// Fills in what the spec leaves to its Peers.
#[must_use]
pub fn resolve(processor: &DataShareProcessor, peers: &Peers) -> Resolved {
    let mut resolved = processor.clone();
    match fill_in(&mut resolved.spec, peers) {
        Ok(parties) => Resolved {
            processor: resolved,
            verdict: verdict(&processor.spec, peers),
            parties: Some(parties),
        },
        Err(unknown) => {
            let mut suspended = processor.clone();
            suspended.spec.suspend = true;
            let message = format!(
                "{} Until then no new Jobs start, and running ones finish with what they were given. Cutoffs don't wait.",
                unknown.message
            );
            Resolved {
                processor: suspended,
                verdict: Verdict::new(PEERS_KNOWN, Some(false), unknown.reason, message),
                parties: None,
            }
        }
    }
}

fn fill_in(spec: &mut DataShareProcessorSpec, peers: &Peers) -> Result<Parties, Unknown> {
    if let Some(reference) = spec.ingestor.peer_ref.take() {
        let manifest = manifest(&reference, Party::Ingestor, "ingestor", peers)?;
        spec.ingestor.inline = Some(keys(manifest));
    }
    if let Some(reference) = spec.peer.peer_ref.take() {
        let manifest = manifest(&reference, Party::ShareProcessor, "peer", peers)?;
        spec.peer.inline = Some(keys(manifest));
        let url = &mut spec.mailboxes.outgoing.peer.url;
        if url.is_empty() {
            *url = mailbox(&reference, manifest, "peer-validation-bucket")?;
        }
    }
    if let Some(reference) = spec.portal.peer_ref.take() {
        let manifest = manifest(&reference, Party::Portal, "portal", peers)?;
        spec.portal.inline = Some(InlinePortal {});
        let url = &mut spec.mailboxes.outgoing.portal.url;
        if url.is_empty() {
            let bucket = match spec.share {
                Share::First => "pha-sum-part-bucket",
                Share::Second => "facilitator-sum-part-bucket",
            };
            *url = mailbox(&reference, manifest, bucket)?;
        }
    }
    apart(spec)?;
    // The API server asks for exactly one of both.
    let inline = |party: &Option<InlineParty>, field: &str| {
        party.clone().ok_or_else(|| Unknown {
            reason: reasons::INVALID_SPEC,
            message: format!("spec.{field} has neither inline nor peerRef."),
        })
    };
    Ok(Parties {
        ingestor: inline(&spec.ingestor.inline, "ingestor")?,
        peer: inline(&spec.peer.inline, "peer")?,
        peer_url: spec.mailboxes.outgoing.peer.url.clone(),
        portal_url: spec.mailboxes.outgoing.portal.url.clone(),
    })
}

/// The manifest in use of a Peer.
fn manifest<'a>(
    reference: &PeerReference,
    party: Party,
    field: &str,
    peers: &'a Peers,
) -> Result<&'a PeerManifest, Unknown> {
    let name = &reference.name;
    let unknown = |reason, message: String| Unknown {
        reason,
        message: format!("spec.{field}: {message}"),
    };
    let peer = match peers.get(name) {
        None => {
            return Err(unknown(
                reasons::PEER_MISSING,
                format!("there is no Peer {name} in this namespace: make it."),
            ));
        }
        Some(Err(error)) => {
            return Err(unknown(
                reasons::PEER_UNKNOWN,
                format!("Peer {name} can't be read by this version: {error}."),
            ));
        }
        Some(Ok(peer)) => peer,
    };
    if peer.spec.party != party {
        return Err(unknown(
            reasons::PARTY_DIFFERS,
            format!("Peer {name} is a party of kind {:?}, not {party:?}.", peer.spec.party),
        ));
    }
    let status = peer.status.as_ref();
    status.and_then(|status| status.manifest.as_ref()).ok_or_else(|| {
        let why = trouble(peer).unwrap_or_else(|| "it has not been fetched yet.".to_owned());
        unknown(
            reasons::PEER_UNKNOWN,
            format!("the manifest of Peer {name} is not known: {why}"),
        )
    })
}

/// Why the manifest in use isn't the newest, in the Peer's own words.
fn trouble(peer: &Peer) -> Option<String> {
    let conditions = &peer.status.as_ref()?.conditions;
    let current = conditions
        .iter()
        .find(|condition| condition.type_ == MANIFEST_CURRENT && condition.status == "False")?;
    Some(format!("{}: {}", current.reason, current.message))
}

fn keys(manifest: &PeerManifest) -> InlineParty {
    let keys = manifest.batch_signing_keys.iter().map(|key| PublicKey {
        id: key.id.clone(),
        public_key: key.public_key.clone(),
    });
    InlineParty {
        batch_signing_keys: keys.collect(),
    }
}

/// A mailbox that a manifest names. A folder of the reader's own disk is none: it could be our own ledger's.
fn mailbox(reference: &PeerReference, manifest: &PeerManifest, field: &str) -> Result<String, Unknown> {
    let refused = |why: String| Unknown {
        reason: reasons::MAILBOX_REFUSED,
        message: format!("{field} of Peer {} can't be used: {why}.", reference.name),
    };
    let text = manifest
        .fields
        .get(field)
        .ok_or_else(|| refused("its manifest has no such field".to_owned()))?;
    let url = MailboxUrl::parse(text).map_err(|error| refused(error.to_string()))?;
    if !matches!(url.scheme(), "s3" | "gs") {
        return Err(refused(format!("{text} is neither s3:// nor gs://")));
    }
    Ok(url.to_string())
}

/// The API server compares the URLs that are written; here are those that came from manifests.
fn apart(spec: &DataShareProcessorSpec) -> Result<(), Unknown> {
    let mailboxes = &spec.mailboxes;
    let urls = [
        ("ingestion", &mailboxes.ingestion.url),
        ("peerValidation", &mailboxes.peer_validation.url),
        ("ledger", &mailboxes.ledger.url),
        ("outgoing.peer", &mailboxes.outgoing.peer.url),
        ("outgoing.portal", &mailboxes.outgoing.portal.url),
    ];
    for (one, url) in urls {
        for (other, its_url) in urls.iter().filter(|(other, _)| *other != one) {
            if *its_url == url || its_url.starts_with(&format!("{}/", url.trim_end_matches('/'))) {
                let message = format!("mailbox {other} ({its_url}) is mailbox {one} ({url}) or lies in it.");
                return Err(Unknown {
                    reason: reasons::MAILBOX_REFUSED,
                    message,
                });
            }
        }
    }
    Ok(())
}

fn verdict(spec: &DataShareProcessorSpec, peers: &Peers) -> Verdict {
    let (reason, more) = match identity(spec, peers) {
        Some((true, text)) => (reasons::IDENTITY_DIFFERS, text),
        Some((false, text)) => (reasons::OK, text),
        None => (reasons::OK, String::new()),
    };
    Verdict::new(PEERS_KNOWN, Some(true), reason, known(spec, peers) + &more)
}

/// Who the peer's manifest says must write to its mailbox, where that isn't who workers are there; `true`: who they are is
/// another, for sure. Whose token to show and for whom only our side knows, so that credentials stay the spec's.
fn identity(spec: &DataShareProcessorSpec, peers: &Peers) -> Option<(bool, String)> {
    let name = &spec.peer.peer_ref.as_ref()?.name;
    let manifest = peers.get(name)?.as_ref().ok()?.status.as_ref()?.manifest.as_ref()?;
    let theirs = manifest.fields.get("peer-validation-identity")?;
    let mailbox = &spec.mailboxes.outgoing.peer;
    let bucket = manifest.fields.get("peer-validation-bucket")?;
    let bucket = MailboxUrl::parse(bucket).ok()?.to_string();
    // Of another mailbox than their manifest's it says nothing.
    if !mailbox.url.is_empty() && mailbox.url != bucket {
        return None;
    }
    let said = mailbox.credentials.as_ref();
    let ours = said.and_then(|said| {
        let role = said.aws_from_google.as_ref().map(|role| &role.role);
        let account = said.google_service_account.as_ref().map(|account| &account.email);
        let pool = said.google_from_aws.as_ref().and_then(|pool| pool.email.as_ref());
        role.or(account).or(pool)
    });
    let (differs, we) = match ours {
        Some(ours) if ours == theirs => return None,
        Some(ours) => (
            true,
            format!("mailboxes.outgoing.peer.credentials say {ours}: correct one of both"),
        ),
        None if said.is_some_and(|said| said.anonymous.is_some()) => (
            true,
            "mailboxes.outgoing.peer.credentials say nobody: give some".to_owned(),
        ),
        None => (
            false,
            "who the credentials of mailboxes.outgoing.peer belong to can't be seen from here".to_owned(),
        ),
    };
    let text =
        format!(" The manifest of {name} asks that {theirs} writes to {bucket} (peer-validation-identity); {we}.");
    Some((differs, text))
}

/// What is used, and which of it isn't the newest.
fn known(spec: &DataShareProcessorSpec, peers: &Peers) -> String {
    let mut named: Vec<&str> = names(spec).collect();
    named.sort_unstable();
    named.dedup();
    if named.is_empty() {
        return "All parties are written in the spec.".to_owned();
    }
    let mut text = format!("A good manifest is known of {}.", named.join(", "));
    for name in named {
        if let Some(Ok(peer)) = peers.get(name)
            && let Some(trouble) = trouble(peer)
        {
            text.push_str(&format!(" Of {name} it isn't the newest: {trouble}"));
        }
    }
    text
}

#[cfg(test)]
#[path = "partners_tests.rs"]
mod tests;
