//! From the two sum parts in the portal's mailboxes to totals, as a portal does it.

use anyhow::{Context, Result, ensure};
use facilitator_core::crypto::{TrustedKeys, sha256};
use facilitator_core::formats::batch;
use facilitator_core::formats::sum_part::SumPart;
use facilitator_core::proof;

use crate::fixtures::Truth;
use crate::party::{INSTANCE, Pair};

/// What two sum parts add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Clients that each part counts.
    pub clients: [u64; 2],
    /// Ids of the keys that signed them.
    pub signers: [String; 2],
    /// One total per bin.
    pub totals: Vec<u64>,
}

impl Sums {
    /// Whether both parties counted the truth's clients and the totals are the truth's.
    pub fn matches(&self, truth: &Truth) -> bool {
        self.clients == [truth.clients; 2] && self.totals == truth.totals
    }
}

/// Reads both parties' sum parts of a window, checks their signatures by the keys of [`Pair::signers`], and adds them.
///
/// # Errors
/// When one isn't there, isn't signed by its party, or the two are of different shape.
pub fn reassemble(pair: &Pair, signers: &[TrustedKeys; 2], truth: &Truth) -> Result<Sums> {
    let parts = [read(pair, 0, &signers[0], truth)?, read(pair, 1, &signers[1], truth)?];
    let [(first, first_signer), (second, second_signer)] = &parts;
    ensure!(
        first.sum.len() == second.sum.len(),
        "{}: the sum parts have different bins",
        truth.name()
    );
    let clients = |part: &SumPart| u64::try_from(part.total_individual_clients).context("a negative number of clients");
    let totals = first.sum.iter().zip(&second.sum).map(|(a, b)| {
        let sum = a.checked_add(*b).context("sums overflow")?;
        u64::try_from(sum.rem_euclid(i64::from(proof::PRIME))).context("a negative total")
    });
    Ok(Sums {
        clients: [clients(first)?, clients(second)?],
        signers: [first_signer.clone(), second_signer.clone()],
        totals: totals.collect::<Result<_>>()?,
    })
}

fn read(pair: &Pair, index: usize, trusted: &TrustedKeys, truth: &Truth) -> Result<(SumPart, String)> {
    let name = format!("{INSTANCE}/{}/{}-{}", truth.aggregation, truth.start, truth.end);
    let portal = pair.mailbox(index, "portal");
    let object = |suffix: String| {
        let path = portal.join(format!("{name}.{suffix}"));
        std::fs::read(&path).with_context(|| format!("{} can't be read", path.display()))
    };
    let header = object(format!("sum_{index}"))?;
    let signature = batch::read_signature(&object(format!("sum_{index}.sig"))?)?;
    trusted
        .verify(&signature.key_identifier, &header, &signature.batch_header_signature)
        .with_context(|| format!("the signature of {name}.sum_{index}"))?;
    let part = SumPart::read(&header)?;
    // An invalid list that is absent counts as empty.
    let invalid = object(format!("invalid_uuid_{index}.avro")).unwrap_or_default();
    ensure!(
        part.packet_file_digest == sha256(&invalid),
        "{name}: the invalid list isn't the one that was signed"
    );
    Ok((part, signature.key_identifier))
}
