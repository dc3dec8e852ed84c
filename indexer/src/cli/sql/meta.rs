//! Backslash commands: the few of psql's that everybody types.

/// A backslash command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meta {
    Quit,
    Help,
    Timing,
    Expanded,
    /// The tables.
    List,
    /// One table's columns.
    Describe(String),
    Unknown(String),
}

impl Meta {
    /// Reads a command; none if the text is SQL.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        if text.eq_ignore_ascii_case("exit") || text.eq_ignore_ascii_case("quit") {
            return Some(Self::Quit);
        }
        if text.eq_ignore_ascii_case("help") {
            return Some(Self::Help);
        }
        let command = text.strip_prefix('\\')?;
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        Some(match (word, rest.trim()) {
            ("q", _) => Self::Quit,
            ("?" | "h" | "help", _) => Self::Help,
            ("timing", _) => Self::Timing,
            ("x", _) => Self::Expanded,
            ("d" | "dt" | "d+", "") => Self::List,
            ("d" | "d+", name) => Self::Describe(name.into()),
            _ => Self::Unknown(word.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (text, expected) in [
            ("\\q", Some(Meta::Quit)),
            (" exit; ", Some(Meta::Quit)),
            ("\\?", Some(Meta::Help)),
            ("help;", Some(Meta::Help)),
            ("\\d", Some(Meta::List)),
            ("\\d;", Some(Meta::List)),
            ("\\d  logs ;", Some(Meta::Describe("logs".into()))),
            ("\\x", Some(Meta::Expanded)),
            ("\\copy x", Some(Meta::Unknown("copy".into()))),
            ("select '\\d';", None),
        ] {
            assert_eq!(Meta::parse(text), expected, "{text}");
        }
    }
}
