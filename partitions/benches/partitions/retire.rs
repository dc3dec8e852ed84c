//! One day of rows goes: its cost alone, and its effect on other sessions, also with an open session that has read the whole
//! table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::options::Options;
use super::setup::{Server, one};
use super::stats::{median, quantile, spread};
use super::traffic::{Role, Traffic, during};
use super::way::{Removal, Way};

/// The writer copies a few rows, the reader looks up a block; both rest a little in between.
const ROLES: [Role; 2] = [Role::Writer(20), Role::Point];
const REST: Duration = Duration::from_millis(3);

/// Of one way, over all rounds.
struct Figures {
    way: Way,
    work: Vec<f64>,
    steps: BTreeMap<String, Vec<f64>>,
    wal: Vec<f64>,
    beside: Vec<Beside>,
    held: Option<Held>,
}

/// A removal beside a writer and a reader: how long it took, and the longest of both.
struct Beside {
    took: f64,
    longest: [f64; 2],
}

/// A removal beside both, with a long reader open; then after that has ended.
struct Held {
    beside: Beside,
    outcome: String,
    after: String,
}

pub async fn measure(server: &Server, options: &Options) -> String {
    let database = server.database(options.rows.max(20_000)).await;
    let client = server.connect(&database).await;
    let mut all = Vec::new();
    for way in Way::all(&client).await {
        way.prepare(server, &database).await;
        all.push(figures(server, &database, &client, way, options).await);
    }
    let idle = Duration::from_millis(if options.smoke { 500 } else { 2_000 });
    let quiet = undisturbed(server, &database, idle).await;
    if options.smoke {
        check(&all);
    }
    let mut text = costs(&all, options);
    text += "\n";
    text += &stalls(&all, &quiet, idle);
    text
}

async fn figures(server: &Server, database: &str, client: &Client, way: Way, options: &Options) -> Figures {
    let mut figures =
        Figures { way, work: Vec::new(), steps: BTreeMap::new(), wal: Vec::new(), beside: Vec::new(), held: None };
    let patient = Duration::from_secs(600);
    let runs = i64::from(options.runs);
    for round in 0..runs {
        way.fill(client, round, options.rows).await;
        let before = wal(client).await;
        let removal = way.remove(server, database, round, patient).await;
        figures.wal.push((wal(client).await - before) / 1e6);
        whole(way, &removal);
        figures.work.push(removal.took);
        for (name, took) in removal.steps {
            figures.steps.entry(name).or_default().push(took);
        }
    }
    for round in runs..2 * runs {
        way.fill(client, round, options.rows).await;
        let (removal, beside) = beside(server, database, way, round, patient).await;
        whole(way, &removal);
        figures.beside.push(beside);
    }
    way.fill(client, 2 * runs, options.rows).await;
    figures.held = Some(held(server, database, way, 2 * runs, options.smoke).await);
    figures
}

/// Bytes of WAL written so far.
async fn wal(client: &Client) -> f64 {
    one(client, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::text").await.parse().unwrap()
}

fn whole(way: Way, removal: &Removal) {
    let names: Vec<&str> = removal.steps.iter().map(|(name, _)| name.as_str()).collect();
    assert!(removal.failed.is_none(), "{}: {:?}", way.name(), removal.failed);
    if way == Way::Ours {
        assert_eq!(names, ["seal", "retire", "detach", "drop"]);
    }
}

async fn beside(server: &Server, database: &str, way: Way, round: i64, limit: Duration) -> (Removal, Beside) {
    let traffic = Traffic::start(server, database, way.table(), &ROLES, REST).await;
    let from = Instant::now();
    let removal = way.remove(server, database, round, limit).await;
    let to = Instant::now();
    // A session that waits for a finished step counts too.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let samples = traffic.end().await;
    let longest = [0, 1].map(|role| quantile(&during(&samples[role], from, to), 1.0));
    let took = removal.took;
    (removal, Beside { took, longest })
}

/// With a session that has read the whole table and idles in its transaction: until the possible steps are done, or only for a
/// moment in a quick run.
async fn held(server: &Server, database: &str, way: Way, round: i64, quick: bool) -> Held {
    let reader = server.connect(database).await;
    reader.batch_execute(&format!("BEGIN; SELECT count(*) FROM {}", way.table())).await.unwrap();
    let limit = if quick { Duration::from_millis(700) } else { Duration::from_secs(10) };
    let removing = beside(server, database, way, round, limit);
    let ended = async {
        if quick {
            tokio::time::sleep(Duration::from_secs(1)).await;
            reader.batch_execute("ROLLBACK").await.unwrap();
        }
    };
    let ((removal, beside), ()) = tokio::join!(removing, ended);
    let outcome = removal.failed.clone().unwrap_or_else(|| "done".to_owned());
    if !quick {
        reader.batch_execute("ROLLBACK").await.unwrap();
    }
    let after = if removal.failed.is_some() {
        let removal = way.remove(server, database, round, Duration::from_secs(600)).await;
        assert!(removal.failed.is_none(), "{}: {:?}", way.name(), removal.failed);
        let steps: Vec<&str> = removal.steps.iter().map(|(name, _)| name.as_str()).collect();
        format!("{}: {:.0} ms", steps.join(", "), removal.took)
    } else {
        String::new()
    };
    Held { beside, outcome, after }
}

/// The longest that writer and reader see while nothing goes.
async fn undisturbed(server: &Server, database: &str, idle: Duration) -> [f64; 2] {
    let traffic = Traffic::start(server, database, Way::Ours.table(), &ROLES, REST).await;
    let from = Instant::now();
    tokio::time::sleep(idle).await;
    let to = Instant::now();
    let samples = traffic.end().await;
    [0, 1].map(|role| quantile(&during(&samples[role], from, to), 1.0))
}

fn check(all: &[Figures]) {
    let wal = |way| all.iter().find(|figures| figures.way == way).map(|figures| median(&figures.wal));
    assert!(wal(Way::Ours) < wal(Way::Delete), "{:?} MB of WAL, {:?} by DELETE", wal(Way::Ours), wal(Way::Delete));
}

fn costs(all: &[Figures], options: &Options) -> String {
    let deleted = all.iter().find(|figures| figures.way == Way::Delete).map_or(0.0, |figures| median(&figures.wal));
    let mut text = format!(
        "| {} rows of a day go, median of {} | work, ms (bar: 200) | WAL, MB | of DELETE's, % (bar: 1) | of which, ms |\n|---|---:|---:|---:|---|\n",
        options.rows, options.runs
    );
    for figures in all {
        let steps = figures.steps.iter().map(|(name, took)| format!("{name} {}", spread(took, 1)));
        let mut steps: Vec<String> = steps.collect();
        if figures.way == Way::Ours {
            let order = ["seal", "retire", "detach", "drop"];
            steps.sort_by_key(|step| order.iter().position(|name| step.starts_with(name)));
            let sum: f64 = figures.steps.values().map(|took| median(took)).sum();
            steps.push(format!("in between {:.1}", median(&figures.work) - sum));
        }
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {} |",
            figures.way.name(),
            spread(&figures.work, 1),
            spread(&figures.wal, 2),
            100.0 * median(&figures.wal) / deleted,
            steps.join(", ")
        );
    }
    absent(&mut text, all, 4);
    text
}

fn stalls(all: &[Figures], quiet: &[f64; 2], idle: Duration) -> String {
    let mut text = format!(
        "| beside a writer and a reader | took, ms | longest COPY, ms | longest query, ms | with a long reader open: | took, ms | longest COPY, ms | longest query, ms | when that has ended |\n\
         |---|---:|---:|---:|---|---:|---:|---:|---|\n\
         | nothing goes, for {:.1} s | | {:.1} | {:.1} | | | | | |\n",
        idle.as_secs_f64(),
        quiet[0],
        quiet[1]
    );
    for figures in all {
        let of = |value: fn(&Beside) -> f64| spread(&figures.beside.iter().map(value).collect::<Vec<_>>(), 1);
        let (took, copy, query) = (of(|b| b.took), of(|b| b.longest[0]), of(|b| b.longest[1]));
        let _ = write!(text, "| {} | {took} | {copy} | {query} |", figures.way.name());
        if let Some(Held { beside, outcome, after }) = &figures.held {
            let [copy, query] = beside.longest;
            let _ = writeln!(text, " {outcome} | {:.0} | {copy:.1} | {query:.1} | {after} |", beside.took);
        }
    }
    absent(&mut text, all, 8);
    text
}

fn absent(text: &mut String, all: &[Figures], columns: usize) {
    if all.iter().all(|figures| figures.way != Way::Partman) {
        let rest = " |".repeat(columns - 1);
        let _ = writeln!(text, "| pg_partman | not installed: apt-get install postgresql-15-partman |{rest}");
    }
}
