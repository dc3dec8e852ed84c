//! How long analysts' questions over the newest rows take: while older history is loaded and the leaves are bare, and at the tip with
//! all indexes. Raw and typed rows, from a replaying node.

use std::time::{Duration, Instant};

use alloy::primitives::keccak256;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use dalp_fixtures::ReplayPlan;
use dalp_tests::indexer::Running;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::Outcome;
use super::asked::{Given, QUESTIONS};
use super::case::{Setup, caught_up, served, stop, verify, wait};
use super::latency::Delays;
use super::node::{CHAIN_ID, Node};
use super::options::Options;
use super::report::number;
use super::servers::Servers;
use super::situations::young;

/// One transfer in this number is a mint.
const MINT_EVERY: u64 = 100;
/// How often the newest rows are looked for, before the first question.
const LOOK: Duration = Duration::from_millis(100);
/// The least time from a drawn row to both ends of the newest rows, so that its hour is whole and an older page exists.
const MARGIN: TimeDelta = TimeDelta::hours(1);

/// The answers in one state of the chain.
pub struct State {
    pub name: String,
    /// In the order of [`QUESTIONS`].
    pub asked: Vec<Asked>,
    /// Events/s that were loaded meanwhile, by run; none at the tip.
    pub beside: Vec<f64>,
}

/// A question's answers.
pub struct Asked {
    pub name: &'static str,
    /// Rows of the answers, their median.
    pub rows: usize,
    pub delays: Delays,
}

/// The samples of a state.
#[derive(Default)]
struct Samples {
    /// The delay and the rows of each answer, by question.
    answers: Vec<Vec<(Duration, usize)>>,
    beside: Vec<f64>,
    /// The leaves with rows that had secondary indexes before the load was over, in any run.
    indexed: i64,
}

/// A stored row and the times around it, from which each question takes its parameters.
pub struct Drawn {
    chain: i64,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    yesterday: DateTime<Utc>,
    hour: DateTime<Utc>,
    hour_end: DateTime<Utc>,
    time: DateTime<Utc>,
    block: i64,
    log: i32,
    token: Vec<u8>,
    account: Vec<u8>,
    wallets: Vec<Vec<u8>>,
    topic0: Vec<u8>,
    topic1: Vec<u8>,
    transaction: Vec<u8>,
}

impl Drawn {
    /// The value of a parameter.
    pub fn value(&self, given: Given) -> &(dyn ToSql + Sync) {
        match given {
            Given::Chain => &self.chain,
            Given::Since => &self.since,
            Given::Until => &self.until,
            Given::Yesterday => &self.yesterday,
            Given::Hour => &self.hour,
            Given::HourEnd => &self.hour_end,
            Given::Time => &self.time,
            Given::Block => &self.block,
            Given::Log => &self.log,
            Given::Token => &self.token,
            Given::Account => &self.account,
            Given::Wallets => &self.wallets,
            Given::Topic0 => &self.topic0,
            Given::Topic1 => &self.topic1,
            Given::Transaction => &self.transaction,
        }
    }
}

/// Asks all questions while a chain of `--load-transfers` is loaded, and then at its tip, over its newest `--transfers`.
pub async fn measure(servers: &mut Servers, options: &Options) -> Outcome<Vec<State>> {
    let plan = ReplayPlan { mint_every: MINT_EVERY, ..young(&options.plan_of(options.load_transfers)) };
    let node = Node::serving("replay", &plan, Vec::new())?;
    let newest = Newest::of(&plan, options)?;
    let mut states = [(); 4].map(|()| Samples::default());
    for run in 1..=options.runs {
        let setup = Setup::of(options, true);
        let database = setup.database(servers).await?;
        let (owner, analyst) = (servers.superuser(&database).await?, Analyst::open(servers, &database).await?);
        let mut indexer = setup.site(servers, &database, &node).spawn();
        wait(&owner, &mut indexer, &newest.stored(), LOOK).await?;
        let rows = newest.draw(&owner).await?;
        let load =
            Load { gap: owner.prepare(GAP).await?, owner: &owner, events: plan.transfers() as f64 / plan.head as f64 };
        let [first, second, indexed, analyzed] = &mut states;
        let half = load.missing().await? / 2;
        first.beside(&load, &analyst, &rows, half).await?;
        owner.batch_execute(&format!("ANALYZE {TABLES}")).await?;
        second.beside(&load, &analyst, &rows, 0).await?;
        caught_up(&owner, &mut indexer, node.head.0).await?;
        served(&owner, &mut indexer, setup.indexes).await?;
        indexed.all(&analyst, &rows).await?;
        owner.batch_execute(&format!("VACUUM (ANALYZE) {TABLES}")).await?;
        analyzed.all(&analyst, &rows).await?;
        finish(&owner, &mut indexer, plan.transfers()).await?;
        eprintln!("questions, run {run}: {} and {} rounds while loading", states[0].rounds(), states[1].rounds());
    }
    let (loaded, newest) = (number(plan.transfers() as f64, 0), number(options.transfers as f64, 0));
    let names = [
        format!("while {loaded} events are loaded"),
        "while loading, tables analyzed".to_owned(),
        "at the tip, just indexed".to_owned(),
        "at the tip, vacuumed and analyzed".to_owned(),
    ];
    let named = names.into_iter().zip(states);
    Ok(named.map(|(name, samples)| samples.state(format!("over the newest {newest} events, {name}"))).collect())
}

async fn finish(owner: &Client, indexer: &mut Running, transfers: u64) -> Outcome<()> {
    stop(indexer).await?;
    verify(owner, transfers, true).await
}

/// The newest rows of a chain.
struct Newest {
    blocks: u64,
    head: u64,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    samples: usize,
}

impl Newest {
    fn of(plan: &ReplayPlan, options: &Options) -> Outcome<Self> {
        let time = |block| DateTime::from_timestamp(i64::try_from(plan.timestamp(block)).ok()?, 0);
        let (blocks, head) = (options.blocks, plan.head);
        let times = time(head - blocks + 1).zip(time(head)).ok_or("a time past all calendars")?;
        Ok(Self { blocks, head, since: times.0, until: times.1, samples: usize::try_from(options.samples)? })
    }

    /// A question that has a row when all of them are stored. Each block has rows, so each is in `blocks`.
    fn stored(&self) -> String {
        let (blocks, below) = (self.blocks, self.head - self.blocks);
        format!(
            "SELECT FROM dalp_indexed.blocks WHERE chain_id = {CHAIN_ID} AND number > {below} HAVING count(*) = {blocks}"
        )
    }

    /// Rows at random, which all questions find.
    async fn draw(&self, owner: &Client) -> Outcome<Vec<Drawn>> {
        let (chain, samples) = (i64::try_from(CHAIN_ID)?, i64::try_from(self.samples)?);
        let (first, last) = (self.since + MARGIN, self.until - MARGIN);
        let rows = owner.query(DRAW, &[&chain, &first, &last, &samples]).await?;
        let accounts: Vec<Vec<u8>> = rows.iter().map(|row| row.get(5)).collect();
        let topic0 = keccak256("Transfer(address,address,uint256)").to_vec();
        let drawn = rows.iter().enumerate().map(|(at, row)| -> Outcome<Drawn> {
            let (time, sender): (DateTime<Utc>, &[u8]) = (row.get(0), row.get(4));
            let hour = time.duration_trunc(TimeDelta::hours(1))?;
            Ok(Drawn {
                chain,
                since: self.since,
                until: self.until,
                yesterday: self.until - TimeDelta::days(1),
                hour,
                hour_end: hour + TimeDelta::hours(1),
                time,
                block: row.get(1),
                log: row.get(2),
                token: row.get(3),
                account: row.get(5),
                wallets: accounts.iter().cycle().skip(at).take(3).cloned().collect(),
                topic0: topic0.clone(),
                topic1: [&[0; 12][..], sender].concat(),
                transaction: row.get(6),
            })
        });
        let drawn: Vec<Drawn> = drawn.collect::<Outcome<_>>()?;
        if drawn.is_empty() { Err("no row can be drawn from the newest ones".into()) } else { Ok(drawn) }
    }
}

/// A connection with an analyst's rights, and the prepared questions.
struct Analyst {
    client: Client,
    statements: Vec<Statement>,
}

impl Analyst {
    async fn open(servers: &Servers, database: &str) -> Outcome<Self> {
        let client = servers.reader(database).await?;
        // So that the planner knows the times, as docs/partitions.md advises.
        client.batch_execute("SET plan_cache_mode = force_custom_plan").await?;
        let mut statements = Vec::new();
        for question in QUESTIONS {
            statements.push(client.prepare(question.sql).await?);
        }
        Ok(Self { client, statements })
    }

    /// The delay until the last row of the answer is here, and the number of rows.
    async fn ask(&self, at: usize, row: &Drawn) -> Outcome<(Duration, usize)> {
        let (question, parameters) = (&QUESTIONS[at], QUESTIONS[at].parameters(row));
        let began = Instant::now();
        let rows = self.client.query(&self.statements[at], &parameters).await;
        let delay = began.elapsed();
        match rows.map_err(|error| format!("{}: {error}", question.name))?.len() {
            0 => Err(format!("{:?} finds no row: it would measure nothing", question.name).into()),
            rows => Ok((delay, rows)),
        }
    }
}

/// A load under way.
struct Load<'a> {
    owner: &'a Client,
    gap: Statement,
    /// Events of a block.
    events: f64,
}

impl Load<'_> {
    /// Blocks that are still missing.
    async fn missing(&self) -> Outcome<i64> {
        Ok(self.owner.query_one(&self.gap, &[]).await?.get(0))
    }
}

impl Samples {
    /// Rounds of all questions until so few blocks are missing. An answer that comes later does not count.
    async fn beside(&mut self, load: &Load<'_>, analyst: &Analyst, rows: &[Drawn], end: i64) -> Outcome<()> {
        let (first, began, before) = (load.missing().await?, Instant::now(), self.rounds());
        let mut last = (first, began);
        // In turn: a question asked more often in a moment than in another one would weigh that moment more.
        'load: for row in rows.iter().cycle() {
            for at in 0..QUESTIONS.len() {
                let answer = analyst.ask(at, row).await?;
                let left = load.missing().await?;
                if left <= end {
                    break 'load;
                }
                last = (left, Instant::now());
                self.add(at, answer);
            }
        }
        if self.rounds() == before {
            return Err("the load was over before each question was asked; give it more --load-transfers".into());
        }
        let blocks = u32::try_from(first - last.0)?;
        self.indexed = self.indexed.max(load.owner.query_one(INDEXED, &[]).await?.get(0));
        self.beside.push(f64::from(blocks) * load.events / last.1.duration_since(began).as_secs_f64());
        Ok(())
    }

    /// Each question for each row.
    async fn all(&mut self, analyst: &Analyst, rows: &[Drawn]) -> Outcome<()> {
        for row in rows {
            for at in 0..QUESTIONS.len() {
                self.add(at, analyst.ask(at, row).await?);
            }
        }
        Ok(())
    }

    fn add(&mut self, at: usize, answer: (Duration, usize)) {
        self.answers.resize_with(QUESTIONS.len(), Vec::new);
        self.answers[at].push(answer);
    }

    /// How often the last question was asked.
    fn rounds(&self) -> usize {
        self.answers.last().map_or(0, Vec::len)
    }

    fn state(self, mut name: String) -> State {
        if self.indexed > 0 {
            name.push_str(&format!(" ({} leaves were indexed meanwhile)", self.indexed));
        }
        let asked = QUESTIONS.iter().zip(self.answers).map(|(question, answers)| {
            let (delays, mut rows): (Vec<Duration>, Vec<usize>) = answers.into_iter().unzip();
            rows.sort_unstable();
            Asked { name: question.name, rows: rows[rows.len() / 2], delays: Delays::of(delays) }
        });
        State { name, asked: asked.collect(), beside: self.beside }
    }
}

/// The benchmark analyzes and vacuums these itself: autovacuum, which does it within a minute or two, is asleep in the benchmarks.
const TABLES: &str = "dalp_indexed.logs, dalp_indexed.erc20_transfer";
/// Blocks that are still missing.
const GAP: &str = "SELECT gap_blocks FROM dalp_indexed.progress";
const INDEXED: &str = "SELECT count(*) FROM ( \
                         SELECT relid FROM pg_partition_tree('dalp_indexed.logs') WHERE isleaf UNION ALL \
                         SELECT relid FROM pg_partition_tree('dalp_indexed.erc20_transfer') WHERE isleaf) AS leaf \
                       WHERE pg_relation_size(relid) > 0 AND EXISTS ( \
                         SELECT FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid \
                         JOIN pg_am ON pg_am.oid = index.relam \
                         WHERE indrelid = relid AND amname = 'btree' AND indisvalid AND NOT indisprimary)";
/// Rows of random pages, in random order.
const DRAW: &str = "SELECT block_time, block_number, log_index, token, from_address, to_address, tx_hash \
                    FROM dalp_indexed.erc20_transfer TABLESAMPLE SYSTEM (2) \
                    WHERE chain_id = $1 AND block_time BETWEEN $2 AND $3 ORDER BY random() LIMIT $4";
