//! The leader of a chain: one separate row, renewed beside the loop; another process takes it after its end.
//!
//! The lease prevents a fight of two processes over one chain. The token, which each data transaction checks, keeps the rows
//! right. So a leader that cannot renew continues until another process has a newer token. All times are the database's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::chain::{NewChain, check_same, enter};
use super::connect::connect_direct;
use super::{Claim, Store, StoreError, int8};
use crate::config::Database;
use crate::status::instance;

/// The duration of a lease without renewals: the wait of a standby after its leader was killed.
pub const TTL: Duration = Duration::from_secs(3);
/// The leader's renewal interval.
pub const RENEWAL: Duration = Duration::from_secs(1);
/// The interval at which a standby checks for its end.
pub const POLL: Duration = Duration::from_millis(250);

/// The time limit of one check or renewal before its connection counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time limit of a takeover, which may wait a second for locks.
const TAKEOVER: Duration = Duration::from_secs(10);

/// The result of a bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bid {
    /// This process leads the chain: earlier claims commit nothing more, and their open transactions are ended.
    Won(Claim),
    /// Another process leads it.
    Held {
        /// The process, as named by [`instance`].
        holder: String,
        /// The end of its lease without a renewal.
        until: DateTime<Utc>,
    },
}

/// One process's part in the lease of one chain. It has its own connection: neither a long commit nor a full pool delays a
/// renewal.
#[derive(Debug)]
pub struct Lease {
    database: Database,
    chain: NewChain,
    client: Option<Client>,
}

impl Lease {
    /// For bids on `chain`. Connects at the first bid.
    pub fn new(store: &Store, chain: NewChain) -> Self {
        Self { database: store.database.clone(), chain, client: None }
    }

    /// Finds the leader; if there is none, registers and checks the chain and takes it over.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if the stored chain is another one, with the remedy, also under another leader;
    /// [`StoreError::Retry`] for a temporary failure.
    pub async fn bid(&mut self) -> Result<Bid, StoreError> {
        let chain = self.chain.clone();
        let client = self.client().await?;
        let outcome = match bounded(PATIENCE, look(client, &chain)).await {
            Ok(None) => bounded(TAKEOVER, take_over(client, &chain)).await,
            Ok(Some(held)) => Ok(held),
            Err(error) => Err(error),
        };
        self.forget_connection_after(outcome)
    }

    /// Renews the lease of `claim`, also an expired one that nobody took; and ends blocking transactions of older writers.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process has the lease.
    pub async fn renew(&mut self, claim: &Claim) -> Result<(), StoreError> {
        let client = self.client().await?;
        let outcome = bounded(PATIENCE, renew(client, claim)).await;
        self.forget_connection_after(outcome)
    }

    /// Ends the lease of `claim` now, so that a standby does not wait for its end.
    ///
    /// # Errors
    /// See [`StoreError`]; the lease then expires by itself.
    pub async fn release(&mut self, claim: &Claim) -> Result<(), StoreError> {
        let client = self.client().await?;
        let ours: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8)];
        let released = async { client.execute_typed(RELEASE, &ours).await.map(drop).map_err(StoreError::from) };
        let outcome = bounded(PATIENCE, released).await;
        self.forget_connection_after(outcome)
    }

    async fn client(&mut self) -> Result<&mut Client, StoreError> {
        if self.client.as_ref().is_some_and(Client::is_closed) {
            self.client = None;
        }
        Ok(match &mut self.client {
            Some(client) => client,
            slot => {
                let client = connect_direct(&self.database, &self.database.url).await;
                // The login or the database may be about to change.
                slot.insert(client.map_err(|error| StoreError::Retry { why: error.to_string() })?)
            }
        })
    }

    /// A connection that did not answer may never answer again: the next step makes a new one.
    fn forget_connection_after<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(outcome, Err(StoreError::Retry { .. })) {
            self.client = None;
        }
        outcome
    }
}

async fn bounded<T>(limit: Duration, step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(limit, step).await.unwrap_or_else(|_| {
        let why = format!("the database did not answer within {limit:?}; it may be overloaded or unreachable");
        Err(StoreError::Retry { why })
    })
}

/// One plain read: nearly always the only query of a standby.
async fn look(client: &Client, chain: &NewChain) -> Result<Option<Bid>, StoreError> {
    let chain_id: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain.chain_id), Type::INT8)];
    let Some(row) = client.query_typed_opt(LOOK, &chain_id).await? else { return Ok(None) };
    // A standby that cannot take over should report this now, and not at a takeover.
    check_same(chain, row.get(2), row.get(3), row.get(4))?;
    Ok(Some(Bid::Held { holder: row.get(0), until: row.get(1) }))
}

/// The lease, the end of the earlier writer's open transactions, and the new token: one transaction.
async fn take_over(client: &mut Client, chain: &NewChain) -> Result<Bid, StoreError> {
    let (chain_id, holder, ttl) = (int8(chain.chain_id), instance(), TTL.as_secs_f64());
    let tx = client.transaction().await?;
    tx.query_typed(LIMIT, &[(&chain_id, Type::INT8)]).await?;
    let bid: [(&(dyn ToSql + Sync), Type); 3] = [(&chain_id, Type::INT8), (&holder, Type::TEXT), (&ttl, Type::FLOAT8)];
    if tx.query_typed_opt(TAKE, &bid).await?.is_none() {
        return Err(StoreError::Retry {
            why: format!("another dalp-indexer took the lease of chain {chain_id} first"),
        });
    }
    // Before the token rises: a writer that is paused between its fence and its COMMIT holds the state row's lock.
    let everybody: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&i64::MAX, Type::INT8)];
    tx.query_typed(END_OLDER, &everybody).await?;
    let claim = enter(tx.client(), chain, true).await?;
    let given: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&claim.token, Type::INT8)];
    tx.execute_typed(GIVE, &given).await?;
    tx.commit().await?;
    // And after it: later transactions of the old token cannot commit, but their rows would block ours.
    client.query_typed(END_OLDER, &given).await?;
    Ok(Bid::Won(claim))
}

async fn renew(client: &Client, claim: &Claim) -> Result<(), StoreError> {
    let (chain_id, ttl) = (int8(claim.chain_id), TTL.as_secs_f64());
    let lease: [(&(dyn ToSql + Sync), Type); 3] =
        [(&chain_id, Type::INT8), (&claim.token, Type::INT8), (&ttl, Type::FLOAT8)];
    if client.execute_typed(RENEW, &lease).await? == 0 {
        return Err(StoreError::Fenced { chain_id: claim.chain_id });
    }
    client.query_typed(END_BLOCKING, &lease[..2]).await?;
    Ok(())
}

/// The name distinguishes candidates from writers. A silent candidate loses its transaction, and the lock with it.
const LIMIT: &str = "SELECT set_config('lock_timeout', '1s', true), set_config('statement_timeout', '5s', true), \
                       set_config('idle_in_transaction_session_timeout', '1s', true), \
                       set_config('application_name', 'dalp-indexer ' || $1, true)";

const LOOK: &str = "SELECT l.holder, l.expires_at, s.genesis_hash, s.name, s.start_block \
                    FROM dalp_indexed.lease AS l JOIN dalp_indexed.chain_state AS s USING (chain_id) \
                    WHERE l.chain_id = $1 AND l.expires_at > clock_timestamp()";

const TAKE: &str = "INSERT INTO dalp_indexed.lease AS l (chain_id, token, holder, expires_at) \
                    VALUES ($1, 0, $2, clock_timestamp() + make_interval(secs => $3)) \
                    ON CONFLICT (chain_id) DO UPDATE SET holder = excluded.holder, renewed_at = clock_timestamp(), \
                      expires_at = excluded.expires_at WHERE l.expires_at <= clock_timestamp() RETURNING l.token";

const GIVE: &str = "UPDATE dalp_indexed.lease SET token = $2 WHERE chain_id = $1";

const RENEW: &str = "UPDATE dalp_indexed.lease SET renewed_at = clock_timestamp(), \
                       expires_at = clock_timestamp() + make_interval(secs => $3) WHERE chain_id = $1 AND token = $2";

const RELEASE: &str = "UPDATE dalp_indexed.lease SET expires_at = clock_timestamp() WHERE chain_id = $1 AND token = $2";

/// Ends the transactions of older tokens of this chain, and no others: each names its chain (see `store::limit`). A login sees
/// and ends only transactions of the same login in the same database.
const END_OLDER: &str = "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
                         WHERE datname = current_database() AND usename = session_user AND pid <> pg_backend_pid() \
                           AND substring(application_name FROM '^dalp-indexer ' || $1 || '/([0-9]{1,18})$')::int8 < $2";

/// Ends only those that this chain's other transactions wait for: a stale writer may be paused again at any time, and a backfill
/// under an older token may continue if it blocks nobody.
const END_BLOCKING: &str = "WITH waiting AS MATERIALIZED (\
                              SELECT pid FROM pg_catalog.pg_stat_activity \
                              WHERE datname = current_database() AND usename = session_user AND wait_event_type = 'Lock' \
                                AND application_name IN ('dalp-indexer ' || $1, 'dalp-indexer ' || $1 || '/' || $2)), \
                            blocking AS MATERIALIZED (SELECT DISTINCT unnest(pg_blocking_pids(pid)) AS pid FROM waiting) \
                            SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity JOIN blocking USING (pid) \
                            WHERE datname = current_database() AND usename = session_user \
                              AND substring(application_name FROM '^dalp-indexer ' || $1 || '/([0-9]{1,18})$')::int8 < $2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_has_tries_left_before_its_lease_runs_out() {
        assert!(RENEWAL * 2 < TTL && POLL < RENEWAL && PATIENCE < TTL);
    }

    /// As promised in docs/failure-modes.md; `cargo bench -p dalp-tests --bench takeover` measures it.
    #[test]
    fn five_seconds_are_enough_for_a_lease_to_run_out_and_to_be_noticed() {
        assert!(TTL + POLL * 4 <= Duration::from_secs(5));
    }
}
