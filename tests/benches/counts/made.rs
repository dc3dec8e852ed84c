//! A made-up chain for the store: batches of transfers that are the same each time, and the way into a migrated database.

use alloy::primitives::{Address, B256, U256};
use dalp_indexer::chain::batch::BlockBatch;
use dalp_indexer::chain::block::{BlockRange, Header};
use dalp_indexer::chain::logs::{Log, Logs};
use dalp_indexer::chain::machine::Tail;
use dalp_indexer::chain::source::Source;
use dalp_indexer::dataset::{Datasets, Directory, Sorted};
use dalp_indexer::events::TRANSFER;
use dalp_indexer::store::lease::{Bid, Lease};
use dalp_indexer::store::{Claim, NewChain, Store};
use dalp_tests::indexer::Site;

use super::Outcome;
pub use super::cluster::CHAIN;

/// 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600;
const SECONDS: i64 = 12;

/// The store, which leads the chain.
pub async fn lead(site: &Site) -> Outcome<(Store, Lease, Claim)> {
    let store = Store::open(&site.config()).await?;
    let new = NewChain {
        chain_id: CHAIN,
        name: "bench".into(),
        genesis: B256::ZERO,
        start_block: 0,
        source: Source::default(),
        finality: true,
        reset: false,
    };
    let mut lease = Lease::new(&store, new);
    let Bid::Won(claim) = lease.bid().await? else { return Err("somebody leads".into()) };
    store.learn_contracts(&claim).await?;
    Ok((store, lease, claim))
}

/// The header of block `number` on the `fork`-th branch, on the block of hash `parent`, or on its own branch's.
pub fn header(fork: u64, number: u64, parent: Option<B256>) -> Header {
    Header {
        number,
        hash: hash(fork, number),
        parent: parent.or_else(|| number.checked_sub(1).map(|below| hash(fork, below))),
        time: BEGIN + number as i64 * SECONDS,
        bloom: None,
    }
}

/// `blocks` blocks of `logs` transfers each on top of `tail`, which may be of another branch.
pub fn batch(fork: u64, tail: Tail, blocks: u64, logs: u64) -> Outcome<Sorted> {
    let first = tail.next;
    let (mut headers, mut all) = (Vec::new(), Logs::default());
    for number in first..first + blocks {
        let header = header(fork, number, tail.hash.filter(|_| number == first));
        for index in 0..logs {
            // Accounts and tokens as mixed as on a busy chain: their indexes are hit all over.
            let account = |salt: u64| {
                let n = (number * 1_000 + index).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(salt as u32);
                let mut address = [0; 20];
                address[..8].copy_from_slice(&n.to_be_bytes());
                Address::from(address)
            };
            let topics = [TRANSFER, account(1).into_word(), account(23).into_word()];
            let log = Log {
                log_index: index as u32,
                tx_index: (index / 10) as u32,
                tx_hash: hash(fork, number * 1_000 + index / 10),
                address: Address::repeat_byte((index % 50) as u8),
                topics: &topics,
                data: &U256::from(number * 1_000 + index).to_be_bytes::<32>(),
            };
            all.push(header.block(), log);
        }
        headers.push(header);
    }
    let range = BlockRange { first, last: first + blocks - 1 };
    // As a new chain has it: the first version, without contracts.
    let directory = Directory { version: 1, ..Directory::default() };
    Ok(Sorted::new(&Datasets::own(), &directory, BlockBatch::new(range, headers, all, &Source::default())?))
}

fn hash(fork: u64, number: u64) -> B256 {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(fork + 1).to_be_bytes());
    hash[8..16].copy_from_slice(&number.to_be_bytes());
    B256::from(hash)
}
