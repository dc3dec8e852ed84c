//! The values behind the offsets of a log's data, read strictly: each byte of the data belongs to one value.
//!
//! Contracts that share a tail between values, or point to themselves, could make small data say millions of values. So every read
//! word is paid from the number of words that the data has. What is left at the end belongs to no value.

use std::fmt::Write as _;

use super::ty::{Member, Ty};

/// Why data is not that of the event's parameters.
pub type Fault = &'static str;

const SHORT: Fault = "the data ends before a value of its parameters";
const OUTSIDE: Fault = "an offset points outside the data";
const SHARED: Fault = "offsets point to the same bytes";
const HEAD: Fault = "an offset points to itself or before its values";
const WORD: Fault = "a word of the data is not a value of its type";
/// Data that no parameter has.
pub const LEFT: Fault = "the data has bytes that belong to no parameter";

/// The data of one log, with its unread words.
#[derive(Debug)]
pub struct Data<'d> {
    bytes: &'d [u8],
    /// The words at its beginning, which offsets must not point to.
    head: usize,
    unread: usize,
}

impl<'d> Data<'d> {
    /// The data of an event whose parameters take `head` words at the beginning.
    ///
    /// # Errors
    /// It is shorter.
    pub fn new(bytes: &'d [u8], head: usize) -> Result<Self, Fault> {
        let mut data = Self { bytes, head, unread: bytes.len().div_ceil(32) };
        if bytes.len() / 32 < head {
            return Err(SHORT);
        }
        data.pay(head)?;
        Ok(data)
    }

    /// The word at a place of the head.
    ///
    /// # Errors
    /// The data ends before.
    pub fn word(&self, at: usize) -> Result<&'d [u8; 32], Fault> {
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(SHORT)
    }

    /// The bytes of a `bytes` or `string`, whose offset is the word at `at`.
    ///
    /// # Errors
    /// They are not in the data, or were read already.
    pub fn bytes(&mut self, at: usize) -> Result<&'d [u8], Fault> {
        let start = self.follow(0, at, self.head)?;
        self.bytes_from(start)
    }

    /// As [`Data::bytes`], of bytes that were read already.
    ///
    /// # Errors
    /// They are not in the data.
    pub fn again(&self, at: usize) -> Result<&'d [u8], Fault> {
        let start = self.follow(0, at, self.head)?;
        Ok(self.sized(start)?.0)
    }

    /// Writes the value of a list or a struct at byte `at` of the head as JSON: integers of more than 48 bits as decimal texts,
    /// bytes and addresses as 0x texts, structs as objects if each member has a name of its own.
    ///
    /// # Errors
    /// The fault of its data.
    pub fn json(&mut self, ty: &Ty, at: usize, text: &mut String) -> Result<(), Fault> {
        self.value(ty, 0, at, self.head, text)
    }

    /// Whether all of the data was read.
    ///
    /// # Errors
    /// It has more.
    pub fn end(&self) -> Result<(), Fault> {
        if self.unread == 0 { Ok(()) } else { Err(LEFT) }
    }

    fn pay(&mut self, words: usize) -> Result<(), Fault> {
        self.unread = self.unread.checked_sub(words).ok_or(SHARED)?;
        Ok(())
    }

    /// The place that the offset at byte `at` names, counted from `base`, where `head` words of fixed parts stand.
    fn follow(&self, base: usize, at: usize, head: usize) -> Result<usize, Fault> {
        let offset = length(self.word(at)?).ok_or(OUTSIDE)?;
        let start = base.checked_add(offset).filter(|start| *start < self.bytes.len()).ok_or(OUTSIDE)?;
        if offset < head * 32 { Err(HEAD) } else { Ok(start) }
    }

    fn bytes_from(&mut self, start: usize) -> Result<&'d [u8], Fault> {
        let (bytes, words) = self.sized(start)?;
        self.pay(words)?;
        Ok(bytes)
    }

    /// Bytes behind their length, and the words of both.
    fn sized(&self, start: usize) -> Result<(&'d [u8], usize), Fault> {
        let size = length(self.word(start)?).ok_or(OUTSIDE)?;
        let bytes = self.bytes.get(start + 32..).and_then(|rest| rest.get(..size)).ok_or(OUTSIDE)?;
        Ok((bytes, 1 + size.div_ceil(32)))
    }

    /// The value whose place is byte `at`. Offsets count from `base`; its sequence has `head` words of fixed parts.
    fn value(&mut self, ty: &Ty, base: usize, at: usize, head: usize, text: &mut String) -> Result<(), Fault> {
        if !ty.is_dynamic() {
            return self.body(ty, at, text);
        }
        let start = self.follow(base, at, head)?;
        match ty {
            Ty::Array(of) => {
                let size = length(self.word(start)?).ok_or(OUTSIDE)?;
                let words = size.checked_mul(of.head()).ok_or(OUTSIDE)?;
                self.pay(words.checked_add(1).ok_or(OUTSIDE)?)?;
                self.sequence(std::iter::repeat_n((&**of, None), size), start + 32, words, '[', text)
            }
            Ty::Bytes => {
                let bytes = self.bytes_from(start)?;
                hex(bytes, text);
                Ok(())
            }
            Ty::Text => {
                let bytes = self.bytes_from(start)?;
                string(bytes, text);
                Ok(())
            }
            _ => {
                self.pay(ty.body())?;
                self.body(ty, start, text)
            }
        }
    }

    /// The fixed part of a value at byte `at`, which is paid.
    fn body(&mut self, ty: &Ty, at: usize, text: &mut String) -> Result<(), Fault> {
        match ty {
            Ty::FixedArray(of, size) => {
                self.sequence(std::iter::repeat_n((&**of, None), *size), at, ty.body(), '[', text)
            }
            Ty::Tuple(members) => {
                let named = is_named(members);
                let of = members.iter().map(|member| (&member.ty, named.then_some(&*member.name)));
                self.sequence(of, at, ty.body(), if named { '{' } else { '[' }, text)
            }
            single => {
                let word = self.word(at)?;
                if !single.holds(word) {
                    return Err(WORD);
                }
                write_word(single, word, text);
                Ok(())
            }
        }
    }

    fn sequence<'t>(
        &mut self,
        of: impl Iterator<Item = (&'t Ty, Option<&'t str>)>,
        base: usize,
        head: usize,
        open: char,
        text: &mut String,
    ) -> Result<(), Fault> {
        let mut at = base;
        text.push(open);
        for (ty, name) in of {
            if at > base {
                text.push(',');
            }
            if let Some(name) = name {
                string(name.as_bytes(), text);
                text.push(':');
            }
            self.value(ty, base, at, head, text)?;
            at += ty.head() * 32;
        }
        text.push(if open == '{' { '}' } else { ']' });
        Ok(())
    }
}

/// A struct is an object only if no two members share a key.
fn is_named(members: &[Member]) -> bool {
    let named =
        |at: usize| !members[at].name.is_empty() && !members[..at].iter().any(|other| other.name == members[at].name);
    (0..members.len()).all(named)
}

/// A length or an offset; data of 4 GiB does not exist.
fn length(word: &[u8; 32]) -> Option<usize> {
    let (high, low) = word.split_last_chunk::<4>()?;
    high.iter().all(|byte| *byte == 0).then(|| u32::from_be_bytes(*low) as usize)
}

/// Integers up to this size are exact in every reader of JSON.
const EXACT_BITS: u16 = 48;

fn write_word(ty: &Ty, word: &[u8; 32], text: &mut String) {
    use alloy::primitives::{I256, U256};
    // Writing to a text cannot fail.
    let _ = match ty {
        Ty::Uint(bits) if *bits <= EXACT_BITS => write!(text, "{}", U256::from_be_bytes(*word)),
        Ty::Int(bits) if *bits <= EXACT_BITS => write!(text, "{}", I256::from_be_bytes(*word)),
        Ty::Uint(_) => write!(text, "\"{}\"", U256::from_be_bytes(*word)),
        Ty::Int(_) => write!(text, "\"{}\"", I256::from_be_bytes(*word)),
        Ty::Bool => write!(text, "{}", word[31] == 1),
        Ty::FixedBytes(size) => {
            hex(&word[..usize::from(*size)], text);
            Ok(())
        }
        _ => {
            hex(&word[12..], text);
            Ok(())
        }
    };
}

fn hex(bytes: &[u8], text: &mut String) {
    text.push_str("\"0x");
    text.push_str(&alloy::hex::encode(bytes));
    text.push('"');
}

/// A text that PostgreSQL can hold: valid UTF-8 without NUL.
pub fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// A text, or, if PostgreSQL could not hold it, an object with its bytes.
fn string(bytes: &[u8], text: &mut String) {
    match as_text(bytes) {
        // A text is always valid JSON.
        Some(valid) => text.push_str(&serde_json::to_string(valid).unwrap_or_default()),
        None => {
            text.push_str("{\"hex\":");
            hex(bytes, text);
            text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a number each, as hexadecimal or text of up to 32 bytes on the left.
    fn words(of: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in of {
            let mut padded = [0; 32];
            match word.strip_prefix('\'') {
                Some(left) => padded[..left.len()].copy_from_slice(left.as_bytes()),
                None => padded[24..].copy_from_slice(&u64::from_str_radix(word, 16).unwrap().to_be_bytes()),
            }
            bytes.extend(padded);
        }
        bytes
    }

    fn json(types: &[&str], bytes: &[u8]) -> Result<String, Fault> {
        let types: Vec<Ty> = types.iter().map(|text| Ty::parse(text, &[]).unwrap()).collect();
        let mut data = Data::new(bytes, types.iter().map(Ty::head).sum())?;
        let (mut text, mut at) = (String::new(), 0);
        for ty in &types {
            data.json(ty, at, &mut text)?;
            text.push(' ');
            at += ty.head() * 32;
        }
        data.end()?;
        Ok(text.trim_end().into())
    }

    #[test]
    fn values_behind_offsets_are_read() {
        let array = ["20", "2", "7", "8"];
        assert_eq!(json(&["uint8[]"], &words(&array)).unwrap(), "[7,8]");
        assert_eq!(json(&["uint64[]"], &words(&array)).unwrap(), "[\"7\",\"8\"]");
        let texts = ["20", "2", "40", "80", "2", "'hi", "0"];
        assert_eq!(json(&["string[]"], &words(&texts)).unwrap(), "[\"hi\",\"\"]");
        let both = ["7", "60", "a0", "3", "'a\"b", "1", "'\0"];
        assert_eq!(json(&["uint8", "string", "string"], &words(&both)).unwrap(), "7 \"a\\\"b\" {\"hex\":\"0x00\"}");
        let fixed = ["1", "2", "3", "4"];
        assert_eq!(json(&["(uint8,bool[1])[2]"], &words(&["1", "1", "3", "0"])).unwrap(), "[[1,[true]],[3,[false]]]");
        assert_eq!(json(&["uint8[2][2]"], &words(&fixed)).unwrap(), "[[1,2],[3,4]]");
        let mut unpadded = words(&["20", "2", "'hi"]);
        unpadded.truncate(66);
        assert_eq!(json(&["bytes"], &unpadded).unwrap(), "\"0x6869\"");
    }

    #[test]
    fn each_byte_is_of_one_value() {
        for (types, bytes, fault) in [
            (&["uint8"][..], &[][..], SHORT),
            (&["uint8"], &["100"], WORD),
            (&["uint8"], &["1", "2"], LEFT),
            (&["string"], &["20"], OUTSIDE),
            (&["string"], &["0"], HEAD),
            (&["string"], &["1f", "0"], HEAD),
            (&["string"], &["20", "21", "'too short"], OUTSIDE),
            (&["string"], &["20", "ffffffffffff", "'x"], OUTSIDE),
            (&["string"], &["20", "1", "'x", "0"], LEFT),
            (&["string"], &["40", "0", "1", "'x"], LEFT),
            (&["string", "string"], &["40", "40", "1", "'x"], SHARED),
            (&["uint8[]"], &["20", "2", "1"], SHARED),
            (&["uint8[]"], &["20", "ffffffff"], SHARED),
            (&["uint8[][]"], &["20", "2", "40", "40", "1", "1"], SHARED),
            (&["uint8[][]"], &["20", "1", "0"], HEAD),
            (&["string[3]"], &["20", "60", "60", "60", "0"], SHARED),
        ] {
            assert_eq!(json(types, &words(bytes)), Err(fault), "{types:?} {bytes:?}");
        }
    }
}
