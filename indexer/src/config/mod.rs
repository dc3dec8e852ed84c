//! The configuration: sections of settings, a TOML file, the environment that overrides it, all problems at once.
//!
//! The program uses [`Config`]; [`Settings`] also knows the origin of each value. A setting is a field of its section's struct
//! (`database.rs`, `chain.rs` and the others), and everything else about the setting follows from this field.

mod all;
mod chain;
mod contract;
mod database;
mod database_url;
mod given;
mod http;
mod kind;
mod partitions;
mod problem;
mod reader;
mod roles;
mod section;
mod setting;
mod tables;
mod text;
mod value;

use std::path::Path;

pub use crate::chain::backfill::Order;
pub use chain::Chain;
pub use contract::{ContractsOf, abi_of, kind_name};
pub use dalp_migrations::Roles;
pub use database::Database;
pub use database_url::{DatabaseUrl, database_endpoint};
pub use http::Http;
pub use partitions::Partitions;
pub use problem::{ConfigErrors, DEFAULT_FILE, Origin, Problem};
pub use tables::ManagedTable;
pub(crate) use tables::registry;
pub(crate) use value::address;
pub use value::{
    Action, Finality, Index, Interval, Secret, TlsMode, Verify, endpoint, name as sql_name, table as sql_table,
};

use self::database::DatabaseDraft;
use self::given::{Given, Read};
use self::http::HttpDraft;
use self::partitions::PartitionsDraft;
use self::roles::RolesDraft;
use crate::dataset::Datasets;

/// Everything that can be configured. docs/configuration.md lists each setting with its default, unit and reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The database, and the connections to it.
    pub database: Database,
    /// The group roles of the database.
    pub roles: Roles,
    /// The chains to index, by name; their ids differ. May be empty: only some commands need a chain.
    pub chains: Vec<Chain>,
    /// The partitioning of tables.
    pub partitions: Partitions,
    /// The partitioned tables: the indexer's own, then your tables.
    pub tables: Vec<ManagedTable>,
    /// The tables for the logs of chains.
    pub datasets: Datasets,
    /// Events of the contracts' ABIs that could not be read, each with its file and the reason: their logs stay raw.
    pub skipped: Vec<String>,
    /// The HTTP server.
    pub http: Http,
}

impl Config {
    /// Reads `path` (or [`DEFAULT_FILE`], if it exists); the environment overrides the file.
    ///
    /// # Errors
    /// All problems at once, each with its key, its origin and the allowed values.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        Self::load_of(Datasets::own(), path, env)
    }

    /// As [`Config::load`], with these tables of chain rows in place of the indexer's own.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_of(
        datasets: Datasets,
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Ok(Settings::load(datasets, path, env)?.into_config())
    }

    /// A TOML file that works as it is and shows every setting.
    pub fn example() -> String {
        text::example()
    }

    /// The text of docs/configuration.md.
    pub fn reference() -> String {
        text::reference()
    }

    /// The given texts as values. A problem ends the reading only after all sections are read and compared.
    fn read(given: &mut Given, contracts: &contract::Sections) -> Read<Self> {
        let database = DatabaseDraft::read(given, "").finish();
        let roles = RolesDraft::read(given, "");
        roles.compare(given);
        let (chains, datasets) = contract::chains_with(given, contracts);
        let partitions = PartitionsDraft::read(given, "");
        let tables = tables::managed_tables(given, &partitions.archive_url.key);
        let http = HttpDraft::read(given, "").finish();
        Ok(Self {
            database: database?,
            roles: roles.finish()?,
            chains: chains?,
            partitions: partitions.finish()?,
            tables: tables?,
            datasets: datasets?,
            skipped: contracts.skipped.clone(),
            http: http?,
        })
    }
}

/// A configuration, and the origin of each value.
pub struct Settings {
    config: Config,
    given: Given,
}

impl Settings {
    /// Reads `path` (or [`DEFAULT_FILE`], if it exists); the environment overrides the file. `datasets`: the tables of chain rows
    /// that `[tables.NAME]` and `[indexes]` may name.
    ///
    /// # Errors
    /// All problems at once.
    pub fn load(
        datasets: Datasets,
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Self::of(reader::read(datasets, path, environment)?)
    }

    /// The settings from these variables alone, without a file.
    ///
    /// # Errors
    /// All problems at once.
    #[cfg(feature = "dev")]
    pub fn of_variables(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        Self::of(reader::read_variables(Datasets::own(), variables))
    }

    fn of((mut given, contracts): (Given, contract::Sections)) -> Result<Self, ConfigErrors> {
        let config = Config::read(&mut given, &contracts);
        let (config, given) = given.finish(config)?;
        Ok(Self { config, given })
    }

    /// The typed configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The typed configuration, without the origins.
    pub fn into_config(self) -> Config {
        self.config
    }

    /// The effective configuration as text, each value with its origin, without secrets.
    pub fn describe(&self) -> String {
        text::describe(&self.given)
    }
}

#[cfg(test)]
mod tests;
