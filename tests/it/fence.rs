//! Each fence by itself: all is right but the token, so that only the token decides. A test for every statement and look of the
//! store that asks for it.

use std::fmt::Debug;

use alloy::primitives::B256;
use dalp_indexer::chain::backfill::Piece;
use dalp_indexer::chain::batch::BlockBatch;
use dalp_indexer::chain::block::BlockRange;
use dalp_indexer::chain::filter::Filter;
use dalp_indexer::chain::level::Level;
use dalp_indexer::chain::logs::Logs;
use dalp_indexer::chain::source::Source;
use dalp_indexer::events::TRANSFER;
use dalp_indexer::store::append::Lane;
use dalp_indexer::store::lease::{Bid, Lease};
use dalp_indexer::store::repair::Replacement;
use dalp_indexer::store::{Change, Claim, NewChain, Store, StoreError};
use dalp_tests::stage::{WRITER, stage};

use crate::cancel::{BLOCKS, Bench, block, header};

/// The error of a data transaction: the state row is not the expected one.
const MOVED: StoreError = StoreError::TailMoved { chain_id: 31_337 };
/// The error of transactions that know that the token is wrong.
const FENCED: StoreError = StoreError::Fenced { chain_id: 31_337 };

/// A chain that another process took over: the bench's claim is the older one.
struct Overtaken {
    bench: Bench,
    newer: Claim,
    lease: Lease,
}

impl Overtaken {
    /// `stored`: whether the bench's batch was committed before.
    async fn new(stored: bool) -> Self {
        let database = stage().await.database().await;
        let bench = Bench::new(&database, database.direct_url(WRITER)).await;
        if stored {
            bench.append().await.unwrap();
        }
        let mut lease = Lease::new(&bench.store, bench.chain.clone());
        lease.release(&bench.claim).await.unwrap();
        let Bid::Won(newer) = lease.bid().await.unwrap() else { panic!("nobody else bids") };
        assert_eq!(newer.chain_id, bench.claim.chain_id);
        assert_eq!(newer.token, bench.claim.token + 1, "they differ by the token alone");
        Self { bench, newer, lease }
    }

    /// Everything that the store may write, a line for each table.
    async fn everything(&self) -> Vec<String> {
        let mut all = Vec::new();
        for table in [
            "chain_state",
            "lease",
            "source",
            "coverage",
            "blocks",
            "logs",
            "erc20_transfer",
            "quarantine",
            "orphaned_log",
            "reorg",
        ] {
            let sql = format!(
                "SELECT concat_ws(' ', '{table}:', count(*), left(min(t::text), 300), md5(string_agg(t::text, ' ' ORDER BY t::text))) \
                 FROM dalp_indexed.{table} AS t"
            );
            all.push(self.bench.client.query_one(&sql, &[]).await.unwrap().get(0));
        }
        all
    }

    /// Under the older token `call` is refused in this way, and changes nothing. Under the newer one the same call does its work:
    /// only the token was wrong.
    async fn only_the_token_decides<T: Debug>(
        &self,
        refusal: StoreError,
        call: impl AsyncFn(&Store, &Claim) -> Result<T, StoreError>,
    ) {
        let before = self.everything().await;
        match call(&self.bench.store, &self.bench.claim).await {
            Err(error) => assert_eq!(error, refusal),
            Ok(done) => panic!("the older token is as good as the newer: {done:?}"),
        }
        assert_eq!(self.everything().await, before, "the older token changed something");
        let done = call(&self.bench.store, &self.newer).await;
        assert!(done.is_ok(), "more than the token was wrong: {done:?}");
        assert_ne!(self.everything().await, before, "the call changes nothing under any token");
    }
}

#[test]
fn an_older_token_appends_nothing_to_the_tail() {
    dalp_tests::run(async {
        let it = Overtaken::new(false).await;
        let lane = Lane::Tail { on: it.bench.tails[0], finalized: None };
        it.only_the_token_decides(MOVED, async |store, claim| store.append(claim, &it.bench.batch, lane).await).await;
        assert!(Bench { claim: it.newer, ..it.bench }.is_stored().await);
    });
}

#[test]
fn an_older_token_appends_nothing_to_history() {
    dalp_tests::run(async {
        let it = Overtaken::new(false).await;
        it.bench.store.jump(&it.newer, it.bench.tails[0], &header(BLOCKS)).await.unwrap();
        let lane = Lane::Backfill;
        it.only_the_token_decides(MOVED, async |store, claim| store.append(claim, &it.bench.batch, lane).await).await;
    });
}

#[test]
fn an_older_token_calls_nothing_final() {
    dalp_tests::run(async {
        let it = Overtaken::new(true).await;
        it.only_the_token_decides(FENCED, async |store, claim| store.settle(claim, Some(1)).await).await;
    });
}

#[test]
fn an_older_token_unwinds_nothing() {
    dalp_tests::run(async {
        let it = Overtaken::new(true).await;
        let [below, tail] = it.bench.tails;
        it.only_the_token_decides(MOVED, async |store, claim| store.unwind(claim, tail, below).await).await;
    });
}

#[test]
fn an_older_token_clears_nothing() {
    dalp_tests::run(async {
        let it = Overtaken::new(true).await;
        let [below, tail] = it.bench.tails;
        it.only_the_token_decides(MOVED, async |store, claim| store.clear(claim, tail, below).await).await;
    });
}

#[test]
fn an_older_token_jumps_nowhere() {
    dalp_tests::run(async {
        let it = Overtaken::new(true).await;
        let (tail, to) = (it.bench.tails[1], header(BLOCKS + 7));
        it.only_the_token_decides(MOVED, async |store, claim| store.jump(claim, tail, &to).await).await;
    });
}

#[test]
fn an_older_token_repairs_nothing() {
    dalp_tests::run(async {
        let it = Overtaken::new(true).await;
        it.bench.client.execute("DELETE FROM dalp_indexed.logs WHERE log_index = 7", &[]).await.unwrap();
        let (batch, anchor) = (Replacement::Batch(&it.bench.batch), block(BLOCKS - 1));
        it.only_the_token_decides(MOVED, async |store, claim| store.repair(claim, batch, &[], anchor).await).await;
        assert!(Bench { claim: it.newer, ..it.bench }.is_stored().await);
    });
}

#[test]
fn an_older_token_raises_no_level() {
    dalp_tests::run(async {
        let it = Overtaken::new(true).await;
        let (range, anchor) = (BlockRange { first: 0, last: BLOCKS - 1 }, block(BLOCKS - 1));
        it.only_the_token_decides(MOVED, async |store, claim| {
            store.raise(claim, &Source::default(), range, Level::Receipts, anchor).await
        })
        .await;
    });
}

/// A writer's input: the error comes at once, and not only at a write.
#[test]
fn an_older_token_reads_neither_the_state_nor_what_is_missing() {
    dalp_tests::run(async {
        let Overtaken { bench, newer, .. } = Overtaken::new(true).await;
        assert_eq!(bench.store.load(&bench.claim).await, Err(FENCED));
        assert_eq!(bench.store.load(&newer).await.unwrap().tail, bench.tails[1]);
        let missing =
            async |claim| bench.store.missing(claim, &Source::default(), None).await.map(|missing| missing.pieces);
        assert_eq!(missing(&bench.claim).await, Err(FENCED));
        assert_eq!(missing(&newer).await, Ok(Vec::new()));
    });
}

#[test]
fn an_older_token_renews_no_lease() {
    dalp_tests::run(async {
        let mut it = Overtaken::new(false).await;
        let before = it.everything().await;
        assert_eq!(it.lease.renew(&it.bench.claim).await, Err(FENCED));
        assert_eq!(it.everything().await, before);
        assert_eq!(it.lease.renew(&it.newer).await, Ok(()));
        assert_ne!(it.everything().await, before);
    });
}

/// A stale leader at its stop gets no error: it needs no lease any more.
#[test]
fn an_older_token_ends_no_lease() {
    dalp_tests::run(async {
        let mut it = Overtaken::new(false).await;
        let before = it.everything().await;
        assert_eq!(it.lease.release(&it.bench.claim).await, Ok(()));
        assert_eq!(it.everything().await, before);
        assert_eq!(it.lease.release(&it.newer).await, Ok(()));
        assert_ne!(it.everything().await, before);
    });
}

/// An operator's command keeps the lease while it clears, and ends it afterwards.
#[test]
fn an_older_token_keeps_no_lease_for_a_reindex() {
    dalp_tests::run(async {
        let it = Overtaken::new(true).await;
        let [below, tail] = it.bench.tails;
        it.only_the_token_decides(FENCED, async |store, claim| store.clear_down(claim, tail, below).await).await;
        it.only_the_token_decides(FENCED, async |store, claim| store.let_go(claim).await).await;
    });
}

/// The chain is empty, so between its takeover and its reset there is only the newer token, which a trigger gives as another
/// process might.
#[test]
fn a_reset_that_was_overtaken_makes_no_new_chain() {
    dalp_tests::run(async {
        let Overtaken { bench, .. } = Overtaken::new(false).await;
        let other = NewChain { genesis: B256::repeat_byte(9), start_block: 5, reset: true, ..bench.chain.clone() };
        let chain = async || {
            let sql = "SELECT s::text FROM (SELECT genesis_hash, start_block, tail_number, epoch, source_id, \
                       (SELECT count(*) FROM dalp_indexed.token) AS tokens FROM dalp_indexed.chain_state) AS s";
            bench.client.query_one(sql, &[]).await.unwrap().get::<_, String>(0)
        };
        let token = "INSERT INTO dalp_indexed.token (chain_id, address, read_at_block) VALUES (31337, decode(repeat('01', 20), 'hex'), 1)";
        bench.client.batch_execute(token).await.unwrap();
        let before = chain().await;
        bench
            .client
            .batch_execute(
                "CREATE FUNCTION public.overtake() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
                   UPDATE dalp_indexed.chain_state SET token = token + 1; RETURN NULL; END $$; \
                 CREATE TRIGGER overtake AFTER UPDATE ON dalp_indexed.lease FOR EACH ROW EXECUTE FUNCTION public.overtake()",
            )
            .await
            .unwrap();
        assert_eq!(bench.store.reset_if_changed(&other).await, Err(FENCED));
        assert_eq!(chain().await, before, "a process that was overtaken made a new chain");
        bench.client.batch_execute("DROP TRIGGER overtake ON dalp_indexed.lease").await.unwrap();
        let commit = bench.store.reset_if_changed(&other).await.unwrap().unwrap();
        assert_eq!(commit.change, Change::Reset);
        let after = chain().await;
        assert!(after.contains(&"09".repeat(32)), "more than the token was wrong");
        assert!(
            before.ends_with(",1)") && after.ends_with(",0)"),
            "the metadata of tokens goes with its chain: {after}"
        );
    });
}

#[test]
fn one_claim_writes_what_several_sources_ask_for() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let bench = Bench::new(&database, database.direct_url(WRITER)).await;
        bench.append().await.unwrap();
        // All of its logs are stored already, under the source that selects everything.
        let narrow = Source::new(Filter { topics: vec![TRANSFER], ..Filter::default() });
        let (id, definition) = (narrow.id(), narrow.filter().definition());
        let sql =
            "INSERT INTO dalp_indexed.source (chain_id, source_id, definition, start_block) VALUES (31337, $1, $2, 0)";
        bench.client.execute(sql, &[&id.as_slice(), &definition]).await.unwrap();
        let pieces = bench.store.missing(&bench.claim, &narrow, None).await.unwrap().pieces;
        let range = BlockRange { first: 0, last: BLOCKS - 1 };
        assert_eq!(pieces, [Piece { source: narrow.clone(), range, stored: vec![Source::default()] }]);
        let headers = (0..BLOCKS).map(header).collect();
        let batch = BlockBatch::new(range, headers, Logs::default(), &narrow).unwrap();
        let batch = bench.store.sort(bench.claim.chain_id, batch);
        bench.store.append(&bench.claim, &batch, Lane::Backfill).await.unwrap();
        for source in [Source::default(), narrow.clone()] {
            let covered = bench.store.coverage(bench.claim.chain_id, &source).await.unwrap();
            assert_eq!(covered.ranges(), [range]);
            assert_eq!(bench.store.missing(&bench.claim, &source, None).await.unwrap().pieces, []);
        }
        let again = bench.store.append(&bench.claim, &batch, Lane::Backfill).await.map(drop);
        assert_eq!(again, Err(MOVED), "the source has these blocks already");
    });
}

/// A batch that was sorted without a contract would be committed without the contract's rows. The version of the contracts decides.
#[test]
fn a_batch_that_was_sorted_by_other_contracts_is_refused() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let bench = Bench::new(&database, database.direct_url(WRITER)).await;
        let contracts = StoreError::Contracts { chain_id: bench.claim.chain_id };
        let raise = "UPDATE dalp_indexed.chain_state SET contracts = contracts + 1";
        bench.client.batch_execute(raise).await.unwrap();
        assert_eq!(bench.append().await.map(drop), Err(contracts.clone()), "the stored ones are newer");
        assert!(!bench.is_stored().await, "nothing is written");
        bench.store.learn_contracts(&bench.claim).await.unwrap();
        assert_eq!(bench.append().await.map(drop), Err(contracts.clone()), "the known ones are newer");
        let sorted = bench.store.sort_again(bench.claim.chain_id, &bench.batch).unwrap();
        let lane = Lane::Tail { on: bench.tails[0], finalized: None };
        bench.store.append(&bench.claim, &sorted, lane).await.unwrap();
        assert!(bench.store.sort_again(bench.claim.chain_id, &sorted).is_none());

        bench.client.batch_execute(raise).await.unwrap();
        let anchor = sorted.last().block();
        let repair = bench.store.repair(&bench.claim, Replacement::Batch(&sorted), &[], anchor).await;
        assert_eq!(repair.map(drop), Err(contracts));
    });
}
