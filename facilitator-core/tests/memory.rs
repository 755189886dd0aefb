//! Memory doesn't grow with a batch, but for 16 bytes a packet of fingerprints: counted by the allocator, not timed.
#![allow(clippy::unwrap_used)]

#[path = "hostile/memory.rs"]
mod memory;
#[path = "support/mod.rs"]
mod support;

use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::{encrypt, sha256};
use facilitator_core::formats::avro::{BLOCK_RECORDS, Encoder, Record, RecordWriter, SYNC_MARKER};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart, InstanceName, ValidationPart};
use facilitator_core::formats::parameters::BatchParameters;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in, take_in_all};
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor};
use mailbox::{FileMailbox, Mailbox};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::memory::Counting;
use crate::support::Keys;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is allocated is counted for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const BINS: u32 = 16;
/// Enough to fill what is on its way from a folder at once: 8 chunks of an object. One chunk of fingerprints, and two.
const FEW: usize = 65_000;
const MANY: usize = 131_000;
/// What a packet may take, in bytes: 16 of fingerprints, and slack, for how many parts are under way at the peak is a matter
/// of chance. A UUID alone would be 16 more, a record's entry 30.
const PACKET_BYTES: usize = 24;

/// Packets for Second, encrypted on all cores.
fn packets(keys: &Keys, count: usize) -> Vec<DataSharePacket> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let point = *keys.second_packets.public_point();
    let make = |seed: usize| -> Vec<DataSharePacket> {
        let mut rng = StdRng::seed_from_u64(seed as u64);
        let packet = |_| DataSharePacket {
            uuid: uuid::Builder::from_random_bytes(rng.random()).into_uuid(),
            encrypted_payload: encrypt(&point, &rng.random::<[u8; 32]>(), &mut rng).unwrap(),
            encryption_key_id: None,
            r_pit: 12_345,
            version_configuration: None,
            device_nonce: None,
        };
        (0..count / cores).map(packet).collect()
    };
    thread::scope(|scope| {
        let parts: Vec<_> = (0..cores).map(|seed| scope.spawn(move || make(seed))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// Puts a batch into the ingestion mailbox.
fn put(folder: &Path, keys: &Keys, batch: &BatchId, packets: &[DataSharePacket]) {
    put_object(folder, keys, batch, &in_blocks(packets, BLOCK_RECORDS));
}

/// A packet object of blocks of so many packets.
fn in_blocks(packets: &[DataSharePacket], block: usize) -> Vec<u8> {
    let mut writer = RecordWriter::with_blocks(Vec::new(), block, usize::MAX);
    packets.iter().for_each(|packet| writer.write(packet).unwrap());
    writer.finish().unwrap()
}

/// A packet object of one deflated block.
fn deflated(packets: &[DataSharePacket]) -> Vec<u8> {
    let (mut block, mut object) = (Vec::new(), b"Obj\x01".to_vec());
    let mut encoder = Encoder::new(&mut block);
    packets.iter().for_each(|packet| packet.encode(&mut encoder));
    let block = miniz_oxide::deflate::compress_to_vec(&block, 1);
    let mut encoder = Encoder::new(&mut object);
    encoder.length(2);
    for text in ["avro.codec", "deflate", "avro.schema", DataSharePacket::SCHEMA] {
        encoder.bytes(text.as_bytes());
    }
    encoder.length(0);
    object.extend_from_slice(&SYNC_MARKER);
    let mut encoder = Encoder::new(&mut object);
    encoder.length(packets.len());
    encoder.bytes(&block);
    object.extend_from_slice(&SYNC_MARKER);
    object
}

fn put_object(folder: &Path, keys: &Keys, batch: &BatchId, packets: &[u8]) {
    let file = |part| folder.join("ingestion").join(batch.ingestion_key(part).as_str());
    std::fs::create_dir_all(file(IngestionPart::Packets).parent().unwrap()).unwrap();
    std::fs::write(file(IngestionPart::Packets), packets).unwrap();
    let header = IngestionHeader {
        parameters: BatchParameters {
            batch_uuid: batch.uuid,
            name: batch.aggregation.as_str().to_owned(),
            bins: BINS.cast_signed(),
            epsilon: 0.1,
            prime: 4_293_918_721,
            number_of_servers: 2,
            hamming_weight: None,
        },
        batch_start_time: 1,
        batch_end_time: 2,
        packet_file_digest: sha256(packets).to_vec(),
    };
    let header = header.write();
    std::fs::write(file(IngestionPart::Header), &header).unwrap();
    let signature = BatchSignature::sign(&keys.ingestor, &header).unwrap();
    std::fs::write(file(IngestionPart::Signature), signature.write()).unwrap();
}

fn processor(folder: &Path, keys: Keys) -> Processor {
    let mailbox = |name: &str| -> Arc<dyn Mailbox> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Arc::new(FileMailbox::in_folder(&folder).unwrap())
    };
    Processor {
        instance: InstanceName::parse("us-ct").unwrap(),
        share: Share::Second,
        legacy_peer: false,
        validation_format: ValidationFormat::ThreeObjects,
        min_clients: 1,
        mailboxes: Mailboxes {
            ingestion: mailbox("ingestion"),
            peer_validation: mailbox("peer-validation"),
            ledger: mailbox("ledger"),
            peer: mailbox("peer"),
            portal: mailbox("portal"),
        },
        ingestor_keys: keys.trusted.clone(),
        peer_keys: keys.trusted.clone(),
        signing_key: keys.second,
        other_signing_keys: Vec::new(),
        use_marks: None,
        packet_keys: Arc::new([MountedPacketKey {
            id: "one".into(),
            key: keys.second_packets,
        }]),
        // Claims take memory of their own.
        replay_guard: None,
        clock: jiff::Timestamp::now,
        reread_pause: Duration::ZERO,
        // Little, so that what doesn't grow doesn't hide what does.
        in_memory: InMemory {
            packets: 1_000,
            object_bytes: 64 << 10,
            ..InMemory::default()
        },
    }
}

/// The most that is allocated at once while the batch is taken in, in bytes.
async fn peak(processor: &Processor, batch: &BatchId, packets: usize, excluded: u64) -> usize {
    memory::restart();
    let outcome = take_in(processor, batch, false).await.unwrap();
    let peak = memory::peak();
    let expected = matches!(
        outcome,
        IntakeOutcome::Validated { packets: there, excluded: none, already: false, .. }
            if there == packets as u64 && none == excluded
    );
    assert!(expected, "{outcome:?}");
    peak
}

/// Our validation batch as a predecessor may have written it: the same messages in another order.
fn say_otherwise(peer: &Path, batch: &BatchId, processor: &Processor) {
    let file = |part| peer.join(batch.validation_key(Share::Second, part).as_str());
    let read = |part| std::fs::read(file(part)).unwrap();
    let mut packets = ValidationPacket::read_all(&read(ValidationPart::Packets)).unwrap();
    packets.reverse();
    let packets = ValidationPacket::write_all(&packets);
    let mut header = ValidationHeader::read(&read(ValidationPart::Header)).unwrap();
    header.packet_file_digest = sha256(&packets).to_vec();
    let header = header.write();
    let signature = BatchSignature::sign(&processor.signing_key, &header).unwrap().write();
    for (part, bytes) in [
        (ValidationPart::Packets, packets),
        (ValidationPart::Header, header),
        (ValidationPart::Signature, signature),
    ] {
        std::fs::write(file(part), bytes).unwrap();
    }
}

#[test]
fn intake_grows_by_fingerprints_alone_and_many_batches_take_no_more_than_one() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let batch = |n: u128| {
        let uuid = Uuid::from_u128(n);
        BatchId::parse(&format!("kittens-seen/2026/11/20/00/{n:02}/{uuid}")).unwrap()
    };
    let keys = Keys::read();
    let mut packets = packets(&keys, MANY);
    put(folder.path(), &keys, &batch(0), &packets[..FEW]);
    put(folder.path(), &keys, &batch(1), &packets);
    put_object(folder.path(), &keys, &batch(3), &in_blocks(&packets, MANY));
    put_object(folder.path(), &keys, &batch(4), &deflated(&packets));
    for n in 10..40 {
        put(folder.path(), &keys, &batch(n), &packets[..100]);
    }
    // One that comes twice, and late enough that it isn't seen at once.
    packets[MANY - 1].uuid = packets[MANY - 2].uuid;
    put(folder.path(), &keys, &batch(2), &packets);
    drop(packets);
    let processor = processor(folder.path(), keys);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // What a process keeps for good, it has after the first batches.
        for n in 10..20 {
            peak(&processor, &batch(n), 100, 0).await;
        }
        memory::restart();
        for n in 20..40 {
            let outcome = take_in(&processor, &batch(n), false).await.unwrap();
            assert!(
                matches!(outcome, IntakeOutcome::Validated { packets: 100, .. }),
                "{outcome:?}"
            );
        }
        let kept = memory::kept();
        assert!(kept < 64 << 10, "{kept} bytes are kept of 20 batches");

        let fixed = peak(&processor, &batch(0), FEW, 0).await;
        let bound = fixed + (MANY - FEW) * PACKET_BYTES;
        let once = peak(&processor, &batch(1), MANY, 0).await;
        assert!(once <= bound, "{once} bytes for {MANY} packets, {fixed} for {FEW}");
        // To inflate takes a window and what is inflated at a time, however long the block.
        for (number, beside, what) in [(3, 0, "one block"), (4, 256 << 10, "one deflated block")] {
            let one_block = peak(&processor, &batch(number), MANY, 0).await;
            assert!(
                one_block <= bound + beside,
                "{one_block} bytes for {MANY} packets in {what}, {fixed} for blocks of {BLOCK_RECORDS}"
            );
        }
        let twice = peak(&processor, &batch(2), MANY, 1).await;
        assert!(twice <= bound, "{twice} bytes in two passes, {fixed} for {FEW} in one");

        // Again from the record: what is there is the same, then says the same in other bytes.
        let delivered = batch(1).ledger_key("delivered");
        let delivered = folder.path().join("ledger").join(delivered.as_str());
        std::fs::remove_file(&delivered).unwrap();
        let again = peak(&processor, &batch(1), MANY, 0).await;
        assert!(
            again <= fixed + (64 << 10),
            "{again} bytes from the record, {fixed} for {FEW} packets"
        );
        say_otherwise(&folder.path().join("peer"), &batch(1), &processor);
        std::fs::remove_file(&delivered).unwrap();
        let compared = peak(&processor, &batch(1), MANY, 0).await;
        assert!(
            compared <= bound,
            "{compared} bytes to compare messages, {fixed} for {FEW} packets"
        );
    });
}

/// Batches of one packet that is in and many that aren't: their records wait for the claims of a whole group.
#[test]
fn batches_that_wait_to_be_claimed_together_are_bounded_by_what_they_hold() {
    const BATCHES: u8 = 15;
    /// A draft of these takes two megabytes.
    const DUPLICATES: usize = 60_000;
    const MIB: usize = 1 << 20;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::read();
    let mut rng = StdRng::seed_from_u64(1);
    let batches: Vec<Wanted> = (0..3 * BATCHES)
        .map(|n| {
            let uuid = Uuid::from_u128(n.into());
            let batch = BatchId::parse(&format!("kittens-seen/2026/11/20/{:02}/{:02}/{uuid}", n / 60, n % 60));
            let point = keys.second_packets.public_point();
            let good = DataSharePacket {
                uuid,
                encrypted_payload: encrypt(point, &rng.random::<[u8; 32]>(), &mut rng).unwrap(),
                encryption_key_id: None,
                r_pit: 12_345,
                version_configuration: None,
                device_nonce: None,
            };
            let duplicate = DataSharePacket {
                encrypted_payload: Vec::new(),
                ..good.clone()
            };
            let mut packets = vec![duplicate; DUPLICATES];
            packets[0] = good;
            let batch = batch.unwrap();
            put(folder.path(), &keys, &batch, &packets);
            Wanted {
                batch,
                take_anyway: false,
            }
        })
        .collect();
    let mut processor = processor(folder.path(), keys);
    processor.replay_guard = Some(ReplayGuard { horizon_days: 14 });
    processor.in_memory.object_bytes = 4 * MIB;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let few = usize::from(BATCHES);
    let peaks = [&batches[..few], &batches[few..]].map(|wanted| {
        memory::restart();
        let results = runtime.block_on(take_in_all(&processor, wanted));
        let peak = memory::peak();
        assert_eq!(results.len(), wanted.len());
        let all_in = results.iter().all(|result| {
            let excluded = DUPLICATES as u64 - 1;
            matches!(result, Ok(IntakeOutcome::Validated { excluded: out, .. }) if *out == excluded)
        });
        assert!(all_in, "{results:?}");
        peak
    });
    assert!(peaks[0] < 24 * MIB, "{peaks:?} bytes");
    // Parts that happen to be under way at the time take up to 256 KiB each; twice what is held would be 16 MiB more.
    assert!(
        peaks[1] < peaks[0] + 4 * MIB,
        "{peaks:?} bytes: twice as many batches take more"
    );
}
