//! Migrations against a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod server;

use dalp_migrations::{Error, LATEST, Report, Roles, SchemaState, check, migrate};
use server::{Database, SUPERUSER};
use tokio_postgres::{Client, error::SqlState};

/// All databases of the server share roles: a test that changes roles uses its own names.
fn roles_of(test: &str) -> Roles {
    let name = |role: &str| format!("{test} {role}");
    Roles {
        migrator: name("migrator"),
        writer: name("writer"),
        partitioner: name("partitioner"),
        reader: name("reader"),
        create: true,
    }
}

async fn migrated() -> (Database, Client) {
    let database = Database::create().await;
    let mut client = database.connect().await;
    migrate(&mut client, &Roles::default()).await.unwrap();
    (database, client)
}

fn everything() -> Report {
    Report { applied: (1..=LATEST).collect(), state: SchemaState::Current }
}

fn nothing() -> Report {
    Report { applied: Vec::new(), state: SchemaState::Current }
}

async fn strings(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Runs a statement as a role; returns the SQLSTATE, `None` on success.
async fn as_role(client: &Client, role: &str, sql: &str) -> Option<SqlState> {
    client.batch_execute(&format!("SET ROLE \"{role}\"")).await.unwrap();
    let answer = client.batch_execute(&format!("BEGIN; {sql}; COMMIT")).await;
    client.batch_execute("ROLLBACK; RESET ROLE").await.unwrap();
    answer.err().map(|error| error.code().cloned().unwrap())
}

#[tokio::test]
async fn a_fresh_database_gets_everything_and_a_second_run_finds_nothing() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    assert!(matches!(check(&client).await, Err(Error::Missing { .. })));
    assert_eq!(migrate(&mut client, &Roles::default()).await.unwrap(), everything());
    assert_eq!(migrate(&mut client, &Roles::default()).await.unwrap(), nothing());
    assert_eq!(check(&client).await.unwrap(), SchemaState::Current);
    let schemas =
        strings(&client, "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'dalp%' ORDER BY 1").await;
    assert_eq!(schemas, ["dalp_assets", "dalp_audit", "dalp_identity", "dalp_indexed", "dalp_views", "dalp_workflows"]);
}

#[tokio::test]
async fn the_connection_comes_back_as_it_was() {
    let (_database, client) = migrated().await;
    let session = "SELECT concat_ws(' ', current_user, current_setting('lock_timeout'), current_setting('search_path')) \
                   UNION ALL SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    assert_eq!(strings(&client, session).await, [&format!("{SUPERUSER} 0 \"$user\", public"), "0"]);
}

#[tokio::test]
async fn two_at_once_apply_each_migration_once() {
    let database = Database::create().await;
    let (mut one, mut two) = (database.connect().await, database.connect().await);
    let roles = Roles::default();
    let (one, two) = tokio::join!(migrate(&mut one, &roles), migrate(&mut two, &roles));
    let mut reports = [one.unwrap(), two.unwrap()];
    reports.sort_by_key(|report| report.applied.len());
    assert_eq!(reports, [nothing(), everything()]);
}

#[tokio::test]
async fn many_databases_of_one_cluster_at_once() {
    let roles = roles_of("many");
    let runs = (0..8).map(|_| {
        let roles = roles.clone();
        tokio::spawn(async move {
            let mut client = Database::create().await.connect().await;
            migrate(&mut client, &roles).await.unwrap()
        })
    });
    for run in runs.collect::<Vec<_>>() {
        assert_eq!(run.await.unwrap(), everything());
    }
}

#[tokio::test]
async fn schemas_that_exist_keep_owner_and_rights() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "CREATE ROLE platform; CREATE SCHEMA dalp_audit AUTHORIZATION platform; \
             CREATE SCHEMA dalp_indexed AUTHORIZATION platform; GRANT USAGE ON SCHEMA dalp_audit TO pg_monitor",
        )
        .await
        .unwrap();
    let audit = "SELECT nspowner::regrole || ' ' || nspacl::text FROM pg_namespace WHERE nspname = 'dalp_audit'";
    let before = strings(&client, audit).await;
    assert_eq!(migrate(&mut client, &Roles::default()).await.unwrap(), everything());
    assert_eq!(strings(&client, audit).await, before);
    let owner = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'dalp_indexed'";
    assert_eq!(strings(&client, owner).await, ["platform"]);
    assert_eq!(as_role(&client, "dalp_writer", "SELECT FROM dalp_indexed.logs").await, None);
    // Only the record's owner grants rights on it.
    let activity = "SELECT c.relname::text FROM pg_class AS c WHERE c.relnamespace = 'dalp_audit'::regnamespace AND c.relkind = 'p'";
    assert_eq!(strings(&client, activity).await, [""; 0]);
    client.batch_execute("SELECT dalp_indexed.make_activity('dalp_partitioner', 'dalp_reader')").await.unwrap();
    assert_eq!(strings(&client, activity).await, ["activity"]);
    let leaf = "CREATE TABLE dalp_audit.leaf (LIKE dalp_audit.activity); \
                ALTER TABLE dalp_audit.activity ATTACH PARTITION dalp_audit.leaf FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')";
    assert_eq!(as_role(&client, "dalp_partitioner", leaf).await, None);
}

#[tokio::test]
async fn an_edited_migration_is_refused_by_name() {
    let (_database, mut client) = migrated().await;
    client.batch_execute("UPDATE dalp_indexed.schema_history SET checksum = '7' WHERE version = 2").await.unwrap();
    for outcome in [check(&client).await.map(drop), migrate(&mut client, &Roles::default()).await.map(drop)] {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, Error::Edited { version: 2, applied, .. } if applied == "7"), "{error}");
        assert!(error.to_string().contains("V0002__chain_state_and_blocks.sql"), "{error}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_accepted_unless_it_says_otherwise() {
    let (_database, mut client) = migrated().await;
    let newer = LATEST + 2;
    let sql = format!("INSERT INTO dalp_indexed.schema_history VALUES ({newer}, 'later', now()::text, '1')");
    client.batch_execute(&sql).await.unwrap();
    assert_eq!(check(&client).await.unwrap(), SchemaState::Newer { version: newer });
    let report = migrate(&mut client, &Roles::default()).await.unwrap();
    assert_eq!(report, Report { applied: Vec::new(), state: SchemaState::Newer { version: newer } });

    client.batch_execute(&format!("UPDATE dalp_indexed.schema_contract SET oldest_binary = {newer}")).await.unwrap();
    for outcome in [check(&client).await.map(drop), migrate(&mut client, &Roles::default()).await.map(drop)] {
        assert!(matches!(outcome, Err(Error::Incompatible { oldest_binary, .. }) if oldest_binary == newer));
    }
}

#[tokio::test]
async fn an_older_schema_is_told_to_migrate() {
    let (_database, client) = migrated().await;
    client.batch_execute(&format!("DELETE FROM dalp_indexed.schema_history WHERE version = {LATEST}")).await.unwrap();
    let error = check(&client).await.unwrap_err();
    assert!(matches!(error, Error::Behind { found, .. } if found == LATEST - 1));
    assert!(error.to_string().contains("dalp-indexer migrate"), "{error}");
}

#[tokio::test]
async fn a_failed_migration_names_file_and_cause_and_can_be_continued() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    client.batch_execute("CREATE SCHEMA dalp_indexed; CREATE TABLE dalp_indexed.logs ()").await.unwrap();
    let error = migrate(&mut client, &Roles::default()).await.unwrap_err();
    assert!(matches!(error, Error::Apply { .. }), "{error}");
    assert!(error.to_string().contains("V3__logs"), "{error}");
    assert!(error.to_string().contains("relation \"logs\" already exists"), "{error}");
    client.batch_execute("DROP TABLE dalp_indexed.logs").await.unwrap();
    assert_eq!(migrate(&mut client, &Roles::default()).await.unwrap().applied, (3..=LATEST).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_read_only_database_is_refused() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    client.batch_execute("SET default_transaction_read_only = on").await.unwrap();
    assert!(matches!(migrate(&mut client, &Roles::default()).await, Err(Error::ReadOnly { .. })));
}

#[tokio::test]
async fn an_owner_with_createrole_needs_no_superuser() {
    let admin = Database::create().await.connect().await;
    admin.batch_execute("CREATE ROLE plain_owner LOGIN CREATEROLE").await.unwrap();
    let database = Database::create_owned_by("plain_owner").await;
    let mut client = database.connect_as("plain_owner").await;
    let roles = roles_of("plain owner's");
    assert_eq!(migrate(&mut client, &roles).await.unwrap(), everything());
    assert_eq!(migrate(&mut client, &roles).await.unwrap(), nothing());
    let partition = "CREATE TABLE dalp_indexed.logs_1 (LIKE dalp_indexed.logs) PARTITION BY RANGE (block_time); \
                     ALTER TABLE dalp_indexed.logs ATTACH PARTITION dalp_indexed.logs_1 FOR VALUES IN (1)";
    assert_eq!(as_role(&client, &roles.partitioner, partition).await, None);
}

#[tokio::test]
async fn without_createrole_the_administrator_gets_the_sql_to_run() {
    let admin = Database::create().await.connect().await;
    admin.batch_execute("CREATE ROLE poor_owner LOGIN").await.unwrap();
    let database = Database::create_owned_by("poor_owner").await;
    let mut client = database.connect_as("poor_owner").await;
    let mut roles = roles_of("poor owner's");

    let refused = migrate(&mut client, &roles).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied to create role"), "{refused}");
    roles.create = false;
    let error = migrate(&mut client, &roles).await.unwrap_err();
    let Error::Rights { login, sql, .. } = &error else { panic!("{error}") };
    assert_eq!(login, "poor_owner");
    assert!(sql.contains("CREATE ROLE \"poor owner's reader\" NOLOGIN;"), "{sql}");

    database.connect().await.batch_execute(sql).await.unwrap();
    assert_eq!(migrate(&mut client, &roles).await.unwrap(), everything());
}

#[tokio::test]
async fn a_login_that_owns_nothing_is_told_what_it_lacks() {
    let (database, client) = migrated().await;
    client.batch_execute("CREATE ROLE stranger LOGIN").await.unwrap();
    let mut stranger = database.connect_as("stranger").await;
    assert!(matches!(check(&stranger).await, Err(Error::Unreadable { login, .. }) if login == "stranger"));
    let error = migrate(&mut stranger, &Roles::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Rights { sql, .. } if sql.contains("GRANT dalp_migrator TO stranger")), "{error}");
}

/// One leaf, made like the partition manager's.
const LEAF: &str = "SET ROLE dalp_partitioner; \
    CREATE TABLE dalp_indexed.logs_1 (LIKE dalp_indexed.logs) PARTITION BY RANGE (block_time); \
    ALTER TABLE dalp_indexed.logs ATTACH PARTITION dalp_indexed.logs_1 FOR VALUES IN (1); \
    CREATE TABLE dalp_indexed.logs_1_2024 (LIKE dalp_indexed.logs); \
    ALTER TABLE dalp_indexed.logs_1 ATTACH PARTITION dalp_indexed.logs_1_2024 \
        FOR VALUES FROM ('2024-01-01') TO ('2025-01-01'); \
    RESET ROLE";
const LOG: &str = "INSERT INTO dalp_indexed.logs VALUES (1, '2024-05-05', 1, 0, 0, '', '', '', '', '', '', '', '')";

#[tokio::test]
async fn each_role_can_do_its_work() {
    let (_database, client) = migrated().await;
    client.batch_execute(LEAF).await.unwrap();
    let state = "INSERT INTO dalp_indexed.chain_state (chain_id, name, genesis_hash, start_block, tail_number) \
                 VALUES (1, 'devnet', decode(repeat('01', 32), 'hex'), 0, -1)";
    for (role, allowed) in [
        ("dalp_writer", LOG),
        ("dalp_writer", state),
        ("dalp_writer", "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1"),
        ("dalp_writer", "DELETE FROM dalp_indexed.logs WHERE chain_id = 1 AND block_time = '2024-05-05'"),
        ("dalp_writer", "SELECT FROM dalp_indexed.schema_history, dalp_indexed.schema_contract"),
        ("dalp_partitioner", "SELECT FROM dalp_indexed.chain_state, dalp_indexed.chain_status"),
        ("dalp_partitioner", "ALTER TABLE dalp_indexed.logs_1 DETACH PARTITION dalp_indexed.logs_1_2024"),
        ("dalp_reader", "SELECT FROM dalp_indexed.logs, dalp_indexed.blocks, dalp_indexed.schema_history"),
        ("dalp_reader", "SELECT dalp_indexed.block_time_range(1, 1, 2)"),
        ("dalp_migrator", "CREATE TABLE dalp_indexed.later (); ALTER TABLE dalp_indexed.logs ADD COLUMN later int8"),
        ("dalp_reader", "SELECT FROM dalp_indexed.later"),
        ("dalp_reader", "SELECT FROM dalp_views.logs, dalp_views.erc20_transfer_final, dalp_indexed.token"),
        ("dalp_partitioner", "CREATE VIEW dalp_views.mine AS SELECT * FROM dalp_indexed.logs"),
        (
            "dalp_writer",
            "INSERT INTO dalp_indexed.token (chain_id, address, read_at_block) VALUES (1, decode(repeat('01', 20), 'hex'), 0)",
        ),
    ] {
        assert_eq!(as_role(&client, role, allowed).await, None, "{role}: {allowed}");
    }
}

#[tokio::test]
async fn a_hash_of_another_length_and_a_number_that_is_none_are_not_stored() {
    let (_database, client) = migrated().await;
    for values in
        ["'\\x01', 0, -1", "decode(repeat('01', 32), 'hex'), -1, -1", "decode(repeat('01', 32), 'hex'), 0, -2"]
    {
        let sql = format!(
            "INSERT INTO dalp_indexed.chain_state (chain_id, name, genesis_hash, start_block, tail_number) VALUES (1, 'x', {values})"
        );
        let error = client.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{values}");
    }
    for (number, hash) in [(0, 31), (0, 33), (-1, 32)] {
        let sql = format!(
            "INSERT INTO dalp_indexed.blocks (chain_id, number, time, hash) VALUES (1, {number}, now(), decode(repeat('01', {hash}), 'hex'))"
        );
        let error = client.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{number} {hash}");
    }
}

#[tokio::test]
async fn each_role_is_refused_the_rest() {
    let (_database, client) = migrated().await;
    client.batch_execute(LEAF).await.unwrap();
    client.batch_execute("CREATE TABLE dalp_audit.secret (); CREATE TABLE public.other ()").await.unwrap();
    for (role, forbidden) in [
        ("dalp_writer", "CREATE TABLE dalp_indexed.mine ()"),
        ("dalp_writer", "DROP TABLE dalp_indexed.logs"),
        ("dalp_writer", "TRUNCATE dalp_indexed.logs"),
        ("dalp_writer", "ALTER TABLE dalp_indexed.logs ADD COLUMN mine int"),
        ("dalp_writer", "CREATE INDEX ON dalp_indexed.logs (data)"),
        ("dalp_writer", "UPDATE dalp_indexed.logs SET data = ''"),
        ("dalp_writer", "DELETE FROM dalp_indexed.chain_state"),
        ("dalp_writer", "INSERT INTO dalp_indexed.schema_contract VALUES (9)"),
        ("dalp_writer", "SELECT FROM dalp_indexed.logs_1_2024"),
        ("dalp_writer", "INSERT INTO dalp_indexed.logs_1_2024 SELECT FROM dalp_indexed.logs"),
        ("dalp_writer", "SELECT FROM dalp_audit.secret"),
        ("dalp_reader", "INSERT INTO dalp_indexed.chain_status (chain_id) VALUES (1)"),
        ("dalp_reader", "UPDATE dalp_indexed.chain_state SET epoch = 0"),
        ("dalp_reader", "DELETE FROM dalp_indexed.logs"),
        ("dalp_reader", "TRUNCATE dalp_indexed.blocks"),
        ("dalp_reader", "CREATE TABLE dalp_indexed.mine ()"),
        ("dalp_reader", "SELECT FROM dalp_indexed.logs_1_2024"),
        ("dalp_reader", "SELECT FROM dalp_audit.secret"),
        ("dalp_reader", "CREATE VIEW dalp_views.mine AS SELECT 1"),
        ("dalp_reader", "INSERT INTO dalp_indexed.token SELECT"),
        ("dalp_writer", "UPDATE dalp_indexed.token SET decimals = 0"),
        ("dalp_writer", "SELECT FROM dalp_views.logs"),
        ("dalp_partitioner", "UPDATE dalp_indexed.chain_state SET epoch = 0"),
        ("dalp_partitioner", "SELECT FROM dalp_indexed.blocks"),
        ("dalp_partitioner", "DROP TABLE dalp_indexed.blocks"),
        ("dalp_partitioner", "CREATE TABLE dalp_assets.mine ()"),
        ("dalp_partitioner", "SELECT FROM dalp_audit.secret"),
        ("dalp_partitioner", "CREATE SCHEMA mine"),
        ("dalp_migrator", "DROP TABLE public.other"),
        ("dalp_migrator", "CREATE ROLE mine"),
    ] {
        let answer = as_role(&client, role, forbidden).await;
        assert_eq!(answer, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{role}: {forbidden}");
    }
}

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    let (_database, client) = migrated().await;
    let bare = "SELECT format('%s.%s', c.oid::regclass, a.attname) \
                FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped \
                WHERE a.attnum > 0 AND (c.relnamespace = 'dalp_views'::regnamespace \
                    OR c.relnamespace = 'dalp_indexed'::regnamespace AND c.relkind IN ('r', 'p')) \
                  AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)";
    assert_eq!(strings(&client, bare).await, [""; 0]);
}

#[tokio::test]
async fn a_block_range_query_prunes_through_the_time_range() {
    let (_database, client) = migrated().await;
    client
        .batch_execute(&format!(
            "{LEAF}; SET ROLE dalp_partitioner; \
             CREATE TABLE dalp_indexed.logs_1_2025 (LIKE dalp_indexed.logs); \
             ALTER TABLE dalp_indexed.logs_1 ATTACH PARTITION dalp_indexed.logs_1_2025 \
                 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); RESET ROLE; \
             INSERT INTO dalp_indexed.blocks SELECT 1, n, '2024-01-01Z'::timestamptz + n * interval '1 day', decode(repeat('01', 32), 'hex') \
                 FROM generate_series(0, 700, 10) AS n"
        ))
        .await
        .unwrap();
    let range = "SELECT (lower(r) AT TIME ZONE 'UTC')::date || ' ' || (upper(r) AT TIME ZONE 'UTC')::date \
                 FROM dalp_indexed.block_time_range(1, 15, 41) AS r";
    assert_eq!(strings(&client, range).await, ["2024-01-11 2024-02-20"]);
    let open = "SELECT dalp_indexed.block_time_range(1, -5, 9999)::text";
    assert_eq!(strings(&client, open).await, ["[-infinity,infinity]"]);
    let plan = "EXPLAIN (COSTS off) SELECT FROM dalp_indexed.logs WHERE chain_id = 1 AND block_number BETWEEN 15 AND 41 \
                AND block_time >= lower(dalp_indexed.block_time_range(1, 15, 41)) \
                AND block_time <= upper(dalp_indexed.block_time_range(1, 15, 41))";
    let plan = strings(&client, plan).await.join("\n");
    assert!(plan.contains("Subplans Removed: 1") && !plan.contains("logs_1_2025"), "{plan}");
}
