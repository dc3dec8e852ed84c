//! `dalp-indexer dev`: a private devnet, indexed.

mod args;
mod artefact;
mod code;
mod discovery;
mod given;
mod project;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dalp_fixtures::contracts::{ASSET_TOKEN, IDENTITY_REGISTRY};
use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Anvil, AnvilOptions, Cluster, Deployed, Rpc, Settings, Traffic, deploy, home};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;

use super::environment::environment;
use super::failure::Failure;
use super::migrate;
use super::out::{say, tell};
use super::run::Signals;
use crate::config::{Config, kind_name};
use crate::service::Service;
use crate::status::ChainStatus;
use crate::store::connect::explain;

pub use self::args::DevArgs;
use self::discovery::{Discovery, Known};
use self::given::{CHAIN, DevNode};
use self::project::Project;

const DATABASE: &str = "dalp";
/// Owns the database: migrations and partitions.
const ADMIN: &str = "dalp_admin";
/// Writes rows, and nothing else.
const INDEXER: &str = "dalp_indexer";
/// Reads.
const ANALYST: &str = "analyst";
/// Anvil's own, and public.
const MNEMONIC: &str = "test test test test test test test test test test test junk";
/// Blocks whose transactions and logs Anvil keeps: the blocks of an hour. Otherwise its memory and its state file grow for ever,
/// the file by 60 kB per block (1,500 blocks: 91 MB; with 300 kept, 24 MB).
const KEPT_BLOCKS: u32 = 3_600;
/// Transactions a second of the sample traffic.
const TRAFFIC: u32 = 20;

/// Starts the missing programs, indexes the devnet, and stops everything on Ctrl-C.
///
/// # Errors
/// The program that could not be found, installed or started, and the next command to try.
pub async fn run(args: DevArgs, bars: MultiProgress) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut devnet = Devnet::default();
    let outcome = tokio::select! {
        outcome = devnet.live(&args, &bars) => outcome,
        () = signals.stop() => Ok(()),
    };
    bars.clear().ok();
    tell!("stopping");
    let stopping = devnet.stop().await;
    outcome.and(stopping)
}

/// The files that a run of `dev` keeps for the next one, locked against a second run.
struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Ports stay the same, so that a pasted line still works.
#[derive(Default, Serialize, Deserialize)]
struct Ports {
    postgres: Option<u16>,
    anvil: Option<u16>,
}

impl Folder {
    fn open(args: &DevArgs) -> Result<Self, Failure> {
        let home = home()?;
        let path = home.join("dev");
        let problem = |error: std::io::Error| {
            Failure::other(format!("{}: {error}; set DALP_HOME to a writable folder", path.display()))
        };
        fs::create_dir_all(&home).map_err(problem)?;
        let lock = File::create(home.join("dev.lock")).map_err(problem)?;
        if lock.try_lock().is_err() {
            return Err(Failure::other(format!(
                "another `dalp-indexer dev` uses {}: stop it, or set DALP_HOME to another folder",
                home.display()
            )));
        }
        // If both are given, none of its parts is used.
        let is_used = args.rpc_url.is_none() || args.database_url.is_none();
        if args.fresh && is_used && path.exists() {
            fs::remove_dir_all(&path).map_err(problem)?;
        }
        fs::create_dir_all(&path).map_err(problem)?;
        Ok(Self { path, _lock: lock })
    }

    fn ports(&self) -> Ports {
        let text = fs::read_to_string(self.path.join("ports.json")).unwrap_or_default();
        let ports: Ports = serde_json::from_str(&text).unwrap_or_default();
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        // The ports that wallets and tools expect, if they are free.
        let usual = |kept: Option<u16>, usual| kept.filter(free).or(Some(usual).filter(free));
        Ports { postgres: usual(ports.postgres, 5432), anvil: usual(ports.anvil, 8545) }
    }

    fn keep(&self, ports: &Ports) {
        // Their loss only costs a new port.
        if let Ok(text) = serde_json::to_string(ports) {
            fs::write(self.path.join("ports.json"), text).ok();
        }
    }

    /// Writes the configuration for the other commands. It holds passwords: no other user may read it.
    fn write_config(&self, text: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join("dalp-indexer.toml");
        let problem = |error: std::io::Error| Failure::other(format!("{}: {error}", path.display()));
        fs::remove_file(&path).ok();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(problem)?;
        file.write_all(text.as_bytes()).map_err(problem)?;
        Ok(path)
    }
}

/// The parts that this run started. Stopped in the reverse order.
#[derive(Default)]
struct Devnet {
    folder: Option<Folder>,
    cluster: Option<Cluster>,
    anvil: Option<Anvil>,
    traffic: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    service: Option<Service>,
}

/// Time for Anvil to write its state, which grows with the chain.
const DUMP_LIMIT: Duration = Duration::from_secs(120);

impl Devnet {
    /// Starts everything and shows the progress, until a part ends by itself.
    async fn live(&mut self, args: &DevArgs, bars: &MultiProgress) -> Result<(), Failure> {
        // Before anything is removed.
        let given = given::meet(args).await?;
        let mut project = args.artifacts.as_deref().map(Project::open).transpose()?;
        let folder = self.folder.insert(Folder::open(args)?);
        let (path, mut ports) = (folder.path.clone(), folder.ports());
        let database = self.database(args, &path, &mut ports).await?;
        let node = match given {
            Some(node) => node,
            None => self.node(&path, &mut ports).await?,
        };
        let deployed = self.deploy(&node).await?;
        let known = deployed.as_ref().map_or_else(|| Ok(Known::default()), |deployed| samples(&path, deployed))?;
        if let Some(project) = &mut project {
            // The versions of this very chain.
            project.keep_in(path.join("artefacts").join(&alloy::hex::encode(node.genesis)[..16]))?;
        }
        let rpc = node.ours.clone().map_or_else(|| Rpc::new(&node.url), Ok)?;
        let mut discovery = Discovery::new(project, rpc, node.chain_id, known);
        let text = config_text(&database, &node);
        let file = self.keep(&ports, &format!("{text}{}", discovery.sections()))?;
        let mut config = load(&file)?;
        tell!("making the tables");
        migrate::apply(&config).await?;
        if let Some(cluster) = &mut self.cluster {
            admit(cluster).await?;
        }
        given::same_chain(&config, args, &node).await?;
        // A database that is not ours is kept; another chain under this id in it is removed.
        config.chains.iter_mut().for_each(|chain| chain.reset_on_chain_change = args.fresh);
        self.send_traffic(&node, deployed.as_ref());
        tell!("starting the indexer");
        let mut service = Service::start(&config).await?;
        announce(&database, &node, deployed.as_ref(), &service, &file)?;
        loop {
            let running = self.service.insert(service);
            let lines = show(running.status(), bars.clone());
            tokio::select! {
                error = running.failed() => return Err(error.into()),
                error = died(self.cluster.as_mut().map(Cluster::died)) => return Err(error),
                error = died(self.anvil.as_mut().map(Anvil::died)) => return Err(error),
                shown = lines => return shown,
                () = discovery.found(&config) => {}
            }
            config = self.started_again(&ports, &format!("{text}{}", discovery.sections()), &config).await?;
            service = Service::start(&config).await?;
        }
    }

    /// Stops the service, for the configuration with more contracts.
    async fn started_again(&mut self, ports: &Ports, text: &str, before: &Config) -> Result<Config, Failure> {
        tell!("new contracts of the project: their events get tables, and their stored logs rows");
        let mut config = load(&self.keep(ports, text)?)?;
        // The next service answers at the same address.
        config.http = before.http.clone();
        if let Some(service) = self.service.take() {
            config.http.listen = service.http().or(config.http.listen);
            service.stop().await;
        }
        Ok(config)
    }

    /// Leaves the ports and the configuration for the next run and the other commands.
    fn keep(&self, ports: &Ports, config: &str) -> Result<PathBuf, Failure> {
        let folder = self.folder.as_ref().ok_or_else(|| Failure::other("the devnet has no folder"))?;
        folder.keep(ports);
        folder.write_config(config)
    }

    async fn database(&mut self, args: &DevArgs, path: &Path, ports: &mut Ports) -> Result<DevDatabase, Failure> {
        if let Some(url) = &args.database_url {
            return Ok(DevDatabase {
                url: url.clone(),
                admin_url: url.clone(),
                reader_url: url.clone(),
                psql: "(yours)".into(),
            });
        }
        tell!("looking for PostgreSQL");
        let tools = tools::postgres(say_stderr).await?;
        let mut settings = Settings::devnet();
        settings.port = ports.postgres;
        tell!("starting PostgreSQL {} ({})", tools.major, tools.bin.display());
        let cluster = Cluster::start(&tools, &path.join("postgresql"), settings).await?;
        tell!("PostgreSQL {} listens on port {}", tools.major, cluster.port());
        ports.postgres = Some(cluster.port());
        let cluster = self.cluster.insert(cluster);
        create_logins(cluster).await?;
        Ok(DevDatabase {
            url: cluster.url(DATABASE, INDEXER),
            admin_url: cluster.url(DATABASE, ADMIN),
            reader_url: cluster.url(DATABASE, ANALYST),
            psql: cluster.psql_line(DATABASE, ANALYST),
        })
    }

    async fn node(&mut self, path: &Path, ports: &mut Ports) -> Result<DevNode, Failure> {
        let options = AnvilOptions {
            port: ports.anvil,
            block_time: Some(Duration::from_secs(1)),
            state: Some(path.join("chain.json")),
            extra: vec!["--transaction-block-keeper".into(), KEPT_BLOCKS.to_string().into()],
            ..AnvilOptions::default()
        };
        let chain_id = options.chain_id;
        let program = tools::anvil(say_stderr).await?;
        tell!("starting Anvil ({})", program.display());
        let anvil = Anvil::start(&program, options).await?;
        tell!("Anvil listens on port {}", anvil.port());
        ports.anvil = Some(anvil.port());
        let genesis = anvil.rpc().block_hash(0).await?;
        let genesis = genesis.ok_or_else(|| Failure::other("Anvil has no block 0: run `dalp-indexer dev --fresh`"))?;
        let (url, ws_url) = (anvil.http_url(), Some(anvil.ws_url()));
        let node = DevNode { url, ws_url, chain_id, genesis, start_block: 0, ours: Some(anvil.rpc().clone()) };
        if anvil.lost_blocks() {
            tell!("note: Anvil was killed before it saved its state; the blocks since its last save are lost");
        }
        self.anvil = Some(anvil);
        Ok(node)
    }

    async fn deploy(&mut self, node: &DevNode) -> Result<Option<Deployed>, Failure> {
        let Some(rpc) = &node.ours else { return Ok(None) };
        tell!("deploying the sample contracts");
        Ok(Some(deploy(rpc).await?))
    }

    fn send_traffic(&mut self, node: &DevNode, deployed: Option<&Deployed>) {
        let (Some(rpc), Some(deployed)) = (node.ours.clone(), deployed.cloned()) else { return };
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let stop = async move { _ = stopped.wait_for(|stop| *stop).await };
            Traffic::run(&rpc, &deployed, TRAFFIC, stop).await;
        });
        self.traffic = Some((stop, task));
    }

    /// Traffic, indexer, node, database: no part runs without the parts that it needs.
    async fn stop(self) -> Result<(), Failure> {
        if let Some((stop, task)) = self.traffic {
            stop.send(true).ok();
            task.await.ok();
        }
        if let Some(service) = self.service {
            service.stop().await;
        }
        let anvil = match self.anvil {
            Some(anvil) => anvil.stop(DUMP_LIMIT).await,
            None => Ok(()),
        };
        let cluster = match self.cluster {
            Some(cluster) => cluster.stop().await,
            None => Ok(()),
        };
        Ok(anvil.and(cluster)?)
    }
}

struct DevDatabase {
    url: String,
    admin_url: String,
    reader_url: String,
    psql: String,
}

fn config_text(database: &DevDatabase, node: &DevNode) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let mut config = format!(
        "# Written by `dalp-indexer dev` at each start.\n[database]\nurl = {}\nadmin_url = {}\nreader_url = \
         {}\n\n[http]\nlisten = \"{}\"\n\n[chains.{CHAIN}]\nchain_id = {}\nrpc_urls = [{}]\nstart_block = {}\nfinality = \
         \"never\"\npoll_interval = \"250ms\"\n",
        text(&database.url),
        text(&database.admin_url),
        text(&database.reader_url),
        http_address(),
        node.chain_id,
        text(&node.url),
        node.start_block,
    );
    if let Some(url) = &node.ws_url {
        // Writing to a String cannot fail.
        let _ = writeln!(config, "ws_urls = [{}]", text(url));
    }
    config
}

/// The sample contracts, whose ABIs are written into the folder.
fn samples(folder: &Path, deployed: &Deployed) -> Result<Known, Failure> {
    let folder = folder.join("abi");
    let problem = |error: std::io::Error| Failure::other(format!("{}: {error}", folder.display()));
    fs::create_dir_all(&folder).map_err(problem)?;
    let mut known = Known::default();
    for (name, artefact, addresses) in [
        ("AssetToken", ASSET_TOKEN, &deployed.tokens[..]),
        ("IdentityRegistry", IDENTITY_REGISTRY, &[deployed.identities]),
    ] {
        let path = folder.join(format!("{name}.json"));
        fs::write(&path, artefact).map_err(problem)?;
        for address in addresses {
            known.add(&kind_name(&path), path.clone(), *address);
        }
    }
    Ok(known)
}

/// The usual address if it is free, otherwise any free port.
fn http_address() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    if TcpListener::bind(usual).is_ok() { usual } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}

/// The environment overrides the file as everywhere, but a deployment's database or chains must not leak in here.
fn load(file: &Path) -> Result<Config, Failure> {
    let ours = |name: &str| {
        ["DALP_DATABASE__", "DALP_CHAINS__", "DALP_CONTRACTS__"].iter().any(|prefix| name.starts_with(prefix))
    };
    Ok(Config::load(Some(file), environment().filter(|(name, _)| !ours(name)))?)
}

async fn superuser(cluster: &Cluster) -> Result<tokio_postgres::Client, Failure> {
    let (client, connection) = cluster.superuser_config().connect(tokio_postgres::NoTls).await.map_err(failed)?;
    tokio::spawn(connection);
    Ok(client)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: tokio_postgres::Error) -> Failure {
    Failure::other(format!("setting up the devnet's database: {}", explain(&error)))
}

/// One login per duty, and the database.
async fn create_logins(cluster: &mut Cluster) -> Result<(), Failure> {
    let client = superuser(cluster).await?;
    for (user, rights) in [(ADMIN, "CREATEROLE"), (INDEXER, ""), (ANALYST, "")] {
        let password = cluster.password(user)?.unwrap_or_default();
        let known = client
            .query_typed_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[(&user, Type::TEXT)])
            .await
            .map_err(failed)?;
        let verb = if known.is_some() { "ALTER" } else { "CREATE" };
        // The names are our constants; the password is hexadecimal, and never logged: log_statement is off.
        let sql = format!("{verb} ROLE {user} LOGIN {rights} PASSWORD '{}'", password.replace('\'', "''"));
        client.batch_execute(&sql).await.map_err(failed)?;
    }
    let known = client
        .query_typed_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[(&DATABASE, Type::TEXT)])
        .await
        .map_err(failed)?;
    if known.is_none() {
        client.batch_execute(&format!("CREATE DATABASE {DATABASE} OWNER {ADMIN}")).await.map_err(failed)?;
    }
    Ok(())
}

/// Adds the logins to the groups that the migrations made.
async fn admit(cluster: &Cluster) -> Result<(), Failure> {
    let client = superuser(cluster).await?;
    let sql = format!(
        "GRANT dalp_writer TO {INDEXER}; GRANT dalp_reader TO {ANALYST}; \
         ALTER ROLE {ANALYST} IN DATABASE {DATABASE} SET search_path = dalp_indexed, \"$user\", public"
    );
    client.batch_execute(&sql).await.map_err(failed)
}

fn announce(
    database: &DevDatabase,
    node: &DevNode,
    deployed: Option<&Deployed>,
    service: &Service,
    file: &Path,
) -> Result<(), Failure> {
    let http = service.http().map_or("off".into(), |address| format!("http://{address}/status"));
    say!("\n  SQL   {}", database.psql)?;
    say!("        dalp-indexer sql --config {}", file.display())?;
    say!("  RPC   {}", if node.ours.is_some() { &node.url } else { "(yours)" })?;
    say!("  HTTP  {http}")?;
    if let Some(Deployed { tokens: [bond, fund], identities, burst, agents, .. }) = deployed {
        say!("\n  contracts  bond {bond}  fund {fund}\n             identities {identities}  burst {burst}")?;
        let shown: Vec<String> = agents.iter().take(3).map(ToString::to_string).collect();
        say!(
            "  accounts   {} and {} more, of the mnemonic \"{MNEMONIC}\"",
            shown.join(" "),
            agents.len().saturating_sub(3)
        )?;
    }
    say!("\nCtrl-C stops everything; the next start continues, `--fresh` starts with an empty chain.\n")
}

/// One live line per chain on a terminal; otherwise a line every five seconds.
async fn show(mut status: watch::Receiver<Vec<ChainStatus>>, bars: MultiProgress) -> Result<(), Failure> {
    if !std::io::stderr().is_terminal() {
        let mut turn = tokio::time::interval(Duration::from_secs(5));
        loop {
            turn.tick().await;
            for chain in status.borrow().iter() {
                say!("{}", line(chain))?;
            }
        }
    }
    let style =
        ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let chains = status.borrow().len();
    let shown: Vec<ProgressBar> =
        (0..chains).map(|_| bars.add(ProgressBar::new_spinner().with_style(style.clone()))).collect();
    while status.changed().await.is_ok() {
        for (bar, chain) in shown.iter().zip(status.borrow_and_update().iter()) {
            bar.set_message(line(chain));
            bar.tick();
        }
        // A faster refresh is invisible.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn line(chain: &ChainStatus) -> String {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    format!(
        "{}  head {}  finalized {}  tail {}  lag {} blocks, {:.1} s  {:.1} events/s  {} leaves  waits for {}",
        chain.name,
        number(chain.head),
        number(chain.finalized),
        number(chain.tail),
        number(chain.lag_blocks),
        chain.lag_seconds.unwrap_or(0.0),
        chain.events_per_second,
        chain.leaves,
        chain
            .catching_up
            .map_or_else(|| chain.waits_for.clone(), |progress| format!("{}: {progress}", chain.waits_for)),
    )
}

/// The end of a child, if there is a child.
async fn died(child: Option<impl Future<Output = dalp_fixtures::Error>>) -> Failure {
    match child {
        Some(child) => child.await.into(),
        None => std::future::pending().await,
    }
}

impl From<dalp_fixtures::Error> for Failure {
    fn from(error: dalp_fixtures::Error) -> Self {
        Self::other(error.to_string())
    }
}
