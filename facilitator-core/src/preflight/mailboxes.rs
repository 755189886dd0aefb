//! Mailboxes: who may list, read and put, and what their clocks say.

use std::sync::Arc;

use mailbox::{ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, ObjectKey, ProbeEnd};

use super::{Fault, Preflight, Trouble, failed, not_checkable, passed, seconds_ahead, within};
use crate::formats::preflight::{Check, Line, Place, PreflightStage};
use crate::formats::work::MailboxParameter;

/// A difference of clocks that is told, in seconds: a signature's store time decides membership of a window, and stores and
/// token services refuse requests that are minutes off.
const MAX_SKEW_SECONDS: i64 = 60;
/// Names that are looked at: enough to find a batch among them.
pub(super) const NAMES: usize = 200;
/// What is asked for where nothing is known to be there: under the top-level name that no batch has.
const ABSENT: &str = "prio-operator/preflight";
/// What whoever reads needs.
pub(super) const READ_RIGHT: &str = "to read its objects (S3: s3:GetObject; GCS: storage.objects.get)";
/// What whoever lists needs.
const LIST_RIGHT: &str = "to list it (S3: s3:ListBucket on the bucket; GCS: storage.objects.list)";
/// What whoever puts needs. Names of work can't be tried: a probe must be nobody's batch.
const PUT_RIGHT: &str = "to put objects (S3: s3:PutObject; GCS: storage.objects.create); prio-operator/preflight was tried, \
                         so a right for other names alone shows as refused, too";
/// What S3 says to whom the clock is wrong.
const SKEWED: &str = "RequestTimeTooSkewed";

/// What a store refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A right of ours.
    Right,
    /// Who we say we are.
    Identity,
    /// When we say it is.
    Clock,
}

/// Whether an error is a refusal, and of what.
pub(super) fn refusal(error: &MailboxError) -> Option<Refusal> {
    (error.kind() == MailboxErrorKind::Denied).then(|| {
        if error.to_string().contains(SKEWED) {
            Refusal::Clock
        } else if error.is_of_identity() {
            Refusal::Identity
        } else {
            Refusal::Right
        }
    })
}

/// An object that nobody has.
fn absent(place: Place) -> Result<ObjectKey, Line> {
    ObjectKey::parse(ABSENT).map_err(|error| failed(Check::Read, error, "report this fault").of(place))
}

/// What a mailbox that answers showed of its names.
pub(super) struct Listed {
    /// Its first names; `None`: it may not be listed.
    pub page: Option<ListPage>,
}

impl Listed {
    /// An object that is there.
    pub fn known(&self) -> Option<&ObjectKey> {
        Some(&self.page.as_ref()?.objects.last()?.key)
    }
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

    /// A check of a mailbox whose call failed. `right`: what is missing where the store refuses that.
    pub(super) fn faulty(&self, check: Check, place: Place, fault: &Fault, right: &str) -> Line {
        let line = match fault {
            Fault::Silent => failed(
                check,
                "no answer in time",
                "see whether the network policy lets workers out to it (mailboxes.network), and whether the store is up",
            ),
            Fault::Mailbox(error) => {
                let advice = error.advice();
                let text = error.to_string();
                let detail = text
                    .strip_suffix(advice)
                    .map_or(text.as_str(), |text| text.trim_end_matches("; "));
                match refusal(error) {
                    Some(Refusal::Clock) => failed(
                        Check::Clock,
                        detail,
                        "set the clock of the node: the store refuses requests that are so far off",
                    ),
                    Some(Refusal::Identity) => failed(
                        check,
                        detail,
                        "mend the mailbox's credentials: the Secret, the service account's annotation, or whom the store's \
                         owner and the token service trust; no right is missing yet",
                    ),
                    Some(Refusal::Right) => failed(check, detail, self.grant(place, right)),
                    None => failed(check, detail, advice),
                }
            }
        };
        line.of(place)
    }

    /// What can't even be opened.
    pub(super) fn closed(check: Check, place: Place, trouble: &Trouble) -> Line {
        failed(check, &trouble.detail, &trouble.remedy).of(place)
    }

    /// Lists some names and compares clocks. `None`: nothing more is to be learnt of it.
    pub(super) async fn listed(
        &self,
        place: Place,
        mailbox: &Result<Arc<dyn Mailbox>, Trouble>,
        told: &mut Vec<Line>,
    ) -> Option<Listed> {
        let mailbox = match mailbox {
            Ok(mailbox) => mailbox,
            Err(trouble) => {
                told.push(Self::closed(Check::List, place, trouble));
                return None;
            }
        };
        match self.page(&**mailbox, NAMES).await {
            Ok((page, clock)) => {
                told.extend([passed(Check::List, mailbox.url()).of(place), clock.of(place)]);
                Some(Listed { page: Some(page) })
            }
            Err(fault) => {
                told.push(self.faulty(Check::List, place, &fault, LIST_RIGHT));
                let answers = matches!(&fault, Fault::Mailbox(error) if refusal(error) == Some(Refusal::Right));
                answers.then_some(Listed { page: None })
            }
        }
    }

    /// The first names, and what the store's clock says.
    async fn page(&self, mailbox: &dyn Mailbox, names: usize) -> Result<(ListPage, Line), Fault> {
        let request = ListRequest {
            limit: Some(names),
            ..ListRequest::default()
        };
        let before = (self.clock)();
        let page = within(mailbox.list(&request)).await?;
        let after = (self.clock)();
        let clock = match page.time {
            None => not_checkable(Check::Clock, "the store doesn't tell its time"),
            Some(time) => clock(seconds_ahead(before, after, time)),
        };
        Ok((page, clock))
    }

    /// Reads a byte of an object that is there, else asks for one that isn't. `ours`: one that we have just put.
    pub(super) async fn reading(
        &self,
        place: Place,
        mailbox: &dyn Mailbox,
        listed: &Listed,
        ours: Option<&ObjectKey>,
    ) -> Line {
        let known = ours.or_else(|| listed.known());
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
            // Stores tell what is missing only to whom they would list it; in a part of a bucket they may not take that as said.
            Err(Fault::Mailbox(error))
                if refusal(&error) == Some(Refusal::Right)
                    && known.is_none()
                    && (listed.page.is_none() || mailbox.url().has_prefix()) =>
            {
                let detail = "what isn't there looks forbidden, too, to whom a store doesn't list the whole bucket: it shows \
                              with the first object";
                not_checkable(Check::Read, detail).of(place)
            }
            Err(fault) => self.faulty(Check::Read, place, &fault, READ_RIGHT),
        }
    }

    /// Whether we may put, shown by a put that the store refuses for its content; by an upload that is given up, where it might
    /// take that.
    pub(super) async fn writing(&self, place: Place, mailbox: &Result<Arc<dyn Mailbox>, Trouble>) -> Line {
        let mailbox = match mailbox {
            Ok(mailbox) => mailbox,
            Err(trouble) => return Self::closed(Check::Write, place, trouble),
        };
        let key = match absent(place) {
            Ok(key) => key,
            Err(line) => return line,
        };
        let compares = self.compares_checksums(place, &key).await;
        let tried = if compares {
            within(mailbox.may_put(&key)).await.map(drop)
        } else {
            within(mailbox.may_begin_upload(&key)).await
        };
        match tried {
            Ok(()) => passed(Check::Write, mailbox.url()).of(place),
            Err(Fault::Mailbox(error)) if !compares && is_unknown(&error) => {
                let detail = format!(
                    "the store begins no upload that could be given up, and isn't known to refuse wrong content, which must \
                     not stay there: the first delivery shows the right ({error})"
                );
                not_checkable(Check::Write, detail).of(place)
            }
            Err(fault) => self.faulty(Check::Write, place, &fault, PUT_RIGHT),
        }
    }

    /// Whether the store there is known to refuse a content whose checksums are another's: the clouds' own are, ours is asked,
    /// and a compatible one of others' where our ledger is in the same.
    async fn compares_checksums(&self, place: Place, key: &ObjectKey) -> bool {
        let all = &self.parameters.mailboxes;
        let there = match place {
            Place::Ledger => return true,
            Place::Peer => &all.peer,
            Place::Portal => &all.portal,
            Place::Ingestion => &all.ingestion,
            Place::PeerValidation => &all.peer_validation,
        };
        if there.access.endpoint.is_none() {
            return true;
        }
        if store_of(there) != store_of(&all.ledger) {
            return false;
        }
        match &self.mailboxes.ledger {
            Ok(ledger) => matches!(within(ledger.may_put(key)).await, Ok(ProbeEnd::ContentRefused)),
            Err(_) => false,
        }
    }

    /// When our validations came to the peer is listed there, where it lets us.
    pub(super) async fn peer_times(&self, told: &mut Vec<Line>) {
        let place = Place::Peer;
        let mailbox = match &self.mailboxes.peer {
            Ok(mailbox) => mailbox,
            Err(trouble) => return told.push(Self::closed(Check::List, place, trouble)),
        };
        match self.page(&**mailbox, 1).await {
            Ok((_, clock)) => told.extend([passed(Check::List, mailbox.url()).of(place), clock.of(place)]),
            Err(Fault::Mailbox(error)) if refusal(&error) == Some(Refusal::Right) => {
                let detail = "the peer lets us not list there: the times of delivered/ stand in for those of its store";
                told.push(not_checkable(Check::List, detail).of(place));
            }
            Err(fault) => told.push(self.faulty(Check::List, place, &fault, LIST_RIGHT)),
        }
    }
}

/// Whether a store doesn't know what it is asked for.
fn is_unknown(error: &MailboxError) -> bool {
    use MailboxErrorKind::{Io, NotFound, Unsupported};
    matches!(error.kind(), Unsupported | NotFound | Io)
}

/// Which store a mailbox is in: its protocol and endpoint.
fn store_of(mailbox: &MailboxParameter) -> (&str, &str) {
    let protocol = mailbox.url.split(':').next().unwrap_or_default();
    let endpoint = mailbox.access.endpoint.as_deref().unwrap_or_default();
    (protocol, endpoint.trim_end_matches('/'))
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
