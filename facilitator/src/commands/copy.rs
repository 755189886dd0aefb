//! `facilitator copy`: objects from one mailbox into another.

use aws_lc_rs::digest::{Context, SHA256};
use futures::TryStreamExt;
use mailbox::{Access, ListRequest, Mailbox, ObjectKey, ObjectMeta, PutOutcome};

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

Objects go in the order of their names, so that a batch's signature comes last.
Nothing is replaced: copied again, what is there stays, and an object of another
content under the same name ends it with exit code 73.";

/// Objects up to so many bytes are put by a single call; signatures are among them.
const SINGLE_PUT_BYTES: u64 = 8 << 20;

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
        for meta in &page.objects {
            match copy(&*from, &*to, meta).await? {
                PutOutcome::Created => copied += 1,
                PutOutcome::Exists => there += 1,
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

async fn copy(from: &dyn Mailbox, to: &dyn Mailbox, meta: &ObjectMeta) -> Result<PutOutcome, Failure> {
    let key = &meta.key;
    let outcome = if meta.size <= SINGLE_PUT_BYTES {
        to.put_if_absent(key, from.read(key, SINGLE_PUT_BYTES).await?).await?
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
