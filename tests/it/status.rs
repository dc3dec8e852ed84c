//! The views of operators: /metrics, /status and `status` agree with the database's views.

use std::io::Read as _;
use std::net::SocketAddr;

use alloy::primitives::B256;
use dalp_fixtures::deploy;
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{anvil, head, stage, until};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::{burst, caught_up, emit, heard_of};

/// The body of an answer.
async fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: it\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{path}: {answer}");
    body.to_owned()
}

/// The value of a series; none without a sample.
fn sample(metrics: &str, series: &str) -> Option<i64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("dalp_indexer_{series} ")));
    line.map(|value| value.parse().unwrap_or_else(|error| panic!("{series} {value}: {error}")))
}

/// The entry of `status --json` for the only chain.
fn told(site: &Site) -> Value {
    let output = site.call(&["status", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status["chains"][0].clone()
}

async fn one(client: &Client, sql: &str) -> Option<i64> {
    client.query_opt(sql, &[]).await.unwrap().and_then(|row| row.get(0))
}

/// The last block that each level reaches, by the view.
async fn verified(client: &Client) -> Vec<(String, Option<i64>)> {
    let sql = "SELECT level, verified_to FROM dalp_indexed.verified ORDER BY level";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The three answers against the database.
async fn agree(client: &Client, at: SocketAddr, site: &Site) {
    let (metrics, served, told) = (get(at, "/metrics").await, get(at, "/status").await, told(site));
    let served = serde_json::from_str::<Value>(&served).unwrap()["chains"][0].clone();
    for (field, metric, sql) in [
        ("tail", "tail_block", "SELECT tail_number FROM dalp_indexed.progress"),
        ("complete_to", "complete_to_block", "SELECT complete_to FROM dalp_indexed.progress"),
        ("gap_blocks", "gap_blocks", "SELECT gap_blocks FROM dalp_indexed.progress"),
        ("finalized", "finalized_block", "SELECT finalized FROM dalp_indexed.progress"),
        ("head", "head_block", "SELECT head_number FROM dalp_indexed.chain_status"),
    ] {
        let expected = one(client, sql).await;
        let found =
            [sample(&metrics, &format!("{metric}{{chain=\"it\"}}")), served[field].as_i64(), told[field].as_i64()];
        assert_eq!(found, [expected; 3], "{field} in /metrics, /status and status --json");
    }
    for (level, expected) in verified(client).await {
        let series = format!("verified_to_block{{chain=\"it\",level=\"{level}\"}}");
        let by = |status: &Value| status["verified_to"][&level].as_i64();
        assert_eq!([sample(&metrics, &series), by(&served), by(&told)], [expected; 3], "{level}");
    }
    let lag = "lag_blocks{chain=\"it\"}";
    assert_eq!([sample(&metrics, lag), told["lag_blocks"].as_i64()], [Some(0); 2], "{metrics}");
}

async fn what_no_typed_table_takes_is_told(client: &Client, at: SocketAddr, site: &Site) {
    let sql = "SELECT (SELECT count(*) FROM dalp_indexed.logs) - (SELECT count(*) FROM dalp_indexed.erc20_transfer) \
               - (SELECT count(*) FROM dalp_indexed.quarantine)";
    let raw = one(client, sql).await;
    assert!(raw > Some(0));
    until("the raw logs to be counted", || async {
        sample(&get(at, "/metrics").await, "untyped_logs{chain=\"it\"}") == raw
    })
    .await;
    until("status to name them", || {
        let text = told(site)["untyped"].as_str().map(str::to_owned);
        std::future::ready(text.is_some_and(|text| {
            text.contains("of 3 kinds stay raw") && text.contains(&format!("{} logs of", raw.unwrap()))
        }))
    })
    .await;
}

#[test]
fn metrics_status_and_the_command_agree_with_the_views() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..20 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        for kind in 1..=3 {
            emit(anvil.rpc(), &deployed, &[B256::repeat_byte(kind)], &[kind]).await;
        }
        let site = Site::new(&database, &anvil.http_url()).with("finality = \"depth:8\"").with("start_block = 4");
        let mut config = site.config();
        config.http.listen = Some("127.0.0.1:0".parse().unwrap());
        let service = Service::start(&config).await.unwrap();
        let at = service.http().expect("it listens");
        let client = database.superuser().await;
        caught_up(&database, &anvil).await;
        let top = head(anvil.rpc()).await;
        let status = service.status();
        // The levels are read from time to time, and the served values are written to the database once a second.
        let known = |reached: Option<u64>| reached == Some(top);
        until("the levels to reach the head", || async { known(status.borrow()[0].verified_to.returned) }).await;
        let heartbeat = format!("SELECT chain_id FROM dalp_indexed.chain_status WHERE head_number = {top}");
        until("the heartbeat to hold the head", || async { one(&client, &heartbeat).await.is_some() }).await;
        agree(&client, at, &site).await;

        let metrics = get(at, "/metrics").await;
        let chain = |metric: &str| sample(&metrics, &format!("{metric}{{chain=\"it\"}}"));
        assert_eq!((chain("leader"), chain("ready"), chain("reorgs_total")), (Some(1), Some(1), Some(0)), "{metrics}");
        let node = format!("{{chain=\"it\",node=\"{}\"}}", anvil.http_url());
        for timed in ["fetch", "commit"] {
            let count = |lane| sample(&metrics, &format!("{timed}_seconds_count{{chain=\"it\",lane=\"{lane}\"}}"));
            assert!(count("tail") > Some(0) && count("backfill") == Some(0), "{metrics}");
        }
        let up = ["node_up", "node_failures"].map(|metric| sample(&metrics, &format!("{metric}{node}")));
        assert_eq!(up, [Some(1), Some(0)], "{metrics}");
        let leader = one(&client, "SELECT 1::int8 FROM dalp_indexed.lease WHERE expires_at > now()").await;
        assert!(leader.is_some() && told(&site)["leader"].is_string());

        what_no_typed_table_takes_is_told(&client, at, &site).await;
        anvil.rpc().reorg(3).await.unwrap();
        caught_up(&database, &anvil).await;
        until("the counters to say what the tables hold", || async {
            counters_agree(&client, &get(at, "/metrics").await).await
        })
        .await;
        service.stop().await;
    });
}

/// Whether the counts of reorgs, and of commits by change, equal the tables.
async fn counters_agree(client: &Client, metrics: &str) -> bool {
    let counted = ["reorgs_total", "orphaned_logs_total"];
    let counted = counted.map(|metric| sample(metrics, &format!("{metric}{{chain=\"it\"}}")));
    let reorgs = one(client, "SELECT count(*) FROM dalp_indexed.reorg").await;
    let orphans = one(client, "SELECT count(*) FROM dalp_indexed.orphaned_log").await;
    let rows = |change: &str| {
        let labels = format!("rows_total{{chain=\"it\",table=\"logs\",change=\"{change}\"}}");
        sample(metrics, &labels).unwrap_or_default()
    };
    let logs = one(client, "SELECT count(*) FROM dalp_indexed.logs").await;
    let unwinds = sample(metrics, "commits_total{chain=\"it\",change=\"unwind\"}");
    counted == [reorgs, orphans]
        && orphans > Some(0)
        && (Some(rows("unwind")), unwinds) == (orphans, reorgs)
        && Some(rows("append") + rows("backfill") - rows("unwind")) == logs
}

#[test]
fn a_chain_that_is_registered_and_empty_has_a_status() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let client = database.superuser().await;
        for start in [0_i64, 100] {
            let sql = "INSERT INTO dalp_indexed.chain_state (chain_id, name, genesis_hash, start_block, tail_number) \
                       VALUES (31337, 'it', decode(repeat('00', 32), 'hex'), $1::int8, $1::int8 - 1) \
                       ON CONFLICT (chain_id) DO UPDATE SET start_block = $1::int8, tail_number = $1::int8 - 1";
            client.execute(sql, &[&start]).await.unwrap();
            let site = Site::new(&database, "http://127.0.0.1:9");
            let chain = told(&site);
            for field in ["head", "tail", "complete_to", "finalized", "leader"] {
                assert!(chain[field].is_null(), "{field}: {chain}");
            }
            assert_eq!((chain["gap_blocks"].as_i64(), chain["covered_blocks"].as_i64()), (Some(0), Some(0)), "{chain}");
            assert!(chain["verified_to"]["returned"].is_null(), "{chain}");
            let table = site.call(&["status"]);
            let table = String::from_utf8_lossy(&table.stdout);
            assert!(table.contains("an indexer: no indexer has run yet") && table.contains("receipts to"), "{table}");
        }
    });
}

#[test]
fn what_is_final_is_written_down_though_its_block_is_not_stored_and_the_head_stands_still() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        deploy(anvil.rpc()).await.unwrap();
        // The final block is 64 below the head, among blocks without logs, which are fetched as a range.
        anvil.rpc().mine(300, 1).await.unwrap();
        let service =
            Service::start(&Site::new(&database, &anvil.http_url()).with("finality = \"tag\"").config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        let sql = "SELECT finalized FROM dalp_indexed.progress";
        until("it to be written down", || async {
            let finalized: Option<i64> = client.query_one(sql, &[]).await.unwrap().get(0);
            let told = service.status().borrow()[0].finalized.and_then(|number| i64::try_from(number).ok());
            finalized.is_some() && told == finalized
        })
        .await;
        service.stop().await;
    });
}

#[test]
fn a_watch_ends_quietly_when_it_is_told_to_and_when_nobody_reads_any_more() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let site = Site::new(&database, "http://127.0.0.1:9");
        for signal in [Some(Signal::INT), Some(Signal::TERM), None] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut watching = site.start(&["status", "--watch"], writer);
            let mut first = [0; 8];
            reader.read_exact(&mut first).unwrap();
            match signal {
                Some(signal) => watching.signal(signal),
                None => drop(reader),
            }
            let ended = watching.ended().await;
            assert!(ended.success() && watching.log().is_empty(), "{signal:?}: {ended}: {}", watching.log());
        }
    });
}

/// The heartbeat's statement fails from now on. A sequence counts the tries: no rollback resets it.
const REFUSED: &str = "CREATE SEQUENCE tried; \
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \
      $$ BEGIN PERFORM nextval('public.tried'); RAISE EXCEPTION 'no heartbeat'; END $$; \
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dalp_indexed.chain_status FOR EACH ROW EXECUTE FUNCTION refuse()";

#[test]
fn a_heartbeat_that_fails_is_a_warning_once_and_counted_each_time() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let client = database.superuser().await;
        client.batch_execute(REFUSED).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let tried = || one(&client, "SELECT last_value FROM tried");

        let mut running = site.spawn();
        until("the heartbeat to fail again and again", || async { tried().await >= Some(5) }).await;
        burst(anvil.rpc(), &deployed, 3, 1).await;
        caught_up(&database, &anvil).await;
        let warnings = || running.log().lines().filter(|line| line.contains("no heartbeat")).count();
        assert_eq!(warnings(), 1, "{}", running.log());
        assert!(running.stop().await.success());

        let mut config = site.config();
        config.http.listen = Some("127.0.0.1:0".parse().unwrap());
        let service = Service::start(&config).await.unwrap();
        let at = service.http().expect("it listens");
        let failures = || async { sample(&get(at, "/metrics").await, "background_failures_total{chain=\"it\"}") };
        until("each failure to be counted", || async { failures().await >= Some(3) }).await;
        client.batch_execute("DROP TRIGGER refuse ON dalp_indexed.chain_status").await.unwrap();
        burst(anvil.rpc(), &deployed, 3, 2).await;
        heard_of(&client, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

/// The tail commits a row of coverage with each block; the upkeep of the chain merges them.
#[test]
fn the_coverage_of_a_running_chain_is_kept_compact() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let more = "[partitions]\nmaintenance_interval = \"1s\"\n".to_owned();
        let site = Site { more, ..Site::new(&database, &anvil.http_url()) };
        let service = Service::start(&site.config()).await.unwrap();
        for seed in 0..20 {
            burst(anvil.rpc(), &deployed, 1, seed).await;
            caught_up(&database, &anvil).await;
        }
        let client = database.superuser().await;
        // A level each at most: they are merged by level.
        until("the coverage to be compact", || async {
            one(&client, "SELECT count(*) FROM dalp_indexed.coverage").await <= Some(4)
        })
        .await;
        let covered = one(&client, "SELECT sum(to_block - from_block + 1)::int8 FROM dalp_indexed.coverage").await;
        assert_eq!(covered, Some(i64::try_from(head(anvil.rpc()).await).unwrap() + 1));
        let failures: Vec<u64> = service.status().borrow().iter().map(|chain| chain.background_failures).collect();
        assert_eq!(failures, [0]);
        service.stop().await;
    });
}

/// With several chains, a warning names its chain, also from deep inside.
#[test]
fn every_warning_of_a_chain_names_it() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let more =
            "[chains.other]\nchain_id = 31338\nrpc_urls = [\"http://127.0.0.1:9\"]\nfinality = \"never\"\n".to_owned();
        let mut running = Site { more, ..Site::new(&database, &anvil.http_url()) }.spawn();
        caught_up(&database, &anvil).await;
        let warnings = || {
            let log = running.log();
            log.lines()
                .filter(|line| line.contains(" WARN ") || line.contains("ERROR"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        until("the other chain's node to be told", || async { warnings().len() > 1 }).await;
        for line in warnings() {
            assert!(line.contains("chain{chain=\"other\"}"), "{line}");
        }
        assert!(running.stop().await.success());
    });
}
