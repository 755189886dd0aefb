//! A large window summed by one pod, and in parts by several.

use anyhow::ensure;
use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, aggregate, partial_sum, plan_shard};
use facilitator_core::formats::ledger::Verdict;
use facilitator_core::formats::names::{BatchRange, SumPartPart};
use facilitator_core::formats::work::Share;
use facilitator_core::intake::take_in;
use facilitator_core::processor::Processor;
use jiff::Timestamp;
use tokio::runtime::Runtime;

use crate::floor::Points;
use crate::measure::{Row, on_cores, process_time};
use crate::world::{Keys, World};

const BINS: u32 = 16;
const PACKETS: usize = 20;
/// Batches of one pod: the default of `sumBatchesPerPod`.
const PER_POD: usize = 2_000;

/// Rows of a window of so many batches. The storage is memory: what is saved where it isn't is waiting, not CPU time.
pub fn rows(keys: &Keys, batches: u32, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let world = World::new(keys);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let mut names = Vec::new();
    for batch in 0..batches {
        let sample = keys.sample(BINS, PACKETS, batch, Vec::new())?;
        for (share, objects) in [(Share::First, &sample.first), (Share::Second, &sample.second)] {
            runtime.block_on(world.put(share, &sample.id, objects))?;
            runtime.block_on(take_in(&world.processor(share, false)?, &sample.id, false))?;
        }
        names.push((sample.id.time, sample.id.uuid));
    }
    names.sort_unstable();
    let ranges = BatchRange::whole(&World::window()?).parted(names.iter().copied(), PER_POD);
    let total = batches as usize * PACKETS;
    let mut points = Points::new()?;
    let (mut whole, mut all, mut longest) = (Vec::new(), Vec::new(), Vec::new());
    on_cores(1, || {
        for round in 0..=rounds {
            let (ecdh, ()) = process_time(|| (0..500).for_each(|_| points.agree()));
            let ecdh = ecdh / 500.0;
            let one = sum(&runtime, &world.summing(Share::First)?, &[], total)?;
            let parts = sum(&runtime, &world.summing(Share::First)?, &ranges, total)?;
            ensure!(one.sum_part == parts.sum_part, "one pod and parts put other bytes");
            // The first round warms up.
            if round > 0 {
                let allowed = 0.06 * ecdh * total as f64 + f64::from(batches) * (5.0 * ecdh + 0.004 * f64::from(BINS));
                let each = |time: f64| time / total as f64;
                whole.push((each(allowed), each(one.all)));
                all.push((one.all / 1e6, parts.all / 1e6));
                longest.push((one.all / 1e6, parts.longest / 1e6));
            }
        }
        Ok::<_, anyhow::Error>(())
    })??;
    let name = format!("aggregate, {BINS} bins, {batches} × {PACKETS} packets");
    let count = ranges.len();
    Ok(vec![
        Row::at_most(
            format!("{name}, in one pod: a packet, floor = what is allowed"),
            "µs",
            &whole,
            Some(1.0),
        ),
        Row::at_most(
            format!("{name}, in {count} parts: CPU of all pods, floor = one pod's"),
            "s",
            &all,
            None,
        ),
        Row::at_most(
            format!("{name}, in {count} parts: CPU of the longest pod of each phase, floor = one pod's"),
            "s",
            &longest,
            None,
        ),
    ])
}

/// CPU time in µs, and what came of it.
struct Took {
    /// Of all pods.
    all: f64,
    /// Of the longest of each phase: shards, partial sums, all together.
    longest: f64,
    /// What is in the portal then.
    sum_part: Vec<Bytes>,
}

fn sum(runtime: &Runtime, processor: &Processor, ranges: &[BatchRange], packets: usize) -> anyhow::Result<Took> {
    let (window, cutoffs) = (World::window()?, [Timestamp::now()]);
    let mut took = Took {
        all: 0.0,
        longest: 0.0,
        sum_part: Vec::new(),
    };
    for is_sum in [false, true] {
        let mut longest: f64 = 0.0;
        for range in ranges {
            let (time, outcome) = process_time(|| {
                runtime.block_on(async {
                    match is_sum {
                        false => plan_shard(processor, &window, &cutoffs, range).await,
                        true => partial_sum(processor, &window, range).await,
                    }
                })
            });
            let outcome = outcome?;
            ensure!(outcome == AggregateOutcome::Part, "unexpected outcome: {outcome:?}");
            took.all += time;
            longest = longest.max(time);
        }
        took.longest += longest;
    }
    let (time, outcome) = process_time(|| runtime.block_on(aggregate(processor, &window, &cutoffs)));
    match outcome? {
        AggregateOutcome::Done { result, .. } => ensure!(
            result.verdict == Verdict::Summed && result.clients == packets as u64,
            "unexpected result: {result:?}"
        ),
        other => anyhow::bail!("unexpected outcome: {other:?}"),
    }
    took.all += time;
    took.longest += time;
    for part in [SumPartPart::Header, SumPartPart::Signature] {
        let key = window.sum_part_key(&processor.instance, processor.share, part);
        let bytes = runtime.block_on(processor.mailboxes.portal.read(&key, u64::MAX))?;
        took.sum_part.push(bytes);
    }
    Ok(took)
}
