//! The cost of one step of the store on the wire: its waits for the server, its statements, bytes of COPY per row.

use dalp_fixtures::Cluster;
use dalp_indexer::chain::machine::Tail;
use dalp_indexer::chain::source::Source;
use dalp_indexer::maintenance::Leaves;
use dalp_indexer::store::append::Lane;
use dalp_tests::counts::Counts;

use super::Outcome;
use super::made::{self, CHAIN};
use super::wire::{Said, Tally, Wire};
use super::{cluster, server};

/// Blocks of a batch, as near the head, and transfers of a block. The rows are twice as many: raw and typed.
const BLOCKS: u64 = 32;
const LOGS: u64 = 20;
/// Blocks that the tail jumps over.
const AHEAD: u64 = 1_000;

/// Measures each step once, on a connection that has done all of them before.
pub async fn measure(cluster: &Cluster, said: &mut Said) -> Outcome<Counts> {
    let database = server::database(cluster, "writes").await?;
    let (wire, mut counts) = (Wire::before(cluster)?, Counts::default());
    let mut site = cluster::site(cluster, &database);
    site.url = wire.url(&database, dalp_tests::stage::WRITER);
    let leaves = Leaves::open(&site.config()).await?;
    let (store, mut lease, claim) = made::lead(&site).await?;
    let mut base = Tail { next: 0, hash: None };
    for round in 0..2 {
        // First: what is known of the blocks above is forgotten by it, and an unwind goes by that.
        let (done, tally) = wire.count(store.load(&claim)).await;
        done?;
        store.learn_contracts(&claim).await?;
        let mut taken: Vec<(&str, Tally)> = vec![("state read under its lock", tally)];
        let batch = made::batch(0, base, BLOCKS, LOGS)?;
        leaves.cover(CHAIN, &batch, &store.floors(CHAIN)).await?;
        let lane = Lane::Tail { on: base, finalized: None };
        let (done, tally) = wire.count(store.append(&claim, &batch, lane)).await;
        let rows = done.map(|commit| commit.rows())?;
        let copied = tally.copied as f64 / rows as f64;
        taken.push(("append in the tail lane", tally));

        let tail = Tail::after(batch.link().last);
        let (done, tally) = wire.count(store.unwind(&claim, tail, base)).await;
        done?;
        taken.push(("unwind", tally));

        let to = made::header(0, base.next + AHEAD, None);
        let (done, tally) = wire.count(store.jump(&claim, base, &to)).await;
        done?;
        taken.push(("jump", tally));

        // Below the jump, and joined to its block.
        let below = made::header(0, to.number - BLOCKS - 1, None);
        let batch = made::batch(0, Tail::after(below.block()), BLOCKS, LOGS)?;
        leaves.cover(CHAIN, &batch, &store.floors(CHAIN)).await?;
        let (done, tally) = wire.count(store.append(&claim, &batch, Lane::Backfill)).await;
        done?;
        taken.push(("append in the backfill lane", tally));

        let (done, tally) = wire.count(store.missing(&claim, &Source::default(), None)).await;
        done?;
        taken.push(("gaps read under the state's lock", tally));

        let (done, tally) = wire.count(store.learn_floors(CHAIN)).await;
        done?;
        taken.push(("retention floors read", tally));

        let (done, tally) = wire.count(lease.renew(&claim)).await;
        done?;
        taken.push(("lease renewed", tally));

        base = Tail::after(to.block());
        if round > 0 {
            counts.put("append: bytes of COPY a row", copied);
            taken.into_iter().for_each(|(what, tally)| tally.put(what, &mut counts, said));
        }
    }
    Ok(counts)
}
