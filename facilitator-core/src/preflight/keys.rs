//! Our own keys beside what is published of them, and partners' public keys. Pure.

use std::fmt::Display;

use jiff::Timestamp;

use super::{OwnKeys, PublicHalves, Trouble, failed, not_checkable, passed};
use crate::crypto::csr::SigningRequest;
use crate::crypto::{BatchVerifyingKey, TrustedKeys};
use crate::formats::manifest::{DataShareProcessorSpecificManifest, Manifest, ManifestKind, Purpose, validate};
use crate::formats::preflight::{Check, Line};
use crate::formats::work::PublicKeyParameter;

const PUBLISH: &str = "publish the manifest anew, or mount the Secret of the key that is published";

/// Our keys, and the manifest.
pub(super) fn own(keys: &OwnKeys, manifest: Option<&str>, now: Timestamp) -> Vec<Line> {
    let (manifest, line) = published(manifest, now);
    let manifest = manifest.as_ref();
    vec![
        of(Check::SigningKey, &keys.signing, |mounted| signing(mounted, manifest)),
        of(Check::PacketKeys, &keys.packets, |mounted| packets(mounted, manifest)),
        line,
    ]
}

fn of(
    check: Check,
    mounted: &Result<PublicHalves, Trouble>,
    look: impl Fn(&PublicHalves) -> Result<String, Trouble>,
) -> Line {
    let looked = mounted.as_ref().map_err(Clone::clone).and_then(look);
    match looked {
        Ok(detail) => passed(check, detail),
        Err(Trouble { detail, remedy }) => failed(check, detail, remedy),
    }
}

/// The manifest that partners read, where it can be used.
fn published(text: Option<&str>, now: Timestamp) -> (Option<DataShareProcessorSpecificManifest>, Line) {
    let Some(text) = text else {
        let detail = "our own manifest isn't known here: nobody compares keys with what partners are told";
        return (None, not_checkable(Check::Manifest, detail));
    };
    match validate(
        ManifestKind::DataShareProcessorSpecific,
        text.as_bytes(),
        Purpose::Publish,
        now,
    )
    .accepted()
    {
        Ok((Manifest::DataShareProcessorSpecific(manifest), warnings)) => {
            let detail = match warnings.first() {
                None => "partners can use it".to_owned(),
                Some(warning) => format!("partners can use it; {}: {}", warning.path, warning.message),
            };
            (Some(manifest), passed(Check::Manifest, detail))
        }
        Ok(_) => (
            None,
            failed(Check::Manifest, "it is of another kind", "publish it anew"),
        ),
        Err(errors) => {
            let errors = errors.iter().map(|error| format!("{}: {}", error.path, error.message));
            let detail = errors.collect::<Vec<_>>().join("; ");
            (
                None,
                failed(
                    Check::Manifest,
                    detail,
                    "mend spec.manifest, and see `facilitator lint-manifest`",
                ),
            )
        }
    }
}

/// The keys that sign must be public, each under its id.
fn signing(mounted: &PublicHalves, manifest: Option<&DataShareProcessorSpecificManifest>) -> Result<String, Trouble> {
    // The others may be on their way to the manifest, or out of it.
    let Some((id, point)) = mounted.first() else {
        return Err(Trouble {
            detail: "no signing key is mounted".to_owned(),
            remedy: "name its Secret in spec.keys.batchSigning".to_owned(),
        });
    };
    let Some(manifest) = manifest else {
        return Ok(format!("{id:?} can be used; not compared with a manifest"));
    };
    let Some(key) = manifest.batch_signing_public_keys.get(id) else {
        return Err(Trouble {
            detail: format!("our manifest has no key {id:?}: the peer would refuse all that it signs"),
            remedy: PUBLISH.to_owned(),
        });
    };
    let is_same = BatchVerifyingKey::from_pem(&key.public_key).is_ok_and(|public| public.point() == point);
    if is_same {
        return Ok(format!("{id:?} is the one in our manifest"));
    }
    Err(Trouble {
        detail: format!("our manifest holds another key under the id {id:?}: the peer would refuse all that it signs"),
        remedy: PUBLISH.to_owned(),
    })
}

/// What ingestors encrypt to must be mounted; further keys are old ones.
fn packets(mounted: &PublicHalves, manifest: Option<&DataShareProcessorSpecificManifest>) -> Result<String, Trouble> {
    if mounted.is_empty() {
        return Err(Trouble {
            detail: "no packet decryption key is mounted".to_owned(),
            remedy: "name its Secret in spec.keys.packetDecryption".to_owned(),
        });
    }
    let count = mounted.len();
    let Some(manifest) = manifest else {
        return Ok(format!("{count} can be used; not compared with a manifest"));
    };
    for (id, key) in &manifest.packet_encryption_keys {
        let request = SigningRequest::parse(&key.certificate_signing_request);
        let is_mounted = request.is_ok_and(|request| mounted.iter().any(|(_, point)| *point == request.public_point));
        if !is_mounted {
            return Err(Trouble {
                detail: format!(
                    "packets are encrypted to the key {id:?} of our manifest, which isn't mounted: none could be opened"
                ),
                remedy: PUBLISH.to_owned(),
            });
        }
    }
    Ok(format!("{count} can be used, the published one among them"))
}

/// A partner's public keys: those that can be used, and what to say of them.
pub(super) fn partner(check: Check, whose: impl Display, keys: &[PublicKeyParameter]) -> (TrustedKeys, Line) {
    let mut trusted = TrustedKeys::default();
    let mut bad = None;
    for key in keys {
        match BatchVerifyingKey::parse(&key.public_key) {
            Ok(parsed) => trusted.insert(key.id.clone(), parsed),
            Err(error) => {
                let detail = format!("the public key {:?} of {whose} can't be used: {error}", key.id);
                bad.get_or_insert(failed(check, detail, "copy it from the party's manifest"));
            }
        }
    }
    if keys.is_empty() {
        let detail = format!("{whose} has no public key here");
        let remedy = "write its keys into the spec, or see what its Peer waits for";
        bad = Some(failed(check, detail, remedy));
    }
    let line = bad.unwrap_or_else(|| {
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        passed(check, ids.join(", "))
    });
    (trusted, line)
}
