//! A rotation of both kinds of keys of both parties while batches come in: asked for, waited for until the keys of before are
//! retired, with one window closed after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::KeyRing;
use crds::key_ring::{KeyVersion, VersionState};
use crds::names::ROTATE_ANNOTATION;
use facilitator_core::formats::names::BatchTime;
use facilitator_core::window::Window;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::command;
use crate::flow::{self, Expected};
use crate::images::BINARIES;
use crate::ingestor::{self, Ingestor};
use crate::output::say;
use crate::partner::ingest::Order;
use crate::party::{Pair, Party};
use crate::rings::{self, PACKETS, RINGS, SIGNING};
use crate::samples::{self, Damage, Sample};
use crate::wait::{Seen, until};

/// The name of the pod that writes, and of its journal.
const TRAFFIC: &str = "ingestor-traffic";
/// Seconds between two batches.
pub const EVERY_SECONDS: i64 = 5;
/// Batches of a window.
const BATCHES: u32 = 6;
/// Windows that there are times for: all of two days.
const WINDOWS: u32 = 16;
/// A signing key is public for so many seconds before it signs: longer than partners take to ask for the manifest again.
const SIGNING_PRIMARY_AGE: u32 = 2 * rings::REFRESH_SECONDS;
/// A packet key is so old, in seconds, before the manifest tells it.
const PACKETS_PRIMARY_AGE: u32 = 5;
/// No traffic under a key for so many seconds: longer than the ingestor goes on with the manifest of before.
const NO_TRAFFIC: u32 = 3 * ingestor::REFRESH_SECONDS;
/// Before it is so many seconds older than it is now, a key isn't retired, and its successor isn't followed.
const LATER: i64 = 90;
/// So long before the cutoff of a window that is complete, in seconds.
const CUTOFF: i64 = 6;
/// Until the cutoff of a window that more may come for.
const FAR: SignedDuration = SignedDuration::from_mins(30);
/// What `kubectl describe` calls the times of a key, as they follow each other; the last two are of one that was followed.
const TIMES: [&str; 8] = [
    "Created",
    "Backed Up",
    "Written",
    "Loaded",
    "Published",
    "Promoted",
    "Superseded",
    "Retired",
];
const LIMIT: Duration = Duration::from_secs(420);
const LAST_LIMIT: Duration = Duration::from_secs(240);

/// A key of before, and who it belongs to.
struct Before<'a> {
    party: &'a Party,
    ring: &'static str,
    id: String,
}

/// Writes batches of an aggregation, rotates all keys meanwhile, and gives what the windows' sums must be once all are summed.
///
/// # Errors
/// When a key isn't retired in time, or a window isn't summed.
pub async fn under_traffic(pair: &Pair, ingestor: &Ingestor, aggregation: &str) -> Result<Vec<Expected>> {
    let mut before = Vec::new();
    for party in &pair.parties {
        for ring in RINGS {
            let id = rings::in_use(party, ring).await?.id;
            before.push(Before { party, ring, id });
        }
    }
    let orders = orders(pair, aggregation)?;
    let far = open(pair, &orders).await?;
    ingestor.start(TRAFFIC, orders).await?;
    until("a window is closed under the keys of before", LAST_LIMIT, || async {
        ingestor.check(TRAFFIC).await?;
        let complete = windows(pair, ingestor, true)?;
        close(pair, far, &complete).await?;
        match complete.first() {
            Some(first) => flow::summed(pair, &[&first.truth]).await,
            None => Ok(Seen::NotYet("no window is complete".to_owned())),
        }
    })
    .await?;
    for party in &pair.parties {
        for ring in RINGS {
            patch(
                &party.key_rings(),
                ring,
                &json!({"spec": {"rotation": ages(party, ring).await?}}),
            )
            .await?;
        }
    }
    for party in &pair.parties {
        say(format!(
            "   what would come at {} if new keys were asked for, by kubectl prio keys plan --rotate:",
            party.name
        ));
        let plan = plan(pair, party).await?;
        let foreseen = plan.matches("  make ").count();
        ensure!(
            foreseen >= RINGS.len(),
            "{}: a plan of a rotation makes {foreseen} keys:\n{plan}",
            party.name
        );
        say(plan);
    }
    for Before { party, ring, id } in &before {
        let versions = rings::versions(party, ring).await?;
        let youngest = versions.first().map(|version| version.id.as_str());
        ensure!(
            youngest == Some(id.as_str()),
            "{} {ring}: a plan made {youngest:?}",
            party.name
        );
    }
    for party in &pair.parties {
        for ring in RINGS {
            ask(party, ring).await?;
        }
    }
    until("the keys of before are followed and retired", LIMIT, || async {
        ingestor.check(TRAFFIC).await?;
        close(pair, far, &windows(pair, ingestor, true)?).await?;
        look(&before).await
    })
    .await?;
    ingestor.stop(TRAFFIC).await?;
    // The usual ages again, before the new keys are followed as well.
    for party in &pair.parties {
        for ring in RINGS {
            patch(&party.key_rings(), ring, &json!({"spec": {"rotation": null}})).await?;
        }
    }
    let windows = windows(pair, ingestor, false)?;
    let truths: Vec<_> = windows.iter().map(|window| &window.truth).collect();
    until("every batch is with both parties", LAST_LIMIT, || async {
        close(pair, far, &windows).await?;
        Ok(match flow::delivered(pair, &windows).await? {
            (true, _) => Seen::Done(()),
            (false, states) => Seen::NotYet(states),
        })
    })
    .await?;
    close(pair, far, &windows).await?;
    flow::wait_summed(pair, &truths, LAST_LIMIT).await?;
    told(pair, ingestor, &before)?;
    for Before { party, ring, id } in &before {
        described(pair, party, ring, id).await?;
    }
    Ok(windows)
}

/// A batch every few seconds, from now on; a few batches a window. Those of the first window come at once: it is to be summed
/// before keys are asked for.
fn orders(pair: &Pair, aggregation: &str) -> Result<Vec<Order>> {
    let first: Timestamp = pair.settings.start_at.parse()?;
    let period = i64::from(pair.settings.period_seconds);
    let now = Timestamp::now();
    let order = |number: u32| -> Result<Order> {
        let window = i64::from(number / BATCHES) * period;
        let minute = i64::from(number % BATCHES) * 60;
        let time = first + SignedDuration::from_secs(window + minute);
        Ok(Order {
            at: Some(now + SignedDuration::from_secs(i64::from(number.saturating_sub(BATCHES)) * EVERY_SECONDS)),
            sample: Sample {
                aggregation: aggregation.to_owned(),
                time: time.strftime("%Y/%m/%d/%H/%M").to_string(),
                bins: 16,
                packets: 12,
                damage: Damage::None,
            },
        })
    };
    (0..WINDOWS * BATCHES).map(order).collect()
}

/// Ages of seconds for a ring: no version but one that is asked for is due before this is over.
async fn ages(party: &Party, ring: &str) -> Result<Value> {
    let created: Timestamp = rings::in_use(party, ring).await?.created.parse()?;
    let age = Timestamp::now().duration_since(created).as_secs() + LATER;
    let primary = if ring == SIGNING {
        SIGNING_PRIMARY_AGE
    } else {
        PACKETS_PRIMARY_AGE
    };
    Ok(json!({
        "createMinAgeSeconds": age, "primaryMinAgeSeconds": primary, "retireMinAgeSeconds": age,
        "retireMinCount": 1, "noTrafficSeconds": NO_TRAFFIC,
    }))
}

/// Asks for a new version of a ring, with ages that count from now.
async fn ask(party: &Party, ring: &str) -> Result<()> {
    let annotations = json!({ROTATE_ANNOTATION: Timestamp::now().as_second().to_string()});
    let change = json!({"metadata": {"annotations": annotations}, "spec": {"rotation": ages(party, ring).await?}});
    patch(&party.key_rings(), ring, &change).await
}

/// What the controller would do, and when, if it were asked for new keys now.
async fn plan(pair: &Pair, party: &Party) -> Result<String> {
    let program = pair.cluster.repository.join(BINARIES).join("kubectl-prio");
    let (namespace, kubeconfig) = (party.worker_namespace.as_str(), pair.cluster.kubeconfig.as_str());
    let arguments = [
        "keys",
        "plan",
        "--namespace",
        namespace,
        "--kubeconfig",
        kubeconfig,
        "--steps",
        "8",
        "--rotate",
    ];
    command::run(program, &arguments).await
}

async fn patch(rings: &Api<KeyRing>, ring: &str, change: &Value) -> Result<()> {
    let patched = rings.patch(ring, &PatchParams::default(), &Patch::Merge(change)).await;
    patched.with_context(|| format!("KeyRing {ring}"))?;
    Ok(())
}

/// Whether each key of before is retired, and where all are.
async fn look(before: &[Before<'_>]) -> Result<Seen<()>> {
    let (mut done, mut states) = (true, Vec::new());
    for Before { party, ring, id } in before {
        let versions = rings::versions(party, ring).await?;
        done &= versions
            .iter()
            .any(|version| version.id == *id && version.state == VersionState::Retired);
        let shown: Vec<String> = versions.iter().rev().map(shown).collect();
        states.push(format!("{} {ring} {}", party.name, shown.join(" ")));
    }
    Ok(if done {
        Seen::Done(())
    } else {
        Seen::NotYet(states.join(", "))
    })
}

fn shown(version: &KeyVersion) -> String {
    let number = version.id.rsplit('-').next().unwrap_or_default();
    format!("…{} {:?}", &number[number.len().saturating_sub(4)..], version.state)
}

/// What was written, by windows; `complete`: without the one that more may come for.
fn windows(pair: &Pair, ingestor: &Ingestor, complete: bool) -> Result<Vec<Expected>> {
    let written = ingestor.written(TRAFFIC)?;
    let mut windows = samples::expected(&written, pair.settings.period_seconds)?;
    if complete {
        windows.pop();
    }
    Ok(windows)
}

/// Both agree on a far cutoff for all windows, so that these are open, as those of today are; gives the cutoff.
async fn open(pair: &Pair, orders: &[Order]) -> Result<Timestamp> {
    let far = Timestamp::from_second((Timestamp::now() + FAR).as_second())?;
    let mut names = BTreeSet::new();
    for order in orders {
        let time = BatchTime::parse_path(&order.sample.time)?.timestamp();
        let start = Window::holding(time, pair.settings.period_seconds)?.start();
        names.insert((
            order.sample.aggregation.as_str(),
            start.strftime("%Y%m%d%H%M").to_string(),
        ));
    }
    let names: Vec<(&str, &str)> = names
        .iter()
        .map(|(aggregation, start)| (*aggregation, &**start))
        .collect();
    flow::set_cutoffs_at(pair, &names, far).await?;
    Ok(far)
}

/// Sets a cutoff that is near for windows that both parties have every batch of, as they would agree on by mail.
async fn close(pair: &Pair, far: Timestamp, windows: &[Expected]) -> Result<()> {
    let processor = pair.parties[1].processor().await?;
    let far = far.to_string();
    let opened: BTreeSet<_> = (processor.spec.windows.cutoffs.into_iter())
        .filter(|cutoff| cutoff.cutoff == far)
        .map(|cutoff| (cutoff.aggregation, cutoff.start))
        .collect();
    let mut ready = Vec::new();
    for window in windows {
        let name = (window.truth.aggregation.clone(), window.truth.start.clone());
        if opened.contains(&name) && flow::delivered(pair, std::slice::from_ref(window)).await?.0 {
            ready.push(&window.truth);
        }
    }
    if !ready.is_empty() {
        flow::set_cutoffs(pair, &ready, CUTOFF).await?;
    }
    Ok(())
}

/// Says how many batches came under which packet keys; an error where there wasn't more than one of a party.
fn told(pair: &Pair, ingestor: &Ingestor, before: &[Before<'_>]) -> Result<()> {
    let written = ingestor.written(TRAFFIC)?;
    for Before { party, id, .. } in before.iter().filter(|before| before.ring == PACKETS) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for batch in &written {
            *counts.entry(&batch.packet_keys[party.index]).or_default() += 1;
        }
        ensure!(
            counts.len() > 1 && counts.contains_key(id.as_str()),
            "{}: {id} wasn't followed while batches came: {counts:?}",
            party.name
        );
        let counts: Vec<String> = counts
            .iter()
            .map(|(id, count)| format!("{count} batches under {id}"))
            .collect();
        say(format!("   {}: {}", party.name, counts.join(", ")));
    }
    let packets: usize = written.iter().map(|batch| batch.sample.packets).sum();
    let [first, second] = pair.parties.each_ref().map(|party| party.name.as_str());
    say(format!("   {packets} packets for {first}, and as many for {second}"));
    Ok(())
}

/// Whether `kubectl describe keyring` tells the whole history of a ring's key of before and of the one that is used now, with
/// each step after the one that it rests on.
async fn described(pair: &Pair, party: &Party, ring: &str, before: &str) -> Result<()> {
    let describe = ["describe", "keyring", ring, "--namespace", &party.worker_namespace];
    let text = pair.cluster.kubectl(&describe).await?;
    let now = rings::in_use(party, ring).await?.id;
    for (id, state, times) in [(before, "Retired", &TIMES[..]), (now.as_str(), "InUse", &TIMES[..6])] {
        let version = version_in(&text, id);
        let version = version.with_context(|| format!("{} {ring}: {id} isn't described:\n{text}", party.name))?;
        let told: Vec<Option<Timestamp>> = TIMES.iter().map(|label| version.get(label)?.parse().ok()).collect();
        let is_whole = told.iter().take_while(|time| time.is_some()).count() == times.len();
        ensure!(
            is_whole && told.iter().flatten().is_sorted() && version.get("State") == Some(&state),
            "{} {ring}: {id} should be {state}, with {times:?} one after the other: {version:?}",
            party.name
        );
    }
    Ok(())
}

/// What a description says of one version, by its labels, of which `Backed Up` is each version's first.
fn version_in<'a>(text: &'a str, id: &str) -> Option<BTreeMap<&'a str, &'a str>> {
    let (_, versions) = text.split_once("Versions:\n")?;
    let (versions, _) = versions.split_once("\nEvents:").unwrap_or((versions, ""));
    let mut all: Vec<BTreeMap<&str, &str>> = Vec::new();
    for (label, value) in versions.lines().filter_map(|line| line.split_once(':')) {
        if label.trim() == "Backed Up" {
            all.push(BTreeMap::new());
        }
        if let Some(version) = all.last_mut() {
            version.insert(label.trim(), value.trim());
        }
    }
    all.into_iter().find(|version| version.get("Id") == Some(&id))
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn a_description_is_read_version_by_version() {
        let text = [
            "Status:",
            "  Active Versions:  1",
            "  Versions:",
            "    Backed Up:                    2026-11-20T12:00:00Z",
            "    Certificate Signing Request:  -----BEGIN CERTIFICATE REQUEST-----",
            "MIIB",
            "",
            "    Id:         two",
            "    Waits For:  a person: nobody",
            "    Backed Up:  2026-11-19T12:00:00Z",
            "    Id:         one",
            "Events:",
            "  State:  none",
        ]
        .join("\n");
        let told = |id: &str, label: &str| version_in(&text, id).and_then(|version| version.get(label).copied());
        assert_eq!(told("two", "Backed Up"), Some("2026-11-20T12:00:00Z"));
        assert_eq!(told("two", "Waits For"), Some("a person: nobody"));
        assert_eq!(told("one", "Backed Up"), Some("2026-11-19T12:00:00Z"));
        assert_eq!([told("one", "Waits For"), told("one", "State")], [None, None]);
        assert_eq!(told("three", "Id"), None);
    }
}
