//! Peak memory of the binary as a whole: one large batch of each share, and many batches one after another.

use std::path::Path;

use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::Share;
use uuid::Uuid;

use crate::bulk::Ingestor;
use crate::measure::Row;
use crate::process::{Took, run};

const BINS: u32 = 16;
/// Packets that Second's batch has at least.
const SECOND_PACKETS: usize = 2_400_000;
/// Batches that are taken in one after another, and twice as many: more than are held of others' claims, either way.
const MANY: u32 = 1_000;
/// What twice as many may take more, in MB: an allocator isn't exact.
const GROWTH: f64 = 4.0;
/// Runs of each: peaks of one and the same work differ by some MB, and of growth the least ones tell.
const TURNS: u32 = 3;
/// Packets of each of the many batches.
const SMALL_PACKETS: usize = 400;

fn batch(aggregation: &str, number: u32) -> anyhow::Result<BatchId> {
    let uuid = Uuid::from_u128(u128::from(number) + 1);
    let path = format!(
        "{aggregation}/2026/11/{:02}/{:02}/{:02}",
        1 + number / 1440,
        number / 60 % 24,
        number % 60
    );
    Ok(BatchId::parse(&format!("{path}/{uuid}"))?)
}

/// Rows of batches of `bytes` bytes.
pub fn rows(facilitator: &Path, bytes: u64) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (share, party) in [(Share::First, "first"), (Share::Second, "second")] {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        // For its keys and parameters; its own batch isn't taken in.
        run(
            facilitator,
            &["sample", "--into", &at("world"), "--batches", "1", "--packets", "1"],
        )?;
        let world = folder.path().join("world");
        let mailbox = world.join(format!("ingestion-{party}"));
        let mut ingestor = Ingestor::of_world(&world, party, share, BINS)?;
        let parameters = at(&format!("world/{party}.json"));
        let intake = |aggregation: &str| {
            run(
                facilitator,
                &["intake", "--parameters", &parameters, "--aggregation", aggregation],
            )
        };

        let packets = match share {
            Share::First => 0,
            Share::Second => SECOND_PACKETS.min(usize::try_from(bytes / 160)?),
        };
        let large = batch("large", 0)?;
        let (packets, bytes) = ingestor.write(&mailbox, &large, packets, bytes)?;
        let name = format!(
            "facilitator intake, {party}, {BINS} bins, {} MB, {packets} packets",
            bytes / 1_000_000
        );
        rows.extend(intake("large")?.rows(|what| format!("{name}: {what}")));
        std::fs::remove_file(
            world
                .join(format!("ledger-{party}"))
                .join(large.ledger_key("delivered").as_str()),
        )?;
        rows.extend(intake("large")?.rows(|what| format!("{name}, again from its record: {what}")));

        // All are there before the first run: each lists them all.
        let many = [("many", MANY), ("twice", 2 * MANY)];
        // Of others' claims so many are read at a time that no later run reads more at a time.
        for number in 0..2 * MANY {
            ingestor.write(&mailbox, &batch("before", number)?, SMALL_PACKETS, 0)?;
        }
        for (aggregation, batches) in many {
            for (number, turn) in (0..batches).flat_map(|number| (0..TURNS).map(move |turn| (number, turn))) {
                let batch = batch(&format!("{aggregation}-{turn}"), number)?;
                ingestor.write(&mailbox, &batch, SMALL_PACKETS, 0)?;
            }
        }
        let mut peaks = Vec::new();
        intake("before")?;
        for (aggregation, batches) in many {
            let mut turns = (0..TURNS)
                .map(|turn| intake(&format!("{aggregation}-{turn}")))
                .collect::<anyhow::Result<Vec<_>>>()?;
            turns.sort_by(|one, other| one.peak_megabytes().total_cmp(&other.peak_megabytes()));
            let name =
                format!("facilitator intake, {party}, {BINS} bins, {batches} batches of {SMALL_PACKETS} packets");
            if let Some(greatest) = turns.last() {
                rows.extend(greatest.rows(|what| format!("{name}: {what}")));
            }
            peaks.extend(turns.first().map(Took::peak_megabytes));
        }
        let name = format!("facilitator intake, {party}, memory that twice as many batches take beyond that");
        rows.push(Row::plain(name, "MB", peaks[1] - peaks[0], Some(GROWTH)));
    }
    Ok(rows)
}
