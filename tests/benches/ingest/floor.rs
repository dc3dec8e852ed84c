//! The least work for a new block: its head by WebSocket, its logs by one call on the same socket, COPY, COMMIT. No check, no
//! progress, no second table: no indexer on these servers can be faster.

use std::fmt::Write as _;
use std::pin::pin;

use alloy::primitives::{B256, U256};
use alloy::pubsub::Subscription;
use alloy::rpc::client::ClientBuilder;
use alloy::rpc::types::{Filter, Header, Log};
use alloy::transports::ws::WsConnect;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::Outcome;
use super::node::CHAIN_ID;

/// The loop, running.
pub struct Floor {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Outcome<()>>,
}

impl Floor {
    /// Subscribes, and runs until it is stopped. `writer` may write into the tables, whose leaves exist.
    pub async fn start(ws_url: &str, writer: Client) -> Outcome<Self> {
        let socket = ClientBuilder::default().ws(WsConnect::new(ws_url)).await?;
        let mut subscribe = socket.request::<_, B256>("eth_subscribe", ("newHeads",));
        subscribe.set_is_subscription();
        let frontend = socket.pubsub_frontend().ok_or("the socket takes no subscriptions")?;
        let mut heads = Subscription::<Header>::from(frontend.get_subscription(subscribe.await?).await?).into_stream();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut stopped = pin!(stopped);
            loop {
                tokio::select! {
                    _ = &mut stopped => return Ok(()),
                    head = heads.next() => {
                        let hash = head.ok_or("the subscription ended")?.hash;
                        let filter = Filter::new().at_block_hash(hash);
                        let logs: Vec<Log> = socket.request("eth_getLogs", (filter,)).await?;
                        copy(&writer, &logs).await?;
                    }
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// Ends it; an error that ended it before is told now.
    pub async fn stop(self) -> Outcome<()> {
        // It is gone where it failed, and says why below.
        self.stop.send(()).ok();
        self.task.await?
    }
}

async fn copy(writer: &Client, logs: &[Log]) -> Outcome<()> {
    let mut rows = String::new();
    for log in logs {
        let ([_, from, to], Some(number), Some(index), Some(time), Some(tx)) = (
            log.topics().first_chunk().copied().unwrap_or_default(),
            log.block_number,
            log.log_index,
            log.block_timestamp,
            log.transaction_hash,
        ) else {
            return Err("a log without its place".into());
        };
        let time = chrono::DateTime::from_timestamp(i64::try_from(time)?, 0).ok_or("a time past all calendars")?;
        let hex = |bytes: &[u8]| alloy::primitives::hex::encode(bytes);
        let value = U256::try_from_be_slice(&log.data().data).ok_or("a value that is no uint256")?;
        let (token, from, to, tx) =
            (hex(log.address().as_slice()), hex(&from[12..]), hex(&to[12..]), hex(tx.as_slice()));
        let time = time.to_rfc3339();
        writeln!(
            rows,
            "{CHAIN_ID}\t{time}\t{number}\t{index}\t\\\\x{token}\t\\\\x{from}\t\\\\x{to}\t{value}\t\\\\x{tx}"
        )?;
    }
    writer.batch_execute("BEGIN").await?;
    let mut sink = pin!(writer.copy_in::<_, Bytes>(IN).await?);
    sink.send(rows.into()).await?;
    sink.finish().await?;
    Ok(writer.batch_execute("COMMIT").await?)
}

const IN: &str = "COPY dalp_indexed.erc20_transfer (chain_id, block_time, block_number, log_index, token, from_address, \
                  to_address, value, tx_hash) FROM STDIN";
