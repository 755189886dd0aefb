//! Rules by which stores delete objects by themselves.

/// A rule of a bucket that deletes objects of a mailbox when they are old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryRule {
    /// Names inside the mailbox begin with it; empty: all of them.
    pub prefix: String,
    /// At what age, in days; `None`: the rule says it in another way.
    pub days: Option<u64>,
}

impl ExpiryRule {
    /// The rule as it concerns a mailbox whose names begin with `root` in the bucket; `None`: it doesn't.
    #[cfg(feature = "cloud")]
    pub(crate) fn inside(root: &str, prefix: &str, days: Option<u64>) -> Option<Self> {
        let prefix = match prefix.strip_prefix(root) {
            Some(inner) => inner,
            None if root.starts_with(prefix) => "",
            None => return None,
        };
        let prefix = prefix.to_owned();
        Some(Self { prefix, days })
    }
}

#[cfg(all(test, feature = "cloud"))]
mod tests {
    use super::*;

    #[test]
    fn a_rule_concerns_what_begins_as_it_says() {
        let inside = |root, prefix| ExpiryRule::inside(root, prefix, Some(1)).map(|rule| rule.prefix);
        let table = [
            ("", "", Some("")),
            ("", "claims/", Some("claims/")),
            ("us-ct/", "", Some("")),
            ("us-ct/", "us-", Some("")),
            ("us-ct/", "us-ct/claims/", Some("claims/")),
            ("us-ct/", "claims/", None),
            ("us-ct/", "us-ct-more/", None),
        ];
        for (root, prefix, expected) in table {
            assert_eq!(inside(root, prefix).as_deref(), expected, "{root:?} {prefix:?}");
        }
    }
}
