//! The metadata that a token declares, read from the answers of its contract. A contract may answer anything.

use alloy::primitives::Address;

/// The declared metadata of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The contract.
    pub address: Address,
    /// Its `name()`.
    pub name: Option<String>,
    /// Its `symbol()`.
    pub symbol: Option<String>,
    /// Its `decimals()`.
    pub decimals: Option<i16>,
    /// The newest block of the node when the contract was asked.
    pub at_block: u64,
}

impl Token {
    /// From the answers to `name()`, `symbol()` and `decimals()`, each empty if the call failed.
    pub fn of(address: Address, at_block: u64, [name, symbol, decimals_]: [&[u8]; 3]) -> Self {
        Self { address, name: text(name), symbol: text(symbol), decimals: decimals(decimals_), at_block }
    }

    /// Whether it declares nothing: it is no token, or has no code yet.
    pub fn is_silent(&self) -> bool {
        self.name.is_none() && self.symbol.is_none() && self.decimals.is_none()
    }
}

/// Most bytes of a text.
const TEXT: usize = 256;
/// Most decimals: 2^256 has 78 digits.
const DECIMALS: u8 = 77;

/// A `string`, or a `bytes32` with zero bytes at its end, as early tokens answer. `None` for anything that is not a text of 1 to 256
/// bytes in UTF-8 without control characters.
fn text(answer: &[u8]) -> Option<String> {
    let bytes = match answer.len() {
        32 => {
            let end = answer.iter().rposition(|byte| *byte != 0)?;
            &answer[..=end]
        }
        _ => {
            let (length, rest) = answer.get(size(answer)?..)?.split_first_chunk::<32>()?;
            rest.get(..size(length)?)?
        }
    };
    let text = std::str::from_utf8(bytes).ok()?;
    ((1..=TEXT).contains(&text.len()) && !text.contains(char::is_control)).then(|| text.to_owned())
}

fn decimals(answer: &[u8]) -> Option<i16> {
    u8::try_from(size(answer)?).ok().filter(|decimals| *decimals <= DECIMALS).map(i16::from)
}

/// The number in the first word.
fn size(bytes: &[u8]) -> Option<usize> {
    let (high, low) = bytes.first_chunk::<32>()?.split_at(24);
    let low = u64::from_be_bytes(*low.first_chunk()?);
    usize::try_from(low).ok().filter(|_| high.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(number: u8) -> Vec<u8> {
        let mut word = vec![0; 32];
        word[31] = number;
        word
    }

    /// A text as a `string`.
    fn string(text: &[u8]) -> Vec<u8> {
        let mut length = vec![0; 32];
        length[30..].copy_from_slice(&(text.len() as u16).to_be_bytes());
        [word(32), length, text.to_vec()].concat()
    }

    #[test]
    fn a_text_is_read_in_both_forms() {
        let mut short = b"MKR".to_vec();
        short.resize(32, 0);
        for (answer, expected) in [
            (string(b"Tether USD"), Some("Tether USD")),
            (string("USD₮".as_bytes()), Some("USD₮")),
            // Padded, as compilers do.
            ([string(b"A"), vec![0; 31]].concat(), Some("A")),
            (short, Some("MKR")),
            (vec![b'x'; 32], Some("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")),
            (string(b""), None),
            (vec![0; 32], None),
            (word(32), None),
            (Vec::new(), None),
            (vec![1; 31], None),
            (string(b"a\0b"), None),
            (string(b"a\nb"), None),
            (string("a\u{85}b".as_bytes()), None),
            (string(b"\xff"), None),
            (string(&[b'a'; 257]), None),
            // A length, and an offset, beyond the answer.
            ([word(32), word(9), b"short".to_vec()].concat(), None),
            ([vec![0xff; 32], word(1), vec![b'a']].concat(), None),
            ([word(200), word(1), vec![b'a']].concat(), None),
        ] {
            assert_eq!(text(&answer).as_deref(), expected, "{answer:?}");
        }
        assert_eq!(text(&string(&[b'a'; 256])).map(|text| text.len()), Some(256));
    }

    #[test]
    fn decimals_are_those_that_an_amount_can_have() {
        for (answer, expected) in [
            (word(0), Some(0)),
            (word(18), Some(18)),
            (word(77), Some(77)),
            (word(78), None),
            (vec![0xff; 32], None),
            (vec![0; 31], None),
            ([vec![0; 22], vec![1], vec![0; 9]].concat(), None),
        ] {
            assert_eq!(decimals(&answer), expected, "{answer:?}");
        }
        let silent = Token::of(Address::ZERO, 1, [&[], &[1], &word(200)]);
        assert!(silent.is_silent() && !Token::of(Address::ZERO, 1, [&[], &[], &word(0)]).is_silent());
    }
}
