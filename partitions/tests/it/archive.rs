//! Archives: exactly the rows of the table, or an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dalp_partitions::archive::count;
use dalp_partitions::{
    Act, Action, Archive, ArchiveError, Bounds, Error, Identity, Listing, Manifest, Outcome, Reference, Request,
    Retention, ServerIdentity, State, Subject, Switches, Terms, read_inventory, release_hold, restore, retire, unseal,
};

use super::retire::filled;
use super::*;

/// A folder of a test's own, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("dalp-archive-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub fn archive(&self) -> Archive {
        Archive::open(&format!("file://{}", self.0.display()), []).unwrap()
    }

    pub fn path_of(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    /// The files below `folder`.
    pub fn paths(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            let Ok(entries) = std::fs::read_dir(folder) else { return };
            for entry in entries.map(Result::unwrap) {
                match entry.path() {
                    path if path.is_dir() => walk(&path, found),
                    path => found.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.0.join(folder), &mut found);
        found
    }

    /// Names of the files below `folder`, in order.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let paths = self.paths(folder);
        let mut found: Vec<_> =
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        found.sort();
        found
    }

    pub fn path(&self, manifest: &Manifest) -> PathBuf {
        self.0.join(&manifest.object)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub async fn strings_of(client: &Client, table: &str) -> Vec<String> {
    strings(client, &format!("SELECT whole::text FROM {table} AS whole ORDER BY 1")).await
}

/// Writes under an invented owner.
pub async fn write(
    archive: &Archive,
    client: &mut Client,
    table: &Table,
    leaf: &str,
    bounds: Bounds,
    version: u32,
) -> Result<Manifest, ArchiveError> {
    let server =
        ServerIdentity { database: "d".to_owned(), oid: 1, system: None, timeline: "1".to_owned(), port: None };
    let identity = Identity { installation: "i".to_owned(), incarnation: "l".to_owned(), server };
    archive.write(client, table, &Subject { key: CHAIN, leaf, bounds, version, identity: &identity }).await
}

pub fn request(leaf: &str) -> Request<'_> {
    Request { leaf, object: None, reason: "audit", author: "ops" }
}

async fn export(client: &mut Client, archive: &Archive, table: &Table, leaf: &str) -> Result<Manifest, ArchiveError> {
    let bounds = Bounds::new(None, at("2030-01-01T00:00:00Z")).unwrap();
    write(archive, client, table, leaf, bounds, 1).await
}

/// Every type that can be archived, with nulls and with extremes.
const KINDS: &str = "
    CREATE TABLE public.kinds (id int8 NOT NULL PRIMARY KEY, b bool, i2 int2, i4 int4, f4 float4, f8 float8, t text, v varchar(10),
        c char(5), y bytea, tz timestamptz, ts timestamp, d date, u uuid, j json, jb jsonb, n5 numeric(5,2), n38 numeric(38,10),
        n18 numeric(18,18), n50 numeric(50), word numeric(78,0));
    INSERT INTO public.kinds (id) VALUES (1);
    INSERT INTO public.kinds VALUES
        (2, true, -32768, 2147483647, 1.5, -1e300, 'ünï', 'x', 'ab', '\\x00ff', '2024-02-29 23:59:59.999999+00', '1999-12-31 12:00:00',
         '0044-03-15 BC', gen_random_uuid(), '{\"a\": 1}', '{\"b\": [1, null]}', -999.99, 1234567890123456789012345678.0123456789,
         0.000000000000000001, -12345678901234567890123456789012345678901234567890, 2::numeric ^ 256 - 1),
        (3, false, 0, -1, 'NaN', 'Infinity', '', '', '', '', '0001-01-01 00:00:00+00', '200000-12-31 23:59:59', '5874897-12-31', NULL,
         'null', 'null', 0.10, -0.0000000001, 0, 0, -(2::numeric ^ 255)),
        (4, false, 7, 7, 0, '-0', repeat('long', 10000), 'y', 'z', decode(repeat('ab', 50000), 'hex'), 'epoch', 'epoch', 'epoch', NULL, '1',
         '1', 100.00, 10000, 0.5, 10000, 10000)";

#[tokio::test]
async fn what_comes_back_is_what_was_there() {
    let (_database, admin, mut client) = filled().await;
    admin.batch_execute(&format!("{KINDS}; GRANT SELECT ON public.kinds TO dalp_partitioner")).await.unwrap();
    admin
        .batch_execute(
            "INSERT INTO dalp_indexed.logs SELECT 31337, '2024-03-12 10:20+00', 1000 + i / 7, i % 7, i, sha256(i::text::bytea), \
                 sha256('t' || i::text::bytea), substr(sha256('a'), 1, 20), CASE WHEN i % 3 > 0 THEN sha256('x') END, NULL, NULL, NULL, \
                 repeat('d', i % 99)::bytea FROM generate_series(0, 125000) AS i",
        )
        .await
        .unwrap();
    let (folder, mut superuser) = (Folder::new(), _database.connect().await);
    superuser.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    for (table, leaf) in [
        (Table::new("dalp_indexed", "logs", "block_time"), "logs_31337_20240312"),
        (Table::new("public", "kinds", "tz"), "kinds"),
    ] {
        let manifest = export(&mut superuser, &folder.archive(), &table, leaf).await.unwrap();
        assert_eq!(folder.archive().verify(&manifest).await.unwrap(), manifest.counted);
        let leaf = format!("\"{}\".\"{leaf}\"", table.schema);
        superuser.batch_execute(&format!("CREATE TABLE public.back (LIKE {leaf} INCLUDING INDEXES)")).await.unwrap();
        let transaction = superuser.transaction().await.unwrap();
        folder.archive().load(&transaction, &manifest, "public.back").await.unwrap();
        let counted = count(&transaction, &Table::new("public", "back", "x"), "back").await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(counted, manifest.counted);
        assert_eq!(strings_of(&admin, "public.back").await, strings_of(&admin, &leaf).await);
        admin.batch_execute("DROP TABLE public.back").await.unwrap();
    }
    // Several row groups, and a manifest that is never overwritten.
    assert_eq!(folder.files("tmp"), [""; 0]);
    let logs = Table::new("dalp_indexed", "logs", "block_time");
    let again = export(&mut client, &folder.archive(), &logs, "logs_31337_20240312").await.unwrap_err();
    assert!(matches!(again, ArchiveError::Exists { .. }), "{again}");
    for manifest in folder.archive().list(None).await.unwrap().manifests {
        folder.archive().verify(&manifest).await.unwrap();
    }
    // Names that a store writes otherwise.
    superuser
        .batch_execute("CREATE TABLE public.\"ä %[x]~\" AS SELECT * FROM public.kinds WHERE id < 2")
        .await
        .unwrap();
    let odd = Table::new("public", "ä %[x]~", "tz");
    let mut manifest = export(&mut superuser, &folder.archive(), &odd, "ä %[x]~").await.unwrap();
    folder.archive().verify(&manifest).await.unwrap();
    folder.archive().void(&manifest).await.unwrap();
    assert!(matches!(folder.archive().verify(&manifest).await, Err(ArchiveError::Missing { .. })));
    // The message names the difference.
    let mut more = folder.archive().list(Some("public.kinds")).await.unwrap().manifests.remove(0);
    more.counted.rows += 1;
    let said = folder.archive().verify(&more).await.unwrap_err().to_string();
    assert!(said.contains("it holds 4 rows with hash ") && said.contains(" file held 5 rows with hash "), "{said}");
    assert!(!said.contains('{') && said.contains("Put a copy back"), "{said}");
    manifest.format += 1;
    assert!(folder.archive().verify(&manifest).await.unwrap_err().to_string().contains("format 2"));
    let misspelt = Archive::open("s3://bucket/x", [("aws_endpiont".to_owned(), "x".to_owned())]).unwrap_err();
    assert!(misspelt.to_string().contains("aws_endpiont"), "{misspelt}");
}

#[tokio::test]
async fn a_place_is_tried_without_a_trace() {
    let folder = Folder::new();
    assert!(folder.archive().probe().await.unwrap().writes_once);
    assert_eq!(folder.files(""), [""; 0]);
    // A folder has the place of the object.
    std::fs::create_dir_all(folder.path_of("probe/in/the/way")).unwrap();
    assert!(matches!(folder.archive().probe().await, Err(ArchiveError::Store { .. })));
    // A file has the place of the folder.
    let file = folder.path_of("file");
    std::fs::write(&file, "").unwrap();
    let archive = Archive::open(&format!("file://{}", file.display()), []).unwrap();
    assert!(archive.probe().await.is_err());
    // A missing folder is not made as a side effect.
    let archive = Archive::open(&format!("file://{}", folder.path_of("gone").display()), []).unwrap();
    assert!(archive.probe().await.is_err());
    assert_eq!(archive.list(None).await.unwrap(), Listing::default());
    assert!(!folder.path_of("gone").exists());
}

/// Types that Parquet has nothing for, with values that it has nothing for.
const ANY: &str = "
    GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner;
    CREATE TYPE dalp_assets.mood AS ENUM ('so', 'so, \"so\"'); CREATE DOMAIN dalp_assets.small AS int CHECK (VALUE < 10);
    CREATE TYPE dalp_assets.pair AS (a int, b text);
    CREATE TABLE dalp_assets.odd (id int8, at timestamptz NOT NULL, n numeric, a text[], g numeric(5,2)[], e dalp_assets.mood,
        d dalp_assets.small, i inet, v interval, r tstzrange, m money, b varbit, f float8[], p dalp_assets.pair, y bytea[], n5 numeric(5,2))
        PARTITION BY RANGE (at);
    CREATE TABLE dalp_assets.odd_old PARTITION OF dalp_assets.odd FOR VALUES FROM (MINVALUE) TO ('2024-03-01 00:00+00');
    CREATE TABLE dalp_assets.odd_new PARTITION OF dalp_assets.odd FOR VALUES FROM ('2024-03-01 00:00+00') TO (MAXVALUE);
    INSERT INTO dalp_assets.odd VALUES
        (1, '2024-02-01', 1.100, '{a,NULL,\"b,c\"}', '{1.5,NULL}', 'so', 3, '10.0.0.0/8', '1 mon -3 days 00:00:00.5', '[2024-01-01,)', 5, B'101',
         '{0.1,1e300,NaN}', (1, 'x,\"y\"'), '{\\\\x00ff}', 1.5),
        (2, '-infinity', 'NaN', '{}', NULL, 'so, \"so\"', NULL, '::1', NULL, 'empty', NULL, NULL, NULL, NULL, NULL, 'NaN'),
        (3, '2024-02-02', 12345678901234567890.000000000000000000001, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    RESET ROLE";

#[tokio::test]
async fn every_type_and_every_value_comes_back_as_it_was() {
    let (database, admin) = database().await;
    admin.batch_execute(ANY).await.unwrap();
    let mut client = as_role(&database, "dalp_partitioner").await;
    let own = Table::flat("dalp_assets", "odd", "at").registered_in(registry());
    let before = strings_of(&admin, "dalp_assets.odd").await;
    let (folder, retention) = (Folder::new(), retention());
    let reference = Reference::Final(BTreeMap::from([(0, chrono::Utc::now())]));
    let switches = Switches::ALL;
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive: true, allow_many: true };
    // How a session writes values makes no difference.
    let odd = "SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape'; SET extra_float_digits = -3";
    client.batch_execute(odd).await.unwrap();
    let outcome = retire(&mut client, &own, &terms, Some(&folder.archive())).await.unwrap();
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(strings_of(&admin, "dalp_assets.odd").await, [""; 0]);
    let manifests = folder.archive().list(None).await.unwrap().manifests;
    let of = |name: &str| manifests[0].columns.iter().find(|column| column.name == name).unwrap().clone();
    assert_eq!((of("e").sql_type.as_str(), of("n").sql_type.as_str()), ("dalp_assets.mood", "numeric"));
    assert!(of("a").parquet_type.contains("as PostgreSQL writes it") && of("id").parquet_type == "INT64");
    assert!(of("at").parquet_type.contains("as PostgreSQL"), "a time of it is infinite");
    let restored = restore(&mut client, &own, &folder.archive(), &request("odd_old")).await.unwrap();
    assert_eq!((restored.rows, restored.cast), (3, Vec::new()));
    assert_eq!(strings_of(&admin, "dalp_assets.odd").await, before);
    for bad in ["ftp://host/x", "nothing", "s3://"] {
        assert!(Archive::open(bad, []).is_err(), "{bad}");
    }
}

pub fn retention() -> Retention {
    Retention {
        action: Action::Archive,
        time: TimeDelta::days(3),
        grace: TimeDelta::zero(),
        max_leaves: 100,
        max_share: 1.0,
    }
}

/// The input of a plan in these tests.
pub fn with_terms<T>(plan: impl FnOnce(&Terms<'_>) -> T) -> T {
    let (retention, reference) = (retention(), Reference::Final(BTreeMap::from([(CHAIN, now())])));
    let switches = Switches::ALL;
    plan(&Terms { retention: &retention, switches, reference: &reference, can_archive: true, allow_many: false })
}

pub async fn run(client: &mut Client, archive: &Archive, switches: Switches) -> Outcome {
    let (retention, reference) = (retention(), Reference::Final(BTreeMap::from([(CHAIN, now())])));
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive: true, allow_many: false };
    retire(client, &logs(), &terms, Some(archive)).await.unwrap()
}

pub fn acts(outcome: &Outcome) -> Vec<Act> {
    let mut acts: Vec<Act> = outcome.done.iter().map(|done| done.act).collect();
    acts.dedup();
    acts
}

pub const KEPT: Switches = Switches { create: true, archive: true, detach: true, drop: false };

pub async fn manifests(client: &mut Client) -> Vec<Manifest> {
    let entries = read_inventory(client, &logs()).await.unwrap().entries;
    entries.into_iter().filter_map(|entry| serde_json::from_value(entry.manifest?).ok()).collect()
}

#[tokio::test]
async fn a_leaf_is_archived_dropped_and_restored() {
    let (_database, admin, mut client) = filled().await;
    let (folder, before) = (Folder::new(), strings_of(&admin, "dalp_indexed.logs").await);
    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(acts(&outcome), [Act::Seal, Act::Archive, Act::Retire, Act::Detach, Act::Drop]);
    assert_eq!(folder.archive().list(Some("dalp_indexed.logs")).await.unwrap().manifests.len(), 6);
    assert_eq!(strings_of(&admin, "dalp_indexed.logs").await.len(), 85);

    let restored = restore(&mut client, &logs(), &folder.archive(), &request("logs_31337_20240316")).await.unwrap();
    assert_eq!((restored.rows, restored.floor), (24, Some(at("2024-03-16T00:00:00Z"))));
    let older = restore(&mut client, &logs(), &folder.archive(), &request("logs_31337_20240312")).await.unwrap();
    assert_eq!(older.floor, Some(at("2024-03-16T00:00:00Z")), "the leaves between are not there");
    let back: Vec<_> = strings_of(&admin, "dalp_indexed.logs").await;
    assert_eq!(back.len(), 133);
    assert!(back.iter().all(|row| before.contains(row)));
    let checks = "SELECT conname::text FROM pg_constraint WHERE conrelid = 'dalp_indexed.logs_31337_20240312'::regclass AND contype = 'c'";
    assert_eq!(strings(&admin, checks).await, [""; 0]);
    for (leaf, why) in
        [("logs_31337_20240316", "it is already in its table"), ("logs_31337_19990101", "holds no archive")]
    {
        let error = restore(&mut client, &logs(), &folder.archive(), &request(leaf)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    // Held until the hold is released; then it goes again, and its archive is still valid.
    assert_eq!(acts(&run(&mut client, &folder.archive(), Switches::ALL).await), []);
    release_hold(&mut client, &registry(), older.hold, "ops").await.unwrap();
    assert_eq!(acts(&run(&mut client, &folder.archive(), Switches::ALL).await), [Act::Retire, Act::Detach, Act::Drop]);
}

#[tokio::test]
async fn nothing_is_dropped_whose_archive_cannot_be_trusted() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    run(&mut client, &folder.archive(), KEPT).await;
    let kept = manifests(&mut client).await;
    assert_eq!(kept.len(), 6);
    let whole = std::fs::read(folder.path(&kept[0])).unwrap();
    let (mut flipped, mut last) = (whole.clone(), whole.clone());
    flipped[whole.len() / 3] ^= 1;
    *last.last_mut().unwrap() ^= 1;
    std::fs::write(folder.path(&kept[0]), flipped).unwrap();
    std::fs::write(folder.path(&kept[1]), &std::fs::read(folder.path(&kept[1])).unwrap()[..100]).unwrap();
    std::fs::remove_file(folder.path(&kept[2])).unwrap();
    std::fs::write(folder.path(&kept[3]), last).unwrap();
    // One leaf whose rows were changed in spite of the seal, and one whose seal was broken and repaired.
    let change = |leaf: &str, what: &str| {
        format!(
            "ALTER TABLE dalp_indexed.{leaf} DISABLE TRIGGER dalp_seal_rows; {what}; \
                 ALTER TABLE dalp_indexed.{leaf} ENABLE ALWAYS TRIGGER dalp_seal_rows"
        )
    };
    admin
        .batch_execute(&change(
            "logs_31337_20240315",
            "DELETE FROM dalp_indexed.logs_31337_20240315 WHERE block_number = 100",
        ))
        .await
        .unwrap();
    admin.batch_execute(&change("logs_31337_20240316", "SELECT 1")).await.unwrap();

    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    let failed: Vec<_> = outcome.failed.iter().map(|(next, error)| (&next.entry.leaf[11..], next.act, error)).collect();
    let refused = failed.iter().filter(|(day, act, error)| {
        (*day, *act) == ("20240315", Act::Recount) && matches!(error, Error::Refused { .. })
    });
    assert_eq!((refused.count(), failed.len()), (1, 5), "{failed:?}");
    let archive_errors =
        failed.iter().filter(|(_, act, error)| *act == Act::Drop && matches!(error, Error::Archive(_)));
    assert_eq!(archive_errors.count(), 4, "{failed:?}");
    let dropped: Vec<_> =
        outcome.done.iter().filter(|done| done.act == Act::Drop).map(|done| &done.leaf[11..]).collect();
    assert_eq!(dropped, ["20240316"]);
    let standing = read_inventory(&mut client, &logs()).await.unwrap().entries;
    assert_eq!(standing.iter().filter(|entry| entry.state == State::Detached).count(), 5);
    // Put right, they go.
    std::fs::write(folder.path(&kept[0]), whole).unwrap();
    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    assert_eq!(outcome.done.iter().map(|done| &done.leaf[11..]).collect::<Vec<_>>(), ["20240311"]);
}

#[tokio::test]
async fn a_leaf_that_is_written_again_is_archived_again() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    let no_further = Switches { detach: false, ..Switches::ALL };
    assert_eq!(acts(&run(&mut client, &folder.archive(), no_further).await), [Act::Seal, Act::Archive]);
    let late =
        "INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-12 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')";
    let refused = admin.batch_execute(late).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "DP001");
    let through = "SET session_replication_role = replica; ";
    assert_eq!(admin.batch_execute(&format!("{through}{late}")).await.unwrap_err().code().unwrap().code(), "DP001");
    admin.batch_execute("RESET session_replication_role").await.unwrap();
    let truncate = "TRUNCATE dalp_indexed.logs_31337_20240312";
    assert_eq!(admin.batch_execute(truncate).await.unwrap_err().code().unwrap().code(), "DP001");

    let void = unseal(&mut client, &logs(), "logs_31337_20240312").await.unwrap().unwrap();
    folder.archive().void(&void).await.unwrap();
    admin.batch_execute(late).await.unwrap();
    assert_eq!(acts(&run(&mut client, &folder.archive(), no_further).await), [Act::Seal, Act::Archive]);
    let void = folder.files("void");
    assert!(
        void.len() == 2 && void.iter().all(|file| file.starts_with("logs_31337_20240312.") && file.contains(".v0001.")),
        "{void:?}"
    );
    assert_eq!(folder.files("data").len(), 6);
    let second = manifests(&mut client).await.into_iter().find(|manifest| manifest.version == 2).unwrap();
    assert_eq!((second.leaf.as_str(), second.counted.rows), ("logs_31337_20240312", 25));
    // The remains of a crash of an earlier version are moved out of the data.
    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let retired = unseal(&mut client, &logs(), "logs_31337_20240311").await;
    assert_eq!(retired.unwrap(), None, "dropped: there is nothing to open");
}
