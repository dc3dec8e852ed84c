//! PgBouncer in transaction mode.

use dalp_fixtures::{Anvil, AnvilOptions, Settings, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, OwnServer, READER, WRITER, anvil, anvil_with, head, pooler, stage, until};
use dalp_tests::truth::assert_exact;

use crate::{burst, waits_for};

/// Both processes name their statements from s0 upwards, and share four server connections.
#[test]
fn two_processes_share_a_pooler() {
    dalp_tests::run(async {
        let stage = stage().await;
        let (database, pooler) = (stage.database().await, pooler(&stage.cluster).await);
        let mut chains = Vec::new();
        for chain_id in [31_337, 31_338] {
            let anvil = anvil_with(AnvilOptions { chain_id, ..AnvilOptions::default() }).await;
            let deployed = deploy(anvil.rpc()).await.unwrap();
            let mut site =
                Site::new(&database, &anvil.http_url()).with("range_blocks = 2").with("max_range_blocks = 2");
            site.url = pooler.url(&database.name, WRITER);
            site.chain_id = chain_id;
            site.chain = format!("it{chain_id}");
            chains.push((anvil, deployed, site.spawn(), chain_id));
        }
        for seed in 0..60 {
            for (anvil, deployed, ..) in &chains {
                burst(anvil.rpc(), deployed, 5, seed).await;
            }
        }
        let client = database.superuser().await;
        for (anvil, _, running, chain_id) in &mut chains {
            let last = head(anvil.rpc()).await;
            dalp_tests::stage::until("the tail to reach the head", || async {
                let sql = "SELECT tail_number FROM dalp_indexed.chain_state WHERE chain_id = $1";
                let row = client.query_opt(sql, &[&(*chain_id as i64)]).await.unwrap();
                row.is_some_and(|row| row.get::<_, i64>(0) == last as i64)
            })
            .await;
            assert_exact(&client, anvil.rpc(), *chain_id as i64, 0, last).await;
            assert!(running.stop().await.success(), "{}", running.log());
            assert!(!running.log().contains("already exists"), "{}", running.log());
        }
    });
}

/// The schema check of `run` and the reading of leaves pass through a pooler, too.
#[test]
fn the_schema_is_checked_through_a_pooler() {
    dalp_tests::run(async {
        let stage = stage().await;
        let (database, pooler) = (stage.database().await, pooler(&stage.cluster).await);
        let config: tokio_postgres::Config = pooler.url(&database.name, ADMIN).parse().unwrap();
        for _ in 0..3 {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            assert_eq!(dalp_migrations::check(&client).await.unwrap(), dalp_migrations::SchemaState::Current);
        }
    });
}

/// The tail is at the node's head.
async fn arrived(server: &OwnServer, anvil: &Anvil) {
    let last = head(anvil.rpc()).await as i64;
    until("the tail to reach the head", || async {
        let Some(client) = server.superuser().await else { return false };
        let row = client.query_opt("SELECT tail_number FROM dalp_indexed.chain_state", &[]).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.get::<_, i64>(0) == last))
    })
    .await;
}

/// A pooler accepts logins while its server is gone, and answers nothing. The reader gets the server's own reason, over the
/// direct connection, or at least that the pooler's server is the cause.
#[test]
fn a_pooler_whose_server_is_gone_is_seen_through() {
    dalp_tests::run(async {
        let (mut server, anvil) = (OwnServer::start(Settings::devnet()).await, anvil().await);
        let (pooler, [url, reader_url]) = server.pooler([WRITER, READER]).await;
        let mut site = Site::new(&stage().await.database().await, &anvil.http_url());
        (site.url, site.admin_url, site.reader_url) = (url, server.url(ADMIN), reader_url);
        site.database_lines.push("connect_timeout = \"1s\"".into());
        let service = Service::start(&site.config()).await.unwrap();
        arrived(&server, &anvil).await;
        // The pooler has been asked for the reader, too.
        assert!(site.call(&["status"]).status.success());
        server.stop_at_once();
        anvil.rpc().mine(1, 1).await.unwrap();
        waits_for(&service, "the server itself: database postgres://127.0.0.1").await;
        let ready = service.status().borrow()[0].ready;
        let told = |site: &Site, command: &str| {
            let output = site.call(&[command]);
            assert_eq!(output.status.code(), Some(1), "{command}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let nowhere_else = Site { admin_url: site.url.clone(), ..site.clone() };
        for command in ["run", "status"] {
            let said = told(&site, command);
            assert!(said.contains("the server itself: database") && said.contains("connection refused"), "{said}");
            let said = told(&nowhere_else, command);
            assert!(said.contains("ooler") && !said.contains("came free"), "{said}");
        }
        assert!(!ready);
        server.restart().await;
        arrived(&server, &anvil).await;
        service.stop().await;
        drop(pooler);
    });
}
