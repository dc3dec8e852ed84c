//! The node that is indexed: an Anvil with a load, or a made-up chain replayed by a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use alloy::primitives::Address;
use dalp_fixtures::replay::{COUNTS, Counts};
use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Anvil, Deployed, LoadPlan, ReplayNode, ReplayPlan, Rpc, deploy, load};
use serde_json::json;

pub use super::cluster::CHAIN as CHAIN_ID;
use super::options::{Options, TXS_PER_BLOCK};
use super::{Outcome, machine};

/// The argument that makes this program a replaying node; its plan follows, as JSON.
pub const REPLAY: &str = "--replay-node";

/// A node and the content of its chain.
pub struct Node {
    /// Its kind, as a table heading.
    pub name: &'static str,
    /// Its HTTP address.
    pub url: String,
    /// Its process.
    pub pid: u32,
    /// Its newest block, and that block's Unix time in seconds.
    pub head: (u64, u64),
    /// ERC-20 transfers up to that block.
    pub transfers: u64,
    /// The watched contracts; empty for all.
    pub watched: Vec<Address>,
    kind: Kind,
}

enum Kind {
    Anvil(Box<Anvil>, Deployed),
    Replay(Child),
}

impl Node {
    /// An Anvil that emitted the load.
    pub async fn anvil(transfers: u64, blocks: u64) -> Outcome<Self> {
        let program = tools::anvil(say_stderr).await?;
        let anvil = Anvil::start(&program, LoadPlan::anvil()).await?;
        let deployed = deploy(anvil.rpc()).await?;
        let transfers_per_tx = transfers / blocks / TXS_PER_BLOCK;
        let plan = LoadPlan { blocks, txs_per_block: TXS_PER_BLOCK, transfers_per_tx, ..LoadPlan::default() };
        eprintln!("emitting {} transfers in {} blocks", plan.transfers(), plan.blocks);
        let (_, last) = load(anvil.rpc(), &deployed, &plan).await?;
        Ok(Self {
            name: "Anvil",
            url: anvil.http_url(),
            pid: machine::child_named("anvil")?,
            head: (last, plan.begin + plan.spread.as_secs()),
            transfers: plan.transfers(),
            watched: Vec::new(),
            kind: Kind::Anvil(Box::new(anvil), deployed),
        })
    }

    /// The transfers of `options` from memory.
    pub fn replay(options: &Options) -> Outcome<Self> {
        let plan = options.plan();
        match options.tokens {
            0 => Self::serving("replay", &plan, Vec::new()),
            tokens => Self::watched(&plan, u16::try_from(tokens)?),
        }
    }

    /// The chain of `plan`, but emitted by so many contracts, which are watched.
    pub fn watched(plan: &ReplayPlan, tokens: u16) -> Outcome<Self> {
        let plan = ReplayPlan { tokens, ..plan.clone() };
        Self::serving("replay", &plan, plan.addresses())
    }

    /// One transfer in each tenth block, from memory.
    pub fn sparse(options: &Options) -> Outcome<Self> {
        Self::serving("sparse replay", &ReplayPlan::sparse(options.sparse_blocks), Vec::new())
    }

    /// The chain of `plan` from memory.
    pub fn serving(name: &'static str, plan: &ReplayPlan, watched: Vec<Address>) -> Outcome<Self> {
        eprintln!("making the chain of {} transfers in {} blocks", plan.transfers(), plan.head);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(REPLAY).arg(serde_json::to_string(plan)?);
        // It ends with its standard input, after any end of ours.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut url = String::new();
        BufReader::new(child.stdout.take().ok_or("no output of the replaying node")?).read_line(&mut url)?;
        if url.is_empty() {
            return Err("the replaying node ended before it listened".into());
        }
        Ok(Self {
            name,
            url: url.trim().to_owned(),
            pid: child.id(),
            head: (plan.head, plan.timestamp(plan.head)),
            transfers: plan.transfers(),
            watched,
            kind: Kind::Replay(child),
        })
    }

    /// The Anvil and its contracts, where it is one.
    pub fn as_anvil(&self) -> Option<(&Anvil, &Deployed)> {
        match &self.kind {
            Kind::Anvil(anvil, deployed) => Some((anvil, deployed)),
            Kind::Replay(_) => None,
        }
    }

    /// The requests to it so far, if it counts them.
    pub async fn counts(&self) -> Outcome<Option<Counts>> {
        match &self.kind {
            Kind::Anvil(..) => Ok(None),
            Kind::Replay(_) => Ok(Some(Rpc::new(&self.url)?.call(COUNTS, json!([])).await?)),
        }
    }

    /// Its client version.
    pub async fn version(&self) -> Outcome<String> {
        Ok(Rpc::new(&self.url)?.call("web3_clientVersion", json!([])).await?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Kind::Replay(child) = &mut self.kind {
            // An error means that it is gone already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Is the replaying node of a plan, until standard input ends.
pub fn serve(arguments: &[String]) -> Outcome<()> {
    let plan: ReplayPlan = serde_json::from_str(arguments.first().ok_or("a plan is wanted")?)?;
    // One thread: it shares two cores with the measured programs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = ReplayNode::listen(plan, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        println!("{}", node.url());
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(())
    })
}
