//! Three ways for the rows of a day to go: ours, DELETE, and pg_partman's own retention.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use dalp_partitions::{Action, Need, Outcome, Reference, Retention, Switches, Terms, ensure, retire};
use tokio_postgres::{Client, error::SqlState};

use super::setup::{KEY, Server, copied, day, logs, partman_version, policy};
use super::stats::ms;

/// How many days ago the first day that goes lies; each round takes the next one.
const FIRST: i64 = 20;
/// Rows of yesterday, for the readers.
const READ: u32 = 20_000;

/// A way of removing the oldest day.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Ours,
    Delete,
    Partman,
}

/// How it went.
pub struct Removal {
    /// The steps, and their duration in ms.
    pub steps: Vec<(String, f64)>,
    /// The total in ms, with the time between the steps.
    pub took: f64,
    /// The reason of its stop.
    pub failed: Option<String>,
}

impl Way {
    /// Those that the server can do.
    pub async fn all(client: &Client) -> Vec<Self> {
        let has_partman = partman_version(client).await.is_some();
        [Self::Ours, Self::Delete].into_iter().chain(has_partman.then_some(Self::Partman)).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours: seal, retire, detach concurrently, drop",
            Self::Delete => "DELETE, then VACUUM",
            Self::Partman => "pg_partman's retention",
        }
    }

    pub fn table(self) -> &'static str {
        match self {
            Self::Ours => "dalp_indexed.logs",
            Self::Delete => "public.deleted_logs",
            Self::Partman => "public.partman_logs",
        }
    }

    /// Makes its table, where it is not ours, and leaves for all rounds and a few days ahead; and the rows that readers want.
    pub async fn prepare(self, server: &Server, database: &str) {
        let client = server.connect(database).await;
        if self == Self::Ours {
            let mut manager = server.manager(database).await;
            let need = Need::rows((-FIRST..=3).map(day));
            ensure(&mut manager, &logs(), KEY, &policy(), Utc::now(), &need).await.unwrap();
            // The first run makes leaves for its record.
            let nothing = ours(&mut manager, FIRST).await;
            assert!(nothing.done.is_empty() && nothing.failed.is_empty(), "{nothing:?}");
        } else {
            let (table, leaf) = (self.table(), self.table().trim_start_matches("public."));
            let mut sql = format!(
                "CREATE TABLE {table} (LIKE dalp_indexed.logs INCLUDING DEFAULTS, \
                   PRIMARY KEY (chain_id, block_time, block_number, log_index)) PARTITION BY RANGE (block_time); \
                 CREATE INDEX ON {table} USING brin (block_number); \
                 CREATE INDEX ON {table} (address, topic0, block_time); CREATE INDEX ON {table} (tx_hash);"
            );
            if self == Self::Partman {
                sql += &format!(
                    "CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman; \
                     SELECT partman.create_parent('{table}', 'block_time', 'native', 'daily', p_start_partition := '{}'); \
                     UPDATE partman.part_config SET retention_keep_table = false, retention_keep_index = false;",
                    day(-FIRST).format("%Y-%m-%d")
                );
            } else {
                for from in -FIRST..=3 {
                    let (label, from, to) = (day(from).format("%Y%m%d"), day(from), day(from + 1));
                    sql += &format!(
                        "CREATE TABLE public.{leaf}_{label} PARTITION OF {table} FOR VALUES FROM ('{}') TO ('{}');",
                        from.to_rfc3339(),
                        to.to_rfc3339()
                    );
                }
            }
            client.batch_execute(&sql).await.unwrap();
        }
        client.batch_execute(&copied(self.table(), day(-1), READ)).await.unwrap();
        if self == Self::Partman {
            // The leaves ahead exist when the first day goes.
            client.batch_execute("SELECT partman.run_maintenance('public.partman_logs')").await.unwrap();
        }
    }

    /// The rows of the day that goes in this round.
    pub async fn fill(self, client: &Client, round: i64, rows: u32) {
        client.batch_execute(&copied(self.table(), day(round - FIRST), rows)).await.unwrap();
        client.batch_execute(&format!("VACUUM (ANALYZE) {}", self.table())).await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
    }

    /// Removes the day of this round. `limit` bounds a statement of the ways that have no bound of their own.
    pub async fn remove(self, server: &Server, database: &str, round: i64, limit: Duration) -> Removal {
        let mut client = server.connect(database).await;
        let keep = FIRST - 1 - round;
        let mut steps = Vec::new();
        let limits = format!("SET statement_timeout = {}", limit.as_millis());
        let statements = match self {
            Self::Ours => Vec::new(),
            Self::Delete => {
                let (from, to) = (day(round - FIRST).to_rfc3339(), day(round - FIRST + 1).to_rfc3339());
                let leaf = format!("public.deleted_logs_{}", day(round - FIRST).format("%Y%m%d"));
                let delete = format!(
                    "DELETE FROM {} WHERE chain_id = {KEY} AND block_time >= '{from}' AND block_time < '{to}'",
                    self.table()
                );
                vec![("DELETE", delete), ("VACUUM", format!("VACUUM {leaf}"))]
            }
            Self::Partman => {
                let retention = format!("UPDATE partman.part_config SET retention = '{keep} days'");
                client.batch_execute(&retention).await.unwrap();
                vec![("run_maintenance", "SELECT partman.run_maintenance('public.partman_logs')".to_owned())]
            }
        };
        if self == Self::Ours {
            client.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
        } else {
            client.batch_execute(&limits).await.unwrap();
        }
        let (began, mut failed) = (Instant::now(), None);
        if self == Self::Ours {
            let outcome = ours(&mut client, keep).await;
            steps.extend(outcome.done.iter().map(|done| (done.act.word().to_owned(), ms(done.took))));
            failed = outcome.failed.first().map(|(next, _)| format!("{} gave up", next.act.word()));
        }
        for (name, sql) in statements {
            let started = Instant::now();
            match client.batch_execute(&sql).await {
                Ok(()) => steps.push((name.to_owned(), ms(started.elapsed()))),
                Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                    failed = Some(format!("{name} ended by statement_timeout"));
                }
                Err(error) => panic!("{sql}: {error:?}"),
            }
        }
        Removal { steps, took: ms(began.elapsed()), failed }
    }
}

/// As the indexer does it, with so many days kept and no grace period.
pub async fn ours(client: &mut Client, keep: i64) -> Outcome {
    let (keep, grace) = (TimeDelta::days(keep), TimeDelta::zero());
    let retention = Retention { action: Action::Drop, time: keep, grace, max_leaves: 1_000, max_share: 1.0 };
    let terms = Terms {
        retention: &retention,
        switches: Switches::ALL,
        reference: &Reference::Final([(KEY, Utc::now())].into()),
        can_archive: false,
        allow_many: true,
    };
    retire(client, &logs(), &terms, None).await.unwrap()
}
