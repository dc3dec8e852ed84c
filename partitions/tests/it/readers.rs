//! Archives in other readers: runs the examples of docs/partitions.md.

use std::path::Path;

use dalp_fixtures::{
    python, python_with_spark,
    tools::{hyparquet, say_stderr},
};
use dalp_partitions::{Act, Switches};

use super::archive::{Folder, acts, run, write};
use super::retire::filled;
use super::*;

/// Runs the blocks of the documentation that begin with the name of a reader, in the archive's folder, and prints the result of
/// each.
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
import glob
for block in blocks("python", "fastparquet"):
    exec(block, names)
files = lambda table: glob.glob(f"data/{table}/chain_id=*/*/*.parquet")
logs = [names["read"](path) for path in files("dalp_indexed.logs")]
words = [word for path in files("dalp_indexed.erc20_transfer") for word in names["read"](path)["value"]]
micros = [time.value // 1000 for frame in logs for time in frame["block_time"]]
print("fastparquet", sum(map(len, logs)), sum(map(names["number"], words)), max(micros), max(max(frame["block_number"]) for frame in logs),
      max(bytes(address).hex() for frame in logs for address in frame["address"]), sep="|")
"#;

/// The script for hyparquet, which reads one file at a time: its arguments are the files of the logs and then of the transfers.
const HYPARQUET: &str = r#"
const [logs, transfers] = [process.argv[1], process.argv[2]].map((list) => list.split(","));
const rows = (await Promise.all(logs.map(read))).flat();
const words = (await Promise.all(transfers.map(read))).flat().map(({ value }) => value);
const largest = rows.map(({ block_number }) => block_number).reduce((a, b) => (a > b ? a : b));
console.log(["hyparquet", rows.length, words.map(number).reduce((a, b) => a + b), 1000 * Math.max(...rows.map(({ block_time }) => block_time.getTime())),
  largest, rows.map(({ address }) => Buffer.from(address).toString("hex")).sort().pop()].join("|"));
"#;

/// The same of Spark: half a minute, half a gigabyte, and Java.
const SPARK: &str = r#"
import os, re, sys
from pyspark.sql import SparkSession
[sql] = re.findall(r"```sql\n-- Spark\b[^\n]*\n(.*?)```", open(sys.argv[1]).read(), re.S)
os.chdir(sys.argv[2])
local = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
spark = SparkSession.builder.master("local[1]").config(map=local).getOrCreate()
spark.read.parquet("data/dalp_indexed.erc20_transfer").createOrReplaceTempView("erc20_transfer")
[(a, b, c, d, minus)] = [[int(part) for part in row] for row in spark.sql(sql).collect()]
logs = spark.read.parquet("data/dalp_indexed.logs")
[facts] = logs.selectExpr("count(*)", "max(unix_micros(block_time))", "max(block_number)", "lower(hex(max(address)))").collect()
print("spark", facts[0], (a << 192) + (b << 128) + (c << 64) + d - (minus << 256), *facts[1:], sep="|")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documentation_says_reads_every_row() {
    let (database, admin, mut client) = filled().await;
    // Bytes that are no text.
    let addresses = "UPDATE dalp_indexed.logs SET address = substr(sha256(block_number::text::bytea), 1, 20)";
    admin.batch_execute(addresses).await.unwrap();
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

    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/partitions.md");
    let mut said = by_python(&python(say_stderr).await.unwrap(), READERS, &docs, &folder).await;
    said += &by_hyparquet(&docs, &folder).await;
    // Spark is much to install, and slow to start.
    let is_long = std::env::var_os("DALP_TEST_LONG").is_some();
    if is_long {
        said += &by_python(&python_with_spark(say_stderr).await.unwrap(), SPARK, &docs, &folder).await;
    }
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
    let last = "concat_ws('|', (extract(epoch FROM max(block_time)) * 1000000)::int8, max(block_number), max(encode(address, 'hex')))";
    let last = one(&format!("SELECT {last} {archived}")).await;
    let mut expected = vec![
        format!("duckdb|31337|{rows}|{total}"),
        "pruned|True".to_owned(),
        one(&facts).await,
        format!("polars|31337|{rows}|{total}"),
        format!("pyarrow|{rows}|{total}"),
        format!("fastparquet|{rows}|{total}|{last}"),
        format!("hyparquet|{rows}|{total}|{last}"),
    ];
    if is_long {
        expected.push(format!("spark|{rows}|{total}|{last}"));
    }
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    drop(database);
}

/// The output of a script, which must have succeeded.
async fn ended(mut command: tokio::process::Command) -> String {
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn by_python(python: &Path, script: &str, docs: &Path, folder: &Folder) -> String {
    let mut command = tokio::process::Command::new(python);
    command.args(["-c", script]).arg(docs).arg(folder.path_of(""));
    ended(command).await
}

async fn by_hyparquet(docs: &Path, folder: &Folder) -> String {
    let docs = std::fs::read_to_string(docs).unwrap();
    let block = docs.split("```js\n// hyparquet").nth(1).unwrap().split("```").next().unwrap();
    let files = |table: &str| {
        let files = folder.paths(&format!("data/{table}"));
        files.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>().join(",")
    };
    let mut command = tokio::process::Command::new("node");
    // Packages are searched from the script's folder.
    command.current_dir(hyparquet(say_stderr).await.unwrap()).args(["--input-type=module", "-e"]);
    command.arg(format!("//{block}{HYPARQUET}")).args([
        "--",
        &files("dalp_indexed.logs"),
        &files("dalp_indexed.erc20_transfer"),
    ]);
    ended(command).await
}
