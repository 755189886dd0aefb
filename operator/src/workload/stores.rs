//! What a worker pod mounts to reach mailboxes in buckets: the Secrets of those that its stage uses, and authorities. Each
//! Secret and ConfigMap once, however many mailboxes name it, at the place that the parameters tell.

use std::collections::BTreeSet;

use crds::processor::{Mailbox, Mailboxes};
use facilitator_core::formats::work::{MAILBOX_AUTHORITIES_DIRECTORY, MAILBOX_SECRETS_DIRECTORY};
use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use super::job::{config_map, secret};

/// The volumes for mailboxes that a stage uses, of all that the processor has: a worker opens each of them, so that it
/// takes everybody's authorities, but is given only what it needs to be somebody.
pub(super) fn volumes<'a>(all: &Mailboxes, used: impl Iterator<Item = &'a Mailbox>) -> Vec<(Volume, VolumeMount)> {
    let secrets: BTreeSet<&str> = used
        .filter_map(|mailbox| mailbox.credentials.as_ref()?.secret_ref.as_ref())
        .map(|secret| secret.name.as_str())
        .collect();
    let outgoing = &all.outgoing;
    let every = [
        &all.ingestion,
        &all.peer_validation,
        &all.ledger,
        &outgoing.peer,
        &outgoing.portal,
    ];
    let authorities: BTreeSet<&str> = every
        .into_iter()
        .filter_map(|mailbox| mailbox.ca_bundle_ref.as_ref())
        .map(|bundle| bundle.name.as_str())
        .collect();
    let of_secrets = secrets.into_iter().enumerate().map(|(n, name)| {
        let path = format!("{MAILBOX_SECRETS_DIRECTORY}/{name}");
        secret(&format!("mailbox-secret-{n}"), name, &path)
    });
    let of_authorities = authorities.into_iter().enumerate().map(|(n, name)| {
        let path = format!("{MAILBOX_AUTHORITIES_DIRECTORY}/{name}");
        config_map(&format!("mailbox-authorities-{n}"), name, &path)
    });
    of_secrets.chain(of_authorities).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stage_gets_the_secrets_of_its_mailboxes_and_all_authorities_each_once() {
        let store = |bucket: &str, secret: &str, authority: &str| {
            json!({"url": format!("s3://us-west-1/{bucket}"), "credentials": {"secretRef": {"name": secret}},
                   "operatorCredentials": {"secretRef": {"name": "list"}}, "caBundleRef": {"name": authority}})
        };
        let all: Mailboxes = serde_json::from_value(json!({
            "ingestion": store("in", "aws", "one"),
            "peerValidation": store("validation", "aws", "one"),
            "ledger": store("ledger", "ledger", "two"),
            "outgoing": {"peer": {"url": "gs://theirs"}, "portal": store("portal", "portal", "three")},
        }))
        .unwrap();
        let volumes = volumes(&all, [&all.ingestion, &all.ledger, &all.outgoing.peer].into_iter());
        let found: Vec<_> = volumes
            .iter()
            .map(|(volume, mount)| {
                let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.clone());
                let name = secret.unwrap_or_else(|| volume.config_map.clone().unwrap().name);
                assert_eq!((&volume.name, mount.read_only), (&mount.name, Some(true)));
                (name, mount.mount_path.as_str())
            })
            .collect();
        let found: Vec<_> = found.iter().map(|(name, path)| (name.as_str(), *path)).collect();
        assert_eq!(
            found,
            [
                ("aws", "/etc/prio-operator/mailboxes/secrets/aws"),
                ("ledger", "/etc/prio-operator/mailboxes/secrets/ledger"),
                ("one", "/etc/prio-operator/mailboxes/authorities/one"),
                ("three", "/etc/prio-operator/mailboxes/authorities/three"),
                ("two", "/etc/prio-operator/mailboxes/authorities/two"),
            ]
        );
    }
}
