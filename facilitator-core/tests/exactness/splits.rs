//! A window summed in parts gives the same bytes as in one pod: however it is parted, whichever parts are done by whom and
//! in what order, with sound seals and with damaged ones.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use facilitator_core::aggregate::AggregateOutcome;
use facilitator_core::formats::ledger::{LedgerObject, Verdict};
use facilitator_core::formats::names::{BatchId, BatchRange, BatchTime, Cut, parse_partial_name};
use facilitator_core::formats::partial::Partial;
use facilitator_core::formats::record::Record;
use facilitator_core::formats::work::Share;
use facilitator_core::sample::FaultKind;
use mailbox::{MemoryMailbox, ObjectKey};
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::check::{but_put, members, parse, record};
use crate::drawn::{random_world, spoil};
use crate::gate::Gate;
use crate::truth::Truth;
use crate::work::{Outcome, Task, in_parts, parted_at, ranges, run, window};
use crate::world::{Content, Mounts, Place, SHARES, Setup, TINY, World, place};

/// What is left of a window when it is over; which parts it was done in doesn't count.
fn outputs(world: &World) -> Vec<BTreeMap<String, Vec<u8>>> {
    let mut content = but_put(&world.content());
    for mailbox in &mut content {
        mailbox.retain(|name, _| !name.starts_with("shards/") && !name.starts_with("partials/"));
    }
    content
}

fn ledger(world: &World, share: Share) -> &MemoryMailbox {
    &world.places[place(share, Place::Ledger)]
}

fn change(mailbox: &MemoryMailbox, key: &ObjectKey, change: impl FnOnce(&Bytes) -> Vec<u8>) {
    let bytes = mailbox.snapshot()[key.as_str()].clone();
    mailbox.replace(key, change(&bytes));
}

/// Damages at least one seal of every record; which.
fn damage_seals(world: &World, ids: &[BatchId], share: Share, rng: &mut StdRng) -> BTreeMap<BatchId, Vec<bool>> {
    let mut damaged = BTreeMap::new();
    for id in ids {
        let key = id.ledger_key("records");
        if ledger(world, share).snapshot().contains_key(key.as_str()) {
            change(ledger(world, share), &key, |bytes| {
                let mut record = Record::decode(bytes).unwrap();
                let mut which: Vec<bool> = record.sealed.iter().map(|_| rng.random_bool(0.5)).collect();
                if !which.contains(&true) {
                    *which.choose_mut(rng).unwrap() = true;
                }
                let seals = record.sealed.iter_mut().zip(&which);
                seals
                    .filter(|(_, damaged)| **damaged)
                    .for_each(|(seal, _)| seal[0] ^= 1);
                damaged.insert(id.clone(), which);
                record.encode()
            });
        }
    }
    damaged
}

/// How many of the plan's batches have one sound and one damaged seal, and packets to take out under both keys.
fn half_damaged(world: &World, truth: &Truth, share: Share, damaged: &BTreeMap<BatchId, Vec<bool>>) -> usize {
    let content = world.content();
    let there = &content[place(share, Place::Ledger)];
    let Some(plan) = there.get(window().ledger_key("plans").as_str()) else {
        return 0;
    };
    let members = members("plans", &parse("plans", plan).unwrap()).unwrap();
    let is_half = |(id, _): &&(BatchId, String)| {
        let [one, other] = damaged[id][..] else { return false };
        let expected = truth.expected(share, std::slice::from_ref(id), world.bins as usize, &content);
        let clients = expected.map_or_else(|_| Vec::new(), |expected| expected.client_set);
        let record = record(there, id).unwrap().unwrap();
        let takes_out = |key: u8| {
            let mut packets = record.plain.included().filter(|(_, _, of, _)| *of == key);
            !clients.is_empty() && packets.any(|(index, ..)| !clients.contains(&(id.uuid, index)))
        };
        one != other && takes_out(0) && takes_out(1)
    };
    members.iter().filter(is_half).count()
}

/// The window in one pod.
async fn whole(world: &World, setup: &Setup) -> Vec<BTreeMap<String, Vec<u8>>> {
    world.run(setup, &[Task::Aggregate(window())]).await.unwrap();
    outputs(world)
}

/// Every way to part the window between these batches.
fn splits(names: &[(BatchTime, Uuid)]) -> Vec<Vec<BatchRange>> {
    let split = |which: u32| {
        let cuts = (1..names.len()).filter(|n| which >> (n - 1) & 1 == 1);
        parted_at(cuts.map(|n| Cut::between(names[n - 1], names[n])))
    };
    (0_u32..1 << (names.len() - 1)).map(split).collect()
}

/// Some of the shards and partial sums, in any order, some several times, then the rest of the work.
async fn parted(world: &World, setup: &Setup, ranges: &[BatchRange], rng: &mut StdRng) {
    let mut shards: Vec<_> = ranges.iter().map(|range| Task::PlanShard(window(), *range)).collect();
    shards.shuffle(rng);
    let plans = rng.random_bool(0.7);
    if !plans {
        shards.truncate(rng.random_range(0..=shards.len()));
    }
    let again: Vec<_> = shards.iter().filter(|_| rng.random_ratio(1, 5)).cloned().collect();
    shards.extend(again);
    let outcomes = world.run(setup, &shards).await.unwrap();
    let is_planned = ledger(world, setup.share)
        .snapshot()
        .contains_key(window().ledger_key("plans").as_str());
    let no_members = |outcome: &Outcome| matches!(outcome, Outcome::Aggregate(AggregateOutcome::NoMembers { .. }));
    assert!(!plans || is_planned || outcomes.iter().any(no_members), "{outcomes:?}");
    if is_planned {
        let mut sums: Vec<_> = ranges
            .iter()
            .filter(|_| rng.random_bool(0.8))
            .map(|range| Task::PartialSum(window(), *range))
            .collect();
        sums.shuffle(rng);
        world.run(setup, &sums).await.unwrap();
    }
    world.run(setup, &[Task::Aggregate(window())]).await.unwrap();
}

#[tokio::test]
async fn every_split_and_order_gives_the_bytes_of_one_pod() {
    const BATCHES: u8 = 6;
    let (mut summed, mut half, mut slow, mut with_partials) = (0, 0, 0, 0);
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        // An answer that is spoilt isn't one of a peer that [`Truth`] knows.
        let has_truth = seed % 2 == 0;
        let (world, ids) = random_world(seed, &mut rng, BATCHES).await;
        let names: Vec<_> = ids.iter().map(|id| (id.time, id.uuid)).collect();
        let splits = splits(&names);
        for size in 1..=names.len() {
            let parts = BatchRange::whole(&window()).parted(names.iter().copied(), size);
            assert!(splits.contains(&parts), "what the operator makes is tried: {parts:?}");
        }
        let mut truth = Truth::of(&world);
        spoil(&world, &ids, !has_truth, &mut rng);
        let begin = world.content();
        for share in SHARES {
            // What is streamed from the first byte on comes to the same.
            let streams = Setup {
                in_memory: TINY,
                ..Setup::of(share)
            };
            world.reset(&begin);
            let expected = whole(&world, &Setup::of(share)).await;
            world.reset(&begin);
            assert_eq!(
                whole(&world, &streams).await,
                expected,
                "seed {seed} {share:?}: streamed"
            );
            summed += u32::from(expected[place(share, Place::Portal)].len() > 1);
            world.reset(&begin);
            let damaged_seals = damage_seals(&world, &ids, share, &mut rng);
            let damaged = world.content();
            let slow_path = whole(&world, &Setup::of(share)).await;
            half += half_damaged(&world, &truth, share, &damaged_seals);
            // The records differ, and nothing that is made of them.
            let but_records = |outputs: &[BTreeMap<String, Vec<u8>>]| -> Vec<BTreeMap<String, Vec<u8>>> {
                let mut outputs = outputs.to_vec();
                outputs
                    .iter_mut()
                    .for_each(|mailbox| mailbox.retain(|name, _| !name.starts_with("records/")));
                outputs
            };
            assert_eq!(
                but_records(&slow_path),
                but_records(&expected),
                "seed {seed} {share:?}: slow path"
            );
            for ranges in &splits {
                let is_slow = rng.random_ratio(1, 4);
                let setup = if rng.random_ratio(1, 4) {
                    streams
                } else {
                    Setup::of(share)
                };
                let (content, expected) = if is_slow {
                    (&damaged, &slow_path)
                } else {
                    (&begin, &expected)
                };
                world.reset(content);
                truth.restart(content);
                parted(&world, &setup, ranges, &mut rng).await;
                assert_eq!(
                    &outputs(&world),
                    expected,
                    "seed {seed} {share:?}, {ranges:?}, slow {is_slow}"
                );
                if has_truth && !is_slow {
                    truth.check(&world).unwrap();
                }
                slow += u32::from(is_slow);
                let names = ledger(&world, share).snapshot();
                with_partials += u32::from(names.keys().any(|name| name.starts_with("partials/")));
            }
        }
    }
    assert!(
        summed > 15 && half > 3 && slow > 100 && with_partials > 300,
        "{summed} {half} {slow} {with_partials}"
    );
}

/// Shards and partial sums that aren't what their writer wrote are as if they weren't there.
#[tokio::test]
async fn parts_that_are_damaged_or_lie_are_done_again() {
    type Change = fn(&mut Partial);
    let changes: [(&str, Change); 9] = [
        ("a damaged seal", |partial| partial.sealed.0[0] ^= 1),
        ("no seal", |partial| partial.sealed.0.clear()),
        ("more clients", |partial| {
            partial.plain.clients += 100;
            partial.plain.members[0] += 100;
        }),
        ("fewer clients", |partial| {
            partial.plain.clients = 0;
            partial.plain.members[0] = 0;
        }),
        ("another invalid list", |partial| {
            partial.plain.invalid.0.extend([7; 16])
        }),
        ("another set", |partial| partial.plain.counted.0[0] ^= 1),
        ("a member less", |partial| partial.plain.counted.0.truncate(0)),
        ("another plan", |partial| partial.plain.plan_digest = "00".repeat(32)),
        ("another range", |partial| {
            partial.plain.range = ranges(&[3])[0].to_string()
        }),
    ];
    let mut rng = StdRng::seed_from_u64(3);
    let world = World::new();
    let ids = [
        world.batch(1, 3, &[(1, FaultKind::InvalidProof)]),
        world.batch_of_two_keys(2, 2, &[]),
    ];
    for share in SHARES {
        let intakes: Vec<_> = ids.iter().cloned().map(Task::IntakeAnyway).collect();
        world.run(&Setup::of(share), &intakes).await.unwrap();
    }
    let begin = world.content();
    let setup = Setup::of(Share::First);
    let expected = whole(&world, &setup).await;
    world.reset(&begin);
    let mut tasks = in_parts(&[2]);
    let end = tasks.pop().unwrap();
    world.run(&setup, &tasks).await.unwrap();
    let in_parts = world.content();
    let all = ledger(&world, Share::First).snapshot();
    let partials: Vec<ObjectKey> = all
        .keys()
        .filter(|name| parse_partial_name(name).is_some())
        .map(|name| name.parse().unwrap())
        .collect();
    assert_eq!(partials.len(), 2);
    for (name, damage) in changes {
        world.reset(&in_parts);
        let key = partials.choose(&mut rng).unwrap();
        change(ledger(&world, Share::First), key, |bytes| {
            let mut partial = Partial::from_bytes(key, bytes).unwrap();
            damage(&mut partial);
            partial.to_bytes().unwrap()
        });
        // The floor is what there is, then above that and below what one of them claims.
        for min_clients in [6, 50] {
            let setup = Setup { min_clients, ..setup };
            let outcome = world.run(&setup, std::slice::from_ref(&end)).await.unwrap().remove(0);
            let Outcome::Aggregate(AggregateOutcome::Done { result, .. }) = outcome else {
                panic!("{name}: {outcome:?}")
            };
            if min_clients == 50 {
                assert_eq!((result.verdict, result.clients), (Verdict::BelowFloor, 6), "{name}");
                continue;
            }
            assert_eq!(outputs(&world), expected, "{name}");
            world.places[place(Share::First, Place::Ledger)].remove(&window().ledger_key("results"));
            world.places[place(Share::First, Place::Ledger)].remove(&window().ledger_key("released"));
            world.places[place(Share::First, Place::Ledger)].remove(&window().ledger_key("decisions"));
            for object in world.places[place(Share::First, Place::Portal)].snapshot().keys() {
                world.places[place(Share::First, Place::Portal)].remove(&object.parse().unwrap());
            }
        }
    }
    for (key, bytes) in [("garbage", &b"{"[..]), ("another's", &b"{\"revision\":1}\n"[..])] {
        world.reset(&begin);
        world.run(&setup, &tasks[..1]).await.unwrap();
        let shard = ledger(&world, Share::First).snapshot();
        let shard = shard.keys().find(|name| name.starts_with("shards/")).unwrap();
        ledger(&world, Share::First).replace(&shard.parse().unwrap(), bytes.to_vec());
        world.run(&setup, &tasks[1..]).await.unwrap();
        world.run(&setup, std::slice::from_ref(&end)).await.unwrap();
        assert_eq!(outputs(&world), expected, "{key}");
    }
}

/// Whoever puts the parts together needs the key that they are sealed under, as it would need it for the records.
#[tokio::test]
async fn a_part_sealed_under_a_key_that_is_not_mounted_waits_for_it() {
    let world = World::new();
    let ids = [world.batch_of_two_keys(1, 2, &[]), world.batch(2, 2, &[])];
    for share in SHARES {
        let intakes: Vec<_> = ids.iter().cloned().map(Task::Intake).collect();
        world.run(&Setup::of(share), &intakes).await.unwrap();
    }
    let setup = Setup::of(Share::First);
    let begin: Content = world.content();
    let expected = whole(&world, &setup).await;
    world.reset(&begin);
    let mut tasks = in_parts(&[2]);
    let end = tasks.pop().unwrap();
    world.run(&setup, &tasks).await.unwrap();
    let sealed: BTreeSet<_> = ledger(&world, Share::First)
        .snapshot()
        .iter()
        .filter(|(name, _)| name.starts_with("partials/"))
        .map(|(name, bytes)| {
            Partial::from_bytes(&name.parse().unwrap(), bytes)
                .unwrap()
                .plain
                .packet_keys
                .len()
        })
        .collect();
    assert_eq!(sealed, BTreeSet::from([1, 2]), "each under all keys of its members");
    // Without keys nothing is said for good, and with them it goes on.
    let mut bare = world.processor(&setup, &Gate::open());
    let both = world
        .processor(
            &Setup {
                mounts: Mounts::Both,
                ..setup
            },
            &Gate::open(),
        )
        .packet_keys;
    bare.packet_keys = [].into();
    let outcome = run(&bare, std::slice::from_ref(&end)).await.unwrap().remove(0);
    assert!(
        matches!(&outcome, Outcome::Aggregate(AggregateOutcome::Blocked { message, .. }) if message.contains("partials/")),
        "{outcome:?}"
    );
    bare.packet_keys = both;
    run(&bare, &[end]).await.unwrap();
    assert_eq!(outputs(&world), expected);
}
