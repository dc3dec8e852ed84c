//! The arguments of `dev`.

use std::path::PathBuf;

use crate::cli::block::block;

/// Arguments of `dev`.
#[derive(Clone, Debug, clap::Args)]
pub struct DevArgs {
    /// Remove the chain and database of earlier runs, unless both --rpc-url and --database-url are given. In a database
    /// given by --database-url, only this chain is removed, and only if its genesis block changed
    #[arg(long)]
    pub fresh: bool,
    /// Index this node instead of starting Anvil; it gets no sample traffic
    #[arg(long, value_name = "URL")]
    pub rpc_url: Option<String>,
    /// First block to index of the node given by --rpc-url
    #[arg(long, value_name = "BLOCK", default_value_t = 0, requires = "rpc_url", allow_negative_numbers = true, value_parser = block)]
    pub start_block: u64,
    /// The folder of a project's compiled contracts (out of Foundry, artifacts of Hardhat): the events of each contract on the chain with
    /// their code get tables, also of contracts that are deployed later
    #[arg(long, value_name = "FOLDER")]
    pub artifacts: Option<PathBuf>,
    /// Use this database instead of starting PostgreSQL; its user may create roles, or the roles exist
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}
