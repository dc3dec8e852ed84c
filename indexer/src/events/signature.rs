//! Events as people write them: `Paid(address indexed by, (uint256 amount, bytes4 code)[] parts) anonymous`. alloy's reader has no names
//! for the members of a struct.

use serde_json::{Value, json};

/// The deepest nesting of a struct in a signature.
const DEPTH: usize = 16;

/// The item of a JSON ABI with this signature.
pub(super) fn item(text: &str) -> Option<Value> {
    let (name, rest) = text.trim().split_once('(')?;
    let (params, rest) = rest.rsplit_once(')')?;
    let anonymous = match rest.trim() {
        "" => false,
        "anonymous" => true,
        _ => return None,
    };
    let inputs: Option<Vec<Value>> = parts(params)?.into_iter().map(|part| param(part, 0)).collect();
    Some(json!({ "type": "event", "name": name.trim(), "inputs": inputs?, "anonymous": anonymous }))
}

/// A type, perhaps `indexed`, perhaps a name.
fn param(text: &str, depth: usize) -> Option<Value> {
    let text = text.trim();
    let (ty, members, rest) = match text.strip_prefix("tuple").unwrap_or(text).strip_prefix('(') {
        Some(rest) if depth < DEPTH => {
            let end = closing(rest)?;
            let members: Option<Vec<Value>> =
                parts(&rest[..end])?.into_iter().map(|part| param(part, depth + 1)).collect();
            let (sizes, rest) = word(&rest[end + 1..]);
            (format!("tuple{sizes}"), members?, rest)
        }
        Some(_) => return None,
        None => {
            let (ty, rest) = word(text);
            (alias(ty), Vec::new(), rest)
        }
    };
    let mut words = rest.split_whitespace().peekable();
    // A member of a struct has no such word.
    let indexed = depth == 0 && words.next_if_eq(&"indexed").is_some();
    let mut whole = json!({ "name": words.next().unwrap_or_default(), "type": ty, "components": members });
    if depth == 0 {
        whole["indexed"] = indexed.into();
    }
    words.next().is_none().then_some(whole)
}

/// `uint` and `int` stand for the widest ones, which is what is hashed.
fn alias(ty: &str) -> String {
    let (root, sizes) = ty.split_at(ty.find('[').unwrap_or(ty.len()));
    let root = match root {
        "uint" => "uint256",
        "int" => "int256",
        other => other,
    };
    format!("{root}{sizes}")
}

/// The text up to the first space, and what follows.
fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// The place of the parenthesis that closes one before the text.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => open += 1,
            ')' if open == 0 => return Some(at),
            ')' => open -= 1,
            _ => {}
        }
    }
    None
}

/// The parts between commas that stand in no parentheses; `None` for an empty one among others.
fn parts(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut open, mut begin) = (Vec::new(), 0_usize, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => open += 1,
            ')' => open = open.checked_sub(1)?,
            ',' if open == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    match parts[..] {
        [only] if only.trim().is_empty() => Some(Vec::new()),
        _ => parts.iter().all(|part| !part.trim().is_empty()).then_some(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::Abi;
    use super::*;

    #[test]
    fn members_have_names() {
        let text = "A(uint a, (bytes4 tag, (int x)[2] y)[] indexed terms, tuple(address) who, bool)";
        let abi = Abi::read(text).unwrap();
        let event = &abi.events[0];
        assert_eq!(event.signature, "A(uint256,(bytes4,(int256)[2])[],(address),bool)");
        assert_eq!(
            event.to_string(),
            "A(uint256 a, (bytes4 tag, (int256 x)[2] y)[] indexed terms, (address) who, bool)"
        );
    }

    #[test]
    fn other_texts_are_no_signatures() {
        for text in [
            "",
            "A",
            "A(",
            "A)",
            "A(uint a",
            "A(uint,)",
            "A(,)",
            "A(uint a b)",
            "A(uint indexed a b)",
            "A((uint a)",
            "A(uint) view",
            "A(uint a))",
        ] {
            assert_eq!(item(text), None, "{text}");
        }
        let deep = format!("A({}uint{})", "(".repeat(17), ")".repeat(17));
        assert_eq!(item(&deep), None);
        assert!(item("A()").is_some() && item(" A ( uint  a ) anonymous ").is_some());
    }
}
