//! Adds the two sum parts of a window. Pure: reading and printing are elsewhere.

use std::collections::BTreeSet;

use serde::Serialize;
use uuid::Uuid;

use crate::truth::WindowTruth;

/// What of a sum part the addition needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What decides whether two parts are of one sum.
    pub shape: Shape,
    /// The batches summed.
    pub batches: BTreeSet<Uuid>,
    /// Packets of those batches that aren't counted.
    pub invalid: BTreeSet<Uuid>,
    /// Clients counted.
    pub clients: u64,
    /// One share of each bin, below the prime.
    pub sum: Vec<u64>,
    /// Whether the part's signature was checked.
    pub verified: bool,
}

/// What both parts of a window state alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYYMMDDHHmm`, inclusive.
    pub start: String,
    /// `YYYYMMDDHHmm`, exclusive.
    pub end: String,
    /// Bins of the histogram.
    pub bins: u64,
    /// The noise level that the ingestor states.
    pub epsilon: f64,
    /// The field's prime.
    pub prime: u64,
    /// Processors that hold a share.
    pub number_of_servers: u32,
    /// How many bins a client may set, where the ingestor says it.
    pub hamming_weight: Option<i64>,
}

/// Two sum parts together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reassembled {
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYYMMDDHHmm`, inclusive.
    pub start: String,
    /// `YYYYMMDDHHmm`, exclusive.
    pub end: String,
    /// Which release of the window; 1 unless an override released it again.
    pub release: u8,
    /// Bins of the histogram.
    pub bins: u64,
    /// The noise level that the ingestor states.
    pub epsilon: f64,
    /// Clients counted.
    pub clients: u64,
    /// Batches summed.
    pub batches: u64,
    /// Packets that both parties left out.
    pub invalid_packets: u64,
    /// Whether both parts' signatures were checked.
    pub verified: bool,
    /// Clients in each bin.
    pub totals: Vec<u64>,
    /// What the totals must be, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<Vec<u64>>,
    /// Whether clients and totals are the truth, where it is known.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<bool>,
}

/// Adds two parts, first's and second's.
///
/// # Errors
/// One sentence: what differs, or why the totals can't be.
pub fn reassemble(first: &Part, second: &Part) -> Result<Reassembled, String> {
    let (one, other) = (&first.shape, &second.shape);
    differs("aggregation", &one.aggregation, &other.aggregation)?;
    differs("start", &one.start, &other.start)?;
    differs("end", &one.end, &other.end)?;
    differs("number of bins", &one.bins, &other.bins)?;
    differs("epsilon", &one.epsilon, &other.epsilon)?;
    differs("prime", &one.prime, &other.prime)?;
    differs("number of servers", &one.number_of_servers, &other.number_of_servers)?;
    differs("Hamming weight", &one.hamming_weight, &other.hamming_weight)?;
    if first.batches != second.batches {
        return Err(format!(
            "the parts are of different batches: {}",
            difference(&first.batches, &second.batches)
        ));
    }
    if first.invalid != second.invalid {
        let difference = difference(&first.invalid, &second.invalid);
        return Err(format!("the parts leave out different packets: {difference}"));
    }
    differs("number of clients", &first.clients, &second.clients)?;
    for part in [first, second] {
        if part.sum.len() as u64 != one.bins {
            return Err(format!("a part has {} sums for {} bins", part.sum.len(), one.bins));
        }
    }
    if one.prime == 0 || first.sum.iter().chain(&second.sum).any(|share| *share >= one.prime) {
        return Err(format!("a share isn't below the prime {}", one.prime));
    }
    let totals: Vec<u64> = first
        .sum
        .iter()
        .zip(&second.sum)
        .map(|(a, b)| (a + b) % one.prime)
        .collect();
    // Each client adds 0 or 1 to a bin, so parts that don't belong together show: their sum is noise.
    if let Some((bin, total)) = totals.iter().enumerate().find(|(_, total)| **total > first.clients) {
        return Err(format!(
            "bin {bin} would hold {total} of {} clients: the parts aren't of one sum",
            first.clients
        ));
    }
    Ok(Reassembled {
        aggregation: one.aggregation.clone(),
        start: one.start.clone(),
        end: one.end.clone(),
        release: 1,
        bins: one.bins,
        epsilon: one.epsilon,
        clients: first.clients,
        batches: first.batches.len() as u64,
        invalid_packets: first.invalid.len() as u64,
        verified: first.verified && second.verified,
        totals,
        truth: None,
        matches: None,
    })
}

impl Reassembled {
    /// Puts the truth beside the totals, if `truth` knows the window.
    pub fn compare(&mut self, truth: &[WindowTruth]) {
        let own = |window: &&WindowTruth| {
            (&window.aggregation, &window.start, &window.end) == (&self.aggregation, &self.start, &self.end)
        };
        if let Some(window) = truth.iter().find(own) {
            self.matches = Some(window.clients == self.clients && window.totals == self.totals);
            self.truth = Some(window.totals.clone());
        }
    }
}

fn differs<T: PartialEq + std::fmt::Debug>(what: &str, first: &T, second: &T) -> Result<(), String> {
    if first == second {
        Ok(())
    } else {
        Err(format!("the parts differ in the {what}: {first:?} and {second:?}"))
    }
}

/// Up to three UUIDs of each side that the other hasn't.
fn difference(first: &BTreeSet<Uuid>, second: &BTreeSet<Uuid>) -> String {
    let only = |a: &BTreeSet<Uuid>, b: &BTreeSet<Uuid>| {
        let only: Vec<String> = a.difference(b).map(Uuid::to_string).collect();
        match only.len() {
            0 => "none".to_owned(),
            count if count > 3 => format!("{} and {} more", only[..3].join(", "), count - 3),
            _ => only.join(", "),
        }
    };
    format!(
        "only First has {}; only Second has {}",
        only(first, second),
        only(second, first)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const P: u64 = 4_293_918_721;

    fn part(sum: &[u64]) -> Part {
        Part {
            shape: Shape {
                aggregation: "kittens-seen".into(),
                start: "202611200000".into(),
                end: "202611200300".into(),
                bins: 3,
                epsilon: 0.23,
                prime: P,
                number_of_servers: 2,
                hamming_weight: None,
            },
            batches: [Uuid::from_u128(1), Uuid::from_u128(2)].into(),
            invalid: BTreeSet::new(),
            clients: 5,
            sum: sum.to_vec(),
            verified: true,
        }
    }

    #[test]
    fn shares_add_up_around_the_prime() {
        let result = reassemble(&part(&[P - 1, 7, 0]), &part(&[6, P - 7, 3])).unwrap();
        assert_eq!(
            (result.totals.as_slice(), result.clients, result.verified),
            (&[5, 0, 3][..], 5, true)
        );
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused_by_what_differs() {
        let second = part(&[6, P - 7, 3]);
        type Change = fn(&mut Part);
        let cases: [(&str, Change); 10] = [
            ("aggregation", |p| p.shape.aggregation = "other".into()),
            ("end", |p| p.shape.end = "202611200600".into()),
            ("bins", |p| p.shape.bins = 4),
            ("epsilon", |p| p.shape.epsilon = 1.0),
            ("Hamming", |p| p.shape.hamming_weight = Some(1)),
            ("only First has 00000000-0000-0000-0000-000000000009", |p| {
                p.batches.insert(Uuid::from_u128(9));
            }),
            ("different packets", |p| {
                p.invalid.insert(Uuid::from_u128(9));
            }),
            ("clients", |p| p.clients = 6),
            ("below the prime", |p| p.sum[0] = P),
            ("bin 0 would hold", |p| p.sum[0] = 12345),
        ];
        for (wanted, change) in cases {
            let mut first = part(&[P - 1, 7, 0]);
            change(&mut first);
            let error = reassemble(&first, &second).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn truth_is_compared_where_it_is_known() {
        let mut result = reassemble(&part(&[1, 0, 0]), &part(&[1, 0, 0])).unwrap();
        result.compare(&[]);
        assert_eq!(result.matches, None);
        let mut truth = WindowTruth {
            aggregation: "kittens-seen".into(),
            bins: 3,
            epsilon: 0.23,
            start: "202611200000".into(),
            end: "202611200300".into(),
            batches: Vec::new(),
            clients: 5,
            totals: vec![2, 0, 0],
        };
        result.compare(std::slice::from_ref(&truth));
        assert_eq!(result.matches, Some(true));
        truth.clients = 4;
        result.compare(&[truth]);
        assert_eq!(result.matches, Some(false));
    }
}
