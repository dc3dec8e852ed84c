//! The lease of a chain, read from outside, and kept from expiring by chance on a busy machine.

use tokio_postgres::Client;

use dalp_indexer::store::lease::TTL;

use crate::indexer::Running;
use crate::stage::{Database, until};

/// The token of the only chain; 0 before there is one.
///
/// # Panics
/// If the state cannot be read.
pub async fn token(client: &Client) -> i64 {
    let row = client.query_opt("SELECT token FROM dalp_indexed.chain_state", &[]).await.expect("the state is read");
    row.map_or(0, |row| row.get(0))
}

/// The process with the lease, which must last.
///
/// # Panics
/// If the lease cannot be read.
pub async fn leader(client: &Client) -> Option<u32> {
    let sql = "SELECT holder FROM dalp_indexed.lease WHERE expires_at > clock_timestamp()";
    let row = client.query_opt(sql, &[]).await.expect("the lease is read")?;
    row.get::<_, &str>(0).rsplit(' ').next()?.parse().ok()
}

/// Waits until a process has the lease.
pub async fn leads(client: &Client, running: &Running) {
    until("it leads", || async { leader(client).await == Some(running.pid()) }).await;
}

/// Waits until a process has logged the text `times` times.
pub async fn says(running: &Running, what: &str, times: usize) {
    until(what, || async { running.log().matches(what).count() >= times }).await;
}

/// Waits until a process has a token newer than `before`.
pub async fn taken_over(client: &Client, before: i64) {
    until("a takeover", || async { token(client).await > before }).await;
}

/// Keeps the leases of a database on a busy machine: after a late renewal, a standby would take over from a healthy leader. While
/// they are kept, each lease lasts for an hour from its renewal, and only its holder ends it.
#[derive(Debug)]
pub struct Leases(Client);

const INSTALL: &str = "
    CREATE SCHEMA test_lease;
    CREATE TABLE test_lease.kept AS SELECT true AS kept;
    CREATE FUNCTION test_lease.keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        IF NEW.expires_at > clock_timestamp() AND (SELECT kept FROM test_lease.kept) THEN
            NEW.expires_at := clock_timestamp() + interval '1 hour';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER keep BEFORE INSERT OR UPDATE ON dalp_indexed.lease FOR EACH ROW EXECUTE FUNCTION test_lease.keep()";

const BRIEF: &str = "SELECT FROM dalp_indexed.lease WHERE expires_at < clock_timestamp() + interval '10 minutes'";

impl Leases {
    /// Keeps all future leases of `database`.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn kept(database: &Database) -> Self {
        let client = database.superuser().await;
        client.batch_execute(INSTALL).await.expect("the trigger is made");
        Self(client)
    }

    /// Lets them expire normally: a lease without renewals ends [`TTL`] after its last renewal.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn run_out(&self) {
        self.0.batch_execute("UPDATE test_lease.kept SET kept = false").await.expect("the leases are let go");
        let end = "UPDATE dalp_indexed.lease SET expires_at = renewed_at + make_interval(secs => $1) \
                   WHERE expires_at > renewed_at + make_interval(secs => $1)";
        self.0.execute(end, &[&TTL.as_secs_f64()]).await.expect("the leases are cut to what they were");
    }

    /// Keeps them again, as soon as their holders have renewed them.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn keep(&self) {
        self.0.batch_execute("UPDATE test_lease.kept SET kept = true").await.expect("the leases are kept");
        until("all leases to be renewed", || async {
            self.0.query(BRIEF, &[]).await.expect("the leases are read").is_empty()
        })
        .await;
    }
}
