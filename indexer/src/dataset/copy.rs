//! PostgreSQL's binary COPY format, directly into one buffer: no box per cell.

use alloy::primitives::B256;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::chain::block::TIMES;

/// Seconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const PG_EPOCH: i64 = 946_684_800;
/// Unix seconds as microseconds since 2000-01-01 UTC, the binary form of timestamptz. `None`: absurd (past year 9999
/// or before 1970), which no block may carry.
pub fn pg_micros(seconds: i64) -> Option<i64> {
    TIMES.contains(&seconds).then(|| (seconds - PG_EPOCH) * 1_000_000)
}

/// The same moment in microseconds since 1970; infinity stays after all times.
pub fn unix_micros(pg_micros: i64) -> i64 {
    pg_micros.saturating_add(PG_EPOCH * 1_000_000)
}

/// Fields of known sizes, built on the stack: they are written into the buffer in one piece, and the compiler, which knows every
/// offset, adds no checks at run time. `SIZE` is at least the number of their bytes.
#[derive(Debug)]
pub struct Fixed<const SIZE: usize> {
    bytes: [u8; SIZE],
    at: usize,
}

impl<const SIZE: usize> Fixed<SIZE> {
    /// Begins a row of `fields` fields.
    #[inline(always)]
    pub fn row(fields: i16) -> Self {
        Self { bytes: [0; SIZE], at: 0 }.put(fields.to_be_bytes())
    }

    /// An int8 or timestamptz field.
    #[inline(always)]
    pub fn int8(self, value: i64) -> Self {
        self.put(8i32.to_be_bytes()).put(value.to_be_bytes())
    }

    /// An int4 field. The parser has refused values past 2^31.
    #[inline(always)]
    pub fn int4(self, value: u32) -> Self {
        self.put(4i32.to_be_bytes()).put(value.to_be_bytes())
    }

    /// A bytea field.
    #[inline(always)]
    pub fn bytes<const N: usize>(self, value: [u8; N]) -> Self {
        self.put((N as i32).to_be_bytes()).put(value)
    }

    #[inline(always)]
    fn put<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
        self
    }
}

/// The begin of the format; flags and the length of an extension follow, both zero.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The fields of each row of sent COPY data. A row is in one chunk.
pub fn fields(chunks: &[Bytes]) -> Vec<Vec<Option<Bytes>>> {
    let mut rows = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        let mut rest = chunk.slice(if at == 0 { SIGNATURE.len() + 8 } else { 0 }..);
        while rest.len() >= 2
            && let Ok(fields) = u16::try_from(rest.get_i16())
        {
            let field = |_| usize::try_from(rest.get_i32()).ok().map(|length| rest.split_to(length));
            rows.push((0..fields).map(field).collect());
        }
    }
    rows
}

/// Rows for a COPY. Every row must get exactly its declared number of fields.
#[derive(Debug)]
pub struct CopyBuffer {
    buffer: BytesMut,
}

impl CopyBuffer {
    /// A buffer that begins with the format's signature.
    pub fn new(capacity: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(capacity);
        buffer.put_slice(SIGNATURE);
        buffer.put_i32(0);
        buffer.put_i32(0);
        Self { buffer }
    }

    /// Bytes waiting to be sent.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes the waiting bytes; the next row starts after them.
    pub fn take(&mut self, capacity: usize) -> Bytes {
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(capacity));
        full.freeze()
    }

    /// Removes the bytes after this length.
    pub fn shorten(&mut self, length: usize) {
        self.buffer.truncate(length);
    }

    /// The format's trailer.
    pub fn finish(&mut self) {
        self.buffer.put_i16(-1);
    }

    /// Begins a row of `fields` fields.
    pub fn row(&mut self, fields: i16) -> &mut Self {
        self.buffer.put_i16(fields);
        self
    }

    /// An int8 or timestamptz field.
    pub fn int8(&mut self, value: i64) -> &mut Self {
        self.buffer.put_i32(8);
        self.buffer.put_i64(value);
        self
    }

    /// An int4 field. The parser has refused values past 2^31.
    pub fn int4(&mut self, value: u32) -> &mut Self {
        self.buffer.put_i32(4);
        self.buffer.put_u32(value);
        self
    }

    /// The begin of a row, or more fields of one.
    #[inline(always)]
    pub fn fixed<const SIZE: usize>(&mut self, fields: &Fixed<SIZE>) -> &mut Self {
        self.buffer.extend_from_slice(&fields.bytes[..fields.at]);
        self
    }

    /// Cells that are known except for their values, which the caller fills in.
    #[inline(always)]
    pub fn template(&mut self, cells: &[u8]) -> &mut [u8] {
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(cells);
        &mut self.buffer[begin..]
    }

    /// A bytea or text field.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        // Answers are limited to far below 2 GiB, and so are their parts.
        self.buffer.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.buffer.put_slice(value);
        self
    }

    /// A jsonb field from its text, which PostgreSQL parses.
    pub fn json(&mut self, text: &str) -> &mut Self {
        self.buffer.put_i32(i32::try_from(text.len() + 1).unwrap_or(i32::MAX));
        // The version of the form.
        self.buffer.put_u8(1);
        self.buffer.put_slice(text.as_bytes());
        self
    }

    /// A bytea or text field that may be NULL.
    pub fn optional(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.bytes(value),
            None => {
                self.buffer.put_i32(-1);
                self
            }
        }
    }

    /// A bytea field of one word, or NULL.
    #[inline(always)]
    pub fn word(&mut self, word: Option<&B256>) -> &mut Self {
        let mut field = [0; 4 + 32];
        match word {
            Some(word) => {
                field[..4].copy_from_slice(&32i32.to_be_bytes());
                field[4..].copy_from_slice(word.as_slice());
                self.buffer.extend_from_slice(&field);
            }
            None => self.buffer.put_i32(-1),
        }
        self
    }

    /// A numeric field from a big-endian uint256.
    pub fn uint256(&mut self, value: &[u8; 32]) -> &mut Self {
        self.numeric(value, POSITIVE)
    }

    /// A numeric field from a big-endian int256 in two's complement.
    pub fn int256(&mut self, value: &[u8; 32]) -> &mut Self {
        if value[0] & 0x80 == 0 {
            return self.numeric(value, POSITIVE);
        }
        let mut size = *value;
        let mut carry = true;
        for byte in size.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
        self.numeric(&size, NEGATIVE)
    }

    fn numeric(&mut self, value: &[u8; 32], sign: i16) -> &mut Self {
        let (digits, count) = base_10_000(value);
        // Least significant first: trailing zero digits are not stored, leading ones were never produced.
        let trailing = digits[..count].iter().take_while(|digit| **digit == 0).count();
        let stored = count - trailing;
        // With the power of 10,000 of the first digit; without decimals. Zero has the power 0, as in the server's form.
        let head = [stored as i16, count.saturating_sub(1) as i16, sign, 0];
        let mut field = [0; 4 + 8 + 2 * MAX_DIGITS];
        let (length, words) = field.split_at_mut(4);
        length.copy_from_slice(&(8 + 2 * stored as i32).to_be_bytes());
        let all = head.iter().chain(digits[trailing..count].iter().rev());
        for (bytes, word) in words.chunks_exact_mut(2).zip(all) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        self.buffer.extend_from_slice(&field[..4 + 8 + 2 * stored]);
        self
    }
}

/// The sign in the form of a numeric.
const POSITIVE: i16 = 0;
const NEGATIVE: i16 = 0x4000;

/// Most digits of a uint256 in base 10,000: 2^256 has 78 decimal digits.
const MAX_DIGITS: usize = 20;

/// The digits of a big-endian uint256 in base 10,000, least significant first, and their number; 0 for zero.
fn base_10_000(value: &[u8; 32]) -> ([i16; MAX_DIGITS], usize) {
    let mut limbs = [0u32; 8];
    for (limb, bytes) in limbs.iter_mut().zip(value.chunks_exact(4)) {
        *limb = bytes.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte));
    }
    let (mut digits, mut count) = ([0; MAX_DIGITS], 0);
    let mut first = 0;
    loop {
        first += limbs[first..].iter().take_while(|limb| **limb == 0).count();
        if first == limbs.len() {
            break;
        }
        // Two digits per pass over the limbs, all in machine words: a division of 128 bits is a function call.
        const STEP: u64 = 100_000_000;
        let mut rest = 0;
        for limb in &mut limbs[first..] {
            let part = rest << 32 | u64::from(*limb);
            *limb = (part / STEP) as u32;
            rest = part % STEP;
        }
        digits[count] = (rest % 10_000) as i16;
        digits[count + 1] = (rest / 10_000) as i16;
        count += 2;
    }
    while count > 0 && digits[count - 1] == 0 {
        count -= 1;
    }
    (digits, count)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// A big-endian uint256 in decimal digits.
    fn decimal(value: &[u8; 32]) -> String {
        let (digits, count) = base_10_000(value);
        let text: String = digits[..count].iter().rev().map(|digit| format!("{digit:04}")).collect();
        match text.trim_start_matches('0') {
            "" => "0".into(),
            text => text.into(),
        }
    }

    #[test]
    fn digits_are_those_of_the_number() {
        let ten = U256::from(10);
        let mut values = vec![U256::ZERO, U256::from(1), U256::MAX, U256::from(9_999), U256::from(10_000)];
        values.extend((0..78).map(|power| ten.pow(U256::from(power))));
        values.extend((1..78).map(|power| ten.pow(U256::from(power)) - U256::from(1)));
        let mut rng = StdRng::seed_from_u64(1);
        values.extend((0..10_000).map(|_| U256::from_be_bytes(rng.random::<[u8; 32]>()) >> rng.random_range(0..256)));
        for value in values {
            assert_eq!(decimal(&value.to_be_bytes()), value.to_string());
        }
    }

    #[test]
    fn the_binary_form_is_postgresqls() {
        let encode = |value: u64| {
            let mut copy = CopyBuffer { buffer: BytesMut::new() };
            copy.uint256(&U256::from(value).to_be_bytes());
            copy.buffer.to_vec()
        };
        // length, ndigits, weight, sign, dscale, digits
        assert_eq!(encode(0), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode(7), [0, 0, 0, 10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(encode(10_000), [0, 0, 0, 10, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(encode(10_002), [0, 0, 0, 12, 0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2]);
    }

    #[test]
    fn times_outside_what_both_sides_hold_are_refused() {
        assert_eq!(pg_micros(PG_EPOCH), Some(0));
        assert_eq!(pg_micros(0), Some(-946_684_800_000_000));
        assert_eq!(pg_micros(-1), None);
        assert_eq!(pg_micros(1_585_683_000_000), None, "the year 52217");
    }
}
