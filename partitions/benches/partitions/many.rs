//! A thousand leaves and more: making some, planning a query, auditing them.

use std::time::Instant;

use chrono::Utc;
use dalp_partitions::{Need, Reference, Retention, Switches, Table, Terms, audit, ensure, plan_moves, read_inventory};
use tokio_postgres::Client;

use super::setup::{KEY, Server, day, logs, one, policy};
use super::{Options, ms, spread};

/// Four tables as a chain has them.
const TABLES: [&str; 4] = ["logs", "erc20_transfer", "more", "most"];

/// Makes two more tables, and daily leaves of each that end three days ago. As quickly as it can be done: nobody is about.
async fn grow(client: &mut Client, tables: &[&str], key: i64, leaves: i64) {
    client.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
    for table in tables {
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS dalp_indexed.{table} (LIKE dalp_indexed.logs INCLUDING DEFAULTS INCLUDING INDEXES) PARTITION BY LIST (chain_id);
             CREATE TABLE IF NOT EXISTS dalp_indexed.{table}_{key} PARTITION OF dalp_indexed.{table} FOR VALUES IN ({key}) PARTITION BY RANGE (block_time);"
        );
        for at in 0..leaves {
            let (from, to) = (day(at - leaves - 3), day(at - leaves - 2));
            sql += &format!(
                "CREATE TABLE dalp_indexed.{table}_{key}_{at} PARTITION OF dalp_indexed.{table}_{key} FOR VALUES FROM ('{}') TO ('{}');",
                from.to_rfc3339(),
                to.to_rfc3339()
            );
            if at % 200 == 199 {
                client.batch_execute(&std::mem::take(&mut sql)).await.unwrap();
            }
        }
        client.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute("RESET ROLE").await.unwrap();
}

pub async fn create(server: &Server, options: &Options) {
    println!(
        "## Seven leaves of each of four tables\n\n| leaves that stand in each | made and attached, s (bar 1 at 1,000) |\n|---|---|"
    );
    for leaves in if options.smoke { vec![10] } else { vec![10, 1_000] } {
        let database = server.database(100).await;
        let mut client = server.connect(&database).await;
        grow(&mut client, &TABLES, KEY, leaves).await;
        let mut times = Vec::new();
        for run in 0..3 {
            let began = Instant::now();
            for table in TABLES {
                let table = Table { leaf_indexes: Vec::new(), ..Table::new("dalp_indexed", table, "block_time") };
                let need = Need::rows((0..7).map(|ahead| day(run * 7 + ahead)));
                let report = ensure(&mut client, &table, KEY, &policy(), Utc::now(), &need).await.unwrap();
                assert_eq!(report.created.len(), 7);
            }
            times.push(began.elapsed().as_secs_f64());
        }
        let middle: Vec<String> = times.iter().map(|time| format!("{time:.2}")).collect();
        println!("| {leaves} | {} |", middle.join(", "));
    }
    println!();
}

pub async fn plan(server: &Server, options: &Options) {
    println!(
        "## Planning a query by chain and times\n\n| leaves | warm, ms (bar 0.1) | first of a connection, ms (bar 15) |\n|---|---|---|"
    );
    for leaves in if options.smoke { vec![10] } else { vec![10, 100, 1_000] } {
        let database = server.database(100).await;
        grow(&mut server.connect(&database).await, &["logs"], KEY, leaves).await;
        let query = format!(
            "SELECT * FROM dalp_indexed.logs WHERE chain_id = {KEY} AND block_time >= '{}' AND block_time < '{}' AND block_number = 5",
            day(-5).to_rfc3339(),
            day(-4).to_rfc3339()
        );
        let (mut first, mut warm) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let client = server.connect(&database).await;
            first.push(planning(&client, &query).await);
            for _ in 0..20 {
                planning(&client, &query).await;
            }
            warm.push(planning(&client, &query).await);
        }
        println!("| {leaves} | {} | {} |", spread(warm), spread(first));
    }
    println!();
}

/// PostgreSQL's own figure, in ms.
async fn planning(client: &Client, query: &str) -> f64 {
    let rows = client.query(&format!("EXPLAIN (SUMMARY) {query}"), &[]).await.unwrap();
    let line = rows.iter().map(|row| row.get::<_, String>(0)).find(|line| line.starts_with("Planning Time")).unwrap();
    line.trim_start_matches("Planning Time: ").trim_end_matches(" ms").parse().unwrap()
}

pub async fn audited(server: &Server, options: &Options) {
    let (keys, leaves) = if options.smoke { (2, 10) } else { (5, 1_000) };
    let database = server.database(100).await;
    let mut client = server.connect(&database).await;
    for key in 1..=keys {
        grow(&mut client, &["logs"], key, leaves).await;
    }
    client.batch_execute("VACUUM ANALYZE pg_catalog.pg_class").await.unwrap();
    let all = keys * leaves;
    let (mut audits, mut inventories) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let began = Instant::now();
        let findings = audit(&mut client, &logs()).await.unwrap();
        audits.push(ms(began.elapsed()));
        assert_eq!(findings.len(), 0, "{:?}", findings.first());
        let began = Instant::now();
        let inventory = read_inventory(&mut client, &logs()).await.unwrap();
        let (retention, reference) = (Retention::default(), Reference::Now);
        let terms = Terms {
            retention: &retention,
            switches: Switches::ALL,
            reference: &reference,
            can_archive: false,
            allow_many: false,
        };
        plan_moves(&inventory, &terms);
        inventories.push(ms(began.elapsed()));
        assert_eq!(inventory.entries.len() as i64, all);
    }
    println!("## Looking at {all} leaves\n\n| what | ms |\n|---|---|");
    println!("| audit: gaps, overlaps, drift (bar 100) | {} |", spread(audits));
    println!("| registry, catalog and sizes read, moves planned | {} |\n", spread(inventories));
    assert_eq!(one(&client, "SELECT count(*)::text FROM dalp_indexed.logs").await, "0");
}
