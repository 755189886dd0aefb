//! Which windows have work under which key: `uses/<key id>/<window>`, put before the record or the plan that needs the
//! key. A key is retired only after every window that it is marked in has its result; a mark too many only delays that.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use mailbox::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::formats::ledger::{LedgerObject, REVISION, USES, ledger_object};
use crate::formats::names::{BatchId, BatchTime, WindowId};
use crate::formats::record::RecordHead;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::put::put;
use crate::window::Window;

/// The marks of one process. Of a processor whose keys come from rings; other keys are nobody's to retire.
#[derive(Debug)]
pub struct UseMarks {
    period_seconds: u32,
    put: Mutex<BTreeSet<ObjectKey>>,
}

impl UseMarks {
    /// For windows of that length, whole minutes.
    #[must_use]
    pub fn new(period_seconds: u32) -> Self {
        Self {
            period_seconds,
            put: Mutex::default(),
        }
    }
}

/// `uses/…`: its name says it all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyUse {
    /// [`REVISION`].
    pub revision: u32,
}
ledger_object!(KeyUse, 4 << 10);

/// Marks the keys of a record that is about to be put: the signer's, and those that opened its packets, by their places
/// among the mounted ones. One that is mounted again is marked under all of its ids: nobody may retire it.
pub(crate) async fn mark_record(
    processor: &Processor,
    head: &RecordHead,
    mounted: impl Iterator<Item = usize>,
) -> Result<(), WorkError> {
    let Some(marks) = &processor.use_marks else {
        return Ok(());
    };
    let window = window_of(&head.batch, marks.period_seconds)?;
    mark(processor, marks, &window, &head.signer).await?;
    for mounted in mounted {
        let point = processor.packet_keys[mounted].key.public_point();
        let same = processor.packet_keys.iter();
        for key in same.filter(|key| key.key.public_point() == point && !key.id.is_empty()) {
            mark(processor, marks, &window, &key.id).await?;
        }
    }
    Ok(())
}

/// Marks the signer of a plan that is about to be put.
pub(crate) async fn mark_plan(processor: &Processor, window: &WindowId, signer: &str) -> Result<(), WorkError> {
    match &processor.use_marks {
        Some(marks) => mark(processor, marks, window, signer).await,
        None => Ok(()),
    }
}

async fn mark(processor: &Processor, marks: &UseMarks, window: &WindowId, key_id: &str) -> Result<(), WorkError> {
    let key = ObjectKey::parse(format!("{USES}/{key_id}/{}", window.path()))?;
    let is_put = || marks.put.lock().unwrap_or_else(PoisonError::into_inner);
    if is_put().contains(&key) {
        return Ok(());
    }
    let bytes = KeyUse { revision: REVISION }.to_bytes()?;
    put(&*processor.mailboxes.ledger, &key, &bytes.into()).await?;
    is_put().insert(key);
    Ok(())
}

fn window_of(batch: &BatchId, period_seconds: u32) -> Result<WindowId, WorkError> {
    let find = || {
        let window = Window::holding(batch.time.timestamp(), period_seconds).ok()?;
        let (start, end) = (
            BatchTime::from_timestamp(window.start())?,
            BatchTime::from_timestamp(window.end())?,
        );
        WindowId::new(batch.aggregation.clone(), start, end).ok()
    };
    match find() {
        Some(window) => Ok(window),
        None => InternalSnafu {
            doing: "finding the window of a batch",
            detail: format!("{} has none of {period_seconds} s", batch.path()),
        }
        .fail(),
    }
}
