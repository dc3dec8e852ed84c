//! The node and the database that a user gives to `dev`: checked before anything is removed or started, together with the chain
//! in the database. No message shows a whole URL: it may hold a password or a provider's key.

use alloy::primitives::B256;
use dalp_fixtures::Rpc;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::args::DevArgs;
use crate::cli::failure::Failure;
use crate::config::{Chain, Config, DatabaseUrl, Secret, Settings, endpoint};
use crate::nodes::Nodes;
use crate::store::connect::{connect_direct, explain};
use crate::store::{hash, int8, uint8};

/// The name of the chain.
pub(super) const CHAIN: &str = "devnet";

/// A node to index.
pub(super) struct DevNode {
    pub url: String,
    pub ws_url: Option<String>,
    pub chain_id: u64,
    pub genesis: B256,
    pub start_block: u64,
    /// A client, if we started the node and may send traffic to it.
    pub ours: Option<Rpc>,
}

/// The given node, if any. Both it and the given database have answered.
pub(super) async fn meet(args: &DevArgs) -> Result<Option<DevNode>, Failure> {
    if let Some(url) = &args.rpc_url {
        let parsed =
            url::Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        parsed.ok_or_else(|| {
            Failure::usage("--rpc-url: the value (not shown) is not a URL that starts with http:// or https://")
        })?;
    }
    if let Some(url) = &args.database_url {
        DatabaseUrl::parse(url).map_err(|why| Failure::usage(format!("--database-url: {why}")))?;
        let config = settings(url)?;
        connect_direct(&config.database, &config.database.url)
            .await
            .map_err(|error| Failure::other(format!("--database-url: {error}")))?;
    }
    match &args.rpc_url {
        Some(url) => node(url, args.start_block).await.map(Some),
        None => Ok(None),
    }
}

/// The defaults for a database and a chain.
fn settings(database_url: &str) -> Result<Config, Failure> {
    let set = [
        ("DALP_DATABASE__URL", database_url),
        ("DALP_CHAINS__DEVNET__CHAIN_ID", "1"),
        ("DALP_CHAINS__DEVNET__RPC_URLS", "http://127.0.0.1"),
    ];
    let set = set.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Settings::of_variables(set)?.into_config())
}

async fn node(url: &str, start_block: u64) -> Result<DevNode, Failure> {
    let failed = |error| Failure::other(format!("--rpc-url: {error}. Check that a node runs there"));
    let chain: Option<Chain> = settings("postgres://127.0.0.1/dalp")?.chains.pop();
    let chain = chain.ok_or_else(|| Failure::other("no chain of the defaults"))?;
    let nodes = Nodes::new(&Chain { rpc_urls: vec![Secret::new(url)], ..chain }).map_err(failed)?;
    let found = nodes.identity().await.map_err(failed)?;
    let (url, ws_url) = (url.to_owned(), None);
    Ok(DevNode { url, ws_url, chain_id: found.chain_id, genesis: found.genesis, start_block, ours: None })
}

/// Refuses if the database holds another chain than the node's, and names the remedy.
pub(super) async fn same_chain(config: &Config, args: &DevArgs, node: &DevNode) -> Result<(), Failure> {
    let client = connect_direct(&config.database, &config.database.admin_url).await?;
    let chain_id = int8(node.chain_id);
    let sql = "SELECT chain_id FROM dalp_indexed.chain_state WHERE name = $1 AND chain_id <> $2";
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&CHAIN, Type::TEXT), (&chain_id, Type::INT8)];
    if let Some(row) = client.query_typed_opt(sql, &params).await.map_err(unread)? {
        return Err(Failure::other(of_another_id(args, row.get(0), node.chain_id)));
    }
    let Some(stored) = Stored::read(&client, chain_id).await? else { return Ok(()) };
    if stored.genesis != node.genesis {
        // Its stored rows are removed by the start; its contracts are those of another chain.
        if args.fresh {
            let sql = "DELETE FROM dalp_indexed.indexed_contracts WHERE chain_id = $1";
            client.execute_typed(sql, &[(&chain_id, Type::INT8)]).await.map_err(unread)?;
            return Ok(());
        }
        return Err(Failure::other(format!(
            "the database holds another chain {chain_id}: its first block is {}, and the first block of the node at {} is \
             {}. The node was restarted, or is another node. Nothing was changed. To remove the stored chain and start \
             from an empty one, run `dalp-indexer dev --fresh` with the other arguments of this run",
            stored.genesis,
            endpoint(&node.url),
            node.genesis
        )));
    }
    match &node.ours {
        Some(rpc) => stored.is_on(rpc).await,
        None => Ok(()),
    }
}

fn of_another_id(args: &DevArgs, stored: i64, found: u64) -> String {
    let what = format!("the database holds chain {stored}, and the node serves chain {found}. Nothing was changed");
    match &args.database_url {
        // In a database that is not ours, only the rows of this very chain are removed.
        Some(_) => format!(
            "{what}. `dev` keeps one chain per database: give another database (CREATE DATABASE …) with --database-url, \
             or a node of chain {stored} with --rpc-url"
        ),
        None => format!(
            "{what}. To start with an empty database, run `dalp-indexer dev --fresh` with the other arguments of this \
             run; to continue with the stored chain, give its node with --rpc-url"
        ),
    }
}

struct Stored {
    genesis: B256,
    tail: Option<(u64, B256)>,
}

impl Stored {
    async fn read(client: &Client, chain_id: i64) -> Result<Option<Self>, Failure> {
        let sql = "SELECT genesis_hash, tail_number, tail_hash FROM dalp_indexed.chain_state WHERE chain_id = $1";
        let row = client.query_typed_opt(sql, &[(&chain_id, Type::INT8)]).await.map_err(unread)?;
        let Some(row) = row else { return Ok(None) };
        let tail = match row.get(2) {
            Some(bytes) => Some((uint8(row.get(1))?, hash(bytes)?)),
            None => None,
        };
        Ok(Some(Self { genesis: hash(row.get(0))?, tail }))
    }

    /// Our own node continues from a file: it may have been killed before it wrote the file.
    async fn is_on(&self, rpc: &Rpc) -> Result<(), Failure> {
        let Some((number, hash)) = self.tail else { return Ok(()) };
        if rpc.block_hash(number).await? == Some(hash) {
            return Ok(());
        }
        Err(Failure::other(format!(
            "the database holds this devnet's blocks up to {number}, and Anvil does not have this block: Anvil ended \
             before it saved its chain. Nothing was changed. To start with an empty chain, run `dalp-indexer dev --fresh` \
             with the other arguments of this run"
        )))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unread(error: tokio_postgres::Error) -> Failure {
    Failure::other(format!("reading the chain id from the database: {}", explain(&error)))
}
