//! Flags of `operator keys`, their environment variables, and the validated settings.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;

use crate::settings::{SettingsError, checked_namespaces};

/// What a person sees with `--help`.
const ABOUT: &str = "Makes and rotates the keys of KeyRings.

For each KeyRing in the watched namespaces it makes versions of the key, each in a Secret of its own and wrapped to a \
second copy before, waits until every worker has them, publishes their public halves, and retires them when no traffic \
needs them. Of Secrets it may only create those of its KeyRings: it reads none and deletes none.";

const AFTER: &str = "Each flag can also be set by the environment variable named beside it.

Example:
  operator keys --namespaces=prio

Exit codes: 0 asked to stop, 64 a flag is wrong, 69 the API server can't be reached, 70 a lease was lost.";

/// The command line of `operator keys`.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator keys", version, about = ABOUT, long_about = ABOUT, after_help = AFTER)]
// Else the usage has the first argument alone, `keys`.
#[command(bin_name = "operator keys")]
pub struct KeysFlags {
    /// Namespaces to watch, separated by commas: where KeyRings, their Secrets and the DataShareProcessors are.
    #[arg(
        long,
        env = "PRIO_OPERATOR_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE",
        required = true
    )]
    pub namespaces: Vec<String>,

    /// Seconds after which a KeyRing is looked at although nothing changed, 1 to 3600.
    #[arg(long, env = "PRIO_OPERATOR_KEYS_TICK_SECONDS", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub tick_seconds: u32,

    /// Work only while holding the lease, so that of several one works. Without it, run exactly one.
    #[arg(long, env = "PRIO_OPERATOR_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set,
          value_name = "true|false")]
    pub leader_election: bool,

    /// Name of the Lease, the same in every namespace, and another one than the operator's.
    #[arg(
        long,
        env = "PRIO_OPERATOR_KEYS_LEASE_NAME",
        default_value = "prio-operator-keys",
        value_name = "NAME"
    )]
    pub lease_name: String,

    /// This process's own namespace, where its Lease is. Default: the namespace of the pod or of the kubeconfig's context.
    #[arg(long, env = "PRIO_OPERATOR_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Who holds the Lease: the pod's name. A random part is added.
    #[arg(long, env = "POD_NAME", default_value = "operator-keys", value_name = "NAME")]
    pub identity: String,

    /// Where /metrics, /healthz and /readyz are served.
    #[arg(
        long,
        env = "PRIO_OPERATOR_HTTP_ADDRESS",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub http_address: SocketAddr,

    /// Name of the ValidatingAdmissionPolicy that limits which Secrets this process may create.
    #[arg(
        long,
        env = "PRIO_OPERATOR_KEYS_POLICY",
        default_value = "prio-operator-keys",
        value_name = "NAME"
    )]
    pub policy: String,

    /// What is logged, as JSON lines to the standard error: `info`, `debug`, or per module such as `operator=debug`.
    #[arg(
        long,
        env = "PRIO_OPERATOR_LOG",
        default_value = "info,kube_client=warn,kube_runtime=warn,tower=warn",
        value_name = "FILTER"
    )]
    pub log: String,
}

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysSettings {
    /// The watched namespaces.
    pub namespaces: BTreeSet<String>,
    /// Time after which a ring is looked at although nothing changed.
    pub tick: Duration,
    /// Leader election: the Lease's name, or `None` to work without.
    pub lease_name: Option<String>,
    /// This process's own namespace; `None`: the client's default one.
    pub lease_namespace: Option<String>,
    /// Who holds the Lease.
    pub identity: String,
    /// Where metrics and probes are served.
    pub http_address: SocketAddr,
    /// The admission policy's name.
    pub policy: String,
}

impl TryFrom<KeysFlags> for KeysSettings {
    type Error = SettingsError;

    fn try_from(flags: KeysFlags) -> Result<Self, SettingsError> {
        Ok(Self {
            namespaces: checked_namespaces(&flags.namespaces, &flags.lease_name, flags.lease_namespace.as_deref())?,
            tick: Duration::from_secs(flags.tick_seconds.into()),
            lease_name: flags.leader_election.then_some(flags.lease_name),
            lease_namespace: flags.lease_namespace,
            identity: flags.identity,
            http_address: flags.http_address,
            policy: flags.policy,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(arguments: &[&str]) -> Result<KeysSettings, String> {
        let flags =
            KeysFlags::try_parse_from([&["operator keys"], arguments].concat()).map_err(|error| error.to_string())?;
        KeysSettings::try_from(flags).map_err(|error| error.to_string())
    }

    #[test]
    fn namespaces_are_named_one_by_one_and_wrong_flags_are_refused() {
        let found = settings(&["--namespaces=b,a"]).unwrap();
        assert_eq!(found.namespaces.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            (found.tick.as_secs(), found.lease_name.as_deref()),
            (60, Some("prio-operator-keys"))
        );
        assert_eq!(
            settings(&["--namespaces=a", "--leader-election=false"])
                .unwrap()
                .lease_name,
            None
        );
        for wrong in [
            &[][..],
            &["--namespaces=A"],
            &["--namespaces=a", "--tick-seconds=0"],
            &["--all-namespaces"],
        ] {
            assert!(settings(wrong).is_err(), "{wrong:?}");
        }
    }
}
