//! What every scenario begins and ends with.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crds::conditions::WORKERS_READY;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use prio_operator_tests::cluster::{Cluster, NODE_VARIABLE};
use prio_operator_tests::fixtures::{self, Truth};
use prio_operator_tests::flow::{self, Expected};
use prio_operator_tests::images::{self, Images};
use prio_operator_tests::keys::KeySet;
use prio_operator_tests::output::say;
use prio_operator_tests::party::{self, Pair, Party, Settings};
use prio_operator_tests::samples::{self, Damage, Sample};
use prio_operator_tests::stores::Kind;
use prio_operator_tests::sums;
use prio_operator_tests::wait::{Seen, until};
use tokio::sync::OnceCell;

/// How long a step may take on a machine that does other things too.
pub const LIMIT: Duration = Duration::from_secs(240);
/// Within this time a cause must be named.
pub const MINUTE: Duration = Duration::from_secs(60);

/// First's cloud and Second's.
const CLOUDS: [Kind; 2] = [Kind::S3, Kind::Gcs];

/// Two parties and the images that their charts are installed with.
pub struct Scenario {
    /// The parties.
    pub pair: Pair,
    /// The images.
    pub images: Images,
}

static IMAGES: OnceCell<Images> = OnceCell::const_new();

/// Runs a scenario and says how long it took.
pub async fn run<F, S>(name: &str, steps: S)
where
    S: FnOnce(Scenario) -> F,
    F: Future<Output = Result<()>>,
{
    run_with(name, Ok, steps).await;
}

/// The same with mailboxes in the stores of two clouds, which the scenario starts.
pub async fn run_in_clouds<F, S>(name: &str, steps: S)
where
    S: FnOnce(Scenario) -> F,
    F: Future<Output = Result<()>>,
{
    run_with(name, |pair| Ok(pair.in_clouds(CLOUDS)), steps).await;
}

/// The same with keys of KeyRings and parties that know each other by manifests, in clouds.
pub async fn run_with_key_rings<F, S>(name: &str, steps: S)
where
    S: FnOnce(Scenario) -> F,
    F: Future<Output = Result<()>>,
{
    let ingestor = format!("{name}-ingestor");
    run_with(name, |pair| pair.in_clouds(CLOUDS).with_key_rings(&ingestor), steps).await;
}

async fn run_with<F, S>(name: &str, kind: impl FnOnce(Pair) -> Result<Pair>, steps: S)
where
    S: FnOnce(Scenario) -> F,
    F: Future<Output = Result<()>>,
{
    let node = std::env::var(NODE_VARIABLE)
        .unwrap_or_else(|_| panic!("{NODE_VARIABLE} names no node: run tests/run --only end-to-end"));
    let start = Instant::now();
    let scenario = begin(&node, name, kind)
        .await
        .unwrap_or_else(|error| panic!("scenario {name} can't begin: {error:#}"));
    let pair = scenario.pair.clone();
    let outcome = steps(scenario).await;
    let seconds = start.elapsed().as_secs();
    match outcome {
        Ok(()) => {
            say(format!("scenario {name}: {seconds} s"));
            let namespaces = pair.namespaces();
            pair.cluster
                .delete_namespaces(&namespaces)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
        // Its namespaces stay, to look around.
        Err(error) => panic!("scenario {name} after {seconds} s: {error:#}"),
    }
}

async fn begin(node: &str, name: &str, kind: impl FnOnce(Pair) -> Result<Pair>) -> Result<Scenario> {
    let cluster = Cluster::attach(node).await?;
    let images = IMAGES
        .get_or_try_init(|| async {
            let images = images::import(&cluster).await?;
            party::install_cluster_chart(&cluster).await?;
            anyhow::Ok(images)
        })
        .await?
        .clone();
    let folder = cluster.repository.join("target/end-to-end").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let keys = std::fs::read_to_string(fixtures::folder(&cluster.repository).join("keys.json"))?;
    let day = Timestamp::now().to_zoned(TimeZone::UTC).date().checked_sub(2.days())?;
    let names = [format!("{name}-pha"), format!("{name}-facilitator")];
    let pair = Pair::new(
        &cluster,
        [&names[0], &names[1]],
        &folder,
        KeySet::make(&keys)?,
        Settings::from_day(day),
    );
    let pair = kind(pair)?;
    pair.make_folders()?;
    Ok(Scenario { pair, images })
}

impl Scenario {
    /// Installs both parties.
    pub async fn install(&self) -> Result<()> {
        let [first, second] = &self.pair.parties;
        let both = tokio::join!(self.install_party(first), self.install_party(second));
        both.0.and(both.1)
    }

    /// Installs one party.
    pub async fn install_party(&self, party: &Party) -> Result<()> {
        self.pair.apply_surroundings(party).await?;
        self.pair.install(party, &self.images).await
    }

    /// A batch of a window: the hour of the day says which.
    pub fn sample(&self, hour: u32, minute: u32, damage: Damage) -> Result<Sample> {
        let day = self.pair.settings.day()?.strftime("%Y/%m/%d").to_string();
        Ok(Sample {
            aggregation: "steps".into(),
            time: format!("{day}/{hour:02}/{minute:02}"),
            bins: 16,
            packets: 12,
            damage,
        })
    }

    /// Three good batches of the day's first window.
    pub fn write_three(&self) -> Result<Expected> {
        let batches = (0..3)
            .map(|hour| self.sample(hour, 10, Damage::None))
            .collect::<Result<Vec<_>>>()?;
        samples::write_window(&self.pair, &batches)
    }

    /// From applied processors to a right sum of one window.
    pub async fn sum(&self, window: &Expected) -> Result<()> {
        flow::wait_delivered(&self.pair, std::slice::from_ref(window), LIMIT).await?;
        flow::set_cutoffs(&self.pair, &[&window.truth], 8).await?;
        self.finish(&window.truth).await
    }

    /// From set cutoffs to a right sum of one window.
    pub async fn finish(&self, truth: &Truth) -> Result<()> {
        flow::wait_summed(&self.pair, &[truth], LIMIT).await?;
        if let Some(stores) = &self.pair.stores {
            stores.download(&self.pair, &self.images.facilitator).await?;
        }
        self.is_right(truth).await
    }

    /// Waits until an Event of a party's object has that reason and holds a text.
    pub async fn event(&self, party: &Party, about: &str, reason: &str, part: &str) -> Result<()> {
        until(&format!("an Event {reason} of {about}"), MINUTE, || async {
            let fields = format!("reason={reason},regarding.name={about}");
            let get = ["get", "events.events.k8s.io", "--namespace", &party.worker_namespace];
            let notes = ["--field-selector", &fields, "--output=jsonpath={.items[*].note}"];
            let notes = self.pair.cluster.kubectl(&[&get[..], &notes].concat()).await?;
            // Every answer holds an empty text, that of no Event too.
            Ok(if !notes.is_empty() && notes.contains(part) {
                Seen::Done(())
            } else {
                Seen::NotYet(notes)
            })
        })
        .await
    }

    /// The two sum parts give the truth.
    pub async fn is_right(&self, truth: &Truth) -> Result<()> {
        let sums = sums::reassemble(&self.pair, &self.pair.signers().await?, truth)?;
        anyhow::ensure!(
            sums.matches(truth),
            "{}: {sums:?}, but the truth is {truth:?}",
            truth.name()
        );
        Ok(())
    }
}

/// Waits until a condition of a party's processor has that status, and that reason where one is given; gives its message.
pub async fn wait_condition(party: &Party, kind: &str, status: &str, reason: &str, limit: Duration) -> Result<String> {
    until(&format!("{} {kind}={status} {reason}", party.name), limit, || async {
        let conditions = party.processor().await?.status.context("no status yet")?.conditions;
        let (now, why) = flow::condition(&conditions, kind);
        let message = flow::message(&conditions, kind).to_owned();
        let there = now == status && (reason.is_empty() || why == reason);
        Ok(if there {
            Seen::Done(message)
        } else {
            Seen::NotYet(format!("{now} {why}: {message}"))
        })
    })
    .await
}

/// Waits until one party has delivered so many batches.
pub async fn wait_delivered_by(party: &Party, truth: &Truth, count: i64, limit: Duration) -> Result<()> {
    until(&format!("{} delivers {count}", party.name), limit, || async {
        let windows = party.windows().await?;
        let counts = flow::find(&windows, truth)
            .and_then(|w| w.status.as_ref()?.batches.clone())
            .unwrap_or_default();
        let conditions = party
            .processor()
            .await?
            .status
            .map(|status| status.conditions)
            .unwrap_or_default();
        let workers = flow::message(&conditions, WORKERS_READY).to_owned();
        let done = counts.delivered >= count;
        Ok(if done {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{} of {count}; {workers}", counts.delivered))
        })
    })
    .await
}

/// Waits until a batch of a party's is `Blocked` for that reason; gives its message.
pub async fn wait_blocked(party: &Party, reason: &str, limit: Duration) -> Result<String> {
    until(
        &format!("a batch of {} is blocked: {reason}", party.name),
        limit,
        || async {
            let batches = party.batches().await?;
            let blocked = batches
                .iter()
                .filter_map(|batch| batch.status.as_ref())
                .find(|status| status.reason.as_deref() == Some(reason));
            let message = blocked.map(|status| {
                let messages = status.conditions.iter().map(|condition| condition.message.as_str());
                messages.collect::<Vec<_>>().join(" ")
            });
            Ok(message.map_or_else(|| Seen::NotYet("none yet".to_owned()), Seen::Done))
        },
    )
    .await
}
