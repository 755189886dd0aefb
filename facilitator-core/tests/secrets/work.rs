//! Intake and aggregation as a whole, on as many threads as they take.

use facilitator_core::aggregate::{AggregateOutcome, partial_sum, plan_shard};
use facilitator_core::crypto::{encrypt, open};
use facilitator_core::formats::ingestion::DataSharePacket;
use facilitator_core::formats::ledger::Verdict;
use facilitator_core::formats::names::{BatchId, BatchRange};
use facilitator_core::formats::record::{PacketExclusion, Record};
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{Known, Pass, accumulate};
use facilitator_core::processor::{MountedPacketKey, Processor};
use facilitator_core::proof::{self, ShareSplitter, parse_first_share, parse_second_share, subtract_from};
use facilitator_core::sample::{FaultKind, Sample};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::scanning::{left_behind_of, turn};
use crate::support::Keys;
use crate::world::{NOW, World, intake, intake_both, second, verdict, window};
use crate::{BINS, bytes_of, packet};

const SHARES: [Share; 2] = [Share::First, Share::Second];
const NONE: [u32; BINS as usize] = [0; BINS as usize];

/// Dropped within what is looked at: what its threads hold is given back then.
fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// What a packet's plaintext is, and its values.
fn opened(share: Share, sample: &Sample) -> Vec<(Vec<u8>, Vec<u32>)> {
    let (keys, objects) = match share {
        Share::First => (Keys::read(), &sample.first),
        Share::Second => (Keys::read(), &sample.second),
    };
    let packets = DataSharePacket::read_all(&objects.packets).unwrap();
    let opened = packets.iter().map(|packet| {
        let plaintext = keys.packets(share).decrypt(&packet.encrypted_payload).unwrap();
        let elements = match share {
            Share::First => parse_first_share(&plaintext, BINS).unwrap(),
            Share::Second => parse_second_share(&plaintext, BINS).unwrap(),
        };
        (plaintext.to_vec(), elements[..BINS as usize].to_vec())
    });
    opened.collect()
}

fn sum<'a>(values: impl IntoIterator<Item = &'a Vec<u32>>) -> Vec<u32> {
    let mut sum = NONE.to_vec();
    values
        .into_iter()
        .for_each(|values| proof::accumulate(&mut sum, values));
    sum
}

fn less(sum: &[u32], values: &[u32]) -> Vec<u32> {
    let mut sum = sum.to_vec();
    subtract_from(&mut sum, values);
    sum
}

/// What a batch's record seals.
fn accumulator(world: &World, share: Share, batch: &BatchId) -> Vec<u32> {
    let ledger = world.ledger[usize::from(share.index())].snapshot();
    let record = Record::decode(&ledger[batch.ledger_key("records").as_str()]).unwrap();
    let keys = Keys::read();
    let head = &record.plain.head;
    let opened = open(
        keys.packets(share),
        &head.header_digest,
        share,
        &record.plain.digest(),
        &record.sealed[0],
    );
    opened.unwrap().to_vec()
}

fn assert_nothing_left(of: &str, secrets: &[Vec<u8>], work: impl FnOnce()) {
    let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let found = left_behind_of(&secrets, || {
        drop(secrets.iter().map(|secret| secret.to_vec()).collect::<Vec<_>>())
    });
    assert_eq!(found, secrets.len(), "each would be found");
    assert_eq!(left_behind_of(&secrets, work), 0, "{of}");
}

#[test]
fn intake_on_several_cores_leaves_nothing_behind() {
    const PACKETS: usize = 80;
    let _turn = turn();
    for share in SHARES {
        let world = World::new();
        let sample = world.sample(1, PACKETS, &[]);
        let packets = opened(share, &sample);
        let values: Vec<_> = packets.iter().map(|(_, values)| values.clone()).collect();
        let mut secrets: Vec<Vec<u8>> = packets.into_iter().map(|(plaintext, _)| plaintext).collect();
        secrets.extend(values.iter().map(|values| bytes_of(values)));
        // What each core sums, however many there are: parts of less than 32 packets aren't worth a thread.
        for cores in 1..=PACKETS / 32 + 1 {
            let parts = values.chunks(PACKETS.div_ceil(cores).max(32));
            secrets.extend(parts.map(|part| bytes_of(&sum(part))));
        }
        let processor = world.processor(share);
        assert_nothing_left("intake", &secrets, || {
            drop(runtime().block_on(intake(&processor, &sample.id)))
        });
        let all = accumulator(&world, share, &sample.id);
        assert!(
            secrets.contains(&bytes_of(&all)),
            "the sum is among what was looked for"
        );
    }
}

/// The buffers in which packets are opened grow with them: whoever sends a longer one learns nothing of the one before.
#[test]
fn a_packet_that_is_longer_than_the_one_before_leaves_nothing_of_it_behind() {
    const LONGER: [usize; 3] = [1, 1_000, 100_000];
    let _turn = turn();
    let mut rng = StdRng::seed_from_u64(11);
    for share in SHARES {
        let keys = Keys::read();
        let point = *keys.packets(share).public_point();
        let shares = ShareSplitter::new(BINS).split(&[1; BINS as usize], &mut rng);
        let (good, expanded) = match share {
            Share::First => (shares.first.to_vec(), None),
            Share::Second => {
                let expanded = parse_second_share(&*shares.second, BINS).unwrap();
                (shares.second.to_vec(), Some(bytes_of(&expanded)))
            }
        };
        // The longer ones open, and are of the wrong length.
        let longer = LONGER.map(|more| vec![7; good.len() + more]);
        let plaintexts = std::iter::once(&good).chain(&longer);
        let packets = plaintexts.zip(0..).map(|(plaintext, n)| DataSharePacket {
            uuid: Uuid::from_u128(n),
            ..packet(encrypt(&point, plaintext, &mut rng).unwrap())
        });
        let packets: Vec<_> = packets.collect();
        let mounted = [MountedPacketKey {
            id: "one".into(),
            key: match share {
                Share::First => keys.first_packets,
                Share::Second => keys.second_packets,
            },
        }];
        let secrets: Vec<Vec<u8>> = std::iter::once(good).chain(expanded).collect();
        let intake = || {
            let pass = Pass {
                bins: BINS,
                share,
                keys: &mounted,
                remembered: packets.len(),
                known: &Known::default(),
            };
            // Fewer than are worth a thread: one core opens all of them, one after another.
            let accumulated = accumulate(packets.iter().cloned().map(Ok), &pass, |_| Ok(())).unwrap();
            let longer = accumulated.excluded_as(PacketExclusion::WrongDimension);
            assert_eq!(
                (accumulated.packets, longer),
                (1 + LONGER.len() as u64, LONGER.len() as u64)
            );
        };
        assert_nothing_left("packets of several lengths", &secrets, intake);
    }
}

/// Three batches, taken in by both; one packet of the first doesn't count, so few that it is added up before the sum.
struct Stage {
    world: World,
    samples: Vec<Sample>,
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        let faults = [(1, FaultKind::InvalidProof)];
        let samples: Vec<_> = (1..=3)
            .map(|n| match n {
                1 => world.sample(n, 20, &faults),
                _ => world.sample(n, 5, &[]),
            })
            .collect();
        let runtime = runtime();
        for sample in &samples {
            runtime.block_on(intake_both(&world, &sample.id));
        }
        Self { world, samples }
    }

    /// All that a share's sums are made of and that isn't released.
    fn secrets(&self, share: Share) -> Vec<Vec<u8>> {
        let of = |sample: &Sample| accumulator(&self.world, share, &sample.id);
        let [one, two, three] = [0, 1, 2].map(|n| of(&self.samples[n]));
        let bad = opened(share, &self.samples[0])[1].1.clone();
        let all = sum([&one, &two, &three]);
        let secrets = [
            sum([&one, &two]),
            sum([&two, &three]),
            sum([&less(&one, &bad), &two]),
            // Subtracted, and before it is: the released sum and this one tell the packet's values.
            less(&NONE, &bad),
            less(&one, &bad),
            all,
            bad,
            one,
            two,
            three,
        ];
        secrets.iter().map(|secret| bytes_of(secret)).collect()
    }

    fn aggregated(&self, processor: &Processor) {
        let runtime = runtime();
        let result = runtime.block_on(verdict(processor, &window()));
        assert_eq!((result.verdict, result.clients), (Verdict::Summed, 29), "{result:?}");
    }
}

#[test]
fn aggregation_leaves_nothing_behind() {
    let _turn = turn();
    for share in SHARES {
        let stage = Stage::new();
        let processor = stage.world.processor(share);
        assert_nothing_left("the sum", &stage.secrets(share), || stage.aggregated(&processor));
    }
}

#[test]
fn aggregation_in_parts_leaves_nothing_behind() {
    let _turn = turn();
    for share in SHARES {
        let stage = Stage::new();
        let processor = stage.world.processor(share);
        let ranges = ["202611200000-202611200002", "202611200002-202611200300"];
        let whole = BatchRange::whole(&window());
        let work = || {
            let runtime = runtime();
            let planned = runtime.block_on(plan_shard(&processor, &window(), &[second(NOW)], &whole));
            assert_eq!(planned.unwrap(), AggregateOutcome::Part);
            for range in ranges {
                let range = BatchRange::parse(range).unwrap();
                let done = runtime.block_on(partial_sum(&processor, &window(), &range));
                assert_eq!(done.unwrap(), AggregateOutcome::Part);
            }
            stage.aggregated(&processor);
        };
        assert_nothing_left("parts", &stage.secrets(share), work);
        let ledger = stage.world.ledger[usize::from(share.index())].snapshot();
        let partials = ledger.keys().filter(|name| name.starts_with("partials/")).count();
        assert_eq!(partials, ranges.len());
    }
}

#[test]
fn a_batch_that_is_summed_from_its_packets_leaves_nothing_behind() {
    let _turn = turn();
    for share in SHARES {
        let stage = Stage::new();
        let mut secrets = stage.secrets(share);
        let packets = opened(share, &stage.samples[1]);
        secrets.extend(
            packets
                .into_iter()
                .flat_map(|(plaintext, values)| [plaintext, bytes_of(&values)]),
        );
        // Its seal is damaged.
        let ledger = &stage.world.ledger[usize::from(share.index())];
        let key = stage.samples[1].id.ledger_key("records");
        let mut record = ledger.snapshot()[key.as_str()].to_vec();
        *record.last_mut().unwrap() ^= 1;
        ledger.replace(&key, record);
        let processor = stage.world.processor(share);
        assert_nothing_left("opened again", &secrets, || stage.aggregated(&processor));
    }
}
