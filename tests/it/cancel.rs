//! Every await of the writes cut once: afterwards all rows or none are stored, and the next write works.

#[path = "../../partitions/tests/it/cut.rs"]
mod cut;

use alloy::primitives::{B256, U256, keccak256};
use chrono::{DateTime, Utc};
use dalp_indexer::chain::batch::BlockBatch;
use dalp_indexer::chain::block::{BlockRange, BlockRef, Header};
use dalp_indexer::chain::logs::{Log, Logs};
use dalp_indexer::chain::machine::Tail;
use dalp_indexer::chain::source::Source;
use dalp_indexer::dataset::{Datasets, Directory, Sorted};
use dalp_indexer::store::append::Lane;
use dalp_indexer::store::lease::{Bid, Lease};
use dalp_indexer::store::{Claim, NewChain, Store, StoreError};
use dalp_partitions::{Need, Policy, Table, ensure};
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, Database, WRITER, pooler, stage, until};
use tokio_postgres::Client;

use self::cut::cut;

/// Blocks of the batch.
pub const BLOCKS: u64 = 3;
/// Enough for several messages of COPY data.
const LOGS: u64 = 1_500;
const FIRST_TIME: i64 = 1_750_000_000;

pub fn block(number: u64) -> BlockRef {
    BlockRef { number, hash: keccak256(number.to_be_bytes()) }
}

pub fn header(number: u64) -> Header {
    let parent = number.checked_sub(1).map_or(B256::ZERO, |below| block(below).hash);
    let (hash, time) = (block(number).hash, FIRST_TIME + number as i64);
    Header { number, hash, parent: Some(parent), time, bloom: None }
}

/// Blocks 0 to [`BLOCKS`] - 1 with [`LOGS`] logs each, all transfers.
fn batch() -> Sorted {
    let mut logs = Logs::default();
    let mut headers = Vec::new();
    let word = |number: u64| B256::from(U256::from(number));
    for number in 0..BLOCKS {
        headers.push(header(number));
        for index in 0..LOGS {
            let topics = [dalp_indexer::events::TRANSFER, word(index), word(number)];
            let data = word(index);
            let log = Log {
                log_index: index as u32,
                tx_index: 0,
                tx_hash: keccak256(b"transaction"),
                address: Default::default(),
                topics: &topics,
                data: data.as_slice(),
            };
            logs.push(block(number), log);
        }
    }
    let range = BlockRange { first: 0, last: BLOCKS - 1 };
    Sorted::new(
        &Datasets::own(),
        &Directory::default(),
        BlockBatch::new(range, headers, logs, &Source::default()).unwrap(),
    )
}

/// A chain of ours, with leaves for the batch, and no more.
pub struct Bench {
    pub store: Store,
    pub chain: NewChain,
    pub claim: Claim,
    pub batch: Sorted,
    /// May do anything.
    pub client: Client,
    /// Before the batch, and after it.
    pub tails: [Tail; 2],
}

impl Bench {
    /// `url`: how the store gets to the database.
    pub async fn new(database: &Database, url: String) -> Self {
        let mut site = Site::new(database, "http://127.0.0.1:9");
        site.url = url;
        let mut config = site.config();
        // One connection: the next write meets every remain of a cut.
        config.database.pool_size = 1;
        let store = Store::open(&config).await.unwrap();
        let chain = NewChain {
            chain_id: 31_337,
            name: "it".into(),
            genesis: block(0).hash,
            start_block: 0,
            source: Source::default(),
            finality: true,
            reset: false,
        };
        let Bid::Won(claim) = Lease::new(&store, chain.clone()).bid().await.unwrap() else {
            panic!("nobody else bids")
        };
        store.learn_contracts(&claim).await.unwrap();
        let batch = store.sort(claim.chain_id, batch().batch().clone());
        let mut partitioner = database.client(ADMIN).await;
        partitioner.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
        for table in ["logs", "erc20_transfer"] {
            let need = Need::rows(batch.row_times().filter_map(|time| DateTime::from_timestamp(time, 0)));
            let table = Table::new("dalp_indexed", table, "block_time");
            ensure(&mut partitioner, &table, 31_337, &Policy::default(), Utc::now(), &need).await.unwrap();
        }
        let tails = [Tail { next: 0, hash: None }, Tail { next: BLOCKS, hash: Some(block(BLOCKS - 1).hash) }];
        Self { store, chain, claim, batch, client: database.superuser().await, tails }
    }

    pub async fn append(&self) -> Result<(), StoreError> {
        let lane = Lane::Tail { on: self.tails[0], finalized: None };
        self.store.append(&self.claim, &self.batch, lane).await.map(|_commit| ())
    }

    async fn unwind(&self) -> Result<(), StoreError> {
        self.store.unwind(&self.claim, self.tails[1], self.tails[0]).await.map(drop)
    }

    /// Reads the tail under its lock, which waits for a commit under way, and compares the stored rows with it. Returns whether
    /// the batch is stored.
    pub async fn is_stored(&self) -> bool {
        let tail = self.store.load(&self.claim).await.unwrap().tail;
        assert!(self.tails.contains(&tail), "{tail:?}");
        let stored = tail == self.tails[1];
        let sql = "SELECT (SELECT count(*) FROM dalp_indexed.logs), (SELECT count(*) FROM dalp_indexed.erc20_transfer), \
                     (SELECT count(*) FROM dalp_indexed.blocks), (SELECT count(*) FROM dalp_indexed.coverage)";
        let row = self.client.query_one(sql, &[]).await.unwrap();
        let counts: [i64; 4] = std::array::from_fn(|i| row.get(i));
        let logs = (BLOCKS * LOGS) as i64;
        let all = if stored { [logs, logs, BLOCKS as i64, 1] } else { [0; 4] };
        assert_eq!(counts, all, "logs, transfers, blocks, coverage with the tail at {tail:?}");
        stored
    }

    /// No part of a cut write continues for long.
    async fn nothing_is_open(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL \
                   AND pid <> pg_backend_pid() AND application_name LIKE 'dalp-indexer%'";
        until("no transaction is left open", || async {
            self.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }
}

/// Round trips of an append: BEGIN with its limits and the COPYs' statements, two COPYs that are let in one after the other, the
/// last of their data with all that follows it, COMMIT.
const APPEND: usize = 5;
/// Round trips of an unwind: BEGIN with its limits, the fence with the orphans' times, all that removes them, its record, COMMIT.
const UNWIND: usize = 5;

/// Cuts append and unwind at each of their awaits in turn, until both ran through. How many there are differs a little from
/// one time to the next: an answer may come in two parts, a connection may have to be made. A round trip is one at least, as
/// long as the connection has no thread of its own on which to be faster.
async fn every_await(bench: &Bench) {
    let (mut times, mut appended, mut unwound) = (0, None, None);
    while appended.is_none() || unwound.is_none() {
        let whole = cut(times, bench.append()).await.map(Result::unwrap).is_some();
        appended = appended.or(whole.then(|| times - 1));
        if !bench.is_stored().await {
            assert!(!whole, "an append that was answered is not stored");
            bench.append().await.unwrap_or_else(|error| panic!("append after a cut at await {times}: {error}"));
        }
        assert!(bench.is_stored().await);
        let whole = cut(times, bench.unwind()).await.map(Result::unwrap).is_some();
        unwound = unwound.or(whole.then(|| times - 1));
        if bench.is_stored().await {
            assert!(!whole, "an unwind that was answered did not happen");
            bench.unwind().await.unwrap_or_else(|error| panic!("unwind after a cut at await {times}: {error}"));
        }
        assert!(!bench.is_stored().await);
        bench.nothing_is_open().await;
        times += 1;
    }
    println!("cuts: {appended:?} of an append, {unwound:?} of an unwind");
    assert!(appended >= Some(APPEND), "an append was cut at {appended:?} of its awaits");
    assert!(unwound >= Some(UNWIND), "an unwind was cut at {unwound:?} of its awaits");
}

#[test]
fn every_await_of_append_and_unwind_may_be_cut() {
    let database = dalp_tests::run(async { stage().await.database().await });
    dalp_tests::run_alone(async {
        every_await(&Bench::new(&database, database.direct_url(WRITER)).await).await;
    });
}

#[test]
fn every_await_of_append_and_unwind_may_be_cut_behind_a_pooler() {
    let (database, pooler) = dalp_tests::run(async {
        let stage = stage().await;
        (stage.database().await, pooler(&stage.cluster).await)
    });
    dalp_tests::run_alone(async {
        every_await(&Bench::new(&database, pooler.url(&database.name, WRITER)).await).await;
        // A statement that a cut left on a server connection would meet another process's of the same name.
        let other = pooler.url(&database.name, WRITER).parse::<tokio_postgres::Config>().unwrap();
        for _ in 0..4 {
            let (client, connection) = other.connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let left = client.simple_query("SELECT name FROM pg_prepared_statements").await.unwrap();
            let left = left.iter().filter(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_)));
            assert_eq!(left.count(), 0, "prepared statements left behind");
        }
    });
}

/// A COPY refused before it begins and one refused by its rows: the pool is as good as before.
#[test]
fn a_write_that_is_refused_leaves_a_usable_pool() {
    dalp_tests::run(async {
        let stage = stage().await;
        let (database, pooler) = (stage.database().await, pooler(&stage.cluster).await);
        let bench = Bench::new(&database, pooler.url(&database.name, WRITER)).await;
        for _ in 0..5 {
            bench.client.batch_execute("REVOKE INSERT ON dalp_indexed.erc20_transfer FROM dalp_writer").await.unwrap();
            let refused = bench.append().await.unwrap_err();
            assert!(refused.to_string().contains("permission denied"), "{refused}");
            bench.client.batch_execute("GRANT INSERT ON dalp_indexed.erc20_transfer TO dalp_writer").await.unwrap();
            assert!(!bench.is_stored().await);
            bench.append().await.unwrap();
            assert!(bench.is_stored().await);
            let duplicate = bench.append().await.unwrap_err();
            assert!(matches!(duplicate, StoreError::Duplicate { .. }), "{duplicate}");
            assert!(bench.is_stored().await);
            bench.unwind().await.unwrap();
        }
    });
}
