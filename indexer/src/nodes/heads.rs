//! The newest block, by WebSocket where there is one and by polling always: a silent socket delays, never stops.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{B256, U64};
use alloy::pubsub::{ConnectionHandle, PubSubConnect, Subscription};
use alloy::rpc::client::RpcClient;
use alloy::transports::ws::WsConnect;
use alloy::transports::{TransportError, TransportErrorKind, TransportResult};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{Instrument as _, debug, error, warn};

use super::Nodes;
use super::error::NodeError;
use super::header::{Head, RpcHeader};
use super::http::UrlSecrets;
use super::node::Identity;
use crate::backoff::Backoff;
use crate::chain::block::{BlockRef, Header};
use crate::config::{Chain, Secret, endpoint};
use crate::spans;
use crate::task::{Lost, Watched};

/// The newest head, or why there is none.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// The newest head that any node reported.
    pub head: Option<Head>,
    /// Why the last poll failed, while polls fail.
    pub trouble: Option<String>,
}

/// The report of one of the two ways.
enum Told {
    /// A socket pushed a header. `continues`: its parent is the previous header of the same socket.
    Pushed { header: Header, continues: bool },
    /// A poll that began at that moment was answered, or failed.
    Polled(Instant, Result<Head, NodeError>),
}

/// Follows the head until the receiver is dropped. The value is sent again at every poll, changed or not. `is_devnet`: the chain
/// is known to be a devnet, and this was reported.
///
/// # Errors
/// One of its tasks was lost.
pub async fn follow(nodes: Arc<Nodes>, chain: Chain, news: watch::Sender<News>, is_devnet: bool) -> Result<(), Lost> {
    let (told, mut telling) = mpsc::channel(64);
    let (polled, seen) = watch::channel(0);
    let mut tasks = FuturesUnordered::new();
    for url in &chain.ws_urls {
        let socket = Socket {
            url: url.clone(),
            secrets: UrlSecrets::of(url),
            expected: nodes.expected(),
            timeout: chain.request_timeout,
            quiet: chain.poll_interval.saturating_mul(3).max(QUIET),
            polled: seen.clone(),
            heads: told.clone(),
        };
        tasks.push(Watched::spawn(socket.listen().instrument(spans::node(&endpoint(url.expose())))));
    }
    tasks.push(Watched::spawn(survey(nodes.clone(), chain.poll_interval)));
    tasks.push(Watched::spawn(poll(nodes, chain, told, FinalAtOnce { told: is_devnet, ..FinalAtOnce::default() })));
    let mut pushed_at = Instant::now();
    loop {
        tokio::select! {
            () = news.closed() => return Ok(()),
            Some(ended) = tasks.next() => ended?,
            Some(told) = telling.recv() => {
                if let Told::Polled(_, Ok(head)) = &told {
                    polled.send_replace(head.header.number);
                }
                news.send_modify(|now| now.take(told, &mut pushed_at));
            }
        }
    }
}

impl News {
    fn take(&mut self, told: Told, pushed_at: &mut Instant) {
        match told {
            Told::Pushed { header, continues } => {
                let known = self.head.as_ref();
                // A socket that continues below the known head is late. A socket that starts again there reports a rollback.
                if continues && known.is_some_and(|head| head.header.number > header.number) {
                    return;
                }
                *pushed_at = Instant::now();
                let finalized = known.and_then(|head| head.finalized);
                self.head = Some(Head { header, finalized });
            }
            Told::Polled(began, Ok(mut head)) => {
                self.trouble = None;
                // An answer from before a newer pushed head would look like a head that moved back.
                if let Some(known) = self.head.take()
                    && began < *pushed_at
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

/// The number of heads in a row, each final at once, after which all heads count as final at once.
const PLAIN: u32 = 3;

/// Watches for a node that calls every block final at once: BFT chains do, and devnets do although they revert such blocks.
#[derive(Debug, Default)]
struct FinalAtOnce {
    in_a_row: u32,
    last: Option<u64>,
    told: bool,
}

impl FinalAtOnce {
    /// Whether this is certain by now, and was not reported.
    fn look(&mut self, head: &Head) -> bool {
        let number = head.header.number;
        match head.finalized {
            Some(finalized) if finalized.number == number => {
                self.in_a_row += u32::from(self.last < Some(number));
                self.last = self.last.max(Some(number));
            }
            _ => self.in_a_row = 0,
        }
        let now = self.in_a_row >= PLAIN && !self.told;
        self.told |= now;
        now
    }
}

/// Asks for the head every `poll_interval`, beside the sockets: a slow answer must not delay pushed heads.
async fn poll(nodes: Arc<Nodes>, chain: Chain, told: mpsc::Sender<Told>, mut final_at_once: FinalAtOnce) {
    let mut turn = interval(chain.poll_interval);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let began = Instant::now();
        let mut answer = nodes.head().await;
        // Another working node is asked at once: a lost poll makes a head late.
        if let Err(error) = &answer
            && nodes.moves_on(error)
        {
            debug!(%error, "no head; asking another node");
            answer = nodes.head().await;
        }
        match &answer {
            Ok(head) if final_at_once.look(head) => {
                let name = &chain.name;
                warn!(
                    "the node calls each new block final at once. A devnet reverts such blocks: set \
                     chains.{name}.finality = \"never\" for it, otherwise reverted blocks stay stored. If the chain \
                     reverts no block, set chains.{name}.finality = \"instant\""
                );
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "no head"),
        }
        if told.send(Told::Polled(began, answer)).await.is_err() {
            return;
        }
    }
}

impl Nodes {
    /// Asks the nodes in reserve for their heads, if due. So the indexer knows their chain, their speed, and which node is
    /// behind. Failures are recorded.
    pub async fn survey(&self) {
        let asked = self.pool.due().into_iter().map(|node| async move {
            if let Err(error) = self.head_of(node).await {
                node.tell(|| debug!(%error, "a node in reserve fails"));
            }
        });
        join_all(asked).await;
        for (node, source, block) in self.pool.on_probation() {
            self.fetch(&source).probation(node, block).await;
        }
    }
}

/// Looks after the nodes in reserve.
async fn survey(nodes: Arc<Nodes>, poll_interval: Duration) {
    let mut turn = interval(poll_interval.max(Duration::from_secs(1)));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        nodes.survey().await;
    }
}

/// Longest pause between two attempts to subscribe.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The minimum silence of a socket while polls see newer heads. Polling replaces it meanwhile, so a new connection is not urgent,
/// and a slow socket is not worth replacing; but a replacement is cheap.
const QUIET: Duration = Duration::from_secs(10);

/// The condition for dropping a socket: silence for a while, although there are newer heads.
#[derive(Debug, Default)]
struct Silence {
    /// The number of the last header that it pushed.
    pushed: u64,
    /// The start of the time in which polls see a newer head.
    since: Option<Instant>,
}

impl Silence {
    fn pushed(&mut self, number: u64) {
        *self = Self { pushed: number, since: None };
    }

    /// `polled`: the head of the last poll. Returns how long the socket has been silent about newer heads.
    fn lasts(&mut self, polled: u64, now: Instant) -> Duration {
        if polled <= self.pushed {
            self.since = None;
        }
        match (self.since, polled > self.pushed) {
            (Some(since), _) => now.saturating_duration_since(since),
            (None, newer) => {
                self.since = newer.then_some(now);
                Duration::ZERO
            }
        }
    }
}

/// A connection that is made once. The stock connection reconnects by itself, to any node there; ours asks for the chain first.
struct Once(WsConnect);

impl PubSubConnect for Once {
    fn is_local(&self) -> bool {
        self.0.is_local()
    }

    async fn connect(&self) -> TransportResult<ConnectionHandle> {
        self.0.connect().await
    }

    async fn try_reconnect(&self) -> TransportResult<ConnectionHandle> {
        Err(TransportErrorKind::non_retryable_str("the connection ended"))
    }
}

/// Why a subscription ended.
enum End {
    /// No receiver wants heads any more.
    Unwanted,
    /// The node serves another chain.
    Refused(String),
    /// It is unavailable, or broke.
    Failed(String),
}

/// A subscription to `newHeads`, repeated.
struct Socket {
    url: Secret,
    secrets: UrlSecrets,
    /// The chain that it must serve.
    expected: Option<Identity>,
    timeout: Duration,
    /// The time that it may be silent about polled heads.
    quiet: Duration,
    /// The head of the last poll.
    polled: watch::Receiver<u64>,
    heads: mpsc::Sender<Told>,
}

impl Socket {
    async fn listen(self) {
        let fresh = || Backoff::between(Duration::from_millis(500), MAX_PAUSE);
        let mut backoff = fresh();
        loop {
            let began = Instant::now();
            match self.subscribe().await {
                End::Unwanted => return,
                End::Refused(error) => {
                    error!(error, "its heads are ignored until it serves the right chain; correct ws_urls");
                }
                End::Failed(why) => {
                    let error = self.secrets.clean(&why);
                    warn!(error, "no new heads by WebSocket; polling continues");
                }
            }
            if began.elapsed() > MAX_PAUSE {
                backoff = fresh();
            }
            backoff.pause().await;
        }
    }

    async fn subscribe(&self) -> End {
        let slow = |_| End::Failed("no answer within request_timeout".into());
        let connected = timeout(self.timeout, self.connect()).await.map_err(slow);
        // The end of the client would end the connection.
        let (mut subscription, _client) = match connected.and_then(|connected| connected) {
            Ok(connected) => connected,
            Err(end) => return end,
        };
        let mut silence = Silence { pushed: *self.polled.borrow(), since: None };
        let mut last: Option<BlockRef> = None;
        let mut look = interval(self.quiet / 10);
        loop {
            tokio::select! {
                told = subscription.recv() => {
                    let header: RpcHeader = match told {
                        Ok(header) => header,
                        Err(error) => return End::Failed(format!("the connection ended ({error})")),
                    };
                    let Some(header) = header.header() else { continue };
                    silence.pushed(header.number);
                    let continues = last.is_some_and(|last| {
                        header.number == last.number + 1 && header.parent == Some(last.hash)
                    });
                    last = Some(header.block());
                    if self.heads.send(Told::Pushed { header, continues }).await.is_err() {
                        return End::Unwanted;
                    }
                }
                _ = look.tick() => {
                    let quiet = silence.lasts(*self.polled.borrow(), Instant::now());
                    if quiet >= self.quiet {
                        return End::Failed(format!("silent for {:.0} s while polls see newer heads", quiet.as_secs_f64()));
                    }
                }
            }
        }
    }

    /// The subscription, and the client that keeps its connection open.
    async fn connect(&self) -> Result<(Subscription<RpcHeader>, RpcClient), End> {
        let failed = |error: TransportError| End::Failed(error.to_string());
        let client = RpcClient::connect_pubsub(Once(WsConnect::new(self.url.expose()))).await.map_err(failed)?;
        if let Some(expected) = self.expected {
            let chain_id: U64 = client.request("eth_chainId", ()).await.map_err(failed)?;
            let genesis = client.request("eth_getBlockByNumber", ("0x0", false));
            let genesis: Option<RpcHeader> = genesis.await.map_err(failed)?;
            let found = genesis.and_then(|header| header.hash);
            // A node without block 0 is judged by its chain id.
            if chain_id.to::<u64>() != expected.chain_id || found.is_some_and(|found| found != expected.genesis) {
                let genesis = found.map_or("unknown".into(), |hash| hash.to_string());
                return Err(End::Refused(format!("refused: it serves chain {chain_id} (genesis {genesis})")));
            }
        }
        let mut subscribe = client.request::<_, B256>("eth_subscribe", ("newHeads",));
        subscribe.set_is_subscription();
        let id = subscribe.await.map_err(failed)?;
        let frontend = client.pubsub_frontend().ok_or_else(|| failed(TransportErrorKind::pubsub_unavailable()))?;
        let subscription = frontend.get_subscription(id).await.map_err(failed)?;
        Ok((subscription.into(), client))
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    fn header(number: u64) -> Header {
        let hash = B256::repeat_byte(number as u8);
        Header { number, hash, parent: None, time: 0, bloom: None }
    }

    #[test]
    fn a_poll_overtaken_by_a_push_does_not_move_the_head_back() {
        let mut news = News::default();
        let began = Instant::now();
        let mut pushed_at = began + Duration::from_millis(1);
        news.head = Some(Head { header: header(9), finalized: None });
        let finalized = Some(header(3).block());
        let polled = |began| Told::Polled(began, Ok(Head { header: header(8), finalized }));
        news.take(polled(began), &mut pushed_at);
        let head = news.head.clone().unwrap();
        assert_eq!((head.header.number, head.finalized), (9, finalized));
        news.take(polled(pushed_at + Duration::from_millis(1)), &mut pushed_at);
        assert_eq!(news.head.unwrap().header.number, 8, "asked afterwards, the node means it");
    }

    #[test]
    fn a_node_that_calls_each_block_final_is_told_of_once() {
        let told = |heads: &[(u64, Option<u64>)]| {
            let mut watch = FinalAtOnce::default();
            let head = |(number, finalized): &(u64, Option<u64>)| Head {
                header: header(*number),
                finalized: finalized.map(|number| header(number).block()),
            };
            heads.iter().map(head).filter(|head| watch.look(head)).map(|head| head.header.number).collect::<Vec<_>>()
        };
        let all = |numbers: &[u64]| numbers.iter().map(|n| (*n, Some(*n))).collect::<Vec<_>>();
        assert_eq!(told(&all(&[1, 2, 3, 4, 2, 3, 4, 5, 6])), [3], "once");
        assert_eq!(told(&all(&[7, 7, 7, 7])), [0; 0], "one block that stands");
        assert_eq!(told(&[(1, Some(1)), (2, Some(2)), (3, Some(1)), (4, Some(4)), (5, Some(5))]), [0; 0]);
        assert_eq!(told(&[(1, None), (2, None), (3, None), (4, None)]), [0; 0], "nothing is final");
    }

    #[test]
    fn missed_repeated_and_late_pushes_do_no_harm() {
        let mut news = News::default();
        let mut pushed_at = Instant::now();
        let mut push = |number, continues| {
            news.take(Told::Pushed { header: header(number), continues }, &mut pushed_at);
            news.head.as_ref().map(|head| head.header.number)
        };
        assert_eq!(push(5, false), Some(5));
        assert_eq!(push(5, false), Some(5), "repeated");
        assert_eq!(push(9, false), Some(9), "three were missed");
        assert_eq!(push(6, true), Some(9), "a socket that is late");
        assert_eq!(push(7, false), Some(7), "a rollback");
    }

    #[test]
    fn a_socket_is_silent_only_about_what_there_is_to_tell() {
        let now = Instant::now();
        let mut silence = Silence::default();
        silence.pushed(7);
        let day = Duration::from_secs(86_400);
        assert_eq!(silence.lasts(7, now + day), Duration::ZERO, "a quiet chain");
        assert_eq!(silence.lasts(8, now + day), Duration::ZERO, "polled before it was pushed");
        assert_eq!(silence.lasts(9, now + day + QUIET), QUIET);
        silence.pushed(9);
        assert_eq!(silence.lasts(9, now + day + QUIET * 2), Duration::ZERO);
        assert_eq!(silence.lasts(12, now + day + QUIET * 3), Duration::ZERO);
        assert_eq!(silence.lasts(3, now + day + QUIET * 4), Duration::ZERO, "a rollback");
        assert_eq!(silence.lasts(12, now + day + QUIET * 5), Duration::ZERO);
    }
}
