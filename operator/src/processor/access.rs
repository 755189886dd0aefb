//! How mailboxes are reached: what the spec says, as workers and as the operator itself use it. Pure.
//!
//! A Secret is a folder of the same name in a worker's pod and in the operator's own, of two Secrets: each is of the
//! namespace that its pod is in, so that the operator's may be one that does nothing but list.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crds::peer::CaBundleReference;
use crds::processor::{self, Mailbox, MailboxCredentials};
use facilitator_core::formats::work::{MAILBOX_AUTHORITIES_DIRECTORY, MAILBOX_SECRETS_DIRECTORY};
use mailbox::{Access, CannedAcl, ConditionalWrites, Credentials, Encryption};
use snafu::{Snafu, ensure};

/// Why the operator doesn't open a mailbox.
#[derive(Debug, PartialEq, Eq, Snafu)]
pub enum AccessError {
    /// An endpoint that nobody has said the operator may call: whoever it is would get what the operator shows to stores.
    #[snafu(display(
        "endpoint {endpoint} is not one that this operator may call: add it to mailboxes.endpoints of the chart prio-operator"
    ))]
    Endpoint {
        /// As the spec says.
        endpoint: String,
    },
    /// The operator's own pod has no such Secret.
    #[snafu(display(
        "this operator has no Secret {name} of its own: make one in its namespace, with rights to list and to read \
         ledger.json, rejected/, reports/ and results/, and add it to mailboxes.secrets of the chart prio-operator; or give \
         operatorCredentials of another kind"
    ))]
    Secret {
        /// As the spec says.
        name: String,
    },
}

/// What workers are told.
#[must_use]
pub fn of_workers(mailbox: &Mailbox) -> Access {
    Access {
        ca_bundle: mailbox.ca_bundle_ref.as_ref().map(authorities),
        credentials: credentials(mailbox.credentials.as_ref(), Path::new(MAILBOX_SECRETS_DIRECTORY)),
        ..common(mailbox)
    }
}

/// What the operator itself uses. `authorities`: the content of `caBundleRef`; `secrets`: the folder of its own Secrets;
/// `endpoints`: those that it may call.
///
/// # Errors
/// [`AccessError`].
pub fn of_operator(
    mailbox: &Mailbox,
    authorities: Option<String>,
    secrets: &Path,
    endpoints: &BTreeSet<String>,
) -> Result<Access, AccessError> {
    if let Some(endpoint) = &mailbox.endpoint {
        ensure!(endpoints.contains(endpoint), EndpointSnafu { endpoint });
    }
    let said = mailbox.operator_credentials.as_ref().or(mailbox.credentials.as_ref());
    if let Some(secret) = said.and_then(|said| said.secret_ref.as_ref()) {
        let name = &secret.name;
        ensure!(secrets.join(name).is_dir(), SecretSnafu { name });
    }
    Ok(Access {
        authorities,
        credentials: credentials(said, secrets),
        ..common(mailbox)
    })
}

/// The file of a ConfigMap's key in a worker's pod.
fn authorities(of: &CaBundleReference) -> PathBuf {
    Path::new(MAILBOX_AUTHORITIES_DIRECTORY).join(&of.name).join(&of.key)
}

fn common(mailbox: &Mailbox) -> Access {
    Access {
        endpoint: mailbox.endpoint.clone(),
        path_style: mailbox.path_style,
        ca_bundle: None,
        authorities: None,
        credentials: Credentials::Ambient,
        encryption: mailbox.encryption.as_ref().map(|encryption| Encryption {
            kms_key: encryption.kms_key.clone(),
        }),
        canned_acl: mailbox.canned_acl.map(|acl| match acl {
            processor::CannedAcl::BucketOwnerFullControl => CannedAcl::BucketOwnerFullControl,
        }),
        conditional_writes: match mailbox.conditional_writes {
            processor::ConditionalWrites::Required => ConditionalWrites::Required,
            processor::ConditionalWrites::Weak => ConditionalWrites::Weak,
        },
    }
}

/// The API server sees to it that there is one kind.
fn credentials(said: Option<&MailboxCredentials>, secrets: &Path) -> Credentials {
    let Some(said) = said else {
        return Credentials::Ambient;
    };
    if let Some(secret) = &said.secret_ref {
        let folder = secrets.join(&secret.name);
        Credentials::Secret { folder }
    } else if let Some(account) = &said.google_service_account {
        let email = account.email.clone();
        Credentials::GoogleServiceAccount { email }
    } else if let Some(pool) = &said.google_from_aws {
        Credentials::GoogleFromAws {
            provider: pool.provider.clone(),
            region: pool.region.clone(),
            email: pool.email.clone(),
        }
    } else if let Some(role) = &said.aws_from_google {
        Credentials::AwsFromGoogle {
            role: role.role.clone(),
            audience: role.audience.clone(),
            email: role.email.clone(),
        }
    } else if said.anonymous.is_some() {
        Credentials::Anonymous
    } else {
        Credentials::Ambient
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn mailbox(access: Value) -> Mailbox {
        let mut mailbox = json!({"url": "s3://us-west-1/bucket"});
        mailbox
            .as_object_mut()
            .unwrap()
            .extend(access.as_object().unwrap().clone());
        serde_json::from_value(mailbox).unwrap()
    }

    #[test]
    fn workers_are_told_every_setting_by_the_names_of_the_parameters() {
        let pool = json!({"provider": "p", "region": "r", "email": "e@p"});
        let role = json!({"role": "arn", "audience": "a", "email": "e@p"});
        let secret = json!({"folder": "/etc/prio-operator/mailboxes/secrets/store"});
        let table = [
            (json!({}), json!({})),
            (json!({"credentials": {"ambient": {}}}), json!({})),
            (
                json!({"credentials": {"anonymous": {}}}),
                json!({"credentials": "anonymous"}),
            ),
            (
                json!({"credentials": {"secretRef": {"name": "store"}}, "operatorCredentials": {"ambient": {}}}),
                json!({"credentials": {"secret": secret}}),
            ),
            (
                json!({"credentials": {"googleServiceAccount": {"email": "e@p"}}}),
                json!({"credentials": {"googleServiceAccount": {"email": "e@p"}}}),
            ),
            (
                json!({"credentials": {"googleFromAws": pool}}),
                json!({"credentials": {"googleFromAws": pool}}),
            ),
            (
                json!({"credentials": {"awsFromGoogle": role}}),
                json!({"credentials": {"awsFromGoogle": role}}),
            ),
            (
                json!({"endpoint": "https://store:8333", "pathStyle": true, "caBundleRef": {"name": "store-ca"},
                       "encryption": {"kmsKey": "k"}, "cannedACL": "bucket-owner-full-control", "conditionalWrites": "Weak"}),
                json!({"endpoint": "https://store:8333", "pathStyle": true,
                       "caBundle": "/etc/prio-operator/mailboxes/authorities/store-ca/ca.crt",
                       "encryption": {"kmsKey": "k"}, "cannedACL": "bucket-owner-full-control", "conditionalWrites": "Weak"}),
            ),
        ];
        for (spec, parameters) in table {
            let access = of_workers(&mailbox(spec.clone()));
            assert_eq!(serde_json::to_value(&access).unwrap(), parameters, "{spec}");
        }
    }

    #[test]
    fn the_operator_is_itself_and_calls_only_whom_it_may() {
        let own = tempfile::tempdir().unwrap();
        std::fs::create_dir(own.path().join("list")).unwrap();
        let endpoints = BTreeSet::from(["http://store:8333".to_owned()]);
        let of = |access: Value| of_operator(&mailbox(access), None, own.path(), &endpoints);
        let secret = |name: &str| Credentials::Secret {
            folder: own.path().join(name),
        };
        let workers_secret = json!({"credentials": {"secretRef": {"name": "list"}}});
        assert_eq!(
            of(workers_secret).unwrap().credentials,
            secret("list"),
            "its own Secret of that name"
        );
        let two = json!({"credentials": {"secretRef": {"name": "work"}}, "operatorCredentials": {"secretRef": {"name": "list"}}});
        assert_eq!(of(two).unwrap().credentials, secret("list"));
        let ambient = json!({"credentials": {"secretRef": {"name": "work"}}, "operatorCredentials": {"ambient": {}}});
        assert_eq!(of(ambient).unwrap().credentials, Credentials::Ambient);
        let absent = of(json!({"credentials": {"secretRef": {"name": "work"}}})).unwrap_err();
        assert!(absent.to_string().contains("no Secret work of its own"), "{absent}");
        assert!(of(json!({"endpoint": "http://store:8333"})).is_ok());
        let other = of(json!({"endpoint": "http://other:8333"})).unwrap_err();
        assert!(other.to_string().contains("mailboxes.endpoints"), "{other}");
    }
}
