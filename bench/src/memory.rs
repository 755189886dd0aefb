//! Peak memory of the binary as a whole: one large batch of each share, and many batches one after another.

use std::path::Path;

use facilitator_core::formats::avro::{BLOCK_BYTES, BLOCK_RECORDS};
use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::Share;
use uuid::Uuid;

use crate::bulk::Ingestor;
use crate::measure::Row;
use crate::process::{run, sample};

const BINS: u32 = 16;
/// Packets that Second's batch has at least.
const SECOND_PACKETS: usize = 2_400_000;
/// Blocks as ours: records and bytes, after either of which one ends.
const OUR_BLOCKS: (usize, usize) = (BLOCK_RECORDS, BLOCK_BYTES);
/// Blocks nearly as long as are taken.
const LONG_BLOCKS: (usize, usize) = (usize::MAX, 60_000_000);
/// Batches that are taken in one after another.
const MANY: u32 = 1_000;
/// And as many in each quarter of a longer run: what is read of claims at a time reaches its bound in the first half.
const MORE: u32 = 4 * MANY;
/// What the last quarter may take beyond the one before, in MB: an allocator isn't exact.
const GROWTH: f64 = 4.0;
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
        sample(facilitator, folder.path(), &["--batches", "1", "--packets", "1"])?;
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
        let name = |(packets, bytes): (usize, u64)| {
            format!(
                "facilitator intake, {party}, {BINS} bins, {} MB, {packets} packets",
                bytes / 1_000_000
            )
        };
        let in_long_blocks = batch("long-blocks", 0)?;
        let written = ingestor.write(&mailbox, &in_long_blocks, packets, bytes, LONG_BLOCKS)?;
        rows.extend(intake("long-blocks")?.rows(|what| format!("{} in blocks of 60 MB: {what}", name(written))));
        std::fs::remove_dir_all(mailbox.join("long-blocks"))?;

        let name = name(ingestor.write(&mailbox, &large, packets, bytes, OUR_BLOCKS)?);
        rows.extend(intake("large")?.rows(|what| format!("{name}: {what}")));
        std::fs::remove_file(
            world
                .join(format!("ledger-{party}"))
                .join(large.ledger_key("delivered").as_str()),
        )?;
        rows.extend(intake("large")?.rows(|what| format!("{name}, again from its record: {what}")));

        let name = |batches: u32| {
            format!("facilitator intake, {party}, {BINS} bins, {batches} batches of {SMALL_PACKETS} packets")
        };
        let mut many = |aggregation: &str, batches: u32| {
            for number in 0..batches {
                ingestor.write(&mailbox, &batch(aggregation, number)?, SMALL_PACKETS, 0, OUR_BLOCKS)?;
            }
            intake(aggregation)
        };
        rows.extend(many("many", MANY)?.rows(|what| format!("{}: {what}", name(MANY))));
        let more = many("more", MORE)?;
        rows.extend(more.rows(|what| format!("{}: {what}", name(MORE))));
        rows.push(Row::plain(
            format!(
                "{}: the last {MANY}'s memory beyond that of the {MANY} before",
                name(MORE)
            ),
            "MB",
            more.growth_megabytes(),
            Some(GROWTH),
        ));
    }
    Ok(rows)
}
