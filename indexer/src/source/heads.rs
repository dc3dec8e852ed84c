//! The newest block, by WebSocket where there is one and by polling always: a silent socket delays, never stops.

use std::sync::Arc;
use std::time::Duration;

use alloy::network::Ethereum;
use alloy::providers::{Provider, RootProvider, WsConnect};
use alloy::rpc::client::RpcClient;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::{Head, RpcHeader, Source};
use crate::config::{Chain, Secret, endpoint};

/// The newest head, or why there is none.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// The newest head that any node told.
    pub head: Option<Head>,
    /// Why the last poll failed, while polls fail.
    pub trouble: Option<String>,
}

/// Follows the head until the receiver is dropped. The value is sent again at every poll, changed or not.
pub async fn follow(source: Arc<Source>, chain: Chain, news: watch::Sender<News>) {
    let (pushed, mut pushes) = mpsc::channel(64);
    let sockets: Vec<_> = chain.ws_urls.iter().map(|url| tokio::spawn(listen(url.clone(), pushed.clone()))).collect();
    // Ends the sockets' tasks with this one.
    let _sockets = AbortAll(sockets);
    let mut poll = interval(chain.poll_interval);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = news.closed() => return,
            Some(header) = pushes.recv() => news.send_modify(|now| push(now, header)),
            _ = poll.tick() => match source.head().await {
                Ok(head) => news.send_modify(|now| *now = News { head: Some(head), trouble: None }),
                Err(error) => {
                    source.fail_over();
                    debug!(chain = chain.name, %error, "no head");
                    news.send_modify(|now| now.trouble = Some(error.to_string()));
                }
            },
        }
    }
}

fn push(now: &mut News, header: crate::chain::block::Header) {
    let finalized = now.head.as_ref().and_then(|head| head.finalized);
    now.head = Some(Head { header, finalized });
}

struct AbortAll(Vec<tokio::task::JoinHandle<()>>);

impl Drop for AbortAll {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Longest pause between two attempts to subscribe.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Subscribes to `newHeads` at `url`, again and again.
async fn listen(url: Secret, heads: mpsc::Sender<crate::chain::block::Header>) {
    let mut pause = Duration::from_millis(500);
    loop {
        let began = Instant::now();
        let Err(why) = subscribe(&url, &heads).await else { return };
        let node = endpoint(url.expose());
        warn!(%node, why, "no new heads by WebSocket; polling goes on");
        if began.elapsed() > MAX_PAUSE {
            pause = Duration::from_millis(500);
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// `Ok` once nobody wants heads any more; `Err` when the subscription cannot be had or ends.
async fn subscribe(url: &Secret, heads: &mpsc::Sender<crate::chain::block::Header>) -> Result<(), String> {
    // The message of a failed connection may repeat the URL, and with it a key.
    let clean = |error: String| error.replace(url.expose(), "(url)");
    let connect = WsConnect::new(url.expose());
    let client = RpcClient::connect_pubsub(connect).await.map_err(|e| clean(e.to_string()))?;
    let provider = RootProvider::<Ethereum>::new(client);
    let subscription = provider.subscribe::<_, RpcHeader>(("newHeads",)).await.map_err(|e| clean(e.to_string()))?;
    let mut subscription = subscription;
    loop {
        let header = subscription.recv().await.map_err(|e| e.to_string())?;
        if let Some(header) = header.header()
            && heads.send(header).await.is_err()
        {
            return Ok(());
        }
    }
}
