//! Partners' batches, where one is there already: are they signed by keys that we know, and are they what we compute with?

use std::collections::BTreeSet;

use jiff::SignedDuration;
use mailbox::{ListPage, ListRequest, Mailbox};

use super::mailboxes::{Listed, NAMES};
use super::{Fault, Preflight, failed, not_checkable, passed, within};
use crate::crypto::{SignatureError, TrustedKeys};
use crate::formats::BatchError;
use crate::formats::batch::{MAX_HEADER_BYTES, read_header, read_signature};
use crate::formats::ingestion::IngestionHeader;
use crate::formats::names::{AggregationId, BatchId, BatchTime, IngestionPart, ValidationPart, parse_validation_name};
use crate::formats::preflight::{Check, Line, Outcome, Place};
use crate::formats::work::Share;
use crate::intake::complete_batches;
use crate::peer_messages::{Found, PeerBatch, read_head};

/// The longest single-object validation that is read here, in packets.
const MAX_PACKETS: u64 = 1 << 18;
/// Aggregations in which a recent batch is looked for, and how many top-level names are asked for to find them.
const AGGREGATIONS: usize = 8;
const FOLDERS: usize = 50;
/// What came before so many periods is of windows that are over: its keys may be gone.
const RECENT_PERIODS: i64 = 2;

/// A batch to look at.
struct Sample {
    batch: BatchId,
    /// It is of a window that may still be open.
    recent: bool,
}

impl Preflight<'_> {
    /// The ingestion mailbox, and one of its batches.
    pub(super) async fn ingestion(&self, keys: &TrustedKeys, told: &mut Vec<Line>) {
        let (place, mailbox) = (Place::Ingestion, &self.mailboxes.ingestion);
        let listed = self.listed(place, mailbox, told).await;
        let (Ok(mailbox), Some(listed)) = (mailbox, listed) else {
            return;
        };
        told.push(self.reading(place, &**mailbox, &listed, None).await);
        let batches = |page: &ListPage| complete_batches(page.objects.iter().map(|meta| &meta.key));
        match self.sample(&**mailbox, &listed, batches).await {
            Some(sample) => {
                let lines = self.ingested(&**mailbox, &sample.batch, keys).await;
                told.extend(lines.into_iter().map(|line| sample.judge(line)));
            }
            None => told.extend(none_yet(place, "batch", &listed)),
        }
    }

    async fn ingested(&self, mailbox: &dyn Mailbox, batch: &BatchId, keys: &TrustedKeys) -> Vec<Line> {
        let place = Place::Ingestion;
        let part = async |part| within(mailbox.read(&batch.ingestion_key(part), MAX_HEADER_BYTES)).await;
        let read = match (part(IngestionPart::Signature).await, part(IngestionPart::Header).await) {
            (Ok(signature), Ok(header)) => read_signature(&signature).and_then(|signature| {
                let header = read_header::<IngestionHeader>(&signature, &header, keys)?;
                Ok((header, signature.key_identifier))
            }),
            // The line on reading has told it.
            (Err(fault), _) | (_, Err(fault)) => return vec![unread(place, batch, &fault)],
        };
        match read {
            Ok((header, key)) => {
                let signed = passed(Check::Signature, format_args!("{} is signed by {key:?}", batch.path()));
                let formats = match header.parameters.check() {
                    Ok(bins) => passed(Check::Formats, format_args!("{}: {bins} bins", batch.path())),
                    Err(error) => failed(
                        Check::Formats,
                        format_args!("{}: {error}", batch.path()),
                        "ask the ingestor: such batches are refused",
                    ),
                };
                vec![signed.of(place), formats.of(place)]
            }
            Err(BatchError::Signature { source }) => vec![unsigned(place, "the ingestor", batch, &source)],
            Err(error) => vec![malformed(place, "the ingestor", batch, &error.to_string())],
        }
    }

    /// The mailbox of the peer's validations, and one of them.
    pub(super) async fn peer_validation(&self, keys: &TrustedKeys, told: &mut Vec<Line>) {
        let (place, mailbox) = (Place::PeerValidation, &self.mailboxes.peer_validation);
        let listed = self.listed(place, mailbox, told).await;
        let (Ok(mailbox), Some(listed)) = (mailbox, listed) else {
            return;
        };
        told.push(self.reading(place, &**mailbox, &listed, None).await);
        let share = self.parameters.share.peer();
        match self.sample(&**mailbox, &listed, |page| validations(page, share)).await {
            Some(sample) => {
                let lines = self.validated(&**mailbox, &sample.batch, share, keys, &listed).await;
                told.extend(lines.into_iter().map(|line| sample.judge(line)));
            }
            None => told.extend(none_yet(place, "validation", &listed)),
        }
    }

    async fn validated(
        &self,
        mailbox: &dyn Mailbox,
        batch: &BatchId,
        share: Share,
        keys: &TrustedKeys,
        listed: &Listed,
    ) -> Vec<Line> {
        let place = Place::PeerValidation;
        match within(read_head(mailbox, batch, share, MAX_PACKETS, keys)).await {
            Err(fault) => vec![unread(place, batch, &fault)],
            Ok(Found::There(head)) => {
                let signed = format!("{} is signed by a key that is known", batch.path());
                let formats = match head.header.parameters.check() {
                    Ok(bins) => passed(Check::Formats, format_args!("{}: {bins} bins", batch.path())).of(place),
                    Err(error) => malformed(place, "the peer", batch, &error.to_string()),
                };
                vec![passed(Check::Signature, signed).of(place), formats]
            }
            Ok(Found::Not(PeerBatch::SignerUnknown { detail } | PeerBatch::Bad { detail })) => {
                let detail = format!("{}: {detail}", batch.path());
                let remedy = "compare the peer's keys with its manifest, and its validation with its own preflight";
                vec![failed(Check::Signature, detail, remedy).of(place)]
            }
            Ok(Found::Not(PeerBatch::Absent)) => none_yet(place, "validation", listed),
        }
    }

    /// A batch to look at: of the latest times where one is found, for names begin with the oldest.
    async fn sample(
        &self,
        mailbox: &dyn Mailbox,
        listed: &Listed,
        batches: impl Fn(&ListPage) -> BTreeSet<BatchId>,
    ) -> Option<Sample> {
        let page = listed.page.as_ref()?;
        let recent = SignedDuration::from_secs(RECENT_PERIODS * i64::from(self.parameters.windows.period_seconds));
        let since = (self.clock)().checked_sub(recent).ok()?;
        let from = BatchTime::from_timestamp(since)?.to_path();
        let folders = ListRequest {
            folders: true,
            limit: Some(FOLDERS),
            ..ListRequest::default()
        };
        // What can't be asked now was told already, by the line on listing.
        let folders = within(mailbox.list(&folders)).await.unwrap_or_default().folders;
        let of_aggregations = folders
            .iter()
            .filter(|folder| AggregationId::parse(folder.trim_end_matches('/')).is_ok());
        for folder in of_aggregations.take(AGGREGATIONS) {
            let request = ListRequest {
                prefix: folder.clone(),
                start_after: Some(format!("{folder}{from}")),
                limit: Some(NAMES),
                ..ListRequest::default()
            };
            let found = within(mailbox.list(&request)).await.unwrap_or_default();
            if let Some(batch) = batches(&found).pop_last() {
                return Some(Sample { batch, recent: true });
            }
        }
        let batch = batches(page).pop_last()?;
        let recent = batch.time.timestamp() >= since;
        Some(Sample { batch, recent })
    }
}

impl Sample {
    /// Work never comes back to windows that are over: what is wrong with their batches keeps nothing from being done.
    fn judge(&self, line: Line) -> Line {
        if self.recent || line.outcome != Outcome::Failed {
            return line;
        }
        let detail = format!(
            "there are only old batches, and their keys may be gone: {}",
            line.detail
        );
        let place = line.mailbox;
        Line {
            mailbox: place,
            ..not_checkable(line.check, detail)
        }
    }
}

/// The batches whose validation by `share` is signed, by name.
fn validations(page: &ListPage, share: Share) -> BTreeSet<BatchId> {
    let names = page
        .objects
        .iter()
        .filter_map(|meta| parse_validation_name(meta.key.as_str()));
    names
        .filter(|(_, of, part)| *of == share && *part == ValidationPart::Signature)
        .map(|(batch, _, _)| batch)
        .collect()
}

/// Nothing where names can't be listed: that is told.
fn none_yet(place: Place, what: &str, listed: &Listed) -> Vec<Line> {
    let detail =
        format!("no {what} is among the names that were looked at: its signer and its format show with the first one");
    let line = not_checkable(Check::Signature, detail).of(place);
    listed.page.iter().map(|_| line.clone()).collect()
}

fn unread(place: Place, batch: &BatchId, fault: &Fault) -> Line {
    let detail = match fault {
        Fault::Silent => "no answer in time".to_owned(),
        Fault::Mailbox(error) => error.to_string(),
    };
    not_checkable(
        Check::Signature,
        format_args!("{} couldn't be read: {detail}", batch.path()),
    )
    .of(place)
}

fn unsigned(place: Place, whose: &str, batch: &BatchId, error: &SignatureError) -> Line {
    let remedy = format!("compare the keys of {whose} with its manifest: its batches stay blocked until one fits");
    failed(Check::Signature, format_args!("{}: {error}", batch.path()), remedy).of(place)
}

fn malformed(place: Place, whose: &str, batch: &BatchId, error: &str) -> Line {
    let remedy = format!("ask {whose} what wrote it");
    failed(Check::Formats, format_args!("{}: {error}", batch.path()), remedy).of(place)
}
