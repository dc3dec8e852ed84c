//! How fast a leaf of raw logs is archived and restored, and how small its archive is.
//!
//! `cargo bench -p dalp-partitions --bench archive [-- --smoke]` prints a table. The leaf has the rows that a busy chain makes: random
//! hashes, a few hundred contracts and accounts, about 311 bytes each.

#![allow(clippy::unwrap_used, reason = "a benchmark ends by panic")]

use std::time::{Duration, Instant};

use dalp_fixtures::tools::{postgres, say_stderr};
use dalp_fixtures::{Cluster, Settings};
use dalp_migrations::Roles;
use dalp_partitions::{Archive, Bounds, Identity, Need, Policy, ServerIdentity, Subject, Table, ensure};
use tokio_postgres::{Client, NoTls};

const DAY: &str = "2024-03-20T00:00:00Z";

async fn connect(cluster: &Cluster) -> Client {
    let (client, connection) = cluster.superuser_config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// One day of logs.
async fn fill(client: &mut Client, table: &Table, rows: u32) {
    let day = DAY.parse().unwrap();
    ensure(client, table, 1, &Policy::default(), day, &Need::rows([day])).await.unwrap();
    let insert = format!(
        "INSERT INTO dalp_indexed.logs
         SELECT 1, '2024-03-20'::timestamptz + make_interval(secs => (i / 100) * 86400.0 / {rows} * 100), i / 100, i % 100, i % 100,
                sha256(('b' || i / 100)::bytea), sha256(('t' || i)::bytea), substr(sha256(('c' || floor(random() ^ 3 * 300))::bytea), 1, 20),
                sha256(('e' || i % 3)::bytea), decode(repeat('00', 12), 'hex') || substr(sha256(('a' || floor(random() ^ 2 * 5000))::bytea), 1, 20),
                decode(repeat('00', 12), 'hex') || substr(sha256(('a' || floor(random() ^ 2 * 5000))::bytea), 1, 20), NULL,
                decode(repeat('00', 24), 'hex') || substr(sha256(('v' || i)::bytea), 1, 8)
         FROM generate_series(0, {rows} - 1) AS i"
    );
    client.batch_execute(&insert).await.unwrap();
    client.batch_execute("VACUUM (FREEZE, ANALYZE) dalp_indexed.logs").await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
}

/// CPU of this process so far.
fn cpu() -> Duration {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = usage.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (rows, runs) = if smoke { (50_000, 1) } else { (1_000_000, 3) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let cluster = Cluster::temporary(&postgres(say_stderr).await.unwrap(), Settings::bench()).await.unwrap();
        let mut client = connect(&cluster).await;
        dalp_migrations::migrate(&mut client, &Roles::default()).await.unwrap();
        client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        let table = Table::new("dalp_indexed", "logs", "block_time");
        fill(&mut client, &table, rows).await;
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(&format!("file://{}", folder.path().display()), []).unwrap();
        let bounds = Bounds::new(Some(DAY.parse().unwrap()), "2024-03-21T00:00:00Z".parse().unwrap()).unwrap();
        let server =
            ServerIdentity { database: "bench".to_owned(), oid: 1, system: None, timeline: "1".to_owned(), port: None };
        let identity = Identity { installation: "bench".to_owned(), incarnation: "bench".to_owned(), server };
        println!(
            "| run | archived, rows/s | our CPU, us/row | Parquet of the heap | restored, rows/s | our CPU, us/row |"
        );
        println!("|---|---|---|---|---|---|");
        for run in 1..=runs {
            let per_row = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(rows);
            let rate = |time: Duration| f64::from(rows) / time.as_secs_f64();
            let (began, used) = (Instant::now(), cpu());
            let subject = Subject { key: 1, leaf: "logs_1_20240320", bounds, version: run, identity: &identity };
            let manifest = archive.write(&mut client, &table, &subject).await.unwrap();
            let (took, burnt) = (began.elapsed(), cpu() - used);
            assert_eq!(manifest.counted.rows, u64::from(rows));
            client
                .batch_execute("CREATE TABLE public.back (LIKE dalp_indexed.logs_1_20240320 INCLUDING INDEXES)")
                .await
                .unwrap();
            let (began, used) = (Instant::now(), cpu());
            let transaction = client.transaction().await.unwrap();
            archive.load(&transaction, &manifest, "public.back").await.unwrap();
            transaction.commit().await.unwrap();
            let (loaded, loading) = (began.elapsed(), cpu() - used);
            client.batch_execute("DROP TABLE public.back").await.unwrap();
            client.batch_execute("CHECKPOINT").await.unwrap();
            let share = 100.0 * manifest.bytes as f64 / manifest.heap_bytes as f64;
            println!(
                "| {run} | {:.0} | {:.2} | {share:.1} % | {:.0} | {:.2} |",
                rate(took),
                per_row(burnt),
                rate(loaded),
                per_row(loading)
            );
            assert!(share < 60.0, "an archive of {share:.0} % of the heap");
        }
        println!("\nbar: 150,000 rows/s on one core, 40 % of the heap, 100,000 rows/s restored");
        cluster.stop().await.unwrap();
    });
}
