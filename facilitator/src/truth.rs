//! The truth about sample batches: what their sum parts must add up to. The same JSON as the fixtures' `truth.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::exit::{ExitClass, Failure};
use crate::places;

/// One window's truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowTruth {
    /// The aggregation id.
    pub aggregation: String,
    /// Bins of the histogram.
    pub bins: u32,
    /// The noise level that the ingestor states.
    pub epsilon: f64,
    /// `YYYYMMDDHHmm`, inclusive.
    pub start: String,
    /// `YYYYMMDDHHmm`, exclusive.
    pub end: String,
    /// The window's batches, by time.
    pub batches: Vec<BatchTruth>,
    /// Packets that count.
    pub clients: u64,
    /// Clients in each bin.
    pub totals: Vec<u64>,
}

/// One batch's part of the truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchTruth {
    /// The batch's UUID.
    pub id: Uuid,
    /// Its path's time, `YYYY/MM/DD/HH/mm`.
    pub time: String,
    /// Packets in it.
    pub packets: u64,
}

/// Reads a truth file.
///
/// # Errors
/// It isn't there or isn't a truth file.
pub fn read(file: &Path) -> Result<Vec<WindowTruth>, Failure> {
    let text = places::read_text(file)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(
            ExitClass::Data,
            format_args!("{} is no truth file: {error}", file.display()),
            "give the file that `facilitator sample` wrote",
        )
    })
}

/// Adds a batch to the truth: to its window, or as a new one. `false` where the batch is in it already.
pub fn add(truth: &mut Vec<WindowTruth>, window: WindowTruth) -> bool {
    let known = |other: &WindowTruth| {
        (&other.aggregation, &other.start, &other.end) == (&window.aggregation, &window.start, &window.end)
    };
    let Some(place) = truth.iter_mut().find(|other| known(other)) else {
        truth.push(window);
        truth.sort_by(|a, b| (&a.aggregation, &a.start).cmp(&(&b.aggregation, &b.start)));
        return true;
    };
    if window
        .batches
        .iter()
        .any(|batch| place.batches.iter().any(|other| other.id == batch.id))
    {
        return false;
    }
    place.batches.extend(window.batches);
    place.batches.sort_by(|a, b| (&a.time, a.id).cmp(&(&b.time, b.id)));
    place.clients += window.clients;
    for (total, more) in place.totals.iter_mut().zip(window.totals) {
        *total += more;
    }
    true
}

/// Writes a truth file.
///
/// # Errors
/// What the file system says.
pub fn write(file: &Path, truth: &[WindowTruth]) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(truth)
        .map_err(|error| Failure::new(ExitClass::Internal, error, "report this fault"))?;
    places::replace_text(file, &(text + "\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn window(start: &str, id: u128, totals: &[u64]) -> WindowTruth {
        WindowTruth {
            aggregation: "a".into(),
            bins: 2,
            epsilon: 0.5,
            start: start.into(),
            end: "202611200300".into(),
            batches: vec![BatchTruth {
                id: Uuid::from_u128(id),
                time: "2026/11/20/00/00".into(),
                packets: 3,
            }],
            clients: 3,
            totals: totals.to_vec(),
        }
    }

    #[test]
    fn batches_add_up_in_their_window_and_count_once() {
        let mut truth = Vec::new();
        assert!(add(&mut truth, window("202611200300", 1, &[1, 2])));
        assert!(add(&mut truth, window("202611200000", 2, &[3, 0])));
        assert!(add(&mut truth, window("202611200000", 3, &[1, 1])));
        assert!(!add(&mut truth, window("202611200000", 3, &[1, 1])));
        assert_eq!(truth.len(), 2);
        assert_eq!(
            (truth[0].clients, truth[0].totals.as_slice(), truth[0].batches.len()),
            (6, &[4, 1][..], 2)
        );
    }
}
