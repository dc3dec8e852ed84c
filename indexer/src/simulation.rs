//! The simulation's seeds: a fixed number in each test run; more seeds or a single one on request.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::chain::sim::simulate;

/// Seeds of an ordinary run.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn every_seed_ends_with_the_canonical_chain() {
    if let Some(seed) = number("DALP_SIM_SEED") {
        return simulate(seed);
    }
    for seed in 0..number("DALP_SIM_SEEDS").unwrap_or(SEEDS) {
        if catch_unwind(AssertUnwindSafe(|| simulate(seed))).is_err() {
            panic!("seed {seed} fails; replay it: DALP_SIM_SEED={seed} cargo test -p dalp-indexer --lib simulation");
        }
    }
}
