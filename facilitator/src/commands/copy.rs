//! `facilitator copy`: objects from one mailbox into another.

use aws_lc_rs::digest::{Context, SHA256};
use facilitator_core::formats::batch::MAX_SINGLE_OBJECT_BYTES;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use mailbox::{Access, ListRequest, Mailbox, ObjectKey, ObjectMeta, PutOutcome};
use tokio::sync::Semaphore;

use crate::exit::{ExitClass, Failure};
use crate::{output, places};

/// Examples for the help.
pub const AFTER: &str = "\
Examples:
  facilitator copy world/ingestion-first s3://us-west-1/example-ingestion
  facilitator copy gs://example-portal portal --prefix us-ct/
  facilitator copy world/ingestion-first s3://us-east-1/ingestion --to-access \\
      '{\"endpoint\":\"http://127.0.0.1:8333\",\"pathStyle\":true,
        \"credentials\":{\"secret\":{\"folder\":\"keys/store\"}}}'

Sixteen batches go at a time, of each the objects in the order of their names, so
that its signature comes last. Nothing is replaced: copied again, what is there stays, and an object of another
content under the same name ends it with exit code 73.";

/// Objects up to so many bytes are put by a single call.
const SINGLE_PUT_BYTES: u64 = 8 << 20;
/// Signatures are, as long as anyone reads them: an object that comes in parts shows the time at which it was begun, and a
/// signature's is that of its batch. With `validationFormat: SingleObject` it holds the packets. It is in memory as a whole, so
/// one comes at a time.
static LARGE_SIGNATURES: Semaphore = Semaphore::const_new(1);

/// Batches that are copied at a time.
const BATCHES: usize = 16;

/// Copy all objects of a mailbox into another: a folder into a bucket, or a bucket into a folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, or the URL of a mailbox.
    pub from: String,
    /// A folder, which is made if it isn't there, or the URL of a mailbox.
    pub to: String,
    /// Only objects whose names begin so.
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// How the first is reached: JSON, the `access` of docs/formats.md §4.1 [default: as its cloud wants it].
    #[arg(long, value_name = "JSON", value_parser = access)]
    pub from_access: Option<Access>,
    /// How the second is reached.
    #[arg(long, value_name = "JSON", value_parser = access)]
    pub to_access: Option<Access>,
}

fn access(text: &str) -> Result<Access, serde_json::Error> {
    serde_json::from_str(text)
}

/// Runs it.
///
/// # Errors
/// What the mailboxes say, and an object of another content in the way.
pub async fn run(args: Args) -> Result<(), Failure> {
    let from = places::mailbox_with(&args.from, &args.from_access.unwrap_or_default())?;
    if let Some(folder) = places::mailbox_url(&args.to)?.folder() {
        places::make_folder(folder)?;
    }
    let to = places::mailbox_with(&args.to, &args.to_access.unwrap_or_default())?;
    let mut request = ListRequest {
        prefix: args.prefix,
        ..ListRequest::default()
    };
    let (mut copied, mut there) = (0, 0);
    loop {
        let page = from.list(&request).await?;
        let batches: Vec<_> = batches(&page.objects)
            .map(|batch| copy_batch(&*from, &*to, batch).boxed())
            .collect();
        let mut done = stream::iter(batches).buffer_unordered(BATCHES);
        while let Some(outcomes) = done.try_next().await? {
            for outcome in outcomes {
                match outcome {
                    PutOutcome::Created => copied += 1,
                    PutOutcome::Exists => there += 1,
                }
            }
        }
        match page.next {
            Some(next) => request.start_after = Some(next),
            None => break,
        }
    }
    output::line(format_args!(
        "{} copied, {there} there before",
        output::count(copied, "object", "objects")
    ));
    Ok(())
}

/// Objects that belong together, whose names differ only behind the first dot of their last part: they come one after another.
/// What is on two pages is in two groups, and the pages are copied in order.
fn batches(objects: &[ObjectMeta]) -> impl Iterator<Item = &[ObjectMeta]> {
    fn stem(meta: &ObjectMeta) -> &str {
        let name = meta.key.as_str();
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        name[last..].find('.').map_or(name, |dot| &name[..last + dot])
    }
    objects.chunk_by(|one, next| stem(one) == stem(next))
}

async fn copy_batch(from: &dyn Mailbox, to: &dyn Mailbox, batch: &[ObjectMeta]) -> Result<Vec<PutOutcome>, Failure> {
    let mut outcomes = Vec::new();
    for meta in batch {
        outcomes.push(copy(from, to, meta).await?);
    }
    Ok(outcomes)
}

async fn copy(from: &dyn Mailbox, to: &dyn Mailbox, meta: &ObjectMeta) -> Result<PutOutcome, Failure> {
    let key = &meta.key;
    let outcome = if meta.size <= SINGLE_PUT_BYTES {
        to.put_if_absent(key, from.read(key, SINGLE_PUT_BYTES).await?).await?
    } else if meta.size <= MAX_SINGLE_OBJECT_BYTES && key.as_str().ends_with(".sig") {
        let _alone = LARGE_SIGNATURES.acquire().await;
        to.put_if_absent(key, from.read(key, MAX_SINGLE_OBJECT_BYTES).await?)
            .await?
    } else {
        let mut stream = from.open(key).await?.stream;
        let mut upload = to.begin_upload(key).await?;
        while let Some(chunk) = stream.try_next().await? {
            upload.write(chunk).await?;
        }
        upload.commit_if_absent().await?
    };
    if outcome == PutOutcome::Exists && digest(from, key).await? != digest(to, key).await? {
        return Err(Failure::new(
            ExitClass::Conflict,
            format_args!("{} has another object {key}", to.url()),
            "see who put it; nothing was replaced",
        ));
    }
    Ok(outcome)
}

async fn digest(mailbox: &dyn Mailbox, key: &ObjectKey) -> Result<Vec<u8>, Failure> {
    let mut stream = mailbox.open(key).await?.stream;
    let mut context = Context::new(&SHA256);
    while let Some(chunk) = stream.try_next().await? {
        context.update(&chunk);
    }
    Ok(context.finish().as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn objects_of_one_batch_are_one_group() {
        let names = [
            "a.b/2026/11/20/08/00/1.batch",
            "a.b/2026/11/20/08/00/1.batch.avro",
            "a.b/2026/11/20/08/00/1.batch.sig",
            "a.b/2026/11/20/08/00/2.batch.sig",
            "a.b/2026/11/20/08/01/2.batch",
            "a.b/2026/11/20/08/01/plain",
        ];
        let meta = |name: &str| ObjectMeta {
            key: ObjectKey::parse(name).unwrap(),
            size: 1,
            modified: Timestamp::UNIX_EPOCH,
            sha256: None,
        };
        let objects = names.map(meta);
        let sizes: Vec<usize> = batches(&objects).map(<[ObjectMeta]>::len).collect();
        assert_eq!(sizes, [3, 1, 1, 1]);
    }
}
