//! What of a processor's spec its worker pods are given: `parameters.json` in an immutable ConfigMap per digest. Pure.

use std::collections::BTreeMap;

use crds::names::{MANAGED_BY, PROCESSOR_LABEL};
use crds::processor::{InlineParty, Share as SpecShare, ValidationFormat as SpecFormat};
use crds::{DataShareProcessor, DataShareProcessorSpec};
use facilitator_core::formats::work::{
    MailboxParameter, MailboxParameters, Parameters, ProcessorParameter, PublicKeyParameter, REVISION,
    ReplayGuardParameters, Share, ValidationFormat, WindowParameters,
};
use facilitator_core::window::{Window, WindowError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use uuid::Uuid;

use super::access;
use crate::digest::hex_digest;
use crate::workload::KeySet;

/// Digits of a digest in a ConfigMap's name.
const NAME_DIGITS: usize = 12;

/// The share as the formats name it.
#[must_use]
pub fn share(of: SpecShare) -> Share {
    match of {
        SpecShare::First => Share::First,
        SpecShare::Second => Share::Second,
    }
}

/// Builds `parameters.json` of a processor that leaves nothing to its Peers ([`super::partners::resolve`]).
#[must_use]
pub fn parameters(
    processor: &DataShareProcessor,
    keys: &KeySet,
    ledger_id: Option<Uuid>,
    start_at: Timestamp,
) -> Parameters {
    let spec = &processor.spec;
    let mailboxes = &spec.mailboxes;
    Parameters {
        revision: REVISION,
        processor: ProcessorParameter {
            namespace: processor.namespace().unwrap_or_default(),
            name: processor.name_any(),
            uid: processor.uid().unwrap_or_default(),
        },
        share: share(spec.share),
        instance: spec.instance.clone(),
        ledger_id,
        start_at: start_at.to_string(),
        mailboxes: MailboxParameters {
            ingestion: mailbox(&mailboxes.ingestion),
            peer_validation: mailbox(&mailboxes.peer_validation),
            ledger: mailbox(&mailboxes.ledger),
            peer: mailbox(&mailboxes.outgoing.peer),
            portal: mailbox(&mailboxes.outgoing.portal),
        },
        ingestor_keys: public_keys(spec.ingestor.inline.as_ref()),
        peer_keys: public_keys(spec.peer.inline.as_ref()),
        legacy_peer: spec.peer.legacy,
        validation_format: match spec.validation_format {
            SpecFormat::ThreeObjects => ValidationFormat::ThreeObjects,
            SpecFormat::SingleObject => ValidationFormat::SingleObject,
        },
        packet_decryption_keys: u32::try_from(keys.packets.len()).unwrap_or(u32::MAX),
        other_signing_keys: u32::try_from(keys.signing.len().saturating_sub(1)).unwrap_or(u32::MAX),
        windows: WindowParameters {
            period_seconds: spec.windows.period_seconds,
            min_clients: spec.windows.min_clients,
        },
        replay_guard: ReplayGuardParameters {
            enabled: spec.replay_guard.enabled,
            horizon_days: spec.replay_guard.horizon_days,
        },
    }
}

fn mailbox(mailbox: &crds::processor::Mailbox) -> MailboxParameter {
    MailboxParameter {
        url: mailbox.url.clone(),
        access: access::of_workers(mailbox),
    }
}

fn public_keys(party: Option<&InlineParty>) -> Vec<PublicKeyParameter> {
    let of = |key: &crds::processor::PublicKey| PublicKeyParameter {
        id: key.id.clone(),
        public_key: key.public_key.clone(),
    };
    let keys = party.map_or(&[][..], |party| &party.batch_signing_keys);
    keys.iter().map(of).collect()
}

/// The immutable ConfigMap that holds the parameters, named by their digest and owned by the processor.
///
/// # Errors
/// None in practice: parameters are JSON.
pub fn config_map(processor: &DataShareProcessor, parameters: &Parameters) -> Result<ConfigMap, serde_json::Error> {
    let content = serde_json::to_string(parameters)? + "\n";
    let digest: String = hex_digest(content.as_bytes()).chars().take(NAME_DIGITS).collect();
    let name = processor.name_any();
    let labels = [("app.kubernetes.io/managed-by", MANAGED_BY), (PROCESSOR_LABEL, &name)];
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(format!("{name}-parameters-{digest}")),
            namespace: processor.namespace(),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: Some(vec![owner(processor)]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([("parameters.json".to_owned(), content)])),
        ..ConfigMap::default()
    })
}

/// The reference by which a processor's objects go with it. It blocks nothing: that would need rights on finalizers.
#[must_use]
pub fn owner(processor: &DataShareProcessor) -> OwnerReference {
    OwnerReference {
        api_version: DataShareProcessor::api_version(&()).into_owned(),
        kind: DataShareProcessor::kind(&()).into_owned(),
        name: processor.name_any(),
        uid: processor.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

/// What both parties must agree on, in a form that doesn't depend on how it was written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Agreement<'a> {
    period_seconds: u32,
    grace_period_seconds: u32,
    settle_seconds: u32,
    max_defers: u32,
    min_clients: u64,
    cutoffs: Vec<(&'a str, &'a str, String)>,
}

/// Lower-case hex SHA-256 of what both parties must agree on: period, grace, settle, defers, floor and agreed cutoffs.
#[must_use]
pub fn agreement_digest(spec: &DataShareProcessorSpec) -> String {
    let windows = &spec.windows;
    let mut cutoffs: Vec<_> = windows
        .cutoffs
        .iter()
        .map(|entry| {
            // The same instant may be written with another offset.
            let instant = entry
                .cutoff
                .parse::<Timestamp>()
                .map_or_else(|_| entry.cutoff.clone(), |time| time.to_string());
            (entry.aggregation.as_str(), entry.start.as_str(), instant)
        })
        .collect();
    cutoffs.sort();
    let agreement = Agreement {
        period_seconds: windows.period_seconds,
        grace_period_seconds: windows.grace_period_seconds,
        settle_seconds: windows.settle_seconds,
        max_defers: windows.max_defers,
        min_clients: windows.min_clients,
        cutoffs,
    };
    // Numbers and strings always serialize.
    hex_digest(&serde_json::to_vec(&agreement).unwrap_or_default())
}

/// The first window that is ours, before a ledger says so: `startAt` of the spec, else the creation, rounded up to a window
/// so that no window is summed of which we saw only a part.
///
/// # Errors
/// Where the period is no window's.
pub fn default_start(spec: &DataShareProcessorSpec, created: Timestamp) -> Result<Timestamp, StartError> {
    if let Some(text) = &spec.windows.start_at {
        return text.parse().map_err(|source| StartError::Time { source });
    }
    let window =
        Window::holding(created, spec.windows.period_seconds).map_err(|source| StartError::Period { source })?;
    Ok(if window.start() == created {
        created
    } else {
        window.end()
    })
}

/// Why a spec says no start.
#[derive(Debug, snafu::Snafu)]
pub enum StartError {
    /// `startAt` is no time.
    #[snafu(display("spec.windows.startAt: {source}; write RFC 3339, for instance 2026-11-20T00:00:00Z"))]
    Time {
        /// Why.
        source: jiff::Error,
    },
    /// The period is no window's.
    #[snafu(display("spec.windows.periodSeconds: {source}"))]
    Period {
        /// Why.
        source: WindowError,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::processor::example;

    #[test]
    fn the_name_of_the_parameters_follows_from_their_content() {
        let start: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        let processor = example::processor();
        let of = |processor: &DataShareProcessor, id| {
            let keys = KeySet::default();
            config_map(processor, &parameters(processor, &keys, id, start)).unwrap()
        };
        let first = of(&processor, None);
        assert_eq!(first, of(&processor, None));
        assert_ne!(first.name_any(), of(&processor, Some(Uuid::from_u128(1))).name_any());
        let mut changed = processor.clone();
        changed.spec.windows.min_clients += 1;
        assert_ne!(first.name_any(), of(&changed, None).name_any());
        changed = processor.clone();
        changed.spec.windows.history_days += 1;
        assert_eq!(
            first.name_any(),
            of(&changed, None).name_any(),
            "what pods don't need doesn't change them"
        );
        let content = &first.data.as_ref().unwrap()["parameters.json"];
        let read: Parameters = serde_json::from_str(content).unwrap();
        assert_eq!(
            (read.instance.as_str(), read.start_at.as_str()),
            ("example", "2026-11-20T00:00:00Z")
        );
        assert_eq!(
            (
                first.immutable,
                first.metadata.owner_references.unwrap()[0].uid.as_str()
            ),
            (Some(true), "uid-1")
        );
    }

    #[test]
    fn the_agreement_is_on_the_meaning_and_only_on_what_both_share() {
        let cutoff = |start: &str, cutoff: &str| crds::processor::Cutoff {
            aggregation: "agg".into(),
            start: start.into(),
            cutoff: cutoff.into(),
        };
        let mut ours = example::processor().spec;
        ours.windows.cutoffs = vec![
            cutoff("202611200000", "2026-11-21T00:00:00Z"),
            cutoff("202611210000", "2026-11-22T00:00:00Z"),
        ];
        let mut theirs = ours.clone();
        theirs.windows.cutoffs = vec![
            cutoff("202611210000", "2026-11-22T01:00:00+01:00"),
            cutoff("202611200000", "2026-11-21T00:00:00Z"),
        ];
        theirs.windows.start_at = Some("2020-01-01T00:00:00Z".into());
        theirs.windows.history_days = 1;
        theirs.share = SpecShare::Second;
        assert_eq!(agreement_digest(&ours), agreement_digest(&theirs));
        theirs.windows.min_clients += 1;
        assert_ne!(agreement_digest(&ours), agreement_digest(&theirs));
    }

    #[test]
    fn without_a_start_the_first_whole_window_is_ours() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut spec = example::processor().spec;
        (spec.windows.period_seconds, spec.windows.start_at) = (28_800, None);
        assert_eq!(
            default_start(&spec, at("2026-11-20T09:30:00Z")).unwrap(),
            at("2026-11-20T16:00:00Z")
        );
        assert_eq!(
            default_start(&spec, at("2026-11-20T08:00:00Z")).unwrap(),
            at("2026-11-20T08:00:00Z")
        );
        spec.windows.start_at = Some("2020-01-01T00:00:00Z".into());
        assert_eq!(
            default_start(&spec, at("2026-11-20T09:30:00Z")).unwrap(),
            at("2020-01-01T00:00:00Z")
        );
        spec.windows.start_at = Some("yesterday".into());
        assert!(
            default_start(&spec, at("2026-11-20T09:30:00Z"))
                .unwrap_err()
                .to_string()
                .contains("startAt")
        );
    }
}
