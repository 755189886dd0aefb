//! The enumeration is worth something: each way of building it wrong is caught, for the reason for which it is wrong.

use std::future::Future;
use std::pin::Pin;

use facilitator_core::formats::work::{Share, ValidationFormat};

use crate::scenes::Plot;
use crate::stops::Counts;
use crate::world::{Build, SHARES};
use crate::{cases, overrides, replays};

type Search = Pin<Box<dyn Future<Output = Counts>>>;

const ORDERS: usize = 20_000;
const SEEDS: u64 = 300;

async fn singles(plot: Plot, share: Share, build: Build) -> Counts {
    plot.of_build(share, build).await.singles().await
}

/// What is searched, with which build, and what the violation says.
fn table() -> Vec<(Build, &'static str, Search, &'static str)> {
    use Build as B;
    use ValidationFormat::{SingleObject, ThreeObjects};
    const HALF: &str = "validation batch of";
    const BARE: &str = "has no record behind it";
    const UNMARKED: &str = "which isn't marked in";
    const OTHER: &str = "was overwritten";
    const LIST: &str = "the invalid list is";
    let mut table: Vec<(Build, &'static str, Search, &'static str)> = vec![
        (
            B::PutNotConditional,
            "intakes with other keys",
            Box::pin(async {
                cases::intakes_with_other_keys(B::PutNotConditional)
                    .await
                    .every_order(ORDERS)
                    .await
            }),
            OTHER,
        ),
        (
            B::PutNotConditional,
            "intakes in other formats",
            Box::pin(async {
                cases::intakes_in_other_formats(B::PutNotConditional)
                    .await
                    .every_order(ORDERS)
                    .await
            }),
            OTHER,
        ),
        (
            B::PutNotConditional,
            "intakes with other signers",
            Box::pin(async {
                cases::intakes_with_other_signers(B::PutNotConditional)
                    .await
                    .every_order(ORDERS)
                    .await
            }),
            OTHER,
        ),
        (
            B::PutNotConditional,
            "windows with other signers",
            Box::pin(async {
                cases::windows_with_other_signers(B::PutNotConditional)
                    .await
                    .every_order(ORDERS)
                    .await
            }),
            OTHER,
        ),
        (
            B::PutNotConditional,
            "overlapping windows",
            Box::pin(async {
                cases::windows_and_crashes(B::PutNotConditional)
                    .await
                    .random_orders(SEEDS)
                    .await
            }),
            OTHER,
        ),
        (
            B::DecideBeforeAnnouncing,
            "an override and a window",
            Box::pin(async {
                overrides::override_and_window(B::DecideBeforeAnnouncing)
                    .await
                    .every_order(ORDERS)
                    .await
            }),
            "clients are in",
        ),
        (
            B::LookBeforeClaiming,
            "an original and a replay",
            Box::pin(async {
                replays::original_and_replay(B::LookBeforeClaiming)
                    .await
                    .every_order(ORDERS)
                    .await
            }),
            "is answered in",
        ),
        (
            B::LookBeforeClaiming,
            "a group and a replay",
            Box::pin(async {
                cases::group_and_replay(B::LookBeforeClaiming)
                    .await
                    .every_order(ORDERS)
                    .await
            }),
            "is answered in",
        ),
    ];
    for share in SHARES {
        let plots: [(Build, &'static str, Plot, &'static str); 8] = [
            (B::SignatureFirst, "a worker", Plot::Batches(ThreeObjects), HALF),
            (
                B::SignatureFirst,
                "a streaming worker",
                Plot::Streamed(ThreeObjects),
                HALF,
            ),
            (B::RecordAfterValidation, "a worker", Plot::Batches(ThreeObjects), BARE),
            (
                B::RecordAfterValidation,
                "a worker, one object",
                Plot::Batches(SingleObject),
                BARE,
            ),
            (
                B::RecordAfterValidation,
                "a streaming worker",
                Plot::Streamed(ThreeObjects),
                BARE,
            ),
            (
                B::RecordBeforeMark,
                "a worker with a ring's keys",
                Plot::Marked,
                UNMARKED,
            ),
            (B::CountWithoutProof, "a worker", Plot::Batches(ThreeObjects), LIST),
            (B::DropClient, "a streaming worker", Plot::Streamed(ThreeObjects), LIST),
        ];
        for (build, name, plot, text) in plots {
            table.push((build, name, Box::pin(singles(plot, share, build)), text));
        }
    }
    table
}

#[test]
fn every_wrong_build_is_caught_for_what_is_wrong_with_it() {
    let runtime = crate::runtime();
    for (build, name, search, text) in table() {
        let counts = runtime.block_on(search);
        let found = &counts.violations;
        assert!(!found.is_empty(), "{build:?}, {name}: passes {} tries", counts.tried());
        // A build that can't work at all would be caught by anything.
        let caught = found
            .iter()
            .find(|violation| violation.is_of_truth && violation.detail.contains(text));
        let caught = caught.unwrap_or_else(|| panic!("{build:?}, {name}: nothing says {text:?}: {}", found[0]));
        eprintln!("{build:?}, {name}: {caught}");
    }
}
