//! How much is proved of what is stored.

/// How much the answers behind a batch prove. Ordered from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only what came back was checked: hashes, order, links at the range's boundaries.
    Returned,
    /// Every header of the range was fetched and links to the one below.
    Linked,
    /// Linked, and no emitter or topic was left out or added, by the headers' blooms: each equals the one recomputed from all
    /// logs of its block, or shows that the block holds nothing of what is watched. Data, order and places of the logs, and how
    /// often one came, are the node's word.
    Bloom,
    /// Linked, and each header's receipts root is that of the receipts which hold the logs.
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

    /// The level of that name.
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
