//! Carries out moves: one leaf at a time, each in transactions that leave a state from which the next run goes on.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use tokio_postgres::{
    Client, Transaction,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::{
    Archive, Error, Identity, Manifest, Obstacle, Subject, Table,
    activity::{Deed, ensure_activity, record},
    apply::{BEGIN, is_passing, pause},
    archive,
    blockers::blockers_of,
    claim::{self, Entered},
    registry::{Entry, Presence, State, read_inventory, refresh, register},
    retire::{Act, Fate, Move, Terms, plan_moves, stopped},
    rule::{refuse_held, rule},
    session::{self, Kind},
    survey,
};

/// Key of the advisory lock that lets one session of a database retire, undo and restore at a time: "dalpret" in ASCII.
pub const RETIRE_KEY: i64 = 0x64_616c_7072_6574;

/// How long `DETACH CONCURRENTLY` waits for older readers. It holds no lock meanwhile, and nobody waits behind it; a shorter time
/// would leave more detachings pending.
const DETACH_PATIENCE: &str = "30s";
/// How long FINALIZE waits at a time: under deadlock_timeout, past which an autovacuum in the way would be cancelled.
pub(crate) const FINALIZE_PATIENCE: &str = "800ms";
/// How long a lock on a table is waited for at a time: whoever comes after us waits behind us.
pub(crate) const PATIENCE: &str = "200ms";
/// Tries of a move that needs a lock which somebody else has, where somebody waits for it.
pub(crate) const TRIES: u32 = 10;
/// The same in a run, which comes again: after all that was to be had at once.
const LATE_TRIES: u32 = 4;

/// A move that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The move.
    pub act: Act,
    /// The leaf's schema.
    pub schema: String,
    /// The leaf's name.
    pub leaf: String,
    /// Value of the list level.
    pub key: i64,
    /// How long it took, waiting included.
    pub took: Duration,
    /// How long it waited for its first lock.
    pub waited: Duration,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The moves made, in order.
    pub done: Vec<Done>,
    /// What stands in the way of the rest.
    pub obstacles: Vec<(Entry, Obstacle)>,
    /// The moves that failed, with the leaf. One that fails does not keep others from going on.
    pub failed: Vec<(Move, Error)>,
}

impl Outcome {
    /// The keys of which nothing began to go, as too much would have at once.
    pub fn stopped(&self) -> BTreeMap<i64, &Obstacle> {
        stopped(&self.obstacles)
    }

    /// Why the run did not do all that it should; `None` if it did.
    pub fn trouble(&self) -> Option<String> {
        let failed = self.failed.first().map(|(_, error)| error.to_string());
        failed.or_else(|| self.stopped().first_key_value().map(|(key, why)| format!("key {key}: {why}")))
    }
}

/// Makes moves until there are none: takes up what was cut short, and retires what is due. Safe to call again after a crash
/// anywhere, and from several processes (all but one are told [`Error::Busy`]).
///
/// Wants a direct connection of its own whose current role owns the table; its session settings are changed.
pub async fn retire(
    client: &mut Client,
    table: &Table,
    terms: &Terms<'_>,
    archive: Option<&Archive>,
) -> Result<Outcome, Error> {
    begin_session(client, table).await?;
    let outcome = run(client, table, terms, archive).await;
    let noted = match &outcome {
        Ok(outcome) => note_run(client, table, outcome.trouble()).await,
        Err(error) => note_run(client, table, Some(error.to_string())).await,
    };
    let ended = end_session(client, table).await;
    let outcome = outcome?;
    noted.and(ended).map(|()| outcome)
}

async fn run(
    client: &mut Client,
    table: &Table,
    terms: &Terms<'_>,
    archive: Option<&Archive>,
) -> Result<Outcome, Error> {
    ensure_activity(client, &table.registry).await?;
    register(client, table).await?;
    let mut run = Run { outcome: Outcome::default(), given_up: HashSet::new(), late: HashSet::new() };
    let mut entered = None;
    let mut inventory = read_inventory(client, table).await?;
    loop {
        let planned = plan_moves(&inventory, terms);
        let (moves, tries) = run.next(planned.moves);
        if moves.is_empty() {
            let (faults, others) = planned.obstacles.into_iter().partition(|(_, obstacle)| obstacle.is_fault());
            run.outcome.obstacles = others;
            let failed = Vec::into_iter(faults).map(|(entry, obstacle)| refused(table, entry, &obstacle));
            run.outcome.failed.extend(failed);
            return Ok(run.outcome);
        }
        let moved: Vec<i64> = moves.iter().map(|next| next.entry.id).collect();
        if terms.retention.fate == Fate::Archive && entered.is_none() {
            match enter(client, table, archive, &moves).await {
                Ok(place) => entered = place,
                Err((first, error)) => {
                    run.outcome.failed.push((first, error));
                    let useless = moves.iter().filter(|next| is_for_archive(next));
                    run.given_up.extend(useless.map(|next| (next.entry.id, next.act)));
                    continue;
                }
            }
        }
        for next in moves {
            let mut worker = Worker {
                client,
                table,
                archive,
                entered: entered.as_ref(),
                fate: terms.retention.fate,
                grace: terms.retention.grace,
                has_begun: false,
            };
            if !run.make(&mut worker, next, tries).await? {
                break;
            }
        }
        // What others did meanwhile is found out by each move itself, behind the lock of the leaf's row.
        refresh(client, table, &mut inventory, &moved).await?;
    }
}

/// A run under way.
struct Run {
    outcome: Outcome,
    /// Moves that failed: they are not tried again in this run.
    given_up: HashSet<(i64, Act)>,
    /// Leaves that could not be locked at once: they come when nothing else is left to do.
    late: HashSet<i64>,
}

impl Run {
    /// What comes next, and how often it is tried. Whoever is in the way of one leaf costs the others nothing; and a detaching, which waits
    /// for readers, comes after what does not.
    fn next(&self, mut moves: Vec<Move>) -> (Vec<Move>, u32) {
        moves.retain(|next| !self.given_up.contains(&(next.entry.id, next.act)));
        let is_late = |next: &Move| self.late.contains(&next.entry.id);
        let tries = if moves.iter().all(is_late) { LATE_TRIES } else { 1 };
        moves.retain(|next| tries > 1 || !is_late(next));
        moves.sort_by_key(|next| next.act == Act::Detach);
        (moves, tries)
    }

    /// Makes a move. Answers whether those that were planned with it can still be made.
    async fn make(&mut self, worker: &mut Worker<'_>, next: Move, tries: u32) -> Result<bool, Error> {
        let error = match worker.carry_out(&next, tries).await {
            Ok(done) => {
                self.outcome.done.push(done);
                return Ok(true);
            }
            Err(error) => error,
        };
        if is_passing(&error) && tries == 1 && !worker.has_begun {
            self.late.insert(next.entry.id);
            return Ok(true);
        }
        let error = worker.named(&next, error).await?;
        worker.record_failure(&next, &error).await?;
        self.given_up.insert((next.entry.id, next.act));
        // It may be pending now, and no other of its parent can begin: the moves are planned again.
        let stands_in_the_way = next.act == Act::Detach;
        self.outcome.failed.push((next, error));
        Ok(!stands_in_the_way)
    }
}

/// Makes sure, before anything is sealed for it, that the archive is ours to write to. An error comes with the first of the moves that
/// are not made then.
async fn enter(
    client: &Client,
    table: &Table,
    archive: Option<&Archive>,
    moves: &[Move],
) -> Result<Option<Entered>, (Move, Error)> {
    match (archive, moves.iter().find(|next| is_for_archive(next))) {
        (Some(archive), Some(first)) => {
            claim::enter(client, table, archive).await.map(Some).map_err(|error| (first.clone(), error))
        }
        _ => Ok(None),
    }
}

/// Whether a move is of no use where nothing may be archived.
fn is_for_archive(next: &Move) -> bool {
    matches!(next.act, Act::Seal | Act::Archive)
}

/// A leaf that must be mended before it can move.
fn refused(table: &Table, entry: Entry, obstacle: &Obstacle) -> (Move, Error) {
    let refused = Error::Refused { leaf: table.sibling(&entry.leaf), why: obstacle.to_string() };
    (Move { entry, act: Act::Seal }, refused)
}

/// Session settings of everything here, and the lock that only one session has. No session of ours is without time limits.
pub(crate) async fn begin_session(client: &Client, table: &Table) -> Result<(), Error> {
    let doing = || Error::doing("begin to maintain partitions", table);
    let settings = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET search_path = pg_catalog; SET jit = off; \
                    SET lock_timeout = '2s'; SET statement_timeout = '60s'; \
                    SET idle_in_transaction_session_timeout = '60s'";
    session::settle(client, settings).await.map_err(doing())?;
    let locked = client.query_typed_one("SELECT pg_try_advisory_lock($1)", &[(&RETIRE_KEY, Type::INT8)]).await;
    if locked.map_err(doing())?.get(0) {
        return Ok(());
    }
    let holder = client.query_typed_opt(HOLDER, &[(&RETIRE_KEY, Type::INT8)]).await.map_err(doing())?;
    Err(Error::Busy { holder: holder.map_or_else(|| "?".to_owned(), |row| row.get::<_, i32>(0).to_string()) })
}

const HOLDER: &str = "SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted \
                      AND (classid::int8 << 32 | objid::int8) = $1 \
                      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())";

pub(crate) async fn end_session(client: &Client, table: &Table) -> Result<(), Error> {
    let unlocked = client.query_typed("SELECT pg_advisory_unlock($1)", &[(&RETIRE_KEY, Type::INT8)]).await;
    unlocked.map(drop).map_err(Error::doing("end maintaining partitions", table))
}

const NOTE_RUN: &str = "
    INSERT INTO registry.partition_run AS r (table_schema, table_name, succeeded_at, failed_at, failures, last_error)
    VALUES ($1, $2, CASE WHEN $3::text IS NULL THEN clock_timestamp() END, CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END,
            CASE WHEN $3 IS NULL THEN 0 ELSE 1 END, $3)
    ON CONFLICT (table_schema, table_name) DO UPDATE
    SET succeeded_at = COALESCE(EXCLUDED.succeeded_at, r.succeeded_at), failed_at = COALESCE(EXCLUDED.failed_at, r.failed_at),
        failures = CASE WHEN $3 IS NULL THEN 0 ELSE r.failures + 1 END, last_error = COALESCE($3, r.last_error)";

/// Notes that a table could not be looked after at all, so that `status` and `doctor` say why.
///
/// # Errors
/// When the server refuses.
pub async fn note_failure(client: &Client, table: &Table, why: &str) -> Result<(), Error> {
    note_run(client, table, Some(why.to_owned())).await
}

async fn note_run(client: &Client, table: &Table, error: Option<String>) -> Result<(), Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&error, Type::TEXT)];
    client
        .query_typed(&table.registered(NOTE_RUN), &parameters)
        .await
        .map(drop)
        .map_err(Error::doing("note the run", table))
}

/// The statements that make a move, as they are sent, without the registry's own.
pub fn statements(table: &Table, next: &Move) -> Vec<String> {
    let (leaf, parent) = (next.entry.relation(), parent_of(table, &next.entry));
    match next.act {
        Act::Seal => seal_statements(table, &leaf),
        Act::Detach => vec![format!("ALTER TABLE {parent} DETACH PARTITION {leaf} CONCURRENTLY")],
        Act::Finalize => vec![format!("ALTER TABLE {parent} DETACH PARTITION {leaf} FINALIZE")],
        Act::Attach => crate::undo::statements(&next.entry, &parent),
        Act::Drop | Act::Discard => vec![format!("DROP TABLE {leaf}")],
        Act::Archive | Act::Recount => vec![format!("COPY (SELECT … FROM {leaf}) TO STDOUT (FORMAT binary)")],
        Act::Retire => {
            let floor = table.registered("registry.retention_floor");
            vec![format!("UPDATE {floor} SET floor = '{}'", next.entry.bounds.upper().time())]
        }
        Act::Note(_) => Vec::new(),
    }
}

pub(crate) fn seal_statements(table: &Table, leaf: &str) -> Vec<String> {
    let function = table.registered("registry.refuse_sealed()");
    let mut statements = Vec::new();
    for (trigger, events, each) in
        [("dalp_seal_rows", "INSERT OR UPDATE OR DELETE", "ROW"), ("dalp_seal_truncate", "TRUNCATE", "STATEMENT")]
    {
        statements.push(format!(
            "CREATE OR REPLACE TRIGGER {trigger} BEFORE {events} ON {leaf} FOR EACH {each} EXECUTE FUNCTION {function}"
        ));
        statements.push(format!("ALTER TABLE {leaf} ENABLE ALWAYS TRIGGER {trigger}"));
    }
    statements
}

pub(crate) fn unseal_statements(leaf: &str) -> Vec<String> {
    ["dalp_seal_rows", "dalp_seal_truncate"].map(|name| format!("DROP TRIGGER IF EXISTS {name} ON {leaf}")).to_vec()
}

/// The locks of the first half of `DETACH CONCURRENTLY`.
fn lock_for_detach(table: &Table, entry: &Entry) -> String {
    [parent_of(table, entry), entry.relation()]
        .map(|name| format!("LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE"))
        .join("; ")
}

/// Whoever uses the leaf by its own name, and not by the table's, keeps a detaching from ending after it has begun; and no other of the
/// parent could begin until then. It is not begun: the lock that the end needs is not to be had.
async fn refuse_used_alone(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
) -> Result<(), tokio_postgres::Error> {
    let (leaf, parent) = (entry.relation(), parent_of(table, entry));
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::TEXT), (&parent, Type::TEXT)];
    if transaction.query_typed(USED_ALONE, &parameters).await?.is_empty() {
        return Ok(());
    }
    transaction.batch_execute(&format!("LOCK TABLE ONLY {leaf} IN ACCESS EXCLUSIVE MODE NOWAIT")).await
}

/// $1 leaf, $2 parent.
const USED_ALONE: &str = "
    WITH held AS (
        SELECT relation, virtualtransaction AS holder FROM pg_catalog.pg_locks
        WHERE locktype = 'relation' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
          AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    )
    SELECT FROM held WHERE relation = to_regclass($1)
      AND NOT EXISTS (SELECT FROM held AS of_parent WHERE of_parent.relation = to_regclass($2) AND of_parent.holder = held.holder)";

pub(crate) fn parent_of(table: &Table, entry: &Entry) -> String {
    entry.parent.clone().unwrap_or_else(|| table.to_string())
}

struct Worker<'w> {
    client: &'w mut Client,
    table: &'w Table,
    archive: Option<&'w Archive>,
    /// The archive as a place that this database may write to.
    entered: Option<&'w Entered>,
    fate: Fate,
    grace: chrono::TimeDelta,
    /// Whether the detaching was begun: the registry is no more as the move says, so it is not tried again.
    has_begun: bool,
}

impl Worker<'_> {
    /// Makes one move, and tries again a little later where a lock was not to be had.
    async fn carry_out(&mut self, next: &Move, tries: u32) -> Result<Done, Error> {
        let began = Instant::now();
        for again in 1.. {
            match self.once(next).await {
                Ok(waited) => {
                    let (schema, leaf) = (next.entry.schema.clone(), next.entry.leaf.clone());
                    let (key, took) = (next.entry.key, began.elapsed());
                    return Ok(Done { act: next.act, schema, leaf, key, took, waited });
                }
                Err(error) if is_passing(&error) && again < tries && !self.has_begun => {
                    tokio::time::sleep(pause(again)).await;
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("it returns from within")
    }

    /// Answers how long it waited for its first lock.
    async fn once(&mut self, next: &Move) -> Result<Duration, Error> {
        match next.act {
            Act::Note(state) => self.note(next, state).await,
            Act::Seal => self.seal(next).await,
            Act::Archive => self.archive(next).await,
            Act::Retire => self.retire(next).await,
            Act::Detach => self.detach(next).await,
            Act::Finalize => self.finalize(next).await,
            Act::Attach => {
                crate::undo::attach(self.client, self.table, &next.entry, false).await.map(|()| Duration::ZERO)
            }
            Act::Recount => self.recount(next).await,
            Act::Drop => self.drop(next).await,
            Act::Discard => self.discard(next).await,
        }
    }

    fn deed(&self, action: &'static str, next: &Move) -> Deed {
        let statement = statements(self.table, next).pop();
        let detail = serde_json::json!({ "key": next.entry.key, "state": next.entry.state.word() });
        Deed { statement, ..Deed::new(action, next.entry.to_string()).with_detail(detail) }
    }

    /// A transaction that holds the leaf's row of the registry, which is as it was when the move was decided.
    async fn locked(&mut self, next: &Move) -> Result<Transaction<'_>, Error> {
        locked(self.client, self.table, &next.entry).await
    }

    async fn note(&mut self, next: &Move, state: State) -> Result<Duration, Error> {
        let table = self.table;
        let doing = || Error::doing("note what the catalog has", table);
        let deed = self.deed("partition.note", next);
        let entry = &next.entry;
        // Attached again with its seal whole, it is as far as it was before it was detached.
        let state = match state {
            State::Attached if entry.is_proved() => State::Archived,
            State::Attached if entry.seal_now.is_some() => State::Sealed,
            state => state,
        };
        let transaction = self.locked(next).await?;
        set_state(&transaction, table, entry, state).await.map_err(doing())?;
        finish(transaction, deed, Instant::now(), Duration::ZERO).await
    }

    async fn seal(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began) = (self.table, Instant::now());
        let doing = || Error::doing("seal a leaf", table);
        let deed = self.deed("partition.seal", next);
        let transaction = self.locked(next).await?;
        refuse_held(&transaction, table, &next.entry).await?;
        let leaf = next.entry.relation();
        let waited = lock(&transaction, &format!("LOCK TABLE ONLY {leaf} IN SHARE ROW EXCLUSIVE MODE"), PATIENCE)
            .await
            .map_err(doing())?;
        transaction.batch_execute(&seal_statements(table, &leaf).join("; ")).await.map_err(doing())?;
        is_the_leaf(&transaction, table, &next.entry).await?;
        let state = if next.entry.state == State::Detached { State::Detached } else { State::Sealed };
        set_state(&transaction, table, &next.entry, state).await.map_err(doing())?;
        finish(transaction, deed, began, waited).await
    }

    /// Exports, reads back and compares. The seal is the same before and after, so that what was counted is what stands.
    async fn archive(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, entry) = (self.table, Instant::now(), &next.entry);
        let doing = || Error::doing("archive a leaf", table);
        let (Some(store), Some(entered)) = (self.archive, self.entered) else {
            let why = "there is no archive: set partitions.archive_url".to_owned();
            return Err(Error::Unfit { what: entry.relation(), why });
        };
        let deed = self.deed("partition.archive", next);
        let transaction = self.locked(next).await?;
        let state = if entry.state == State::Detached { State::Detached } else { State::Archiving };
        let version = entry.version + 1;
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&entry.id, Type::INT8), (&state.word(), Type::TEXT), (&version, Type::INT4)];
        transaction.query_typed(&table.registered(BEGIN_ARCHIVE), &parameters).await.map_err(doing())?;
        transaction.commit().await.map_err(doing())?;
        self.client.batch_execute("SET statement_timeout = 0").await.map_err(doing())?;
        let identity = Identity {
            installation: entered.installation.clone(),
            incarnation: entry.incarnation.clone(),
            server: entered.server.clone(),
        };
        let (leaf, version_of) = (entry.leaf.as_str(), version.unsigned_abs());
        let subject = Subject { key: entry.key, leaf, bounds: entry.bounds, version: version_of, identity: &identity };
        let placed = table.of_leaf_in(&entry.schema);
        let written = store.write(self.client, &placed, &subject).await;
        self.client.batch_execute("SET statement_timeout = '60s'").await.map_err(doing())?;
        let manifest = written?;
        let begun = Entry { state, version, ..entry.clone() };
        let transaction = locked(self.client, table, &begun).await?;
        archived(&transaction, table, &begun, &manifest, store.name()).await?;
        finish(transaction, deed, began, Duration::ZERO).await?;
        store.void_earlier(&manifest).await?;
        Ok(Duration::ZERO)
    }

    async fn retire(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, fate, entry) = (self.table, Instant::now(), self.fate, &next.entry);
        let doing = || Error::doing("raise the floor over a leaf", table);
        let deed = self.deed("partition.retire", next);
        let transaction = self.locked(next).await?;
        rule(&transaction, table, entry, fate, None).await?;
        let to = entry.bounds.upper().time();
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&table.schema, Type::TEXT),
            (&table.name, Type::TEXT),
            (&entry.key, Type::INT8),
            (&to, Type::TIMESTAMPTZ),
        ];
        transaction.query_typed(&table.registered(RAISE_FLOOR), &parameters).await.map_err(doing())?;
        if entry.state != State::Detached {
            set_state(&transaction, table, entry, State::Retired).await.map_err(doing())?;
        }
        finish(transaction, deed, began, Duration::ZERO).await
    }

    /// The registry says so first: what a crash leaves behind is then known for what it is.
    async fn detach(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, fate, entry) = (self.table, Instant::now(), self.fate, &next.entry);
        let doing = || Error::doing("detach a leaf", table);
        let deed = self.deed("partition.detach", next);
        let transaction = self.locked(next).await?;
        // What DETACH takes first is asked for here, and briefly: there it would be waited for as long as readers are, with the
        // parent locked against whoever makes leaves, and past deadlock_timeout an autovacuum in the way would be cancelled.
        let waited = lock(&transaction, &lock_for_detach(table, entry), PATIENCE).await.map_err(doing())?;
        refuse_used_alone(&transaction, table, entry).await.map_err(doing())?;
        rule(&transaction, table, entry, fate, None).await?;
        set_state(&transaction, table, entry, State::Detaching).await.map_err(doing())?;
        transaction.commit().await.map_err(doing())?;
        self.has_begun = true;
        // Refused inside a transaction, and so alone; SET LOCAL is not to be had.
        self.client.batch_execute(&format!("SET lock_timeout = '{DETACH_PATIENCE}'")).await.map_err(doing())?;
        let statement = statements(table, next).concat();
        let detached = self.client.batch_execute(&statement).await.map_err(doing());
        self.client.batch_execute("SET lock_timeout = '2s'").await.map_err(doing())?;
        detached?;
        let begun = Entry { state: State::Detaching, ..entry.clone() };
        let transaction = locked(self.client, table, &begun).await?;
        set_state(&transaction, table, entry, State::Detached).await.map_err(doing())?;
        finish(transaction, deed, began, waited).await
    }

    async fn finalize(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began) = (self.table, Instant::now());
        let doing = || Error::doing("end the detaching of a leaf", table);
        let deed = self.deed("partition.finalize", next);
        let transaction = self.locked(next).await?;
        refuse_held(&transaction, table, &next.entry).await?;
        let statement = statements(table, next).concat();
        let waited = lock(&transaction, &statement, FINALIZE_PATIENCE).await.map_err(doing())?;
        is_the_leaf(&transaction, table, &next.entry).await?;
        // What somebody else began to detach is theirs.
        let state =
            if matches!(next.entry.state, State::Detaching | State::Detached) { State::Detached } else { State::Taken };
        set_state(&transaction, table, &next.entry, state).await.map_err(doing())?;
        finish(transaction, deed, began, waited).await
    }

    /// What is in the table now is what is in the archive, or an error.
    async fn recount(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, entry) = (self.table, Instant::now(), &next.entry);
        let doing = || Error::doing("count the rows of a leaf", table);
        let deed = self.deed("partition.recount", next);
        let manifest = manifest_of(entry)?;
        let transaction = self.locked(next).await?;
        let settings = format!("SET LOCAL statement_timeout = 0; {}", session::AS_WRITTEN);
        transaction.batch_execute(&settings).await.map_err(doing())?;
        let counted = archive::recount(&transaction, &manifest, &entry.relation()).await?;
        if !manifest.is_of(&counted) {
            let why = format!(
                "its seal was broken, and {} rows in the table are not the {} in the archive: look at both",
                counted.rows, manifest.counted.rows
            );
            return Err(Error::Refused { leaf: entry.relation(), why });
        }
        transaction
            .query_typed(
                &table.registered(&format!("{SET_SEAL} {MARK} WHERE leaf_id = $1")),
                &[(&entry.id, Type::INT8)],
            )
            .await
            .map_err(doing())?;
        finish(transaction, deed, began, Duration::ZERO).await
    }

    /// The archive is read whole once more, then the rule is looked at behind the lock, and the table goes in the same transaction.
    async fn drop(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, fate, grace, entry) = (self.table, Instant::now(), self.fate, self.grace, &next.entry);
        let doing = || Error::doing("drop a leaf", table);
        if fate == Fate::Archive {
            let manifest = manifest_of(entry)?;
            let Some(store) = self.archive else {
                let why = "its archive cannot be read: set partitions.archive_url".to_owned();
                return Err(Error::Refused { leaf: entry.relation(), why });
            };
            survey::prove(store, table, entry, &manifest).await?;
        }
        let deed = self.deed("partition.drop", next);
        let transaction = self.locked(next).await?;
        let leaf = entry.relation();
        let waited = lock(&transaction, &format!("LOCK TABLE ONLY {leaf} IN ACCESS EXCLUSIVE MODE"), PATIENCE)
            .await
            .map_err(doing())?;
        rule(&transaction, table, entry, fate, Some(grace)).await?;
        transaction.batch_execute(&statements(table, next).concat()).await.map_err(doing())?;
        set_state(&transaction, table, entry, State::Dropped).await.map_err(doing())?;
        finish(transaction, deed, began, waited).await
    }

    async fn discard(&mut self, next: &Move) -> Result<Duration, Error> {
        discard(self.client, self.table, &next.entry).await
    }

    /// The same error; one of a lock that was not to be had says who has it.
    async fn named(&mut self, next: &Move, error: Error) -> Result<Error, Error> {
        if !is_passing(&error) && !is_cancelled(&error) {
            return Ok(error);
        }
        let holders = blockers_of(self.client, self.table, &next.entry, next.act == Act::Finalize).await?;
        Ok(Error::InTheWay { act: next.act.word(), leaf: next.entry.relation(), holders })
    }

    async fn record_failure(&mut self, next: &Move, error: &Error) -> Result<(), Error> {
        let deed = Deed { failure: Some(error.to_string()), ..self.deed("partition.failed", next) };
        record(self.client, &deed).await
    }
}

/// Takes back what a restore of an older program made that did not come to its end.
pub(crate) async fn discard(client: &mut Client, table: &Table, entry: &Entry) -> Result<Duration, Error> {
    let began = Instant::now();
    let doing = || Error::doing("drop the table of a restore that was cut short", table);
    let drop = format!("DROP TABLE {}", entry.relation());
    let transaction = locked(client, table, entry).await?;
    if entry.presence == Presence::Standalone {
        is_the_leaf(&transaction, table, entry).await?;
        let sql = format!("SET LOCAL lock_timeout = '{PATIENCE}'; {drop}");
        transaction.batch_execute(&sql).await.map_err(doing())?;
    }
    set_state(&transaction, table, entry, State::Dropped).await.map_err(doing())?;
    let deed = Deed { statement: Some(drop), ..Deed::new("partition.discard", entry.to_string()) };
    finish(transaction, deed, began, Duration::ZERO).await
}

/// A transaction with our settings that holds the leaf's row of the registry, in the state that the entry says.
pub(crate) async fn locked<'c>(client: &'c mut Client, table: &Table, entry: &Entry) -> Result<Transaction<'c>, Error> {
    let doing = || Error::doing("lock a leaf in the registry", table);
    let settings =
        format!("{BEGIN}; SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '60s'");
    let transaction = session::begin(client, Kind::Write, &settings).await.map_err(doing())?;
    let row =
        transaction.query_typed_opt(&table.registered(LOCK_ENTRY), &[(&entry.id, Type::INT8)]).await.map_err(doing())?;
    match row.map(|row| (row.get::<_, String>(0), row.get::<_, i32>(1))) {
        Some((state, version)) if state == entry.state.word() && version == entry.version => Ok(transaction),
        found => Err(Error::Refused {
            leaf: entry.relation(),
            why: format!(
                "somebody else moved it meanwhile ({} instead of {})",
                found.map_or_else(|| "gone".to_owned(), |(state, _)| state),
                entry.state
            ),
        }),
    }
}

/// Refuses to go on where the name means another table than the registry's row: somebody renamed it meanwhile, or moved it. Asked
/// behind a lock on the table, or after the statement that took it, it stays true until the transaction ends.
pub(crate) async fn is_the_leaf(transaction: &Transaction<'_>, table: &Table, entry: &Entry) -> Result<(), Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&entry.id, Type::INT8), (&entry.relation(), Type::TEXT)];
    let row = transaction.query_typed_opt(&table.registered(IS_THE_LEAF), &parameters).await;
    match row.map_err(Error::doing("look whether a table is the leaf", table))? {
        Some(_) => Ok(()),
        None => Err(Error::Refused { leaf: entry.relation(), why: "it is not the table that it was".to_owned() }),
    }
}

const IS_THE_LEAF: &str = "SELECT FROM registry.leaf WHERE leaf_id = $1 AND relid = to_regclass($2)::oid \
                           AND catalog = registry.catalog_identity()";

/// Says `statement`, which takes a lock, within `patience`; answers how long it took.
async fn lock(
    transaction: &Transaction<'_>,
    statement: &str,
    patience: &str,
) -> Result<Duration, tokio_postgres::Error> {
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = '{patience}'")).await?;
    let began = Instant::now();
    transaction.batch_execute(statement).await?;
    Ok(began.elapsed())
}

async fn finish(transaction: Transaction<'_>, deed: Deed, began: Instant, waited: Duration) -> Result<Duration, Error> {
    let deed = Deed { took: began.elapsed(), waited, ..deed };
    record(&transaction, &deed).await?;
    transaction.commit().await.map_err(Error::doing("commit a move of a leaf", &deed.object))?;
    Ok(waited)
}

pub(crate) fn manifest_of(entry: &Entry) -> Result<Manifest, Error> {
    let parsed = entry.manifest.clone().map(serde_json::from_value::<Manifest>);
    match parsed {
        Some(Ok(manifest)) => Ok(manifest),
        Some(Err(error)) => Err(Error::Refused {
            leaf: entry.relation(),
            why: format!("its manifest in the registry cannot be read ({error}): compare it with the archive's own"),
        }),
        None => {
            Err(Error::Refused { leaf: entry.relation(), why: "it has no manifest: it is not archived".to_owned() })
        }
    }
}

/// The archive is written: the seal must still be that from before it was read.
async fn archived(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
    manifest: &Manifest,
    place: &str,
) -> Result<(), Error> {
    let doing = || Error::doing("note that a leaf is archived", table);
    let json = serde_json::to_value(manifest).unwrap_or_default();
    let rows = i64::try_from(manifest.counted.rows).unwrap_or(i64::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&entry.id, Type::INT8),
        (&json, Type::JSONB),
        (&rows, Type::INT8),
        (&entry.seal_now, Type::TEXT),
        (&place, Type::TEXT),
    ];
    match transaction
        .query_typed_opt(&table.registered(&format!("{END_ARCHIVE} {MARK} RETURNING leaf_id")), &parameters)
        .await
        .map_err(doing())?
    {
        Some(_) => Ok(()),
        None => {
            Err(Error::Refused { leaf: entry.relation(), why: "its seal was broken while it was archived".to_owned() })
        }
    }
}

const LOCK_ENTRY: &str = "SELECT state, version FROM registry.leaf WHERE leaf_id = $1 FOR UPDATE";

/// The mark of a seal, of the row `e` of the registry.
pub(crate) const MARK: &str = "(SELECT md5(string_agg(t.oid::text || ':' || t.xmin::text || ':' || t.tgenabled::text, ',' ORDER BY t.oid) \
                       || ':' || c.relfilenode::text) \
                     FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid \
                       AND starts_with(t.tgname::text, 'dalp_seal') WHERE c.oid = e.relid GROUP BY c.relfilenode)";

const BEGIN_ARCHIVE: &str = "UPDATE registry.leaf SET state = $2, version = $3, manifest = NULL, seal = NULL, \
                             updated_at = clock_timestamp() WHERE leaf_id = $1";
const END_ARCHIVE: &str = "
    UPDATE registry.leaf AS e
    SET state = CASE WHEN state = 'DETACHED' THEN state ELSE 'ARCHIVED' END, manifest = $2, rows = $3, seal = $4,
        archived_at = clock_timestamp(), verified_at = clock_timestamp(), updated_at = clock_timestamp(), place = $5
    WHERE leaf_id = $1 AND $4 = ";
const SET_SEAL: &str = "UPDATE registry.leaf AS e SET updated_at = clock_timestamp(), seal = ";

const RAISE_FLOOR: &str = "
    INSERT INTO registry.retention_floor AS f (table_schema, table_name, key, floor, moves)
    VALUES ($1, $2, $3, $4, 1)
    ON CONFLICT (table_schema, table_name, key) DO UPDATE
    SET floor = EXCLUDED.floor, moves = f.moves + 1, moved_at = clock_timestamp() WHERE f.floor < EXCLUDED.floor";

const SET_STATE: &str = "
    UPDATE registry.leaf AS e
    SET state = $2, updated_at = clock_timestamp(),
        sealed_at = CASE $2 WHEN 'SEALED' THEN clock_timestamp() ELSE sealed_at END,
        rows = CASE $2 WHEN 'SEALED' THEN COALESCE(NULLIF((SELECT reltuples FROM pg_class WHERE oid = e.relid), -1)::int8, rows) ELSE rows END,
        bytes = CASE $2 WHEN 'SEALED' THEN COALESCE(pg_total_relation_size(e.relid), bytes) ELSE bytes END,
        checks = CASE $2 WHEN 'DETACHING' THEN ARRAY(SELECT conname::text FROM pg_constraint WHERE conrelid = e.relid AND contype = 'c')
                         ELSE checks END,
        retired_at = CASE $2 WHEN 'RETIRED' THEN clock_timestamp() ELSE retired_at END,
        detached_at = CASE WHEN $2 = 'DETACHED' THEN COALESCE(detached_at, clock_timestamp())
                           WHEN $2 = 'DROPPED' THEN detached_at END,
        dropped_at = CASE $2 WHEN 'DROPPED' THEN clock_timestamp() END
    WHERE leaf_id = $1";

/// Moves the registry's row, which the transaction holds.
pub(crate) async fn set_state(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
    state: State,
) -> Result<(), tokio_postgres::Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&entry.id, Type::INT8), (&state.word(), Type::TEXT)];
    transaction.query_typed(&table.registered(SET_STATE), &parameters).await.map(drop)
}

/// Whether statement_timeout ended it: several waits, none of them too long alone.
fn is_cancelled(error: &Error) -> bool {
    let Error::Database { source, .. } = error else { return false };
    source.code() == Some(&SqlState::QUERY_CANCELED)
}
