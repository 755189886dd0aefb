#![allow(clippy::unwrap_used)]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::crypto::{PacketDecryptionKey, encrypt};
use crate::formats::work::Share;
use crate::intake::Known;
use crate::processor::MountedPacketKey;

/// So many packets that no key opens.
fn packets(count: u128) -> impl Iterator<Item = Result<Marked, FormatError>> + Send {
    (0..count).map(|uuid| {
        let packet = DataSharePacket {
            uuid: Uuid::from_u128(uuid),
            encrypted_payload: vec![4; 90],
            encryption_key_id: None,
            r_pit: 12_345,
            version_configuration: None,
            device_nonce: None,
        };
        Ok((packet, None))
    })
}

fn decide(
    cores: usize,
    packets: impl Iterator<Item = Result<Marked, FormatError>> + Send,
    put: impl FnMut(Decided) -> Result<(), FormatError> + Send,
) -> Result<Vec<Sums>, FormatError> {
    decide_with(&[], cores, packets, put)
}

fn decide_with(
    keys: &[MountedPacketKey],
    cores: usize,
    packets: impl Iterator<Item = Result<Marked, FormatError>> + Send,
    put: impl FnMut(Decided) -> Result<(), FormatError> + Send,
) -> Result<Vec<Sums>, FormatError> {
    let known = Known::default();
    let pass = Pass {
        bins: 5,
        share: Share::Second,
        keys,
        remembered: 3,
        known: &known,
    };
    decide_all(cores, &ProofQuery::new(5), &pass, packets, put)
}

#[test]
fn no_more_cores_work_than_there_is_work_for() {
    const PART: u128 = PART_PACKETS as u128;
    for (cores, count, at_work) in [
        (1, 0, 0),
        (4, 0, 0),
        (4, 1, 1),
        (4, PART - 1, 1),
        (1, 100 * PART, 1),
        (4, 100 * PART, 4),
    ] {
        let mut out = Vec::new();
        let put = |decided: Decided| {
            out.extend(decided.decisions.iter().map(|decision| decision.uuid.as_u128()));
            Ok(())
        };
        let sums = decide(cores, packets(count), put).unwrap();
        // A core that is called when nothing is left sums nothing.
        assert!(sums.len() <= at_work, "{cores} {count}: {}", sums.len());
        assert_eq!(sums.is_empty(), count == 0);
        assert_eq!(out, (0..count).collect::<Vec<_>>(), "{cores} {count}");
    }
}

#[test]
fn where_one_core_panics_none_waits_for_it() {
    let count = 2 * (PARTS_AHEAD * PART_PACKETS) as u128;
    for cores in [1, 2, 3] {
        for at in [0, 40, count - 1] {
            let while_reading = catch_unwind(AssertUnwindSafe(|| {
                let packets = packets(count).inspect(|packet| {
                    let (packet, _) = packet.as_ref().unwrap();
                    assert_ne!(packet.uuid.as_u128(), at, "this is meant");
                });
                decide(cores, packets, |_| Ok(()))
            }));
            assert!(while_reading.is_err(), "{cores} {at}");
            let while_putting = catch_unwind(AssertUnwindSafe(|| {
                decide(cores, packets(count), |decided| {
                    let is_meant = |decision: &Decision| decision.uuid.as_u128() == at;
                    assert!(!decided.decisions.iter().any(is_meant), "this is meant");
                    Ok(())
                })
            }));
            assert!(while_putting.is_err(), "{cores} {at}");
        }
    }
}

/// Keys, and a payload that none of them opens.
fn keys_in_vain(count: usize) -> (Vec<MountedPacketKey>, Vec<u8>) {
    let mut rng = StdRng::seed_from_u64(7);
    let keys = (0..count).map(|n| MountedPacketKey {
        id: format!("key-{n}"),
        key: PacketDecryptionKey::generate(&mut rng),
    });
    let keys = keys.collect();
    let point = *PacketDecryptionKey::generate(&mut rng).public_point();
    (keys, encrypt(&point, &[7; 32], &mut rng).unwrap())
}

#[test]
fn no_core_is_far_ahead_of_one_that_is_slow() {
    // Those of the first part are tried with many keys, the others with none.
    let (keys, slow) = keys_in_vain(100);
    let count = 3 * (PARTS_AHEAD * PART_PACKETS) as u128;
    let (read, put) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let marked = packets(count).map(|packet| {
        let read = read.fetch_add(1, Ordering::Relaxed) / PART_PACKETS;
        let ahead = read - put.load(Ordering::Relaxed).min(read);
        // Each of the three cores has one besides, and some are ready.
        let besides = 3 + 3;
        assert!(ahead <= PARTS_AHEAD + besides, "{ahead} parts are waiting");
        packet.map(|(mut packet, _)| match read {
            0 => {
                packet.encrypted_payload.clone_from(&slow);
                (packet, None)
            }
            _ => (packet, Some(PacketExclusion::Replay)),
        })
    });
    let (mut out, mut most_waited) = (0, 0);
    decide_with(&keys, 3, marked, |decided| {
        out += decided.decisions.len() as u128;
        let put = put.fetch_add(1, Ordering::Relaxed);
        most_waited = most_waited.max(read.load(Ordering::Relaxed) / PART_PACKETS - put);
        Ok(())
    })
    .unwrap();
    assert_eq!(out, count);
    assert!(most_waited > PARTS_AHEAD / 2, "{most_waited} waited: nobody was slow");
}

/// Who reads may lose its core. Without parts that are ready the other core would come to its end with the part that it has.
#[test]
fn while_one_core_reads_the_other_gets_more_than_the_part_that_it_has() {
    let (keys, slow) = keys_in_vain(5);
    let (put, gets_more) = (AtomicUsize::new(0), AtomicBool::new(false));
    let packets = packets(20 * PART_PACKETS as u128).enumerate().map(|(index, packet)| {
        let until = Instant::now() + Duration::from_millis(500);
        let more = put.load(Ordering::Relaxed) + 2;
        while index % PART_PACKETS == 0 && !gets_more.load(Ordering::Relaxed) && Instant::now() < until {
            gets_more.store(put.load(Ordering::Relaxed) >= more, Ordering::Relaxed);
            thread::yield_now();
        }
        packet.map(|(mut packet, _)| {
            packet.encrypted_payload.clone_from(&slow);
            (packet, None)
        })
    });
    let count = |_: Decided| {
        put.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    decide_with(&keys, 2, packets, count).unwrap();
    assert!(gets_more.into_inner());
}
