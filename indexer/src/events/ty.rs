//! The types of an event's parameters, as their values stand in a log.

use alloy::json_abi::Param;
use alloy::json_abi::parser::{TypeSpecifier, TypeStem};

/// The most words that the fixed part of a type may take: no log has a larger one, and the sums below cannot overflow.
const WORDS: usize = 1 << 20;
/// The deepest nesting of a type. Values are read by recursion.
const DEPTH: usize = 16;

/// A type of the ABI. Enums, contracts and the user's own value types are the types below them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ty {
    /// `uintN`: its bits.
    Uint(u16),
    /// `intN`: its bits.
    Int(u16),
    /// `address`.
    Address,
    /// `bool`.
    Bool,
    /// `bytesN`: its bytes; `function` is one of 24.
    FixedBytes(u8),
    /// `bytes`.
    Bytes,
    /// `string`.
    Text,
    /// `T[]`.
    Array(Box<Ty>),
    /// `T[N]`.
    FixedArray(Box<Ty>, usize),
    /// A struct.
    Tuple(Vec<Member>),
}

/// A member of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name; may be empty.
    pub name: String,
    /// Its type.
    pub ty: Ty,
}

impl Ty {
    /// The type in these words of a JSON ABI, such as `tuple[2]` with its members.
    ///
    /// # Errors
    /// Why there is no such type, or why it is too large.
    pub fn parse(text: &str, members: &[Param]) -> Result<Self, String> {
        let ty = Self::nested(text, members, 0)?;
        if ty.words().is_none() {
            return Err(format!("{text} takes more than {WORDS} words"));
        }
        Ok(ty)
    }

    fn nested(text: &str, members: &[Param], depth: usize) -> Result<Self, String> {
        let parsed = TypeSpecifier::parse(text).map_err(|_detail| format!("{text:?} is not a type of Solidity"))?;
        if depth + parsed.sizes.len() > DEPTH {
            return Err(format!("{text:?} is nested more than {DEPTH} deep"));
        }
        let root = match &parsed.stem {
            TypeStem::Root(root) if root.span() == "tuple" => Self::tuple(members, depth)?,
            TypeStem::Root(root) => {
                Self::root(root.span()).ok_or_else(|| format!("{text:?} is not a type of Solidity"))?
            }
            TypeStem::Tuple(tuple) => {
                let of = tuple.types.iter().map(|of| Self::nested(of.span, &[], depth + 1));
                Self::of_members(
                    of.map(|ty| Ok(Member { name: String::new(), ty: ty? })).collect::<Result<_, String>>()?,
                )?
            }
        };
        Ok(parsed.sizes.iter().fold(root, |of, size| match size {
            Some(size) => Self::FixedArray(Box::new(of), size.get()),
            None => Self::Array(Box::new(of)),
        }))
    }

    fn tuple(members: &[Param], depth: usize) -> Result<Self, String> {
        let of = members.iter().map(|member| {
            Ok(Member { name: member.name.clone(), ty: Self::nested(&member.ty, &member.components, depth + 1)? })
        });
        Self::of_members(of.collect::<Result<_, String>>()?)
    }

    /// A struct without members would have values that take no bytes, and a list of them any length.
    fn of_members(members: Vec<Member>) -> Result<Self, String> {
        if members.is_empty() { Err("a struct has no members".into()) } else { Ok(Self::Tuple(members)) }
    }

    fn root(text: &str) -> Option<Self> {
        let bits = |digits: &str| {
            let bits = if digits.is_empty() { 256 } else { digits.parse().ok()? };
            ((8..=256).contains(&bits) && bits % 8 == 0).then_some(bits)
        };
        Some(match text {
            "address" => Self::Address,
            "bool" => Self::Bool,
            "bytes" => Self::Bytes,
            "string" => Self::Text,
            "function" => Self::FixedBytes(24),
            _ if text.starts_with("uint") => Self::Uint(bits(&text[4..])?),
            _ if text.starts_with("int") => Self::Int(bits(&text[3..])?),
            _ => Self::FixedBytes(text.strip_prefix("bytes")?.parse().ok().filter(|size| (1..=32).contains(size))?),
        })
    }

    /// Whether its value is behind an offset.
    pub fn is_dynamic(&self) -> bool {
        match self {
            Self::Bytes | Self::Text | Self::Array(_) => true,
            Self::FixedArray(of, _) => of.is_dynamic(),
            Self::Tuple(members) => members.iter().any(|member| member.ty.is_dynamic()),
            _ => false,
        }
    }

    /// Whether it is one value that a column of its own can hold: no list and no struct.
    pub fn is_single(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::FixedArray(..) | Self::Tuple(_))
    }

    /// The words of its place: 1 for an offset, at least 1 for any type.
    pub fn head(&self) -> usize {
        if self.is_dynamic() { 1 } else { self.body() }
    }

    /// The words of what stands at its place if it is not dynamic, or behind the offset, without what is behind further offsets;
    /// 0 for values without a fixed part.
    pub fn body(&self) -> usize {
        match self {
            Self::Bytes | Self::Text | Self::Array(_) => 0,
            Self::FixedArray(of, size) => of.head() * size,
            Self::Tuple(members) => members.iter().map(|member| member.ty.head()).sum(),
            _ => 1,
        }
    }

    /// The words of all fixed parts; `None` if they are more than allowed.
    fn words(&self) -> Option<usize> {
        let words = match self {
            Self::Array(of) => of.words()?,
            Self::FixedArray(of, size) => of.words()?.checked_mul(*size)?,
            Self::Tuple(members) => {
                members.iter().try_fold(0_usize, |sum, member| sum.checked_add(member.ty.words()?))?
            }
            _ => 1,
        };
        (words <= WORDS).then_some(words)
    }

    /// Whether a 32-byte word is a value of this type, which takes one word.
    pub fn holds(&self, word: &[u8; 32]) -> bool {
        match self {
            Self::Uint(bits) => is_filled(&word[..32 - usize::from(bits / 8)], 0),
            Self::Int(bits) => {
                let (high, low) = word.split_at(32 - usize::from(bits / 8));
                is_filled(high, if low[0] & 0x80 == 0 { 0 } else { 0xff })
            }
            Self::Address => is_filled(&word[..12], 0),
            Self::Bool => is_filled(&word[..31], 0) && word[31] <= 1,
            Self::FixedBytes(size) => is_filled(&word[usize::from(*size)..], 0),
            _ => true,
        }
    }
}

fn is_filled(bytes: &[u8], with: u8) -> bool {
    bytes.iter().all(|byte| *byte == with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(text: &str) -> Ty {
        Ty::parse(text, &[]).unwrap()
    }

    #[test]
    fn types_have_their_place_and_their_body() {
        for (text, head, body, dynamic) in [
            ("uint", 1, 1, false),
            ("int8", 1, 1, false),
            ("bytes32", 1, 1, false),
            ("function", 1, 1, false),
            ("bytes", 1, 0, true),
            ("string", 1, 0, true),
            ("uint8[3]", 3, 3, false),
            ("uint8[3][2]", 6, 6, false),
            ("uint8[]", 1, 0, true),
            ("uint8[][2]", 1, 2, true),
            ("string[2]", 1, 2, true),
            ("(uint8,bool)", 2, 2, false),
            ("(uint8,bytes)", 1, 2, true),
            ("(uint8,(address,bool)[2])[3]", 15, 15, false),
        ] {
            let ty = ty(text);
            assert_eq!((ty.head(), ty.body(), ty.is_dynamic()), (head, body, dynamic), "{text}");
        }
        assert_eq!((ty("uint"), ty("function")), (Ty::Uint(256), Ty::FixedBytes(24)));
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for text in [
            "",
            "uint7",
            "uint264",
            "int0",
            "bytes33",
            "bytes0",
            "uint8[0]",
            "fixed128x18",
            "Enum",
            "uint8[",
            "()",
            "tuple",
            "uint8[1048577]",
            "uint8[1024][1025]",
            "uint8[18446744073709551615][18446744073709551615]",
        ] {
            assert!(Ty::parse(text, &[]).is_err(), "{text}");
        }
        let deep = format!("uint8{}", "[]".repeat(17));
        assert!(Ty::parse(&deep, &[]).unwrap_err().contains("deep"));
        assert!(Ty::parse(&format!("{}uint8{}", "(".repeat(17), ")".repeat(17)), &[]).unwrap_err().contains("deep"));
    }

    #[test]
    fn a_word_is_a_value_of_its_type_or_not() {
        let word = |high: u8, low: &[u8]| {
            let mut word = [high; 32];
            word[32 - low.len()..].copy_from_slice(low);
            word
        };
        for (text, word, is_value) in [
            ("uint8", word(0, &[255]), true),
            ("uint8", word(0, &[1, 0]), false),
            ("uint256", word(255, &[]), true),
            ("int8", word(0, &[127]), true),
            ("int8", word(0, &[128]), false),
            ("int8", word(255, &[128]), true),
            ("int8", word(255, &[127]), false),
            ("int256", word(128, &[]), true),
            ("bool", word(0, &[1]), true),
            ("bool", word(0, &[2]), false),
            ("bool", word(1, &[1]), false),
            ("address", word(0, &[7; 20]), true),
            ("address", word(0, &[7; 21]), false),
            ("bytes4", word(0, &[]), true),
            ("bytes4", word(0, &[1]), false),
            ("bytes32", word(9, &[]), true),
        ] {
            assert_eq!(ty(text).holds(&word), is_value, "{text} {word:?}");
        }
    }
}
