//! The effect of database size on a load's rate: rows, leaves, watched addresses and writers. Typed rows only, from the replaying
//! node, with key and BRIN alone: indexes built beside the load would look like an effect of size.

use std::time::{Duration, Instant};

use dalp_fixtures::ReplayPlan;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::Outcome;
use super::case::{Setup, ingest};
use super::node::Node;
use super::options::{Indexes, Options};
use super::report::number;
use super::servers::Servers;

/// Leaves that each table has already, of other days.
const LEAVES: u16 = 1_000;
/// Watched addresses, all of which emit.
const ADDRESSES: u16 = 1_000;
const WRITERS: [u64; 3] = [1, 2, 4];
/// How often the gap of a long load is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A rate, and the one that it is held against.
pub struct Rate {
    pub name: String,
    /// Events/s, by round.
    pub rates: Vec<f64>,
    pub against: Option<Against>,
}

/// The other one.
pub struct Against {
    pub name: String,
    /// Percent that the rate reaches of it, by round.
    pub percent: Vec<f64>,
    /// Its target.
    pub bar: u32,
}

/// A case, and which other one it is held against, with the bar.
struct Case<'a> {
    name: String,
    node: &'a Node,
    setup: Setup,
    against: Option<(usize, u32)>,
}

/// Measures all of it, on a server of its own: the databases of the other parts would fill the disk.
pub async fn measure(options: &Options) -> Outcome<Vec<Rate>> {
    let mut servers = Servers::start().await?;
    let mut all = rows(&mut servers, options).await?;
    all.extend(cases(&mut servers, options).await?);
    servers.stop().await?;
    Ok(all)
}

/// All other cases, in rounds, so that compared cases were measured side by side.
async fn cases(servers: &mut Servers, options: &Options) -> Outcome<Vec<Rate>> {
    let plan = options.plan();
    let (plain, setup) = (Node::replay(options)?, setup());
    let [one, many] = [Node::watched(&plan, 1)?, Node::watched(&plan, ADDRESSES)?];
    let case = |name: String, node, setup, against| Case { name, node, setup, against };
    let (leaves, addresses) = (number(f64::from(LEAVES), 0), number(f64::from(ADDRESSES), 0));
    let mut cases = vec![
        case(chain(&plan), &plain, setup, None),
        case(
            format!("the same beside {leaves} leaves of other days"),
            &plain,
            Setup { leaves: LEAVES, ..setup },
            Some((0, 95)),
        ),
        case("the same into leaves that stand".into(), &plain, Setup { standing: true, ..setup }, None),
        case(
            format!("into leaves that stand, beside {leaves} others"),
            &plain,
            Setup { leaves: LEAVES, standing: true, ..setup },
            Some((2, 95)),
        ),
        case("1 address watched".into(), &one, setup, None),
        case(format!("{addresses} addresses watched, all of which emit"), &many, setup, Some((4, 80))),
    ];
    for writers in WRITERS {
        let name = format!("`write_parallelism = {writers}`, `backfill_workers = {}`", 2 * writers);
        cases.push(case(name, &plain, Setup { writers: Some(writers), ..setup }, None));
    }
    let mut rates = vec![Vec::new(); cases.len()];
    for round in 1..=options.runs {
        for (case, rates) in cases.iter().zip(&mut rates) {
            let database = case.setup.database(servers).await?;
            let rate = ingest(servers, case.node, &database, case.setup).await?.rate();
            eprintln!("scale, {}, run {round}: {rate:.0} events/s", case.name);
            rates.push(rate);
        }
    }
    let mut all = Vec::new();
    for (case, own) in cases.iter().zip(&rates) {
        let held = case.against.and_then(|(at, bar)| Some((cases.get(at)?, rates.get(at)?, bar)));
        let against = held.map(|(other, others, bar)| against(own, &other.name, others, bar));
        all.push(Rate { name: case.name.clone(), rates: own.clone(), against });
    }
    Ok(all)
}

fn chain(plan: &ReplayPlan) -> String {
    format!("{} events over {} days", number(plan.transfers() as f64, 0), plan.spread.as_secs() / 86_400)
}

fn setup() -> Setup {
    Setup { raw: false, indexes: Indexes::None, writers: None, leaves: 0, standing: false, devnet: false }
}

fn against(rates: &[f64], name: &str, others: &[f64], bar: u32) -> Against {
    let percent = rates.iter().zip(others).map(|(rate, other)| 100.0 * rate / other).collect();
    Against { name: name.to_owned(), percent, bar }
}

/// The first and the last tenth of a long load.
async fn rows(servers: &mut Servers, options: &Options) -> Outcome<Vec<Rate>> {
    let plan = options.plan_of(options.scale_transfers);
    let node = Node::serving("replay", &plan, Vec::new())?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for round in 1..=options.runs {
        let setup = setup();
        let database = setup.database(servers).await?;
        let watch = Watch::start(servers.superuser(&database).await?);
        let ingest = ingest(servers, &node, &database, setup).await?;
        let [begin, end] = watch.stop().await?.tenths().ok_or("the load was over before it was looked at")?;
        let events = plan.transfers() as f64 / plan.head as f64;
        let [begin, end] = [begin * events, end * events];
        eprintln!("scale, run {round}: {:.0} events/s, at first {begin:.0}, at last {end:.0}", ingest.rate());
        first.push(begin);
        last.push(end);
    }
    let name = format!("first tenth of {}", chain(&plan));
    let against = against(&last, "first tenth", &first, 95);
    Ok(vec![
        Rate { name, rates: first, against: None },
        Rate { name: "last tenth of the same".into(), rates: last, against: Some(against) },
    ])
}

/// Looks at the gap until it is stopped.
struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Outcome<Gaps>>,
}

/// When how many blocks were missing.
struct Gaps(Vec<(Instant, i64)>);

impl Watch {
    fn start(client: Client) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (question, mut gaps) = (client.prepare(GAP).await?, Vec::new());
            loop {
                let last = stopped.try_recv().is_ok();
                if let Some(row) = client.query_opt(&question, &[]).await? {
                    gaps.push((Instant::now(), row.get(0)));
                }
                if last {
                    return Ok(Gaps(gaps));
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { stop, task }
    }

    async fn stop(self) -> Outcome<Gaps> {
        // It is gone where it failed, and says why below.
        self.stop.send(()).ok();
        self.task.await?
    }
}

impl Gaps {
    /// Blocks/s of the first and the last tenth of history. The first begins with the first commit, so start-up is left out.
    fn tenths(&self) -> Option<[f64; 2]> {
        let all = self.0.iter().map(|(_, gap)| *gap).max()?;
        let peak = self.0.iter().rposition(|(_, gap)| *gap == all)?;
        let falling = self.0.get(peak + 1..)?;
        let below = |gap: i64| falling.iter().find(|(_, now)| *now <= gap);
        let rate = |from: &(Instant, i64), to: &(Instant, i64)| {
            let seconds = to.0.duration_since(from.0).as_secs_f64();
            (seconds > 0.0).then(|| (from.1 - to.1) as f64 / seconds)
        };
        Some([rate(falling.first()?, below(all * 9 / 10)?)?, rate(below(all / 10)?, below(0)?)?])
    }
}

const GAP: &str = "SELECT gap_blocks FROM dalp_indexed.progress WHERE tail_number IS NOT NULL";
