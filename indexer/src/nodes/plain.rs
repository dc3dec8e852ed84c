//! JSON in the common layout of nodes, read in one pass: strings without escapes, hex directly to bytes. Pure.
//!
//! A reader of a part of JSON that never names an error: serde reads every other input, well formed or not, accepts all of JSON
//! and names every error. Serde gives the same result for every input that this reader accepts.

use alloy::hex;
use serde_json::value::RawValue;

/// A position in a text. `None` from any method means that serde must read this text; the position is then useless.
#[derive(Clone, Debug)]
pub struct Cursor<'b> {
    text: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    /// The beginning of `text`.
    pub fn new(text: &'b [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Bytes before this position.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes behind this position.
    pub fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// The next byte that is no whitespace; the position stays before it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Whether `byte` comes next; if so, the position moves past it.
    fn eat(&mut self, byte: u8) -> bool {
        let comes = self.peek() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    /// Whether only whitespace is left.
    pub fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// Each item of an array; `item` reads it.
    pub fn items(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'[')?;
        if self.eat(b']') {
            return Some(());
        }
        loop {
            item(self)?;
            if !self.eat(b',') {
                return self.expect(b']');
            }
        }
    }

    /// Each field of an object; `field` gets its name and reads its value.
    pub fn fields(&mut self, mut field: impl FnMut(&mut Self, &'b [u8]) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.eat(b'}') {
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.expect(b':')?;
            field(self, name)?;
            if !self.eat(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// The text between two quotes. It is the string's value only if it has no escape, which the caller checks: no known name and
    /// no hex has one.
    fn string(&mut self) -> Option<&'b [u8]> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let end = quote(rest)?;
        self.at += end + 1;
        Some(&rest[..end])
    }

    /// `N` bytes in hex with `0x`.
    pub fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.peek()?;
        let [b'"', b'0', b'x', digits @ .., b'"'] = self.text.get(self.at..self.at + 2 * N + 4)? else { return None };
        self.at += 2 * N + 4;
        hex::decode_to_array(digits).ok()
    }

    /// Any whole number of bytes in hex with `0x`; replaces the content of `bytes`.
    pub fn bytes(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let digits = self.string()?.strip_prefix(b"0x")?;
        bytes.resize(digits.len() / 2, 0);
        hex::decode_to_slice(digits, bytes).ok()
    }

    /// A number in hex with `0x`, of at most 16 digits.
    pub fn quantity(&mut self) -> Option<u64> {
        self.peek()?;
        let digits = self.text[self.at..].strip_prefix(b"\"0x")?;
        let mut number = 0;
        for (count, byte) in digits.iter().take(17).enumerate() {
            match char::from(*byte).to_digit(16) {
                Some(digit) => number = number << 4 | u64::from(digit),
                None if *byte == b'"' && count > 0 => {
                    self.at += b"\"0x".len() + count + 1;
                    return Some(number);
                }
                None => return None,
            }
        }
        None
    }

    /// A whole number in decimal digits.
    pub fn number(&mut self) -> Option<u64> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let digits = &rest[..rest.iter().take_while(|byte| byte.is_ascii_digit()).count()];
        // JSON has no leading zeros, and a following fraction or exponent meets no comma.
        if digits.len() > 1 && digits[0] == b'0' {
            return None;
        }
        self.at += digits.len();
        str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The bare word `word`, if it comes next; then the position moves past it.
    pub fn word(&mut self, word: &str) -> bool {
        self.peek();
        let comes = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if comes { word.len() } else { 0 };
        comes
    }

    /// Skips any value without parts.
    pub fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                let plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
                self.string()?.iter().all(plain).then_some(())
            }
            b't' => self.word("true").then_some(()),
            b'f' => self.word("false").then_some(()),
            b'n' => self.word("null").then_some(()),
            _ => self.number().map(|_| ()),
        }
    }

    /// The text of any value.
    pub fn value(&mut self) -> Option<&'b str> {
        let mut values = serde_json::Deserializer::from_slice(&self.text[self.at..]).into_iter::<&RawValue>();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value.get())
    }
}

/// The position of the first quote. Names are short: for them, comparing eight bytes at once is faster than a call of a search
/// for long texts.
#[inline(always)]
fn quote(text: &[u8]) -> Option<usize> {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const SHORT: usize = 24;
    let (chunks, _) = text.get(..SHORT).unwrap_or_default().as_chunks::<8>();
    for (at, chunk) in chunks.iter().enumerate() {
        // The lowest byte that becomes zero is the first one that borrows (Hacker's Delight, 6-1).
        let zero = u64::from_le_bytes(*chunk) ^ (EACH * u64::from(b'"'));
        let found = zero.wrapping_sub(EACH) & !zero & (EACH << 7);
        if found != 0 {
            return Some(8 * at + found.trailing_zeros() as usize / 8);
        }
    }
    memchr::memchr(b'"', text)
}

#[cfg(test)]
#[path = "plain_tests.rs"]
pub(super) mod tests;
