//! The durations of repeated work: histograms, filled at the place of the work and read by /metrics.

use std::time::Instant;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Chain and lane.
type Labels = [(&'static str, String); 2];
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// Of all chains.
#[derive(Clone, Debug)]
pub struct Timings {
    fetch: Histograms,
    commit: Histograms,
}

impl Default for Timings {
    fn default() -> Self {
        // From 4 ms to 33 s: a local node answers within a few milliseconds, and `request_timeout` ends a failing one.
        let fetch = || Histogram::new(exponential_buckets(0.004, 2.0, 14));
        // From 1 ms to 8 s: a block at the head takes a few, a full batch hundreds.
        let commit = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        Self { fetch: Family::new_with_constructor(fetch), commit: Family::new_with_constructor(commit) }
    }
}

impl Timings {
    /// The timings of one chain, by its name in the configuration.
    pub fn of_chain(&self, chain: &str) -> ChainTimings {
        let lane = |lane: &str| {
            let labels = [("chain", chain.to_owned()), ("lane", lane.to_owned())];
            LaneTimings {
                fetch: self.fetch.get_or_create_owned(&labels),
                commit: self.commit.get_or_create_owned(&labels),
            }
        };
        ChainTimings { tail: lane("tail"), backfill: lane("backfill") }
    }

    /// Registers them for each scrape.
    pub fn register(&self, registry: &mut Registry) {
        // The library adds a full stop to this text.
        let help = "Time to fetch and prove a batch that arrived";
        registry.register("fetch_seconds", help, self.fetch.clone());
        let help = "Time to write a batch: encode it, wait for a connection, and run the transaction up to the answer to COMMIT";
        registry.register("commit_seconds", help, self.commit.clone());
    }
}

/// Of one chain.
#[derive(Clone, Debug)]
pub struct ChainTimings {
    /// Of its tail.
    pub tail: LaneTimings,
    /// Of its backfill.
    pub backfill: LaneTimings,
}

/// Of one lane of a chain.
#[derive(Clone, Debug)]
pub struct LaneTimings {
    fetch: Histogram,
    commit: Histogram,
}

impl LaneTimings {
    /// A batch arrived whose request began at `began`.
    pub fn fetched(&self, began: Instant) {
        self.fetch.observe(began.elapsed().as_secs_f64());
    }

    /// A batch is committed whose write began at `began`.
    pub fn committed(&self, began: Instant) {
        self.commit.observe(began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text::encode;

    use super::*;

    #[test]
    fn what_is_timed_is_counted_for_its_lane() {
        let (timings, mut registry, mut text) = (Timings::default(), Registry::default(), String::new());
        timings.register(&mut registry);
        timings.of_chain("a").tail.fetched(Instant::now());
        timings.of_chain("a").backfill.committed(Instant::now());
        encode(&mut text, &registry).unwrap();
        for (series, count) in [
            (r#"fetch_seconds_count{chain="a",lane="tail"}"#, 1),
            (r#"fetch_seconds_count{chain="a",lane="backfill"}"#, 0),
            (r#"commit_seconds_count{chain="a",lane="tail"}"#, 0),
            (r#"commit_seconds_count{chain="a",lane="backfill"}"#, 1),
        ] {
            assert!(text.contains(&format!("\n{series} {count}\n")), "{series} {count}:\n{text}");
        }
    }
}
