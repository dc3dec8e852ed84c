//! Just enough of SQL's lexical rules to know whether a text is a whole statement.

/// Whether Enter should send this text, which has no space around it: nothing, a backslash command or a whole statement.
pub(super) fn is_sent(text: &str) -> bool {
    text.is_empty() || text.starts_with('\\') || is_complete(text)
}

/// Whether this is a whole statement: it ends with `;` outside of every quote and comment.
fn is_complete(sql: &str) -> bool {
    let mut rest = sql;
    let mut ended = false;
    while let Some(c) = rest.chars().next() {
        // What cannot be closed yet wants another line.
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

/// A doubled quote ends one literal and begins the next, which comes to the same.
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
