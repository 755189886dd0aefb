//! What there is of a day's claims: its runs, and the chunks that are in none of them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use mailbox::{ListRequest, Mailbox};

use super::{ClaimsFault, named};
use crate::formats::claims::{
    ChunkName, ClaimDay, ClaimsObject, PacketKeyName, RUN_PREFIX_BYTES, RunHeader, RunReference, day_of_folder,
    header_length, parse_claims_name,
};

/// As much of a run is read at first: most headers are shorter.
const FIRST_READ_BYTES: u64 = 64 << 10;

/// One day's claims.
#[derive(Debug)]
pub(super) struct Day {
    pub day: ClaimDay,
    /// The newest run's number and header.
    pub newest: Option<(u32, RunHeader)>,
    /// Chunks that are in no run, with their length in bytes; by name.
    pub chunks: Vec<(ChunkName, u64)>,
    /// Chunks that are in a run and still there.
    pub covered: Vec<ChunkName>,
}

impl Day {
    /// The runs to be read.
    pub fn runs(&self) -> &[RunReference] {
        self.newest.as_ref().map_or(&[], |(_, header)| &header.runs)
    }

    /// The chunks that are in runs, where all of them are still there: together they say what the runs say.
    pub fn instead_of_runs(&self) -> Option<&[ChunkName]> {
        let (_, header) = self.newest.as_ref()?;
        (self.covered.len() == header.covered.len()).then_some(&*self.covered)
    }
}

/// The days from `from` on of which there are claims, and the store's clock where it tells. There is no end: what a clock that
/// is ahead has announced is looked at.
pub(super) async fn days(
    ledger: &dyn Mailbox,
    key: PacketKeyName,
    from: ClaimDay,
) -> Result<(BTreeSet<ClaimDay>, Option<Timestamp>), ClaimsFault> {
    let prefix = key.folder();
    let request = ListRequest {
        start_after: Some(format!("{prefix}{from}")),
        folders: true,
        prefix,
        ..ListRequest::default()
    };
    let page = ledger.list_all(&request).await?;
    let names = page
        .folders
        .iter()
        .filter_map(|name| name.strip_prefix(&request.prefix));
    Ok((names.filter_map(day_of_folder).collect(), page.time))
}

/// Lists a day, and reads what its newest run says.
///
/// The listing shows every chunk that was put before it began, and a run is put after the chunks that are in it: what is
/// not in the newest run that is seen is in the listing.
pub(super) async fn read(ledger: &dyn Mailbox, key: PacketKeyName, day: ClaimDay) -> Result<Day, ClaimsFault> {
    let request = ListRequest {
        prefix: format!("{}{day}", key.folder()),
        ..ListRequest::default()
    };
    let (mut chunks, mut covered, mut newest) = (Vec::new(), Vec::new(), None);
    for meta in ledger.list_all(&request).await?.objects {
        match parse_claims_name(meta.key.as_str()) {
            Some((_, ClaimsObject::Chunk(name))) => chunks.push((name, meta.size)),
            Some((_, ClaimsObject::Run { number, .. })) => newest = newest.max(Some(number)),
            None => tracing::warn!(object = meta.key.as_str(), "no name of claims"),
        }
    }
    let newest = match newest {
        Some(number) => {
            let header = header(ledger, key, day, number).await?;
            let (in_runs, waiting): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|(name, _)| header.covers(name));
            covered.extend(in_runs.into_iter().map(|(name, _)| name));
            chunks = waiting;
            Some((number, header))
        }
        None => None,
    };
    Ok(Day {
        day,
        newest,
        chunks,
        covered,
    })
}

async fn header(
    ledger: &dyn Mailbox,
    packet_key: PacketKeyName,
    day: ClaimDay,
    number: u32,
) -> Result<RunHeader, ClaimsFault> {
    let key = ClaimsObject::Run { day, number }.key(packet_key);
    let mut bytes = ledger.read_range(&key, 0, FIRST_READ_BYTES).await?;
    let end = RUN_PREFIX_BYTES + named(&key, header_length(&bytes))?;
    if end > bytes.len() as u64 {
        bytes = ledger.read_range(&key, 0, end).await?;
    }
    let end = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
    let begin = usize::try_from(RUN_PREFIX_BYTES).unwrap_or(0).min(end);
    named(&key, RunHeader::decode(number, &bytes[begin..end]))
}
