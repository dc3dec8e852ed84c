//! The commands of a deployment, as a user calls them.

use std::process::Output;

use dalp_fixtures::deploy;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, anvil, head, stage};
use dalp_tests::truth::{assert_exact, on_chain, stored};

use crate::{burst, caught_up};

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn migrate_makes_the_platforms_schemas_once() {
    dalp_tests::run(async {
        let database = stage().await.empty_database().await;
        let mut site = Site::new(&database, "http://127.0.0.1:9");
        site.admin_url = database.direct_url(ADMIN);
        assert!(out(&site.call(&["migrate"])).contains("applied migration 1"));
        assert!(out(&site.call(&["migrate"])).contains("up to date"));
        let client = database.superuser().await;
        let schemas: i64 = client
            .query_one("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'dalp\\_%'", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(schemas, 6);
    });
}

#[test]
fn run_status_sql_and_backfill_work_together() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..80 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        let site = Site::new(&database, &anvil.http_url()).with("start_block = 50").with("finality = \"depth:5\"");
        assert!(out(&site.call(&["status"])).contains("no chain is indexed yet"));
        let mut running = site.spawn();
        caught_up(&database, &anvil).await;
        let last = head(anvil.rpc()).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 50, last).await;
        assert_eq!(stored(&client, 31_337, 0, 49).await, []);

        let refused = site.call(&["backfill", "--from", "0", "--to", &last.to_string()]);
        assert_eq!(refused.status.code(), Some(2), "blocks near the head are not final");
        assert!(out(&site.call(&["backfill", "--from", "10", "--to", "49"])).contains("backfilled 40 blocks"));
        assert!(
            out(&site.call(&["backfill", "--from", "0", "--to", "49"])).contains("backfilled 10 blocks"),
            "only what lacks"
        );
        assert!(out(&site.call(&["backfill", "--from", "0", "--to", "49"])).contains("already stored"));
        assert_eq!(stored(&client, 31_337, 0, last).await, on_chain(anvil.rpc(), 0, last).await);
        // The writer beside it was not disturbed.
        burst(anvil.rpc(), &deployed, 3, 1_000).await;
        caught_up(&database, &anvil).await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, last + 1).await;

        let status: serde_json::Value = serde_json::from_str(&out(&site.call(&["status", "--json"]))).unwrap();
        let chain = &status["chains"][0];
        assert_eq!((chain["gap_blocks"].as_u64(), chain["tail"].as_u64()), (Some(0), Some(last + 1)), "{status}");
        assert_eq!(chain["covered_blocks"].as_u64(), Some(last + 2), "{status}");
        assert!(chain["leaves"].as_u64() > Some(0), "{status}");
        let sql = site.call(&["sql", "--format", "csv", "-c", "SELECT count(*) FROM dalp_indexed.logs"]);
        let count: usize = out(&sql).lines().last().unwrap().parse().unwrap();
        assert_eq!(count, on_chain(anvil.rpc(), 0, last + 1).await.len());
        let asked = |sql: &str| site.call(&["sql", "--format", "csv", "-c", sql]);
        assert_eq!(out(&asked("SELECT count(*) FROM logs")), out(&sql), "tables need no schema");
        let wrong = asked("SELECT * FROM log");
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("Did you mean dalp_indexed.logs?"), "{wrong:?}");
        let wrong = asked("SELECT adress FROM logs");
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("address"), "{wrong:?}");
        let token = "SELECT '0x' || encode(token, 'hex') FROM dalp_indexed.erc20_transfer LIMIT 1";
        let token: String = client.query_one(token, &[]).await.unwrap().get(0);
        let transfers = out(&asked(&format!("SELECT count(*) FROM erc20_transfer WHERE token = hex('{token}')")));
        assert_ne!(transfers, "count\n0\n");
        let as_text = asked(&format!("SELECT count(*) FROM erc20_transfer WHERE token = '{token}'"));
        assert_eq!(out(&as_text), "count\n0\n");
        assert!(String::from_utf8_lossy(&as_text.stderr).contains(&format!("write hex('{token}')")), "{as_text:?}");
        let all =
            site.call(&["sql", "--max-rows", "0", "-c", "SELECT repeat('x', 100) FROM generate_series(1, 60000)"]);
        assert_eq!(out(&all).matches("xxx |").count(), 60_000);
        let refused = site.call(&["sql", "-c", "DELETE FROM dalp_indexed.logs"]);
        assert_eq!(refused.status.code(), Some(1), "the prompt uses the reader's login");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("42501"));
        assert!(running.stop().await.success(), "{}", running.log());
    });
}

#[test]
fn a_file_of_sql_is_run_to_its_first_failure() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let site = Site::new(&database, "http://127.0.0.1:9");
        let run = |file: &str| site.call_with(&["sql", "--format", "csv"], file);
        assert_eq!(
            out(&run("SELECT 1 AS one;\n-- a comment; it ends nothing\nSELECT\n  2 AS two;\n")),
            "one\n1\ntwo\n2\n"
        );
        assert_eq!(out(&run("")), "");
        let described = out(&run("SELECT 1 AS one;\n\\d logs\nSELECT 2 AS two;\n"));
        assert!(described.starts_with("one\n1\n") && described.ends_with("two\n2\n"), "{described}");
        assert!(described.contains("\nblock_time,"), "the columns in between: {described}");
        let failed = run("SELECT 1 AS one;\n\\d logs\n\nSELECT nope;\n\\d blocks\n");
        let (said, wrote) = (String::from_utf8_lossy(&failed.stderr), String::from_utf8_lossy(&failed.stdout));
        assert_eq!(failed.status.code(), Some(1), "{said}");
        assert!(said.contains("line 4: SELECT nope;"), "the file's line: {said}");
        assert!(wrote.starts_with("one\n1\n") && !wrote.contains("=>"), "{wrote}");
    });
}
