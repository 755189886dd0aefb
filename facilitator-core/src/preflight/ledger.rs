//! Our own ledger: whose it is, that its store replaces nothing, and that nothing expires there.

use bytes::Bytes;
use mailbox::{ConditionalWrites, ExpiryRule, Mailbox, MailboxErrorKind, ObjectKey};

use super::mailboxes::{Looked, READ_RIGHT};
use super::{Fault, Preflight, failed, not_checkable, passed, within};
use crate::formats::claims::CLAIMS;
use crate::formats::ledger::{PREFLIGHT_CONTENT, PREFLIGHT_OBJECT};
use crate::formats::names::InstanceName;
use crate::formats::preflight::{Check, Line, Place};
use crate::identity::{ExpectedLedger, IdentityError, look};

const PLACE: Place = Place::Ledger;

impl Preflight<'_> {
    /// All of it.
    pub(super) async fn ledger(&self) -> Vec<Line> {
        let Looked { mut lines, answers, .. } = self.looked(PLACE, &self.mailboxes.ledger).await;
        let Some(mailbox) = self.mailboxes.ledger.as_ref().ok().filter(|_| answers) else {
            return lines;
        };
        lines.push(self.writing(PLACE, &self.mailboxes.ledger).await);
        lines.push(self.conditional_writes(&**mailbox).await.of(PLACE));
        lines.push(self.identity(&**mailbox).await.of(PLACE));
        lines.push(self.expiry(&**mailbox).await.of(PLACE));
        lines
    }

    /// Puts the one object of a preflight, and makes the store refuse it the second time.
    async fn conditional_writes(&self, ledger: &dyn Mailbox) -> Line {
        let check = Check::ConditionalWrites;
        if self.parameters.mailboxes.ledger.access.conditional_writes == ConditionalWrites::Weak {
            let remedy =
                "keep the ledger in a store that honours conditional writes: two workers that race would both be right";
            return failed(check, "it is set to conditionalWrites Weak", remedy);
        }
        let key = match ObjectKey::parse(PREFLIGHT_OBJECT) {
            Ok(key) => key,
            Err(error) => return failed(check, error, "report this fault"),
        };
        let content = Bytes::from_static(PREFLIGHT_CONTENT);
        match within(ledger.check_conditional_writes(&key, content)).await {
            Ok(()) => passed(check, format_args!("the store refuses to replace {PREFLIGHT_OBJECT}")),
            Err(Fault::Mailbox(error)) if error.kind() == MailboxErrorKind::Denied => {
                not_checkable(check, "nothing may be put there: see Write")
            }
            Err(fault) => self.faulty(check, PLACE, &fault, "to put objects"),
        }
    }

    async fn identity(&self, ledger: &dyn Mailbox) -> Line {
        let check = Check::Identity;
        let Ok(instance) = InstanceName::parse(&self.parameters.instance) else {
            return not_checkable(check, "the instance's name is none: see Formats");
        };
        let expected = ExpectedLedger {
            id: self.parameters.ledger_id,
            instance: &instance,
            share: self.parameters.share,
            start_at: &self.parameters.start_at,
        };
        let looked = async {
            match look(ledger, &expected).await {
                Err(IdentityError::Mailbox { source }) => Err(source),
                other => Ok(other),
            }
        };
        match within(looked).await {
            Ok(Ok(Some(identity))) => passed(check, identity.id),
            Ok(Ok(None)) => passed(check, "it is new: the first worker gives it an id"),
            Ok(Err(error)) => failed(check, error, "never start over with an empty or another ledger"),
            Err(fault) => self.faulty(check, PLACE, &fault, READ_RIGHT),
        }
    }

    async fn expiry(&self, ledger: &dyn Mailbox) -> Line {
        match within(ledger.expiry_rules()).await {
            Ok(rules) => self.judge(&rules),
            Err(Fault::Mailbox(error)) if error.kind() == MailboxErrorKind::Denied => not_checkable(
                Check::Expiry,
                "we may not read the bucket's lifecycle (S3: s3:GetLifecycleConfiguration; GCS: storage.buckets.get): look yourself that nothing expires",
            ),
            Err(Fault::Mailbox(error)) if error.kind() == MailboxErrorKind::Unsupported => not_checkable(
                Check::Expiry,
                "the store has no rules that could be read: see yourself that nothing deletes old objects",
            ),
            Err(fault) => self.faulty(Check::Expiry, PLACE, &fault, "to read its lifecycle"),
        }
    }

    /// Only claims may expire, and those not before they are of no use.
    fn judge(&self, rules: &[ExpiryRule]) -> Line {
        let guard = &self.parameters.replay_guard;
        let is_fine = |rule: &&ExpiryRule| {
            let of_claims = rule.prefix.starts_with(&format!("{CLAIMS}/"));
            let late = rule.days.is_some_and(|days| days > u64::from(guard.horizon_days));
            of_claims && (late || !guard.enabled)
        };
        let Some(bad) = rules.iter().find(|rule| !is_fine(rule)) else {
            let detail = match rules.len() {
                0 => "nothing expires".to_owned(),
                _ => format!("nothing but {CLAIMS}/ expires"),
            };
            return passed(Check::Expiry, detail);
        };
        let age = bad
            .days
            .map_or_else(|| "at some time".to_owned(), |days| format!("after {days} days"));
        let what = if bad.prefix.is_empty() {
            "everything".to_owned()
        } else {
            format!("{}*", bad.prefix)
        };
        let remedy = format!(
            "take that rule away: only {CLAIMS}/ may expire, later than {} days and the time that a window is open",
            guard.horizon_days
        );
        failed(
            Check::Expiry,
            format_args!("a rule of the bucket deletes {what} {age}"),
            remedy,
        )
    }
}
