//! The tail lane's fetches under way, and their results. A lost fetch or a missing batch is an error of its chain: otherwise the
//! machine would wait for it for ever.

use std::collections::HashMap;
use std::sync::Arc;

use crate::chain::block::BlockRange;
use crate::chain::machine::{FetchFailure, FetchId, Input, Machine};
use crate::dataset::Sorted;
use crate::task::{Group, Lost};

/// The hashes of a batch for the machine: enough to find the nodes' final block among them.
const TOLD: usize = 1_024;

/// The result of a fetch.
type Fetched = Result<Sorted, FetchFailure>;

#[derive(Default)]
pub(super) struct Fetches {
    tasks: Group<(FetchId, BlockRange), Fetched>,
    batches: HashMap<FetchId, Arc<Sorted>>,
}

impl Fetches {
    pub fn begin(&mut self, id: FetchId, range: BlockRange, fetch: impl Future<Output = Fetched> + Send + 'static) {
        self.tasks.spawn((id, range), fetch);
    }

    /// The next result, for the machine; pending while no fetch is under way. Cancel-safe.
    ///
    /// # Errors
    /// The lost fetch, and the cause.
    pub async fn next(&mut self) -> Result<Input, String> {
        let ((id, range), fetched) = self.tasks.next().await;
        Ok(match fetched.map_err(|lost| format!("the fetch of {range}: {lost}"))? {
            Ok(batch) => {
                let (link, logs, bytes) = (batch.link(), batch.logs().len() as u64, batch.bytes() as u64);
                let blocks = batch.newest(TOLD).collect();
                self.batches.insert(id, Arc::new(batch));
                Input::Fetched { id, link, logs, bytes, blocks }
            }
            Err(failure) => Input::FetchFailed { id, failure },
        })
    }

    /// The batch of a fetch that was reported to the machine.
    ///
    /// # Errors
    /// If it is missing.
    pub fn batch(&self, id: FetchId) -> Result<Arc<Sorted>, Lost> {
        self.batches.get(&id).cloned().ok_or_else(|| Lost::nobody_is_at("the batch to append"))
    }

    /// Drops batches that the machine no longer wants.
    pub fn keep(&mut self, machine: &Machine) {
        self.batches.retain(|id, _| machine.wants(*id));
    }

    /// Ends the fetches under way, and drops the results.
    pub fn forget(&mut self) {
        self.tasks.forget();
        self.batches.clear();
    }

    /// Checks that each fetch that the machine waits for is under way.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self, machine: &Machine) -> Result<(), Lost> {
        match machine.asked().find(|asked| !self.tasks.has(asked)) {
            Some((_, range)) => Err(Lost::nobody_is_at(format_args!("the fetch of {range}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;
    use crate::chain::block::BlockRef;
    use crate::chain::machine::{Action, Finality, Limits, Tail};
    use crate::chain::range::RangeSizer;

    /// A machine at block 0 of a chain whose head is at 9, and the fetches that it wants.
    fn asking() -> (Machine, Vec<(FetchId, BlockRange)>) {
        let limits = Limits { fetches: 2, bytes: 1_000_000, far_behind: 500 };
        let mut machine = Machine::new(Finality::Never, 0, limits, RangeSizer::new(100, 1_000, 10_000, 100_000));
        machine.step(Input::Loaded { tail: Tail { next: 0, hash: None }, finalized: None, recent: Vec::new() });
        let head = BlockRef { number: 9, hash: B256::repeat_byte(9) };
        let actions = machine.step(Input::Head { head, finalized: None });
        let fetch = |action| match action {
            Action::Fetch { id, range, .. } => (id, range),
            action => panic!("{action:?}"),
        };
        (machine, actions.into_iter().map(fetch).collect())
    }

    #[tokio::test]
    async fn a_fetch_that_panics_is_told_with_its_blocks() {
        let (mut machine, asked) = asking();
        let mut fetches = Fetches::default();
        let [(first, range), (other, others)] = asked[..] else { panic!("{asked:?}") };
        fetches.begin(first, range, async { panic!("no such thing as a block") });
        fetches.begin(other, others, async { Err(FetchFailure::Gone) });
        fetches.check(&machine).unwrap();
        let (mut lost, mut failed) = (Vec::new(), 0);
        for _ in 0..2 {
            let next = tokio::time::timeout(std::time::Duration::from_secs(60), fetches.next()).await;
            match next.expect("one that is lost is heard of") {
                Ok(input) => failed += usize::from(machine.step(input).len() == 1),
                Err(why) => lost.push(why),
            }
        }
        assert!(lost.len() == 1 && failed == 1, "{lost:?}: the machine asks again for the other one");
        assert!(
            lost[0].contains("the fetch of blocks 0-7") && lost[0].contains("no such thing as a block"),
            "{lost:?}"
        );
    }

    #[tokio::test]
    async fn a_fetch_that_nobody_is_at_and_a_batch_that_is_not_there_are_noticed() {
        let (machine, asked) = asking();
        let mut fetches = Fetches::default();
        for (id, range) in &asked {
            fetches.begin(*id, *range, std::future::pending());
        }
        fetches.check(&machine).unwrap();
        fetches.forget();
        let lost = fetches.check(&machine).unwrap_err().to_string();
        assert!(lost.contains("no task works on the fetch of blocks 0-7"), "{lost}");
        let lost = fetches.batch(asked[0].0).unwrap_err().to_string();
        assert!(lost.contains("no task works on the batch to append"), "{lost}");
    }
}
