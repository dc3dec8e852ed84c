//! The newest block, by WebSocket where there is one and by polling always: a silent socket delays, never stops.

use std::sync::Arc;
use std::time::Duration;

use alloy::network::Ethereum;
use alloy::providers::{Provider, RootProvider, WsConnect};
use alloy::rpc::client::RpcClient;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::{Head, RpcHeader, Source, SourceError};
use crate::chain::block::Header;
use crate::config::{Chain, Secret, endpoint};

/// The newest head, or why there is none.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// The newest head that any node told.
    pub head: Option<Head>,
    /// Why the last poll failed, while polls fail.
    pub trouble: Option<String>,
}

/// What one of the two ways told.
enum Told {
    /// A socket pushed a header.
    Pushed(Header),
    /// A poll that began at that moment was answered, or failed.
    Polled(Instant, Result<Head, SourceError>),
}

/// Follows the head until the receiver is dropped. The value is sent again at every poll, changed or not.
pub async fn follow(source: Arc<Source>, chain: Chain, news: watch::Sender<News>) {
    let (told, mut telling) = mpsc::channel(64);
    let mut tasks: Vec<_> = chain.ws_urls.iter().map(|url| tokio::spawn(listen(url.clone(), told.clone()))).collect();
    tasks.push(tokio::spawn(poll(source, chain, told)));
    // Ends the tasks with this one.
    let _tasks = AbortAll(tasks);
    let mut pushed_at = Instant::now();
    loop {
        tokio::select! {
            () = news.closed() => return,
            Some(told) = telling.recv() => {
                if matches!(told, Told::Pushed(_)) {
                    pushed_at = Instant::now();
                }
                news.send_modify(|now| now.take(told, pushed_at));
            }
        }
    }
}

impl News {
    fn take(&mut self, told: Told, pushed_at: Instant) {
        match told {
            Told::Pushed(header) => {
                let finalized = self.head.as_ref().and_then(|head| head.finalized);
                self.head = Some(Head { header, finalized });
            }
            Told::Polled(began, Ok(mut head)) => {
                self.trouble = None;
                // An answer that was on its way when a newer head was pushed would look like a head that moved back.
                if let Some(known) = self.head.take()
                    && began < pushed_at
                    && head.header.number < known.header.number
                {
                    head.header = known.header;
                }
                self.head = Some(head);
            }
            Told::Polled(_, Err(error)) => self.trouble = Some(error.to_string()),
        }
    }
}

/// Asks for the head every `poll_interval`, beside the sockets: a slow answer must not hold up what they push.
async fn poll(source: Arc<Source>, chain: Chain, told: mpsc::Sender<Told>) {
    let mut turn = interval(chain.poll_interval);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let began = Instant::now();
        let answer = source.head().await;
        if let Err(error) = &answer {
            source.fail_over(error);
            debug!(chain = chain.name, %error, "no head");
        }
        if told.send(Told::Polled(began, answer)).await.is_err() {
            return;
        }
    }
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
async fn listen(url: Secret, heads: mpsc::Sender<Told>) {
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
async fn subscribe(url: &Secret, heads: &mpsc::Sender<Told>) -> Result<(), String> {
    // The message of a failed connection may repeat the URL, and with it a key.
    let clean = |error: String| error.replace(url.expose(), "(url)");
    let connect = WsConnect::new(url.expose());
    let client = RpcClient::connect_pubsub(connect).await.map_err(|e| clean(e.to_string()))?;
    let provider = RootProvider::<Ethereum>::new(client);
    let subscription = provider.subscribe::<_, RpcHeader>(("newHeads",)).await;
    let mut subscription = subscription.map_err(|e| clean(e.to_string()))?;
    loop {
        let header = subscription.recv().await.map_err(|e| e.to_string())?;
        if let Some(header) = header.header()
            && heads.send(Told::Pushed(header)).await.is_err()
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;
    use crate::chain::block::TimeSource;

    fn header(number: u64) -> Header {
        let hash = B256::repeat_byte(number as u8);
        Header { number, hash, parent: None, time: 0, time_source: TimeSource::Header, bloom: None }
    }

    #[test]
    fn a_poll_overtaken_by_a_push_does_not_move_the_head_back() {
        let mut news = News::default();
        let began = Instant::now();
        let pushed_at = began + Duration::from_millis(1);
        news.take(Told::Pushed(header(9)), pushed_at);
        let polled = |began| Told::Polled(began, Ok(Head { header: header(8), finalized: Some(header(3).block()) }));
        news.take(polled(began), pushed_at);
        let head = news.head.clone().unwrap();
        assert_eq!((head.header.number, head.finalized), (9, Some(header(3).block())));
        news.take(polled(pushed_at + Duration::from_millis(1)), pushed_at);
        assert_eq!(news.head.unwrap().header.number, 8, "asked afterwards, the node means it");
    }
}
