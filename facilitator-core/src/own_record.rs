//! Reading a record of our own ledger: its owner must be us.

use bytes::Bytes;
use mailbox::{MailboxError, MailboxErrorKind, ObjectKey};
use snafu::ResultExt;

use crate::formats::ledger::RECORDS;
use crate::formats::names::{BatchId, InstanceName};
use crate::formats::record::{RECORD_MAX_BYTES, RecordError, RecordHead, RecordReader};
use crate::formats::work::Share;
use crate::outgoing::Outgoing;
use crate::processor::{ForeignSnafu, InternalSnafu, Processor, RecordSnafu, WorkError};
use crate::stream::{ChunkReader, ChunkWriter, Passed, Source, read_both, transform};

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

    /// Begins to read, and goes on with `work` where the record is this owner's.
    fn begin<T>(
        &self,
        source: ChunkReader,
        work: impl FnOnce(RecordReader<ChunkReader>) -> Result<T, RecordError>,
    ) -> Result<T, Unread> {
        let reader = RecordReader::new(source).map_err(Unread::Record)?;
        if !self.is_of(reader.head()) {
            return Err(Unread::Foreign);
        }
        work(reader).map_err(Unread::Record)
    }

    fn is_of(&self, head: &RecordHead) -> bool {
        head.batch == self.batch && head.share == self.share && head.instance == self.instance.as_str()
    }
}

/// A record that is there, to be gone through as often as needed in flat memory: a short one is held, a long one read again.
#[derive(Clone)]
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
        Self::open_within(processor, batch, processor.in_memory.object_bytes).await
    }

    /// The batch's record, which is known to be there.
    ///
    /// # Errors
    /// Those of the mailbox.
    pub async fn open_existing(processor: &Processor, batch: &BatchId) -> Result<Self, MailboxError> {
        Self::read(processor, batch, processor.in_memory.object_bytes).await
    }

    /// The batch's record, if it has one; held up to so many bytes, where several are worked on at a time.
    ///
    /// # Errors
    /// Those of the mailbox.
    pub async fn open_within(
        processor: &Processor,
        batch: &BatchId,
        bytes: usize,
    ) -> Result<Option<Self>, MailboxError> {
        match Self::read(processor, batch, bytes).await {
            Err(error) if error.kind() == MailboxErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether it is in memory.
    pub fn is_held(&self) -> bool {
        self.bytes.is_some()
    }

    /// What it takes in memory, where it is there.
    pub fn held_bytes(&self) -> Option<usize> {
        self.bytes.as_ref().map(Bytes::len)
    }

    async fn read(processor: &Processor, batch: &BatchId, held: usize) -> Result<Self, MailboxError> {
        let mut record = Self::of(batch, None);
        match processor.mailboxes.ledger.read(&record.key, held as u64).await {
            Ok(bytes) => record.bytes = Some(bytes),
            Err(error) if error.kind() == MailboxErrorKind::TooLarge => {}
            Err(error) => return Err(error),
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
        let work =
            move |source: ChunkReader, writer: &mut ChunkWriter| owner.begin(source, |reader| work(reader, writer));
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
            None => transform(self.source(processor), target, work).await?.1,
        };
        self.visited(visited)
    }

    /// Goes through the record with `work`, beside what comes from another source; with what passed of that, where it is an
    /// object.
    ///
    /// # Errors
    /// As [`StoredRecord::visit`].
    pub async fn visit_beside<T: Send + 'static>(
        &self,
        processor: &Processor,
        beside: Source<'_>,
        work: impl FnOnce(RecordReader<ChunkReader>, ChunkReader) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<(Passed, T), WorkError> {
        let owner = Owner::of(processor, &self.batch);
        let work = move |source, beside| owner.begin(source, |reader| work(reader, beside));
        let (passed, visited) = match (&self.bytes, beside) {
            (Some(record), Source::Bytes(beside)) if is_little(record, processor) => {
                let visited = work(ChunkReader::whole(record.clone()), ChunkReader::whole(beside));
                (Passed::default(), Some(visited))
            }
            (_, beside) => read_both(self.source(processor), beside, work).await?,
        };
        Ok((passed, self.visited(visited)?))
    }

    fn source<'a>(&'a self, processor: &'a Processor) -> Source<'a> {
        match &self.bytes {
            Some(bytes) => Source::Bytes(bytes.clone()),
            None => Source::Object {
                mailbox: &*processor.mailboxes.ledger,
                key: &self.key,
                limit: RECORD_MAX_BYTES,
            },
        }
    }

    fn visited<T>(&self, visited: Option<Result<T, Unread>>) -> Result<T, WorkError> {
        let object = self.key.as_str();
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
