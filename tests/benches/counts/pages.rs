//! The cost of rows for the server: bytes of WAL, read buffers, and stored bytes per row, in fresh leaves with the shipped
//! indexes and with key and BRIN alone.

use dalp_fixtures::Cluster;
use dalp_indexer::chain::machine::Tail;
use dalp_indexer::maintenance::Leaves;
use dalp_indexer::store::Store;
use dalp_indexer::store::append::Lane;
use dalp_tests::counts::Counts;
use dalp_tests::indexer::Site;

use super::Outcome;
use super::cluster::{self, SUPERUSER, connect};
use super::made::{self, CHAIN};
use super::server::{self, Watch};

/// Batches that are appended, their blocks, and transfers of a block. The rows are twice as many: raw and typed.
const BATCHES: u64 = 5;
const BLOCKS: u64 = 20;
const LOGS: u64 = 100;

/// Written and stored bytes; the stored bytes are equal to the byte.
pub struct Pages {
    pub used: Counts,
    pub kept: Counts,
}

/// Measures both.
pub async fn measure(cluster: &Cluster) -> Outcome<Pages> {
    let mut pages = Pages { used: Counts::default(), kept: Counts::default() };
    for (what, database, indexes) in
        [("shipped indexes", "shipped", ""), ("key and BRIN", "bare", "[indexes]\nlogs = []\nerc20_transfer = []\n")]
    {
        let database = server::database(cluster, database).await?;
        let mut site = cluster::site(cluster, &database);
        site.more.push_str(indexes);
        append(cluster, &database, &site, what, &mut pages).await?;
    }
    Ok(pages)
}

async fn append(cluster: &Cluster, database: &str, site: &Site, what: &str, pages: &mut Pages) -> Outcome<()> {
    let (mut batches, mut tail) = (Vec::new(), Tail { next: 0, hash: None });
    for _ in 0..BATCHES {
        let batch = made::batch(0, tail, BLOCKS, LOGS)?;
        let next = Tail::after(batch.link().last);
        batches.push((tail, batch));
        tail = next;
    }
    let leaves = Leaves::open(&site.config()).await?;
    let (store, lease, claim) = made::lead(site).await?;
    for (_, batch) in &batches {
        leaves.cover(CHAIN, batch, &store.floors(CHAIN)).await?;
    }
    drop((leaves, store, lease));
    let watch = Watch::on(cluster).await?;
    // The first reads of a session are not part of a row. The first session after the leaves were made reads more.
    let mut before = watch.used(database).await?;
    let mut session = before;
    for _ in 0..2 {
        let store = Store::open(&site.config()).await?;
        store.learn_contracts(&claim).await?;
        drop(store);
        let now = watch.used(database).await?;
        (session, before) = (now.since(before), now);
    }
    let (store, mut rows) = (Store::open(&site.config()).await?, [0; 2]);
    store.learn_contracts(&claim).await?;
    for (on, batch) in &batches {
        let commit = store.append(&claim, batch, Lane::Tail { on: *on, finalized: None }).await?;
        for touched in &commit.touched {
            rows[touched.dataset] += touched.rows;
        }
    }
    drop(store);
    let used = watch.used(database).await?.since(before);
    let all = (rows[0] + rows[1]) as f64;
    pages.used.put(format!("{what}: bytes of WAL a row"), used.wal / all);
    pages.used.put(format!("{what}: buffers a row"), (used.buffers - session.buffers) / all);
    let owner = connect(cluster, database, SUPERUSER).await?;
    for (table, rows) in ["logs", "erc20_transfer"].into_iter().zip(rows) {
        let sizes = owner.query_one(SIZES, &[&format!("dalp_indexed.{table}")]).await?;
        let [heap, indexes]: [f64; 2] = std::array::from_fn(|at| sizes.get(at));
        pages.kept.put(format!("{what}: bytes of heap a row of {table}"), heap / rows as f64);
        pages.kept.put(format!("{what}: bytes of indexes a row of {table}"), indexes / rows as f64);
    }
    Ok(())
}

/// Of one table's leaves: heap and indexes.
const SIZES: &str = "SELECT sum(pg_relation_size(relid))::float8, sum(pg_indexes_size(relid))::float8 \
                     FROM pg_partition_tree($1::text::regclass) WHERE isleaf";
