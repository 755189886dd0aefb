//! Flags, their environment variables, and the validated [`Settings`] that the rest of the operator works with.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use snafu::{Snafu, ensure};

/// What a person sees with `--help`.
const ABOUT: &str = "Runs Prio v2 data share processors on Kubernetes.

For each DataShareProcessor in the watched namespaces the operator lists the mailboxes, starts worker Jobs that take \
ingestion batches in and sum windows, and tells in the statuses of DataShareProcessors, Batches and \
AggregationWindows what happens. It holds no key and writes to no mailbox: worker pods do.";

const AFTER: &str = "Each flag can also be set by the environment variable named beside it.

Examples:
  operator --namespaces=prio --worker-image=registry.example/prio-facilitator:0.1.0
  operator --all-namespaces --worker-image=registry.example/prio-facilitator:0.1.0

`operator keys` is another process, the keys controller: see `operator keys --help`.

The cluster is the one that the pod runs in; outside of a pod, the current context of $KUBECONFIG or ~/.kube/config.
SIGTERM and SIGINT let the running reconciles finish, give the lease back and end the process with 0.

Exit codes: 0 asked to stop, 64 a flag is wrong, 69 the API server can't be reached, 70 a lease was lost.";

/// The command line.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator", version, about = ABOUT, long_about = ABOUT, after_help = AFTER)]
#[command(group(ArgGroup::new("watched").required(true).args(["namespaces", "all_namespaces"])))]
pub struct Flags {
    /// Namespaces to watch, separated by commas: where DataShareProcessors, their Jobs and their Secrets are.
    #[arg(
        long,
        env = "PRIO_OPERATOR_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    pub namespaces: Vec<String>,

    /// Watch every namespace, but leave those alone in which another installation holds a Lease of the same name; needs
    /// the cluster chart's ClusterRole. Run one such installation in a cluster: of two, each holds only its own Lease.
    #[arg(long, env = "PRIO_OPERATOR_ALL_NAMESPACES")]
    pub all_namespaces: bool,

    /// Image of the worker pods: the one that holds the `facilitator` binary.
    #[arg(long, env = "PRIO_OPERATOR_WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: String,

    /// When nodes pull the workers' image: Always, IfNotPresent or Never. Default: the cluster's.
    #[arg(long, env = "PRIO_OPERATOR_WORKER_IMAGE_PULL_POLICY", value_name = "POLICY",
          value_parser = ["Always", "IfNotPresent", "Never"])]
    pub worker_image_pull_policy: Option<String>,

    /// Seconds between two looks at a processor's mailboxes, 1 to 3600.
    #[arg(long, env = "PRIO_OPERATOR_TICK_SECONDS", default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub tick_seconds: u32,

    /// Unfinished worker Jobs at a time, over all processors.
    #[arg(long, env = "PRIO_OPERATOR_MAX_JOBS", default_value_t = 50, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_jobs: u32,

    /// Worker pods at a time, over all processors; each processor's own limit is `spec.workers.maxPods`.
    #[arg(long, env = "PRIO_OPERATOR_MAX_PODS", default_value_t = 100, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_pods: u32,

    /// Seconds for which a batch with a header and a signature waits for its packet object before a worker gets it anyway.
    #[arg(
        long,
        env = "PRIO_OPERATOR_MISSING_PACKET_SECONDS",
        default_value_t = 600,
        value_name = "SECONDS"
    )]
    pub missing_packet_seconds: u32,

    /// Seconds after which a blocked batch (a key or a right is missing) is tried again.
    #[arg(
        long,
        env = "PRIO_OPERATOR_BLOCKED_RETRY_SECONDS",
        default_value_t = 600,
        value_name = "SECONDS"
    )]
    pub blocked_retry_seconds: u32,

    /// Work only while holding the lease, so that of several operators one works. Without it, run exactly one.
    #[arg(long, env = "PRIO_OPERATOR_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set,
          value_name = "true|false")]
    pub leader_election: bool,

    /// Name of the Lease, the same in every namespace.
    #[arg(
        long,
        env = "PRIO_OPERATOR_LEASE_NAME",
        default_value = "prio-operator",
        value_name = "NAME"
    )]
    pub lease_name: String,

    /// The operator's own namespace, where its Lease is. A Lease in each watched namespace is held beside it, so that
    /// two installations can't drive one namespace. Default: the namespace of the pod or of the kubeconfig's context.
    #[arg(long, env = "PRIO_OPERATOR_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Who holds the Lease: the pod's name. A random part is added.
    #[arg(long, env = "POD_NAME", default_value = "operator", value_name = "NAME")]
    pub identity: String,

    /// Where /metrics, /healthz and /readyz are served.
    #[arg(
        long,
        env = "PRIO_OPERATOR_HTTP_ADDRESS",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub http_address: SocketAddr,

    /// Name of the ValidatingAdmissionPolicy that limits which Secrets and accounts an author may name.
    #[arg(
        long,
        env = "PRIO_OPERATOR_AUTHORS_POLICY",
        default_value = "prio-operator-authors",
        value_name = "NAME"
    )]
    pub authors_policy: String,

    /// Name of the ValidatingAdmissionPolicy that limits which Jobs the operator may create.
    #[arg(
        long,
        env = "PRIO_OPERATOR_WORKLOADS_POLICY",
        default_value = "prio-operator-workloads",
        value_name = "NAME"
    )]
    pub workloads_policy: String,

    /// Name of the ValidatingAdmissionPolicy that limits who may approve that a window is released once more.
    #[arg(
        long,
        env = "PRIO_OPERATOR_APPROVALS_POLICY",
        default_value = "prio-operator-approvals",
        value_name = "NAME"
    )]
    pub approvals_policy: String,

    /// Endpoints of S3- and GCS-compatible stores that the operator may call, separated by commas, as `https://store:8333`.
    /// A mailbox at another endpoint isn't opened; the clouds' own endpoints always may be.
    #[arg(
        long,
        env = "PRIO_OPERATOR_MAILBOX_ENDPOINTS",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub mailbox_endpoints: Vec<String>,

    /// What is logged, as JSON lines to the standard error: `info`, `debug`, or per module such as `operator=debug`.
    #[arg(
        long,
        env = "PRIO_OPERATOR_LOG",
        default_value = "info,kube_client=warn,kube_runtime=warn,tower=warn",
        value_name = "FILTER"
    )]
    pub log: String,
}

/// Why flags are refused.
#[derive(Debug, PartialEq, Eq, Snafu)]
pub enum SettingsError {
    /// A name can't be a Kubernetes object's.
    #[snafu(display(
        "`{value}` given by --{flag} is not a name of Kubernetes: use lower-case letters, digits and `-`, at most 63"
    ))]
    Name {
        /// The flag, without dashes.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// The image is empty or holds a blank.
    #[snafu(display("`{value}` given by --worker-image is not an image: give REPOSITORY:TAG or REPOSITORY@DIGEST"))]
    Image {
        /// What was given.
        value: String,
    },
}

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// These.
    Namespaces(BTreeSet<String>),
    /// All of the cluster.
    All,
}

impl Watched {
    /// Those that are watched by name.
    pub fn named(&self) -> impl Iterator<Item = &String> {
        let named = match self {
            Self::Namespaces(namespaces) => Some(namespaces),
            Self::All => None,
        };
        named.into_iter().flatten()
    }
}

/// The three admission policies that must stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNames {
    /// Limits which Secrets and accounts an author of a DataShareProcessor may name.
    pub authors: String,
    /// Limits which Jobs the operator may create.
    pub workloads: String,
    /// Limits who may approve that a window is released once more.
    pub approvals: String,
}

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which namespaces are watched.
    pub watched: Watched,
    /// The worker pods' image.
    pub worker_image: String,
    /// When nodes pull it; `None`: the cluster's default.
    pub worker_image_pull_policy: Option<String>,
    /// Time between two looks at a processor.
    pub tick: Duration,
    /// Unfinished Jobs at a time, over all processors.
    pub max_jobs: u32,
    /// Worker pods at a time, over all processors.
    pub max_pods: u32,
    /// How long a batch waits for its packet object, seconds.
    pub missing_packet_seconds: u32,
    /// When a blocked batch is tried again, seconds.
    pub blocked_retry_seconds: u32,
    /// Leader election: the Lease's name, or `None` to work without.
    pub lease_name: Option<String>,
    /// The operator's own namespace; `None`: the client's default one.
    pub lease_namespace: Option<String>,
    /// Who holds the Lease; unique per process once [`crate::lease`] added its random part.
    pub identity: String,
    /// Where metrics and probes are served.
    pub http_address: SocketAddr,
    /// Endpoints of compatible stores that the operator may call.
    pub mailbox_endpoints: BTreeSet<String>,
    /// The admission policies' names.
    pub policies: PolicyNames,
}

impl TryFrom<Flags> for Settings {
    type Error = SettingsError;

    fn try_from(flags: Flags) -> Result<Self, SettingsError> {
        let namespaces = checked_namespaces(&flags.namespaces, &flags.lease_name, flags.lease_namespace.as_deref())?;
        let image = flags.worker_image;
        ensure!(
            !image.is_empty() && !image.contains(char::is_whitespace),
            ImageSnafu { value: image }
        );
        Ok(Self {
            watched: if flags.all_namespaces {
                Watched::All
            } else {
                Watched::Namespaces(namespaces)
            },
            worker_image: image,
            worker_image_pull_policy: flags.worker_image_pull_policy,
            tick: Duration::from_secs(flags.tick_seconds.into()),
            max_jobs: flags.max_jobs,
            max_pods: flags.max_pods,
            missing_packet_seconds: flags.missing_packet_seconds,
            blocked_retry_seconds: flags.blocked_retry_seconds,
            lease_name: flags.leader_election.then_some(flags.lease_name),
            lease_namespace: flags.lease_namespace,
            identity: flags.identity,
            http_address: flags.http_address,
            mailbox_endpoints: flags
                .mailbox_endpoints
                .iter()
                .map(|endpoint| endpoint.trim().trim_end_matches('/').to_owned())
                .filter(|endpoint| !endpoint.is_empty())
                .collect(),
            policies: PolicyNames {
                authors: flags.authors_policy,
                workloads: flags.workloads_policy,
                approvals: flags.approvals_policy,
            },
        })
    }
}

/// The namespaces to watch, once all names that the flags give are such of Kubernetes.
pub(crate) fn checked_namespaces(
    namespaces: &[String],
    lease_name: &str,
    lease_namespace: Option<&str>,
) -> Result<BTreeSet<String>, SettingsError> {
    let namespaces: BTreeSet<String> = namespaces.iter().map(|name| name.trim().to_owned()).collect();
    for name in &namespaces {
        check_name("namespaces", name)?;
    }
    check_name("lease-name", lease_name)?;
    if let Some(namespace) = lease_namespace {
        check_name("lease-namespace", namespace)?;
    }
    Ok(namespaces)
}

/// A label of DNS, as namespaces and leases have.
fn check_name(flag: &'static str, value: &str) -> Result<(), SettingsError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fine =
        (1..=63).contains(&value.len()) && value.chars().all(inner) && !value.starts_with('-') && !value.ends_with('-');
    ensure!(fine, NameSnafu { flag, value });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn flags(arguments: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from([&["operator"], arguments].concat())
    }

    #[test]
    fn namespaces_come_one_by_one_by_commas_or_all() {
        let watched = |arguments: &[&str]| {
            let all = [arguments, &["--worker-image=w:1"]].concat();
            Settings::try_from(flags(&all).unwrap()).unwrap().watched
        };
        let of = |names: &[&str]| Watched::Namespaces(names.iter().map(ToString::to_string).collect());
        assert_eq!(watched(&["--namespaces=a"]), of(&["a"]));
        assert_eq!(watched(&["--namespaces=b,a"]), of(&["a", "b"]));
        assert_eq!(watched(&["--namespaces=b", "--namespaces=a"]), of(&["a", "b"]));
        assert_eq!(watched(&["--all-namespaces"]), Watched::All);
    }

    #[test]
    fn wrong_flags_are_refused() {
        for arguments in [
            &["--worker-image=w:1"][..],
            &["--namespaces=a"],
            &["--namespaces=a", "--all-namespaces", "--worker-image=w:1"],
            &["--namespaces=a", "--worker-image=w:1", "--tick-seconds=0"],
            &["--namespaces=a", "--worker-image=w:1", "--http-address=nowhere"],
        ] {
            assert!(flags(arguments).is_err(), "{arguments:?}");
        }
        for arguments in [
            ["--namespaces=A", "--worker-image=w:1"],
            ["--namespaces=a,,b", "--worker-image=w:1"],
            ["--namespaces=a", "--worker-image=w 1"],
            ["--namespaces=a", "--worker-image="],
        ] {
            assert!(Settings::try_from(flags(&arguments).unwrap()).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = Settings::try_from(flags(&["--namespaces=a", "--worker-image=w:1"]).unwrap()).unwrap();
        assert_eq!(settings.tick, Duration::from_secs(10));
        assert_eq!(settings.lease_name.as_deref(), Some("prio-operator"));
        assert_eq!(
            (settings.missing_packet_seconds, settings.blocked_retry_seconds),
            (600, 600)
        );
        let without = flags(&["--namespaces=a", "--worker-image=w:1", "--leader-election=false"]).unwrap();
        assert_eq!(Settings::try_from(without).unwrap().lease_name, None);
    }
}
