//! No sum of fewer clients than the floor is released (ledger rule 7).
//!
//! Each side enforces it alone: one withheld sum part leaves the other uniformly random. It doesn't bind an ingestor who
//! fills a window up with clients of its own making.

/// Whether a window of `clients` valid, included clients, counted after subtraction, may be released.
#[must_use]
pub fn may_release(clients: u64, min_clients: u64) -> bool {
    // A sum of nobody says nothing, and a portal can't use it.
    clients >= min_clients.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_inclusive_and_nobody_is_never_summed() {
        for (clients, floor, expected) in [
            (0, 0, false),
            (1, 0, true),
            (0, 1, false),
            (99, 100, false),
            (100, 100, true),
            (u64::MAX, 100, true),
        ] {
            assert_eq!(may_release(clients, floor), expected, "{clients} of {floor}");
        }
    }
}
