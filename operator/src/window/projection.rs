//! Which AggregationWindow objects there should be, and what they say.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crds::AggregationWindow;
use facilitator_core::formats::names::WindowId;
use jiff::Timestamp;
use kube::ResourceExt;

use super::decide::Seen;
use super::status::{self, State};
use super::{WindowDecision, WindowInput, WindowPatch};
use crate::workload::Retries;

/// So many AggregationWindows a processor has at most. Beyond it those that are over go, the oldest first: they stay in
/// the counts, and their results in the ledger.
pub(super) const MAX_OBJECTS: usize = 5_000;

/// Decides on the objects of all windows, and on Events.
pub(super) fn project(
    input: &WindowInput<'_>,
    memory: &Retries<WindowId>,
    objects: &BTreeMap<WindowId, &AggregationWindow>,
    seen: &[Seen<'_>],
    decision: &mut WindowDecision,
    now: Timestamp,
) {
    let oldest = now.checked_sub(input.schedule.history).unwrap_or(Timestamp::MIN);
    let shown = shown(objects, seen, oldest);
    let mut listed = BTreeSet::new();
    for one in seen {
        listed.insert(one.id);
        let object = objects.get(one.id).copied();
        // Stray names make no window.
        if object.is_none() && !one.inventory.exists() {
            continue;
        }
        let state = one.state;
        state.count(&mut decision.counts);
        if !shown.contains(one.id) {
            decision.delete.extend(object.map(ResourceExt::name_any));
            continue;
        }
        if state == State::Unread
            || object.is_some_and(|object| status::is_aggregated(object) && state != State::Summed)
        {
            continue;
        }
        let status = status::status(input, memory, one, state, object, now);
        let before = object.and_then(|object| object.status.as_ref());
        if before == Some(&status) {
            continue;
        }
        let name = status::object_name(&input.processor.name_any(), one.id);
        let is_news = object.map_or_else(
            || {
                one.inventory
                    .finished
                    .is_none_or(|at| now.duration_since(at) < input.timing.batch_retention)
            },
            |object| status::ready_reason(object) != Some(state.reason()),
        );
        if is_news {
            decision.events.extend(status::event(one.id, &name, state, &status));
        }
        decision
            .events
            .extend(status::override_event(one, &name, object, &status));
        match object {
            Some(_) => decision.patch.push(WindowPatch { name, status }),
            None => decision.create.push(status::new(input.processor, name, one.id, status)),
        }
    }
    for (id, object) in objects.iter().filter(|(id, _)| !listed.contains(id)) {
        if id.end.timestamp() >= oldest {
            State::count_object(status::ready_reason(object), &mut decision.counts);
        }
        if !shown.contains(id) {
            decision.delete.push(object.name_any());
        }
    }
}

/// The windows that have objects: those within the history, what is open first, then the newest.
fn shown<'a>(
    objects: &'a BTreeMap<WindowId, &AggregationWindow>,
    seen: &'a [Seen<'_>],
    oldest: Timestamp,
) -> BTreeSet<&'a WindowId> {
    let open: BTreeSet<&WindowId> = seen
        .iter()
        .filter(|one| one.needs_listing())
        .map(|one| one.id)
        .collect();
    let exists = |one: &&Seen<'_>| one.inventory.exists() || objects.contains_key(one.id);
    let all: BTreeSet<&WindowId> = seen
        .iter()
        .filter(exists)
        .map(|one| one.id)
        .chain(objects.keys())
        .collect();
    let mut all: Vec<&WindowId> = all
        .into_iter()
        .filter(|id| id.end.timestamp() >= oldest || open.contains(id))
        .collect();
    if all.len() > MAX_OBJECTS {
        all.sort_by_key(|id| (!open.contains(id), Reverse(id.start)));
        all.truncate(MAX_OBJECTS);
    }
    all.into_iter().collect()
}
