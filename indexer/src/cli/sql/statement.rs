//! The part of SQL's lexical rules that decides whether a text is a complete statement, and where a command is in it.

use super::meta::Meta;

/// The typed text, line by line.
#[derive(Clone, Debug, Default)]
pub(super) struct Typing(String);

/// The result of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// The statement continues.
    More,
    /// One statement or several, complete.
    Sql(String),
    /// A command; the text typed before it stays.
    Command(Meta),
}

impl Typing {
    /// The prompt shows the expected next line.
    pub fn prompt(&self) -> &'static str {
        match self.0.is_empty() {
            true => "dalp=> ",
            false if is_open(&self.0) => "dalp'> ",
            false => "dalp-> ",
        }
    }

    /// Clears it.
    #[cfg(feature = "prompt")]
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a line. Words such as `help` are commands on a separate line, unless a quote is open; a text that begins with a
    /// backslash is a command anywhere outside quotes.
    pub fn take(&mut self, line: &str) -> Typed {
        if !is_open(&self.0)
            && let Some(command) = Meta::parse(line)
        {
            return Typed::Command(command);
        }
        self.0.push_str(line);
        self.0.push('\n');
        if let Some(at) = backslash(&self.0)
            && let Some(command) = Meta::parse(&self.0[at..])
        {
            self.0.truncate(at);
            if self.0.trim().is_empty() {
                self.0.clear();
            }
            return Typed::Command(command);
        }
        if self.0.trim().is_empty() {
            self.0.clear();
        }
        if is_complete(self.0.trim()) && !self.0.is_empty() {
            Typed::Sql(std::mem::take(&mut self.0))
        } else {
            Typed::More
        }
    }
}

/// A piece of a file or of `-c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Statements that run as one.
    Sql(String),
    Command(Meta),
}

/// The content of `-c`: a command, or statements.
pub(super) fn part(text: &str) -> Part {
    Meta::parse(text).map_or_else(|| Part::Sql(text.to_owned()), Part::Command)
}

/// A file's parts: lines that begin with a backslash outside quotes are commands. The text between them begins with as many empty
/// lines as there are lines before it, so that an error names the file's line.
pub(super) fn parts(text: &str) -> Vec<Part> {
    if text.trim().lines().count() <= 1 {
        return if text.trim().is_empty() { Vec::new() } else { vec![part(text)] };
    }
    let (mut parts, mut sql, mut before) = (Vec::new(), String::new(), 0);
    let ended = |sql: String, before: usize, parts: &mut Vec<Part>| {
        if !sql.trim().is_empty() {
            parts.push(Part::Sql("\n".repeat(before) + &sql));
        }
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let command = line.trim_start().starts_with('\\').then(|| Meta::parse(line)).flatten();
        match command.filter(|_| !is_open(&sql)) {
            Some(command) => {
                ended(std::mem::take(&mut sql), before, &mut parts);
                before = number + 1;
                parts.push(Part::Command(command));
            }
            None => sql.push_str(line),
        }
    }
    ended(sql, before, &mut parts);
    parts
}

/// Whether a quote or comment is open at the end.
fn is_open(sql: &str) -> bool {
    let mut rest = sql;
    while !rest.is_empty() {
        match skip_token(rest) {
            Some(after) => rest = after,
            None => return true,
        }
    }
    false
}

/// The position of the first backslash outside quotes and comments.
fn backslash(sql: &str) -> Option<usize> {
    let mut rest = sql;
    while !rest.is_empty() {
        if rest.starts_with('\\') {
            return Some(sql.len() - rest.len());
        }
        rest = skip_token(rest)?;
    }
    None
}

/// Texts of 20 or 32 bytes in hexadecimal digits after 0x, each in quotes: an address or a hash for contracts and nodes, a text
/// for PostgreSQL.
pub(super) fn hex_texts(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = sql;
    while !rest.is_empty() {
        let Some(after) = skip_token(rest) else { break };
        let token = &rest[..rest.len() - after.len()];
        let inner = token.strip_prefix('\'').and_then(|token| token.strip_suffix('\''));
        let digits = inner.and_then(|text| text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")));
        let is_bytes = |digits: &str| [40, 64].contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit());
        found.extend(inner.filter(|_| digits.is_some_and(is_bytes)));
        rest = after;
    }
    found
}

/// Whether this is a whole statement: it ends with `;` outside of every quote and comment.
fn is_complete(sql: &str) -> bool {
    let mut rest = sql;
    let mut ended = false;
    while let Some(c) = rest.chars().next() {
        // An open quote or comment needs another line.
        let Some(after) = skip_token(rest) else { return false };
        // Space and comments after the semicolon change nothing.
        if !c.is_whitespace() && !is_comment(rest) {
            ended = c == ';';
        }
        rest = after;
    }
    ended
}

fn is_comment(sql: &str) -> bool {
    sql.starts_with("--") || sql.starts_with("/*")
}

/// The text after the token that `sql` begins with; none if the token has no end.
fn skip_token(sql: &str) -> Option<&str> {
    if let Some(comment) = sql.strip_prefix("--") {
        return Some(comment.find('\n').map_or("", |end| &comment[end + 1..]));
    }
    if sql.starts_with("/*") {
        return skip_block_comment(sql);
    }
    let mut chars = sql.chars();
    match chars.next()? {
        quote @ ('\'' | '"') => skip_quoted(chars.as_str(), quote, false),
        '$' => skip_dollar_quoted(sql),
        c if c.is_alphabetic() || c == '_' => skip_word(sql),
        _ => Some(chars.as_str()),
    }
}

fn skip_block_comment(sql: &str) -> Option<&str> {
    // PostgreSQL nests them.
    let (mut depth, mut at) = (0, 0);
    loop {
        if sql[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if sql[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += sql[at..].chars().next()?.len_utf8();
        }
        if depth == 0 {
            return Some(&sql[at..]);
        }
    }
}

/// A doubled quote ends one literal and begins the next; the result is the same.
fn skip_quoted(sql: &str, quote: char, backslash: bool) -> Option<&str> {
    let mut chars = sql.chars();
    loop {
        match chars.next()? {
            '\\' if backslash => chars.next().map(drop)?,
            c if c == quote => return Some(chars.as_str()),
            _ => {}
        }
    }
}

/// `$$ … $$` or `$tag$ … $tag$`; a lone `$` (as in `$1`) is a token of its own.
fn skip_dollar_quoted(sql: &str) -> Option<&str> {
    let after = &sql[1..];
    let tag_end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
    let is_tag = after[tag_end..].starts_with('$') && !after.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return Some(after);
    }
    let (tag, body) = sql.split_at(tag_end + 2);
    body.find(tag).map(|end| &body[end + tag.len()..])
}

/// A word may hold `$`, and `e'…'` is a string with backslashes.
fn skip_word(sql: &str) -> Option<&str> {
    let end = sql.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(sql.len());
    let (word, after) = sql.split_at(end);
    match after.strip_prefix('\'') {
        Some(string) if word.eq_ignore_ascii_case("e") => skip_quoted(string, '\'', true),
        _ => Some(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_work_wherever_one_types_them() {
        let after = |lines: &[&str]| {
            let mut typing = Typing::default();
            let last = lines.iter().map(|line| typing.take(line)).last().unwrap();
            (last, typing.prompt())
        };
        for (lines, typed, prompt) in [
            (&["select 1"][..], Typed::More, "dalp-> "),
            (&["select 1", ";"], Typed::Sql("select 1\n;\n".into()), "dalp=> "),
            (&["select 1", "help"], Typed::Command(Meta::Help), "dalp-> "),
            (&["select 1", "exit"], Typed::Command(Meta::Quit), "dalp-> "),
            (&["select 1", "\\q"], Typed::Command(Meta::Quit), "dalp-> "),
            (&["select 1 \\q"], Typed::Command(Meta::Quit), "dalp-> "),
            (&["help"], Typed::Command(Meta::Help), "dalp=> "),
            (&["select 'a", "exit"], Typed::More, "dalp'> "),
            (&["select 'a", "exit", "';"], Typed::Sql("select 'a\nexit\n';\n".into()), "dalp=> "),
            (&["select '\\q';"], Typed::Sql("select '\\q';\n".into()), "dalp=> "),
            (&["select 1 -- \\q"], Typed::More, "dalp-> "),
            (&["", "  "], Typed::More, "dalp=> "),
            (&["\\d logs"], Typed::Command(Meta::Describe("logs".into())), "dalp=> "),
        ] {
            assert_eq!(after(lines), (typed, prompt), "{lines:?}");
        }
    }

    #[test]
    fn a_file_holds_statements_and_commands() {
        let sql = |text: &str| Part::Sql(text.to_owned());
        let table = || Part::Command(Meta::Describe("t".to_owned()));
        for (text, expected) in [
            ("", vec![]),
            (" \n\n", vec![]),
            ("help\n", vec![Part::Command(Meta::Help)]),
            ("select 1", vec![sql("select 1")]),
            ("select 1;\nselect\nhelp\n;\n", vec![sql("select 1;\nselect\nhelp\n;\n")]),
            ("\\d t\nselect 1;\n", vec![table(), sql("\nselect 1;\n")]),
            ("a;\n \\d t\n\nb;", vec![sql("a;\n"), table(), sql("\n\n\nb;")]),
            ("select '\n\\d t\n';", vec![sql("select '\n\\d t\n';")]),
        ] {
            assert_eq!(parts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn addresses_that_are_texts_are_found() {
        let (address, hash) = (format!("0x{}", "aB".repeat(20)), format!("0x{}", "01".repeat(32)));
        let sql = format!("select '{address}', hex('{hash}'), '0x12', 'x0x', \"{address}\" -- '{hash}'");
        assert_eq!(hex_texts(&sql), [&address, &hash]);
    }

    #[test]
    fn complete_or_not() {
        for (sql, complete) in [
            ("select 1;", true),
            ("select 1; \n -- done", true),
            ("select 1; /* done */", true),
            ("select 1", false),
            ("select 1; select 2", false),
            ("select ';", false),
            ("select ';';", true),
            ("select 'it''s;", false),
            ("select 'it''s';", true),
            (r"select e'\';", false),
            (r"select e'\'';", true),
            (r"select '\';", true),
            ("select \"a;", false),
            ("select 1 -- ;", false),
            ("select 1 /* ; ", false),
            ("select 1 /* /* */ ;", false),
            ("select 1 /* /* */ */ ;", true),
            ("do $$ begin; end", false),
            ("do $$ begin; end $$;", true),
            ("do $a$ $$; $a$;", true),
            ("do $a$ $b$;", false),
            ("select $1;", true),
            ("select a$b$c;", true),
            ("select 'ß→'; ", true),
            ("", false),
            (";", true),
        ] {
            assert_eq!(is_complete(sql), complete, "{sql}");
        }
    }
}
