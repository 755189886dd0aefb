//! A preflight of what a pod was given: every fault is a line, and none keeps the others from being looked for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use facilitator_core::formats::preflight::{Check, Line, Outcome, PreflightStage};
use facilitator_core::formats::work::{MailboxParameter, Parameters};
use facilitator_core::preflight::{Opened, Preflight, Trouble};
use jiff::Timestamp;
use mailbox::{Mailbox, Patience, open_mailbox_with};
use serde_json::json;

use super::setup;
use crate::exit::Failure;
use crate::places;

/// A person waits: with the pod's start it is to be over within a minute.
const TIME: Duration = Duration::from_secs(50);

/// The lines of one stage. `manifest`: our own as it is published.
pub async fn lines(parameters: &Path, keys: &Path, stage: PreflightStage, manifest: Option<&str>) -> Vec<Line> {
    let parameters = match setup::parameters(parameters) {
        Ok(parameters) => parameters,
        Err(Failure { message, advice, .. }) => {
            return vec![Line::new(Check::Parameters, Outcome::Failed, message, advice)];
        }
    };
    let preflight = Preflight {
        stage,
        parameters: &parameters,
        keys: &setup::own_keys(&parameters, keys),
        mailboxes: &opened(&parameters),
        manifest,
        clock: &Timestamp::now,
        time: TIME,
    };
    let detail = format!("instance {}, share {:?}", parameters.instance, parameters.share);
    let mut lines = vec![Line::new(Check::Parameters, Outcome::Passed, detail, "")];
    lines.extend(preflight.run().await);
    lines
}

/// A line as a program reads it.
pub fn json(stage: PreflightStage, line: &Line) -> serde_json::Value {
    json!({
        "stage": stage, "check": line.check, "mailbox": line.mailbox, "outcome": line.outcome, "detail": line.detail,
        "remedy": line.remedy,
    })
}

fn opened(parameters: &Parameters) -> Opened {
    let all = &parameters.mailboxes;
    Opened {
        ingestion: open(&all.ingestion),
        peer_validation: open(&all.peer_validation),
        ledger: open(&all.ledger),
        peer: open(&all.peer),
        portal: open(&all.portal),
    }
}

fn open(mailbox: &MailboxParameter) -> Result<Arc<dyn Mailbox>, Trouble> {
    if mailbox.url.is_empty() {
        return Err(Trouble {
            detail: "its URL isn't known yet".to_owned(),
            remedy: "see what its Peer waits for, or write it into spec.mailboxes.outgoing".to_owned(),
        });
    }
    let opened = places::mailbox_url(&mailbox.url)
        .and_then(|url| Ok(open_mailbox_with(&url, &mailbox.access, patience())?))
        .map_err(Failure::into_trouble);
    opened.map_err(|Trouble { detail, .. }| Trouble {
        detail,
        remedy: "mend the mailbox's URL or its settings".to_owned(),
    })
}

/// Shorter than work's: a person waits, and a store that stays away is a finding. Not a single try, though: in a pod's first
/// seconds the network's rules for it may not be in place yet.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(4),
        answer: Duration::from_secs(8),
        idle: Duration::from_secs(8),
        attempts: 3,
        first_wait: Duration::from_secs(1),
        ..Patience::default()
    }
}
