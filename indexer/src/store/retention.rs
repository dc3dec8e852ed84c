//! What retention has done to a chain's tables: from which time on rows are served, and what they are counted back from.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use chrono::{DateTime, TimeDelta, Utc};
use dalp_partitions::Table;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::{Store, StoreError, begin_brief, int8};

/// The earliest time served of each table of a chain. Rows before it are not written any more: their leaves are gone or about to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// Of the raw logs; `None` if all are served.
    pub logs: Option<DateTime<Utc>>,
    /// Of the transfers.
    pub transfers: Option<DateTime<Utc>>,
    /// Times after this are absurd and get no leaf: rows of theirs are quarantined.
    pub latest: Option<DateTime<Utc>>,
}

impl Floors {
    /// That of a table by its name.
    pub fn of(&self, table: &str) -> Option<DateTime<Utc>> {
        if table == "logs" { self.logs } else { self.transfers }
    }
}

/// How far ahead of now a block's time may lie, as the partition manager has it: contracts and devnets look decades ahead.
const AHEAD: TimeDelta = TimeDelta::days(36_525);

/// Whether a row of this time (Unix seconds) is absurd.
pub(super) fn is_absurd(latest: Option<DateTime<Utc>>, seconds: i64) -> bool {
    latest.is_some_and(|latest| seconds > latest.timestamp())
}

/// Whether a row of this time (Unix seconds) lies below a floor.
pub(super) fn is_below(floor: Option<DateTime<Utc>>, seconds: i64) -> bool {
    floor.is_some_and(|floor| seconds < floor.timestamp())
}

impl Store {
    /// The floors of a chain as they were last read.
    pub fn floors(&self, chain_id: u64) -> Floors {
        let floors = self.floors.read().unwrap_or_else(PoisonError::into_inner);
        Floors { latest: Utc::now().checked_add_signed(AHEAD), ..floors.get(&chain_id).copied().unwrap_or_default() }
    }

    /// Reads the floors of a chain. Where they are old, rows of a leaf that is gone get one anew, which is retired again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn learn_floors(&self, chain_id: u64) -> Result<Floors, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_brief(&mut connection, chain_id).await?;
        let floors = read_floors(&tx, chain_id).await?;
        tx.commit().await?;
        self.floors.write().unwrap_or_else(PoisonError::into_inner).insert(chain_id, floors);
        Ok(floors)
    }
}

pub(super) async fn read_floors(tx: &Client, chain_id: u64) -> Result<Floors, StoreError> {
    let params: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
    let mut floors = Floors { latest: Utc::now().checked_add_signed(AHEAD), ..Floors::default() };
    for row in tx.query_typed(FLOORS, &params).await? {
        let floor = row.get::<_, Option<DateTime<Utc>>>(1);
        match row.get::<_, &str>(0) {
            "logs" => floors.logs = floor,
            "erc20_transfer" => floors.transfers = floor,
            _ => {}
        }
    }
    Ok(floors)
}

/// The time of each chain's newest final block that is stored, by chain id. For the partitioner's connection.
///
/// # Errors
/// The server's.
pub async fn final_times(client: &Client) -> Result<BTreeMap<i64, DateTime<Utc>>, Error> {
    let rows = client.query_typed("SELECT chain_id, time FROM dalp_indexed.final_time", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The newest time known of each chain's head, by chain id.
///
/// # Errors
/// The server's.
pub async fn head_times(client: &Client) -> Result<BTreeMap<i64, DateTime<Utc>>, Error> {
    let rows = client.query_typed(HEADS, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// How the maintenance of a table last went.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Last run without a failure.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// What the last failure said, if none has succeeded since.
    pub error: Option<String>,
}

/// How the maintenance of a table last went.
///
/// # Errors
/// The server's.
pub async fn last_run(client: &Client, table: &Table) -> Result<Run, Error> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let row = client.query_typed_opt(LAST_RUN, &params).await?;
    Ok(row.map(|row| Run { succeeded_at: row.get(0), error: row.get(1) }).unwrap_or_default())
}

/// How many leaves of a table were dropped, by key.
///
/// # Errors
/// The server's.
pub async fn gone(client: &Client, table: &Table) -> Result<BTreeMap<i64, i64>, Error> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let rows = client.query_typed(GONE, &params).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

const GONE: &str = "SELECT key, count(*) FROM dalp_indexed.leaf \
                    WHERE table_schema = $1 AND table_name = $2 AND state = 'DROPPED' GROUP BY key";
const HEADS: &str = "SELECT c.chain_id, GREATEST(s.head_time, c.tail_time) FROM dalp_indexed.chain_state AS c \
                     LEFT JOIN dalp_indexed.chain_status AS s USING (chain_id) WHERE GREATEST(s.head_time, c.tail_time) IS NOT NULL";
const LAST_RUN: &str = "SELECT succeeded_at, CASE WHEN failures > 0 THEN last_error END FROM dalp_indexed.partition_run \
                        WHERE table_schema = $1 AND table_name = $2";

/// Everything retired (a table that is no longer written) is a floor that no time reaches.
const FLOORS: &str = "SELECT table_name, NULLIF(LEAST(floor, '9999-12-31 23:59:59+00'), '-infinity') \
                      FROM dalp_indexed.retention_floor WHERE table_schema = 'dalp_indexed' AND key = $1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_call_the_same_times_absurd() {
        assert_eq!(dalp_partitions::Policy::default().ahead_at_most, AHEAD);
        let latest = DateTime::from_timestamp(100, 0);
        assert!(is_absurd(latest, 101) && !is_absurd(latest, 100) && !is_absurd(None, i64::MAX));
        assert!(is_below(latest, 99) && !is_below(latest, 100) && !is_below(None, i64::MIN));
    }
}
