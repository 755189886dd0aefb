//! What a party's pods need around them: namespaces, folders, claims and Secrets.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::keys::PartyKeys;

/// The user that all pods run as.
const USER: u32 = 65_532;

/// A folder that belongs to the pods' user.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{} can't be made", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o770))?;
    chown(path, Some(USER), Some(USER)).with_context(|| {
        format!(
            "{} can't be given to the pods' user {USER}: run as root",
            path.display()
        )
    })
}

pub(crate) fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted", "prio-operator.io/test": "true"},
    }})
}

/// A static volume on a folder of the node, and the claim that it is kept for.
pub(crate) fn volume_objects(namespace: &str, name: &str, folder: &Path) -> [Value; 2] {
    let volume = format!("{namespace}-{name}");
    let capacity = json!({"storage": "1Gi"});
    [
        json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": volume, "labels": {"prio-operator.io/test": "true"}},
        "spec": {
            "capacity": capacity, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "", "claimRef": {"namespace": namespace, "name": name},
            "hostPath": {"path": folder, "type": "Directory"},
        }}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume,
            "resources": {"requests": capacity},
        }}),
    ]
}

/// The keys that no KeyRing makes; the old packet key in the original's form of a Secret.
pub(super) fn secret_objects(namespace: &str, keys: &PartyKeys, has_rings: bool) -> Vec<Value> {
    let secret = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data});
    let mut objects = vec![secret(
        "packet-decryption-old",
        json!({"secret_key": keys.fixture_packet.secret, "primary_kid": keys.fixture_packet.id}),
    )];
    if !has_rings {
        let of = |secret: &str, id: &str| json!({"key": secret, "id": id});
        objects.push(secret("batch-signing", of(&keys.signing.secret, &keys.signing.id)));
        objects.push(secret("packet-decryption", of(&keys.packet.secret, &keys.packet.id)));
    }
    objects
}
