//! Reading a record of our own ledger: the seals may be damaged, the owner must be us.

use bytes::Bytes;
use futures::TryStreamExt;
use mailbox::{MailboxError, MailboxErrorKind, ObjectKey};
use snafu::{ResultExt, ensure};

use crate::formats::ledger::RECORDS;
use crate::formats::names::{BatchId, InstanceName};
use crate::formats::record::{RECORD_MAX_BYTES, Record, RecordError, RecordHead, RecordReader};
use crate::formats::work::Share;
use crate::outgoing::Outgoing;
use crate::processor::{ForeignSnafu, InternalSnafu, Processor, RecordSnafu, WorkError};
use crate::put::read_if_there;
use crate::stream::{ChunkReader, ChunkWriter, Source, transform};

/// The batch's record, if it has one. A sealed part that is damaged doesn't matter here: see
/// [`Record::decode_despite_seals`].
pub(crate) async fn read_record(processor: &Processor, batch: &BatchId) -> Result<Option<Record>, WorkError> {
    let key = batch.ledger_key(RECORDS);
    let Some(bytes) = read_if_there(&*processor.mailboxes.ledger, &key, RECORD_MAX_BYTES).await? else {
        return Ok(None);
    };
    let record = Record::decode_despite_seals(&bytes).context(RecordSnafu { object: key.as_str() })?;
    let owner = Owner::of(processor, batch);
    ensure!(owner.is_of(&record.plain.head), ForeignSnafu { object: key.as_str() });
    Ok(Some(record))
}

/// Whose record of which batch is expected.
struct Owner {
    instance: InstanceName,
    share: Share,
    batch: BatchId,
}

impl Owner {
    fn of(processor: &Processor, batch: &BatchId) -> Self {
        Self {
            instance: processor.instance.clone(),
            share: processor.share,
            batch: batch.clone(),
        }
    }

    fn is_of(&self, head: &RecordHead) -> bool {
        head.batch == self.batch && head.share == self.share && head.instance == self.instance.as_str()
    }
}

/// A record that is there, to be gone through as often as needed in flat memory: a short one is held, a long one read again.
pub(crate) struct StoredRecord {
    key: ObjectKey,
    batch: BatchId,
    bytes: Option<Bytes>,
}

/// Why a record wasn't gone through.
enum Unread {
    Record(RecordError),
    Foreign,
}

impl StoredRecord {
    /// One that was put just now; `bytes`, where all of them are in memory.
    pub fn of(batch: &BatchId, bytes: Option<Bytes>) -> Self {
        Self {
            key: batch.ledger_key(RECORDS),
            batch: batch.clone(),
            bytes,
        }
    }

    /// The batch's record, if it has one.
    ///
    /// # Errors
    /// Those of the mailbox.
    pub async fn open(processor: &Processor, batch: &BatchId) -> Result<Option<Self>, MailboxError> {
        match Self::open_existing(processor, batch).await {
            Err(error) if error.kind() == MailboxErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The batch's record, which is known to be there.
    ///
    /// # Errors
    /// Those of the mailbox.
    pub async fn open_existing(processor: &Processor, batch: &BatchId) -> Result<Self, MailboxError> {
        let mut record = Self::of(batch, None);
        let body = processor.mailboxes.ledger.open(&record.key).await?;
        if body.meta.size <= processor.in_memory.object_bytes as u64 {
            let mut bytes = Vec::new();
            let mut stream = body.stream;
            while let Some(chunk) = stream.try_next().await? {
                bytes.extend_from_slice(&chunk);
            }
            record.bytes = Some(bytes.into());
        }
        Ok(record)
    }

    /// Goes through the record with `work`, which may write to `target`. Little work is done on the spot, more in a thread of
    /// its own.
    ///
    /// # Errors
    /// Those of the mailboxes, [`WorkError::Record`] and [`WorkError::Foreign`]; nothing that was written is good then.
    pub async fn visit<T: Send + 'static>(
        &self,
        processor: &Processor,
        target: Option<&mut Outgoing<'_>>,
        work: impl FnOnce(RecordReader<ChunkReader>, &mut ChunkWriter) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<T, WorkError> {
        let owner = Owner::of(processor, &self.batch);
        let work = move |source: ChunkReader, writer: &mut ChunkWriter| {
            let reader = RecordReader::new(source).map_err(Unread::Record)?;
            if !owner.is_of(reader.head()) {
                return Err(Unread::Foreign);
            }
            work(reader, writer).map_err(Unread::Record)
        };
        let object = self.key.as_str();
        let visited = match &self.bytes {
            Some(bytes) if is_little(bytes, processor) => {
                let mut writer = ChunkWriter::holding();
                let visited = work(ChunkReader::whole(bytes.clone()), &mut writer);
                if let Some(target) = target {
                    *target.tail() = writer.into_held();
                }
                Some(visited)
            }
            Some(bytes) => transform(Source::Bytes(bytes.clone()), target, work).await?.1,
            None => {
                let source = Source::Object {
                    mailbox: &*processor.mailboxes.ledger,
                    key: &self.key,
                    limit: RECORD_MAX_BYTES,
                };
                transform(source, target, work).await?.1
            }
        };
        match visited {
            Some(Ok(visited)) => Ok(visited),
            Some(Err(Unread::Record(source))) => Err(source).context(RecordSnafu { object }),
            Some(Err(Unread::Foreign)) => ForeignSnafu { object }.fail(),
            None => InternalSnafu {
                doing: "going through a record",
                detail: format!("the reader of {object} panicked"),
            }
            .fail(),
        }
    }
}

/// Whether what comes of a record stays in memory, too: a packet's message takes less than twice its bytes in the record.
fn is_little(record: &Bytes, processor: &Processor) -> bool {
    const CONTAINER: usize = 4 << 10;
    2 * record.len() + CONTAINER <= processor.in_memory.object_bytes
}
