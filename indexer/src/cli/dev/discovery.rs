//! Which contracts of the devnet are those of the user's project: by their code, or the code behind a proxy, as soon as they emit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::{Address, B256, keccak256};
use dalp_fixtures::Rpc;
use tokio::task::block_in_place;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use tracing::{info, warn};

use super::code::{Codes, Traced, Upgrades};
use super::project::Project;
use crate::cli::failure::Failure;
use crate::config::Config;
use crate::dataset::Contract;
use crate::store::connect::{connect_direct, explain};
use crate::store::int8;

/// Pause between two looks for new emitters.
const LOOK: Duration = Duration::from_secs(1);
/// Blocks that are looked at again: a devnet goes back.
const AGAIN: i64 = 256;

/// The contracts of each kind, with the files of their ABI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    kinds: BTreeMap<String, (BTreeSet<PathBuf>, BTreeSet<Address>)>,
}

impl Known {
    /// Adds a contract.
    pub fn add(&mut self, kind: &str, abi: PathBuf, address: Address) {
        let (files, addresses) = self.kinds.entry(kind.to_owned()).or_default();
        files.insert(abi);
        addresses.insert(address);
    }

    /// Adds a version of a kind, whose contracts the indexer is told of while it runs.
    pub fn add_version(&mut self, kind: &str, abi: PathBuf) {
        self.kinds.entry(kind.to_owned()).or_default().0.insert(abi);
    }

    /// As sections of the configuration.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        for (kind, (files, addresses)) in &self.kinds {
            let quoted = |text: String| toml::Value::String(text).to_string();
            let files: Vec<String> = files.iter().map(|path| quoted(path.display().to_string())).collect();
            let addresses: Vec<String> = addresses.iter().map(|address| quoted(address.to_string())).collect();
            // Writing to a text cannot fail.
            let _ = write!(text, "\n[contracts.{kind}]\nabi = [{}]\n", files.join(", "));
            if !addresses.is_empty() {
                let _ = writeln!(text, "addresses = [{}]", addresses.join(", "));
            }
        }
        text
    }
}

/// A contract with stored logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Emitter {
    /// Its kinds, each with its first block.
    kinds: Vec<(u64, Option<String>)>,
    /// The contract whose upgrades change them.
    follows: Address,
    /// The blocks of its first and its last seen log, and the transaction of the last one.
    first_block: i64,
    last_block: i64,
    tx_hash: B256,
    /// Its code was read since something happened that may change its kinds.
    is_met: bool,
    /// The kind depends on a trace that the node did not give: a later transaction may tell.
    is_untraced: bool,
}

/// Looks for contracts of the project among those whose logs are stored.
pub(super) struct Discovery {
    project: Option<Project>,
    codes: Codes,
    chain_id: i64,
    client: Option<Client>,
    emitters: BTreeMap<Address, Emitter>,
    /// Those of a branch that is gone.
    gone: BTreeSet<Address>,
    upgrades: Upgrades,
    last_block: i64,
    /// The epoch of the last seen reorg.
    epoch: i64,
    /// What `dalp_indexed.indexed_contracts` was told.
    told: Option<Vec<Contract>>,
    /// The last trouble, which is told once.
    trouble: String,
    known: Known,
    /// How many versions of the project have tables.
    with_tables: usize,
}

impl Discovery {
    pub fn new(project: Option<Project>, rpc: Rpc, chain_id: u64, known: Known) -> Self {
        Self {
            with_tables: 0,
            project,
            codes: Codes::new(rpc),
            chain_id: int8(chain_id),
            client: None,
            emitters: BTreeMap::new(),
            gone: BTreeSet::new(),
            upgrades: Upgrades::default(),
            last_block: -1,
            epoch: -1,
            told: None,
            trouble: String::new(),
            known,
        }
    }

    /// The sections of the contracts, as the indexer is to be started with.
    pub fn sections(&mut self) -> String {
        for (kind, path) in self.project.iter().flat_map(Project::versions) {
            self.known.add_version(kind, path.to_owned());
        }
        self.with_tables = self.versions();
        self.known.toml()
    }

    fn versions(&self) -> usize {
        self.project.iter().flat_map(Project::versions).count()
    }

    /// Waits until a new version of a contract is on the chain: the indexer needs its tables. Contracts of known versions are told to the
    /// running indexer. Pending without a project. Cancel-safe.
    pub async fn found(&mut self, config: &Config) {
        if self.project.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep(LOOK).await;
            match self.look(config).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    self.client = None;
                    self.trouble(&error);
                }
            }
        }
    }

    fn trouble(&mut self, error: &Failure) {
        let why = error.to_string();
        if why != self.trouble {
            warn!("some contracts of the project may be missing until this is mended: {why}");
            self.trouble = why;
        }
    }

    async fn look(&mut self, config: &Config) -> Result<bool, Failure> {
        if self.client.is_none() {
            self.client = Some(connect_direct(&config.database, &config.database.url).await?);
        }
        self.changed().await?;
        let refreshed = block_in_place(|| self.project.as_mut().map_or(Ok(false), Project::refresh));
        match refreshed {
            Ok(false) => {}
            Ok(true) => {
                let is_unknown = |emitter: &&mut Emitter| emitter.kinds.iter().any(|(_, kind)| kind.is_none());
                self.emitters.values_mut().filter(is_unknown).for_each(|emitter| emitter.is_met = false);
            }
            Err(error) => self.trouble(&error),
        }
        let unmet: Vec<Address> =
            self.emitters.iter().filter(|(_, emitter)| !emitter.is_met).map(|(address, _)| *address).collect();
        for address in unmet {
            if let Err(error) = self.meet(address).await {
                self.trouble(&error);
            }
        }
        // The tables of a new version come first: a contract without tables is reported as idle.
        let is_new = self.versions() > self.with_tables;
        if !is_new {
            self.tell().await?;
        }
        Ok(is_new)
    }

    /// Reads the newest stored logs. Emitters that are new are to be met, and those whose code may be another now: behind a proxy, or
    /// after a reorg.
    async fn changed(&mut self) -> Result<(), Failure> {
        let Some(client) = &self.client else { return Ok(()) };
        let chain = (&self.chain_id as &(dyn ToSql + Sync), Type::INT8);
        let epoch = (&self.epoch as _, Type::INT8);
        // First: what is read after it may be of the new branch already, which the next look reads again.
        let reorg = client.query_typed_one(REORGS, &[chain.clone(), epoch]).await.map_err(unread)?;
        if let Some(fork) = reorg.get::<_, Option<i64>>(1) {
            self.epoch = reorg.get(0);
            self.last_block = self.last_block.min(fork);
            self.codes.forget();
            let orphans = self.emitters.extract_if(.., |_, emitter| emitter.first_block > fork);
            self.gone.extend(orphans.map(|(address, _)| address));
            let is_after = |emitter: &&mut Emitter| emitter.last_block > fork;
            self.emitters.values_mut().filter(is_after).for_each(|emitter| emitter.is_met = false);
        }
        let from = self.last_block - AGAIN;
        let from_block = (&from as &(dyn ToSql + Sync), Type::INT8);
        let topic = keccak256("Upgraded(address)");
        let topic = (&topic.as_slice() as &(dyn ToSql + Sync), Type::BYTEA);
        let rows = client.query_typed(UPGRADES, &[chain.clone(), from_block.clone(), topic]).await.map_err(unread)?;
        let upgrades = rows.iter().map(|row| (address(row.get(0)), block(row.get(1)), address(row.get(2))));
        let upgraded = self.upgrades.replace(block(from + 1), upgrades);
        let is_upgraded = |emitter: &&mut Emitter| upgraded.contains(&emitter.follows);
        self.emitters.values_mut().filter(is_upgraded).for_each(|emitter| emitter.is_met = false);
        for row in client.query_typed(EMITTERS, &[chain, from_block]).await.map_err(unread)? {
            let (first_block, last_block) = (row.get(1), row.get(2));
            let tx_hash = B256::try_from(row.get::<_, &[u8]>(3)).unwrap_or_default();
            self.last_block = self.last_block.max(last_block);
            let new = || Emitter { first_block, ..Emitter::default() };
            let emitter = self.emitters.entry(address(row.get(0))).or_insert_with(new);
            emitter.is_met &= !(emitter.is_untraced && emitter.tx_hash != tx_hash);
            (emitter.last_block, emitter.tx_hash) = (last_block, tx_hash);
        }
        Ok(())
    }

    /// Finds the kinds of an emitter.
    async fn meet(&mut self, address: Address) -> Result<(), Failure> {
        let (Some(project), Some(emitter)) = (&mut self.project, self.emitters.get_mut(&address)) else {
            return Ok(());
        };
        let own = self.codes.code(address).await?;
        let (mut kinds, mut follows, mut is_untraced) = (Vec::new(), address, false);
        if let Some(proxied) = self.codes.proxied(address, &own, &self.upgrades).await? {
            follows = proxied.follows;
            for (from, to) in proxied.since {
                let kind = project.kind_of(&self.codes.code(to).await?)?;
                kinds.push((from, kind.map_or_else(|| project.kind_of(&own), |kind| Ok(Some(kind)))?));
            }
        }
        if kinds.is_empty() {
            // A contract that follows no standard, or calls a library: its own code comes first.
            let mut kind = project.kind_of(&own)?;
            if kind.is_none() {
                match self.codes.delegate(address, emitter.tx_hash).await? {
                    Traced::To(to) => kind = project.kind_of(&self.codes.code(to).await?)?,
                    Traced::Nowhere => {}
                    Traced::Unknown => {
                        is_untraced = true;
                        kind = emitter.kinds.first().and_then(|(_, kind)| kind.clone());
                    }
                }
            }
            kinds.push((0, kind));
        }
        if kinds != emitter.kinds {
            for (from, kind) in &kinds {
                if let Some(kind) = kind {
                    info!(what = %address, from_block = from, "a contract of the kind {kind}");
                }
            }
        }
        *emitter = Emitter { kinds, follows, is_untraced, is_met: true, ..emitter.clone() };
        Ok(())
    }

    /// Tells the running indexer of all contracts, if they changed.
    async fn tell(&mut self) -> Result<(), Failure> {
        let contracts: Vec<Contract> =
            self.emitters.iter().flat_map(|(address, emitter)| contracts(*address, &emitter.kinds)).collect();
        let Some(client) = &self.client else { return Ok(()) };
        if self.told.as_ref() == Some(&contracts) {
            return Ok(());
        }
        let addresses: Vec<&[u8]> = contracts.iter().map(|contract| contract.address.as_slice()).collect();
        let kinds: Vec<&str> = contracts.iter().map(|contract| contract.kind.as_str()).collect();
        let starts: Vec<i64> = contracts.iter().map(|contract| int8(contract.from)).collect();
        let ends: Vec<Option<i64>> = contracts.iter().map(|contract| contract.to.map(int8)).collect();
        // Of those that could not be met, nothing is known.
        let met = self.emitters.iter().filter(|(_, emitter)| emitter.is_met).map(|(address, _)| address);
        let all: Vec<&[u8]> = met.chain(&self.gone).map(|address| address.as_slice()).collect();
        let project: Vec<&str> = self.project.iter().flat_map(Project::versions).map(|(kind, _)| kind).collect();
        let params: [(&(dyn ToSql + Sync), Type); 7] = [
            (&self.chain_id, Type::INT8),
            (&addresses, Type::BYTEA_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&ends, Type::INT8_ARRAY),
            (&project, Type::TEXT_ARRAY),
            (&all, Type::BYTEA_ARRAY),
        ];
        client.execute_typed(TELL, &params).await.map_err(unread)?;
        self.told = Some(contracts);
        Ok(())
    }
}

/// The kinds of a contract with their blocks. A contract that comes back to a kind is of it all the time between.
fn contracts(address: Address, kinds: &[(u64, Option<String>)]) -> Vec<Contract> {
    let mut contracts: BTreeMap<&str, (u64, Option<u64>)> = BTreeMap::new();
    for (at, (from, kind)) in kinds.iter().enumerate() {
        let Some(kind) = kind else { continue };
        let to = kinds.get(at + 1).map(|(next, _)| next - 1);
        contracts.entry(kind).and_modify(|blocks| blocks.1 = to).or_insert((*from, to));
    }
    let contract = |(kind, (from, to)): (&str, _)| Contract { address, kind: kind.to_owned(), from, to };
    contracts.into_iter().map(contract).collect()
}

fn address(bytes: &[u8]) -> Address {
    Address::try_from(bytes).unwrap_or_default()
}

/// A block of the table, whose numbers are not negative.
fn block(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unread(error: tokio_postgres::Error) -> Failure {
    Failure::other(explain(&error))
}

const EMITTERS: &str = "SELECT DISTINCT ON (address) address, min(block_number) OVER (PARTITION BY address), block_number, tx_hash \
                        FROM dalp_indexed.logs WHERE chain_id = $1 AND block_number > $2 ORDER BY address, block_number DESC";
const REORGS: &str = "SELECT max(epoch), min(fork_number) FROM dalp_indexed.reorg WHERE chain_id = $1 AND epoch > $2";
/// Some proxies do not index the address.
const UPGRADES: &str = "SELECT address, block_number, substring(COALESCE(topic1, substring(data FOR 32)) FROM 13) FROM dalp_indexed.logs \
                        WHERE chain_id = $1 AND block_number > $2 AND topic0 = $3 \
                          AND octet_length(COALESCE(topic1, substring(data FOR 32))) = 32 ORDER BY block_number, log_index";
/// Other kinds of the project end with the first block, so that their rows go: those of blocks that came after a reorg, and before it was
/// noticed here. A contract of the project that a user adds is `dev`'s as soon as it emits; contracts of other kinds stay.
const TELL: &str = "WITH told AS (SELECT * FROM unnest($2, $3, $4, $5) AS n (address, kind, start_block, end_block)), \
                         gone AS (UPDATE dalp_indexed.indexed_contracts AS i SET start_block = 0, end_block = 0 \
                                  WHERE chain_id = $1 AND kind = ANY ($6) AND address = ANY ($7) \
                                    AND NOT EXISTS (SELECT FROM told WHERE told.address = i.address AND told.kind = i.kind)) \
                    INSERT INTO dalp_indexed.indexed_contracts (chain_id, address, kind, start_block, end_block) \
                    SELECT $1, address, kind, start_block, end_block FROM told \
                    ON CONFLICT (chain_id, address, kind) DO UPDATE SET start_block = excluded.start_block, end_block = excluded.end_block";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contracts_are_sections_of_the_configuration() {
        let mut known = Known::default();
        let (one, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        known.add("bond", "out/Bond.json".into(), one);
        known.add("bond", "out/Bond.json".into(), other);
        known.add_version("bond", "v2/Bond.json".into());
        known.add_version("fund", "out/Fund.json".into());
        let text = format!(
            "\n[contracts.bond]\nabi = [\"out/Bond.json\", \"v2/Bond.json\"]\naddresses = [\"{one}\", \"{other}\"]\n\
             \n[contracts.fund]\nabi = [\"out/Fund.json\"]\n"
        );
        assert_eq!(known.toml(), text);
    }

    #[test]
    fn a_kind_ends_before_the_block_of_the_next() {
        let kind = |from, kind: &str| (from, Some(kind.to_owned()).filter(|kind| !kind.is_empty()));
        let of = |kinds: &[(u64, Option<String>)]| {
            let contracts = contracts(Address::ZERO, kinds);
            contracts.into_iter().map(|one| (one.kind, one.from, one.to)).collect::<Vec<_>>()
        };
        let (a, b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(of(&[kind(0, "a")]), [(a.clone(), 0, None)]);
        assert_eq!(of(&[kind(0, "a"), kind(7, "b")]), [(a.clone(), 0, Some(6)), (b.clone(), 7, None)]);
        assert_eq!(of(&[kind(0, ""), kind(7, "b"), kind(9, "")]), [(b.clone(), 7, Some(8))]);
        assert_eq!(of(&[kind(0, "a"), kind(7, "a")]), [(a.clone(), 0, None)]);
        assert_eq!(of(&[kind(0, "a"), kind(7, "b"), kind(9, "a")]), [(a, 0, None), (b, 7, Some(8))]);
    }
}
