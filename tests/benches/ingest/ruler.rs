//! The ruler: the rows that the indexer wrote, copied raw into the same tables, with the same leaves and indexes.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::Client;

use super::Outcome;

/// Rows of a transaction in each table: about the largest that limits nothing and holds its locks for 20 ms only.
const ROWS: usize = 10_000;
/// Bytes of one write, as the indexer's.
const WRITE: usize = 128 * 1024;

/// How long the same rows take.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Rows of each table.
    pub rows: u64,
    /// Rows of `erc20_transfer` alone.
    pub typed: Duration,
    /// Rows of both tables in the same transactions, where both are written.
    pub both: Option<Duration>,
    /// The two indexes of each leaf with rows, built afterwards, where the indexer builds them so.
    pub indexes: Option<Duration>,
}

impl Marks {
    /// The indexer's work to compare with: its rows, and its indexes.
    pub fn ruler(&self) -> Duration {
        self.both.unwrap_or(self.typed) + self.indexes.unwrap_or_default()
    }
}

/// Prebuilt COPY streams, one a transaction.
pub struct Dump {
    rows: u64,
    typed: Vec<Bytes>,
    raw: Option<Vec<Bytes>>,
}

impl Dump {
    /// Takes the rows in block order: the typed ones, and where they are kept the raw ones.
    pub async fn of(client: &Client, raw: bool) -> Outcome<Self> {
        let raw = if raw { Some(streams(client, RAW_OUT).await?) } else { None };
        let rows: i64 = client.query_one(STORED, &[]).await?.get(0);
        Ok(Self { rows: rows.unsigned_abs(), typed: streams(client, TYPED_OUT).await?, raw })
    }

    /// Copies them in, each time into tables that were emptied: `owner` empties, `writer` copies. With `build`, indexes them then.
    pub async fn measure(&self, owner: &Client, writer: &Client, build: bool) -> Outcome<Marks> {
        let typed = self.copy(owner, writer, &[(TYPED_IN, &self.typed)]).await?;
        let both = match &self.raw {
            Some(raw) => Some(self.copy(owner, writer, &[(RAW_IN, raw), (TYPED_IN, &self.typed)]).await?),
            None => None,
        };
        let indexes = if build { Some(build_indexes(owner).await?) } else { None };
        Ok(Marks { rows: self.rows, typed, both, indexes })
    }

    /// Copies the rows of a table into another one, and nothing else.
    pub async fn copy_into(&self, client: &Client, of: &str, table: &str) -> Outcome<()> {
        let sql = format!("COPY {table} FROM STDIN (FORMAT binary)");
        let streams = if of == "logs" { self.raw.as_deref().unwrap_or_default() } else { &self.typed };
        for stream in streams {
            send(client, &sql, stream).await?;
        }
        Ok(())
    }

    async fn copy(&self, owner: &Client, writer: &Client, tables: &[(&str, &[Bytes])]) -> Outcome<Duration> {
        owner.batch_execute("TRUNCATE dalp_indexed.logs, dalp_indexed.erc20_transfer").await?;
        owner.batch_execute("CHECKPOINT").await?;
        let transactions = tables.iter().map(|(_, streams)| streams.len()).max().unwrap_or(0);
        let began = Instant::now();
        for at in 0..transactions {
            writer.batch_execute("BEGIN").await?;
            for (sql, streams) in tables {
                if let Some(stream) = streams.get(at) {
                    send(writer, sql, stream).await?;
                }
            }
            writer.batch_execute("COMMIT").await?;
        }
        Ok(began.elapsed())
    }
}

/// One after the other, on one connection.
async fn build_indexes(owner: &Client) -> Outcome<Duration> {
    let leaves = owner.query(LEAVES, &[]).await?;
    let began = Instant::now();
    for leaf in leaves {
        let (name, emitter): (String, String) = (leaf.get(0), leaf.get(1));
        owner.batch_execute(&format!("CREATE INDEX ON {name} ({emitter}, block_time)")).await?;
        owner.batch_execute(&format!("CREATE INDEX ON {name} (tx_hash)")).await?;
    }
    Ok(began.elapsed())
}

async fn send(writer: &Client, sql: &str, stream: &Bytes) -> Outcome<()> {
    let mut sink = pin!(writer.copy_in::<_, Bytes>(sql).await?);
    let mut rest = stream.clone();
    while rest.has_remaining() {
        sink.feed(rest.split_to(WRITE.min(rest.len()))).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// The answer of a binary COPY, cut into streams of at most `ROWS` rows.
async fn streams(client: &Client, sql: &str) -> Outcome<Vec<Bytes>> {
    let pieces: Vec<Bytes> = client.copy_out(sql).await?.try_collect().await?;
    cut(&pieces.concat().into()).ok_or_else(|| "not the binary format of COPY".into())
}

/// Signature, flags and the length of an extension that has never been used.
const HEADER: usize = 11 + 4 + 4;
/// In the place of a row's number of fields: no more rows.
const TRAILER: i16 = -1;

fn cut(all: &Bytes) -> Option<Vec<Bytes>> {
    let (header, mut rest) = (all.get(..HEADER)?, all.slice(HEADER..));
    let mut streams = Vec::new();
    loop {
        let mut rows = rest.clone();
        let count = (0..ROWS).take_while(|_| skip_row(&mut rows).is_some()).count();
        if count == 0 {
            return (rest.try_get_i16() == Ok(TRAILER)).then_some(streams);
        }
        let rows = rest.split_to(rest.len() - rows.len());
        let mut stream = BytesMut::with_capacity(HEADER + rows.len() + 2);
        stream.put(header);
        stream.put(rows);
        stream.put_i16(TRAILER);
        streams.push(stream.freeze());
    }
}

/// Past one row: a number of fields, and each with its length. `None` and where it was, if there is none.
fn skip_row(rows: &mut Bytes) -> Option<()> {
    let mut next = rows.clone();
    for _ in 0..u16::try_from(next.try_get_i16().ok()?).ok()? {
        // NULL has length -1 and no bytes.
        let length = usize::try_from(next.try_get_i32().ok()?).unwrap_or(0);
        (length <= next.len()).then(|| next.advance(length))?;
    }
    *rows = next;
    Some(())
}

/// Transfers in the database.
pub const STORED: &str = "SELECT count(*) FROM dalp_indexed.erc20_transfer";
const TYPED_OUT: &str =
    "COPY (SELECT * FROM dalp_indexed.erc20_transfer ORDER BY block_number, log_index) TO STDOUT (FORMAT binary)";
const TYPED_IN: &str = "COPY dalp_indexed.erc20_transfer FROM STDIN (FORMAT binary)";
const RAW_OUT: &str =
    "COPY (SELECT * FROM dalp_indexed.logs ORDER BY block_number, log_index) TO STDOUT (FORMAT binary)";
const RAW_IN: &str = "COPY dalp_indexed.logs FROM STDIN (FORMAT binary)";
/// The leaves with rows, each with its column of the emitter.
const LEAVES: &str = "SELECT relid::regclass::text, emitter FROM ( \
                        SELECT *, 'address' AS emitter FROM pg_partition_tree('dalp_indexed.logs') UNION ALL \
                        SELECT *, 'token' FROM pg_partition_tree('dalp_indexed.erc20_transfer')) t \
                      WHERE isleaf AND pg_relation_size(relid) > 0 ORDER BY relid";
