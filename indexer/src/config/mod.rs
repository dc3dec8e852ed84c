//! The configuration: one table of settings, a TOML file, the environment over it, all problems at once.
//!
//! [`Settings`] holds checked texts and knows where each comes from; [`Config`] is what the program runs on.

mod database_url;
mod kind;
mod reader;
mod setting;
mod tables;
mod text;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy::primitives::{Address, B256};
use chrono::TimeDelta;
use dalp_partitions::{Retention, Switches, Table, activity_table};

pub use crate::chain::backfill::Order;
pub use dalp_migrations::Roles;
pub use database_url::{DatabaseUrl, database_endpoint};
pub use reader::{ConfigErrors, DEFAULT_FILE, Origin, Problem, Settings};
pub use tables::ManagedTable;
pub(crate) use tables::registry;
pub use value::{
    Action, Finality, Index, Interval, Secret, TlsMode, Verify, endpoint, name as sql_name, table as sql_table,
};

use self::tables::ACTIVITY;
use crate::dataset::Datasets;

/// Everything that can be configured. docs/configuration.md lists each setting with its default, unit and reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The database and how it is reached.
    pub database: Database,
    /// The group roles of the database.
    pub roles: Roles,
    /// The chains to index, by name; their ids differ. May be empty: only some commands need a chain.
    pub chains: Vec<Chain>,
    /// How tables are partitioned.
    pub partitions: Partitions,
    /// The partitioned tables: the indexer's own, then those of others.
    pub tables: Vec<ManagedTable>,
    /// The tables that the logs of chains go to.
    pub datasets: Datasets,
    /// The HTTP server.
    pub http: Http,
}

/// The database and how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// Where rows are written; may be a pooler.
    pub url: Secret,
    /// A direct connection for migrations and partitions; `url` unless set.
    pub admin_url: Secret,
    /// The connection of the SQL prompt; `url` unless set.
    pub reader_url: Secret,
    /// Connections kept to `url`, at most.
    pub pool_size: u32,
    /// Transactions of history at once, at most.
    pub write_parallelism: u32,
    /// Limit of one attempt to connect.
    pub connect_timeout: Duration,
    /// TLS to hosts that are not local.
    pub tls: Tls,
}

/// How TLS to a database is done where its URL does not say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// `database.tls`.
    pub mode: TlsMode,
    /// `database.ca_file`: the PEM file of authorities to trust; the system's without it.
    pub ca_file: Option<PathBuf>,
}

/// One chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// Its name in the configuration: a-z, 0-9 and `_`.
    pub name: String,
    /// What `eth_chainId` must answer.
    pub chain_id: u64,
    /// HTTP nodes, at least one.
    pub rpc_urls: Vec<Secret>,
    /// WebSocket nodes for new heads.
    pub ws_urls: Vec<Secret>,
    /// The first block to index.
    pub start_block: u64,
    /// How blocks become final.
    pub finality: Finality,
    /// Contracts to index; empty for all.
    pub addresses: Vec<Address>,
    /// First topics to index; empty for all.
    pub topics: Vec<B256>,
    /// Whether logs are stored as they came, beside the typed rows.
    pub raw: bool,
    /// How far blocks are verified.
    pub verify: Verify,
    /// Pause between two questions for the head, where it is polled.
    pub poll_interval: Duration,
    /// Limit of one request.
    pub request_timeout: Duration,
    /// Limit of one answer, in bytes.
    pub max_response_bytes: u64,
    /// Blocks of the first range; learned afterwards.
    pub range_blocks: u64,
    /// Blocks of any range, at most.
    pub max_range_blocks: u64,
    /// Requests under way at once.
    pub fetch_parallelism: u32,
    /// Rows at which a batch is closed.
    pub batch_rows: u32,
    /// Bytes of batches that are fetched and not committed, at most.
    pub fetch_buffer_bytes: u64,
    /// Pieces of history under way at once.
    pub backfill_workers: u32,
    /// Which end of history comes first.
    pub backfill_order: Order,
    /// Whether everything stored is removed when the node turns out to serve another chain under the same id.
    pub reset_on_chain_change: bool,
    /// The tables that its logs go to.
    pub datasets: Datasets,
}

/// How tables are partitioned.
#[derive(Clone, Debug, PartialEq)]
pub struct Partitions {
    /// Span of a leaf near the head.
    pub interval: Interval,
    /// Whether it is widened where full leaves are small.
    pub interval_by_size: bool,
    /// Span of a leaf of old history.
    pub history_interval: Interval,
    /// The age at which history begins.
    pub history_after: Duration,
    /// Leaves made ahead of the head.
    pub premake: u32,
    /// Leaves of one table and chain, at most.
    pub max_leaves: u32,
    /// Pause between two rounds of maintenance.
    pub maintenance_interval: Duration,
    /// What may be done at all.
    pub switches: Switches,
    /// Where archives go.
    pub archive_url: Option<String>,
    /// What the object store needs to know; the values may be secret.
    pub archive_options: Vec<Secret>,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Where it listens; `None` for nowhere.
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// Reads `path` (or [`DEFAULT_FILE`], if it exists), then lets the environment override it.
    ///
    /// # Errors
    /// All problems at once, each with its key, where it was found, and what is allowed.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        Self::load_of(Datasets::own(), path, env)
    }

    /// The same with other tables of chains than the indexer's own.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_of(
        datasets: Datasets,
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Settings::load(datasets, path, env)?.config()
    }

    /// A TOML file that works as it is and shows every setting.
    pub fn example() -> String {
        text::example()
    }

    /// The text of docs/configuration.md.
    pub fn reference() -> String {
        text::reference()
    }
}

impl Settings {
    /// The typed configuration.
    ///
    /// # Errors
    /// None for settings that [`Settings::load`] returned, unless a check is looser than its type, which is a bug.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        Ok(Config {
            database: self.database()?,
            roles: self.roles()?,
            chains: self.chains().map(|name| self.chain(name)).collect::<Result<_, _>>()?,
            partitions: self.partitions()?,
            tables: self.managed_tables()?,
            datasets: self.datasets().clone(),
            http: Http { listen: self.one_with("http.listen", |text| value::listen(text).ok())? },
        })
    }

    /// The effective configuration as text, each value with where it comes from, without secrets.
    pub fn describe(&self) -> String {
        text::describe(self)
    }

    fn secrets(&self, key: &str) -> Result<Vec<Secret>, ConfigErrors> {
        self.items_with(key, |text| Some(Secret::new(text)))
    }

    fn secret(&self, key: &str) -> Result<Secret, ConfigErrors> {
        self.one_with(key, |text| Some(Secret::new(text)))
    }

    fn database(&self) -> Result<Database, ConfigErrors> {
        Ok(Database {
            url: self.secret("database.url")?,
            admin_url: self.secret("database.admin_url")?,
            reader_url: self.secret("database.reader_url")?,
            pool_size: self.one("database.pool_size")?,
            write_parallelism: self.one("database.write_parallelism")?,
            connect_timeout: self.duration("database.connect_timeout")?,
            tls: Tls { mode: self.one("database.tls")?, ca_file: self.list("database.ca_file")?.pop() },
        })
    }

    fn roles(&self) -> Result<Roles, ConfigErrors> {
        Ok(Roles {
            migrator: self.one("roles.migrator")?,
            writer: self.one("roles.writer")?,
            partitioner: self.one("roles.partitioner")?,
            reader: self.one("roles.reader")?,
            create: self.one("roles.create")?,
        })
    }

    fn chain(&self, name: &str) -> Result<Chain, ConfigErrors> {
        let key = |setting: &str| format!("chains.{name}.{setting}");
        Ok(Chain {
            name: name.to_owned(),
            chain_id: self.one(&key("chain_id"))?,
            rpc_urls: self.secrets(&key("rpc_urls"))?,
            ws_urls: self.secrets(&key("ws_urls"))?,
            start_block: self.one(&key("start_block"))?,
            finality: self.one(&key("finality"))?,
            addresses: self.list(&key("addresses"))?,
            topics: self.items_with(&key("topics"), value::topic)?,
            raw: self.one(&key("raw"))?,
            verify: self.one(&key("verify"))?,
            poll_interval: self.duration(&key("poll_interval"))?,
            request_timeout: self.duration(&key("request_timeout"))?,
            max_response_bytes: self.one(&key("max_response_bytes"))?,
            range_blocks: self.one(&key("range_blocks"))?,
            max_range_blocks: self.one(&key("max_range_blocks"))?,
            fetch_parallelism: self.one(&key("fetch_parallelism"))?,
            batch_rows: self.one(&key("batch_rows"))?,
            fetch_buffer_bytes: self.one(&key("fetch_buffer_bytes"))?,
            backfill_workers: self.one(&key("backfill_workers"))?,
            backfill_order: self.one_with(&key("backfill_order"), value::order)?,
            reset_on_chain_change: self.one(&key("reset_on_chain_change"))?,
            datasets: self.datasets().clone(),
        })
    }

    fn managed_tables(&self) -> Result<Vec<ManagedTable>, ConfigErrors> {
        let own = self.own_tables();
        let others = self.tables().map(String::as_str).filter(|name| !own.contains(name));
        own.iter().copied().chain(others).map(|name| self.managed_table(name)).collect()
    }

    fn managed_table(&self, name: &str) -> Result<ManagedTable, ConfigErrors> {
        let key = |setting: &str| format!("tables.{name}.{setting}");
        let span = |time: Duration| TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX);
        let dataset = self.datasets().partitioned().find(|dataset| dataset.name() == name);
        let table = match (dataset, name) {
            (Some(dataset), _) => Table::new(dataset.schema(), dataset.table(), "block_time")
                .registered_in(registry())
                .with_leaf_indexes(self.items_with(&format!("indexes.{name}"), value::index)?),
            (None, ACTIVITY) => activity_table(&registry()),
            (None, _) => {
                let named: String = self.one(&key("table"))?;
                let (schema, table) = value::table(&named).ok_or_else(|| self.unreadable(&key("table")))?;
                let time = self.one_with(&key("time_column"), value::name)?;
                let list: bool = self.one(&key("list"))?;
                Table { flat: !list, ..Table::new(schema, table, time).registered_in(registry()) }
            }
        };
        let time = self.items_with(&key("retention"), |text| value::duration(text).ok())?.pop();
        let share: u32 = self.one(&key("max_share_per_run"))?;
        let retention = Retention {
            action: self.one_with(&key("action"), |text| text.parse().ok())?,
            time: time.map_or(TimeDelta::MAX, span),
            grace: span(self.duration(&key("grace"))?),
            max_leaves: self.one(&key("max_leaves_per_run"))?,
            max_share: f64::from(share) / 100.0,
        };
        // Whoever says nothing of the record of deeds gets months: it is small.
        let interval = match (name, self.is_set(&key("interval"))) {
            (ACTIVITY, false) => Interval::Month,
            _ => self.one(&key("interval"))?,
        };
        Ok(ManagedTable { name: name.to_owned(), table, interval, retention, dataset: dataset.cloned() })
    }

    fn partitions(&self) -> Result<Partitions, ConfigErrors> {
        Ok(Partitions {
            interval: self.one("partitions.interval")?,
            interval_by_size: self.one("partitions.interval_by_size")?,
            history_interval: self.one("partitions.history_interval")?,
            history_after: self.duration("partitions.history_after")?,
            premake: self.one("partitions.premake")?,
            max_leaves: self.one("partitions.max_leaves")?,
            maintenance_interval: self.duration("partitions.maintenance_interval")?,
            switches: Switches {
                create: self.one("partitions.create")?,
                archive: self.one("partitions.archive")?,
                detach: self.one("partitions.detach")?,
                drop: self.one("partitions.drop")?,
            },
            archive_url: self.list("partitions.archive_url")?.pop(),
            archive_options: self.secrets("partitions.archive_options")?,
        })
    }
}

#[cfg(test)]
mod tests;
