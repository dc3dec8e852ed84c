//! The words of a node that refuses, and how long it asks to be left alone.

#![no_main]

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use dalp_fuzz::bounded;
use dalp_indexer::nodes::fuzzing::{Refusal, retry_after};
use libfuzzer_sys::fuzz_target;

/// Codes that mean something.
const CODES: [i64; 8] = [0, 429, 4444, -32_005, -32_007, -32_029, -32_601, i64::MIN];

fuzz_target!(|input: &[u8]| {
    let Ok(words) = str::from_utf8(input) else { return };
    let blocks = input.len() as u64;
    for code in CODES {
        for asked in [None, Some(0), Some(1), Some(blocks), Some(u64::MAX)] {
            let refusal = bounded(8 * input.len(), || Refusal::of(code, words, asked, 2));
            if let Refusal::TooLarge { suggested: Some(suggested), .. } = refusal {
                let asked = asked.expect("a question for no blocks is not too large");
                assert!(suggested > 0 && suggested < asked.max(2), "{suggested} instead of {asked}");
            }
        }
    }
    for now in [DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + TimeDelta::days(20_000), DateTime::<chrono::Utc>::MIN_UTC]
    {
        if let Some(pause) = retry_after(words, now) {
            assert!((Duration::from_millis(100)..=Duration::from_secs(60)).contains(&pause), "{pause:?}");
        }
    }
});
