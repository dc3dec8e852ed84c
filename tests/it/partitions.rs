//! Partitions on their way out: by command, by a running indexer, and never back by accident.

mod hindered;

use std::path::Path;

use dalp_fixtures::{Anvil, AnvilOptions, Deployed, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::{Site, command, said};
use dalp_tests::stage::{Database, anvil_with, head, stage, until};
use serde_json::Value;
use tokio_postgres::Client;

use crate::history::no_gaps;
use crate::{burst, caught_up};

/// 2024-03-01 00:00 UTC.
const GENESIS: u64 = 1_709_251_200;
const DAY: u64 = 86_400;

/// A chain of ten days with five transfers a day, and some blocks after them.
async fn ten_days() -> (Anvil, Deployed) {
    let anvil = anvil_with(AnvilOptions { genesis_timestamp: Some(GENESIS), ..AnvilOptions::default() }).await;
    let deployed = deploy(anvil.rpc()).await.unwrap();
    for day in 1..=10 {
        anvil.rpc().set_next_block_timestamp(GENESIS + day * DAY + 3_600).await.unwrap();
        burst(anvil.rpc(), &deployed, 5, day).await;
        anvil.rpc().mine(3, 60).await.unwrap();
    }
    (anvil, deployed)
}

fn site(database: &Database, anvil: &Anvil, more: &str) -> Site {
    let site = Site::new(database, &anvil.http_url()).with("finality = \"depth:2\"");
    Site { more: more.to_owned(), ..site }
}

async fn one(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
}

const LOGS: &str = "SELECT count(*) FROM dalp_indexed.logs";
const RETAINED: &str = "SELECT count(*) FROM dalp_indexed.retained_logs";
const TRANSFERS: &str = "SELECT count(*) FROM dalp_indexed.erc20_transfer";

fn json(site: &Site, arguments: &[&str]) -> Value {
    let output = site.call(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

#[test]
fn old_days_are_archived_and_dropped_by_command_and_brought_back() {
    dalp_tests::run(async {
        let (database, (anvil, _)) = (stage().await.database().await, ten_days().await);
        let folder = tempfile::tempdir().unwrap();
        let more = format!(
            "[partitions]\nhistory_interval = \"day\"\narchive_url = \"file://{}\"\narchive_options = [\"aws_secret_access_key=geheim\"]\n\
             [tables.logs]\naction = \"archive\"\nretention = \"3d\"\ngrace = \"0s\"\nmax_share_per_run = 100\n",
            folder.path().display()
        );
        let (plain, site) =
            (site(&database, &anvil, "[partitions]\nhistory_interval = \"day\"\n"), site(&database, &anvil, &more));
        let service = Service::start(&plain.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        no_gaps(&client).await;
        service.stop().await;
        a_plan_shows_what_would_be_done(&plain, &site);
        let left = all_but_the_held_day_go(&site, &client).await;
        a_day_is_restored(&site, &client, left).await;
        rows_are_restored_beside_the_table(&site, &client).await;
        a_changed_file_is_found(&site, folder.path());
        an_archive_that_is_lost_is_named(&site, folder.path());
    });
}

fn a_plan_shows_what_would_be_done(plain: &Site, site: &Site) {
    let nothing = json(plain, &["partitions", "plan", "--json"]);
    assert_eq!(nothing["moves"], Value::Array(vec![]), "{nothing}");
    let plan = json(site, &["partitions", "plan", "--table", "logs", "--json"]);
    assert!(plan["moves"][0]["statements"][0].as_str().is_some_and(|sql| sql.contains("dalp_seal_rows")), "{plan}");
    assert_eq!(plan["moves"][0]["act"], "seal", "{plan}");
    assert!(!said(site, &["config", "check"], 0).contains("geheim"));
    let doctor = said(site, &["partitions", "doctor"], 0);
    assert!(doctor.contains("its maintenance has never succeeded"), "{doctor}");
    assert!(said(site, &["partitions", "plan", "--table", "nothing"], 2).contains("logs, erc20_transfer, activity"));
}

/// How many logs are left.
async fn all_but_the_held_day_go(site: &Site, client: &Client) -> i64 {
    let before = one(client, LOGS).await;
    let hold =
        "partitions hold add --table logs --chain it --from 2024-03-05 --to 2024-03-06 --author counsel --reason";
    let hold: Vec<_> = hold.split(' ').chain(["case 7"]).collect();
    assert!(said(site, &hold, 0).contains("hold 1 keeps logs"));
    let applied = said(site, &["partitions", "apply", "--table", "logs"], 0);
    assert!(applied.contains("drop") && applied.contains("held by counsel (case 7, hold 1)"), "{applied}");
    let (left, retained) = (one(client, LOGS).await, one(client, RETAINED).await);
    assert!(left < before && retained == left - 5, "{before} {left} {retained}: the held day stands, below the floor");
    assert_eq!(one(client, TRANSFERS).await, 50, "another table's policy");
    let status = json(site, &["partitions", "status", "--table", "logs", "--json"]);
    let row = &status["tables"][0];
    assert_eq!((&row["held"], &row["due"], &row["action"]), (&1.into(), &1.into(), &"archive".into()), "{row}");
    assert!(row["last_success"].is_string() && row["forecast_365d"].is_number(), "{row}");
    // Rows below the floor do not count as missing.
    let verified = said(site, &["verify"], 0);
    let counts =
        [format!(": {retained} logs of "), format!("{} logs are below the retention floor", before - retained)];
    assert!(counts.iter().all(|count| verified.contains(count)), "{counts:?}: {verified}");
    said(site, &["partitions", "audit"], 0);
    let listed = json(site, &["partitions", "archive", "list", "--json"]);
    let object = listed[0]["object"].as_str().unwrap();
    assert!(object.starts_with("data/dalp_indexed.logs/chain_id=31337/leaf_start=2024"), "{listed}");
    said(site, &["partitions", "archive", "verify"], 0);
    left
}

async fn a_day_is_restored(site: &Site, client: &Client, left: i64) {
    let leaf = "dalp_indexed.logs_31337_20240304";
    let restored = said(site, &["partitions", "restore", leaf, "--reason", "audit", "--author", "ops"], 0);
    assert!(restored.contains("is restored with its 5 archived rows"), "{restored}");
    assert!(restored.contains("because newer partitions are missing: restore them too"), "{restored}");
    assert_eq!(one(client, LOGS).await, left + 5);
    let again = said(site, &["partitions", "restore", leaf, "--reason", "audit", "--author", "ops"], 1);
    assert!(again.contains("it is already in its table"), "{again}");
    let listed = json(site, &["partitions", "archive", "list", "--json"]);
    let status = json(site, &["partitions", "status", "--table", "logs", "--json"]);
    let archived = status["tables"][0]["archived"].as_u64();
    assert_eq!(archived, Some(listed.as_array().unwrap().len() as u64), "one that came back is one archive: {status}");
    said(site, &["verify"], 0);
    assert!(
        said(site, &["partitions", "undo", "logs_31337_20240302", "--reason", "x", "--author", "ops"], 1)
            .contains("restore")
    );
    assert!(said(site, &["partitions", "hold", "release", "1", "--author", "counsel"], 0).contains("released"));
}

async fn rows_are_restored_beside_the_table(site: &Site, client: &Client) {
    let restore = ["partitions", "restore", "logs_31337_20240303", "--reason", "audit", "--author", "ops", "--into"];
    let beside: Vec<_> = restore.into_iter().chain(["dalp_indexed.\"Beside.it\""]).collect();
    assert!(said(site, &beside, 0).contains("has the 5 archived rows"));
    assert_eq!(one(client, "SELECT count(*) FROM dalp_indexed.\"Beside.it\"").await, 5);
    assert!(said(site, &beside, 1).contains("it already exists"));
}

fn a_changed_file_is_found(site: &Site, folder: &Path) {
    // A folder in the place of an object.
    std::fs::create_dir_all(folder.join("probe/x")).unwrap();
    assert!(said(site, &["partitions", "doctor"], 1).contains("the archive cannot be used"));
    let file = files(&folder.join("data")).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(said(site, &["partitions", "archive", "verify"], 1).contains("cannot be trusted"));
    std::fs::remove_dir_all(folder.join("probe")).unwrap();
}

/// The registry is the list: every reader names an archive that the store lost, and a folder is not made again.
fn an_archive_that_is_lost_is_named(site: &Site, folder: &Path) {
    let listed = json(site, &["partitions", "archive", "list", "--json"]);
    let objects: Vec<&str> =
        listed.as_array().unwrap().iter().map(|manifest| manifest["object"].as_str().unwrap()).collect();
    let status = json(site, &["partitions", "status", "--table", "logs", "--json"]);
    assert_eq!(status["tables"][0]["verified"], status["tables"][0]["archived"], "{status}");
    assert!(status["tables"][0]["verified_since"].is_string(), "{status}");
    std::fs::remove_dir_all(folder).unwrap();
    for command in [["partitions", "archive", "verify"].as_slice(), &["partitions", "doctor"], &["partitions", "audit"]]
    {
        let named = said(site, command, 1);
        let missing = objects.iter().filter(|object| {
            let stem = object.rsplit('/').next().unwrap().trim_end_matches(".parquet");
            named.contains(stem)
        });
        // A grid breaks long names.
        assert!(command[1] != "archive" || missing.count() == objects.len(), "{command:?}: {named}");
        assert!(named.contains("missing"), "{command:?}: {named}");
    }
    assert!(said(site, &["partitions", "apply", "--table", "logs"], 1).contains("archive.json"));
    assert!(!folder.exists(), "it is not made again");
}

#[test]
fn what_a_running_indexer_has_dropped_is_not_made_again_by_history() {
    dalp_tests::run(async {
        let (database, (anvil, deployed)) = (stage().await.database().await, ten_days().await);
        let more = "[partitions]\nhistory_interval = \"day\"\nmaintenance_interval = \"1s\"\n\
                    [tables.logs]\naction = \"drop\"\nretention = \"3d\"\ngrace = \"0s\"\nmax_share_per_run = 100\n";
        let site = site(&database, &anvil, more);
        let narrow = site.clone().with(&format!("addresses = [\"{}\"]", deployed.agents[0]));
        let service = Service::start(&narrow.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        let client = database.superuser().await;
        assert_eq!(one(&client, TRANSFERS).await, 0);

        // The history of a wider filter stores all days; days past their retention go.
        let service = Service::start(&site.config()).await.unwrap();
        anvil.rpc().mine(3, 1).await.unwrap();
        no_gaps(&client).await;
        // History that arrived while its leaves were retired may have made some of them again: those go, too.
        let below = "SELECT count(*) FROM dalp_indexed.leaf JOIN pg_inherits ON inhrelid = relid \
                     WHERE table_name = 'logs' AND to_time <= '2024-03-08' AND from_time IS NOT NULL";
        until("the old days to be gone", || async {
            one(&client, "SELECT count(*) FROM dalp_indexed.leaf WHERE state = 'DROPPED'").await >= 6
                && one(&client, below).await == 0
        })
        .await;
        let made = one(&client, "SELECT max(leaf_id) FROM dalp_indexed.leaf").await;
        let floor =
            "SELECT extract(epoch FROM floor)::int8 FROM dalp_indexed.retention_floor WHERE table_name = 'logs'";
        assert_eq!(one(&client, floor).await as u64, GENESIS + 7 * DAY);
        let kept = one(&client, LOGS).await;
        assert_eq!((kept, one(&client, RETAINED).await, one(&client, TRANSFERS).await), (20, 20, 50));
        service.stop().await;

        // Another filter again: its history reaches below the floor, and stops there for the raw logs alone.
        client.batch_execute("DELETE FROM dalp_indexed.coverage; DELETE FROM dalp_indexed.erc20_transfer; DELETE FROM dalp_indexed.logs; \
                              DELETE FROM dalp_indexed.blocks WHERE number < (SELECT tail_number FROM dalp_indexed.chain_state)").await.unwrap();
        let service = Service::start(&site.config()).await.unwrap();
        anvil.rpc().mine(3, 1).await.unwrap();
        no_gaps(&client).await;
        assert_eq!((one(&client, LOGS).await, one(&client, TRANSFERS).await), (kept, 50));
        service.stop().await;
        let again = format!(
            "SELECT count(*) FROM dalp_indexed.leaf WHERE table_name = 'logs' AND to_time <= '2024-03-08' AND leaf_id > {made}"
        );
        assert_eq!((one(&client, below).await, one(&client, &again).await), (0, 0), "made, or made and dropped again");
        said(&site, &["verify"], 0);
    });
}

#[test]
fn a_table_of_somebody_else_is_looked_after_as_well() {
    dalp_tests::run(async {
        let (database, (anvil, _)) = (stage().await.database().await, ten_days().await);
        let client = database.superuser().await;
        client
            .batch_execute(
                "GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; \
             CREATE TABLE dalp_assets.position (at timestamptz NOT NULL, holder text, amount numeric(30,2)) PARTITION BY RANGE (at); \
                 ALTER TABLE dalp_assets.position OWNER TO dalp_partitioner",
            )
            .await
            .unwrap();
        let more = "[tables.position]\ntable = \"dalp_assets.position\"\ntime_column = \"at\"\ninterval = \"day\"\naction = \"detach\"\n\
                    retention = \"2d\"\nmax_share_per_run = 100\n";
        let site = site(&database, &anvil, more);
        let plan = json(&site, &["partitions", "plan", "--table", "position", "--json"]);
        assert_eq!(plan["create"].as_array().unwrap().len(), 4, "{plan}");
        said(&site, &["partitions", "apply", "--table", "position"], 0);
        client
            .batch_execute(
                "DO $$ DECLARE day date := current_date - 5; BEGIN \
                   EXECUTE format('CREATE TABLE dalp_assets.old PARTITION OF dalp_assets.position FOR VALUES FROM (%L) TO (%L)', day, day + 1); \
                   ALTER TABLE dalp_assets.old OWNER TO dalp_partitioner; \
                   INSERT INTO dalp_assets.position VALUES (day + interval '1 hour', 'a', 1.50), (now(), 'b', 2); END $$",
            )
            .await
            .unwrap();
        let applied = json(&site, &["partitions", "apply", "--table", "position", "--json"]);
        let acts: Vec<&str> =
            applied["done"].as_array().unwrap().iter().map(|done| done["act"].as_str().unwrap()).collect();
        assert_eq!(acts, ["seal", "retire", "detach"], "{applied}");
        assert_eq!(one(&client, "SELECT count(*) FROM dalp_assets.position").await, 1);
        assert_eq!(one(&client, "SELECT count(*) FROM dalp_assets.old").await, 1);
        said(&site, &["partitions", "undo", "dalp_assets.old", "--reason", "still needed", "--author", "ops"], 0);
        assert_eq!(one(&client, "SELECT count(*) FROM dalp_assets.position").await, 2);
        let record = "SELECT count(*) FROM dalp_audit.activity WHERE object = 'dalp_assets.old'";
        assert_eq!(one(&client, record).await, 4, "seal, retire, detach, undo");
    });
}

/// Another user's tables in `dalp_assets`, which the partitioner owns and may maintain.
async fn made_by_the_partitioner(client: &Client, tables: &str) {
    let sql = format!(
        "GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner; {tables}; RESET ROLE"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Tables that cannot be maintained, an unusable archive, and too many due leaves: each stops only itself, and is reported.
#[test]
fn one_bad_thing_stops_itself() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let client = database.superuser().await;
        made_by_the_partitioner(
            &client,
            "CREATE TABLE dalp_assets.numbered (day int NOT NULL) PARTITION BY RANGE (day); \
             CREATE TABLE dalp_assets.position (at timestamptz NOT NULL, n int8) PARTITION BY RANGE (at); \
             CREATE TABLE dalp_assets.old PARTITION OF dalp_assets.position FOR VALUES FROM ('-infinity') TO ('2020-01-01 00:00+00'); \
             CREATE TABLE dalp_assets.far PARTITION OF dalp_assets.position FOR VALUES FROM ('290000-01-01 00:00+00') TO ('infinity'); \
             INSERT INTO dalp_assets.position VALUES ('2019-01-01', 1), ('290000-01-02', 2)",
        )
        .await;
        let more = "[partitions]\narchive_url = \"s3://no-such-bucket/x\"\narchive_options = [\"no_such_option=1\"]\n\
                    [tables.logs]\naction = \"archive\"\nretention = \"60d\"\ninterval = \"hour\"\n\
                    [tables.numbered]\ntable = \"dalp_assets.numbered\"\ntime_column = \"day\"\naction = \"drop\"\nretention = \"1d\"\n\
                    [tables.position]\ntable = \"dalp_assets.position\"\ntime_column = \"at\"\naction = \"detach\"\nretention = \"2d\"\n";
        let site = Site { more: more.to_owned(), ..Site::new(&database, &anvil.http_url()) };
        each_is_told_and_the_rest_is_done(&site, &client).await;

        // A running indexer does the maintenance, and reports the blocked part.
        anvil.rpc().mine(3, 60).await.unwrap();
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let tasks = service.tasks();
        until("what fails to be told", || {
            let tasks = tasks.borrow().clone();
            let told = |name: &str, what: &str| {
                tasks
                    .iter()
                    .any(|task| task.name == name && task.error.as_ref().is_some_and(|error| error.contains(what)))
            };
            let all =
                told("archive", "archive_url") && told("retention", "numbered: ") && told("retention", "position: ");
            std::future::ready(all)
        })
        .await;
        service.stop().await;
    });
}

async fn each_is_told_and_the_rest_is_done(site: &Site, client: &Client) {
    let checked = said(site, &["config", "check", "--connect"], 1);
    assert!(checked.contains("failed  tables.numbered") && checked.contains("ok      tables.position"), "{checked}");
    let crowded = "keeps 1444 leaves of a key, more than partitions.max_leaves = 1000";
    assert!(said(site, &["config", "check"], 0).contains(crowded));
    let plan = said(site, &["partitions", "plan", "--json"], 1);
    assert!(plan.contains("numbered: ") && plan.contains("such as 20240131"), "{plan}");
    assert!(plan.contains("position_"), "{plan}");
    said(site, &["partitions", "apply"], 1);
    client.batch_execute("INSERT INTO dalp_assets.position VALUES (now(), 3)").await.unwrap();
    assert!(said(site, &["partitions", "plan", "--json"], 1).contains("allow-many"));
    let applied = said(site, &["partitions", "apply"], 1);
    for told in ["numbered: ", "nothing is archived: partitions.archive_url", "position (key 0): 1 leaves with"] {
        assert!(applied.contains(told), "{told}: {applied}");
    }
    let status = said(site, &["status", "--json"], 0);
    assert!(status.contains("dalp_assets.position") && status.contains("such as 20240131"), "{status}");
    let status = said(site, &["partitions", "status", "--json"], 1);
    assert!(status.contains("position") && status.contains("numbered: ") && status.contains("allow-many"), "{status}");
    for command in ["doctor", "audit"] {
        let found = said(site, &["partitions", command, "--json"], 1);
        assert!(found.contains("numbered") && found.contains("no leaf of key 0"), "{command}: {found}");
        assert!(found.contains(crowded), "{command}: {found}");
    }
    let hold = ["partitions", "hold", "add", "--table", "position", "--reason", "case", "--author", "counsel"];
    assert!(said(site, &hold, 0).contains("hold 1 keeps position"));
    assert!(said(site, &["partitions", "hold", "list"], 0).contains("counsel"));
    said(site, &["partitions", "hold", "release", "1", "--author", "counsel"], 0);

    // The way back does not use the wrong table.
    said(site, &["partitions", "apply", "--allow-many"], 1);
    let back = ["partitions", "undo", "dalp_assets.old", "--reason", "needed", "--author", "ops"];
    assert!(said(site, &back, 0).contains("attached again: old"));
    said(site, &["partitions", "hold", "release", "2", "--author", "ops"], 0);

    // A late row gets its leaf on request.
    let late = "INSERT INTO dalp_assets.position VALUES ('2023-11-05 10:00+00', 4)";
    assert_eq!(client.batch_execute(late).await.unwrap_err().code().unwrap().code(), "23514");
    let fill = ["partitions", "fill", "--table", "position", "--at", "2023-11-05T10:00:00Z"];
    assert!(said(site, &fill, 0).contains("position_20231101 is made"));
    client.batch_execute(late).await.unwrap();
    assert!(said(site, &fill, 0).contains("already exists"));
}

/// The advice of `doctor` is one line, which works when it is pasted.
#[test]
fn what_doctor_advises_can_be_copied() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let site = Site::new(&database, "http://127.0.0.1:9");
        let doctor = || {
            let output = site.call(&["partitions", "doctor"]);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let super_ = database.superuser().await;
        let publish = "CREATE PUBLICATION \"its Feed\" FOR TABLE dalp_indexed.logs";
        super_.batch_execute(publish).await.unwrap();
        let said = doctor();
        for advice in ["GRANT pg_read_all_stats TO", "ALTER PUBLICATION"] {
            let line = said.lines().find_map(|line| Some(&line[line.find(advice)?..]));
            super_.batch_execute(line.unwrap_or_else(|| panic!("no {advice}: {said}"))).await.unwrap();
        }
        let after = doctor();
        super_.batch_execute("REVOKE pg_read_all_stats FROM dalp_partitioner").await.unwrap();
        assert!(!after.contains("pg_read_all_stats") && !after.contains("its Feed"), "{after}");
    });
}

#[test]
fn undo_names_a_leaf_as_people_do() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 1, 1).await;
        let site = Site::new(&database, &anvil.http_url());
        let mut running = site.spawn();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        let sql = "SELECT relname::text FROM pg_class WHERE relispartition AND relkind = 'r' AND relname LIKE 'logs%' LIMIT 1";
        until("a leaf", || async { client.query_opt(sql, &[]).await.unwrap().is_some() }).await;
        let leaf: String = client.query_one(sql, &[]).await.unwrap().get(0);
        for (name, words) in [
            (leaf.as_str(), format!("dalp_indexed.{leaf}: neither this leaf nor a newer leaf")),
            ("no_such", "`dalp-indexer partitions archive list`".to_owned()),
        ] {
            let output = site.call(&["partitions", "undo", name, "--reason", "r", "--author", "a"]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && said.contains(&words), "{said}");
        }
        assert!(running.stop().await.success());
        // The record is for people who ask who it was: a system that does not know is no answer.
        let hold = ["partitions", "hold", "add", "--table", "logs", "--reason", "r", "--config"];
        let file = site.file();
        let mut nobody = command(&hold);
        let output = nobody.arg(file.path()).env_remove("USER").env_remove("LOGNAME").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("add --author NAME"), "{said}");
    });
}

/// A chain whose table has the maximum number of leaves, and another one: both have leaves for their rows of now, and ahead of
/// them.
#[test]
fn a_chain_with_too_many_leaves_has_those_of_now_and_hinders_no_other() {
    dalp_tests::run(async {
        let (database, (full, deployed)) = (stage().await.database().await, ten_days().await);
        let client = database.superuser().await;
        let few = |max: u32| {
            format!(
                "[partitions]\nhistory_interval = \"day\"\nmax_leaves = {max}\nmaintenance_interval = \"1s\"\npremake = 2\n\
                 [tables.logs]\ninterval = \"hour\"\n"
            )
        };
        let alone = site(&database, &full, &few(100));
        let service = Service::start(&alone.config()).await.unwrap();
        caught_up(&database, &full).await;
        service.stop().await;
        let leaves = "SELECT count(*) FROM pg_partition_tree('dalp_indexed.logs') WHERE isleaf";
        assert!(one(&client, leaves).await >= 10, "each day has its own");

        let other = anvil_with(AnvilOptions { chain_id: 31_338, ..AnvilOptions::default() }).await;
        let beside = format!(
            "{}[chains.other]\nchain_id = 31338\nrpc_urls = [{:?}]\nfinality = \"never\"\npoll_interval = \"100ms\"\n",
            few(5),
            other.http_url()
        );
        let service = Service::start(&Site { more: beside, ..alone }.config()).await.unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        full.rpc().set_next_block_timestamp(now).await.unwrap();
        burst(full.rpc(), &deployed, 3, 77).await;
        burst(other.rpc(), &deploy(other.rpc()).await.unwrap(), 3, 78).await;
        for (chain, anvil) in [(31_337, &full), (31_338, &other)] {
            let tail =
                format!("SELECT COALESCE(tail_number, 0) FROM dalp_indexed.chain_state WHERE chain_id = {chain}");
            let last = i64::try_from(head(anvil.rpc()).await).unwrap();
            until("rows of now to be stored", || async { one(&client, &tail).await == last }).await;
            let rows = format!(
                "SELECT count(*) FROM dalp_indexed.logs WHERE chain_id = {chain} AND block_time > now() - interval '1 hour'"
            );
            assert!(one(&client, &rows).await >= 3);
            until("leaves for this hour and the next", || async { ahead(&client, chain).await }).await;
        }
        let tasks = service.tasks();
        until("leaves to be made ahead without a failure", || async {
            tasks.borrow().iter().any(|task| task.name == "premake" && task.error.is_none())
        })
        .await;
        service.stop().await;
    });
}

/// Whether the raw logs of a chain have leaves for this hour and the next.
async fn ahead(client: &Client, chain: i64) -> bool {
    let sql = format!(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_partition_tree('dalp_indexed.logs') \
         JOIN pg_class ON oid = relid WHERE isleaf AND relname LIKE 'logs_{chain}_%'"
    );
    let bounds: Vec<String> = client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let time = |text: Option<&str>| chrono::DateTime::parse_from_str(text?, "%Y-%m-%d %H:%M:%S%#z").ok();
    let holds = |bounds: &String, at: chrono::DateTime<chrono::Utc>| {
        // FOR VALUES FROM ('…') TO ('…')
        let mut words = bounds.split('\'');
        let (from, to) = (time(words.nth(1)), time(words.nth(1)));
        from.is_some_and(|from| from <= at) && to.is_some_and(|to| at < to)
    };
    let now = chrono::Utc::now();
    [now, now + chrono::TimeDelta::hours(1)].into_iter().all(|at| bounds.iter().any(|bounds| holds(bounds, at)))
}
