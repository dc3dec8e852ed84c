//! `numeric` between PostgreSQL's base 10,000 and two's complement, exactly and in the server's own canonical form. Pure.

use bytes::{BufMut, BytesMut};

/// Bytes of a word of 256 bits with its sign before it.
pub(super) const WORD: usize = 33;
/// Bits for a word of 256, three more decimal digits, and the sign.
const LIMBS: usize = 5;
const NEGATIVE: u16 = 0x4000;
const BASE: u64 = 10_000;

/// A magnitude, least limb first.
type Big = [u64; LIMBS];

/// `big * factor + more`; `None` on overflow.
fn times_plus(big: &mut Big, factor: u64, more: u64) -> Option<()> {
    let mut carry = u128::from(more);
    for limb in big.iter_mut() {
        let wide = u128::from(*limb) * u128::from(factor) + carry;
        *limb = wide as u64;
        carry = wide >> 64;
    }
    (carry == 0).then_some(())
}

/// `big / divisor`, and the remainder.
fn divide(big: &mut Big, divisor: u64) -> u64 {
    let mut rest = 0_u128;
    for limb in big.iter_mut().rev() {
        let wide = rest << 64 | u128::from(*limb);
        *limb = (wide / u128::from(divisor)) as u64;
        rest = wide % u128::from(divisor);
    }
    rest as u64
}

/// Zeroes that fill a scale up to whole digits of base 10,000.
fn padding(scale: i32) -> u32 {
    (4 - scale.rem_euclid(4)).rem_euclid(4).unsigned_abs()
}

/// A field of binary COPY, times 10^scale, as big-endian two's complement of 33 bytes. `None` for NaN, infinity, or overflow.
pub(super) fn from_wire(field: &[u8], scale: i32) -> Option<[u8; WORD]> {
    let word = |at: usize| Some(u16::from_be_bytes(field.get(at..at + 2)?.try_into().ok()?));
    let (count, sign) = (usize::from(word(0)?), word(4)?);
    let weight = i32::from(i16::from_be_bytes(word(2)?.to_be_bytes()));
    if (sign != 0 && sign != NEGATIVE) || field.len() != 8 + 2 * count {
        return None;
    }
    // Digits from the highest to the last one of the scale; digits that were not sent are zero.
    let last = -(scale + i32::try_from(padding(scale)).ok()?) / 4;
    let mut big = Big::default();
    for (at, place) in (last..=weight).rev().enumerate() {
        let digit = if at < count { u64::from(word(8 + 2 * at)?) } else { 0 };
        times_plus(&mut big, BASE, digit)?;
        let _ = place;
    }
    // More digits than the scale would be lost.
    let sent = i32::try_from(count).ok()?;
    if count > 0 && weight - sent + 1 < last {
        return None;
    }
    if divide(&mut big, 10_u64.pow(padding(scale))) != 0 {
        return None;
    }
    to_bytes(&big, sign == NEGATIVE)
}

fn to_bytes(big: &Big, negative: bool) -> Option<[u8; WORD]> {
    let mut bytes = [0_u8; WORD];
    // The lowest byte of the highest limb is the sign byte; above 256 bits all must be zero.
    if big[4] != 0 {
        return None;
    }
    for (at, limb) in big[..4].iter().enumerate() {
        bytes[WORD - 8 * (at + 1)..WORD - 8 * at].copy_from_slice(&limb.to_be_bytes());
    }
    if negative {
        negate(&mut bytes);
    }
    Some(bytes)
}

fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes.iter_mut().rev() {
        let (negated, more) = (!*byte).overflowing_add(u8::from(carry));
        (*byte, carry) = (negated, more);
    }
}

/// Writes big-endian two's complement, divided by 10^scale, as a field of binary COPY with its length. Like the server, it writes
/// no zero digit at either end.
pub(super) fn put_wire(bytes: &[u8], scale: i32, into: &mut BytesMut) -> Option<()> {
    let negative = bytes.first()? & 0x80 != 0;
    let mut wide = [if negative { 0xff } else { 0 }; WORD];
    wide[WORD.checked_sub(bytes.len())?..].copy_from_slice(bytes);
    if negative {
        negate(&mut wide);
    }
    let mut big = Big::default();
    for (at, limb) in big[..4].iter_mut().enumerate() {
        *limb = u64::from_be_bytes(wide[WORD - 8 * (at + 1)..WORD - 8 * at].try_into().ok()?);
    }
    big[4] = wide[0].into();
    times_plus(&mut big, 10_u64.pow(padding(scale)), 0)?;
    // Lowest first, four digits of base 10,000 at a division.
    let mut digits = [0_u16; 32];
    let mut count = 0;
    while big != Big::default() {
        let mut four = divide(&mut big, BASE.pow(4));
        for digit in &mut digits[count..count + 4] {
            *digit = (four % BASE) as u16;
            four /= BASE;
        }
        count += 4;
    }
    let fraction = (usize::try_from(scale).ok()? + padding(scale) as usize) / 4;
    let end = digits[..count].iter().rposition(|digit| *digit != 0).map_or(0, |at| at + 1);
    let start = digits[..end].iter().position(|digit| *digit != 0).unwrap_or(0);
    let sent = end - start;
    into.put_i32(i32::try_from(8 + 2 * sent).ok()?);
    into.put_i16(i16::try_from(sent).ok()?);
    let weight = if sent == 0 { 0 } else { i16::try_from(end).ok()? - i16::try_from(fraction).ok()? - 1 };
    into.put_i16(weight);
    into.put_u16(if negative { NEGATIVE } else { 0 });
    into.put_i16(i16::try_from(scale).ok()?);
    for digit in digits[start..end].iter().rev() {
        into.put_u16(*digit);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// A field from its digits, as the server sends it.
    fn field(weight: i16, negative: bool, scale: i16, digits: &[u16]) -> Vec<u8> {
        let mut field = Vec::new();
        for word in [digits.len() as i16, weight, if negative { 0x4000 } else { 0 }, scale] {
            field.extend(word.to_be_bytes());
        }
        field.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
        field
    }

    fn check(wire: &[u8], scale: i32) {
        let bytes = from_wire(wire, scale).unwrap();
        let mut back = BytesMut::new();
        put_wire(&bytes, scale, &mut back).unwrap();
        assert_eq!(&back[4..], wire, "{wire:?}");
    }

    #[test]
    fn numbers_are_the_same_there_and_back() {
        for (wire, scale, low) in [
            (field(0, false, 0, &[]), 0, 0_u128),
            (field(0, false, 0, &[1]), 0, 1),
            (field(1, false, 0, &[1]), 0, 10_000),
            (field(1, false, 0, &[12, 3456]), 0, 123_456),
            // 1.5 and 0.0001 with scales 2 and 4; 12.34567 with 5.
            (field(0, false, 2, &[1, 5000]), 2, 150),
            (field(-1, false, 4, &[1]), 4, 1),
            (field(0, false, 5, &[12, 3456, 7000]), 5, 1_234_567),
        ] {
            let bytes = from_wire(&wire, scale).unwrap();
            assert_eq!(bytes[WORD - 16..], low.to_be_bytes(), "{wire:?}");
            check(&wire, scale);
        }
        let minus_one = from_wire(&field(0, true, 0, &[1]), 0).unwrap();
        assert_eq!(minus_one, [0xff; WORD]);
        check(&field(0, true, 0, &[1]), 0);
        // 2^256 - 1: its word is all ones, behind a sign byte of 0.
        let digits = [
            11, 5792, 892, 3731, 6195, 4235, 7098, 5008, 6879, 785, 3269, 9846, 6564, 564, 394, 5758, 4007, 9131, 2963,
            9935,
        ];
        let most = field(19, false, 0, &digits);
        let bytes = from_wire(&most, 0).unwrap();
        assert_eq!((bytes[0], &bytes[1..]), (0, &[0xff; 32][..]));
        check(&most, 0);
    }

    #[test]
    fn what_is_no_such_number_is_refused() {
        let mut nan = field(0, false, 0, &[]);
        nan[4] = 0xc0;
        for (wire, scale) in [
            (nan, 0),
            (field(20, false, 0, &[1]), 0),
            (field(0, false, 4, &[1, 5000]), 0),
            (field(0, false, 3, &[1, 5]), 2),
            (vec![0; 7], 0),
            (field(0, false, 0, &[1])[..9].to_vec(), 0),
        ] {
            assert_eq!(from_wire(&wire, scale), None, "{wire:?}");
        }
    }

    #[test]
    fn random_numbers_are_the_same_there_and_back() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..20_000 {
            let mut bytes = [0_u8; WORD];
            let length = rng.random_range(0..=32);
            rng.fill(&mut bytes[WORD - length..]);
            if rng.random() {
                negate(&mut bytes);
            }
            for scale in [0, 1, 2, 4, 7, 18] {
                let mut wire = BytesMut::new();
                put_wire(&bytes, scale, &mut wire).unwrap();
                assert_eq!(from_wire(&wire[4..], scale), Some(bytes), "{bytes:?} {scale}");
            }
        }
    }
}
