//! Bad input: a message that says what, where and what to do next, the right exit code, and nothing lost.

use std::process::Output;

use dalp_fixtures::deploy;
use dalp_tests::indexer::{Site, command};
use dalp_tests::stage::{ADMIN, anvil, stage, until};

use crate::{burst, caught_up};

/// Runs `arguments` to their end and holds the answer against the expected exit code and words.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn a_missing_or_wrong_configuration_is_told_at_once() {
    let missing = command(&["run", "--config", "/nowhere/dalp.toml"]).output().unwrap();
    refused(&missing, 2, &["/nowhere/dalp.toml", "config example"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    std::fs::write(
        &file,
        "[database]\nurl = \"postgres://h/d\"\nurll = 1\n[chains.a]\nchain_id = \"x\"\nrpc_urls = [\"ftp://h\"]\n",
    )
    .unwrap();
    let wrong = command(&["config", "check", "--config"]).arg(&file).output().unwrap();
    let all = ["database.urll", "chains.a.chain_id", "chains.a.rpc_urls"];
    refused(&wrong, 2, &all);
    let usage = command(&["backfill", "--from", "1"]).output().unwrap();
    refused(&usage, 2, &["--to"]);
    let example = command(&["config", "example"]).output().unwrap();
    assert!(example.status.success());
    std::fs::write(&file, &example.stdout).unwrap();
    let check = command(&["config", "check", "--config"]).arg(&file).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn every_command_has_help_with_an_example() {
    for name in ["dev", "run", "migrate", "status", "backfill", "sql", "config"] {
        // `dev` is a feature of the default build only.
        let output = command(&[name, "--help"]).output().unwrap();
        if name == "dev" && !output.status.success() {
            continue;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("dalp-indexer") && text.to_lowercase().contains("usage"), "{name}: {text}");
    }
}

#[test]
fn a_database_that_cannot_be_used_is_explained() {
    dalp_tests::run(async {
        let stage = stage().await;
        let database = stage.database().await;
        let site = Site::new(&database, NOBODY);
        let mut unreachable = site.clone();
        unreachable.url = "postgres://user:hunter2@127.0.0.1:9/dalp".into();
        let output = unreachable.call(&["run"]);
        refused(&output, 1, &["127.0.0.1:9", "PostgreSQL"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"), "no secret in any output");
        let empty = stage.empty_database().await;
        let mut unmigrated = site.clone();
        (unmigrated.url, unmigrated.admin_url) = (empty.direct_url(ADMIN), empty.direct_url(ADMIN));
        refused(&unmigrated.call(&["run"]), 1, &["dalp-indexer migrate"]);
        let read_only = stage.database().await;
        let super_ = read_only.superuser().await;
        super_
            .batch_execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", read_only.name))
            .await
            .unwrap();
        let mut standby = site.clone();
        (standby.url, standby.admin_url) = (read_only.direct_url(ADMIN), read_only.direct_url(ADMIN));
        refused(&standby.call(&["run"]), 1, &["read-only", "primary"]);
        refused(&standby.call(&["migrate"]), 1, &["takes no writes", "primary"]);
    });
}

#[test]
fn missing_rights_are_named() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let super_ = database.superuser().await;
        super_.batch_execute("REVOKE INSERT ON dalp_indexed.chain_state FROM dalp_writer").await.unwrap();
        let output = Site::new(&database, &anvil.http_url()).call(&["run"]);
        refused(&output, 1, &["permission denied", "chain_state", "dalp-indexer migrate"]);
        let mut reader = Site::new(&database, &anvil.http_url());
        reader.admin_url = reader.reader_url.clone();
        refused(&reader.call(&["run"]), 1, &["database.admin_url", "dalp_partitioner"]);
    });
}

#[test]
fn the_wrong_chain_is_refused_and_nothing_is_lost() {
    dalp_tests::run(async {
        let (database, first) = (stage().await.database().await, anvil().await);
        let site = Site::new(&database, &first.http_url());
        // A node that is not there is waited for.
        let mut waiting = Site::new(&database, NOBODY).spawn();
        until("it to say so", || async {
            let log = waiting.log();
            ["127.0.0.1:9", "chains.it.rpc_urls", "begun anew"].iter().all(|words| log.contains(words))
        })
        .await;
        assert!(waiting.stop().await.success(), "{}", waiting.log());
        let mut wrong = site.clone();
        wrong.chain_id = 1;
        refused(&wrong.call(&["run"]), 1, &["31337", "chains.it.chain_id"]);
        let deployed = deploy(first.rpc()).await.unwrap();
        burst(first.rpc(), &deployed, 5, 1).await;
        let mut running = site.spawn();
        caught_up(&database, &first).await;
        assert!(running.stop().await.success());
        let client = database.superuser().await;
        let rows = || async {
            client.query_one("SELECT count(*) FROM dalp_indexed.logs", &[]).await.unwrap().get::<_, i64>(0)
        };
        let before = rows().await;
        assert!(before > 0);
        // Anvil restarted: the same chain id, another genesis.
        let options = dalp_fixtures::AnvilOptions { genesis_timestamp: Some(1_700_000_000), ..Default::default() };
        let second = dalp_tests::stage::anvil_with(options).await;
        let other = Site::new(&database, &second.http_url());
        refused(&other.call(&["run"]), 1, &["genesis", "another database", "--fresh"]);
        let mut moved = site.clone().with("start_block = 7");
        refused(&moved.call(&["run"]), 1, &["start_block", "backfill"]);
        moved = site.clone();
        moved.chain_id = 31_338;
        let third =
            dalp_tests::stage::anvil_with(dalp_fixtures::AnvilOptions { chain_id: 31_338, ..Default::default() }).await;
        moved.rpc_urls = vec![third.http_url()];
        refused(&moved.call(&["run"]), 1, &["under the name \"it\""]);
        assert_eq!(rows().await, before);
    });
}
