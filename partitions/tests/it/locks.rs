//! The locks of each operation at its commit, its waits for them, and that no session waits for it: beside readers, writers and a
//! vacuum.

use std::collections::BTreeMap;

use dalp_partitions::{
    Act, Action, Error, Index, Indexed, Move, Obstacle, Outcome, Reference, Retention, Scope, State, Switches, Terms,
    add_hold, analyze, build, plan_moves, read_inventory, release_hold, retire, statements, undo, unseal,
};

use super::meanwhile::{Disturbance, Disturbing, Watch, pid, until};
use super::retire::filled;
use super::said::{Said, heard};
use super::*;

/// Records the locks of a session at the end of each DDL statement, and at each record, the last statement of most operations.
const RECORDER: &str = "
    CREATE SCHEMA watch;
    CREATE TABLE watch.seen (point text, name text, mode text);
    CREATE TABLE watch.standing AS
        SELECT oid, relname::text AS name FROM pg_class WHERE relnamespace = 'dalp_indexed'::regnamespace;
    CREATE FUNCTION watch.look(point text) RETURNS void LANGUAGE sql AS $$
        INSERT INTO watch.seen SELECT point, COALESCE(s.name, c.relname), l.mode
        FROM pg_locks AS l LEFT JOIN watch.standing AS s ON s.oid = l.relation
        LEFT JOIN pg_class AS c ON c.oid = l.relation AND c.relnamespace = 'dalp_indexed'::regnamespace
        WHERE l.pid = pg_backend_pid() AND l.granted AND l.locktype = 'relation' AND COALESCE(s.name, c.relname) LIKE 'logs%'
      UNION ALL SELECT point, '', 'AccessShareLock'
    $$;
    CREATE FUNCTION watch.ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN PERFORM watch.look(tg_tag); END $$;
    CREATE EVENT TRIGGER look ON ddl_command_end EXECUTE FUNCTION watch.ddl();
    CREATE FUNCTION watch.told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN PERFORM watch.look(NEW.action); RETURN NULL; END $$;
    CREATE TRIGGER look AFTER INSERT ON dalp_audit.activity FOR EACH ROW EXECUTE FUNCTION watch.told()";

const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

const ROOT: &str = "logs";
const PARENT: &str = "logs_31337";

fn leaf(day: u32) -> String {
    format!("logs_31337_202403{day:02}")
}

/// The strongest lock on each table and index that was held at some point since the last look, by point. Beyond all budgets: a lock
/// on a partitioned table that readers or writers wait for.
async fn seen(admin: &Client, what: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut seen: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for row in admin.query("DELETE FROM watch.seen RETURNING point, name, mode", &[]).await.unwrap() {
        let (point, name, mode): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let rank = MODES.iter().position(|known| *known == mode).unwrap();
        let strongest = seen.entry(point).or_default().entry(name).or_default();
        *strongest = rank.max(*strongest);
    }
    for (point, locks) in &seen {
        for (name, rank) in locks {
            let is_parent = !name.contains("_2024");
            assert!(!is_parent || *rank <= 3, "{what}: {point} takes {} on {name}", MODES[*rank]);
        }
    }
    let named = |locks: BTreeMap<String, usize>| {
        locks.into_iter().map(|(name, rank)| (name, MODES[rank].trim_end_matches("Lock").to_owned())).collect()
    };
    seen.into_iter().map(|(point, locks)| (point, named(locks))).collect()
}

/// The assertion of a point: the strongest lock on each table and partitioned index. Indexes of leaves go with their leaf.
fn expect(seen: &BTreeMap<String, BTreeMap<String, String>>, what: &str, point: &str, expected: &[(&str, &str)]) {
    let is_of_leaf = |name: &str| name.contains("_2024") && name.split('_').count() > 3;
    let locks: BTreeMap<&str, &str> = seen
        .get(point)
        .unwrap_or_else(|| panic!("{what}: {point} was not seen among {:?}", seen.keys()))
        .iter()
        .filter(|(name, _)| !name.is_empty() && !is_of_leaf(name))
        .map(|(name, mode)| (name.as_str(), mode.as_str()))
        .collect();
    assert_eq!(locks, expected.iter().copied().collect(), "{what}: {point}");
}

fn retention(keep: i64) -> Retention {
    Retention {
        action: Action::Drop,
        time: TimeDelta::days(keep),
        grace: TimeDelta::zero(),
        max_leaves: 9,
        max_share: 1.0,
    }
}

async fn run_with(client: &mut Client, retention: Retention, switches: Switches) -> Outcome {
    let reference = Reference::Final(BTreeMap::from([(CHAIN, now())]));
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive: true, allow_many: false };
    retire(client, &logs(), &terms, None).await.unwrap()
}

async fn run(client: &mut Client, keep: i64, switches: Switches) -> Outcome {
    run_with(client, retention(keep), switches).await
}

fn done(outcome: &Outcome) -> Vec<Act> {
    outcome.done.iter().map(|done| done.act).collect()
}

fn failed(outcome: &Outcome) -> Vec<Act> {
    outcome.failed.iter().map(|(next, _)| next.act).collect()
}

const OFF: Switches = Switches { create: true, archive: true, detach: false, drop: false };
const KEPT: Switches = Switches { detach: true, ..OFF };

/// A database in which 03-11 is detached, watched, with a blocking session.
struct Scene {
    database: Database,
    admin: Client,
    client: Client,
    said: Said,
    kind: Disturbance,
    disturbing: Option<Disturbing>,
    what: String,
}

impl Scene {
    async fn new(kind: Disturbance) -> Self {
        let (database, admin, _) = filled().await;
        let (mut client, said) = heard(&database, "dalp_partitioner").await;
        let outcome = run(&mut client, 8, KEPT).await;
        assert_eq!(done(&outcome), [Act::Seal, Act::Retire, Act::Detach]);
        meanwhile::fill(&database, 18).await;
        admin.batch_execute(RECORDER).await.unwrap();
        let disturbing = Some(Disturbing::start(&database, kind).await);
        Self { database, admin, client, said, kind, disturbing, what: format!("{kind:?}") }
    }

    /// Asserts the locks of these points, and clears the observations.
    async fn saw(&self, points: &[(&str, &[(&str, &str)])]) {
        let seen = seen(&self.admin, &self.what).await;
        for (point, expected) in points {
            expect(&seen, &self.what, point, expected);
        }
    }

    /// Ends the blocking session.
    async fn calm(&mut self) {
        let disturbing = self.disturbing.take().unwrap();
        disturbing.end(&self.database).await;
    }

    async fn state_of(&mut self, day: u32) -> Option<State> {
        let entries = read_inventory(&mut self.client, &logs()).await.unwrap().entries;
        entries.into_iter().find(|entry| entry.leaf == leaf(day)).map(|entry| entry.state)
    }

    async fn makes_and_holds(&mut self) {
        let need = Need::rows(["2024-03-21T00:00:00Z", "2024-03-22T00:00:00Z"].map(at));
        let report = make(&mut self.client, &logs(), &need).await.unwrap();
        assert_eq!((report.created.len(), report.retries), (2, 0), "{}", self.what);
        let made = [
            (ROOT, "AccessShare"),
            (PARENT, SHARE_UPDATE),
            ("logs_31337_block_number_idx", SHARE_UPDATE),
            ("logs_31337_pkey", SHARE_UPDATE),
            ("logs_31337_20240321", EXCLUSIVE),
            ("logs_31337_20240322", EXCLUSIVE),
        ];
        self.saw(&[("ALTER TABLE", &made)]).await;
        let scope = Scope { key: None, from: Some(at("2024-03-13T00:00:00Z")), to: None };
        let (hold, _) = add_hold(&mut self.client, &logs(), &scope, "r", "a").await.unwrap();
        release_hold(&mut self.client, &registry(), hold, "a").await.unwrap();
        self.saw(&[("hold.add", &[]), ("hold.release", &[])]).await;
    }

    /// 03-11 is dropped, 03-12 goes as far as the blocking session allows.
    async fn goes(&mut self) {
        let gone = run(&mut self.client, 8, Switches::ALL).await;
        assert_eq!((done(&gone), failed(&gone)), (vec![Act::Drop], vec![]), "{}: {:?}", self.what, gone.failed);
        let dropped = [("logs_31337_20240311", EXCLUSIVE)];
        self.saw(&[("DROP TABLE", &dropped), ("partition.drop", &dropped)]).await;

        // Sealed by hand, and sealed over: to drop a trigger would lock readers out.
        let entries = read_inventory(&mut self.client, &logs()).await.unwrap().entries;
        let entry = entries.into_iter().find(|entry| entry.leaf == leaf(12)).unwrap();
        let seal = statements(&logs(), &Move { entry, act: Act::Seal }).join("; ");
        self.admin.batch_execute(&seal).await.unwrap();
        self.saw(&[]).await;
        let before = self.said.count();
        let outcome = run(&mut self.client, 7, KEPT).await;
        let (went, stuck) = match self.kind {
            Disturbance::Nothing | Disturbance::Vacuum(_) => (vec![Act::Seal, Act::Retire, Act::Detach], vec![]),
            // It holds the parent, but neither the leaf nor a snapshot.
            Disturbance::Pruned => (vec![Act::Seal, Act::Retire, Act::Finalize], vec![Act::Detach]),
            Disturbance::Unpruned | Disturbance::Copy => {
                (vec![Act::Seal, Act::Retire], vec![Act::Detach, Act::Finalize])
            }
        };
        assert_eq!((done(&outcome), failed(&outcome)), (went, stuck.clone()), "{}: {:?}", self.what, outcome.failed);
        let sealed = [("logs_31337_20240312", "ShareRowExclusive")];
        self.saw(&[("CREATE TRIGGER", &sealed), ("partition.seal", &sealed), ("partition.retire", &[])]).await;
        // The blocked leaf was waited for as long as allowed: once with the patience of a detach, behind which no session waits,
        // and five times briefly. The blocking session is named.
        let pid = self.disturbing.as_ref().unwrap().pid;
        let is_named = |error: &Error| matches!(error, Error::InTheWay { holders, .. } if holders.contains(&format!("pid {pid} ")));
        assert!(outcome.failed.iter().all(|(_, error)| is_named(error)), "{}: {:?}", self.what, outcome.failed);
        let tries = |word| self.said.since(before, &["DETACH PARTITION", word]).len();
        let expected = match stuck[..] {
            [] => (1, 0),
            [_] => (1, 1),
            _ => (1, 5),
        };
        assert_eq!((tries("CONCURRENTLY"), tries("FINALIZE")), expected, "{}", self.what);
        if stuck.contains(&Act::Finalize) {
            self.is_pending().await;
            self.calm().await;
            let outcome = run(&mut self.client, 7, KEPT).await;
            assert_eq!((done(&outcome), failed(&outcome)), (vec![Act::Finalize], vec![]), "{}", self.what);
            let finalized = [(PARENT, SHARE_UPDATE), ("logs_31337_20240312", EXCLUSIVE)];
            self.saw(&[("ALTER TABLE", &finalized), ("partition.finalize", &finalized)]).await;
            // Only now: FINALIZE waits for the snapshot of a COPY that came later, too.
            self.disturbing = Some(Disturbing::start(&self.database, self.kind).await);
        }
    }

    /// The leaf is sealed, retired, invisible, and blocks nobody; the record names its blocker.
    async fn is_pending(&mut self) {
        let pending = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending";
        assert_eq!(strings(&self.admin, pending).await, ["dalp_indexed.logs_31337_20240312"], "{}", self.what);
        let pid = self.disturbing.as_ref().unwrap().pid;
        let told = "SELECT outcome FROM dalp_audit.activity WHERE action = 'partition.failed'";
        let told = strings(&self.admin, told).await;
        assert!(told.len() == 2 && told.iter().all(|told| told.contains(&format!("pid {pid} "))), "{told:?}");
        let count = "SELECT count(*)::text FROM dalp_indexed.logs WHERE block_time < '2024-03-13'";
        assert_eq!(strings(&self.admin, count).await, ["0"]);
        let write = |day: u32| {
            format!(
                "INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-{day} 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')"
            )
        };
        let refused = self.admin.batch_execute(&write(12)).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "23514");
        self.admin.batch_execute(&write(13)).await.unwrap();
        // New leaves can be made, and another due leaf waits and does not begin.
        make(&mut self.client, &logs(), &Need::rows([at("2024-03-23T00:00:00Z")])).await.unwrap();
        self.saw(&[]).await;
        self.admin
            .batch_execute("UPDATE dalp_indexed.leaf SET state = 'RETIRED' WHERE leaf = 'logs_31337_20240313'")
            .await
            .unwrap();
        let inventory = read_inventory(&mut self.client, &logs()).await.unwrap();
        let (retention, reference) = (retention(6), Reference::Final(BTreeMap::from([(CHAIN, now())])));
        let terms = Terms {
            retention: &retention,
            switches: KEPT,
            reference: &reference,
            can_archive: true,
            allow_many: false,
        };
        let obstacles = plan_moves(&inventory, &terms).obstacles;
        let waits = obstacles.iter().any(|(entry, why)| {
            entry.leaf == leaf(13) && matches!(why, Obstacle::Pending { leaf: first } if *first == leaf(12))
        });
        assert!(waits, "{obstacles:?}");
        self.admin
            .batch_execute("UPDATE dalp_indexed.leaf SET state = 'ATTACHED' WHERE leaf = 'logs_31337_20240313'")
            .await
            .unwrap();
    }

    async fn comes_back(&mut self) {
        let undone = undo(&mut self.client, &logs(), &leaf(12), "r", "a").await.unwrap();
        let attached = [
            (ROOT, "AccessShare"),
            (PARENT, SHARE_UPDATE),
            ("logs_31337_block_number_idx", SHARE_UPDATE),
            ("logs_31337_pkey", SHARE_UPDATE),
            ("logs_31337_20240312", EXCLUSIVE),
        ];
        self.saw(&[("ALTER TABLE", &attached), ("partition.undo", &attached)]).await;
        release_hold(&mut self.client, &registry(), undone.hold, "a").await.unwrap();
        // Sealed and no further: there is no archive.
        let archive = Retention { action: Action::Archive, ..retention(7) };
        let sealed = run_with(&mut self.client, archive, OFF).await;
        assert_eq!((done(&sealed), failed(&sealed)), (vec![Act::Seal], vec![Act::Archive]), "{}", self.what);
        self.saw(&[]).await;
        unseal(&mut self.client, &logs(), &leaf(12)).await.unwrap();
        let opened = [("logs_31337_20240312", EXCLUSIVE)];
        self.saw(&[("DROP TRIGGER", &opened), ("partition.unseal", &opened)]).await;
        assert_eq!(self.state_of(12).await, Some(State::Attached));
    }

    /// One leaf at once, and one while it is in use: that one waits for older snapshots, and writers continue.
    async fn gets_indexes(&mut self) {
        let table = logs().with_leaf_indexes([Index::on(["tx_index"])]);
        let catalog = read(&mut self.client, &table, CHAIN).await.unwrap();
        let made = build(&mut self.client, &table, &catalog, &leaf(17), false).await.unwrap();
        assert_eq!(made, Indexed::Made(1), "{}", self.what);
        self.saw(&[("CREATE INDEX", &[("logs_31337_20240317", "Share")])]).await;
        if self.kind != Disturbance::Copy {
            let made = build(&mut self.client, &table, &catalog, &leaf(19), true).await.unwrap();
            assert_eq!(made, Indexed::Made(1), "{}", self.what);
            return;
        }
        let (database, id) = (self.database.name().to_owned(), pid(&self.client).await);
        let held = async {
            let held = waiting(&self.database, id, "virtualxid").await;
            println!("{database}: {held:?}");
            self.disturbing.take().unwrap().end(&self.database).await;
            held
        };
        let (leaf, client) = (leaf(19), &mut self.client);
        let (made, held) = tokio::join!(build(client, &table, &catalog, &leaf, true), held);
        assert_eq!(made.unwrap(), Indexed::Made(1));
        assert_eq!(held, ["logs_31337_20240319 ShareUpdateExclusiveLock"]);
    }
}

const SHARE_UPDATE: &str = "ShareUpdateExclusive";
const EXCLUSIVE: &str = "AccessExclusive";

/// Tables that a session holds beyond ACCESS SHARE, when it has come to wait for such a lock.
async fn waiting(database: &Database, id: i32, kind: &str) -> Vec<String> {
    let waits = format!("SELECT count(*)::int8 FROM pg_locks WHERE pid = {id} AND NOT granted AND locktype = '{kind}'");
    until(database, &waits).await;
    let held = format!(
        "SELECT DISTINCT relname || ' ' || mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation \
         WHERE pid = {id} AND granted AND relkind IN ('r', 'p') AND relname LIKE 'logs%' AND mode <> 'AccessShareLock' ORDER BY 1"
    );
    strings(&database.connect().await, &held).await
}

async fn play(kind: Disturbance) {
    let mut scene = Scene::new(kind).await;
    let (watch, id) = (Watch::start(&scene.database).await, pid(&scene.client).await);
    scene.makes_and_holds().await;
    scene.goes().await;
    scene.comes_back().await;
    scene.gets_indexes().await;
    if scene.disturbing.is_some() {
        scene.calm().await;
    }
    scene.said.kept_to_budgets(&scene.what);
    for (wait, longest) in watch.judge(id, &scene.what).await {
        println!("{}: {longest:?} for {} {} by {:.60}", scene.what, wait.kind, wait.on, wait.query);
    }
}

/// No lock on a parent is stronger than SHARE UPDATE EXCLUSIVE, which only other maintenance waits for; the leaf is locked as the
/// operation needs, other leaves not at all. Beside any session, the waits keep to the budget, and readers and writers elsewhere
/// do not wait.
#[tokio::test(flavor = "multi_thread")]
async fn each_operation_keeps_to_its_budget() {
    let kinds =
        [Disturbance::Nothing, Disturbance::Pruned, Disturbance::Unpruned, Disturbance::Copy, Disturbance::Vacuum(18)];
    let scenes: Vec<_> = kinds.map(|kind| tokio::spawn(play(kind))).into();
    for scene in scenes {
        scene.await.unwrap();
    }
}

/// A whole detach in slow motion: its locks while it waits for its locks, for readers, and for the leaf.
#[tokio::test(flavor = "multi_thread")]
async fn a_detaching_holds_the_parent_only_while_it_works() {
    let (database, admin, mut client) = filled().await;
    let blocker = database.connect().await;
    let id = pid(&client).await;
    let entries = read_inventory(&mut client, &logs()).await.unwrap().entries;
    let next = Move { entry: entries[0].clone(), act: Act::Detach };
    let detach = statements(&logs(), &next).concat();
    // First half: at the leaf's lock it has the parent's.
    blocker
        .batch_execute("BEGIN; LOCK TABLE ONLY dalp_indexed.logs_31337_20240311 IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .unwrap();
    let reader = database.connect().await;
    reader.batch_execute("BEGIN; SELECT FROM dalp_indexed.logs WHERE block_time = '2024-03-19'").await.unwrap();
    let watch = Watch::start(&database).await;
    let task = tokio::spawn(async move { client.batch_execute(&detach).await });
    assert_eq!(waiting(&database, id, "relation").await, ["logs_31337 ShareUpdateExclusiveLock"]);
    blocker.batch_execute("COMMIT").await.unwrap();
    // Between: nothing.
    assert_eq!(waiting(&database, id, "virtualxid").await, [""; 0]);
    // Second half: the leaf, which only a session that names it can still see.
    blocker.batch_execute("BEGIN; SELECT FROM dalp_indexed.logs_31337_20240311").await.unwrap();
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting(&database, id, "relation").await, ["logs_31337 ShareUpdateExclusiveLock"]);
    blocker.batch_execute("COMMIT").await.unwrap();
    task.await.unwrap().unwrap();
    watch.judge(id, "detach").await;
    let rest = "SELECT count(*)::text FROM pg_inherits WHERE inhdetachpending";
    assert_eq!(strings(&admin, rest).await, ["0"]);
}

async fn told(admin: &Client) -> Vec<String> {
    strings(admin, "SELECT outcome FROM dalp_audit.activity WHERE action = 'partition.failed' ORDER BY occurred_at")
        .await
}

/// Each waits half a minute and longer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_left_for_later() {
    let vacuumed = tokio::spawn(a_vacuum_of_the_leaf_is_not_waited_for_for_long());
    let used = tokio::spawn(a_leaf_that_somebody_uses_is_sealed_opened_and_brought_back_later());
    let elsewhere = tokio::spawn(a_snapshot_elsewhere_is_named_when_it_is_in_the_way());
    for scene in [vacuumed, used, elsewhere] {
        scene.await.unwrap();
    }
}

/// It is waited for briefly, a few times; a move that did not begin changed nothing, and continues when the vacuum has ended.
async fn a_vacuum_of_the_leaf_is_not_waited_for_for_long() {
    let (database, admin, _) = filled().await;
    let (mut client, said) = heard(&database, "dalp_partitioner").await;
    meanwhile::fill(&database, 11).await;
    let (watch, id) = (Watch::start(&database).await, pid(&client).await);
    for (number, (stuck, mode, before, after)) in [
        (Act::Seal, "SHARE ROW EXCLUSIVE", vec![], State::Attached),
        (Act::Detach, "SHARE UPDATE EXCLUSIVE", vec![Act::Retire], State::Retired),
        (Act::Drop, "ACCESS EXCLUSIVE", vec![], State::Detached),
    ]
    .into_iter()
    .enumerate()
    {
        let vacuum = Disturbing::start(&database, Disturbance::Vacuum(11)).await;
        let count = said.count();
        let outcome = run(&mut client, 8, Switches::ALL).await;
        assert_eq!((done(&outcome), failed(&outcome)), (before, vec![stuck]), "{:?}", outcome.failed);
        let tries = said.since(count, &["LOCK TABLE ONLY", "logs_31337_20240311", mode]);
        assert_eq!(tries.len(), 5, "five brief ones: {tries:?}");
        let told = told(&admin).await;
        assert!(told.len() == number + 1 && told[number].contains(&format!("pid {} ", vacuum.pid)), "{told:?}");
        let entries = read_inventory(&mut client, &logs()).await.unwrap().entries;
        let facts: Vec<_> = entries.iter().filter(|entry| entry.leaf == leaf(11)).map(|entry| entry.state).collect();
        assert_eq!(facts, [after]);
        vacuum.end(&database).await;
        match stuck {
            Act::Seal => {
                let archive = Retention { action: Action::Archive, ..retention(8) };
                assert_eq!(done(&run_with(&mut client, archive, OFF).await), [Act::Seal]);
                // The failure to archive is recorded, too.
                admin
                    .batch_execute("DELETE FROM dalp_audit.activity WHERE outcome LIKE '%no archive is configured%'")
                    .await
                    .unwrap();
            }
            Act::Detach => assert_eq!(done(&run(&mut client, 8, KEPT).await), [Act::Detach]),
            _ => assert_eq!(done(&run(&mut client, 8, Switches::ALL).await), [Act::Drop]),
        }
    }
    said.kept_to_budgets("vacuum of the leaf");
    watch.judge(id, "vacuum of the leaf").await;
}

async fn a_leaf_that_somebody_uses_is_sealed_opened_and_brought_back_later() {
    let (database, admin, _) = filled().await;
    let (mut client, said) = heard(&database, "dalp_partitioner").await;
    let (watch, id) = (Watch::start(&database).await, pid(&client).await);
    let user = database.connect().await;
    let row =
        "INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-11 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')";
    user.batch_execute(&format!("BEGIN; {row}")).await.unwrap();
    let outcome = run(&mut client, 8, KEPT).await;
    assert_eq!((done(&outcome), failed(&outcome)), (vec![], vec![Act::Seal]));
    user.batch_execute("COMMIT").await.unwrap();
    let named = format!("pid {} ", pid(&user).await);
    assert!(told(&admin).await[0].contains(&named));
    let archive = Retention { action: Action::Archive, ..retention(8) };
    assert_eq!(done(&run_with(&mut client, archive, OFF).await), [Act::Seal]);

    user.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
    let error = unseal(&mut client, &logs(), &leaf(11)).await.unwrap_err();
    assert!(matches!(&error, Error::Locked { holders, .. } if holders.contains(&named)), "{error}");
    // Its detaching is cut short. Bringing it back begins with ending that, and leaves can be made in between.
    let cut = "ALTER TABLE dalp_indexed.logs_31337 DETACH PARTITION dalp_indexed.logs_31337_20240311 CONCURRENTLY";
    admin.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
    admin.batch_execute(cut).await.unwrap_err();
    admin.batch_execute("SET lock_timeout = 0").await.unwrap();
    let mut maker = as_role(&database, "dalp_partitioner").await;
    let before = said.count();
    let back = tokio::spawn(async move { (undo(&mut client, &logs(), &leaf(11), "r", "a").await, client) });
    until(&database, &format!("SELECT count(*)::int8 FROM pg_locks WHERE pid = {id} AND NOT granted")).await;
    make(&mut maker, &logs(), &Need::rows([at("2024-03-21T00:00:00Z")])).await.unwrap();
    assert!(!back.is_finished(), "the leaf was made when the other had given up");
    let (undone, mut client) = back.await.unwrap();
    let tries = said.since(before, &["FINALIZE"]).len();
    assert_eq!(tries, 10, "ten brief ones");
    let error = undone.unwrap_err();
    assert!(matches!(&error, Error::Locked { holders, .. } if holders.contains(&named)), "{error}");
    user.batch_execute("COMMIT").await.unwrap();
    undo(&mut client, &logs(), &leaf(11), "r", "a").await.unwrap();
    user.batch_execute(&row.replace("00:30", "00:31")).await.unwrap();
    said.kept_to_budgets("a leaf in use");
    watch.judge(id, "a leaf in use").await;
}

/// FINALIZE waits for snapshots of any kind: the record names a session with one.
async fn a_snapshot_elsewhere_is_named_when_it_is_in_the_way() {
    let (database, admin, mut client) = filled().await;
    let (reader, elsewhere) = (database.connect().await, database.connect().await);
    reader.batch_execute("BEGIN; SELECT FROM dalp_indexed.logs WHERE block_time = '2024-03-19'").await.unwrap();
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM dalp_indexed.blocks";
    elsewhere.batch_execute(snapshot).await.unwrap();
    let cut = "ALTER TABLE dalp_indexed.logs_31337 DETACH PARTITION dalp_indexed.logs_31337_20240311 CONCURRENTLY";
    admin.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
    admin.batch_execute(cut).await.unwrap_err();
    reader.batch_execute("COMMIT").await.unwrap();
    let outcome = run(&mut client, 8, OFF).await;
    assert_eq!(failed(&outcome), [Act::Finalize]);
    let named = format!("pid {} ", pid(&elsewhere).await);
    assert!(told(&admin).await[0].contains(&named), "{:?}", told(&admin).await);
}

/// Looks while the rows of a parent are gathered: ANALYZE evaluates the requested statistics.
const DURING: &str = "
    CREATE FUNCTION watch.during(at timestamptz) RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
        $$ BEGIN PERFORM watch.look('ANALYZE'); RETURN 1; END $$;
    CREATE STATISTICS dalp_indexed.of_root ON (watch.during(block_time)) FROM dalp_indexed.logs;
    CREATE STATISTICS dalp_indexed.of_parent ON (watch.during(block_time)) FROM dalp_indexed.logs_31337";

#[tokio::test(flavor = "multi_thread")]
async fn analyzing_locks_a_parent_against_maintenance_only() {
    let (database, admin, mut client) = filled().await;
    admin.batch_execute(RECORDER).await.unwrap();
    admin.batch_execute(DURING).await.unwrap();
    let (watch, id) = (Watch::start(&database).await, pid(&client).await);
    analyze(&mut client, &logs(), CHAIN, &["logs_31337_20240319"], super::server::PATIENCE).await.unwrap();
    let held = "SELECT DISTINCT name || ' ' || mode FROM watch.seen \
                WHERE point = 'ANALYZE' AND name IN ('logs', 'logs_31337') AND mode <> 'AccessShareLock' ORDER BY 1";
    let expected = ["logs ShareUpdateExclusiveLock", "logs_31337 ShareUpdateExclusiveLock"];
    assert_eq!(strings(&admin, held).await, expected);
    watch.judge(id, "analyze").await;
}

/// No session waits for leaves ahead: a few tries, and the next turn comes. The blocking session is named with its statement.
#[tokio::test]
async fn leaves_ahead_are_tried_briefly() {
    let (database, _admin, mut client) = filled().await;
    let other = database.connect().await;
    let lock = "BEGIN; LOCK TABLE ONLY dalp_indexed.logs_31337 IN SHARE UPDATE EXCLUSIVE MODE; SELECT 'theirs'";
    other.batch_execute(lock).await.unwrap();
    let error = make(&mut client, &logs(), &Need::ahead_of(at("2024-04-01T00:00:00Z"))).await.unwrap_err();
    let Error::Locked { tries: 8, holders, .. } = &error else { panic!("{error}") };
    assert!(
        holders.contains(&format!("pid {} ", pid(&other).await)) && holders.contains("SELECT 'theirs'"),
        "{holders}"
    );
}
