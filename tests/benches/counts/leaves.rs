//! The cost of the partition manager for the server: round trips, statements and WAL of a new leaf and of a dropped one, and the
//! cost of reading the existing leaves.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use dalp_fixtures::Cluster;
use dalp_partitions::{
    Action, Need, Policy, Reference, Retention, Switches, Table, Terms, ensure, extend, read, read_inventory, retire,
};
use dalp_tests::counts::Counts;
use dalp_tests::stage::ADMIN;
use tokio_postgres::{Client, NoTls};

use super::made::CHAIN;
use super::server::{self, Watch};
use super::wire::{Said, Tally, Wire};
use super::{Outcome, cluster};

/// Leaves that stand before one is counted, and leaves whose WAL is counted: some cause a page of a catalog to be split.
const STANDING: i64 = 8;
const MADE: i64 = 8;

/// The messages on the wire, and the written bytes.
pub struct Costs {
    pub sent: Counts,
    pub used: Counts,
}

/// Measures both, of the table of logs with the shipped indexes.
pub async fn measure(cluster: &Cluster, said: &mut Said) -> Outcome<Costs> {
    let database = server::database(cluster, "leaves").await?;
    let wire = Wire::before(cluster)?;
    let tables = cluster::site(cluster, &database).config().tables;
    let table = tables.into_iter().find(|table| table.name == "logs").ok_or("no table is named logs")?.table;
    let (client, connection) = tokio_postgres::connect(&wire.url(&database, ADMIN), NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SET ROLE dalp_partitioner").await?;
    let mut bench = Bench {
        client,
        wire,
        watch: Watch::on(cluster).await?,
        key: i64::try_from(CHAIN)?,
        table,
        costs: Costs { sent: Counts::default(), used: Counts::default() },
    };
    bench.make(said).await?;
    bench.look(said).await?;
    bench.retire(said).await?;
    Ok(bench.costs)
}

/// Noon of the `number`-th day.
fn day(number: i64) -> DateTime<Utc> {
    // 2026-01-01T12:00:00Z.
    DateTime::UNIX_EPOCH + TimeDelta::days(20_454 + number) + TimeDelta::hours(12)
}

fn policy() -> Policy {
    Policy { history: dalp_partitions::Interval::Day, ..Policy::default() }
}

struct Bench {
    client: Client,
    wire: Wire,
    watch: Watch,
    key: i64,
    table: Table,
    costs: Costs,
}

impl Bench {
    async fn make(&mut self, said: &mut Said) -> Outcome<()> {
        let (policy, need) = (policy(), Need::rows((0..STANDING).map(day)));
        let mut catalog = ensure(&mut self.client, &self.table, self.key, &policy, Utc::now(), &need).await?.catalog;
        let before = self.watch.wal().await?;
        for number in STANDING..STANDING + MADE {
            let need = Need::rows([day(number)]);
            let made = extend(&mut self.client, &self.table, self.key, &policy, Utc::now(), &need, catalog);
            let (report, tally) = self.wire.count(made).await;
            catalog = report?.catalog;
            if number == STANDING {
                tally.put("a leaf made beside known ones", &mut self.costs.sent, said);
            }
        }
        let wal = self.watch.wal().await? - before;
        self.costs.used.put("a leaf made: bytes of WAL", wal / MADE as f64);
        let need = Need::rows([day(STANDING + MADE)]);
        let made = ensure(&mut self.client, &self.table, self.key, &policy, Utc::now(), &need);
        let (report, tally) = self.wire.count(made).await;
        report?;
        tally.put("a leaf made, the catalog read before", &mut self.costs.sent, said);
        Ok(())
    }

    async fn look(&mut self, said: &mut Said) -> Outcome<()> {
        let (catalog, tally) = self.wire.count(read(&mut self.client, &self.table, self.key)).await;
        catalog?;
        tally.put("the catalog read", &mut self.costs.sent, said);
        let (inventory, tally) = self.wire.count(read_inventory(&mut self.client, &self.table)).await;
        inventory?;
        tally.put("the inventory read", &mut self.costs.sent, said);
        Ok(())
    }

    /// Retires no leaf, one leaf, and several: the difference is the cost of a leaf.
    async fn retire(&mut self, said: &mut Said) -> Outcome<()> {
        // The first run registers all leaves, which is no part of one's going.
        self.run(0).await?;
        let (idle, none) = self.run(0).await?;
        let (one, _) = self.run(1).await?;
        let before = self.watch.wal().await?;
        self.run(1 + MADE).await?;
        let wal = self.watch.wal().await? - before;
        self.costs.used.put("a leaf sealed, retired and detached: bytes of WAL", (wal - none) / MADE as f64);
        idle.put("a run with nothing to retire", &mut self.costs.sent, said);
        one.put("a run that seals, retires and detaches a leaf", &mut self.costs.sent, said);
        Ok(())
    }

    /// One run, after which the first `gone` leaves are detached: its messages, and bytes of WAL.
    async fn run(&mut self, gone: i64) -> Outcome<(Tally, f64)> {
        let retention = Retention { action: Action::Detach, time: TimeDelta::zero(), ..Retention::default() };
        let reference = Reference::Final(BTreeMap::from([(self.key, day(gone))]));
        let switches = Switches::ALL;
        let terms =
            Terms { retention: &retention, switches, reference: &reference, can_archive: false, allow_many: true };
        let before = self.watch.wal().await?;
        let (done, tally) = self.wire.count(retire(&mut self.client, &self.table, &terms, None)).await;
        let done = done?;
        if let Some((next, error)) = done.failed.first() {
            return Err(format!("{} of {}: {error}", next.act.word(), next.entry.leaf).into());
        }
        Ok((tally, self.watch.wal().await? - before))
    }
}
