//! A thousand leaves and more: making some, planning a query, reading the inventory, auditing it.

use std::fmt::Write as _;
use std::time::Instant;

use chrono::Utc;
use dalp_partitions::{
    Index, Need, Reference, Retention, Switches, Table, Terms, audit, ensure, plan_moves, read_inventory,
};
use tokio_postgres::Client;

use super::options::Options;
use super::setup::{KEY, Server, day, logs, policy};
use super::stats::{ms, spread};

/// Four tables, two of each kind, with the secondary indexes that the shipped configuration gives their leaves.
const TABLES: [(&str, &str); 4] =
    [("logs", "logs"), ("erc20_transfer", "erc20_transfer"), ("logs_more", "logs"), ("erc20_more", "erc20_transfer")];
/// The newest of the leaves that stand.
const NEWEST: i64 = -3;
/// Leaves made by one message.
const BATCH: i64 = 50;

/// How many leaves: the most below one sub-parent, and other sizes with the keys that have them. In `logs` they are 5,000 together.
struct Sizes {
    most: i64,
    keys: [(i64, i64); 7],
}

impl Sizes {
    fn of(options: &Options) -> Self {
        let [most, middle, few] = if options.smoke { [20, 10, 5] } else { [1_000, 100, 10] };
        let keys = [(KEY, most), (2, most), (3, most), (4, most), (5, most - middle - few), (6, middle), (7, few)];
        Self { most, keys }
    }

    /// Those that are compared: leaves and their key, the fewest first.
    fn compared(&self) -> [(i64, i64); 3] {
        [6, 5, 0].map(|at| (self.keys[at].1, self.keys[at].0))
    }

    fn all(&self) -> i64 {
        self.keys.iter().map(|(_, leaves)| leaves).sum()
    }
}

pub async fn measure(server: &Server, options: &Options) -> String {
    let (database, sizes) = (server.database(100).await, Sizes::of(options));
    let began = Instant::now();
    grow(server, &database, &sizes, options).await;
    eprintln!("  leaves made to begin with in {:.0} s", began.elapsed().as_secs_f64());
    let mut text = Vec::new();
    if options.wants("plan") {
        text.push(plan(server, &database, &sizes, options).await);
    }
    if options.wants("inventory") {
        text.push(inventory(server, &database, &sizes, options).await);
    }
    if options.wants("create") {
        text.push(create(server, &database, &sizes, options).await);
    }
    text.join("\n")
}

fn table(name: &str) -> Table {
    let erc20 = ["token", "from_address", "to_address"].map(|column| Index::on([column, "block_time"]));
    match TABLES.iter().find(|(table, _)| *table == name) {
        Some((_, "logs")) => Table { name: name.to_owned(), ..logs() },
        _ => Table { name: name.to_owned(), ..logs() }.with_leaf_indexes(erc20),
    }
}

/// The other two tables, and the leaves of the selected parts, by two sessions, as fast as possible: no other session is active.
async fn grow(server: &Server, database: &str, sizes: &Sizes, options: &Options) {
    let client = server.manager(database).await;
    for (name, like) in TABLES.iter().filter(|(name, like)| name != like) {
        let make = format!(
            "CREATE TABLE dalp_indexed.{name} (LIKE dalp_indexed.{like} INCLUDING DEFAULTS INCLUDING INDEXES) PARTITION BY LIST (chain_id)"
        );
        client.batch_execute(&make).await.unwrap();
    }
    let mut wanted: Vec<(&str, i64, i64)> = Vec::new();
    let logs_too = options.wants("plan") || options.wants("inventory");
    for (name, _) in TABLES {
        let keys = sizes.keys.iter().filter(|(key, _)| match name {
            "logs" => logs_too || [KEY, 7].contains(key),
            // Read on its own, too.
            "erc20_transfer" if options.wants("inventory") && *key == KEY => true,
            _ => options.wants("create") && [KEY, 7].contains(key),
        });
        wanted.extend(keys.map(|(key, leaves)| (name, *key, *leaves)));
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (at, one) in wanted.into_iter().enumerate() {
        if at % 2 == 0 { first.push(one) } else { second.push(one) }
    }
    let other = server.manager(database).await;
    tokio::join!(grow_some(&client, &first), grow_some(&other, &second));
    // As autovacuum has long done where so many leaves stand.
    let superuser = server.connect(database).await;
    for catalog in ["class", "attribute", "index", "inherits", "constraint", "depend", "trigger"] {
        superuser.batch_execute(&format!("VACUUM (ANALYZE) pg_catalog.pg_{catalog}")).await.unwrap();
    }
    superuser.batch_execute("CHECKPOINT").await.unwrap();
}

async fn grow_some(client: &Client, wanted: &[(&str, i64, i64)]) {
    for (name, key, leaves) in wanted {
        let parent = format!("dalp_indexed.{name}_{key}");
        let make = format!(
            "CREATE TABLE {parent} PARTITION OF dalp_indexed.{name} FOR VALUES IN ({key}) PARTITION BY RANGE (block_time)"
        );
        client.batch_execute(&make).await.unwrap();
        let days: Vec<i64> = (0..*leaves).map(|at| NEWEST - at).collect();
        for days in days.chunks(usize::try_from(BATCH).unwrap_or(1)) {
            let mut sql = String::new();
            for at in days {
                let (label, from, to) = (day(*at).format("%Y%m%d"), day(*at).to_rfc3339(), day(at + 1).to_rfc3339());
                let _ = writeln!(
                    sql,
                    "CREATE TABLE {parent}_{label} PARTITION OF {parent} FOR VALUES FROM ('{from}') TO ('{to}');"
                );
                for index in &table(name).leaf_indexes {
                    let _ = writeln!(sql, "CREATE INDEX ON {parent}_{label} ({});", index.columns().join(", "));
                }
            }
            client.batch_execute(&sql).await.unwrap();
        }
    }
}

/// Seven days ahead for each table; they go again, so that each run meets as many leaves.
async fn create(server: &Server, database: &str, sizes: &Sizes, options: &Options) -> String {
    let mut client = server.manager(database).await;
    let mut text =
        "| 7 leaves of each of 4 tables | made and attached, s (bar at 1,000: 1) | ms a leaf |\n|---|---:|---:|\n"
            .to_owned();
    let runs = if options.smoke { 1 } else { options.runs + 2 };
    for (leaves, key) in [(sizes.keys[6].1, 7), (sizes.most, KEY)] {
        let (mut times, mut each) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let began = Instant::now();
            for (name, _) in TABLES {
                let need = Need::rows((0..7).map(day));
                let report = ensure(&mut client, &table(name), key, &policy(), Utc::now(), &need).await.unwrap();
                assert_eq!((report.created.len(), report.retries), (7, 0));
            }
            times.push(began.elapsed().as_secs_f64());
            each.push(ms(began.elapsed()) / 28.0);
            for (name, _) in TABLES {
                let drop: Vec<String> = (0..7)
                    .map(|at| format!("DROP TABLE dalp_indexed.{name}_{key}_{}", day(at).format("%Y%m%d")))
                    .collect();
                client.batch_execute(&drop.join(";")).await.unwrap();
            }
        }
        let _ = writeln!(text, "| beside {leaves} leaves of each | {} | {} |", spread(&times, 2), spread(&each, 1));
    }
    text
}

/// Planning a query by key and times: as the server tells it, and from here.
async fn plan(server: &Server, database: &str, sizes: &Sizes, options: &Options) -> String {
    let mut text = "| point query by chain and times, ms | planning, warm (bar: 0.1) | whole query, warm | \
                    planning, first of a connection (bar: 15) | whole query, first of a connection |\n|---|---:|---:|---:|---:|\n"
        .to_owned();
    let connections = if options.smoke { 2 } else { 15 };
    for (leaves, key) in sizes.compared() {
        let query = format!(
            "SELECT * FROM dalp_indexed.logs WHERE chain_id = {key} AND block_time >= '{}' AND block_time < '{}' AND block_number = 5",
            day(NEWEST - leaves / 2).to_rfc3339(),
            day(NEWEST - leaves / 2 + 1).to_rfc3339()
        );
        let [mut warm, mut warm_whole, mut first, mut first_whole] = [const { Vec::new() }; 4];
        for _ in 0..connections {
            let client = reader(server, database).await;
            let began = Instant::now();
            client.simple_query(&query).await.unwrap();
            first_whole.push(ms(began.elapsed()));
            let client = reader(server, database).await;
            first.push(planning(&client, &query).await);
            for _ in 0..10 {
                planning(&client, &query).await;
            }
            for _ in 0..5 {
                warm.push(planning(&client, &query).await);
                let began = Instant::now();
                client.simple_query(&query).await.unwrap();
                warm_whole.push(ms(began.elapsed()));
            }
        }
        let [warm, warm_whole] = [warm, warm_whole].map(|times| spread(&times, 3));
        let [first, first_whole] = [first, first_whole].map(|times| spread(&times, 2));
        let _ = writeln!(text, "| {leaves} leaves | {warm} | {warm_whole} | {first} | {first_whole} |");
    }
    text
}

async fn reader(server: &Server, database: &str) -> Client {
    let client = server.connect(database).await;
    client.batch_execute("SET ROLE dalp_reader").await.unwrap();
    client
}

/// PostgreSQL's own figure, in ms.
async fn planning(client: &Client, query: &str) -> f64 {
    let lines = client.simple_query(&format!("EXPLAIN (SUMMARY) {query}")).await.unwrap();
    let time = lines.iter().find_map(|line| match line {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            row.get(0)?.strip_prefix("Planning Time: ")?.strip_suffix(" ms")?.parse().ok()
        }
        _ => None,
    });
    time.unwrap()
}

/// The read of each run of the manager, and of an audit: of one key's leaves, and of many keys'.
async fn inventory(server: &Server, database: &str, sizes: &Sizes, options: &Options) -> String {
    let runs = if options.smoke { 2 } else { 11 };
    fill(&server.connect(database).await).await;
    let (mut leaves, mut columns) = (Vec::new(), Vec::new());
    for name in ["erc20_transfer", "logs"] {
        // A connection of its own: the first look at a table is among the figures.
        let mut client = server.manager(database).await;
        let (count, times) = look(&mut client, &table(name), runs).await;
        leaves.push(count);
        columns.push(times);
    }
    assert_eq!(leaves[1], usize::try_from(sizes.all()).unwrap_or_default());
    let mut text =
        format!("| ms, of a table with | {} leaves | {} leaves, 7 keys |\n|---|---:|---:|\n", leaves[0], leaves[1]);
    let what = [
        "inventory read, first of a connection",
        "inventory read",
        "moves planned",
        "**audit: gaps, overlaps, drift (bar at 5,000: 100)**",
    ];
    for (at, what) in what.iter().enumerate() {
        let [one, many] = [0, 1].map(|column: usize| spread(&columns[column][at], if at == 2 { 3 } else { 1 }));
        let _ = writeln!(text, "| {what} | {one} | {many} |");
    }
    text
}

/// A row in each leaf, and autovacuum's statistics about the leaves.
async fn fill(client: &Client) {
    for (name, columns, values) in [
        ("logs", "tx_index, block_hash, address, data", "0, '', '', ''"),
        ("erc20_transfer", "token, from_address, to_address, value", "'', '', '', 1"),
    ] {
        let fill = format!(
            "INSERT INTO dalp_indexed.{name} (chain_id, block_time, block_number, log_index, tx_hash, {columns})
             SELECT key, at, 1, 0, '', {values} FROM (
                 SELECT substring(parent.relname from '[0-9]+$')::int8 AS key,
                        substring(pg_get_expr(leaf.relpartbound, 0) from '\\(''([^'']+)')::timestamptz AS at
                 FROM pg_inherits JOIN pg_class AS leaf ON leaf.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
                 WHERE leaf.relkind = 'r' AND parent.relname ~ '^{name}_[0-9]+$') AS leaf
             WHERE at IS NOT NULL;
             ANALYZE dalp_indexed.{name}"
        );
        client.batch_execute(&fill).await.unwrap();
    }
}

/// How many leaves there are; the first reading of the inventory, later ones, plans and audits, in ms.
async fn look(client: &mut Client, table: &Table, runs: usize) -> (usize, [Vec<f64>; 4]) {
    let (retention, reference) = (Retention::default(), Reference::Final([(KEY, Utc::now())].into()));
    let terms = Terms {
        retention: &retention,
        switches: Switches::ALL,
        reference: &reference,
        can_archive: false,
        allow_many: false,
    };
    let (mut leaves, mut times) = (0, [const { Vec::new() }; 4]);
    for run in 0..runs {
        let began = Instant::now();
        let inventory = read_inventory(client, table).await.unwrap();
        times[usize::from(run > 0)].push(ms(began.elapsed()));
        leaves = inventory.entries.len();
        let began = Instant::now();
        plan_moves(&inventory, &terms);
        times[2].push(ms(began.elapsed()));
        let began = Instant::now();
        let findings = audit(client, table).await.unwrap();
        times[3].push(ms(began.elapsed()));
        assert_eq!(findings, []);
    }
    (leaves, times)
}
