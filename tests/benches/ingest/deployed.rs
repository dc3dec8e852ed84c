//! The same load into the database as it is deployed: a synchronous standby, TLS verified in full, a pooler in transaction mode.

use super::Outcome;
use super::case::{Ingest, Setup, ingest};
use super::node::Node;
use super::options::{Indexes, Options};
use super::servers::{Deployment, Servers};

const PLAIN: Deployment = Deployment { standby: false, tls: false, pooler: false };
const DEPLOYMENTS: [(&str, Deployment); 5] = [
    ("plain", PLAIN),
    ("synchronous standby", Deployment { standby: true, ..PLAIN }),
    ("TLS", Deployment { tls: true, ..PLAIN }),
    ("PgBouncer", Deployment { pooler: true, ..PLAIN }),
    ("all three", Deployment { standby: true, tls: true, pooler: true }),
];

/// One deployment's runs.
pub struct Deployed {
    pub name: &'static str,
    pub runs: Vec<Beside>,
}

/// A run, and the rate of the plain server in the same round.
pub struct Beside {
    pub ingest: Ingest,
    pub plain: f64,
}

/// Indexes the chain of the replaying node, raw and typed, in rounds over all deployments.
pub async fn measure(options: &Options) -> Outcome<Vec<Deployed>> {
    let node = Node::replay(options)?;
    let setup = Setup { indexes: Indexes::Shipped, ..Setup::of(options, true) };
    let mut all = Vec::new();
    for (name, deployment) in DEPLOYMENTS {
        all.push((Servers::deploy(deployment).await?, Deployed { name, runs: Vec::new() }));
    }
    for round in 1..=options.runs {
        let mut plain = None;
        for (servers, deployed) in &mut all {
            let database = setup.database(servers).await?;
            let ingest = ingest(servers, &node, &database, setup).await?;
            eprintln!("deployed, {}, run {round}: {:.0} events/s", deployed.name, ingest.rate());
            let plain = *plain.get_or_insert(ingest.rate());
            deployed.runs.push(Beside { ingest, plain });
        }
    }
    let mut measured = Vec::new();
    for (servers, deployed) in all {
        servers.stop().await?;
        measured.push(deployed);
    }
    Ok(measured)
}
