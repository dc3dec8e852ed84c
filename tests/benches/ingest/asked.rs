//! The questions of analysts that the events of the two tables answer, as SQL. Each bounds `block_time`, as the documents advise,
//! except where the analyst knows a transaction or a block, and not its time.

use tokio_postgres::types::ToSql;

use super::questions::Drawn;

/// A question, and the parameters of its SQL in order; the first one is always the chain.
pub struct Question {
    pub name: &'static str,
    pub sql: &'static str,
    pub given: &'static [Given],
}

/// A value of a drawn row, or a time around it.
#[derive(Clone, Copy, Debug)]
pub enum Given {
    Chain,
    /// The first and the last time of the newest rows.
    Since,
    Until,
    /// A day before the last time.
    Yesterday,
    /// The full hour of the row.
    Hour,
    HourEnd,
    Time,
    Block,
    Log,
    /// Also the address in `logs`: all logs are transfers.
    Token,
    Account,
    /// Three accounts of a participant.
    Wallets,
    Topic0,
    Topic1,
    Transaction,
}

impl Question {
    /// Its parameters, from a drawn row.
    pub fn parameters<'a>(&self, row: &'a Drawn) -> Vec<&'a (dyn ToSql + Sync)> {
        self.given.iter().map(|given| row.value(*given)).collect()
    }
}

use Given::{
    Account, Block, Chain, Hour, HourEnd, Log, Since, Time, Token, Topic0, Topic1, Transaction, Until, Wallets,
    Yesterday,
};

/// All of them.
pub const QUESTIONS: &[Question] = &[
    Question {
        name: "a token's newest 50 transfers",
        sql: "SELECT block_time, block_number, log_index, from_address, to_address, value, tx_hash \
              FROM dalp_indexed.erc20_transfer \
              WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND token = $4 \
              ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 50",
        given: &[Chain, Since, Until, Token],
    },
    Question {
        name: "a page of 50 of them, older than a given one",
        sql: "SELECT block_time, block_number, log_index, from_address, to_address, value, tx_hash \
              FROM dalp_indexed.erc20_transfer \
              WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND token = $4 \
                AND (block_time, block_number, log_index) < ($3, $5, $6) \
              ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 50",
        given: &[Chain, Since, Time, Token, Block, Log],
    },
    Question {
        name: "an account's newest 50 transfers, sent and received",
        sql: "SELECT * FROM ( \
                (SELECT block_time, block_number, log_index, token, from_address, to_address, value, tx_hash \
                 FROM dalp_indexed.erc20_transfer \
                 WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND from_address = $4 \
                 ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 50) \
                UNION ALL \
                (SELECT block_time, block_number, log_index, token, from_address, to_address, value, tx_hash \
                 FROM dalp_indexed.erc20_transfer \
                 WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND to_address = $4 AND from_address <> $4 \
                 ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 50)) AS either \
              ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 50",
        given: &[Chain, Since, Until, Account],
    },
    Question {
        name: "an account's transfers between two times, in order (tax-year extract)",
        sql: "SELECT * FROM ( \
                SELECT block_time, block_number, log_index, token, from_address, to_address, value, tx_hash \
                FROM dalp_indexed.erc20_transfer \
                WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND from_address = $4 \
                UNION ALL \
                SELECT block_time, block_number, log_index, token, from_address, to_address, value, tx_hash \
                FROM dalp_indexed.erc20_transfer \
                WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND to_address = $4 AND from_address <> $4) AS either \
              ORDER BY block_time, block_number, log_index",
        given: &[Chain, Since, Until, Account],
    },
    Question {
        name: "transfers an hour of a participant with 3 wallets",
        sql: "SELECT date_trunc('hour', block_time) AS hour, count(*) FROM ( \
                SELECT block_time FROM dalp_indexed.erc20_transfer \
                WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND from_address = ANY ($4) \
                UNION ALL \
                SELECT block_time FROM dalp_indexed.erc20_transfer \
                WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND to_address = ANY ($4) AND from_address <> ALL ($4)) \
                AS either \
              GROUP BY hour ORDER BY hour",
        given: &[Chain, Since, Until, Wallets],
    },
    Question {
        name: "a token's volume in one hour: count and sum",
        sql: "SELECT count(*), sum(value) FROM dalp_indexed.erc20_transfer \
              WHERE chain_id = $1 AND block_time >= $2 AND block_time < $3 AND token = $4 HAVING count(*) > 0",
        given: &[Chain, Hour, HourEnd, Token],
    },
    Question {
        name: "a token's volume by hour, for a day",
        sql: "SELECT date_trunc('hour', block_time) AS hour, count(*), sum(value) FROM dalp_indexed.erc20_transfer \
              WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND token = $4 GROUP BY hour ORDER BY hour",
        given: &[Chain, Yesterday, Until, Token],
    },
    Question {
        name: "a token's mints by hour, for a day",
        sql: "SELECT date_trunc('hour', block_time) AS hour, count(*), sum(value) FROM dalp_indexed.erc20_transfer \
              WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND token = $4 \
                AND from_address = '\\x0000000000000000000000000000000000000000' \
              GROUP BY hour ORDER BY hour",
        given: &[Chain, Yesterday, Until, Token],
    },
    Question {
        name: "the transfers of a transaction, its hour known",
        sql: "SELECT log_index, token, from_address, to_address, value FROM dalp_indexed.erc20_transfer \
              WHERE chain_id = $1 AND block_time >= $2 AND block_time < $3 AND tx_hash = $4 ORDER BY log_index",
        given: &[Chain, Hour, HourEnd, Transaction],
    },
    Question {
        name: "the transfers of a transaction, by its logs, its time not known",
        sql: "SELECT log_index, token, from_address, to_address, value FROM dalp_indexed.logs AS log \
              JOIN dalp_indexed.erc20_transfer AS transfer USING (chain_id, block_time, block_number, log_index) \
              WHERE chain_id = $1 AND log.tx_hash = $2 ORDER BY log_index",
        given: &[Chain, Transaction],
    },
    Question {
        name: "the logs of a transaction (settlement proof), its hour known",
        sql: "SELECT * FROM dalp_indexed.logs \
              WHERE chain_id = $1 AND block_time >= $2 AND block_time < $3 AND tx_hash = $4 ORDER BY log_index",
        given: &[Chain, Hour, HourEnd, Transaction],
    },
    Question {
        name: "the same, its time not known",
        sql: "SELECT * FROM dalp_indexed.logs WHERE chain_id = $1 AND tx_hash = $2 ORDER BY log_index",
        given: &[Chain, Transaction],
    },
    Question {
        name: "a contract's newest 50 events of one kind",
        sql: "SELECT * FROM dalp_indexed.logs \
              WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND address = $4 AND topic0 = $5 \
              ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 50",
        given: &[Chain, Since, Until, Token, Topic0],
    },
    Question {
        name: "those of one account (topic1)",
        sql: "SELECT * FROM dalp_indexed.logs \
              WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND address = $4 AND topic0 = $5 AND topic1 = $6 \
              ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 50",
        given: &[Chain, Since, Until, Token, Topic0, Topic1],
    },
    Question {
        name: "the logs of a block, by block_time_range",
        sql: "SELECT * FROM dalp_indexed.logs WHERE chain_id = $1 AND block_number = $2 \
                AND block_time >= lower(dalp_indexed.block_time_range($1, $2, $2)) \
                AND block_time <= upper(dalp_indexed.block_time_range($1, $2, $2)) ORDER BY log_index",
        given: &[Chain, Block],
    },
    Question {
        name: "a page of 1,000 logs after a given one (export)",
        sql: "SELECT * FROM dalp_indexed.logs \
              WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 AND (block_time, block_number, log_index) > ($2, $4, $5) \
              ORDER BY block_time, block_number, log_index LIMIT 1000",
        given: &[Chain, Time, Until, Block, Log],
    },
];
