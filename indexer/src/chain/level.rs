//! The level of proof of stored blocks.

/// The level of proof of the answers behind a batch. Ordered from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only the returned data was checked: hashes, order, links at the range's boundaries.
    Returned,
    /// Every header of the range was fetched and links to the one below.
    Linked,
    /// Linked, and the headers' blooms prove that no emitter or topic was omitted or added: each bloom equals the bloom of all
    /// logs of its block, or shows that no log of the block matches. Data, order, positions and repetitions of the logs are the
    /// node's claims.
    Bloom,
    /// Linked, and each header's receipts root commits to the receipts with the logs.
    Receipts,
}

impl Level {
    /// The word stored in `coverage.level`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Returned => "returned",
            Level::Linked => "linked",
            Level::Bloom => "bloom",
            Level::Receipts => "receipts",
        }
    }

    /// The level with this name.
    pub fn parse(word: &str) -> Option<Self> {
        [Level::Returned, Level::Linked, Level::Bloom, Level::Receipts].into_iter().find(|level| level.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_words_and_an_order() {
        let levels = [Level::Returned, Level::Linked, Level::Bloom, Level::Receipts];
        assert_eq!(levels.map(Level::as_str), ["returned", "linked", "bloom", "receipts"]);
        assert!(levels.iter().all(|level| Level::parse(level.as_str()) == Some(*level)) && levels.is_sorted());
        assert_eq!(Level::parse("proved"), None);
    }
}
