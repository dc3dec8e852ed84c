//! The selected measurements, from the command line.

use std::path::PathBuf;

use dalp_fixtures::ReplayPlan;

/// Said beside every refusal.
pub const USAGE: &str = "options: --smoke, --part ingest|young|outage|midnight|busy-day|devnet|cost|sparse|indexes|scale|deployed|latency|questions|stages, \
                         --node anvil|replay, --raw true|false, --indexes shipped|kept|built|none, --writers N, --runs N, \
                         --transfers N, --blocks N, --sparse-blocks N, --scale-transfers N, --load-transfers N, --tokens N, \
                         --samples N, --program FILE, --write FILE (N at least 1; without a choice, all that is published)";

/// The parts that can be measured alone.
const PARTS: &[&str] = &[
    "ingest",
    "young",
    "outage",
    "midnight",
    "busy-day",
    "devnet",
    "cost",
    "sparse",
    "indexes",
    "scale",
    "deployed",
    "latency",
    "questions",
    "stages",
];

/// Transactions of a block; they share its transfers.
pub const TXS_PER_BLOCK: u64 = 4;

/// Which secondary indexes the leaves have, beside key and BRIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// None while loading; then those of the shipped configuration are built.
    Shipped,
    /// Two on each table, from the first row on: the address with the time, and the transaction's hash.
    Kept,
    /// None while loading; then those two are built.
    Built,
    /// None.
    None,
}

/// The selected measurements.
#[derive(Clone, Debug)]
pub struct Options {
    parts: Vec<String>,
    nodes: Vec<String>,
    raws: Vec<bool>,
    /// Of all cases.
    pub indexes: Indexes,
    /// `write_parallelism`, where not as shipped; twice as many workers.
    pub writers: Option<u64>,
    /// How often each case is measured.
    pub runs: u64,
    /// ERC-20 transfers on the chain.
    pub transfers: u64,
    /// Blocks that they are spread over.
    pub blocks: u64,
    /// Blocks of the sparse chain.
    pub sparse_blocks: u64,
    /// ERC-20 transfers of the chain that is ten times longer.
    pub scale_transfers: u64,
    /// ERC-20 transfers that are loaded while latency and questions are measured.
    pub load_transfers: u64,
    /// Contracts that the replayed chain has and that are watched; 0: all are indexed, without a filter.
    pub tokens: u64,
    /// Blocks whose latency is measured, at each rate; and how often each question is asked at the tip, in each run.
    pub samples: u64,
    /// The measured program, where it is not the one built beside this benchmark.
    pub program: Option<PathBuf>,
    /// Where the report goes, beside standard output.
    pub write: Option<PathBuf>,
    /// The arguments as they were given.
    given: Vec<String>,
}

impl Options {
    /// # Errors
    /// Which argument cannot be understood.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        // cargo adds `--bench` to all arguments.
        let given: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
        let smoke = given.iter().any(|argument| argument == "--smoke");
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<String>>();
        let mut options = Self {
            parts: list(if smoke { &["ingest"] } else { PARTS }),
            nodes: list(if smoke { &["replay"] } else { &["anvil", "replay"] }),
            raws: vec![true, false],
            indexes: Indexes::Shipped,
            writers: None,
            runs: 3,
            transfers: if smoke { 100_000 } else { 1_000_000 },
            blocks: if smoke { 1_000 } else { 10_000 },
            sparse_blocks: 1_000_000,
            scale_transfers: 10_000_000,
            load_transfers: 3_000_000,
            tokens: 0,
            samples: 200,
            program: None,
            write: None,
            given: given.clone(),
        };
        let mut rest = given.into_iter().filter(|argument| argument != "--smoke");
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
            options.set(&name, &value)?;
        }
        if !options.transfers.is_multiple_of(options.blocks * TXS_PER_BLOCK) {
            return Err(format!("--transfers must be a multiple of {TXS_PER_BLOCK} transactions in each of --blocks"));
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse().ok().filter(|n: &u64| *n > 0).ok_or(format!("{name} needs a number, at least 1"));
        let one_of = |allowed: &[&str]| match allowed.contains(&value) {
            true => Ok(vec![value.to_owned()]),
            false => Err(format!("{name} is one of {allowed:?}, not {value:?}")),
        };
        match name {
            "--part" => self.parts = one_of(PARTS)?,
            "--node" => self.nodes = one_of(&["anvil", "replay"])?,
            "--raw" => self.raws = one_of(&["true", "false"])?.iter().map(|raw| raw == "true").collect(),
            "--indexes" => {
                self.indexes = match one_of(&["shipped", "kept", "built", "none"])?.concat().as_str() {
                    "shipped" => Indexes::Shipped,
                    "kept" => Indexes::Kept,
                    "built" => Indexes::Built,
                    _ => Indexes::None,
                }
            }
            "--writers" => self.writers = Some(number()?),
            "--runs" => self.runs = number()?,
            "--transfers" => self.transfers = number()?,
            "--blocks" => self.blocks = number()?,
            "--sparse-blocks" => self.sparse_blocks = number()?,
            "--scale-transfers" => self.scale_transfers = number()?,
            "--load-transfers" => self.load_transfers = number()?,
            "--tokens" => self.tokens = number()?,
            "--samples" => self.samples = number()?,
            "--program" => self.program = Some(value.into()),
            "--write" => self.write = Some(value.into()),
            _ => return Err(format!("unknown argument {name:?}")),
        }
        Ok(())
    }

    /// Whether this part is measured.
    pub fn has_part(&self, part: &str) -> bool {
        self.parts.iter().any(|given| given == part)
    }

    /// Whether this node is measured.
    pub fn has_node(&self, node: &str) -> bool {
        self.nodes.iter().any(|given| given == node)
    }

    /// With raw logs, without, or both.
    pub fn raws(&self) -> &[bool] {
        &self.raws
    }

    /// The chain of the replaying node.
    pub fn plan(&self) -> ReplayPlan {
        ReplayPlan::dense(self.transfers, self.blocks)
    }

    /// That chain, so much longer in blocks and days that it has about `transfers`.
    pub fn plan_of(&self, transfers: u64) -> ReplayPlan {
        let (plan, factor) = (self.plan(), transfers.div_ceil(self.transfers));
        ReplayPlan { head: plan.head * factor, ..plan.clone() }
            .over(plan.spread * u32::try_from(factor).unwrap_or(u32::MAX))
    }

    /// How to measure the same again.
    pub fn command(&self) -> String {
        let separator = if self.given.is_empty() { "" } else { " -- " };
        format!("cargo bench -p dalp-tests --bench ingest{separator}{}", self.given.join(" "))
    }
}
