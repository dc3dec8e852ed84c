#!/bin/bash
# Folders of a Parquet data set named by tenant or chain (key=…), as four readers take them.
#
# Guess before it was run: a folder's name is text, or a number where all of them are numbers; two folders are never one key, and each name can
# be asked for.
#
# Seen with pyarrow 25.0.1, Polars 2.1.0, Daft 0.7.26, DuckDB 2.0.0, one row a folder, and no error anywhere:
#   - key=01 and key=1: two tenants are one (the number 1) in pyarrow, Polars and Daft. DuckDB keeps them apart as text.
#   - key=1 and key=main: where Daft meets 1 first it gives null for main; in the other order it says text for both, as the others do.
#   - key=1 and key=3448148188, a chain id above 2^31: pyarrow makes all keys text, also that of chain 1, and numbers only of what fits 32 bits.
#   - key=1 and key=9223372036854775808 (2^63): Daft gives null for it, Polars 128-bit numbers, DuckDB and pyarrow text.
#   - key=1e3 and key=2e3: Polars and Daft give the doubles 1000 and 2000. The others keep text.
#
# What follows: the key belongs into the file as a column, too; a name of a folder is good for pruning only. Or tell each reader the key's type.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pyarrow==25.0.1 polars==2.1.0 daft==0.7.26 duckdb==2.0.0
cat >keys.py <<'PY'
import glob, os, sys
import daft, duckdb, polars, pyarrow, pyarrow.dataset, pyarrow.parquet

# In the order in which the folders were made: Daft's answer depends on it.
files = lambda place: sorted(glob.glob(f"{place}/*/*.parquet"), key=lambda file: NAMES.index(file.split("/")[1].removeprefix("key=")))
NAMES = ["01", "1", "main", "3448148188", str(2**63), "1e3", "2e3"]
READERS = {
    "pyarrow": lambda place: pyarrow.dataset.dataset(place, partitioning="hive").to_table()["key"].to_pylist(),
    "Polars": lambda place: polars.scan_parquet(f"{place}/**/*.parquet", hive_partitioning=True).collect()["key"].to_list(),
    "Daft": lambda place: daft.read_parquet(files(place), hive_partitioning=True).to_pydict()["key"],
    "DuckDB": lambda place: [key for (key,) in duckdb.sql(f"SELECT key FROM read_parquet('{place}/*/*.parquet', hive_partitioning = true)").fetchall()],
}
ORDER = list(READERS)
tries = {
    ("01", "1"): [[1, 1], [1, 1], [1, 1], ["01", "1"]],
    ("1", "main"): [["1", "main"], ["1", "main"], [1, None], ["1", "main"]],
    ("1", "3448148188"): [["1", "3448148188"], [1, 3448148188], [1, 3448148188], [1, 3448148188]],
    ("1", str(2**63)): [["1", str(2**63)], [1, 2**63], [1, None], ["1", str(2**63)]],
    ("1e3", "2e3"): [["1e3", "2e3"], [1000.0, 2000.0], [1000.0, 2000.0], ["1e3", "2e3"]],
}
alike = lambda keys: sorted(f"{type(key).__name__} {key}" for key in keys)
changed = False
for number, (names, expected) in enumerate(tries.items()):
    place = f"set{number}"
    for name in names:
        os.makedirs(f"{place}/key={name}")
        pyarrow.parquet.write_table(pyarrow.table({"value": [0]}), f"{place}/key={name}/rows.parquet")
    print("folders", *(f"key={name}" for name in names))
    for reader, known in zip(ORDER, expected):
        found = READERS[reader](place)
        note = "" if alike(found) == alike(known) else f"   CHANGED, was {known}"
        changed |= bool(note)
        print(f"  {reader}: {', '.join(alike(found))}{note}")
sys.exit(changed)
PY
env/bin/python keys.py
