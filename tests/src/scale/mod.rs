//! `make scale`: many batches through two parties on the node, measured.

pub mod counters;
pub mod measure;
pub mod progress;
pub mod report;
pub mod usage;

use std::collections::BTreeMap;

/// Amounts by name, of two times or of their difference.
pub type Amounts = BTreeMap<String, f64>;

/// What was added since `before`; what was added nothing to is left out.
pub fn since(before: &Amounts, after: &Amounts) -> Amounts {
    let added = |(name, value): (&String, &f64)| {
        let added = value - before.get(name).copied().unwrap_or_default();
        (added > 0.0).then(|| (name.clone(), added))
    };
    after.iter().filter_map(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added() {
        let of = |all: &[(&str, f64)]| -> Amounts { all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect() };
        let before = of(&[("a", 1.0), ("b", 2.0)]);
        let after = of(&[("a", 1.0), ("b", 5.0), ("c", 4.0)]);
        assert_eq!(since(&before, &after), of(&[("b", 3.0), ("c", 4.0)]));
    }
}
