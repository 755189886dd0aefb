//! Windows summed in parts: what a partial sum must be, and workers that do parts at once.

use std::collections::HashSet;

use facilitator_core::crypto::{open_partial, sha256};
use facilitator_core::formats::batch::hex;
use facilitator_core::formats::names::{BatchId, parse_partial_name};
use facilitator_core::formats::partial::Partial;
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::work::Share;
use facilitator_core::proof;
use facilitator_core::sample::FaultKind;
use uuid::Uuid;

use crate::check::{Objects, Truth, members, parse};
use crate::interleave::{Case, answered};
use crate::world::{SHARES, Setup, Task, World, in_parts, ranges, window};

impl Truth {
    /// A partial sum is the sum of exactly the packets of its plan's members that it doesn't call invalid.
    pub fn check_partial(&mut self, share: Share, name: &str, bytes: &[u8], ledger: &Objects) -> Result<(), String> {
        let wrong = |detail: &str| format!("{name}: {detail}");
        let (window, range) = parse_partial_name(name).ok_or_else(|| wrong("a strange name"))?;
        let plan_bytes = ledger
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
        let members: Vec<_> = members(name, &plan)?.into_iter().filter(|(id, _)| held(id)).collect();
        let invalid: HashSet<Uuid> = plain.invalid_uuids().collect();
        let mut sum = vec![0; plan.shape.bins as usize];
        let mut clients = 0;
        for (id, _) in &members {
            for (uuid, values) in &self.batches[usize::from(share.index())][&id.path()] {
                if !invalid.contains(uuid) {
                    let values = values
                        .as_ref()
                        .ok_or_else(|| wrong("counts a packet that doesn't open"))?;
                    proof::accumulate(&mut sum, values);
                    clients += 1;
                }
            }
        }
        if plain.clients != clients || plain.members.iter().sum::<u64>() != clients || !plain.is_of(members.len()) {
            return Err(wrong("isn't of as many as it says"));
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
            Some(opened) if *opened == sum => {}
            _ => return Err(wrong("isn't the sealed sum of the packets that it counts")),
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
    Case::new("two plan shards", world, workers, true)
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
    Case::new("partial sums and the window", world, workers, false)
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
    Case::new("parted in two ways", world, workers, false)
}
