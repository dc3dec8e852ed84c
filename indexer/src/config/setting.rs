//! The one table of settings. Environment names, checks, suggestions, the example and the reference come from it.

use std::collections::{BTreeMap, BTreeSet};

use super::kind::{Kind, MAX_INT};
use super::value::{self, Action, Index, Interval, TlsMode, Verify};
use crate::dataset::{Dataset, Datasets};

/// One setting.
pub(super) struct Setting {
    /// Its dotted key; `*` stands for the name of a chain.
    pub path: &'static str,
    pub kind: Kind,
    /// Whether it holds a list of values of its kind.
    pub many: bool,
    pub default: Default,
    /// What it is, in one line.
    pub help: &'static str,
    /// Why the default is what it is, or when to change it.
    pub reason: &'static str,
}

/// What a setting is where nobody sets it.
pub(super) enum Default {
    /// This text (of a list: its items, separated by commas; empty for none).
    Value(&'static str),
    /// What that other setting is.
    Same(&'static str),
    /// It must be set; the example shows this.
    Required(&'static str),
    /// Nothing; the example shows this.
    Unset(&'static str),
    /// The indexes that the table's description names.
    OfDataset,
}

/// Among the names of sections, those of the tables of chains.
pub(super) const DATASETS: &str = "indexes";

/// The names that sections such as `[chains.NAME]` and `[tables.NAME]` have been given.
pub(super) type Named = BTreeMap<&'static str, BTreeSet<String>>;

/// The section of this name, if those below it have names of one's own.
pub(super) fn named_section(name: &str) -> Option<&'static str> {
    let sections = SETTINGS.iter().filter_map(|setting| setting.path.split_once(".*.").map(|(section, _)| section));
    sections.into_iter().find(|section| *section == name)
}

/// Finds the setting of a key, whose chain's or table's name may be any.
pub(super) fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| {
        let mut parts = path.split('.');
        setting.path.split('.').all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
            && parts.next().is_none()
    })
}

impl Setting {
    /// The keys it stands for: its path, or one for each name of its section.
    pub fn keys(&self, named: &Named) -> Vec<String> {
        match self.path.split_once(".*.") {
            Some((section, _)) => {
                named.get(section).into_iter().flatten().map(|name| self.path.replace('*', name)).collect()
            }
            None if self.path.ends_with(".*") => {
                named.get(self.section()).into_iter().flatten().map(|name| self.path.replace('*', name)).collect()
            }
            None => vec![self.path.to_owned()],
        }
    }

    /// The section it stands in, such as `database` or `chains.*`.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name inside its section.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// The table whose indexes a key names.
pub(super) fn dataset_of<'d>(datasets: &'d Datasets, key: &str) -> Option<&'d Dataset> {
    key.split_once('.').and_then(|(_, name)| datasets.get(name))
}

/// The indexes of a table where nobody names others.
pub(super) fn indexes_of(datasets: &Datasets, key: &str) -> Vec<String> {
    let dataset = dataset_of(datasets, key);
    dataset.into_iter().flat_map(Dataset::indexes).map(|columns| columns.join("+")).collect()
}

/// Checks an index of a table: its columns are that table's.
pub(super) fn check_index(datasets: &Datasets, key: &str, item: &str) -> Result<(), String> {
    let Some(dataset) = dataset_of(datasets, key) else { return Err(String::new()) };
    let of: Vec<&str> = dataset.indexable().collect();
    let fits = |index: Index| index.columns().iter().all(|column| of.contains(&column.as_str()));
    if value::index(item).is_some_and(fits) { Ok(()) } else { Err(format!("the columns are {}", of.join(", "))) }
}

/// The environment variable of a key.
pub(super) fn variable(path: &str) -> String {
    format!("DALP_{}", path.to_ascii_uppercase().replace('.', "__"))
}

const fn one(path: &'static str, kind: Kind, default: Default, help: &'static str, reason: &'static str) -> Setting {
    Setting { path, kind, many: false, default, help, reason }
}

const fn many(path: &'static str, kind: Kind, default: Default, help: &'static str, reason: &'static str) -> Setting {
    Setting { path, kind, many: true, default, help, reason }
}

/// Every setting, in the order of the example and the reference.
pub(super) const SETTINGS: &[Setting] = &[
    one(
        "database.url",
        Kind::DatabaseUrl,
        Default::Required("postgres://postgres@127.0.0.1:5432/dalp"),
        "The database that rows are written to; it may point to PgBouncer.",
        "Takes sslmode=verify-full or disable and sslrootcert=FILE; `options` is refused.",
    ),
    one(
        "database.admin_url",
        Kind::DatabaseUrl,
        Default::Same("database.url"),
        "A direct connection, for migrations and partitions.",
        "Set it when `url` points to a pooler: locks and DDL need a session of their own.",
    ),
    one(
        "database.reader_url",
        Kind::DatabaseUrl,
        Default::Same("database.url"),
        "The connection of `dalp-indexer sql`.",
        "Set it to a user that may only read, or to a standby.",
    ),
    one(
        "database.pool_size",
        Kind::Int(1, 1_000),
        Default::Value("8"),
        "Connections kept to `url`, at most.",
        "One for each chain's tail, those of `write_parallelism`, and a few to spare.",
    ),
    one(
        "database.write_parallelism",
        Kind::Int(1, 64),
        Default::Value("2"),
        "Transactions of history that write at once, at most; always fewer than `pool_size`.",
        "Two load a quarter faster than one on two cores, and four as two; more gain where the server has cores to spare.",
    ),
    one(
        "database.connect_timeout",
        Kind::Duration("100ms", "10m"),
        Default::Value("5s"),
        "How long one attempt to reach a database may take.",
        "A healthy server answers in milliseconds; a dead host never does.",
    ),
    one(
        "database.tls",
        Kind::Choice(TlsMode::NAMES),
        Default::Value("verify-full"),
        "TLS to database hosts. Unix sockets and loopback hosts do without, unless their URL says sslmode=verify-full.",
        "Encryption without a checked identity protects from nobody who can answer in the server's place.",
    ),
    one(
        "database.ca_file",
        Kind::File,
        Default::Unset("/etc/dalp/database-ca.pem"),
        "A PEM file of the authorities that sign the database's certificate; the system's are used without it.",
        "Managed databases often have an authority of their own.",
    ),
    one(
        "roles.migrator",
        Kind::Role,
        Default::Value("dalp_migrator"),
        "The group role that owns the schemas.",
        "Roles belong to the whole cluster: rename them where two installations share one.",
    ),
    one(
        "roles.writer",
        Kind::Role,
        Default::Value("dalp_writer"),
        "The group role that writes rows.",
        "It can neither change tables nor touch a partition directly.",
    ),
    one(
        "roles.partitioner",
        Kind::Role,
        Default::Value("dalp_partitioner"),
        "The group role that owns the partitioned tables.",
        "Attaching a partition demands ownership.",
    ),
    one(
        "roles.reader",
        Kind::Role,
        Default::Value("dalp_reader"),
        "The group role of analysts.",
        "It reads everything and changes nothing.",
    ),
    one(
        "roles.create",
        Kind::Bool,
        Default::Value("true"),
        "Whether `dalp-indexer migrate` creates the roles that are missing.",
        "Set it to false where an administrator creates them.",
    ),
    one(
        "chains.*.chain_id",
        Kind::Int(1, MAX_INT),
        Default::Required("31337"),
        "The chain's id; every node must answer eth_chainId with it.",
        "A wrong URL must not mix two chains' rows.",
    ),
    many(
        "chains.*.rpc_urls",
        Kind::Url(&["http", "https"]),
        Default::Required("http://127.0.0.1:8545"),
        "JSON-RPC over HTTP, one URL or more of nodes of the same chain.",
        "With several, a node that fails or lags is passed over.",
    ),
    many(
        "chains.*.ws_urls",
        Kind::Url(&["ws", "wss"]),
        Default::Value(""),
        "WebSocket URLs for new heads.",
        "A head arrives as soon as the node has it; without them the head is polled.",
    ),
    one(
        "chains.*.start_block",
        Kind::Int(0, MAX_INT),
        Default::Value("0"),
        "The first block to index.",
        "The block of the first contract's deployment saves the empty history before it.",
    ),
    one(
        "chains.*.finality",
        Kind::Finality,
        Default::Value("tag"),
        "How blocks become final.",
        "`tag` is right after Ethereum's merge; `instant` for BFT chains; `never` for a devnet that is rolled back.",
    ),
    many(
        "chains.*.addresses",
        Kind::Address,
        Default::Value(""),
        "Contracts to index; empty for all.",
        "On a shared chain, name yours.",
    ),
    many(
        "chains.*.topics",
        Kind::Topic,
        Default::Value(""),
        "First topics to index, each a hash, or the event that it is the hash of, such as `Transfer(address,address,uint256)`; empty for all.",
        "What is not asked for is not fetched.",
    ),
    one(
        "chains.*.raw",
        Kind::Bool,
        Default::Value("true"),
        "Whether each log is stored as it came, in `logs`, beside the typed row that it makes.",
        "Raw logs can be decoded later without asking a node; without them rows take half of the space, and only events \
         that have a typed table are asked for.",
    ),
    one(
        "chains.*.verify",
        Kind::Choice(Verify::NAMES),
        Default::Value("auto"),
        "How far what a node answers is verified: returned, linked, bloom or receipts.",
        "`auto` proves each new block by its receipts where the chain allows it, else by its bloom, and of history one block in each range; a stronger level of history fetches more.",
    ),
    one(
        "chains.*.poll_interval",
        Kind::Duration("50ms", "10m"),
        Default::Value("1s"),
        "How often the head is asked for when no WebSocket announces it.",
        "About half of the chain's block time is a good value.",
    ),
    one(
        "chains.*.request_timeout",
        Kind::Duration("100ms", "10m"),
        Default::Value("20s"),
        "How long one request to a node may take.",
        "A large range of logs takes seconds.",
    ),
    one(
        "chains.*.max_response_bytes",
        Kind::Int(65_536, 4_294_967_296),
        Default::Value("67108864"),
        "The largest answer accepted from a node, in bytes.",
        "64 MiB; a larger range is asked for in halves, so this bounds memory.",
    ),
    one(
        "chains.*.range_blocks",
        Kind::Int(1, 1_000_000),
        Default::Value("100"),
        "Blocks of the first range asked for in one request.",
        "A first guess; it is learned from the answers afterwards.",
    ),
    one(
        "chains.*.max_range_blocks",
        Kind::Int(1, 1_000_000),
        Default::Value("100000"),
        "Blocks of one range, at most.",
        "An empty stretch then costs few requests. A node's own limit is learned; setting it here saves the first refusal.",
    ),
    one(
        "chains.*.fetch_parallelism",
        Kind::Int(1, 256),
        Default::Value("4"),
        "Requests under way at once.",
        "More speeds up history until the provider throttles.",
    ),
    one(
        "chains.*.batch_rows",
        Kind::Int(100, 1_000_000),
        Default::Value("20000"),
        "Rows of one transaction, at which a batch is closed.",
        "Larger ones gain little speed and hold their locks longer.",
    ),
    one(
        "chains.*.fetch_buffer_bytes",
        Kind::Int(1_048_576, 68_719_476_736),
        Default::Value("33554432"),
        "Bytes of fetched batches that wait to be committed, at most.",
        "32 MiB keeps PostgreSQL busy; the next batch in line is fetched whatever its size.",
    ),
    one(
        "chains.*.backfill_workers",
        Kind::Int(1, 64),
        Default::Value("4"),
        "Pieces of history under way at once, beside the tail.",
        "While `write_parallelism` of them are written, the others are fetched; more help where nodes are slow to answer.",
    ),
    one(
        "chains.*.backfill_order",
        Kind::Choice(value::ORDERS),
        Default::Value("newest"),
        "Which end of history is fetched first.",
        "What happened lately is asked for most.",
    ),
    one(
        "chains.*.reset_on_chain_change",
        Kind::Bool,
        Default::Value("false"),
        "Whether everything stored of the chain is removed when its genesis block changes.",
        "For devnets that are started anew; on any other chain a changed genesis is a wrong URL.",
    ),
    one(
        "partitions.interval",
        Kind::Choice(Interval::NAMES),
        Default::Value("day"),
        "The time span of one partition near the head.",
        "Choose it by size: some gigabytes a partition.",
    ),
    one(
        "partitions.interval_by_size",
        Kind::Bool,
        Default::Value("false"),
        "Whether wider partitions are made where full ones are small: the interval is then chosen for each table and chain so that one has 5 to 20 GB.",
        "The configured interval stays the narrowest. What stands is not changed.",
    ),
    one(
        "partitions.history_interval",
        Kind::Choice(Interval::NAMES),
        Default::Value("month"),
        "The time span of one partition of old history.",
        "Old history is fetched once and rarely dropped; few partitions plan faster.",
    ),
    one(
        "partitions.history_after",
        Kind::Duration("1d", "36500d"),
        Default::Value("90d"),
        "The age at which history begins.",
        "A quarter keeps the daily partitions of recent months.",
    ),
    one(
        "partitions.premake",
        Kind::Int(1, 100),
        Default::Value("3"),
        "Partitions made ahead of the head, of tables that a chain had rows in within the last interval.",
        "With days, a long weekend without maintenance.",
    ),
    one(
        "partitions.max_leaves",
        Kind::Int(1, 10_000),
        Default::Value("1000"),
        "Partitions of one table and chain, at most.",
        "Planning and locks grow with their number.",
    ),
    one(
        "partitions.maintenance_interval",
        Kind::Duration("1s", "1d"),
        Default::Value("30s"),
        "How often the partitions are looked after.",
        "A look costs one catalog query.",
    ),
    one(
        "partitions.create",
        Kind::Bool,
        Default::Value("true"),
        "Whether partitions are made ahead of the head.",
        "A switch for an incident; what a row needs is made in any case.",
    ),
    one(
        "partitions.archive",
        Kind::Bool,
        Default::Value("true"),
        "Whether partitions whose time is over are sealed and archived.",
        "A switch for an incident. With no retention set, nothing is due.",
    ),
    one(
        "partitions.detach",
        Kind::Bool,
        Default::Value("true"),
        "Whether they are retired and detached.",
        "A switch for an incident.",
    ),
    one(
        "partitions.drop",
        Kind::Bool,
        Default::Value("true"),
        "Whether detached partitions are dropped after their grace period.",
        "A switch for an incident; turn it off to look at every drop before.",
    ),
    one(
        "partitions.archive_url",
        Kind::Archive,
        Default::Unset("file:///var/lib/dalp/archive"),
        "Where archives go.",
        "Credentials come from archive_options or the store's own environment variables (AWS_…, GOOGLE_…, AZURE_…).",
    ),
    many(
        "partitions.archive_options",
        Kind::Pair,
        Default::Unset("aws_endpoint=http://127.0.0.1:9000"),
        "What the object store needs to know: endpoint, region, keys.",
        "Named as the store's environment variables, in lower case. Never printed.",
    ),
    one(
        "tables.*.table",
        Kind::Table,
        Default::Unset("dalp_assets.position"),
        "A table of yours to look after: partitioned by time.",
        "As the database has its name; one with a point is quoted as in SQL. Its owner must be roles.partitioner. Not for the indexer's own tables.",
    ),
    one(
        "tables.*.time_column",
        Kind::Column,
        Default::Unset("at"),
        "The column (timestamptz) that it is partitioned by.",
        "Not for the indexer's own tables.",
    ),
    one(
        "tables.*.list",
        Kind::Bool,
        Default::Value("false"),
        "Whether it is partitioned by LIST of a bigint column first.",
        "As the indexer's own tables are, by chain_id.",
    ),
    one(
        "tables.*.interval",
        Kind::Choice(Interval::NAMES),
        Default::Same("partitions.interval"),
        "The time span of one of its new partitions.",
        "Aim at 5 to 20 GB a partition.",
    ),
    one(
        "tables.*.action",
        Kind::Choice(Action::NAMES),
        Default::Value("keep"),
        "What becomes of a partition whose retention is over.",
        "keep; detach (it stays as a table of its own); drop; archive (Parquet, verified, then dropped).",
    ),
    one(
        "tables.*.retention",
        Kind::Duration("1h", "36500d"),
        Default::Unset("90d"),
        "How long rows are kept, counted back from the last final block, or from now if that is earlier.",
        "A partition is due when all of its times are older.",
    ),
    one(
        "tables.*.grace",
        Kind::Duration("0s", "3650d"),
        Default::Value("7d"),
        "How long a detached partition is kept before it is dropped.",
        "Until then, `partitions undo` brings it back in milliseconds.",
    ),
    one(
        "tables.*.max_leaves_per_run",
        Kind::Int(1, 10_000),
        Default::Value("10"),
        "How many partitions of one chain may begin to go in one run.",
        "More is a clock that jumped or a setting that changed: nothing goes then until `partitions apply --allow-many`.",
    ),
    one(
        "tables.*.max_share_per_run",
        Kind::Int(1, 100),
        Default::Value("30"),
        "What share of a chain's bytes may begin to go in one run, in percent.",
        "As max_leaves_per_run, be it a single partition.",
    ),
    many(
        "indexes.*",
        Kind::Index,
        Default::OfDataset,
        "Secondary indexes of each leaf of this table, beside its key.",
        "Indexes that are no longer named stay until they are dropped.",
    ),
    one(
        "http.listen",
        Kind::Listen,
        Default::Value("127.0.0.1:9464"),
        "Where /health, /ready, /status and /metrics answer; off for nowhere.",
        "It has no login: leave it on loopback, or behind what has one.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_examples_pass_their_own_checks() {
        for setting in SETTINGS {
            let text = match setting.default {
                Default::Value(text) | Default::Required(text) => text,
                Default::Same(other) => {
                    assert!(find(other).is_some(), "{}", setting.path);
                    continue;
                }
                Default::Unset(_) | Default::OfDataset => continue,
            };
            for item in text.split(',').filter(|_| !(setting.many && text.is_empty())) {
                assert_eq!(setting.kind.check(item), Ok(()), "{}", setting.path);
            }
        }
    }

    #[test]
    fn finds_by_pattern() {
        assert_eq!(find("chains.anvil.start_block").map(|s| s.path), Some("chains.*.start_block"));
        assert!(find("chains.anvil").is_none() && find("chains.anvil.start_block.x").is_none() && find("").is_none());
        assert_eq!(variable("chains.anvil.start_block"), "DALP_CHAINS__ANVIL__START_BLOCK");
    }
}
