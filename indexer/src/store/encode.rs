//! PostgreSQL's binary COPY format, straight into one buffer: nothing is boxed per cell.

use bytes::{BufMut, BytesMut};

/// Seconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const PG_EPOCH: i64 = 946_684_800;
/// The last second that both PostgreSQL's timestamptz and our formatting hold: the end of year 9999.
const MAX_SECONDS: i64 = 253_402_300_799;

/// Unix seconds as microseconds since 2000-01-01 UTC, the binary form of timestamptz. `None`: absurd (past year 9999
/// or before 1970), which no block may carry.
pub fn pg_micros(seconds: i64) -> Option<i64> {
    (0..=MAX_SECONDS).contains(&seconds).then(|| (seconds - PG_EPOCH) * 1_000_000)
}

/// Rows on their way into a COPY. Every row must get exactly the number of fields it was begun with.
#[derive(Debug)]
pub struct CopyBuffer {
    buffer: BytesMut,
}

impl CopyBuffer {
    /// A buffer that begins with the format's signature.
    pub fn new(capacity: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(capacity);
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.put_i32(0);
        buffer.put_i32(0);
        Self { buffer }
    }

    /// Bytes waiting to be sent.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes what waits; the next row goes on behind it.
    pub fn take(&mut self, capacity: usize) -> bytes::Bytes {
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(capacity));
        full.freeze()
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

    /// An int4 field. Values past 2^31 were refused by the parser.
    pub fn int4(&mut self, value: u32) -> &mut Self {
        self.buffer.put_i32(4);
        self.buffer.put_u32(value);
        self
    }

    /// A bytea or text field.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        // An answer is capped far below 2 GiB, so is every part of it.
        self.buffer.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.buffer.put_slice(value);
        self
    }

    /// A bytea field that may be NULL.
    pub fn optional(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.bytes(value),
            None => {
                self.buffer.put_i32(-1);
                self
            }
        }
    }

    /// A numeric field from a big-endian uint256.
    pub fn uint256(&mut self, value: &[u8; 32]) -> &mut Self {
        let (digits, count) = base_10_000(value);
        // Least significant first: trailing zero digits are not stored, leading ones were never produced.
        let trailing = digits[..count].iter().take_while(|digit| **digit == 0).count();
        let stored = count - trailing;
        self.buffer.put_i32(8 + 2 * stored as i32);
        self.buffer.put_i16(stored as i16);
        self.buffer.put_i16(count as i16 - 1); // weight: the power of 10,000 of the first digit
        self.buffer.put_i16(0); // positive
        self.buffer.put_i16(0); // no decimals
        for digit in digits[trailing..count].iter().rev() {
            self.buffer.put_i16(*digit);
        }
        self
    }
}

/// A big-endian uint256 in decimal digits.
pub fn decimal(value: &[u8; 32]) -> String {
    let (digits, count) = base_10_000(value);
    let text: String = digits[..count].iter().rev().map(|digit| format!("{digit:04}")).collect();
    match text.trim_start_matches('0') {
        "" => "0".into(),
        text => text.into(),
    }
}

/// The digits of a big-endian uint256 in base 10,000, least significant first, and how many there are (at most 20, as
/// 2^256 has 78 decimal digits; 0 for zero).
fn base_10_000(value: &[u8; 32]) -> ([i16; 20], usize) {
    let mut words = [0u64; 4];
    for (word, bytes) in words.iter_mut().zip(value.chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    let (mut digits, mut count) = ([0i16; 20], 0);
    let mut first = words.iter().take_while(|word| **word == 0).count();
    while first < 4 {
        // Divide by 10^16 at once: four digits for one pass over the words.
        const STEP: u128 = 10_000_000_000_000_000;
        let mut rest = 0u128;
        for word in &mut words[first..] {
            let part = rest << 64 | u128::from(*word);
            *word = (part / STEP) as u64;
            rest = part % STEP;
        }
        let mut rest = rest as u64;
        while first < 4 && words[first] == 0 {
            first += 1;
        }
        for _ in 0..4 {
            if first == 4 && rest == 0 {
                break;
            }
            digits[count] = (rest % 10_000) as i16;
            rest /= 10_000;
            count += 1;
        }
    }
    (digits, count)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

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
        assert_eq!(encode(0), [0, 0, 0, 8, 0, 0, 255, 255, 0, 0, 0, 0]);
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
