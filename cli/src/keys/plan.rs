//! `kubectl prio keys plan`: what would happen to KeyRings and when, by the controller's own decision.

use crds::names::ROTATE_ANNOTATION;
use crds::{DataShareProcessor, KeyRing};
use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};
use operator::keys::cluster::ClusterVault;
use operator::keys::decide::{Observed, Settings, decide};
use operator::keys::forecast::{as_if_asked, forecast, horizon};
use operator::keys::observe::{Undecodable, decoded, observed};
use operator::keys::version::Record;

use crate::Failure;
use crate::connect::Connection;
use crate::output::line;

/// Examples for the help.
pub const AFTER: &str = "\
Nothing is changed. What nobody knows the time of (workers that load a key, a
person, traffic that ends) is taken to happen at once, and named.

Examples:
  kubectl prio keys plan -n us-ct-workers
  kubectl prio keys plan us-ct-packets -n us-ct-workers --days 400
  kubectl prio keys plan us-ct-packets -n us-ct-workers --rotate

You need the right to get and list keyrings and datashareprocessors, and to get
the ConfigMaps RING.versions and RING.public.";

/// Say what would happen to the keys of KeyRings, and when.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The KeyRings; default: all of the namespace.
    rings: Vec<String>,
    /// How far to look; default: one whole turn of the oldest and the youngest version.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
    /// At most so many steps of a ring.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=400))]
    steps: u32,
    /// What would happen if another version were asked for now, by prio-operator.io/rotate. It isn't.
    #[arg(long)]
    rotate: bool,
}

/// Runs it.
///
/// # Errors
/// The API server's; a ring that isn't there, or whose record can't be read.
pub async fn run(connection: &Connection, args: Args) -> Result<(), Failure> {
    let (client, namespace) = connection.client().await?;
    let rings: Api<KeyRing> = Api::namespaced(client.clone(), &namespace);
    let found = if args.rings.is_empty() {
        let all = rings.list(&ListParams::default()).await;
        all.map_err(|error| Failure::cluster("listing KeyRings", error))?.items
    } else {
        let mut found = Vec::new();
        for name in &args.rings {
            let ring = rings.get_opt(name).await;
            let ring = ring.map_err(|error| Failure::cluster(&format!("reading KeyRing {name}"), error))?;
            found.push(
                ring.ok_or_else(|| Failure::missing(format!("there is no KeyRing {name} in namespace {namespace}")))?,
            );
        }
        found
    };
    if found.is_empty() {
        line(format_args!("There is no KeyRing in namespace {namespace}."));
    }
    let processors = processors(&client, &namespace).await?;
    let now = Timestamp::now();
    for (index, ring) in found.iter().enumerate() {
        if index > 0 {
            line("");
        }
        let (record, observed) = read(&client, ring, &processors).await?;
        for text in describe(ring, &record, &observed, &args, now) {
            line(text);
        }
    }
    Ok(())
}

async fn processors(client: &Client, namespace: &str) -> Result<Vec<DataShareProcessor>, Failure> {
    let api: Api<DeserializeGuard<DataShareProcessor>> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(|error| Failure::cluster("listing DataShareProcessors", error))?;
    decoded(list.items).map_err(|Undecodable { name, detail }| {
        Failure::data(format!(
            "DataShareProcessor {name} doesn't decode, and may refer to a KeyRing: {detail}"
        ))
    })
}

async fn read(
    client: &Client,
    ring: &KeyRing,
    processors: &[DataShareProcessor],
) -> Result<(Record, Observed), Failure> {
    let name = ring.name_any();
    let mut vault = ClusterVault::new(client, ring);
    let of_ring = |error: &dyn std::fmt::Display| Failure::cluster(&format!("KeyRing {name}"), error);
    let record = vault.read_record().await.map_err(|error| of_ring(&error))?;
    let record = match record.map_err(Failure::data)? {
        Some(record) => record,
        None => Record::from_status(&name, &ring.spec, ring.status.as_ref()).map_err(Failure::data)?,
    };
    let published = vault.read_public().await.map_err(|error| of_ring(&error))?;
    let observed = observed(ring, &record, processors, published);
    Ok((record, observed))
}

/// The plan of a ring, line by line.
fn describe(ring: &KeyRing, record: &Record, observed: &Observed, args: &Args, now: Timestamp) -> Vec<String> {
    let settings = Settings::of(&ring.spec);
    let active = record.versions.iter().filter(|version| version.is_active()).count();
    let in_use = record.versions.iter().find(|version| version.is_in_use());
    let in_use = in_use.map_or_else(
        || "no key is in use".to_owned(),
        |version| format!("{} is in use", version.id),
    );
    let mut lines = vec![format!(
        "KeyRing {}, {:?}: {in_use}, {active} active.",
        ring.name_any(),
        ring.spec.purpose
    )];
    let decision = decide(&settings, record, observed, now);
    if let Some(wait) = decision.waits.first() {
        let at = wait
            .at
            .map(|at| format!(" at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")))
            .unwrap_or_default();
        lines.push(format!("  Next: {}{at}. It waits for {}", wait.step, wait.text));
    }
    let until = args.days.map_or_else(
        || horizon(&settings, now),
        |days| {
            now.checked_add(SignedDuration::from_hours(i64::from(days) * 24))
                .unwrap_or(Timestamp::MAX)
        },
    );
    let asked = args.rotate.then(|| as_if_asked(record, observed));
    if asked.is_some() {
        lines.push(format!(
            "  If it were annotated with {ROTATE_ANNOTATION} now, which it isn't:"
        ));
    }
    let observed = asked.as_ref().unwrap_or(observed);
    let steps = forecast(&settings, record, observed, now, until, args.steps as usize);
    if steps.is_empty() {
        lines.push(format!("  Nothing would happen until {}.", until.strftime("%Y-%m-%d")));
    }
    lines.extend(steps.iter().map(|step| format!("  {step}")));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use operator::keys::version::{PublicKeys, Version};

    use super::*;

    #[test]
    fn a_plan_says_what_is_what_comes_and_when() {
        let ring: KeyRing = serde_json::from_value(json!({
            "apiVersion": "prio-operator.io/v1alpha1", "kind": "KeyRing", "metadata": {"name": "signing"},
            "spec": {"purpose": "BatchSigning", "keyIdPrefix": "k", "backup": {"method": "None"}},
        }))
        .unwrap();
        let args = |rotate| Args {
            rings: Vec::new(),
            days: Some(1),
            steps: 20,
            rotate,
        };
        let now: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        let described = |record: &Record, observed: &Observed, rotate: bool| {
            let args = args(rotate);
            describe(&ring, record, observed, &args, now).join("\n")
        };
        let text = described(&Record::new(&ring.spec), &Observed::default(), false);
        assert!(text.contains("no key is in use, 0 active"), "{text}");
        assert!(text.contains("2026-11-20T00:00:00Z  make k-1795132800"), "{text}");
        assert!(
            text.contains("a DataShareProcessor that refers to this KeyRing"),
            "{text}"
        );
        // Of a ring whose key is young nothing is due, and a rotation is foreseen all the same.
        let mut record = Record::new(&ring.spec);
        let mut version = Version::new(1_795_132_700, "k-1795132700".into(), now, "public".into(), None);
        (version.written, version.loaded) = (Some(now), Some(now));
        (version.published, version.promoted) = (Some(now), Some(now));
        record.versions.push(version);
        let public: PublicKeys = [("k-1795132700".to_owned(), "public".to_owned())].into();
        let observed = Observed {
            published: Some(public.clone()),
            written: Some(public),
            ..Observed::default()
        };
        let text = described(&record, &observed, false);
        assert!(
            text.contains("Nothing would happen") && !text.contains("make"),
            "{text}"
        );
        let text = described(&record, &observed, true);
        assert!(
            text.contains("prio-operator.io/rotate now, which it isn't:\n  2026-11-20T00:00:00Z  make k-1795132800"),
            "{text}"
        );
        assert_eq!(observed.rotate, None);
    }
}
