//! Bad input: a message with the fault, its place and the next step, the right exit code, and no loss.

use std::process::Output;

use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::{Site, command};
use dalp_tests::stage::{ADMIN, WRITER, anvil, stage, until};
use rustix::process::Signal;

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
        refused(&output, 1, &["127.0.0.1:9", "connection refused", "PostgreSQL"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"), "no secret in any output");
        let empty = stage.empty_database().await;
        let mut unmigrated = site.clone();
        (unmigrated.url, unmigrated.admin_url) = (empty.direct_url(ADMIN), empty.direct_url(ADMIN));
        unmigrated.reader_url = empty.direct_url(ADMIN);
        let all: [&[&str]; 6] = [
            &["run"],
            &["status"],
            &["verify"],
            &["reindex", "--from", "1", "--yes"],
            &["partitions", "status"],
            &["sql", "-c", "SELECT FROM logs"],
        ];
        for command in all {
            refused(
                &unmigrated.call(command),
                1,
                &["has no dalp_indexed schema yet: run `dalp-indexer migrate` first"],
            );
        }
        for (url, why) in [
            (database.direct_url("nobody_here"), "role \"nobody_here\" does not exist"),
            (empty.direct_url(ADMIN).replace(&empty.name, "no_such"), "database \"no_such\" does not exist"),
        ] {
            let mut wrong = site.clone();
            (wrong.url, wrong.reader_url) = (url.clone(), url.clone());
            wrong.admin_url = url;
            for command in all {
                refused(&wrong.call(command), 1, &["database", why]);
            }
        }
        let read_only = stage.database().await;
        let super_ = read_only.superuser().await;
        super_
            .batch_execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", read_only.name))
            .await
            .unwrap();
        let mut standby = site.clone();
        (standby.url, standby.admin_url) = (read_only.direct_url(ADMIN), read_only.direct_url(ADMIN));
        refused(&standby.call(&["run"]), 1, &["read-only", "primary"]);
        refused(&standby.call(&["migrate"]), 1, &["accepts no writes", "primary"]);
    });
}

/// While `run` waits for its database, `/ready` gives the server's own reason.
#[test]
fn readiness_says_why_the_database_cannot_be_used() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        // Not through a pooler, which keeps the server's reason to itself while it tries again.
        let site = Site { url: database.direct_url(WRITER), ..Site::new(&database, &anvil.http_url()) };
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let super_ = stage().await.database().await.superuser().await;
        let name = &database.name;
        // No new login is possible, and sessions are ended; a block must be written meanwhile.
        super_.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
        let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        super_.batch_execute(&sql).await.unwrap();
        anvil.rpc().mine(1, 1).await.unwrap();
        crate::waits_for(&service, "is not currently accepting connections").await;
        super_.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
    });
}

/// `… | head`: the reader has read enough.
#[test]
fn a_closed_pipe_is_a_quiet_end() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let site = Site::new(&database, NOBODY);
        for command in [
            &["status"][..],
            &["status", "--json"],
            &["migrate"],
            &["partitions", "status"],
            &["partitions", "plan"],
            &["partitions", "doctor", "--json"],
            &["sql", "-c", "SELECT 1"],
            &["config", "check"],
            &["config", "example"],
        ] {
            let (code, said) = site.call_unread(command);
            assert_eq!((code, said.as_str()), (Some(0), ""), "{command:?}");
        }
    });
}

/// Before `migrate`, the missing schema is reported once, with the command, and not as single missing tables.
#[test]
fn a_database_without_the_schema_is_told_to_be_migrated() {
    dalp_tests::run(async {
        let (empty, anvil) = (stage().await.empty_database().await, anvil().await);
        let mut site = Site::new(&empty, &anvil.http_url());
        let url = empty.direct_url(ADMIN);
        (site.url, site.reader_url, site.admin_url) = (url.clone(), url.clone(), url);
        let output = site.call(&["config", "check", "--connect"]);
        let said = String::from_utf8_lossy(&output.stdout);
        refused(&output, 1, &["2 of 4 checks failed"]);
        assert!(said.contains("run `dalp-indexer migrate` first") && !said.contains("create it"), "{said}");
    });
}

/// `config check --connect` tests all objects, one line each.
#[test]
fn what_a_configuration_names_is_tried() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let folder = tempfile::tempdir().unwrap();
        let mut site = Site::new(&database, &anvil.http_url());
        site.more = format!("[partitions]\narchive_url = \"file://{}\"", folder.path().join("archive").display());
        let check = ["config", "check", "--connect"];
        let right = site.call(&check);
        let text = String::from_utf8_lossy(&right.stdout);
        assert!(right.status.success(), "{text}{}", String::from_utf8_lossy(&right.stderr));
        for what in [
            "database.url",
            "database.reader_url",
            "database.admin_url",
            "tables.logs",
            "chains.it http",
            "partitions.archive_url",
        ] {
            assert!(text.contains(&format!("ok      {what}")), "{what}: {text}");
        }
        site.reader_url = database.direct_url("nobody_here");
        site.rpc_urls.push(NOBODY.into());
        site.chain_id = 5;
        let wrong = site.call(&check);
        refused(&wrong, 1, &["3 of 9 checks failed"]);
        let text = String::from_utf8_lossy(&wrong.stdout);
        for why in [
            "database.reader_url: database",
            "the node serves chain 31337, but chains.it.chain_id is 5",
            "chains.it http://127.0.0.1:9",
        ] {
            assert!(text.lines().any(|line| line.starts_with("failed") && line.contains(why)), "{why}: {text}");
        }
    });
}

#[test]
fn missing_rights_are_named() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let super_ = database.superuser().await;
        super_.batch_execute("REVOKE INSERT ON dalp_indexed.chain_state FROM dalp_writer").await.unwrap();
        let output = Site::new(&database, &anvil.http_url()).call(&["run"]);
        refused(&output, 1, &["permission denied", "GRANT the right ON table chain_state"]);
        let mut reader = Site::new(&database, &anvil.http_url());
        reader.admin_url = reader.reader_url.clone();
        refused(&reader.call(&["run"]), 1, &["database.admin_url", "GRANT dalp_partitioner TO it_reader;"]);
        super_.batch_execute("DROP ROLE IF EXISTS it_stranger; CREATE ROLE it_stranger LOGIN").await.unwrap();
        let mut stranger = Site::new(&database, &anvil.http_url());
        (stranger.url, stranger.reader_url) = (database.direct_url("it_stranger"), database.direct_url("it_stranger"));
        for command in [&["run"][..], &["verify"], &["reindex", "--from", "1", "--yes"]] {
            refused(&stranger.call(command), 1, &["database.url", "42501", "GRANT dalp_writer TO it_stranger;"]);
        }
        for command in [&["status"][..], &["sql", "-c", "SELECT count(*) FROM logs"]] {
            refused(&stranger.call(command), 1, &["42501", "GRANT dalp_reader TO it_stranger;"]);
        }
    });
}

#[test]
fn a_start_that_is_told_to_stop_has_not_failed() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        for signal in [Signal::TERM, Signal::INT] {
            // A first answer that does not come is waited for, seconds long.
            let silent = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
            let asked = silent.inject(Rule::new(Fault::Hang));
            let mut starting = Site::new(&database, &silent.url()).spawn();
            until("the node to be asked", || async { asked.count() > 0 }).await;
            starting.signal(signal);
            let ended = starting.ended().await;
            assert!(ended.success(), "{signal:?}: {ended}: {}", starting.log());
        }
    });
}

#[test]
fn the_wrong_chain_is_refused_and_nothing_is_lost() {
    dalp_tests::run(async {
        let (database, first) = (stage().await.database().await, anvil().await);
        let site = Site::new(&database, &first.http_url());
        // A missing node is waited for.
        let mut waiting = Site::new(&database, NOBODY).spawn();
        until("it to say so", || async {
            let log = waiting.log();
            ["127.0.0.1:9", "chains.it.rpc_urls", "it restarts"].iter().all(|words| log.contains(words))
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
