//! `facilitator work`: one chunk of a work list, in a pod.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use facilitator_core::formats::ledger::{LedgerObject, REPORTS};
use facilitator_core::formats::preflight::PreflightReport;
use facilitator_core::formats::work::{
    KEYS_DIRECTORY, PARAMETERS_DIRECTORY, REVISION, Report, WORK_DIRECTORY, WorkList,
};
use facilitator_core::put;
use jiff::Timestamp;
use mailbox::{Mailbox, ObjectKey};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{ExitClass, Failure};
use crate::output;
use crate::worker::probe::probe;
use crate::worker::retry::Budget;
use crate::worker::{items, preflight, setup};

/// Shown below the arguments.
pub const AFTER: &str = "\
The operator writes the parameters, the work list and the mounted Secrets;
docs/formats.md, section 4, names them. Exit 0 means that every item of the
chunk has an outcome; the ledger's reports/ has them.";

/// What Kubernetes gives every container to write its last words into.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// No message of a report is longer, in characters.
const MESSAGE_CHARS: usize = 500;

/// Processes one chunk of a work list: what prio-operator runs in pods.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chunk: an index into the list of the work file.
    #[arg(long, env = "JOB_COMPLETION_INDEX")]
    index: u32,
    /// The pod's UID, which names the report.
    #[arg(long, env = "POD_UID")]
    pod_uid: String,
    /// The folder of parameters.json.
    #[arg(long, default_value = PARAMETERS_DIRECTORY, hide = true)]
    parameters_directory: PathBuf,
    /// The folder of work.json.
    #[arg(long, default_value = WORK_DIRECTORY, hide = true)]
    work_directory: PathBuf,
    /// The folder of the mounted Secrets.
    #[arg(long, default_value = KEYS_DIRECTORY, hide = true)]
    keys_directory: PathBuf,
    /// Where Kubernetes takes the pod's last words from; nothing is written where there is no such file.
    #[arg(long, default_value = TERMINATION_LOG, hide = true)]
    termination_log: PathBuf,
}

/// Runs the chunk until it is done or the pod is asked to stop.
///
/// # Errors
/// By class of `docs/formats.md` §4.3.
pub async fn run(args: Args) -> Result<(), Failure> {
    // Everything put is whole and a rerun goes on from it: stopping needs no tidying up.
    let result = tokio::select! {
        biased;
        stopped = asked_to_stop() => Err(stopped),
        result = run_chunk(&args) => result,
    };
    if let Err(failure) = &result {
        last_words(
            &args.termination_log,
            &format!("{}; {}", failure.message, failure.advice),
        );
    }
    result
}

/// Writes what `kubectl describe pod` and the operator read of a pod that ended.
fn last_words(file: &Path, text: &str) {
    let opened = std::fs::OpenOptions::new().write(true).truncate(true).open(file);
    let written = match opened {
        Ok(mut log) => log.write_all(text.as_bytes()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::warn!(%error, file = %file.display(), "the termination message can't be written");
    }
}

async fn asked_to_stop() -> Failure {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(
                ExitClass::Internal,
                format_args!("can't listen for signals: {error}"),
                "",
            )
        })
    };
    let (mut terminate, mut interrupt) = match (listen(SignalKind::terminate()), listen(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(failure), _) | (_, Err(failure)) => return failure,
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Failure::new(
        ExitClass::Stopped,
        "asked to stop",
        "the next run goes on from what is done",
    )
}

async fn run_chunk(args: &Args) -> Result<(), Failure> {
    let list: WorkList = setup::json(&args.work_directory.join("work.json"))?;
    let parameters_file = args.parameters_directory.join("parameters.json");
    if let WorkList::Preflight {
        revision, of, manifest, ..
    } = &list
    {
        chunk::<()>(*revision, vec![Vec::new()], args.index)?;
        // Whatever is wrong is a line of its own.
        let lines = preflight::lines(&parameters_file, &args.keys_directory, *of, manifest.as_deref()).await;
        for line in &lines {
            output::line(preflight::json(*of, line));
        }
        last_words(&args.termination_log, &PreflightReport::new(lines).to_message());
        return Ok(());
    }
    let parameters = setup::parameters(&parameters_file)?;
    let mut budget = Budget::new();
    let mut report = Report {
        revision: REVISION,
        work: String::new(),
        index: args.index,
        pod_uid: args.pod_uid.clone(),
        batches: Vec::new(),
        windows: Vec::new(),
        keys: Vec::new(),
    };
    if let WorkList::KeyProbe {
        revision,
        work,
        signing,
        packets,
    } = &list
    {
        chunk::<()>(*revision, vec![Vec::new()], args.index)?;
        report.work.clone_from(work);
        report.keys = probe(&parameters, &args.keys_directory, signing, packets)?;
        tracing::info!(keys = ?report.keys, "every key is mounted");
        let ledger = setup::ledger_mailbox(&parameters)?;
        setup::ledger(&parameters, &*ledger, &mut budget).await?;
        return put_report(&*ledger, &report, &mut budget).await;
    }
    let mut processor = setup::processor(&parameters, &args.keys_directory)?;
    if let WorkList::Intake { keys, .. } | WorkList::Aggregate { keys, .. } = &list {
        setup::pin(&mut processor, keys, &parameters)?;
    }
    let identity = setup::ledger(&parameters, &*processor.mailboxes.ledger, &mut budget).await?;
    tracing::info!(ledger = %identity.id, instance = identity.instance, index = args.index, "chunk begins");

    let mut fault = None;
    match list {
        WorkList::Intake {
            revision, work, chunks, ..
        } => {
            report.work = work;
            let items = chunk(revision, chunks, args.index)?;
            for line in items::intake(&processor, &items, &mut budget).await? {
                match line {
                    Ok((line, _)) => report.batches.push(line),
                    Err(failure) => keep(&mut fault, failure)?,
                }
            }
        }
        WorkList::Aggregate {
            revision, work, chunks, ..
        } => {
            report.work = work;
            for item in chunk(revision, chunks, args.index)? {
                match items::window(&processor, &item, &Timestamp::now, &mut budget).await {
                    Ok((line, _)) => report.windows.push(line),
                    Err(failure) => keep(&mut fault, failure)?,
                }
            }
        }
        // Done before, without a partner.
        WorkList::KeyProbe { .. } | WorkList::Preflight { .. } => return Ok(()),
        // What was compacted is in the ledger: there is nothing to report.
        WorkList::CompactClaims { revision, chunks, .. } => {
            for item in chunk(revision, chunks, args.index)? {
                if let Err(failure) = items::compaction(&processor, &item, &mut budget).await {
                    keep(&mut fault, failure)?;
                }
            }
            return fault.map_or(Ok(()), Err);
        }
    }
    put_report(&*processor.mailboxes.ledger, &report, &mut budget).await?;
    fault.map_or(Ok(()), Err)
}

fn chunk<T>(revision: u32, mut chunks: Vec<Vec<T>>, index: u32) -> Result<Vec<T>, Failure> {
    let wrong = |message: String| {
        Failure::new(
            ExitClass::Configuration,
            message,
            "use the facilitator of the operator's version",
        )
    };
    if revision != REVISION {
        return Err(wrong(format!(
            "work.json has revision {revision}, this build knows {REVISION}"
        )));
    }
    let count = chunks.len();
    match usize::try_from(index).ok().filter(|index| *index < count) {
        Some(index) => Ok(chunks.swap_remove(index)),
        None => Err(wrong(format!(
            "work.json has {count} chunks, and this is index {index}"
        ))),
    }
}

/// One damaged item must not keep the others from their outcome; storage that stays away keeps all.
fn keep(fault: &mut Option<Failure>, failure: Failure) -> Result<(), Failure> {
    if failure.exit == ExitClass::Unavailable {
        return Err(failure);
    }
    fault.get_or_insert(failure);
    Ok(())
}

async fn put_report(ledger: &dyn Mailbox, report: &Report, budget: &mut Budget) -> Result<(), Failure> {
    let key = ObjectKey::parse(format!("{REPORTS}/{}/{}-{}", report.work, report.index, report.pod_uid)).map_err(
        |error| Failure {
            exit: ExitClass::Configuration,
            ..error.into()
        },
    )?;
    let bytes = report_bytes(report)?.into();
    loop {
        match put::put(ledger, &key, &bytes).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_retryable() && budget.wait().await => {}
            Err(error) => return Err(setup::of_ledger(error)),
        }
    }
}

/// The report within its bound: messages are cut as far as needed, outcomes and reasons never.
fn report_bytes(report: &Report) -> Result<Vec<u8>, Failure> {
    let internal = |error| Failure::new(ExitClass::Internal, error, "");
    let mut report = report.clone();
    let mut chars = MESSAGE_CHARS;
    loop {
        let bytes = report.to_bytes().map_err(internal)?;
        if bytes.len() as u64 <= Report::MAX_BYTES || chars == 0 {
            return Ok(bytes);
        }
        chars /= 2;
        let batches = report.batches.iter_mut().map(|line| &mut line.message);
        let windows = report.windows.iter_mut().map(|line| &mut line.message);
        for message in batches.chain(windows) {
            if let Some((end, _)) = message.char_indices().nth(chars) {
                message.truncate(end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use facilitator_core::formats::work::{BatchOutcome, BatchReport};

    #[test]
    fn a_long_report_keeps_its_bound_and_every_outcome() {
        // As many batches as a pod may have, with the longest of names and messages.
        let line = BatchReport {
            aggregation: "a".repeat(100),
            time: "2026/11/20/00/01".into(),
            uuid: uuid::Uuid::max(),
            outcome: BatchOutcome::Rejected,
            reason: "ParametersUnsupported".into(),
            message: "\"é".repeat(250),
            packets: u64::MAX,
            excluded: u64::MAX,
        };
        let report = |batches| Report {
            revision: REVISION,
            work: "w".repeat(63),
            index: u32::MAX,
            pod_uid: "p".repeat(36),
            batches: vec![line.clone(); batches],
            windows: Vec::new(),
            keys: Vec::new(),
        };
        let short: Report = serde_json::from_slice(&report_bytes(&report(3)).unwrap()).unwrap();
        assert_eq!(short, report(3));
        let bytes = report_bytes(&report(2_000)).unwrap();
        assert!(bytes.len() as u64 <= Report::MAX_BYTES, "{}", bytes.len());
        let long: Report = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(long.batches.len(), 2_000);
        assert!(
            long.batches
                .iter()
                .all(|there| there.reason == line.reason && !there.message.is_empty())
        );
    }
}
