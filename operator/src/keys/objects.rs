//! The objects of a ring's keys: `docs/formats.md` §7. Pure, but for the randomness of the wrapping.

use std::collections::BTreeMap;
use std::io::Write;

use crds::key_ring::KeyPurpose;
use crds::names::{KEY_RING_LABEL, MANAGED_BY};
use facilitator_core::crypto::new_key::NewKey;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use snafu::Snafu;
use zeroize::Zeroizing;

use super::version::{PublicKeys, backup_name, public_name, record_name, secret_name};

/// The type of Secrets with a key. The admission policy of the cluster chart names it too.
pub const KEY_TYPE: &str = "prio-operator.io/private-key";
/// The type of Secrets with a key's second copy.
pub const BACKUP_TYPE: &str = "prio-operator.io/wrapped-key";
/// The field of a second copy: an age file, in which is the key's Secret as `kubectl apply` takes it.
pub const BACKUP_FIELD: &str = "secret.json.age";
/// The field of the record.
pub const RECORD_FIELD: &str = "versions.json";

/// The field of what is public: what the manifest holds under this name.
#[must_use]
pub fn public_field(purpose: KeyPurpose) -> &'static str {
    match purpose {
        KeyPurpose::BatchSigning => "batch-signing-public-keys",
        KeyPurpose::PacketEncryption => "packet-encryption-keys",
    }
}

/// Why a key can't be wrapped.
#[derive(Debug, Snafu)]
pub enum WrapError {
    /// Not a recipient of age.
    #[snafu(display("spec.backup.recipients holds {recipient:?}, which is no age recipient (age1…): {detail}"))]
    Recipient {
        /// It.
        recipient: String,
        /// Why.
        detail: &'static str,
    },
    /// The library fails.
    #[snafu(display("the second copy can't be wrapped: {detail}"))]
    Age {
        /// Why.
        detail: String,
    },
}

fn metadata(ring: &str, name: String) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/managed-by", MANAGED_BY),
        ("app.kubernetes.io/name", "prio-key-ring"),
        (KEY_RING_LABEL, ring),
    ];
    ObjectMeta {
        name: Some(name),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}

/// The Secret of a version. It has no owner: it outlives its KeyRing.
#[must_use]
pub fn secret(ring: &str, number: i64, key: &NewKey) -> Secret {
    let data = [("id", key.id()), ("key", key.secret())];
    Secret {
        metadata: metadata(ring, secret_name(ring, number)),
        type_: Some(KEY_TYPE.to_owned()),
        immutable: Some(true),
        data: Some(
            data.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())))
                .into(),
        ),
        ..Secret::default()
    }
}

/// The Secret with the second copy of a version, wrapped to the recipients: this process can't open it again.
///
/// # Errors
/// [`WrapError`].
pub fn backup(
    ring: &str,
    number: i64,
    key: &NewKey,
    namespace: &str,
    recipients: &[String],
) -> Result<Secret, WrapError> {
    let mut whole = secret(ring, number, key);
    whole.metadata.namespace = Some(namespace.to_owned());
    let text = serde_json::to_vec(&whole).map(Zeroizing::new);
    let text = text.map_err(|error| WrapError::Age {
        detail: error.to_string(),
    })?;
    Ok(Secret {
        metadata: metadata(ring, backup_name(ring, number)),
        type_: Some(BACKUP_TYPE.to_owned()),
        immutable: Some(true),
        data: Some([(BACKUP_FIELD.to_owned(), ByteString(wrap(&text, recipients)?))].into()),
        ..Secret::default()
    })
}

/// Reads recipients: before a key is made that couldn't be wrapped to them.
///
/// # Errors
/// [`WrapError::Recipient`].
pub fn recipients(texts: &[String]) -> Result<Vec<age::x25519::Recipient>, WrapError> {
    let parse = |recipient: &String| {
        recipient.parse().map_err(|detail| WrapError::Recipient {
            recipient: recipient.clone(),
            detail,
        })
    };
    texts.iter().map(parse).collect()
}

fn wrap(text: &[u8], texts: &[String]) -> Result<Vec<u8>, WrapError> {
    let age = |error: &dyn std::fmt::Display| WrapError::Age {
        detail: error.to_string(),
    };
    let parsed = recipients(texts)?;
    let each = parsed.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(each).map_err(|error| age(&error))?;
    let mut wrapped = Vec::new();
    let mut writer = encryptor.wrap_output(&mut wrapped).map_err(|error| age(&error))?;
    writer.write_all(text).map_err(|error| age(&error))?;
    writer.finish().map_err(|error| age(&error))?;
    Ok(wrapped)
}

/// The ConfigMap with the record.
#[must_use]
pub fn record(ring: &str, text: String) -> ConfigMap {
    ConfigMap {
        metadata: metadata(ring, record_name(ring)),
        data: Some(BTreeMap::from([(RECORD_FIELD.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// The ConfigMap with what the manifest must hold of the ring, by the manifest's own names.
#[must_use]
pub fn public(ring: &str, purpose: KeyPurpose, keys: &PublicKeys, expirations: &BTreeMap<String, String>) -> ConfigMap {
    let entry = |(id, text): (&String, &String)| {
        let entry = match purpose {
            KeyPurpose::BatchSigning => json!({"public-key": text, "expiration": expirations.get(id)}),
            KeyPurpose::PacketEncryption => json!({"certificate-signing-request": text}),
        };
        (id.clone(), entry)
    };
    let content = Value::Object(keys.iter().map(entry).collect());
    ConfigMap {
        metadata: metadata(ring, public_name(ring)),
        data: Some(BTreeMap::from([(
            public_field(purpose).to_owned(),
            format!("{content}\n"),
        )])),
        ..ConfigMap::default()
    }
}

/// Reads what [`public`] wrote.
///
/// # Errors
/// What is wrong, for a person.
pub fn read_public(config_map: &ConfigMap, purpose: KeyPurpose) -> Result<PublicKeys, String> {
    let data = config_map.data.clone().unwrap_or_default();
    let field = public_field(purpose);
    let member = match purpose {
        KeyPurpose::BatchSigning => "public-key",
        KeyPurpose::PacketEncryption => "certificate-signing-request",
    };
    if let Some(other) = data.keys().find(|key| *key != field) {
        return Err(format!("it holds {other:?}, which isn't a KeyRing's"));
    }
    let Some(text) = data.get(field) else {
        return Ok(PublicKeys::new());
    };
    let entries: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|error| format!("{field}: {error}"))?;
    let key = |(id, entry): (String, Value)| match entry.get(member).and_then(Value::as_str) {
        Some(text) => Ok((id, text.to_owned())),
        None => Err(format!("{field}: {id} has no {member}")),
    };
    entries.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use facilitator_core::crypto::PacketDecryptionKey;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn key() -> NewKey {
        NewKey::packet_encryption("p-17", "a.example", &mut StdRng::seed_from_u64(1)).unwrap()
    }

    #[test]
    fn a_second_copy_restores_the_secret_byte_for_byte_and_only_with_an_identity() {
        let (one, two, stranger) = (
            age::x25519::Identity::generate(),
            age::x25519::Identity::generate(),
            age::x25519::Identity::generate(),
        );
        let recipients = [&one, &two].map(|identity| identity.to_public().to_string());
        let key = key();
        let wrapped = backup("packets", 17, &key, "workers", &recipients).unwrap();
        assert_eq!(wrapped.metadata.name.as_deref(), Some("packets.17.backup"));
        let bytes = &wrapped.data.as_ref().unwrap()[BACKUP_FIELD].0;
        let shown = String::from_utf8_lossy(bytes);
        assert!(!shown.contains(key.secret()));
        let open = |identity: &age::x25519::Identity| {
            let decryptor = age::Decryptor::new(bytes.as_slice()).unwrap();
            let mut text = String::new();
            decryptor
                .decrypt(std::iter::once(identity as &dyn age::Identity))
                .ok()?
                .read_to_string(&mut text)
                .ok()?;
            Some(text)
        };
        assert_eq!(open(&stranger), None);
        for identity in [&one, &two] {
            let restored: Secret = serde_json::from_str(&open(identity).unwrap()).unwrap();
            let mut expected = secret("packets", 17, &key);
            expected.metadata.namespace = Some("workers".into());
            assert_eq!(restored, expected);
            let text = String::from_utf8(restored.data.unwrap()["key"].0.clone()).unwrap();
            let opened = PacketDecryptionKey::parse(&text).unwrap();
            assert_eq!(opened.to_base64().as_str(), key.secret());
        }
    }

    #[test]
    fn what_is_no_recipient_is_named() {
        let error = backup("r", 1, &key(), "n", &[format!("age1{}", "q".repeat(58))]).unwrap_err();
        assert!(error.to_string().contains("age1q"), "{error}");
    }

    #[test]
    fn a_key_belongs_to_nobody_and_cannot_be_changed() {
        let secret = secret("packets", 17, &key());
        assert_eq!((secret.metadata.owner_references, secret.immutable), (None, Some(true)));
        assert_eq!(secret.metadata.name.as_deref(), Some("packets.17"));
    }

    #[test]
    fn what_is_public_is_read_as_it_was_written_and_nothing_else_is_believed() {
        for purpose in [KeyPurpose::BatchSigning, KeyPurpose::PacketEncryption] {
            let keys: PublicKeys = [
                ("a".to_owned(), "text a".to_owned()),
                ("b".to_owned(), "text b".to_owned()),
            ]
            .into();
            let expirations = [("a".to_owned(), "2123-01-01T00:00:00Z".to_owned())].into();
            let mut config_map = public("ring", purpose, &keys, &expirations);
            assert_eq!(read_public(&config_map, purpose).unwrap(), keys);
            let data = config_map.data.as_mut().unwrap();
            data.insert("ingestion-bucket".into(), "gs://elsewhere".into());
            assert!(
                read_public(&config_map, purpose)
                    .unwrap_err()
                    .contains("ingestion-bucket")
            );
            config_map.data = Some([(public_field(purpose).to_owned(), "{\"a\":{}}".to_owned())].into());
            assert!(read_public(&config_map, purpose).unwrap_err().contains("a has no"));
        }
    }
}
