//! The contracts of a chain: those of the configuration, those that operators add, and those that the events of factories announce.
//!
//! The state row has the version of the stored contracts. Each process sorts logs by the contracts that it knows, with their version,
//! and a transaction whose version is not the stored one is refused: so no log of a known contract is committed without its rows.

use std::sync::{Arc, PoisonError};

use alloy::primitives::{Address, B256};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::known::KnownContracts;
use super::{Claim, Store, StoreError, begin, begin_reading, int8, uint8};
use crate::chain::batch::BlockBatch;
use crate::chain::source::Source;
use crate::dataset::rows::Rows;
use crate::dataset::{Contract, Datasets, Directory, Emitters, Floors, Known, Sorted};

/// Where a contract is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The contract.
    pub contract: Contract,
    /// Whether the configuration or an operator names it; otherwise the event of a factory alone.
    pub given: bool,
    /// Whether an event of a factory announces it.
    pub found: bool,
    /// Its stored logs up to this block are not in the tables of its kind yet.
    pub undecoded_to: Option<u64>,
}

impl Store {
    /// The batch with its logs sorted by the contracts that this process knows.
    pub fn sort(&self, chain_id: u64, batch: impl Into<Arc<BlockBatch>>) -> Sorted {
        Sorted::new(&self.datasets, &self.known(chain_id), batch)
    }

    /// The batch sorted again, if other contracts are known by now.
    pub fn sort_again(&self, chain_id: u64, batch: &Sorted) -> Option<Sorted> {
        let is_old = self.known(chain_id).version != batch.version();
        is_old.then(|| self.sort(chain_id, batch.batch().clone()))
    }

    /// The rows of a batch.
    ///
    /// # Errors
    /// [`StoreError::Contracts`] if other contracts are known than when it was sorted.
    pub(super) fn encode(&self, chain_id: u64, batch: &Sorted, floors: &Floors) -> Result<Rows, StoreError> {
        let directory = self.known(chain_id);
        if directory.version != batch.version() {
            return Err(StoreError::Contracts { chain_id });
        }
        let known = Known::new(&directory.emitters, batch.found());
        Ok(Rows::encode(&self.datasets, known, int8(chain_id), batch, floors))
    }

    /// Those of these announced contracts whose announcement is not known.
    pub(super) fn unknown(&self, chain_id: u64, announced: &Emitters) -> Emitters {
        let (mut unknown, directory) = (Emitters::default(), self.known(chain_id));
        for (address, kind, from) in announced.iter() {
            if !directory.emitters.is_found(&address, kind, from) {
                unknown.find(&address, kind, from);
            }
        }
        unknown
    }

    /// The contracts that this process knows.
    pub(super) fn known(&self, chain_id: u64) -> Arc<Directory> {
        let known = self.directories.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&chain_id).map(|known| known.directory.clone()).unwrap_or_default()
    }

    fn with_known<T>(&self, chain_id: u64, change: impl FnOnce(&mut KnownContracts) -> T) -> T {
        change(self.directories.write().unwrap_or_else(PoisonError::into_inner).entry(chain_id).or_default())
    }

    /// How often contracts with undecoded logs may have come so far.
    pub fn news(&self, chain_id: u64) -> u64 {
        self.with_known(chain_id, |known| known.news)
    }

    /// The undecoded contracts were read since this many [`Store::news`].
    pub fn seen(&self, chain_id: u64, news: u64) {
        self.with_known(chain_id, |known| known.seen = news);
    }

    /// Whether contracts with undecoded logs may have come since they were read. Nobody reads them without kinds.
    pub fn has_undecoded_news(&self, chain_id: u64) -> bool {
        !self.datasets.kinds().is_empty() && self.with_known(chain_id, |known| known.seen != known.news)
    }

    /// Takes a committed change up, if it is the next one after the known version; otherwise the next batch makes this process read
    /// all contracts.
    pub(super) fn changed(&self, chain_id: u64, version: i64, change: impl FnOnce(&mut Emitters)) {
        self.with_known(chain_id, |known| {
            if known.directory.version + 1 == version {
                let directory = Arc::make_mut(&mut known.directory);
                directory.version = version;
                change(&mut directory.emitters);
            }
        });
    }

    /// Takes contracts up that a committed transaction announced, if it did. `is_late`: their stored logs are undecoded.
    pub(super) fn found(&self, chain_id: u64, version: i64, found: &Emitters, is_late: bool) {
        if found.is_empty() {
            return;
        }
        self.changed(chain_id, version, |emitters| emitters.extend(found));
        self.with_known(chain_id, |known| known.news += u64::from(is_late));
    }

    /// Takes a committed unwind's contracts back.
    pub(super) fn lost(&self, chain_id: u64, lost: &Lost) {
        if let Some(version) = lost.version {
            self.changed(chain_id, version, |known| {
                lost.contracts.iter().for_each(|(address, kind, from)| known.set(address, *kind, *from, None));
            });
        }
    }

    /// Reads the contracts of a chain, if their version is not the known one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn learn_contracts(&self, claim: &Claim) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_reading(&mut connection, claim).await?;
        self.learn_by(&tx, claim.chain_id).await?;
        tx.commit().await.map_err(StoreError::from)
    }

    /// As [`Store::learn_contracts`], as of a snapshot of committed contracts.
    pub(super) async fn learn_by(&self, tx: &Client, chain_id: u64) -> Result<(), StoreError> {
        if let Some(directory) = self.newer(tx, chain_id).await? {
            self.learn(chain_id, directory);
        }
        Ok(())
    }

    fn learn(&self, chain_id: u64, directory: Directory) {
        self.with_known(chain_id, |known| {
            known.directory = Arc::new(directory);
            known.news += 1;
        });
    }

    /// Forgets the contracts of a chain: after a lost answer to COMMIT, or as another process led it, an equal version proves nothing.
    pub fn forget_contracts(&self, chain_id: u64) {
        self.with_known(chain_id, |known| known.directory = Arc::default());
    }

    /// The contracts as the transaction sees them, if their version is not the known one.
    async fn newer(&self, tx: &Client, chain_id: u64) -> Result<Option<Directory>, StoreError> {
        let chain: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
        let row = tx.query_typed_opt(VERSION, &chain).await?;
        let version = row.map_or(0, |row| row.get(0));
        if self.known(chain_id).version == version {
            return Ok(None);
        }
        let kinds = self.datasets.kinds();
        let params: [(&(dyn ToSql + Sync), Type); 2] = [chain[0].clone(), (&kinds, Type::TEXT_ARRAY)];
        let mut emitters = Emitters::default();
        for row in tx.query_typed(KNOWN, &params).await? {
            if let Some(kind) = self.datasets.kind_at(row.get(1)) {
                let Contract { address, from, to, .. } = contract(&row)?;
                emitters.set(&address, kind, Some(from), row.get::<_, Option<i64>>(4).map(uint8).transpose()?);
                emitters.end(&address, kind, to);
            }
        }
        Ok(Some(Directory { version, emitters }))
    }

    /// Records the contracts of the configuration, and those that operators added. The stored logs of a new contract, and of one whose
    /// kind has other tables than before, are to be decoded if the source has raw logs. Contracts that nothing names any more are
    /// forgotten, and their rows stay. Then this process knows the contracts. Returns some added contracts that get no rows: their kind
    /// has no tables here, the chain's list of addresses lacks them, or they are factories and the source lacks logs of what they announce.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process leads the chain.
    pub async fn register(&self, claim: &Claim, source: &Source) -> Result<Vec<Contract>, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin(&mut connection, claim).await?;
        let chain_id = int8(claim.chain_id);
        let fence: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&claim.token, Type::INT8)];
        if tx.query_typed_opt(HOLD, &fence).await?.is_none() {
            return Err(StoreError::Fenced { chain_id: claim.chain_id });
        }
        let (given, raw) = (Given::of(&self.datasets, claim.chain_id, source), source.filter().raw);
        let tables: Vec<B256> = given.kinds.iter().map(|kind| self.datasets.hash_of_kind(kind)).collect();
        let tables: Vec<&[u8]> = tables.iter().map(B256::as_slice).collect();
        let selected: Vec<&[u8]> = source.filter().addresses.iter().map(|address| address.as_slice()).collect();
        let of = given.params(&chain_id);
        let (tables, raw) = ((&tables as _, Type::BYTEA_ARRAY), (&raw as _, Type::BOOL));
        let retable = [of[0].clone(), of[1].clone(), tables.clone(), raw.clone()];
        let mut changed = tx.execute_typed(RETABLE, &retable).await?;
        changed += tx.execute_typed(SHELVE, &of[..2]).await?;
        changed += tx.execute_typed(FORGET, &of).await?;
        changed += tx.execute_typed(UNGIVE, &of).await?;
        changed += tx.execute_typed(GIVE, &[&of[..], &[tables, raw]].concat()).await?;
        if changed > 0 {
            tx.query_typed(BUMP, &fence[..1]).await?;
        }
        let directory = self.newer(&tx, claim.chain_id).await?;
        let idle = [of[0].clone(), of[1].clone(), (&selected as _, Type::BYTEA_ARRAY)];
        let idle = tx.query_typed(IDLE, &idle).await?;
        tx.commit().await?;
        // Not before: what is rolled back was never a version.
        if let Some(directory) = directory {
            self.learn(claim.chain_id, directory);
        }
        idle.iter().map(contract).collect()
    }

    /// Whether [`Store::register`] would change something: operators added or removed a contract. Takes no lock.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn has_news(&self, chain_id: u64, source: &Source) -> Result<bool, StoreError> {
        let client = self.connection().await?;
        let given = Given::of(&self.datasets, chain_id, source);
        Ok(client.query_typed_one(HAS_NEWS, &given.params(&int8(chain_id))).await?.get(0))
    }

    /// The number of a chain's contracts with undecoded logs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn undecoded_contracts(&self, chain_id: u64) -> Result<u64, StoreError> {
        let client = self.connection().await?;
        uint8(client.query_typed_one(COUNT_UNDECODED, &[(&int8(chain_id), Type::INT8)]).await?.get(0))
    }

    /// Marks the stored logs of a chain's contracts (of one kind) as undecoded; returns the number of contracts.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn mark_undecoded(&self, chain_id: u64, kind: Option<&str>) -> Result<u64, StoreError> {
        let client = self.connection().await?;
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain_id), Type::INT8), (&kind, Type::TEXT)];
        Ok(client.execute_typed(MARK, &params).await?)
    }

    /// Adds contracts for the leader of their chain; returns how many were not there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn add_contracts(&self, chain_id: u64, contracts: &[Contract]) -> Result<u64, StoreError> {
        let client = self.connection().await?;
        let addresses: Vec<&[u8]> = contracts.iter().map(|contract| contract.address.as_slice()).collect();
        let kinds: Vec<&str> = contracts.iter().map(|contract| contract.kind.as_str()).collect();
        let starts: Vec<i64> = contracts.iter().map(|contract| int8(contract.from)).collect();
        let ends: Vec<Option<i64>> = contracts.iter().map(|contract| contract.to.map(int8)).collect();
        let params: [(&(dyn ToSql + Sync), Type); 5] = [
            (&int8(chain_id), Type::INT8),
            (&addresses, Type::BYTEA_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&ends, Type::INT8_ARRAY),
        ];
        Ok(client.execute_typed(ADD, &params).await?)
    }

    /// Takes added contracts back; returns how many were there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_contracts(&self, chain_id: u64, kind: &str, addresses: &[Address]) -> Result<u64, StoreError> {
        let client = self.connection().await?;
        let addresses: Vec<&[u8]> = addresses.iter().map(|address| address.as_slice()).collect();
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&int8(chain_id), Type::INT8), (&addresses, Type::BYTEA_ARRAY), (&kind, Type::TEXT)];
        Ok(client.execute_typed(REMOVE, &params).await?)
    }

    /// The contracts of a chain (of one kind) in the order of their addresses, and the added ones that the leader has not taken up.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list_contracts(
        &self,
        chain_id: u64,
        kind: Option<&str>,
    ) -> Result<(Vec<Stored>, Vec<Contract>), StoreError> {
        let client = self.connection().await?;
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain_id), Type::INT8), (&kind, Type::TEXT)];
        let stored = |row: &Row| {
            Ok(Stored {
                contract: contract(row)?,
                given: row.get(4),
                found: row.get(5),
                undecoded_to: row.get::<_, Option<i64>>(6).map(uint8).transpose()?,
            })
        };
        let all = client.query_typed(LIST, &params).await?.iter().map(stored).collect::<Result<_, StoreError>>()?;
        let waiting = client.query_typed(WAITING, &params).await?;
        Ok((all, waiting.iter().map(contract).collect::<Result<_, _>>()?))
    }
}

/// The contracts of the configuration, and the kinds whose contracts get rows, as parameters.
struct Given<'s> {
    kinds: Vec<&'s str>,
    addresses: Vec<&'s [u8]>,
    named: Vec<&'s str>,
    starts: Vec<i64>,
    ends: Vec<Option<i64>>,
}

impl<'s> Given<'s> {
    fn of(datasets: &'s Datasets, chain_id: u64, source: &Source) -> Self {
        let (contracts, filter) = (datasets.contracts().of(chain_id), source.filter());
        // What a factory announces has logs under any address, and its earlier ones come from raw logs.
        let has_children = filter.raw && filter.addresses.is_empty();
        let kinds = datasets.kinds().iter().map(String::as_str);
        Self {
            kinds: kinds.filter(|kind| has_children || !datasets.is_factory(kind)).collect(),
            addresses: contracts.iter().map(|contract| contract.address.as_slice()).collect(),
            named: contracts.iter().map(|contract| contract.kind.as_str()).collect(),
            starts: contracts.iter().map(|contract| int8(contract.from)).collect(),
            ends: contracts.iter().map(|contract| contract.to.map(int8)).collect(),
        }
    }

    fn params<'p>(&'p self, chain_id: &'p i64) -> [(&'p (dyn ToSql + Sync), Type); 6] {
        [
            (chain_id, Type::INT8),
            (&self.kinds, Type::TEXT_ARRAY),
            (&self.addresses, Type::BYTEA_ARRAY),
            (&self.named, Type::TEXT_ARRAY),
            (&self.starts, Type::INT8_ARRAY),
            (&self.ends, Type::INT8_ARRAY),
        ]
    }
}

impl Store {
    /// Records the contracts that logs announce, if they do, behind the fence. `is_late`: blocks above are stored already, so the contracts'
    /// logs there are undecoded.
    pub(super) async fn find(
        &self,
        tx: &Client,
        claim: &Claim,
        found: &Emitters,
        is_late: bool,
    ) -> Result<(), StoreError> {
        if found.is_empty() {
            return Ok(());
        }
        let (mut addresses, mut kinds, mut starts, mut tables) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (address, kind, from) in found.iter() {
            let kind = &self.datasets.kinds()[usize::from(kind)];
            addresses.push(address);
            kinds.push(kind.as_str());
            starts.push(int8(from));
            tables.push(self.datasets.hash_of_kind(kind));
        }
        let addresses: Vec<&[u8]> = addresses.iter().map(|address| address.as_slice()).collect();
        let tables: Vec<&[u8]> = tables.iter().map(B256::as_slice).collect();
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&int8(claim.chain_id), Type::INT8),
            (&addresses, Type::BYTEA_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&tables, Type::BYTEA_ARRAY),
            (&is_late, Type::BOOL),
        ];
        tx.execute_typed(FIND, &params).await?;
        Ok(())
    }

    /// Takes back what blocks from `first` upwards announced.
    pub(super) async fn lose(&self, tx: &Client, chain_id: i64, first: i64) -> Result<Lost, StoreError> {
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&first, Type::INT8)];
        let mut lost = Lost::default();
        if !self.datasets.has_factories() {
            return Ok(lost);
        }
        for row in tx.query_typed(LOSE, &params).await? {
            lost.version = row.get(3);
            let Some(kind) = self.datasets.kind_at(row.get(1)) else { continue };
            let from = row.get::<_, Option<i64>>(2).map(uint8).transpose()?;
            lost.contracts.push((address(row.get(0)), kind, from));
        }
        Ok(lost)
    }
}

/// The contracts that an unwind takes back, each with its first block if another reason for it is left; and their new version, if there are
/// any.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    pub contracts: Vec<(Address, u16, Option<u64>)>,
    pub version: Option<i64>,
}

/// A contract of a row with address, kind, first and last block.
pub(super) fn contract(row: &Row) -> Result<Contract, StoreError> {
    let to = row.get::<_, Option<i64>>(3).map(uint8).transpose()?;
    Ok(Contract { address: address(row.get(0)), kind: row.get(1), from: uint8(row.get(2))?, to })
}

/// 20 bytes, by the table's CHECK.
pub(super) fn address(bytes: &[u8]) -> Address {
    Address::try_from(bytes).unwrap_or_default()
}

/// The contracts of the configuration ($3 to $6) and of operators, of kinds whose contracts get rows ($2).
macro_rules! given {
    ($then:literal) => {
        concat!(
            "WITH given AS (SELECT address, kind, min(start) AS start, CASE WHEN bool_and(stop IS NOT NULL) THEN max(stop) END AS stop FROM (\
               SELECT address, kind, start, stop FROM unnest($3, $4, $5, $6) AS n (address, kind, start, stop) WHERE kind = ANY ($2) \
               UNION ALL SELECT address, kind, start_block, end_block FROM dalp_indexed.indexed_contracts \
                         WHERE chain_id = $1 AND kind = ANY ($2)) AS n \
             GROUP BY address, kind) ",
            $then
        )
    };
}

const HOLD: &str = "SELECT 1 FROM dalp_indexed.chain_state WHERE chain_id = $1 AND token = $2 FOR UPDATE";
pub(super) const BUMP: &str =
    "UPDATE dalp_indexed.chain_state SET contracts = contracts + 1 WHERE chain_id = $1 RETURNING contracts";
const VERSION: &str = "SELECT contracts FROM dalp_indexed.chain_state WHERE chain_id = $1";
const KNOWN: &str = "SELECT address, kind, start_block, end_block, found_from FROM dalp_indexed.contract WHERE chain_id = $1 AND kind = ANY ($2)";
const COUNT_UNDECODED: &str =
    "SELECT count(*) FROM dalp_indexed.contract WHERE chain_id = $1 AND undecoded_to IS NOT NULL";
/// Some of them are enough for a message.
const IDLE: &str = "SELECT address, kind, start_block, end_block FROM dalp_indexed.indexed_contracts \
                    WHERE chain_id = $1 AND (kind <> ALL ($2) OR cardinality($3) > 0 AND address <> ALL ($3)) \
                    ORDER BY added_at DESC, address, kind LIMIT 3";
const HAS_NEWS: &str = given!(
    "SELECT EXISTS (SELECT FROM given AS g FULL JOIN (\
       SELECT address, kind, given_from, end_block FROM dalp_indexed.contract WHERE chain_id = $1 AND given_from IS NOT NULL) AS c \
     USING (address, kind) WHERE g.start IS DISTINCT FROM c.given_from OR g.stop IS DISTINCT FROM c.end_block)"
);
/// Contracts whose kind has other tables than before are decoded again.
const RETABLE: &str = "UPDATE dalp_indexed.contract AS c \
                       SET tables = k.tables, undecoded_to = CASE WHEN $4 AND s.tail_number >= c.rows_from THEN s.tail_number END \
                       FROM unnest($2, $3) AS k (kind, tables), dalp_indexed.chain_state AS s \
                       WHERE c.chain_id = $1 AND s.chain_id = $1 AND c.kind = k.kind AND c.tables <> k.tables";
/// Contracts whose kind gets no rows now: if it has some again, they are decoded from the start.
const SHELVE: &str = "UPDATE dalp_indexed.contract SET tables = decode(repeat('00', 32), 'hex'), undecoded_to = NULL \
                      WHERE chain_id = $1 AND kind <> ALL ($2) AND tables <> decode(repeat('00', 32), 'hex')";
const FORGET: &str = given!(
    "DELETE FROM dalp_indexed.contract AS c WHERE chain_id = $1 AND found_from IS NULL \
     AND NOT EXISTS (SELECT FROM given AS g WHERE g.address = c.address AND g.kind = c.kind)"
);
/// The rows below its announcement stay, as those of a forgotten contract do; those above its former end come. Only raw logs announce.
const UNGIVE: &str = given!(
    "UPDATE dalp_indexed.contract AS c SET given_from = NULL, end_block = NULL, rows_from = found_from, \
       undecoded_to = CASE WHEN end_block IS NULL THEN undecoded_to ELSE \
         (SELECT tail_number FROM dalp_indexed.chain_state WHERE chain_id = $1 AND tail_number >= found_from) END \
     WHERE chain_id = $1 AND found_from IS NOT NULL AND given_from IS NOT NULL \
     AND NOT EXISTS (SELECT FROM given AS g WHERE g.address = c.address AND g.kind = c.kind)"
);
/// A contract that begins or ends elsewhere is decoded again, from the first block that may have rows of it: those that it has lost go.
const GIVE: &str = given!(
    "INSERT INTO dalp_indexed.contract AS c (chain_id, address, kind, given_from, end_block, rows_from, tables, undecoded_to) \
     SELECT $1, g.address, g.kind, g.start, g.stop, g.start, k.tables, CASE WHEN $8 AND s.tail_number >= g.start THEN s.tail_number END \
     FROM given AS g JOIN unnest($2, $7) AS k (kind, tables) USING (kind), dalp_indexed.chain_state AS s WHERE s.chain_id = $1 \
     ON CONFLICT (chain_id, address, kind) DO UPDATE SET given_from = excluded.given_from, end_block = excluded.end_block, \
       rows_from = LEAST(c.rows_from, excluded.given_from), \
       undecoded_to = CASE WHEN LEAST(excluded.given_from, c.found_from) <> c.start_block OR excluded.end_block IS DISTINCT FROM c.end_block \
                           THEN (SELECT tail_number FROM dalp_indexed.chain_state \
                                 WHERE chain_id = $1 AND $8 AND tail_number >= LEAST(c.rows_from, excluded.given_from)) \
                           ELSE c.undecoded_to END \
     WHERE c.given_from IS DISTINCT FROM excluded.given_from OR c.end_block IS DISTINCT FROM excluded.end_block"
);
const FIND: &str = "INSERT INTO dalp_indexed.contract AS c (chain_id, address, kind, found_from, rows_from, tables, undecoded_to) \
                    SELECT $1, n.address, n.kind, n.start, n.start, n.tables, CASE WHEN $6 AND s.tail_number >= n.start THEN s.tail_number END \
                    FROM unnest($2, $3, $4, $5) AS n (address, kind, start, tables), dalp_indexed.chain_state AS s WHERE s.chain_id = $1 \
                    ON CONFLICT (chain_id, address, kind) DO UPDATE SET found_from = LEAST(c.found_from, excluded.found_from), \
                      rows_from = LEAST(c.rows_from, excluded.found_from), \
                      undecoded_to = CASE WHEN excluded.found_from < c.start_block THEN GREATEST(excluded.undecoded_to, c.undecoded_to) \
                                          ELSE c.undecoded_to END";
/// The last column is the new version, or the same in each row.
const LOSE: &str = "WITH gone AS (DELETE FROM dalp_indexed.contract WHERE chain_id = $1 AND found_from >= $2 AND given_from IS NULL \
                                  RETURNING address, kind, NULL::int8 AS start), \
                         kept AS (UPDATE dalp_indexed.contract SET found_from = NULL \
                                  WHERE chain_id = $1 AND found_from >= $2 AND given_from IS NOT NULL \
                                  RETURNING address, kind, start_block AS start), \
                         lost AS (SELECT * FROM gone UNION ALL SELECT * FROM kept), \
                         version AS (UPDATE dalp_indexed.chain_state SET contracts = contracts + 1 \
                                     WHERE chain_id = $1 AND EXISTS (SELECT FROM lost) RETURNING contracts) \
                    SELECT address, kind, start, contracts FROM lost, version";
const MARK: &str = "UPDATE dalp_indexed.contract AS c SET undecoded_to = s.tail_number FROM dalp_indexed.chain_state AS s \
                    WHERE c.chain_id = $1 AND s.chain_id = $1 AND s.tail_number >= c.rows_from AND ($2 IS NULL OR kind = $2)";
const ADD: &str = "INSERT INTO dalp_indexed.indexed_contracts AS i (chain_id, address, kind, start_block, end_block) \
                   SELECT $1, address, kind, min(start), max(stop) FROM unnest($2, $3, $4, $5) AS n (address, kind, start, stop) \
                   GROUP BY address, kind \
                   ON CONFLICT (chain_id, address, kind) DO UPDATE SET start_block = excluded.start_block, end_block = excluded.end_block \
                   WHERE (i.start_block, i.end_block) IS DISTINCT FROM (excluded.start_block, excluded.end_block)";
const REMOVE: &str =
    "DELETE FROM dalp_indexed.indexed_contracts WHERE chain_id = $1 AND address = ANY ($2) AND kind = $3";
const LIST: &str = "SELECT address, kind, start_block, end_block, given_from IS NOT NULL, found_from IS NOT NULL, undecoded_to \
                    FROM dalp_indexed.contract WHERE chain_id = $1 AND ($2 IS NULL OR kind = $2) ORDER BY kind, address";
const WAITING: &str = "SELECT address, kind, start_block, end_block FROM dalp_indexed.indexed_contracts AS i \
                       WHERE chain_id = $1 AND ($2 IS NULL OR kind = $2) AND NOT EXISTS (\
                         SELECT FROM dalp_indexed.contract AS c WHERE c.chain_id = $1 AND c.address = i.address AND c.kind = i.kind \
                           AND c.given_from IS NOT NULL) ORDER BY kind, address";
