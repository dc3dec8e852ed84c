//! PgBouncer in transaction mode.

use dalp_fixtures::{AnvilOptions, deploy};
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, WRITER, anvil_with, head, pooler, stage};
use dalp_tests::truth::assert_exact;

use crate::burst;

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
