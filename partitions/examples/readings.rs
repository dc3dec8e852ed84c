//! Maintains a table: makes leaves, archives and drops old ones, and restores one.
//!
//!     DATABASE_URL=postgres://localhost/mine cargo run --example readings file:///tmp/readings

use std::error::Error;

use chrono::{TimeDelta, Utc};
use dalp_partitions::{Act, Action, Archive, Interval, Manager, Need, Policy, Registry, Request, Retention, Table};
use tokio_postgres::{Client, NoTls};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args().nth(1).ok_or("say where archives go: file:///folder, or an object store's URL")?;
    let (mut client, connection) = tokio_postgres::connect(&std::env::var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(connection);
    for line in look_after(&mut client, &place).await? {
        println!("{line}");
    }
    Ok(())
}

/// The table is partitioned by time, and has no leaf yet.
const READINGS: &str = "
    CREATE TABLE IF NOT EXISTS readings (
        at timestamptz NOT NULL, meter int8 NOT NULL, watts float8 NOT NULL, PRIMARY KEY (at, meter)
    ) PARTITION BY RANGE (at)";

/// A reading an hour, of twenty days.
const FILL: &str = "
    INSERT INTO readings
    SELECT at, 1, random() FROM generate_series(now() - interval '20 days', now(), interval '1 hour') AS at";

/// Returns its steps, line by line.
pub async fn look_after(client: &mut Client, place: &str) -> Result<Vec<String>, Box<dyn Error>> {
    client.batch_execute(READINGS).await?;
    let table = Table::flat("public", "readings", "at").registered_in(Registry::new("partitions"));
    let week = Retention {
        action: Action::Archive,
        time: TimeDelta::days(7),
        // This example needs no grace period, and most of the table may go at once.
        grace: TimeDelta::zero(),
        max_leaves: 100,
        max_share: 1.0,
    };
    let manager = Manager::new(table)
        .with_policy(Policy { interval: Interval::Day, ..Policy::default() })
        .with_retention(week)
        .with_archive(Archive::open(place, [])?);
    manager.install(client).await?;

    // Before rows are written, their leaves are made, and three ahead. Without a list level, the key is 0.
    let now = Utc::now();
    let times = (0..=20).map(|days| now - TimeDelta::days(days));
    let need = Need { times: times.collect(), head: Some(now), ..Need::default() };
    let report = manager.ensure(client, 0, &need).await?;
    let mut lines = vec![format!("{} leaves were made", report.created.len())];
    let rows = client.execute(FILL, &[]).await?;
    lines.push(format!("{rows} rows were written"));

    // Each leaf that is over a week old is sealed, archived, read back, detached, and dropped.
    let planned = manager.plan(client).await?;
    lines.push(format!("{} leaves are due", planned.moves.len()));
    let outcome = manager.retire(client).await?;
    if let Some(why) = outcome.trouble() {
        return Err(why.into());
    }
    let dropped: Vec<_> = outcome.done.iter().filter(|done| done.act == Act::Drop).collect();
    lines.push(format!("{} leaves were archived and dropped", dropped.len()));

    // A leaf comes back with all of its rows, and with a hold, or it would go again.
    let oldest = dropped.first().ok_or("nothing was dropped")?.leaf.clone();
    let request = Request { leaf: &oldest, object: None, reason: "a look at last month", author: "me" };
    let restored = manager.restore(client, &request).await?;
    lines.push(format!("{} is back with {} rows, held by hold {}", restored.leaf, restored.rows, restored.hold));
    manager.release(client, restored.hold, "me").await?;

    lines.extend(manager.audit(client).await?.iter().map(|found| format!("{}: {}", found.object, found.what)));
    Ok(lines)
}
