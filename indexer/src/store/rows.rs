//! A batch as COPY data: the rows of every partitioned table, encoded before the transaction begins so that it stays short. Pure.

use bytes::Bytes;

use super::encode::{CopyBuffer, Fixed, pg_micros};
use super::int8;
use super::retention::{Floors, is_absurd, is_below};
use crate::chain::batch::BlockBatch;
use crate::chain::block::Header;
use crate::chain::logs::Log;
use crate::events::erc20::{self, Decoded, Transfer};

/// One COPY: its statement and its data.
#[derive(Debug)]
pub struct TableCopy {
    /// `COPY … FROM STDIN (FORMAT binary)`.
    pub sql: &'static str,
    /// The data, in pieces worth one write each.
    pub chunks: Vec<Bytes>,
    /// Rows in it; with none, the statement need not be sent.
    pub rows: u64,
}

/// All rows of one batch.
#[derive(Debug)]
pub struct Rows {
    /// Raw logs.
    pub logs: TableCopy,
    /// ERC-20 transfers.
    pub transfers: TableCopy,
    /// Logs that a decoder refused.
    pub quarantine: TableCopy,
}

/// Who refuses logs of absurd times, in the quarantine.
pub(super) const TIME: &str = "block_time";
/// Why.
pub(super) const ABSURD: &str = "its block's time lies more than a hundred years ahead: no partition is made for it";

// The columns stand in the tables' own order, which is by alignment.
const COPY_LOGS: &str = "COPY dalp_indexed.logs (chain_id, block_time, block_number, log_index, tx_index, block_hash, tx_hash, \
                         address, topic0, topic1, topic2, topic3, data) FROM STDIN (FORMAT binary)";
const COPY_TRANSFERS: &str = "COPY dalp_indexed.erc20_transfer (chain_id, block_time, block_number, log_index, token, \
                              from_address, to_address, value, tx_hash) FROM STDIN (FORMAT binary)";
const COPY_QUARANTINE: &str = "COPY dalp_indexed.quarantine (chain_id, block_number, log_index, block_time, decoder, reason, \
                               tx_index, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data) FROM STDIN (FORMAT binary)";

impl Rows {
    /// Encodes `batch`, whose times were checked to be ones that PostgreSQL holds; its logs as they came only if `raw`, and of each
    /// table only what is not below its floor.
    pub fn encode(chain_id: i64, batch: &BlockBatch, raw: bool, floors: Floors) -> Self {
        let (mut logs, mut transfers) = (Encoder::new(COPY_LOGS), Encoder::new(COPY_TRANSFERS));
        let mut quarantine = Encoder::new(COPY_QUARANTINE);
        for (header, log) in batch.rows() {
            if is_absurd(floors.latest, header.time) {
                encode_refused(quarantine.row(), chain_id, header, &log, (TIME, ABSURD));
                continue;
            }
            if raw && !is_below(floors.logs, header.time) {
                encode_log(logs.row(), chain_id, header, &log);
            }
            match erc20::decode(&log) {
                Decoded::Transfer(_) if is_below(floors.transfers, header.time) => {}
                Decoded::Transfer(transfer) => encode_transfer(transfers.row(), chain_id, header, &log, transfer),
                Decoded::Malformed(reason) => {
                    encode_refused(quarantine.row(), chain_id, header, &log, (erc20::DECODER, reason))
                }
                Decoded::Other => {}
            }
        }
        Self { logs: logs.finish(), transfers: transfers.finish(), quarantine: quarantine.finish() }
    }

    /// Those that have rows.
    pub fn tables(self) -> Vec<TableCopy> {
        [self.logs, self.transfers, self.quarantine].into_iter().filter(|table| table.rows > 0).collect()
    }
}

fn encode_log(copy: &mut CopyBuffer, chain_id: i64, header: &Header, log: &Log<'_>) {
    let row = Fixed::<150>::row(13).int8(chain_id).int8(micros(header)).int8(int8(header.number));
    let row = row.int4(log.log_index).int4(log.tx_index);
    copy.fixed(&row.bytes(header.hash.0).bytes(log.tx_hash.0).bytes(log.address.0.0));
    encode_words(copy, log);
}

fn encode_words(copy: &mut CopyBuffer, log: &Log<'_>) {
    for topic in 0..4 {
        copy.word(log.topics.get(topic));
    }
    copy.bytes(log.data);
}

fn encode_transfer(copy: &mut CopyBuffer, chain_id: i64, header: &Header, log: &Log<'_>, transfer: Transfer<'_>) {
    let row = Fixed::<118>::row(9).int8(chain_id).int8(micros(header)).int8(int8(header.number)).int4(log.log_index);
    copy.fixed(&row.bytes(log.address.0.0).bytes(transfer.from.0.0).bytes(transfer.to.0.0));
    copy.uint256(transfer.value).word(Some(&log.tx_hash));
}

/// The log as it came, as no other table may have it. `why`: who refused it, and the reason.
fn encode_refused(copy: &mut CopyBuffer, chain_id: i64, header: &Header, log: &Log<'_>, why: (&str, &str)) {
    copy.row(15).int8(chain_id).int8(int8(header.number)).int4(log.log_index).int8(micros(header));
    copy.bytes(why.0.as_bytes()).bytes(why.1.as_bytes()).int4(log.tx_index);
    copy.bytes(header.hash.as_slice()).bytes(log.tx_hash.as_slice()).bytes(log.address.as_slice());
    encode_words(copy, log);
}

/// A time that PostgreSQL does not hold is refused before rows are encoded. It would be the last of all, never the first:
/// what is old may be dropped.
fn micros(header: &Header) -> i64 {
    pg_micros(header.time).unwrap_or(i64::MAX - 1)
}

/// Bytes worth one write: large enough to be cheap, small enough to start streaming early.
const CHUNK: usize = 128 * 1024;

struct Encoder {
    sql: &'static str,
    buffer: CopyBuffer,
    chunks: Vec<Bytes>,
    rows: u64,
}

impl Encoder {
    fn new(sql: &'static str) -> Self {
        Self { sql, buffer: CopyBuffer::new(1024), chunks: Vec::new(), rows: 0 }
    }

    /// The buffer for one more row.
    fn row(&mut self) -> &mut CopyBuffer {
        if self.buffer.len() >= CHUNK {
            self.chunks.push(self.buffer.take(CHUNK + CHUNK / 8));
        }
        self.rows += 1;
        &mut self.buffer
    }

    fn finish(mut self) -> TableCopy {
        self.buffer.finish();
        self.chunks.push(self.buffer.take(0));
        TableCopy { sql: self.sql, chunks: self.chunks, rows: self.rows }
    }
}
