//! Intake and aggregation, from stored bytes to stored bytes.

use std::hint::black_box;

use anyhow::ensure;
use aws_lc_rs::digest::{SHA256, digest};
use facilitator_core::aggregate::{AggregateOutcome, aggregate};
use facilitator_core::formats::ingestion::DataSharePacket;
use facilitator_core::formats::ledger::Verdict;
use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in, take_in_all};
use facilitator_core::processor::Processor;
use facilitator_core::sample::{Fault, FaultKind, Sample};
use jiff::Timestamp;
use tokio::runtime::Runtime;

use crate::floor::{IntakeFloor, Points};
use crate::measure::{Row, on_cores, process_time, wall_time};
use crate::world::{Keys, World};

const SHARES: [Share; 2] = [Share::First, Share::Second];
/// Times that one core and two take turns: of fewer there may be none in which nobody else used either core.
const TURNS: usize = 6;

fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?)
}

async fn take(processor: &Processor, id: &BatchId, packets: usize) -> anyhow::Result<()> {
    let outcome = take_in(processor, id, false).await?;
    ensure!(
        matches!(outcome, IntakeOutcome::Validated { packets: there, already: false, .. } if there == packets as u64),
        "unexpected outcome: {outcome:?}"
    );
    Ok(())
}

fn objects(sample: &Sample, share: Share) -> &facilitator_core::sample::IngestionObjects {
    match share {
        Share::First => &sample.first,
        Share::Second => &sample.second,
    }
}

/// Intake of one batch at each number of bins, against the floor; on one core and on two.
pub fn intake(keys: &Keys, bins: &[u32], packets: usize, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for bins in bins.iter().copied() {
        let sample = keys.sample(bins, packets, 0, Vec::new())?;
        for share in SHARES {
            let world = World::new(keys);
            let runtime = runtime()?;
            runtime.block_on(world.put(share, &sample.id, objects(&sample, share)))?;
            let floor = IntakeFloor::new(&objects(&sample, share).packets)?;
            let name = |what: &str| format!("intake, {share:?}, {bins} bins, {what}");
            // In turns: others use the machine too, some of them for seconds.
            let (mut one, mut two) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                two.extend(on_cores(2, || {
                    alternate(&world, share, &sample.id, &floor, 2, rounds)
                })??);
                one.extend(on_cores(1, || {
                    alternate(&world, share, &sample.id, &floor, 1, rounds)
                })??);
            }
            let each = |(floor, value): &Round| (floor.cpu / packets as f64, value.cpu / packets as f64);
            let figures: Vec<_> = one.iter().map(each).collect();
            rows.push(Row::at_most(name("a packet on one core"), "µs", &figures, Some(1.25)));
            rows.push(scaling(name("scaling to two cores"), &one, &two));
        }
    }
    Ok(rows)
}

/// What a round took.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

type Round = (Cost, Cost);

fn cost<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (cpu, (wall, result)) = process_time(|| wall_time(work));
    (Cost { cpu, wall }, result)
}

/// Floor and intake in turns, threads started by this one.
fn alternate(
    world: &World<'_>,
    share: Share,
    id: &BatchId,
    floor: &IntakeFloor,
    cores: usize,
    rounds: usize,
) -> anyhow::Result<Vec<Round>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .build()?;
    let mut out = Vec::new();
    // The first round warms up.
    for _ in 0..=rounds {
        let (least, ()) = cost(|| floor.run(cores));
        let processor = world.processor(share, true)?;
        let (took, taken) = cost(|| runtime.block_on(take(&processor, id, floor.packets())));
        taken?;
        out.push((least, took));
    }
    out.remove(0);
    Ok(out)
}

/// How much faster two cores are, by the quickest rounds: others use the machine too.
fn scaling(name: String, one: &[Round], two: &[Round]) -> Row {
    let quickest = |rounds: &[Round], of: fn(&Round) -> f64| rounds.iter().map(of).fold(f64::INFINITY, f64::min);
    let by = |of: fn(&Round) -> f64| quickest(one, of) / quickest(two, of);
    let (floor, value) = (by(|(floor, _)| floor.wall), by(|(_, value)| value.wall));
    let ratio = value / floor;
    Row {
        name,
        value,
        unit: "times".to_owned(),
        floor: Some(floor),
        ratio: Some(ratio),
        goal: Some(0.95),
        met: Some(ratio >= 0.95),
    }
}

/// What a batch of 20 packets costs besides its packets, in ECDHs.
pub fn small_batches(keys: &Keys, rounds: usize) -> anyhow::Result<Vec<Row>> {
    SHARES
        .map(|share| small_batches_of(keys, share, rounds))
        .into_iter()
        .collect()
}

fn small_batches_of(keys: &Keys, share: Share, rounds: usize) -> anyhow::Result<Row> {
    const BATCHES: u32 = 60;
    let small: Vec<_> = (0..BATCHES)
        .map(|minute| keys.sample(16, 20, minute, Vec::new()))
        .collect::<Result<_, _>>()?;
    let large = keys.sample(16, 20 * BATCHES as usize, 100, Vec::new())?;
    let wanted: Vec<_> = small
        .iter()
        .map(|sample| Wanted {
            batch: sample.id.clone(),
            take_anyway: false,
        })
        .collect();
    let world = World::new(keys);
    let mut points = Points::new()?;
    let figures = on_cores(1, || {
        let runtime = runtime()?;
        for sample in small.iter().chain([&large]) {
            runtime.block_on(world.put(share, &sample.id, objects(sample, share)))?;
        }
        let mut figures = Vec::new();
        for _ in 0..=4 * rounds {
            let processor = world.processor(share, true)?;
            let (ecdh, ()) = process_time(|| (0..500).for_each(|_| points.agree()));
            let (alone, taken) = process_time(|| runtime.block_on(take(&processor, &large.id, 20 * BATCHES as usize)));
            taken?;
            // As a pod takes them: claimed together.
            let (all, taken) = process_time(|| runtime.block_on(take_in_all(&processor, &wanted)));
            for taken in taken {
                let outcome = taken?;
                ensure!(
                    matches!(
                        outcome,
                        IntakeOutcome::Validated {
                            packets: 20,
                            already: false,
                            ..
                        }
                    ),
                    "unexpected outcome: {outcome:?}"
                );
            }
            // The large batch has what a batch costs itself, once.
            figures.push((ecdh / 500.0, (all - alone) / f64::from(BATCHES - 1)));
        }
        figures.remove(0);
        Ok::<_, anyhow::Error>(figures)
    })??;
    Ok(Row::at_most(
        format!("intake, {share:?}, 16 bins, a 20-packet batch besides its packets, floor = one ECDH"),
        "µs",
        &figures,
        Some(8.0),
    ))
}

/// How the invalid packets lie.
#[derive(Clone, Copy)]
enum Invalid {
    None,
    Spread,
    InOneBatch,
}

/// Sums of windows, against what is allowed: so many ECDHs a packet and a batch, and 4 ns a bin, batch and key. Of windows
/// with invalid packets three times that, and reading, hashing and decrypting what must be opened.
pub fn sums(keys: &Keys, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let all_hold = [
        (16, 1, 20_000),
        (16, 500, 20),
        (256, 10, 1000),
        (1024, 10, 500),
        (4096, 5, 200),
    ];
    for (bins, batches, packets) in all_hold {
        rows.extend(sum(keys, bins, batches, packets, Invalid::None, rounds)?);
    }
    for invalid in [Invalid::Spread, Invalid::InOneBatch] {
        rows.extend(sum(keys, 16, 50, 200, invalid, rounds)?);
        rows.extend(sum(keys, 256, 20, 200, invalid, rounds)?);
        rows.extend(sum(keys, 1024, 5, 200, invalid, rounds)?);
        rows.extend(sum(keys, 4096, 3, 100, invalid, rounds)?);
    }
    Ok(rows)
}

/// What it takes to read a packet object at least: its digest, and its packets out of their container.
fn read_and_hash(object: &[u8]) -> anyhow::Result<()> {
    black_box(digest(&SHA256, object));
    for packet in DataSharePacket::stream(object) {
        black_box(packet?);
    }
    Ok(())
}

/// A row of each share.
fn sum(
    keys: &Keys,
    bins: u32,
    batches: u32,
    packets: usize,
    invalid: Invalid,
    rounds: usize,
) -> anyhow::Result<Vec<Row>> {
    let total = batches as usize * packets;
    let fault = |packet| Fault {
        packet,
        kind: FaultKind::InvalidProof,
    };
    let faults = |batch: u32| match invalid {
        Invalid::None => Vec::new(),
        Invalid::Spread => (0..packets / 100).map(|i| fault(100 * i + 7)).collect(),
        Invalid::InOneBatch if batch == 0 => (0..total / 100).map(fault).collect(),
        Invalid::InOneBatch => Vec::new(),
    };
    let world = World::new(keys);
    let runtime = runtime()?;
    let mut opened_bytes = Vec::new();
    for batch in 0..batches {
        let sample = keys.sample(bins, packets, batch, faults(batch))?;
        for share in SHARES {
            runtime.block_on(world.put(share, &sample.id, objects(&sample, share)))?;
            runtime.block_on(take(&world.processor(share, false)?, &sample.id, packets))?;
        }
        if !faults(batch).is_empty() {
            opened_bytes.push([sample.first.packets, sample.second.packets]);
        }
    }
    let window = World::window()?;
    let mut points = Points::new()?;
    let opened = if matches!(invalid, Invalid::None) {
        0
    } else {
        total / 100
    };
    let mut figures_of = |share: Share| {
        let runtime = self::runtime()?;
        let mut figures = Vec::new();
        for _ in 0..=rounds {
            let processor = world.summing(share)?;
            let cutoffs = [Timestamp::now()];
            let (ecdh, ()) = process_time(|| (0..500).for_each(|_| points.agree()));
            let ecdh = ecdh / 500.0;
            let (took, outcome) = process_time(|| runtime.block_on(aggregate(&processor, &window, &cutoffs)));
            match outcome? {
                AggregateOutcome::Done { result, .. } => ensure!(
                    result.verdict == Verdict::Summed && result.clients == (total - opened) as u64,
                    "unexpected result: {result:?}"
                ),
                other => anyhow::bail!("unexpected outcome: {other:?}"),
            }
            let allowed = 0.06 * ecdh * total as f64 + f64::from(batches) * (5.0 * ecdh + 0.004 * f64::from(bins));
            // What must be opened is read and hashed whole, and of it the invalid packets are decrypted.
            let (reading, read) = process_time(|| {
                opened_bytes
                    .iter()
                    .try_for_each(|bytes| read_and_hash(&bytes[usize::from(share.index())]))
            });
            read?;
            let factor = if opened == 0 { 1.0 } else { 3.0 };
            figures.push((factor * allowed + reading + 1.1 * ecdh * opened as f64, took));
        }
        figures.remove(0);
        Ok::<_, anyhow::Error>(figures)
    };
    let kind = match invalid {
        Invalid::None => "all proofs hold",
        Invalid::Spread => "1 % invalid, spread evenly",
        Invalid::InOneBatch => "1 % invalid, all in one batch",
    };
    let mut rows = Vec::new();
    for share in SHARES {
        let name = format!(
            "aggregate, {share:?}, {bins} bins, {batches} × {packets} packets, {kind}: a packet, floor = what is allowed"
        );
        let figures: Vec<_> = on_cores(1, || figures_of(share))??
            .iter()
            .map(|(floor, value)| (floor / total as f64, value / total as f64))
            .collect();
        rows.push(Row::at_most(name, "µs", &figures, Some(1.0)));
    }
    Ok(rows)
}
