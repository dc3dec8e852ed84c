#!/bin/bash
# The sum of a column of DECIMAL(38, 0), in four engines that read the same Parquet file.
#
# Guess before it was run: a sum that has more than 38 digits is refused, as each of them refuses the addition of two such columns (v + v).
#
# Seen with two rows of 10^38 - 1, whose sum has 39 digits:
#   - pyarrow 25.0.1: pc.sum and the sum of a group_by give -140282366920938463463374607431768211458, the mean is negative, too.
#   - DataFusion 55.0.0: SELECT sum(v) gives the same negative number, with and without GROUP BY. avg(v) is refused.
#   - Polars 2.1.0: column.sum() is refused, and so is the streaming engine's group_by; group_by().agg(sum) in memory gives the negative number.
#   - DuckDB 2.0.0 refuses.
# A sum that still fits 127 bits is right, though it has 39 digits in a column of 38.
#
# What follows for whoever adds token amounts: a column of 38 digits may hold each amount and not their sum, and the total of a token is bounded by
# nothing but 78 digits. Add in PostgreSQL (numeric grows), in DuckDB, or with integers of Python; where these engines add, look at the sign.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pyarrow==25.0.1 datafusion==55.0.0 polars==2.1.0 duckdb==2.0.0
cat >sums.py <<'PY'
import decimal, sys
import datafusion, duckdb, polars, pyarrow, pyarrow.compute, pyarrow.parquet

decimal.getcontext().prec = 60
LARGE = decimal.Decimal(10**38 - 1)
WRAPPED = 2 * (10**38 - 1) - 2**128
table = pyarrow.table({"k": [1, 1], "v": pyarrow.array([LARGE, LARGE], pyarrow.decimal128(38, 0))})
pyarrow.parquet.write_table(table, "amounts.parquet")

context = datafusion.SessionContext()
context.register_parquet("amounts", "amounts.parquet")
in_datafusion = lambda question: int(next(iter(context.sql(question).to_pydict().values()))[0])
frame = polars.read_parquet("amounts.parquet")
lazy = polars.scan_parquet("amounts.parquet").group_by("k").agg(polars.col("v").sum())

tries = {
    "pyarrow, sum": (lambda: int(pyarrow.compute.sum(table["v"]).as_py()), WRAPPED),
    "pyarrow, sum of a group": (lambda: int(table.group_by("k").aggregate([("v", "sum")])["v_sum"][0].as_py()), WRAPPED),
    "pyarrow, mean": (lambda: int(pyarrow.compute.mean(table["v"]).as_py()), WRAPPED // 2),
    "pyarrow, v + v": (lambda: int(pyarrow.compute.add(table["v"], table["v"])[0].as_py()), "refused"),
    "DataFusion, sum": (lambda: in_datafusion("SELECT sum(v) FROM amounts"), WRAPPED),
    "DataFusion, sum of a group": (lambda: in_datafusion("SELECT sum(v) FROM amounts GROUP BY k"), WRAPPED),
    "DataFusion, avg": (lambda: in_datafusion("SELECT avg(v) FROM amounts"), "refused"),
    "DataFusion, v + v": (lambda: in_datafusion("SELECT v + v FROM amounts"), "refused"),
    "Polars, sum": (lambda: int(frame["v"].sum()), "refused"),
    "Polars, sum of a group, streaming": (lambda: int(lazy.collect(engine="streaming")["v"][0]), "refused"),
    "Polars, sum of a group, in memory": (lambda: int(frame.group_by("k").agg(polars.col("v").sum())["v"].cast(polars.String)[0]), WRAPPED),
    "DuckDB, sum": (lambda: int(duckdb.sql("SELECT sum(v) FROM 'amounts.parquet'").fetchone()[0]), "refused"),
}
changed = False
for name, (ask, expected) in tries.items():
    try:
        answer = ask()
    except Exception:
        answer = "refused"
    note = "" if answer == expected else f"   CHANGED, was {expected}"
    changed |= bool(note)
    print(f"{name}: {answer}{note}")
sys.exit(changed)
PY
env/bin/python sums.py
