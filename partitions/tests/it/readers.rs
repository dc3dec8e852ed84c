//! Archives as others read them: what docs/partitions.md says to type is what is run here.

use std::path::Path;

use dalp_fixtures::{python, tools::say_stderr};
use dalp_partitions::{Act, Switches};

use super::archive::{Folder, acts, run, write};
use super::retire::filled;
use super::*;

/// Runs the blocks of the documentation that begin with the name of a reader, in the archive's folder, and prints what each finds.
const READERS: &str = r#"
import os, re, sys
text = open(sys.argv[1]).read()
os.chdir(sys.argv[2])
blocks = lambda language, name: re.findall(rf"```{language}\n(?:--|#) {name}\b[^\n]*\n(.*?)```", text, re.S)
import duckdb
found = [duckdb.sql(statement) for block in blocks("sql", "DuckDB") for statement in block.split(";") if statement.strip()]
(count, total) = [result.fetchall() for result in found if result is not None]
print("duckdb", *count[0], total[0][0], sep="|")
plan = duckdb.sql("EXPLAIN SELECT count(data) FROM read_parquet('data/dalp_indexed.logs/chain_id=*/*/*.parquet', hive_partitioning = true) WHERE chain_id = 1")
print("pruned", "Scanning Files: 0/" in plan.fetchall()[0][1], sep="|")
facts = duckdb.sql("""SELECT min(block_number), max(block_number), min(epoch_us(block_time)), max(epoch_us(block_time)), sum(log_index),
    count(topic0), count(DISTINCT block_hash), max(octet_length(data)), typeof(max(block_time))
    FROM read_parquet('data/dalp_indexed.logs/*/*/*.parquet', hive_partitioning = true)""").fetchone()
print(*facts, sep="|")
names = {}
for block in blocks("python", "Polars") + blocks("python", "pyarrow"):
    exec(block, names)
print("polars", *names["counts"].row(0), names["total"], sep="|")
print("pyarrow", names["rows"], sum(names["words"]), sep="|")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documentation_says_reads_every_row() {
    let (database, admin, mut client) = filled().await;
    let folder = Folder::new();
    let outcome = run(&mut client, &folder.archive(), Switches { detach: false, ..Switches::ALL }).await;
    assert_eq!(acts(&outcome), [Act::Seal, Act::Archive]);
    let transfers = transfers();
    make(&mut client, &transfers, &days(1)).await.unwrap();
    let values = "INSERT INTO dalp_indexed.erc20_transfer SELECT 31337, '2024-03-20 00:00+00', i, 0, '', '', '', v, '' \
                  FROM unnest(ARRAY[0, 1, 10000, 2::numeric ^ 128, 2::numeric ^ 255, 2::numeric ^ 256 - 1]) WITH ORDINALITY AS t (v, i)";
    admin.batch_execute(values).await.unwrap();
    let archive = folder.archive();
    // One that has no beginning beside others that have.
    let bounds = dalp_partitions::Bounds::new(None, at("2030-01-01T00:00:00Z")).unwrap();
    write(&archive, &mut client, &transfers, "erc20_transfer_31337_20240320", bounds, 1).await.unwrap();

    let (python, docs) =
        (python(say_stderr).await.unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/partitions.md"));
    let mut command = tokio::process::Command::new(python);
    let output = command.args(["-c", READERS]).arg(docs).arg(folder.path_of("")).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let archived = "FROM dalp_indexed.logs WHERE block_time < '2024-03-17'";
    let facts = format!(
        "SELECT concat_ws('|', min(block_number), max(block_number), (extract(epoch FROM min(block_time)) * 1000000)::int8, \
         (extract(epoch FROM max(block_time)) * 1000000)::int8, sum(log_index), count(topic0), count(DISTINCT block_hash), \
         max(octet_length(data)), 'TIMESTAMP WITH TIME ZONE') {archived}"
    );
    let one = async |sql: &str| strings(&admin, sql).await.remove(0);
    let (rows, total) = (
        one(&format!("SELECT count(*)::text {archived}")).await,
        one("SELECT sum(value)::text FROM dalp_indexed.erc20_transfer").await,
    );
    let expected = [
        format!("duckdb|31337|{rows}|{total}"),
        "pruned|True".to_owned(),
        one(&facts).await,
        format!("polars|31337|{rows}|{total}"),
        format!("pyarrow|{rows}|{total}"),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{}", String::from_utf8_lossy(&output.stderr));
    drop(database);
}
