//! Which ledger it is, and which keys its windows need: told before anything is put that depends on it.

use facilitator_core::formats::ledger::{LEDGER_OBJECT, LedgerIdentity, PLANS, RECORDS};
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::work::Share;

use crate::cases::answered_as;
use crate::check::{Objects, in_folder, parse, record};
use crate::orders::Case;
use crate::truth::{Truth, Violation, batch_in};
use crate::work::{Outcome, Task, window};
use crate::world::{Content, Place, SHARES, Setup, Signer, World, place};

/// Whoever was told of a ledger's id was told of the one that is there.
pub fn check_identity(share: Share, now: &Content, outcomes: &[Outcome]) -> Result<(), Violation> {
    for outcome in outcomes {
        let Outcome::Ledger(told) = outcome else { continue };
        let there = now[place(share, Place::Ledger)].get(LEDGER_OBJECT);
        let there = there
            .map(|bytes| parse::<LedgerIdentity>(LEDGER_OBJECT, bytes))
            .transpose()?;
        if there.as_ref().map(|there| there.id) != Some(*told) {
            let detail = format!("a worker was told that the ledger is {told}, and it is {there:?}");
            return Err(Violation::of_truth(detail));
        }
    }
    Ok(())
}

impl Truth {
    /// A key that a record or a plan needs is marked in its window.
    pub fn check_marks(&self, share: Share, ledger: &Objects) -> Result<(), String> {
        let marked = |id: &str, window: &str, name: &str| match ledger.contains_key(&format!("uses/{id}/{window}")) {
            true => Ok(()),
            false => Err(format!("{name} needs the key {id:?}, which isn't marked in {window}")),
        };
        for (name, _) in in_folder(ledger, RECORDS) {
            let record = record(ledger, &batch_in(name, RECORDS)?)?.ok_or_else(|| format!("{name} is gone"))?;
            let window = window().path();
            marked(&record.plain.head.signer, &window, name)?;
            for point in &record.plain.packet_keys {
                let mut mounted = self.keys[usize::from(share.index())].iter();
                let key = mounted.find(|key| key.key.public_point() == point);
                marked(&key.ok_or("a strange key")?.id, &window, name)?;
            }
        }
        for (name, bytes) in in_folder(ledger, PLANS) {
            let plan = parse::<Plan>(name, bytes)?;
            marked(&plan.signer, &name[PLANS.len() + 1..], name)?;
        }
        Ok(())
    }
}

const SIGNERS: [Signer; 2] = [Signer::Own, Signer::New];

fn marking(share: Share) -> Setup {
    Setup {
        marks: true,
        ..Setup::of(share)
    }
}

/// Two workers with keys of rings, a new signing key half-way, that each do the same.
fn case(world: World, task: Task) -> Case {
    let worker = |signer| {
        let setup = Setup {
            signer,
            ..marking(Share::First)
        };
        (setup, vec![task.clone()])
    };
    Case::new(world, SIGNERS.map(worker).into(), false)
}

/// Two workers that mark the keys of the same batch.
pub async fn marked_intakes() -> Case {
    let world = World::new();
    let batch = world.batch(1, 1, &[]);
    case(world, Task::Intake(batch))
}

/// Two workers that mark the keys of the same window.
pub async fn marked_windows() -> Case {
    let world = World::new();
    let batch = world.batch(1, 1, &[]);
    for share in SHARES {
        answered_as(&world, &marking(share), std::slice::from_ref(&batch)).await;
    }
    case(world, Task::Aggregate(window()))
}

/// Two workers that each would name a new ledger.
pub async fn new_ledger() -> Case {
    let worker = |id| (Setup::of(Share::First), vec![Task::Establish(id)]);
    Case::new(World::new(), [1, 2].map(worker).into(), false)
}
