//! `dalp-indexer contracts`: the indexed contracts, without a restart.

use alloy::primitives::Address;
use clap::{Args, Subcommand};
use serde_json::json;

use super::backfill::pick;
use super::block::block;
use super::failure::Failure;
use super::grid::Grid;
use crate::cli::out::say;
use crate::config::{Chain, Config, address};
use crate::dataset::Contract;
use crate::store::contracts::Stored;
use crate::store::{Store, StoreError};

/// The contracts whose events have tables.
#[derive(Debug, Subcommand)]
pub enum ContractsCommand {
    /// Index more contracts of a kind
    #[command(after_help = "Examples:
  dalp-indexer contracts add --kind bond 0x5fbdb2315678afecb367f032d93f642f64180aa3
  dalp-indexer contracts add --chain mainnet --kind smart_token --from 1200000 0x5fbdb2315678afecb367f032d93f642f64180aa3

The running indexer takes them up within two seconds, and decodes their stored logs beside new blocks. The configuration must have
the kind: a section [contracts.NAME], with or without addresses, or a factory that announces the kind. The same in SQL:
  INSERT INTO dalp_indexed.indexed_contracts (chain_id, address, kind) VALUES (1, '\\x5fbd…', 'bond')")]
    Add(AddArgs),
    /// List the contracts: named by the configuration, added, or found by the event of a factory
    #[command(after_help = "Examples:
  dalp-indexer contracts list
  dalp-indexer contracts list --kind smart_token --json")]
    List(ListArgs),
    /// Index added contracts no longer; their rows stay
    #[command(after_help = "Example:
  dalp-indexer contracts remove --kind bond 0x5fbdb2315678afecb367f032d93f642f64180aa3

Contracts of the configuration are removed there. A contract that a factory announced stays indexed.")]
    Remove(RemoveArgs),
}

/// Arguments of `contracts add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    #[command(flatten)]
    of: OfKind,
    /// The first block whose logs of these contracts have rows: that of the first deployment, for example
    #[arg(long, value_name = "BLOCK", default_value = "0", allow_negative_numbers = true, value_parser = block)]
    from: u64,
    /// The last block whose logs of these contracts have rows: that before the upgrade of a proxy to another kind, for example [default: none]
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true, value_parser = block)]
    to: Option<u64>,
}

/// Arguments of `contracts remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    of: OfKind,
}

#[derive(Debug, Args)]
struct OfKind {
    /// The chain's name in the configuration; optional if only one chain is configured
    #[arg(long, value_name = "NAME")]
    chain: Option<String>,
    /// The kind of the contracts
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// The addresses, 0x and 40 digits
    #[arg(required = true, value_name = "ADDRESS", value_parser = an_address)]
    addresses: Vec<Address>,
}

/// Arguments of `contracts list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The chain's name in the configuration [default: all chains]
    #[arg(long, value_name = "NAME")]
    chain: Option<String>,
    /// Only contracts of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn an_address(text: &str) -> Result<Address, String> {
    address(text).map_err(|why| {
        if why.is_empty() { "an address has 20 bytes: 0x and 40 hexadecimal digits".into() } else { why }
    })
}

/// Runs the command.
///
/// # Errors
/// A kind without tables, a chain that leaves the contracts' logs out, and the errors of the database.
pub async fn run(config: Config, command: ContractsCommand) -> Result<(), Failure> {
    let other = |error: StoreError| Failure::other(error.to_string());
    let store = Store::open(&config).await.map_err(other)?;
    store.check().await.map_err(other)?;
    match command {
        ContractsCommand::Add(args) => {
            let chain = pick(&config, args.of.chain.as_deref())?;
            check(chain, &args.of)?;
            let (kind, from, to) = (&args.of.kind, args.from, args.to);
            if let Some(to) = to.filter(|to| *to < from) {
                return Err(Failure::usage(format!("--to {to} is before --from {from}: give a later block")));
            }
            let contract = |address: &Address| Contract { address: *address, kind: kind.clone(), from, to };
            let added: Vec<_> = args.of.addresses.iter().map(contract).collect();
            let new = store.add_contracts(chain.chain_id, &added).await.map_err(other)?;
            let (kind, name) = (&args.of.kind, &chain.name);
            say!(
                "contracts of the kind {kind} for \"{name}\": {new} of {} {} new; the running indexer takes them up within two seconds, and \
                 `dalp-indexer contracts list` shows what is left to decode",
                added.len(),
                if new == 1 { "is" } else { "are" }
            )
        }
        ContractsCommand::Remove(args) => {
            let chain = pick(&config, args.of.chain.as_deref())?;
            let (kind, addresses) = (&args.of.kind, &args.of.addresses);
            let removed = store.remove_contracts(chain.chain_id, kind, addresses).await.map_err(other)?;
            if removed < addresses.len() as u64 {
                return Err(Failure::other(format!(
                    "removed {removed} of {} addresses of the kind {kind} from \"{}\"; nobody added the others: they come from the \
                     configuration or a factory, or are not indexed (see `dalp-indexer contracts list`)",
                    addresses.len(),
                    chain.name
                )));
            }
            say!("removed from \"{}\", of the kind {kind}: {removed}; the rows stay", chain.name)
        }
        ContractsCommand::List(args) => {
            let chains = match &args.chain {
                Some(name) => vec![pick(&config, Some(name))?],
                None => config.chains.iter().collect(),
            };
            let mut lines = Vec::new();
            for chain in chains {
                let (stored, waiting) =
                    store.list_contracts(chain.chain_id, args.kind.as_deref()).await.map_err(other)?;
                lines.extend(stored.into_iter().map(|one| Line::of(&chain.name, one)));
                lines.extend(waiting.into_iter().map(|contract| Line::waiting(&chain.name, contract)));
            }
            if args.json { json(&lines) } else { table(&lines) }
        }
    }
}

/// Whether the logs of added contracts would have rows.
fn check(chain: &Chain, of: &OfKind) -> Result<(), Failure> {
    let (kind, name, datasets) = (&of.kind, &chain.name, &chain.datasets);
    if datasets.kind_at(kind).is_none() {
        let kinds = datasets.kinds();
        let known = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
        return Err(Failure::usage(format!(
            "the configuration has no kind {kind}, so there are no tables for it: add [contracts.{kind}] with its abi, or a section with \
             kind = \"{kind}\" if it is built in (`dalp-indexer abi kinds`), and restart the indexer; the kinds are {known}"
        )));
    }
    if let Some(address) =
        of.addresses.iter().find(|address| !chain.addresses.is_empty() && !chain.addresses.contains(address))
    {
        return Err(Failure::usage(format!(
            "chain \"{name}\" indexes only its list of addresses, without {address}: add it to chains.{name}.addresses, or to the addresses \
             of a section [contracts.NAME], and restart the indexer"
        )));
    }
    if datasets.is_factory(kind) && !chain.raw {
        return Err(Failure::usage(format!(
            "contracts of the kind {kind} announce others, and the logs of one that is found late come from the raw logs, which \
             chains.{name}.raw = false leaves out: set it to true, or index no announced contracts (discover = false)"
        )));
    }
    Ok(())
}

/// A contract in a list.
struct Line {
    chain: String,
    contract: Contract,
    origin: &'static str,
    undecoded_to: Option<u64>,
}

impl Line {
    fn of(chain: &str, stored: Stored) -> Self {
        let origin = match (stored.given, stored.found) {
            (true, false) => "given",
            (true, true) => "given and found",
            (false, _) => "found",
        };
        Self { chain: chain.to_owned(), contract: stored.contract, origin, undecoded_to: stored.undecoded_to }
    }

    /// One that the leader of the chain has not taken up.
    fn waiting(chain: &str, contract: Contract) -> Self {
        Self { chain: chain.to_owned(), contract, origin: WAITING, undecoded_to: None }
    }
}

const WAITING: &str = "waiting";

fn json(lines: &[Line]) -> Result<(), Failure> {
    let row = |line: &Line| {
        json!({
            "chain": line.chain,
            "kind": line.contract.kind,
            "address": line.contract.address.to_checksum(None),
            "start_block": line.contract.from,
            "end_block": line.contract.to,
            "origin": line.origin,
            "undecoded_to": line.undecoded_to,
        })
    };
    let rows: Vec<_> = lines.iter().map(row).collect();
    let text = serde_json::to_string_pretty(&json!({ "contracts": rows }));
    say!("{}", text.map_err(|error| Failure::other(error.to_string()))?)
}

fn table(lines: &[Line]) -> Result<(), Failure> {
    if lines.is_empty() {
        return say!("no contracts: add [contracts.NAME] to the configuration, or run `dalp-indexer contracts add`");
    }
    let mut grid = Grid::new(&["chain", "kind", "address", "from block", "to block", "origin", "decoded"]).named_by(3);
    for line in lines {
        let decoded = match (line.undecoded_to, line.origin) {
            (_, WAITING) => "waits for the indexer".to_owned(),
            (None, _) => "all".to_owned(),
            (Some(to), _) => format!("above block {to}"),
        };
        let (address, from) = (line.contract.address.to_checksum(None), line.contract.from.to_string());
        let to = line.contract.to.map_or_else(|| "-".to_owned(), |to| to.to_string());
        grid.add_row([&line.chain, &line.contract.kind, &address, &from, &to, line.origin, &decoded]);
    }
    say!("{grid}")
}
