//! Windows summed in parts: what a partial sum must be, and workers that do parts at once.

use facilitator_core::crypto::{open_partial, sha256};
use facilitator_core::formats::batch::hex;
use facilitator_core::formats::names::{BatchId, parse_partial_name};
use facilitator_core::formats::partial::Partial;
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::work::Share;
use facilitator_core::sample::FaultKind;

use crate::cases::answered;
use crate::check::{members, parse};
use crate::orders::Case;
use crate::truth::Truth;
use crate::work::{Task, in_parts, ranges, window};
use crate::world::{Content, Place, SHARES, Setup, World, place};

impl Truth {
    /// A partial sum is the sum of exactly the clients that it should count, of its plan's members within its range.
    pub fn check_partial(&mut self, share: Share, name: &str, bytes: &[u8], now: &Content) -> Result<(), String> {
        let wrong = |detail: &str| format!("{name}: {detail}");
        let (window, range) = parse_partial_name(name).ok_or_else(|| wrong("a strange name"))?;
        let plan_bytes = now[place(share, Place::Ledger)]
            .get(window.ledger_key("plans").as_str())
            .ok_or_else(|| wrong("before its plan"))?;
        let seen = sha256(&[plan_bytes, name.as_bytes(), bytes].concat());
        if self.good.contains(&seen) {
            return Ok(());
        }
        let Partial { plain, sealed, .. } = parse(name, bytes)?;
        let plan_digest = sha256(plan_bytes);
        if plain.plan_digest != hex(&plan_digest) || plain.range != range.to_string() {
            return Err(wrong("of another plan or range"));
        }
        let plan = parse::<Plan>("plans", plan_bytes)?;
        let held = |id: &BatchId| range.contains(id.time, id.uuid);
        let members = members(name, &plan)?.into_iter().map(|(id, _)| id);
        let members: Vec<BatchId> = members.filter(held).collect();
        let expected = self.expected(share, &members, plan.shape.bins as usize, now)?;
        if !plain.invalid_uuids().eq(expected.invalid) {
            return Err(wrong("names other packets than those that it shouldn't count"));
        }
        let said = [
            (plain.packets, expected.packets),
            (plain.clients, expected.clients),
            (plain.invalid_proofs, expected.invalid_proofs),
            (plain.missing_peer_messages, expected.missing_peer_messages),
            (plain.excluded_packets, expected.excluded),
        ];
        let is_counted = said.iter().all(|(said, expected)| said == expected);
        if !is_counted || plain.members != expected.members || plain.counted.0 != expected.counted {
            return Err(wrong("isn't of as many as it should be"));
        }
        let mounted = &self.keys[usize::from(share.index())];
        let of = |point: &[u8]| {
            mounted
                .iter()
                .map(|key| &key.key)
                .find(|key| key.public_point()[..] == *point)
        };
        let keys: Option<Vec<_>> = plain.packet_keys.iter().map(|point| of(&point.0)).collect();
        let digest = plain.digest().map_err(|error| error.to_string())?;
        let opened =
            keys.and_then(|keys| open_partial(&keys, &plan_digest, share, &plain.range, &digest, &sealed.0).ok());
        match opened {
            None if members.is_empty() => {}
            Some(opened) if *opened == expected.sum => {}
            _ => return Err(wrong("isn't the sealed sum of the clients that it should count")),
        }
        self.good.insert(seen);
        Ok(())
    }
}

/// Two batches, both parties done with intake.
async fn two_batches() -> World {
    let world = World::new();
    let batches = [
        world.batch(1, 2, &[(1, FaultKind::InvalidProof)]),
        world.batch(2, 1, &[]),
    ];
    answered(&world, &SHARES, &batches).await;
    world
}

/// Two workers that look at one half of a window each: whoever ends last plans it.
pub async fn two_shards() -> Case {
    let world = two_batches().await;
    let worker = |range| (Setup::of(Share::First), vec![Task::PlanShard(window(), range)]);
    let workers = ranges(&[2]).into_iter().map(worker).collect();
    Case::new(world, workers, true)
}

/// Two workers that sum one half each, and one that puts the halves together and won't wait.
pub async fn partial_sums_and_window() -> Case {
    let world = two_batches().await;
    let of = Setup::of(Share::First);
    let shards = ranges(&[2]).into_iter().map(|range| Task::PlanShard(window(), range));
    world.run(&of, &shards.collect::<Vec<_>>()).await.unwrap();
    let mut workers: Vec<_> = ranges(&[2])
        .into_iter()
        .map(|range| (of, vec![Task::PartialSum(window(), range)]))
        .collect();
    workers.push((of, vec![Task::Aggregate(window())]));
    Case::new(world, workers, false)
}

/// Workers that part a window in two ways and one that doesn't, of both parties.
pub async fn parted_in_two_ways() -> Case {
    let world = World::new();
    let faults = [
        (1, FaultKind::InvalidProof),
        (2, FaultKind::UndecryptableFor(Share::Second)),
    ];
    let batches = [
        world.batch(1, 3, &faults),
        world.batch(2, 1, &[]),
        world.batch(3, 2, &[(0, FaultKind::InvalidProof)]),
    ];
    answered(&world, &SHARES, &batches).await;
    let mut workers = Vec::new();
    for share in SHARES {
        for tasks in [in_parts(&[2]), in_parts(&[3]), vec![Task::Aggregate(window())]] {
            workers.push((Setup::of(share), tasks));
        }
    }
    Case::new(world, workers, false)
}
