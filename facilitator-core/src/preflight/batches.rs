//! Partners' batches, where one is there already: are they signed by keys that we know, and are they what we compute with?

use std::collections::BTreeSet;

use mailbox::{ListPage, Mailbox};

use super::mailboxes::Looked;
use super::{Fault, Preflight, failed, not_checkable, passed, within};
use crate::crypto::{SignatureError, TrustedKeys};
use crate::formats::BatchError;
use crate::formats::batch::{MAX_HEADER_BYTES, read_header, read_signature};
use crate::formats::ingestion::IngestionHeader;
use crate::formats::names::{BatchId, IngestionPart, ValidationPart, parse_validation_name};
use crate::formats::preflight::{Check, Line, Place};
use crate::formats::work::Share;
use crate::intake::complete_batches;
use crate::peer_messages::{Found, PeerBatch, max_object_bytes, read_head};

/// The longest single-object validation that is read here, in packets.
const MAX_PACKETS: u64 = 1 << 16;

impl Preflight<'_> {
    /// The ingestion mailbox, and one of its batches.
    pub(super) async fn ingestion(&self, keys: &TrustedKeys) -> Vec<Line> {
        let place = Place::Ingestion;
        let mailbox = &self.mailboxes.ingestion;
        let Looked { mut lines, page, .. } = self.looked(place, mailbox).await;
        if let (Ok(mailbox), Some(page)) = (mailbox, page) {
            let batch = complete_batches(page.objects.iter().map(|meta| &meta.key))
                .into_iter()
                .last();
            lines.extend(match batch {
                Some(batch) => self.ingested(&**mailbox, &batch, keys).await,
                None => none_yet(place, "batch"),
            });
        }
        lines
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
    pub(super) async fn peer_validation(&self, keys: &TrustedKeys) -> Vec<Line> {
        let place = Place::PeerValidation;
        let mailbox = &self.mailboxes.peer_validation;
        let Looked { mut lines, page, .. } = self.looked(place, mailbox).await;
        let (Ok(mailbox), Some(page)) = (mailbox, page) else {
            return lines;
        };
        let share = self.parameters.share.peer();
        let Some(batch) = validations(&page, share).into_iter().last() else {
            lines.extend(none_yet(place, "validation"));
            return lines;
        };
        let bound = max_object_bytes(MAX_PACKETS);
        match within(read_head(&**mailbox, &batch, share, bound, keys)).await {
            Err(fault) => lines.push(unread(place, &batch, &fault)),
            Ok(Found::There(head)) => {
                let signed = format!("{} is signed by a key that is known", batch.path());
                lines.push(passed(Check::Signature, signed).of(place));
                lines.push(match head.header.parameters.check() {
                    Ok(bins) => passed(Check::Formats, format_args!("{}: {bins} bins", batch.path())).of(place),
                    Err(error) => malformed(place, "the peer", &batch, &error.to_string()),
                });
            }
            Ok(Found::Not(PeerBatch::SignerUnknown { detail } | PeerBatch::Bad { detail })) => {
                let detail = format!("{}: {detail}", batch.path());
                let remedy = "compare the peer's keys with its manifest, and its validation with its own preflight";
                lines.push(failed(Check::Signature, detail, remedy).of(place));
            }
            Ok(Found::Not(PeerBatch::Absent | PeerBatch::Read { .. })) => lines.extend(none_yet(place, "validation")),
        }
        lines
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

fn none_yet(place: Place, what: &str) -> Vec<Line> {
    let detail = format!("no {what} is among the first names there: its signer and its format show with the first one");
    vec![not_checkable(Check::Signature, detail).of(place)]
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
