//! The requests to a node: HTTP requests, and the calls in them. Each step is separate, because the speed of a node decides how
//! much of a range is requested at once: here ranges are the first ones of a node, or so wide that they are requested as a whole.

use std::net::SocketAddr;

use dalp_fixtures::{ReplayNode, ReplayPlan};
use dalp_indexer::chain::block::BlockRange;
use dalp_indexer::chain::source::Source;
use dalp_indexer::nodes::Nodes;
use dalp_tests::counts::Counts;
use dalp_tests::indexer::Site;

use super::Outcome;

/// Blocks near the head that are fetched at once.
const NEAR: u64 = 8;

/// Measures all steps at a dense and at a sparse chain.
pub async fn measure() -> Outcome<Counts> {
    let mut counts = Counts::default();
    let dense = Asked::at(ReplayPlan::dense(8_000, 400)).await?;
    dense.near_head(&mut counts, "auto").await?;
    dense.near_head(&mut counts, "bloom").await?;
    for level in ["auto", "returned", "linked", "receipts"] {
        let what = format!("a dense range of 100 blocks, verify = {level}");
        dense.range(&mut counts, &what, level, BlockRange { first: 101, last: 200 }).await?;
    }
    let sparse = Asked::at(ReplayPlan::sparse(12_000)).await?;
    let what = "a sparse range of 10,000 blocks, verify = auto";
    sparse.range(&mut counts, what, "auto", BlockRange { first: 1, last: 10_000 }).await?;
    Ok(counts)
}

/// A node that is asked.
struct Asked {
    node: ReplayNode,
    head: u64,
}

impl Asked {
    async fn at(plan: ReplayPlan) -> Outcome<Self> {
        let head = plan.head;
        Ok(Self { node: ReplayNode::listen(plan, SocketAddr::from(([127, 0, 0, 1], 0))).await?, head })
    }

    /// The node, with its known chain and level of proof.
    async fn nodes(&self, verify: &str) -> Outcome<Nodes> {
        let site = Site {
            url: "postgres://localhost/none".into(),
            admin_url: "postgres://localhost/none".into(),
            reader_url: "postgres://localhost/none".into(),
            rpc_urls: vec![self.node.url()],
            chain_id: 31_337,
            chain: "bench".into(),
            database_lines: Vec::new(),
            chain_lines: vec![format!("verify = {verify:?}")],
            made_up: false,
            more: String::new(),
        };
        let config = site.config();
        let nodes = Nodes::new(config.chains.first().ok_or("no chain is configured")?)?;
        nodes.identity().await?;
        nodes.best_level().await?;
        Ok(nodes)
    }

    async fn count<T, E>(&self, counts: &mut Counts, what: &str, step: impl Future<Output = Result<T, E>>) -> Outcome<T>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let before = self.node.counts();
        let done = step.await?;
        let now = self.node.counts();
        counts.put(format!("{what}: requests"), (now.requests - before.requests) as f64);
        counts.put(format!("{what}: calls"), (now.calls - before.calls) as f64);
        Ok(done)
    }

    async fn near_head(&self, counts: &mut Counts, verify: &str) -> Outcome<()> {
        let nodes = self.nodes(verify).await?;
        let head = self.count(counts, &format!("the head, verify = {verify}"), nodes.head()).await?;
        let source = Source::default();
        let block = nodes.block(&source, head.header.block());
        self.count(counts, &format!("the head's block, verify = {verify}"), block).await?;
        let range = BlockRange { first: self.head - NEAR + 1, last: self.head };
        let what = format!("{NEAR} blocks near the head, verify = {verify}");
        self.count(counts, &what, nodes.near_head(&source, range)).await?;
        Ok(())
    }

    async fn range(&self, counts: &mut Counts, what: &str, verify: &str, range: BlockRange) -> Outcome<()> {
        let nodes = self.nodes(verify).await?;
        self.count(counts, what, nodes.range(&Source::default(), range)).await?;
        Ok(())
    }
}
