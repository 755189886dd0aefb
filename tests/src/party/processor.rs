//! What a party applies and installs with: its DataShareProcessor and its chart's values.

use anyhow::Result;
use serde_json::{Value, json};

use super::{INSTANCE, MAX_PODS, OPERATOR_MAILBOXES, Pair, Party};
use crate::images::Images;
use crate::rings::RINGS;
use crate::web::{self, MANIFESTS};

impl Pair {
    /// The party's DataShareProcessor.
    pub fn processor_object(&self, party: &Party) -> Result<Value> {
        let other = &self.keys.parties[1 - party.index];
        let share = ["First", "Second"][party.index];
        let mailbox = |name: &str| match &self.stores {
            None => json!({"url": format!("file:///mailboxes/{name}"), "volume": {"claimName": name}}),
            Some(stores) => stores.mailbox_object(party.index, name),
        };
        let key = |id: &str, public: String| json!({"id": id, "publicKey": public});
        let mut object = json!({
            "apiVersion": "prio-operator.io/v1alpha1",
            "kind": "DataShareProcessor",
            "metadata": {"name": party.name, "namespace": party.worker_namespace},
            "spec": {
                "share": share,
                "instance": INSTANCE,
                "ingestor": {"inline": {"batchSigningKeys": [
                    key(&self.keys.ingestor.id, self.keys.ingestor.public()?),
                    key(&self.keys.fixture_ingestor.id, self.keys.fixture_ingestor.public()?),
                ]}},
                "peer": {"inline": {"batchSigningKeys": [key(&other.signing.id, other.signing.public()?)]}},
                "portal": {"inline": {}},
                "mailboxes": {
                    "ingestion": mailbox("ingestion"),
                    "peerValidation": mailbox("peer-validation"),
                    "ledger": mailbox("ledger"),
                    "outgoing": {"peer": mailbox("outgoing-peer"), "portal": mailbox("portal")},
                },
                "validationFormat": self.settings.validation_format,
                "keys": {
                    "batchSigning": {"secretRef": {"name": "batch-signing"}},
                    "packetDecryption": [
                        {"secretRef": {"name": "packet-decryption"}},
                        {"secretRef": {"name": "packet-decryption-old"}},
                    ],
                },
                "windows": {
                    "startAt": self.settings.start_at,
                    "periodSeconds": self.settings.period_seconds,
                    "gracePeriodSeconds": 3600,
                    "settleSeconds": self.settings.settle_seconds,
                    "maxDefers": 0,
                    "minClients": self.settings.min_clients,
                },
                "workers": {
                    "intake": {"serviceAccountName": "intake"},
                    "aggregate": {"serviceAccountName": "aggregate"},
                    "batchesPerPod": self.settings.batches_per_pod,
                    "sumBatchesPerPod": self.settings.sum_batches_per_pod,
                    "maxPods": MAX_PODS,
                    "batchObjects": self.settings.batch_objects,
                    "maxBatchObjects": self.settings.max_batch_objects,
                    "startDeadlineSeconds": self.settings.start_deadline_seconds,
                },
            },
        });
        if let Some(rings) = &self.rings {
            rings.add_to(&mut object["spec"], party);
        }
        Ok(object)
    }

    pub(super) fn chart_values(&self, party: &Party, images: &Images) -> Value {
        let mut secrets = vec!["packet-decryption-old"];
        let mut values = json!({
            "image": images.operator.values(),
            "watchNamespaces": [party.worker_namespace],
            "settings": {"tickSeconds": self.settings.tick_seconds, "missingPacketSeconds": 10, "blockedRetrySeconds": 10},
        });
        if let Some(stores) = &self.stores {
            let (mailboxes, secret) = stores.chart_values(party.index);
            values["mailboxes"] = mailboxes;
            secrets.push(secret);
        } else {
            let volume =
                |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": true}});
            let mount =
                |name: &&str| json!({"name": name, "mountPath": format!("/mailboxes/{name}"), "readOnly": true});
            values["extraVolumes"] = OPERATOR_MAILBOXES.iter().map(volume).collect();
            values["extraVolumeMounts"] = OPERATOR_MAILBOXES.iter().map(mount).collect();
        }
        values["workers"] = json!({"image": images.facilitator.values()});
        if self.rings.is_some() {
            values["keys"] = json!({"enabled": true, "tickSeconds": self.settings.tick_seconds});
            values["workers"]["keyRings"] = json!(RINGS);
            values["manifests"] = json!({"configMaps": [MANIFESTS]});
            values["networkPolicy"] = json!({"manifests": {"enabled": true, "ports": [web::PORT]}});
        } else {
            secrets.extend(["batch-signing", "packet-decryption"]);
        }
        values["workers"]["secrets"] = json!(secrets);
        values
    }
}
