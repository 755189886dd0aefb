//! Reading a record of our own ledger: the seals may be damaged, the owner must be us.

use snafu::ensure;

use crate::formats::ledger::RECORDS;
use crate::formats::names::BatchId;
use crate::formats::record::{RECORD_MAX_BYTES, Record, RecordHead};
use crate::processor::{ForeignSnafu, Processor, RecordSnafu, WorkError};
use crate::put::read_if_there;
use snafu::ResultExt;

/// The batch's record, if it has one. A sealed part that is damaged doesn't matter here: see
/// [`Record::decode_despite_seals`].
pub(crate) async fn read_record(processor: &Processor, batch: &BatchId) -> Result<Option<Record>, WorkError> {
    let key = batch.ledger_key(RECORDS);
    match read_if_there(&*processor.mailboxes.ledger, &key, RECORD_MAX_BYTES).await? {
        Some(bytes) => decode_record(processor, batch, &bytes).map(Some),
        None => Ok(None),
    }
}

/// Reads a record's bytes, and checks that it is what its name says and ours.
pub(crate) fn decode_record(processor: &Processor, batch: &BatchId, bytes: &[u8]) -> Result<Record, WorkError> {
    let key = batch.ledger_key(RECORDS);
    let record = Record::decode_despite_seals(bytes).context(RecordSnafu { object: key.as_str() })?;
    ensure!(
        is_own(&record.plain.head, processor, batch),
        ForeignSnafu { object: key.as_str() }
    );
    Ok(record)
}

fn is_own(head: &RecordHead, processor: &Processor, batch: &BatchId) -> bool {
    head.batch == *batch && head.share == processor.share && head.instance == processor.instance.as_str()
}
