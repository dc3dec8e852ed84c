//! Where PostgreSQL's CPU goes: the rows of a run copied raw into tables that have one part more each time, then the later work on
//! them; beside the indexer's own run.

use tokio_postgres::Client;

use super::Outcome;
use super::case::{Ingest, Setup, ingest};
use super::node::Node;
use super::options::Options;
use super::ruler::Dump;
use super::servers::Servers;

/// The CPU of one part, in seconds, by run.
pub struct Cost {
    pub name: String,
    pub seconds: Vec<f64>,
}

/// The parts of all runs, in order, and the indexer's own runs.
#[derive(Default)]
pub struct Costs {
    pub parts: Vec<Cost>,
    pub ingests: Vec<Ingest>,
}

/// A table, its key, and its other indexes as the shipped configuration has them.
struct Copied {
    table: &'static str,
    secondary: &'static [&'static str],
}

const TABLES: [Copied; 2] = [
    Copied { table: "logs", secondary: &["address, topic0, block_time", "tx_hash"] },
    Copied {
        table: "erc20_transfer",
        secondary: &["token, block_time", "from_address, block_time", "to_address, block_time"],
    },
];
const KEY: &str = "ALTER TABLE cost ADD PRIMARY KEY (chain_id, block_time, block_number, log_index)";
const BRIN: &str = "CREATE INDEX ON cost USING brin (block_number)";

impl Costs {
    fn add(&mut self, name: &str, seconds: f64) {
        match self.parts.iter_mut().find(|part| part.name == name) {
            Some(part) => part.seconds.push(seconds),
            None => self.parts.push(Cost { name: name.to_owned(), seconds: vec![seconds] }),
        }
    }
}

/// Indexes the chain of the replaying node, raw and typed, and takes its rows apart, so many times.
pub async fn measure(servers: &mut Servers, options: &Options) -> Outcome<Costs> {
    let node = Node::replay(options)?;
    let mut costs = Costs::default();
    for _ in 0..options.runs {
        let setup = Setup::of(options, true);
        let database = setup.database(servers).await?;
        costs.ingests.push(ingest(servers, &node, &database, setup).await?);
        let client = servers.superuser(&database).await?;
        let dump = Dump::of(&client, true).await?;
        for Copied { table, secondary } in TABLES {
            take_apart(servers, &client, (table, secondary), &dump, &mut costs).await?;
        }
    }
    Ok(costs)
}

async fn take_apart(
    servers: &Servers,
    client: &Client,
    (table, secondary): (&str, &[&str]),
    dump: &Dump,
    costs: &mut Costs,
) -> Outcome<()> {
    let secondary: Vec<String> = secondary.iter().map(|columns| format!("CREATE INDEX ON cost ({columns})")).collect();
    let all = [vec![KEY.to_owned(), BRIN.to_owned()], secondary.clone()].concat();
    let mut before = 0.0;
    for (part, statements) in
        [("rows", &all[..0]), ("key", &all[..1]), ("BRIN", &all[..2]), ("secondary, kept", &all[..])]
    {
        new_table(client, table, statements).await?;
        let took = used(servers, async { dump.copy_into(client, table, "cost").await }).await?;
        costs.add(&format!("{table}: {part}"), took - before);
        before = took;
    }
    new_table(client, table, &all[..2]).await?;
    dump.copy_into(client, table, "cost").await?;
    for (part, statement) in [
        ("secondary, built after the load", secondary.join(";")),
        ("VACUUM", "VACUUM cost".into()),
        ("checkpoint", "CHECKPOINT".into()),
    ] {
        let took = used(servers, async { Ok(client.batch_execute(&statement).await?) }).await?;
        costs.add(&format!("{table}: {part}"), took);
    }
    Ok(())
}

async fn new_table(client: &Client, table: &str, indexes: &[String]) -> Outcome<()> {
    client.batch_execute("DROP TABLE IF EXISTS cost").await?;
    client.batch_execute(&format!("CREATE TABLE cost (LIKE dalp_indexed.{table})")).await?;
    for index in indexes {
        client.batch_execute(index).await?;
    }
    Ok(client.batch_execute("CHECKPOINT").await?)
}

/// The server's seconds of CPU meanwhile.
async fn used(servers: &Servers, work: impl Future<Output = Outcome<()>>) -> Outcome<f64> {
    let before = servers.used()?.server;
    work.await?;
    Ok(servers.used()?.server - before)
}
