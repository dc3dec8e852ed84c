//! Blocks as arguments.

/// A block's number.
pub(super) fn block(text: &str) -> Result<u64, String> {
    // The range of PostgreSQL's int8: no chain has more blocks.
    let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
    number.ok_or_else(|| "a block is a whole number, 0 or more".to_owned())
}
