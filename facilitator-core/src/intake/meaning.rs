//! Whether what is there under our names says what the record says, in flat memory.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use mailbox::MailboxErrorKind;
use uuid::Uuid;

use super::deliver::{Summary, parameters_of};
use crate::formats::FormatError;
use crate::formats::batch::check_digest;
use crate::formats::names::ValidationPart;
use crate::formats::record::{Message, PacketState, RecordReader};
use crate::formats::validation::ValidationPacket;
use crate::guards::duplicates::{Names, RepeatedNames};
use crate::own_record::StoredRecord;
use crate::peer_messages::{Found, PeerHead, PeerPackets, max_object_bytes, read_head};
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::proof::reduce;
use crate::put::Meaning;
use crate::stream::{ChunkReader, Source, transform};

/// A sum over messages that tells sets of them apart, whatever their order: of hashes under keys that nobody else knows.
/// Two sets have the same sum by chance, with probability 2^-128.
#[derive(Clone)]
struct MessageSum {
    keys: [RandomState; 2],
    sums: [u64; 2],
}

impl MessageSum {
    fn new() -> Self {
        Self {
            keys: [RandomState::new(), RandomState::new()],
            sums: [0; 2],
        }
    }

    fn add(&mut self, uuid: Uuid, message: Message) {
        let message = (uuid.as_u128(), [message.f, message.g, message.h].map(reduce));
        for (key, sum) in self.keys.iter().zip(&mut self.sums) {
            *sum = sum.wrapping_add(key.hash_one(message));
        }
    }
}

/// Whether what is there under our names is signed by us and says what the record says.
///
/// # Errors
/// Those of the mailboxes and of the record.
pub(super) async fn meaning(
    processor: &Processor,
    record: &StoredRecord,
    summary: &Summary,
) -> Result<Meaning, WorkError> {
    let peer = &*processor.mailboxes.peer;
    let head = &summary.head;
    let there = match read_head(peer, &head.batch, head.share, summary.packets, &processor.own_keys()).await {
        Ok(Found::There(there)) => there,
        Ok(Found::Not(_)) => return Ok(Meaning::Other),
        Err(error) if error.kind() == MailboxErrorKind::Denied => return Ok(Meaning::Unread),
        Err(error) => return Err(error.into()),
    };
    if there.header.parameters.difference(&parameters_of(head)).is_some() {
        return Ok(Meaning::Other);
    }
    let none = MessageSum::new();
    let mut ours = none.clone();
    let ours = record
        .visit(processor, None, move |mut reader: RecordReader<_>, _: &mut _| {
            for packet in &mut reader {
                let packet = packet?;
                if let PacketState::In { message, .. } = packet.state {
                    ours.add(packet.uuid, message);
                }
            }
            reader.end().map(|_| ours.sums)
        })
        .await?;
    let mut repeats = Arc::default();
    loop {
        let theirs = match sum_of(processor, summary, &there, none.clone(), &repeats).await {
            Ok(Some(theirs)) => theirs,
            Ok(None) => return Ok(Meaning::Other),
            Err(WorkError::Mailbox { source }) if source.kind() == MailboxErrorKind::Denied => {
                return Ok(Meaning::Unread);
            }
            Err(error) => return Err(error),
        };
        if theirs.1.is_empty() {
            let same = theirs.0 == ours;
            return Ok(if same { Meaning::Same } else { Meaning::Other });
        }
        repeats = Arc::new(theirs.1);
    }
}

/// The sum over the first message of each UUID, and the UUIDs that must be known to tell which is the first: where there are
/// any, the sum doesn't count. `None`: these are no packets of that header.
async fn sum_of(
    processor: &Processor,
    summary: &Summary,
    there: &PeerHead,
    mut sum: MessageSum,
    repeats: &Arc<RepeatedNames>,
) -> Result<Option<([u64; 2], RepeatedNames)>, WorkError> {
    let key = summary
        .head
        .batch
        .validation_key(summary.head.share, ValidationPart::Packets);
    let source = match &there.packets {
        PeerPackets::Inline(packets) => Source::Bytes(packets.clone()),
        PeerPackets::Object => Source::Object {
            mailbox: &*processor.mailboxes.peer,
            key: &key,
            limit: max_object_bytes(summary.packets),
        },
    };
    let mut names = Names::new(processor.in_memory.packets, repeats);
    let read = move |source: ChunkReader, _: &mut _| {
        for packet in ValidationPacket::stream(source) {
            let packet = packet?;
            // The first one's place isn't taken by a later one, even where it is no message.
            if names.is_new(packet.uuid.into_bytes())
                && let Some(message) = packet.message()
            {
                sum.add(packet.uuid, message);
            }
        }
        Ok::<_, FormatError>((sum.sums, names.repeats()))
    };
    match transform(source, None, read).await {
        Ok((passed, Some(Ok(theirs)))) => {
            let same = match &there.packets {
                PeerPackets::Inline(_) => true,
                PeerPackets::Object => check_digest(&there.header, &passed.digest).is_ok(),
            };
            Ok(same.then_some(theirs))
        }
        Ok((_, Some(Err(_)))) => Ok(None),
        Ok((_, None)) => InternalSnafu {
            doing: "comparing our messages",
            detail: format!("the reader of {key} panicked"),
        }
        .fail(),
        Err(error) if error.kind() == MailboxErrorKind::TooLarge => Ok(None),
        Err(error) => Err(WorkError::from(error)),
    }
}
