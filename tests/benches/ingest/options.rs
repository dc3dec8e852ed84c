//! What to measure, from the command line.

/// Said beside every refusal.
pub const USAGE: &str = "options: --smoke, --runs N, --transfers N, --blocks N, --samples N (N at least 1)";

/// Transactions of a block; they share its transfers.
pub const TXS_PER_BLOCK: u64 = 4;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether this only shows that the benchmark works.
    pub smoke: bool,
    /// How often each case is measured.
    pub runs: u64,
    /// ERC-20 transfers on the chain.
    pub transfers: u64,
    /// Blocks that they are spread over.
    pub blocks: u64,
    /// Blocks whose latency is measured.
    pub samples: u64,
}

impl Options {
    /// # Errors
    /// Which argument cannot be understood.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        // cargo adds `--bench` to whatever is given.
        let arguments: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
        let smoke = arguments.iter().any(|argument| argument == "--smoke");
        let mut options = if smoke {
            Self { smoke, runs: 1, transfers: 10_000, blocks: 100, samples: 10 }
        } else {
            Self { smoke, runs: 3, transfers: 100_000, blocks: 1_000, samples: 100 }
        };
        let mut rest = arguments.into_iter().filter(|argument| argument != "--smoke");
        while let Some(name) = rest.next() {
            let place = match name.as_str() {
                "--runs" => &mut options.runs,
                "--transfers" => &mut options.transfers,
                "--blocks" => &mut options.blocks,
                "--samples" => &mut options.samples,
                _ => return Err(format!("unknown argument {name:?}")),
            };
            let number = rest.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
            *place = number.ok_or_else(|| format!("{name} needs a number, at least 1"))?;
        }
        if !options.transfers.is_multiple_of(options.blocks * TXS_PER_BLOCK) {
            return Err(format!("--transfers must be a multiple of {TXS_PER_BLOCK} transactions in each of --blocks"));
        }
        Ok(options)
    }

    /// How to measure the same again.
    pub fn command(&self) -> String {
        let command = "cargo bench -p dalp-tests --bench ingest";
        if self.smoke {
            return format!("{command} -- --smoke");
        }
        let Self { runs, transfers, blocks, samples, .. } = self;
        format!("{command} -- --runs {runs} --transfers {transfers} --blocks {blocks} --samples {samples}")
    }
}
