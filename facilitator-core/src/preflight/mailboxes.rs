//! Mailboxes: who may list, read and put, and what their clocks say.

use std::sync::Arc;

use mailbox::{ListPage, ListRequest, Mailbox, MailboxErrorKind, ObjectKey};

use super::{Fault, Preflight, Trouble, failed, not_checkable, passed, seconds_ahead, within};
use crate::formats::preflight::{Check, Line, Place, PreflightStage};

/// A difference of clocks that is told, in seconds: a signature's store time decides membership of a window, and stores and
/// token services refuse requests that are minutes off.
const MAX_SKEW_SECONDS: i64 = 60;
/// Names that are looked at: enough to find a batch among them.
const NAMES: usize = 200;
/// What is asked for where nothing is known to be there: under the top-level name that no batch has.
const ABSENT: &str = "prio-operator/preflight";
/// What whoever reads needs.
pub(super) const READ_RIGHT: &str = "to read its objects (S3: s3:GetObject; GCS: storage.objects.get)";
/// What S3 says to whom the clock is wrong.
const SKEWED: &str = "RequestTimeTooSkewed";

/// An object that nobody has.
pub(super) fn absent(place: Place) -> Result<ObjectKey, Line> {
    ObjectKey::parse(ABSENT).map_err(|error| failed(Check::Read, error, "report this fault").of(place))
}

/// A mailbox that is listed and read: the lines, and the first names of it.
pub(super) struct Looked {
    pub lines: Vec<Line>,
    pub page: Option<ListPage>,
    /// Whether it is there and answers: else nothing more is to be learnt of it.
    pub answers: bool,
}

impl Preflight<'_> {
    /// Who would have to grant what.
    fn grant(&self, place: Place, what: &str) -> String {
        let identity = match self.stage {
            PreflightStage::Intake => "the intake workers' identity",
            PreflightStage::Aggregate => "the aggregate workers' identity",
        };
        match place {
            Place::Ingestion | Place::PeerValidation | Place::Ledger => format!("give {identity} the right {what}"),
            Place::Peer => format!("ask the peer to give {identity} the right {what}"),
            Place::Portal => format!("ask the portal's owner to give {identity} the right {what}"),
        }
    }

    /// A check of a mailbox whose call failed. `right`: what is missing where the store refuses.
    pub(super) fn faulty(&self, check: Check, place: Place, fault: &Fault, right: &str) -> Line {
        let line = match fault {
            Fault::Silent => failed(
                check,
                "no answer in time",
                "see whether the network policy lets workers out to it (mailboxes.network), and whether the store is up",
            ),
            Fault::Mailbox(error) => {
                let advice = error.kind().advice();
                let text = error.to_string();
                let detail = text
                    .strip_suffix(advice)
                    .map_or(text.as_str(), |text| text.trim_end_matches("; "));
                match error.kind() {
                    MailboxErrorKind::Denied if detail.contains(SKEWED) => failed(
                        Check::Clock,
                        detail,
                        "set the clock of the node: the store refuses requests that are so far off",
                    ),
                    MailboxErrorKind::Denied => failed(check, detail, self.grant(place, right)),
                    _ => failed(check, detail, advice),
                }
            }
        };
        line.of(place)
    }

    /// What can't even be opened.
    pub(super) fn closed(check: Check, place: Place, trouble: &Trouble) -> Line {
        failed(check, &trouble.detail, &trouble.remedy).of(place)
    }

    /// Lists some names, compares clocks, and reads a byte of what is there.
    pub(super) async fn looked(&self, place: Place, mailbox: &Result<Arc<dyn Mailbox>, Trouble>) -> Looked {
        let mailbox = match mailbox {
            Ok(mailbox) => mailbox,
            Err(trouble) => {
                return Looked {
                    lines: vec![Self::closed(Check::List, place, trouble)],
                    page: None,
                    answers: false,
                };
            }
        };
        let request = ListRequest {
            limit: Some(NAMES),
            ..ListRequest::default()
        };
        let before = (self.clock)();
        let listed = within(mailbox.list(&request)).await;
        let after = (self.clock)();
        let (mut lines, page) = match listed {
            Ok(page) => {
                let clock = match page.time {
                    None => not_checkable(Check::Clock, "the store doesn't tell its time"),
                    Some(time) => clock(seconds_ahead(before, after, time)),
                };
                let list = passed(Check::List, mailbox.url());
                (vec![list.of(place), clock.of(place)], Some(page))
            }
            Err(fault) => {
                let right = "to list it (S3: s3:ListBucket on the bucket; GCS: storage.objects.list)";
                let lines = vec![self.faulty(Check::List, place, &fault, right)];
                if !matches!(&fault, Fault::Mailbox(error) if error.kind() == MailboxErrorKind::Denied) {
                    return Looked {
                        lines,
                        page: None,
                        answers: false,
                    };
                }
                (lines, None)
            }
        };
        let known = page.as_ref().and_then(|page| page.objects.last()).map(|meta| &meta.key);
        lines.push(self.reading(place, &**mailbox, known).await);
        Looked {
            lines,
            page,
            answers: true,
        }
    }

    /// Reads a byte of an object, of one that isn't there where none is known.
    pub(super) async fn reading(&self, place: Place, mailbox: &dyn Mailbox, known: Option<&ObjectKey>) -> Line {
        let key = match known.cloned().map_or_else(|| absent(place), Ok) {
            Ok(key) => key,
            Err(line) => return line,
        };
        match within(mailbox.read_range(&key, 0, 1)).await {
            Ok(_) => passed(Check::Read, &key).of(place),
            Err(Fault::Mailbox(error)) if error.kind() == MailboxErrorKind::NotFound => passed(
                Check::Read,
                "an object that isn't there is told from one that is forbidden",
            )
            .of(place),
            // It goes without.
            Err(Fault::Mailbox(error)) if error.kind() == MailboxErrorKind::Denied && place == Place::Peer => {
                let detail = "the peer lets us not read there: the times of delivered/ stand in for those of its store";
                not_checkable(Check::Read, detail).of(place)
            }
            Err(fault) => self.faulty(Check::Read, place, &fault, READ_RIGHT),
        }
    }

    /// Whether we may put, shown by a put that the store refuses for its content.
    pub(super) async fn writing(&self, place: Place, mailbox: &Result<Arc<dyn Mailbox>, Trouble>) -> Line {
        let mailbox = match mailbox {
            Ok(mailbox) => mailbox,
            Err(trouble) => return Self::closed(Check::Write, place, trouble),
        };
        let key = match absent(place) {
            Ok(key) => key,
            Err(line) => return line,
        };
        let right = "to put objects (S3: s3:PutObject; GCS: storage.objects.create)";
        match within(mailbox.may_put(&key)).await {
            Ok(()) => passed(Check::Write, mailbox.url()).of(place),
            Err(fault) => self.faulty(Check::Write, place, &fault, right),
        }
    }

    /// When our validations came to the peer is looked up there, where it lets us.
    pub(super) async fn peer_times(&self) -> Line {
        match &self.mailboxes.peer {
            Ok(mailbox) => self.reading(Place::Peer, &**mailbox, None).await,
            Err(trouble) => Self::closed(Check::Read, Place::Peer, trouble),
        }
    }
}

/// What a difference of clocks means.
fn clock(ahead: i64) -> Line {
    let direction = if ahead < 0 { "behind" } else { "ahead of" };
    let detail = format!("the pod's clock is {} s {direction} the store's", ahead.abs());
    if ahead.abs() <= MAX_SKEW_SECONDS {
        return passed(Check::Clock, if ahead == 0 { "they agree".to_owned() } else { detail });
    }
    failed(
        Check::Clock,
        detail,
        "set the clock of the node (NTP); where it is right, tell the store's operator",
    )
}
